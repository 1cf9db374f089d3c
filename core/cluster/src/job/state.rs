//! `JobState`: what a job is doing, under Flink's names.

use std::fmt;

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Not started.
    Created,
    /// Its tasks are deployed.
    Running,
    /// It has failed for good; its tasks are being cancelled.
    Failing,
    /// It has failed.
    Failed,
    /// It has failed; its tasks are being cancelled, and it starts again after a pause.
    Restarting,
    /// Its tasks are being cancelled because somebody asked for it.
    Cancelling,
    /// It was cancelled.
    Canceled,
    /// All tasks have finished.
    Finished,
    /// This process has given it up; another may take it over.
    Suspended,
}

impl JobState {
    /// Every state, in the order in which Flink lists them.
    pub const ALL: [Self; 9] = [
        Self::Created,
        Self::Running,
        Self::Failing,
        Self::Failed,
        Self::Cancelling,
        Self::Canceled,
        Self::Finished,
        Self::Restarting,
        Self::Suspended,
    ];

    /// Whether nothing follows in this process.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Failed | Self::Canceled | Self::Finished | Self::Suspended)
    }

    /// The name as the REST interface and the metrics show it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Running => "RUNNING",
            Self::Failing => "FAILING",
            Self::Failed => "FAILED",
            Self::Restarting => "RESTARTING",
            Self::Cancelling => "CANCELLING",
            Self::Canceled => "CANCELED",
            Self::Finished => "FINISHED",
            Self::Suspended => "SUSPENDED",
        }
    }

    /// Whether Flink knows this step.
    pub const fn may_become(self, next: Self) -> bool {
        use JobState::*;
        match self {
            Created => matches!(next, Running | Canceled | Suspended | Failing),
            Running => matches!(next, Failing | Restarting | Cancelling | Finished | Suspended),
            Failing => matches!(next, Failed | Cancelling | Suspended),
            Restarting => matches!(next, Running | Failing | Cancelling | Suspended),
            Cancelling => matches!(next, Canceled | Suspended),
            Failed | Canceled | Finished | Suspended => false,
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_state_is_terminal_then_nothing_follows_and_otherwise_something_does() {
        for state in JobState::ALL {
            let followed = JobState::ALL.iter().any(|&next| state.may_become(next));
            assert_eq!(followed, !state.is_terminal(), "{state}");
        }
    }
}
