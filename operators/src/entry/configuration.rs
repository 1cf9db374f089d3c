//! Where configuration comes from: a file, the directory that `THALWEG_CONF_DIR` names, `-D` on the command line.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use thalweg_model::config::{ConfigError, Configuration};

/// Names the directory of the configuration file where the command line names none.
pub const CONF_DIR: &str = "THALWEG_CONF_DIR";
/// Its file, and the flat one of older Flinks, which is read where the first is missing.
const FILES: [&str; 2] = ["config.yaml", "flink-conf.yaml"];

/// The flags that configuration comes from. Flatten them into a command line of your own.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigurationArgs {
    /// Read settings from this YAML file (a flat one where it is named flink-conf.yaml) [default: config.yaml, else
    /// flink-conf.yaml, in the directory $THALWEG_CONF_DIR]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one key, over what the file says; repeat for several
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    pub define: Vec<String>,
}

/// A configuration that cannot be read or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigurationError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The directory has no configuration.
    #[error(
        "THALWEG_CONF_DIR is {directory}, where there is neither config.yaml nor flink-conf.yaml: write one, or unset it"
    )]
    NoFile {
        /// The directory.
        directory: PathBuf,
    },
    /// What is written there cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl ConfigurationArgs {
    /// Reads all that these flags and `THALWEG_CONF_DIR` name. What its author should know of it goes to the log as
    /// warnings: older spellings, and keys of Flink's that mean nothing here.
    ///
    /// # Errors
    /// A file that cannot be read, a key that nobody knows, a value that its key cannot have.
    pub fn load(&self) -> Result<Configuration, ConfigurationError> {
        self.load_with(&[])
    }

    /// As [`load`](Self::load), with definitions that count more than those of the command line.
    pub(super) fn load_with(&self, definitions: &[String]) -> Result<Configuration, ConfigurationError> {
        let mut builder = Configuration::builder();
        if let Some((path, text)) = find_file(self.config.as_deref(), std::env::var_os(CONF_DIR))? {
            builder = builder.file(&path.to_string_lossy(), &text)?;
        }
        for definition in self.define.iter().chain(definitions) {
            builder = builder.define(definition)?;
        }
        let (configuration, warnings) = builder.build()?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        Ok(configuration)
    }
}

/// The file to read, and what is in it: the one that is named, else one of the directory's, if there is a directory.
fn find_file(
    named: Option<&Path>,
    directory: Option<OsString>,
) -> Result<Option<(PathBuf, String)>, ConfigurationError> {
    let read = |path: PathBuf| match fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(source) => Err(ConfigurationError::Read { path, source }),
    };
    if let Some(path) = named {
        return read(path.to_owned()).map(Some);
    }
    let Some(directory) = directory.filter(|directory| !directory.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    match FILES.iter().map(|name| directory.join(name)).find(|path| path.exists()) {
        Some(path) => read(path).map(Some),
        None => Err(ConfigurationError::NoFile { directory }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_several_files_are_there_then_the_named_one_counts_then_yaml_then_flat() {
        let directory = tempfile::tempdir().unwrap();
        let found = |named: Option<&Path>, directory: &Path| {
            find_file(named, Some(directory.into())).map(|found| found.map(|(_, text)| text))
        };
        let write = |name: &str| {
            let path = directory.path().join(name);
            fs::write(&path, name).unwrap();
            path
        };
        assert!(matches!(found(None, directory.path()), Err(ConfigurationError::NoFile { .. })));
        write("flink-conf.yaml");
        assert_eq!(found(None, directory.path()).unwrap().as_deref(), Some("flink-conf.yaml"));
        write("config.yaml");
        assert_eq!(found(None, directory.path()).unwrap().as_deref(), Some("config.yaml"));
        let named = write("other.yaml");
        assert_eq!(found(Some(&named), directory.path()).unwrap().as_deref(), Some("other.yaml"));
        let missing = directory.path().join("missing.yaml");
        let error = found(Some(&missing), directory.path()).unwrap_err().to_string();
        assert!(error.contains("missing.yaml") && error.contains("No such file"), "{error}");
        assert!(find_file(None, None).unwrap().is_none());
        assert!(find_file(None, Some(OsString::new())).unwrap().is_none());
    }
}
