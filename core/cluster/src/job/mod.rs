//! Jobs: their states, when they restart, and what from. Pure decisions, as everything in this crate.

mod events;
mod master;
mod restart;
mod state;

pub use events::{Attempt, JobAction, JobEvent, JobFailure, TaskReport};
pub use master::Job;
pub use restart::{RestartPolicy, Verdict};
pub use state::JobState;
