//! `JobHandle` and `JobClient`: what callers do with a running job.

use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::Duration,
};

use thalweg_cluster::{
    checkpoint::{Failure, Kind, SavepointFormat, Statistics},
    job::JobState,
};
use thalweg_model::{CheckpointId, JobId};
use thalweg_runtime::{JobError, JobReport, StopMode};

use super::{
    inbox::Message,
    overview::{Overview, Shared},
};
use crate::Error;

/// A checkpoint or savepoint that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its number.
    pub id: CheckpointId,
    /// Its directory, from which a job can be restored; checkpoints in memory have none that could be named.
    pub location: String,
}

/// Why a checkpoint or savepoint that somebody asked for was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// It was tried.
    #[error("no checkpoint was taken: {0}")]
    Failed(#[from] Failure),
    /// The job was started without.
    #[error(
        "this job takes no checkpoints: before it starts, set execution.checkpointing.interval, \
         execution.checkpointing.dir or execution.checkpointing.savepoint-dir"
    )]
    NotEnabled,
    /// Nobody said where the savepoint is to lie.
    #[error("there is no directory for savepoints: name one, or set execution.checkpointing.savepoint-dir")]
    NoTarget,
    /// The job has ended.
    #[error("the job has ended")]
    JobEnded,
}

/// A request for a checkpoint or savepoint that is on its way. Dropping it gives up the answer, not the checkpoint.
#[derive(Debug)]
#[must_use]
pub struct PendingSnapshot(Receiver<Result<Snapshot, SnapshotError>>);

impl PendingSnapshot {
    /// Waits until it is complete, at most `execution.checkpointing.timeout`.
    ///
    /// # Errors
    /// It was not taken, or the job has ended before.
    pub fn wait(self) -> Result<Snapshot, SnapshotError> {
        self.0.recv().unwrap_or(Err(SnapshotError::JobEnded))
    }

    /// As [`wait`](Self::wait), no longer than `timeout`; none where that has passed.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<Snapshot, SnapshotError>> {
        match self.0.recv_timeout(timeout) {
            Ok(result) => Some(result),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(SnapshotError::JobEnded)),
        }
    }
}

/// Controls a running job from any thread. Clones belong to the same job.
#[derive(Clone, Debug)]
pub struct JobClient {
    inbox: Sender<Message>,
    shared: Arc<Shared>,
}

impl JobClient {
    pub(super) fn new(inbox: Sender<Message>, shared: Arc<Shared>) -> Self {
        Self { inbox, shared }
    }

    /// Cancels the job: tasks close without finishing their input, [`JobHandle::wait`] answers
    /// [`JobError::Cancelled`]. What becomes of its checkpoints says `execution.checkpointing.externalized-checkpoint-retention`.
    /// Does nothing once the job has ended.
    pub fn cancel(&self) {
        self.shared.cancel();
        let _ = self.inbox.send(Message::Cancel);
    }

    /// Whether somebody has asked for that.
    pub fn is_cancelled(&self) -> bool {
        self.shared.is_cancelled()
    }

    /// What the job is doing.
    pub fn state(&self) -> JobState {
        self.shared.state()
    }

    /// The job's id.
    pub fn id(&self) -> JobId {
        self.shared.facts.id
    }

    /// The job's name.
    pub fn name(&self) -> &str {
        &self.shared.facts.name
    }

    /// Whether savepoints have a place of their own, so that a request need not name one
    /// (`execution.checkpointing.savepoint-dir`).
    pub fn has_savepoint_dir(&self) -> bool {
        self.shared.facts.has_savepoint_dir
    }

    /// What the job and its subtasks are doing, and since when; also once it has ended.
    pub fn overview(&self) -> Overview {
        let (reply, answer) = mpsc::channel();
        let asked = self.inbox.send(Message::Lives(reply));
        self.shared.overview(asked.ok().and_then(|()| answer.recv().ok()))
    }

    /// Takes a checkpoint now, besides the periodic ones.
    pub fn trigger_checkpoint(&self) -> PendingSnapshot {
        self.request(Kind::Checkpoint { full: false }, None)
    }

    /// As [`trigger_checkpoint`](Self::trigger_checkpoint), building on no earlier one.
    pub fn trigger_full_checkpoint(&self) -> PendingSnapshot {
        self.request(Kind::Checkpoint { full: true }, None)
    }

    /// Takes a savepoint: complete in itself, the user's, never deleted. It goes into a new directory below `target`, or
    /// below `execution.checkpointing.savepoint-dir`.
    pub fn trigger_savepoint(&self, target: Option<&Path>) -> PendingSnapshot {
        self.request(savepoint(None), target)
    }

    /// Takes a savepoint and ends the job with it; the answer comes when all of its tasks have ended. With
    /// [`StopMode::Drain`] windows and timers fire first: such a job is not meant to go on.
    pub fn stop_with_savepoint(&self, target: Option<&Path>, mode: StopMode) -> PendingSnapshot {
        self.request(savepoint(Some(mode)), target)
    }

    /// Counts and history of the job's checkpoints; none once it has ended.
    pub fn checkpoints(&self) -> Option<Statistics> {
        let (reply, answer) = mpsc::channel();
        self.inbox.send(Message::Statistics(reply)).ok()?;
        answer.recv().ok()
    }

    fn request(&self, kind: Kind, target: Option<&Path>) -> PendingSnapshot {
        let (reply, answer) = mpsc::channel();
        let target = target.map(|target| target.to_string_lossy().into_owned());
        // Where nobody takes the message, the answer's other end is dropped with it: the job has ended.
        let _ = self.inbox.send(Message::Request { kind, target, reply });
        PendingSnapshot(answer)
    }
}

/// Savepoints hold what the backend's checkpoints hold; there is one backend.
fn savepoint(stop: Option<StopMode>) -> Kind {
    use thalweg_cluster::checkpoint::StopMode as Stop;
    let stop = stop.map(|mode| match mode {
        StopMode::Suspend => Stop::Suspend,
        StopMode::Drain => Stop::Drain,
    });
    Kind::Savepoint { format: SavepointFormat::Native, stop }
}

/// A running job.
pub struct JobHandle {
    client: JobClient,
    thread: JoinHandle<Result<JobReport, JobError>>,
}

impl JobHandle {
    pub(super) fn new(client: JobClient, thread: JoinHandle<Result<JobReport, JobError>>) -> Self {
        Self { client, thread }
    }

    /// Asks the job to stop; [`wait`](Self::wait) then answers that it was cancelled.
    pub fn cancel(&self) {
        self.client.cancel();
    }

    /// Something to control the job with from elsewhere.
    pub fn control(&self) -> JobClient {
        self.client.clone()
    }

    /// As [`JobClient::trigger_checkpoint`].
    pub fn trigger_checkpoint(&self) -> PendingSnapshot {
        self.client.trigger_checkpoint()
    }

    /// As [`JobClient::trigger_savepoint`].
    pub fn trigger_savepoint(&self, target: Option<&Path>) -> PendingSnapshot {
        self.client.trigger_savepoint(target)
    }

    /// As [`JobClient::stop_with_savepoint`].
    pub fn stop_with_savepoint(&self, target: Option<&Path>, mode: StopMode) -> PendingSnapshot {
        self.client.stop_with_savepoint(target, mode)
    }

    /// Whether the job has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end of the job.
    ///
    /// # Errors
    /// A task failed and the job may not restart, the job was cancelled, or the machine refused.
    pub fn wait(self) -> Result<JobReport, Error> {
        match self.thread.join() {
            Ok(result) => Ok(result?),
            Err(_) => Err(Error::Other("the thread that watches the job panicked; please report this".to_owned())),
        }
    }
}
