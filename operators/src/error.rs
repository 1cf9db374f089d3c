//! Everything that can go wrong between building a job and its end.

use thalweg_io::connect::{FileError, ReadError};
use thalweg_model::config::ConfigError;
use thalweg_runtime::{JobError, ReactorError};

use crate::{
    cluster::{RestoreError, SnapshotError},
    metrics_server::MetricsServerError,
    rest::RestServerError,
};

/// A job that cannot be run as it was built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// No operator at all.
    #[error("the job has no operators: start with a source, such as env.generate(..), and end in .sink(..)")]
    Empty,
    /// A stream that was dropped before it ended.
    #[error(
        "the stream behind {operator:?} ends in no sink: end it with .sink(discard().0) if its results do not matter"
    )]
    NoSink {
        /// The last operators of the stream.
        operator: String,
    },
    /// Parallelism zero.
    #[error("{operator:?} has parallelism 0: give it at least 1")]
    ZeroParallelism {
        /// The operator.
        operator: String,
    },
    /// More than one subtask of something sequential.
    #[error("{operator:?} can only run with parallelism 1, not {parallelism}")]
    NotParallel {
        /// The operator.
        operator: String,
        /// What was asked for.
        parallelism: u32,
    },
    /// A maximum parallelism out of range.
    #[error("a maximum parallelism of {max} is out of range: give one between 1 and 32768")]
    MaxParallelism {
        /// What was asked for.
        max: u32,
    },
    /// More subtasks than key groups.
    #[error("{operator:?} has parallelism {parallelism}, above its maximum parallelism {max}: raise the latter")]
    ParallelismAboveMax {
        /// The operator.
        operator: String,
        /// What was asked for.
        parallelism: u32,
        /// Its number of key groups.
        max: u32,
    },
    /// A forward edge between different parallelisms.
    #[error("forward() from {from:?} to {to:?} needs one parallelism on both sides: use rebalance() or rescale()")]
    ForwardParallelism {
        /// The sender.
        from: String,
        /// The receiver.
        to: String,
    },
    /// One tag name, two types.
    #[error("the side output {tag:?} is used with two record types: give each type a tag of its own")]
    TagType {
        /// The tag's name.
        tag: String,
    },
    /// The graph has a cycle.
    #[error("the job graph has a cycle")]
    Cycle,
    /// Two operators with one uid.
    #[error(
        "{first:?} and {second:?} have the same uid {uid:?}: give each one of its own, by which its state is found"
    )]
    DuplicateUid {
        /// The uid.
        uid: String,
        /// One operator.
        first: String,
        /// The other.
        second: String,
    },
    /// Settings that do not go together.
    #[error(transparent)]
    Configuration(#[from] ConfigError),
    /// The backend is not there.
    #[error("state.backend.type: rocksdb is not available in this build; use hashmap")]
    RocksDb,
    /// A place that is no directory of this machine.
    #[error("{location:?} is not a place on this machine: give a path, or a URI such as file:///data/checkpoints")]
    Location {
        /// As it was given.
        location: String,
    },
    /// The latest checkpoint is asked for and checkpoints do not lie in files.
    #[error(
        "there is no directory to look for the latest checkpoint in: set execution.checkpointing.dir (--checkpoint-dir)"
    )]
    NoCheckpointDirectory,
    /// More slots than the process has.
    #[error(
        "the job needs {needed} slots and this process has {slots}: raise taskmanager.numberOfTaskSlots, or lower the \
         parallelism"
    )]
    Slots {
        /// What the job needs.
        needed: usize,
        /// As configured.
        slots: u32,
    },
    /// More network buffers than fit into their memory.
    #[error(
        "insufficient number of network buffers: the job's channels need {required}, and {network_bytes} bytes of network \
         memory have {available} of {buffer_bytes} bytes each; raise taskmanager.memory.network.fraction, \
         taskmanager.memory.network.min or taskmanager.memory.network.max, or lower the parallelism"
    )]
    NetworkBuffers {
        /// What the channels may hold together.
        required: u64,
        /// What the memory has.
        available: u64,
        /// The memory.
        network_bytes: u64,
        /// Size of a buffer.
        buffer_bytes: u64,
    },
}

/// Why a job could not be built or did not run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The job cannot be run as it was built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A task failed, the job was cancelled, or the machine cannot run it.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The job cannot start from the checkpoint or savepoint that it is to be restored from.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// A checkpoint or savepoint that was asked for was not taken.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// An input file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A record cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The metrics cannot be served.
    #[error(transparent)]
    Metrics(#[from] MetricsServerError),
    /// Requests cannot be answered.
    #[error(transparent)]
    Rest(#[from] RestServerError),
    /// Something else, in words.
    #[error("{0}")]
    Other(String),
}

impl BuildError {
    /// Whether settings are wrong, of the configuration or the command line, and not the job that somebody has written.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::MaxParallelism { .. }
            | Self::ParallelismAboveMax { .. }
            | Self::Configuration(_)
            | Self::RocksDb
            | Self::Location { .. }
            | Self::NoCheckpointDirectory
            | Self::Slots { .. }
            | Self::NetworkBuffers { .. } => true,
            Self::Empty
            | Self::NoSink { .. }
            | Self::ZeroParallelism { .. }
            | Self::NotParallel { .. }
            | Self::ForwardParallelism { .. }
            | Self::TagType { .. }
            | Self::Cycle
            | Self::DuplicateUid { .. } => false,
        }
    }
}

impl Error {
    /// Whether the command line or the configuration is wrong: nothing has been run, and another run with the same would
    /// end in the same way on this machine.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Build(error) => error.is_configuration(),
            Self::Job(JobError::Reactor(error)) => {
                matches!(error, ReactorError::TooFewCores { .. } | ReactorError::CoreNotAvailable { .. })
            }
            _ => false,
        }
    }

    /// Whether the job ended because the reader of its output has gone, which is no failure of its own: `job | head -1`.
    pub fn is_output_closed(&self) -> bool {
        matches!(self, Self::Job(JobError::Task(error)) if error.output_closed)
    }
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::Other(message)
    }
}

impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Self::Other(message.to_owned())
    }
}
