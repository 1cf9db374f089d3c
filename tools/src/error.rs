//! Why a subcommand failed, as one line that says what happened and one that says what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thalweg::Error;
use thalweg::checkpoint::DisposeError;
use thalweg::entry::{CANCELLED_STATUS, ConfigurationError};
use thalweg::metrics_server::MetricsServerError;
use thalweg::runtime::JobError;
use thalweg_benches::workloads::job::BenchError;

use crate::commands::state::error::StateError;
use crate::rest_client::RestError;

/// A failed subcommand.
#[derive(Debug)]
pub enum CliError {
    /// A file that cannot be written.
    Write {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Standard output that cannot be written.
    Output(io::Error),
    /// Metrics that cannot be served.
    Metrics(MetricsServerError),
    /// A configuration that cannot be read or used.
    Configuration(ConfigurationError),
    /// A workload that could not be run, or not to its end.
    Bench(BenchError),
    /// A checkpoint that cannot be shown, or is damaged.
    State(StateError),
    /// A savepoint that cannot be disposed of.
    Dispose(DisposeError),
    /// A running job that does not do what it was asked for.
    Rest(RestError),
    /// Workloads whose results are not those of the reference.
    Wrong(Vec<String>),
}

impl From<ConfigurationError> for CliError {
    fn from(error: ConfigurationError) -> Self {
        Self::Configuration(error)
    }
}

impl From<BenchError> for CliError {
    fn from(error: BenchError) -> Self {
        Self::Bench(error)
    }
}

impl From<StateError> for CliError {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

impl From<RestError> for CliError {
    fn from(error: RestError) -> Self {
        Self::Rest(error)
    }
}

impl CliError {
    /// A constructor for `map_err`.
    pub fn write(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Write { path: path.to_path_buf(), source }
    }

    /// Whether the reader of standard output has gone, which is no failure of ours.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(source) if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Configuration(_) => 2,
            Self::Bench(BenchError::Job(Error::Job(JobError::Cancelled))) => CANCELLED_STATUS,
            Self::Bench(error) if error.is_configuration() => 2,
            _ => 1,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Write { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => Some("create the directory first, or write elsewhere"),
                io::ErrorKind::PermissionDenied => Some("write to a place that you may write to"),
                io::ErrorKind::StorageFull => Some("make room, or write fewer events"),
                io::ErrorKind::IsADirectory => Some("name a file, not a directory"),
                _ => None,
            },
            Self::Wrong(_) => Some("this is an error in the engine: please report it with the command line"),
            Self::Rest(RestError::Unreachable { .. }) => Some(
                "start the job with --rest-port PORT, and say here where it answers with --rest HOST:PORT; a job that has \
                 ended answers no more",
            ),
            // Their messages say what to do themselves.
            Self::Output(_)
            | Self::Metrics(_)
            | Self::Configuration(_)
            | Self::Bench(_)
            | Self::State(_)
            | Self::Dispose(_)
            | Self::Rest(_) => None,
        }
    }
}

/// `error: ...`, and where there is advice, `hint: ...` on a line of its own.
impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { path, source } => write!(f, "error: cannot write {}: {source}", path.display())?,
            Self::Output(source) => write!(f, "error: cannot write to standard output: {source}")?,
            Self::Metrics(source) => write!(f, "error: {source}")?,
            Self::Configuration(source) => write!(f, "error: {source}")?,
            Self::Bench(source) => write!(f, "error: {source}")?,
            Self::State(source) => write!(f, "error: {source}")?,
            Self::Dispose(source) => write!(f, "error: {source}")?,
            Self::Rest(source) => write!(f, "error: {source}")?,
            Self::Wrong(workloads) => {
                write!(f, "error: the result of {} differs from the reference evaluation", workloads.join(", "))?;
            }
        }
        self.hint().map_or(Ok(()), |hint| write!(f, "\nhint: {hint}"))
    }
}
