//! `Overview`: what there is to say of a job as a whole, while it runs and afterwards.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use thalweg_cluster::{
    TimeMs,
    job::{Job, JobState},
};
use thalweg_model::JobId;

/// What does not change while the job runs.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) id: JobId,
    pub(super) name: String,
    /// Its subtasks.
    pub(super) tasks: usize,
    /// Whether savepoints have a place where the request names none.
    pub(super) has_savepoint_dir: bool,
}

/// How many subtasks are in which state, as far as the job master tells them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounts {
    /// Not deployed yet.
    pub created: usize,
    /// Running, or about to.
    pub running: usize,
    /// They have come to their end.
    pub finished: usize,
    /// They have been told to end before that.
    pub canceling: usize,
    /// They have ended before that: also those that failed.
    pub canceled: usize,
}

/// How many subtasks are neither finished nor gone, and how many have finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lives {
    pub(super) alive: usize,
    pub(super) finished: usize,
}

impl Lives {
    pub(super) fn of<S>(job: &Job<S>) -> Self {
        Self { alive: job.tasks_alive(), finished: job.tasks_finished() }
    }
}

impl TaskCounts {
    /// Of so many subtasks of a job in this state; without `lives` its master is gone.
    fn of(state: JobState, total: usize, lives: Option<Lives>) -> Self {
        let counts = Self::default();
        let Some(Lives { alive, finished }) = lives else {
            return match state {
                JobState::Created => Self { created: total, ..counts },
                JobState::Finished => Self { finished: total, ..counts },
                _ => Self { canceled: total, ..counts },
            };
        };
        let canceled = total.saturating_sub(alive + finished);
        match state {
            JobState::Created => Self { created: total, ..counts },
            JobState::Running => Self { running: alive, finished, canceled, ..counts },
            _ => Self { canceling: alive, finished, canceled, ..counts },
        }
    }

    /// All of them.
    pub fn total(&self) -> usize {
        self.created + self.running + self.finished + self.canceling + self.canceled
    }
}

/// See the module. Times are in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overview {
    /// What it is doing.
    pub state: JobState,
    /// When it was started.
    pub started_ms: u64,
    /// When it ended, if it has.
    pub ended_ms: Option<u64>,
    /// When its state last changed.
    pub changed_ms: u64,
    /// What its subtasks are doing.
    pub tasks: TaskCounts,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    state: JobState,
    started: TimeMs,
    changed: TimeMs,
}

/// What callers and the job master share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) facts: Facts,
    /// Written by callers.
    cancelled: AtomicBool,
    /// Written by the job master.
    progress: Mutex<Progress>,
}

impl Shared {
    pub(super) fn new(facts: Facts, now: TimeMs) -> Self {
        let progress = Progress { state: JobState::Created, started: now, changed: now };
        Self { facts, cancelled: AtomicBool::new(false), progress: Mutex::new(progress) }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// The job has changed its state.
    pub(super) fn become_state(&self, state: JobState, now: TimeMs) {
        let mut progress = self.progress();
        (progress.state, progress.changed) = (state, now);
    }

    pub(super) fn state(&self) -> JobState {
        self.progress().state
    }

    /// `lives`: what the master says of its tasks, if it is still there.
    pub(super) fn overview(&self, lives: Option<Lives>) -> Overview {
        let Progress { state, started, changed } = *self.progress();
        Overview {
            state,
            started_ms: started.0,
            ended_ms: state.is_terminal().then_some(changed.0),
            changed_ms: changed.0,
            tasks: TaskCounts::of(state, self.facts.tasks, lives),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_tasks_are_counted_then_each_is_in_one_state() {
        for state in JobState::ALL {
            for lives in [None, Some(Lives { alive: 2, finished: 1 })] {
                assert_eq!(TaskCounts::of(state, 4, lives).total(), 4, "{state} {lives:?}");
            }
        }
        let running = TaskCounts::of(JobState::Running, 4, Some(Lives { alive: 3, finished: 1 }));
        assert_eq!((running.running, running.finished), (3, 1));
        let ending = TaskCounts::of(JobState::Cancelling, 4, Some(Lives { alive: 2, finished: 1 }));
        assert_eq!((ending.canceling, ending.finished, ending.canceled), (2, 1, 1));
        assert_eq!(TaskCounts::of(JobState::Finished, 4, None).finished, 4);
    }

    #[test]
    fn when_a_job_ends_then_the_time_of_its_end_is_that_of_its_last_change() {
        let facts = Facts { id: JobId::from_name("job"), name: "job".to_owned(), tasks: 1, has_savepoint_dir: false };
        let shared = Shared::new(facts, TimeMs(5));
        assert_eq!(shared.overview(None).ended_ms, None);
        shared.become_state(JobState::Running, TimeMs(7));
        shared.become_state(JobState::Finished, TimeMs(9));
        let overview = shared.overview(None);
        assert_eq!((overview.started_ms, overview.ended_ms, overview.changed_ms), (5, Some(9), 9));
    }
}
