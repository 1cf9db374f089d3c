//! What can go wrong with a job: in a task, in a plan, on the machine.

/// A segment failed: its job fails.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{operator} (subtask {}/{parallelism}): {message}", subtask + 1)]
#[non_exhaustive]
pub struct TaskError {
    /// The operator, or the chain where it is not known which of its operators failed.
    pub operator: String,
    /// Index of the subtask, from 0.
    pub subtask: u32,
    /// Number of subtasks.
    pub parallelism: u32,
    /// What went wrong and what to do.
    pub message: String,
    /// Whether it would fail in the same way again: state that does not fit the job, for example. No restart helps.
    pub permanent: bool,
    /// Whether it only says that whoever read the job's output has gone, and wants no more: `job | head -1`.
    pub output_closed: bool,
}

impl TaskError {
    /// An error of a segment. The runtime adds the subtask, and the operator where `operator` is empty.
    pub fn new(operator: impl Into<String>, message: impl Into<String>) -> Self {
        let (operator, message) = (operator.into(), message.into());
        Self { operator, subtask: 0, parallelism: 0, message, permanent: false, output_closed: false }
    }

    /// The reader of the job's output has gone. No restart brings it back.
    pub fn output_closed() -> Self {
        Self { output_closed: true, ..Self::new("", "whoever read standard output has closed it").permanent() }
    }

    /// The same, where another attempt would fail in the same way.
    #[must_use]
    pub fn permanent(self) -> Self {
        Self { permanent: true, ..self }
    }
}

/// The slots could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReactorError {
    /// More slots than cores.
    #[error(
        "the job needs {slots} slots but this process may use {cores} cores; lower the parallelism, or let slots share \
         cores with `--oversubscribe`"
    )]
    TooFewCores {
        /// Slots wanted.
        slots: usize,
        /// Cores there are.
        cores: usize,
    },
    /// A core was asked for by number that the process may not run on.
    #[error("core {core} is not available to this process; it may use {available:?} (see `taskset -p` or the cpuset)")]
    CoreNotAvailable {
        /// The core asked for.
        core: usize,
        /// The cores there are.
        available: Vec<usize>,
    },
    /// The kernel or the container's policy has no io_uring.
    #[error(
        "io_uring is not usable here ({source}); use Linux 5.8 or newer, and a seccomp profile that allows io_uring_setup"
    )]
    NoIoUring {
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// The process, or the system, may not open another file.
    #[error(
        "slots need more open files than they may have ({source}); raise the limit: `ulimit -n 65536`, or LimitNOFILE= in \
         the unit, and fs.file-max where it is the whole system's"
    )]
    OpenFiles {
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// The limit on locked memory is too low.
    #[error(
        "the limit on locked memory is too low for {slots} slots; raise it: `ulimit -l unlimited`, or LimitMEMLOCK= in the unit"
    )]
    LockedMemory {
        /// Slots wanted.
        slots: usize,
    },
    /// A slot's thread could not be started, or ended unexpectedly.
    #[error("slot {slot} failed: {message}")]
    Slot {
        /// Number of the slot.
        slot: usize,
        /// What happened.
        message: String,
    },
}

/// A job did not run to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// A task failed; the others were cancelled.
    #[error("job failed in {0}")]
    Task(#[from] TaskError),
    /// Something other than a task failed it, such as too many failed checkpoints.
    #[error("job failed: {0}")]
    Failed(String),
    /// It was cancelled through its [`JobControl`](crate::JobControl).
    #[error("job was cancelled")]
    Cancelled,
    /// The plan contradicts itself.
    #[error("the plan cannot be run: {0}")]
    Plan(String),
    /// The checkpoint that the job was to start from does not fit it.
    #[error("{0}")]
    Restore(String),
    /// The slots could not be run.
    #[error(transparent)]
    Reactor(#[from] ReactorError),
    /// Memory for buffers could not be had.
    #[error("slot {slot}: {message}")]
    Buffers {
        /// Number of the slot.
        slot: usize,
        /// What happened and what to do.
        message: String,
    },
    /// Network buffers were still out when the job had ended: an error in the engine.
    #[error("{pages} network buffers were not returned at the end of the job; please report this")]
    PagesOutstanding {
        /// How many.
        pages: usize,
    },
}
