//! Where the rows of queries go: what an earlier run has left there, and what must not be taken for it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::Query;
use crate::workloads::job::BenchError;

/// The output of a query, without extension: rows go to that with `.ndjson`, or to files below it.
pub(super) fn output_of(dir: &Path, query: Query) -> PathBuf {
    dir.join(query.name())
}

/// Removes what earlier runs have written for these queries.
///
/// # Errors
/// Before anything is removed: `dir` is no directory, or a file of the input is among what would be removed. Else what the
/// system refuses to remove.
pub(super) fn empty(dir: &Path, queries: &[Query], input: &[PathBuf]) -> Result<(), BenchError> {
    if fs::metadata(dir).is_ok_and(|metadata| !metadata.is_dir()) {
        let text = format!("{} is a file, and --output needs a directory: name another, or remove it", dir.display());
        return Err(BenchError::Setting(text));
    }
    let left: Vec<PathBuf> = queries.iter().flat_map(|&query| left_of(&output_of(dir, query))).collect();
    let input: Vec<PathBuf> = input.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    let is_input = |path: &&PathBuf| fs::canonicalize(path).is_ok_and(|path| input.contains(&path));
    if let Some(path) = left.iter().find(is_input) {
        let text = format!(
            "{} is input and lies where results go, which is emptied first: name another directory with --output, or move \
             the file",
            path.display()
        );
        return Err(BenchError::Setting(text));
    }
    left.iter().try_for_each(|path| match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let text = format!("cannot remove {}, which an earlier run has left: {error}", path.display());
            Err(BenchError::Files(text))
        }
        _ => Ok(()),
    })
}

/// The files that earlier runs have left for an output.
fn left_of(output: &Path) -> Vec<PathBuf> {
    let parts = fs::read_dir(output).into_iter().flatten().flatten().map(|entry| entry.path());
    let parts = parts.filter(|path| path.extension().is_some_and(|extension| extension == "ndjson"));
    let one = Some(output.with_extension("ndjson")).filter(|path| path.symlink_metadata().is_ok());
    one.into_iter().chain(parts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_emptied_then_results_of_these_queries_are_gone_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        fs::create_dir(dir.join("q0")).unwrap();
        let results = ["q0.ndjson", "q0/part-7.ndjson"];
        let others = ["q0/notes.txt", "q1.ndjson", "events.ndjson"];
        results.iter().chain(&others).for_each(|name| fs::write(dir.join(name), "").unwrap());
        empty(dir, &[Query::Q0, Query::Q2], &[dir.join("events.ndjson")]).unwrap();
        assert!(results.iter().all(|name| !dir.join(name).exists()));
        assert!(others.iter().all(|name| dir.join(name).exists()));
        empty(&dir.join("not/yet/there"), &[Query::Q0], &[]).unwrap();
    }

    #[test]
    fn when_the_input_lies_among_the_results_then_nothing_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        fs::create_dir(dir.join("q0")).unwrap();
        for (input, named) in [("q0.ndjson", "q0.ndjson"), ("q0/b.ndjson", "link.ndjson")] {
            for name in ["q0.ndjson", "q0/a.ndjson", "q0/b.ndjson"] {
                fs::write(dir.join(name), "").unwrap();
            }
            if input != named {
                std::os::unix::fs::symlink(dir.join(input), dir.join(named)).unwrap();
            }
            let error = empty(dir, &[Query::Q0], &[dir.join(".").join(named)]).unwrap_err();
            assert!(error.is_configuration() && error.to_string().contains(input), "{error}");
            assert!(["q0.ndjson", "q0/a.ndjson", "q0/b.ndjson"].iter().all(|name| dir.join(name).exists()));
        }
    }

    #[test]
    fn when_the_directory_is_a_file_then_the_error_says_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = empty(file.path(), &[Query::Q0], &[]).unwrap_err().to_string();
        assert!(error.contains("is a file") && error.contains("directory"), "{error}");
    }
}
