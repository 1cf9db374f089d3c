//! Two-phase commit: a sink whose output becomes visible with checkpoints, so that every record is visible exactly once.
//!
//! What is written between two barriers is a transaction. At the barrier it is *pre-committed*: made safe, but not visible;
//! what is needed to commit it goes into the checkpoint. When the checkpoint is complete it is *committed*. A job that starts
//! from a checkpoint commits what is pending in it, perhaps a second time, and gets rid of what came after it.
//!
//! A sink for which that takes long leaves it to a thread of its own, so that the stream goes on: see
//! [`pre_commit_behind`](TwoPhaseCommitSink::pre_commit_behind).

use thalweg_model::{CheckpointId, Record};

use crate::{
    checkpoint::{OperatorRestore, OperatorSnapshot, SnapshotHold},
    cluster::random,
    sink::{Sink, SinkContext, SinkError},
};

/// The state's name in checkpoints: pairs of a checkpoint's number and what is committed when it is complete.
const STATE: &str = "committables";
/// The state's name in checkpoints: where the stream comes from, of all subtasks.
const ORIGINS: &str = "origins";

/// A sink with transactions. Hand it to [`two_phase`]. Each subtask works on a clone.
///
/// Order of the calls: `open`; `stream`; where the job starts from a checkpoint, `commit` with what was pending in it;
/// `recover`; then, again and again, `begin`, any number of `write` and `flush`, `pre_commit`, and some time later `commit`. An error fails
/// the job, which then starts again from its latest checkpoint.
pub trait TwoPhaseCommitSink<T: Record>: Clone + Send + 'static {
    /// An open transaction.
    type Transaction: Send + 'static;
    /// What it takes to commit one, in this process or another. Kept in checkpoints.
    type Committable: Record + Clone;

    /// Called once before anything else.
    ///
    /// # Errors
    /// Fails the task.
    fn open(&mut self, ctx: &SinkContext) -> Result<(), SinkError> {
        let _ = ctx;
        Ok(())
    }
    /// Says which stream this is, by numbers that belong to it alone, at least one: they stay the same in whatever goes on
    /// from a checkpoint of it, and are new where a job starts from nothing. A sink that can take back what it has committed
    /// notes the first one with it and the checkpoint, and [`recover`](Self::recover) takes back what one of them is noted
    /// with and is of a later checkpoint.
    fn stream(&mut self, origins: &[u64]) {
        let _ = origins;
    }
    /// Gets rid of what earlier attempts have left for checkpoints after `known`: the one that the job starts from, or,
    /// where it starts from nothing, the last one that somebody may keep. It must not touch what may be pending in a
    /// checkpoint up to that one, which another subtask or another run commits; nor, with `None`, anything pending.
    ///
    /// # Errors
    /// Fails the task.
    fn recover(&mut self, known: Option<CheckpointId>) -> Result<(), SinkError> {
        let _ = known;
        Ok(())
    }
    /// Begins a transaction. Called before the first record of one only: there are none without records.
    ///
    /// # Errors
    /// Fails the task.
    fn begin(&mut self) -> Result<Self::Transaction, SinkError>;
    /// Adds a record to a transaction. `timestamp` is `i64::MIN` where the stream has none.
    ///
    /// # Errors
    /// Fails the task.
    fn write(
        &mut self,
        transaction: &mut Self::Transaction,
        view: T::View<'_>,
        timestamp: i64,
    ) -> Result<(), SinkError>;
    /// A batch is over.
    ///
    /// # Errors
    /// Fails the task.
    fn flush(&mut self, transaction: &mut Self::Transaction) -> Result<(), SinkError> {
        let _ = transaction;
        Ok(())
    }
    /// Ends a transaction and makes it safe: once this has answered, [`commit`](Self::commit) must succeed whatever happens
    /// to this process. It may answer several committables, or none.
    ///
    /// # Errors
    /// Fails the task.
    fn pre_commit(
        &mut self,
        transaction: Self::Transaction,
        checkpoint: CheckpointId,
    ) -> Result<Vec<Self::Committable>, SinkError>;
    /// Makes transactions visible, durably. They may have been committed before: that is no error.
    ///
    /// # Errors
    /// Fails the task.
    fn commit(&mut self, committables: &[Self::Committable]) -> Result<(), SinkError>;
    /// [`pre_commit`](Self::pre_commit) at a barrier, of the open transaction if there is one. A sink may override this to
    /// answer at once and leave the work to another thread, with a hold that is done when everything that this checkpoint
    /// relies on is safe: the transaction, those that earlier calls have left to the thread, and what
    /// [`commit_behind`](Self::commit_behind) has, for the checkpoint does not know that any more.
    ///
    /// What the thread could not make safe must fail the sink's next call, so that the job starts from the latest
    /// checkpoint, in which the records are not.
    ///
    /// # Errors
    /// Fails the task.
    fn pre_commit_behind(
        &mut self,
        transaction: Option<Self::Transaction>,
        checkpoint: CheckpointId,
        hold: &mut dyn FnMut() -> SnapshotHold,
    ) -> Result<Vec<Self::Committable>, SinkError> {
        let _ = hold;
        transaction.map_or_else(|| Ok(Vec::new()), |transaction| self.pre_commit(transaction, checkpoint))
    }
    /// [`commit`](Self::commit) of a complete checkpoint while the stream goes on. A sink may override this to leave the
    /// work to another thread; a failure must then fail its next call.
    ///
    /// # Errors
    /// Fails the task.
    fn commit_behind(&mut self, committables: &[Self::Committable]) -> Result<(), SinkError> {
        self.commit(committables)
    }
    /// Waits until what was left to another thread is done: nothing comes after this.
    ///
    /// # Errors
    /// It could not be done. Fails the task.
    fn settle(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
    /// Whether it can take a record now; one that cannot holds the stream back, and wakes its slot when it can again.
    fn ready(&self) -> bool {
        true
    }
    /// Gets rid of a transaction that was never pre-committed, as far as that is possible: the task has failed or is
    /// cancelled. What a process that is killed leaves is for [`recover`](Self::recover).
    fn abort(&mut self, transaction: Self::Transaction) {
        let _ = transaction;
    }
    /// Its name in graphs and metrics.
    fn name(&self) -> &str {
        "TwoPhaseCommit"
    }
}

/// A [`TwoPhaseCommitSink`] as a [`Sink`].
///
/// Without checkpoints, everything is committed at the end of the stream.
pub struct TwoPhase<T: Record, S: TwoPhaseCommitSink<T>> {
    sink: S,
    open: Option<S::Transaction>,
    /// Pre-committed, by ascending checkpoint.
    pending: Vec<(CheckpointId, S::Committable)>,
    checkpointing: bool,
    /// Where the stream comes from, ascending: of each process that took part in its beginning a random number.
    origins: Vec<u64>,
}

/// A sink that commits with checkpoints.
pub fn two_phase<T: Record, S: TwoPhaseCommitSink<T>>(sink: S) -> TwoPhase<T, S> {
    TwoPhase { sink, open: None, pending: Vec::new(), checkpointing: false, origins: vec![random()] }
}

impl<T: Record, S: TwoPhaseCommitSink<T>> TwoPhase<T, S> {
    /// The sink inside, to configure it further.
    #[must_use]
    pub fn map_sink(mut self, change: impl FnOnce(S) -> S) -> Self {
        self.sink = change(self.sink.clone());
        self
    }

    /// Takes out what was pre-committed up to a checkpoint.
    fn due(&mut self, checkpoint: CheckpointId) -> Vec<S::Committable> {
        let until = self.pending.partition_point(|(id, _)| *id <= checkpoint);
        self.pending.drain(..until).map(|(_, committable)| committable).collect()
    }
}

impl<T: Record, S: TwoPhaseCommitSink<T>> Clone for TwoPhase<T, S> {
    fn clone(&self) -> Self {
        // Subtasks have their origin in common.
        let (sink, origins) = (self.sink.clone(), self.origins.clone());
        Self { sink, open: None, pending: Vec::new(), checkpointing: false, origins }
    }
}

impl<T: Record, S: TwoPhaseCommitSink<T>> Drop for TwoPhase<T, S> {
    fn drop(&mut self) {
        if let Some(transaction) = self.open.take() {
            self.sink.abort(transaction);
        }
    }
}

impl<T: Record, S: TwoPhaseCommitSink<T>> Sink<T> for TwoPhase<T, S> {
    fn open(&mut self, ctx: &SinkContext) -> Result<(), SinkError> {
        self.checkpointing = ctx.checkpointing;
        self.sink.open(ctx)?;
        if ctx.restoring {
            return Ok(());
        }
        self.sink.stream(&self.origins);
        self.sink.recover(ctx.known_checkpoint)
    }

    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), SinkError> {
        let mut origins = restored.list_of_all::<u64>(ORIGINS).map_err(|error| error.message)?;
        if !origins.is_empty() {
            origins.sort_unstable();
            origins.dedup();
            self.origins = origins;
        }
        self.sink.stream(&self.origins);
        let pending = restored.list::<(u64, S::Committable)>(STATE).map_err(|error| error.message)?;
        if !pending.is_empty() {
            let pending: Vec<_> = pending.into_iter().map(|(_, committable)| committable).collect();
            self.sink.commit(&pending)?;
        }
        self.sink.recover(Some(restored.checkpoint()))
    }

    fn write(&mut self, view: T::View<'_>, timestamp: i64) -> Result<(), SinkError> {
        let transaction = match &mut self.open {
            Some(transaction) => transaction,
            None => self.open.insert(self.sink.begin()?),
        };
        self.sink.write(transaction, view, timestamp)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.open.as_mut().map_or(Ok(()), |transaction| self.sink.flush(transaction))
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        if self.checkpointing {
            // The last checkpoint, which the engine takes now, pre-commits and commits.
            return self.flush();
        }
        let end = self.pending.last().map_or(CheckpointId(0), |(id, _)| *id);
        let mut due = self.due(end);
        if let Some(transaction) = self.open.take() {
            due.extend(self.sink.pre_commit(transaction, end)?);
        }
        if due.is_empty() { Ok(()) } else { self.sink.commit(&due) }
    }

    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), SinkError> {
        let checkpoint = snapshot.checkpoint();
        let committables = self.sink.pre_commit_behind(self.open.take(), checkpoint, &mut || snapshot.hold())?;
        self.pending.extend(committables.into_iter().map(|committable| (checkpoint, committable)));
        let pending = self.pending.iter().map(|(id, committable)| (id.0, committable.clone()));
        snapshot.list::<(u64, S::Committable)>(STATE, pending);
        snapshot.list::<u64>(ORIGINS, self.origins.iter().copied());
        Ok(())
    }

    fn checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<(), SinkError> {
        let due = self.due(checkpoint);
        if due.is_empty() { Ok(()) } else { self.sink.commit_behind(&due) }
    }

    fn settle(&mut self) -> Result<(), SinkError> {
        self.sink.settle()
    }

    fn ready(&self) -> bool {
        self.sink.ready()
    }

    fn name(&self) -> &str {
        self.sink.name()
    }
}
