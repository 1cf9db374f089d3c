//! Where a job's output goes: one file, or a directory with one file per subtask.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::WriteError;

const PART_PREFIX: &str = "part-";

/// The files of an output: `path` itself for one subtask, else `path/part-<subtask>.<extension>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFiles {
    path: PathBuf,
    extension: String,
    parallelism: usize,
}

impl OutputFiles {
    /// Makes room for an output, once, before its writers start: makes the directories it needs and removes what an
    /// earlier run left at `path`, whatever its parallelism was: a file, or a directory's `part-*.<extension>` files.
    ///
    /// # Errors
    /// A directory with other content is in the way of a file; or the system refuses.
    ///
    /// # Panics
    /// Where `parallelism` is 0.
    pub fn prepare(path: impl Into<PathBuf>, extension: &str, parallelism: usize) -> Result<Self, WriteError> {
        assert!(parallelism > 0, "parallelism must be at least 1");
        let output = Self { path: path.into(), extension: extension.to_string(), parallelism };
        output.clear().map_err(|source| WriteError::Create { path: output.path.clone(), source })?;
        let is_directory = output.path.is_dir();
        if parallelism == 1 && is_directory {
            fs::remove_dir(&output.path).map_err(|_| WriteError::Occupied { path: output.path.clone() })?;
        }
        let directory = if parallelism == 1 { output.path.parent() } else { Some(output.path.as_path()) };
        if let Some(directory) = directory {
            fs::create_dir_all(directory)
                .map_err(|source| WriteError::Create { path: directory.to_path_buf(), source })?;
        }
        Ok(output)
    }

    /// The file of a subtask.
    ///
    /// # Panics
    /// Where `subtask` is not below the parallelism.
    pub fn path_of(&self, subtask: usize) -> PathBuf {
        assert!(subtask < self.parallelism, "subtask {subtask} of {}", self.parallelism);
        match self.parallelism {
            1 => self.path.clone(),
            _ => self.path.join(format!("{PART_PREFIX}{subtask}.{}", self.extension)),
        }
    }

    /// Removes the output of an earlier run.
    fn clear(&self) -> io::Result<()> {
        if self.path.is_file() {
            return fs::remove_file(&self.path);
        }
        if !self.path.is_dir() {
            return Ok(());
        }
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if self.is_part(&entry.file_name()) && entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn is_part(&self, name: &std::ffi::OsStr) -> bool {
        let name = Path::new(name);
        let number = name.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.strip_prefix(PART_PREFIX));
        number.is_some_and(|number| number.parse::<usize>().is_ok())
            && name.extension().is_some_and(|extension| extension == self.extension.as_str())
    }
}
