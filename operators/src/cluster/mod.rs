//! The embedded cluster of one job: its master, which decides with the pure `Job`, and what carries its decisions out.
//!
//! Three threads: the *job master* waits on an inbox, asks the pure state machine what to do and does it; the *runner*,
//! one attempt after another, holds the thread that waits for the slots; the *storage* thread does whatever waits for a
//! disk, in order. Slots talk to the inbox and to nobody else.
//!
//! Invariant: nothing here decides about checkpoints or restarts; `thalweg-cluster` does.

mod attempt;
mod client;
mod clock;
mod convert;
mod fit;
mod inbox;
mod journal;
mod master;
mod overview;
mod running;
mod shape;
mod start;
mod status;
mod storage;
mod supervise;
mod topology;

pub use client::{JobClient, JobHandle, PendingSnapshot, Snapshot, SnapshotError};
pub(crate) use clock::random;
pub use fit::RestoreError;
pub use overview::{Overview, TaskCounts};
pub(crate) use start::Start;
pub(crate) use supervise::{JobSpec, run_on, spawn};
pub use thalweg_cluster::{
    checkpoint::{Counts, Failure, FailureReason, Record, Restored, Statistics, Status, Summary},
    job::JobState,
};
pub use thalweg_runtime::StopMode;
