//! Two-phase commit: a sink whose output becomes visible with checkpoints, so that every record is visible exactly once.
//!
//! What is written between two barriers is a transaction. At the barrier it is *pre-committed*: made safe, but not visible;
//! what is needed to commit it goes into the checkpoint. When the checkpoint is complete it is *committed*. A job that starts
//! from a checkpoint commits what is pending in it, perhaps a second time, and gets rid of what came after it.

use thalweg_model::{CheckpointId, Record};

use crate::{
    checkpoint::{OperatorRestore, OperatorSnapshot},
    sink::{Sink, SinkContext, SinkError},
};

/// The state's name in checkpoints: pairs of a checkpoint's number and what is committed when it is complete.
const STATE: &str = "committables";

/// A sink with transactions. Hand it to [`two_phase`]. Each subtask works on a clone.
///
/// Order of the calls: `open`; where the job starts from a checkpoint, `commit` with what was pending in it; `recover`; then,
/// again and again, `begin`, any number of `write` and `flush`, `pre_commit`, and some time later `commit`. An error fails
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
}

/// A sink that commits with checkpoints.
pub fn two_phase<T: Record, S: TwoPhaseCommitSink<T>>(sink: S) -> TwoPhase<T, S> {
    TwoPhase { sink, open: None, pending: Vec::new(), checkpointing: false }
}

impl<T: Record, S: TwoPhaseCommitSink<T>> TwoPhase<T, S> {
    /// The sink inside, to configure it further.
    #[must_use]
    pub fn map_sink(mut self, change: impl FnOnce(S) -> S) -> Self {
        self.sink = change(self.sink.clone());
        self
    }

    fn pre_commit(&mut self, checkpoint: CheckpointId) -> Result<(), SinkError> {
        if let Some(transaction) = self.open.take() {
            let committables = self.sink.pre_commit(transaction, checkpoint)?;
            self.pending.extend(committables.into_iter().map(|committable| (checkpoint, committable)));
        }
        Ok(())
    }

    /// Commits what was pre-committed up to a checkpoint.
    fn commit(&mut self, checkpoint: CheckpointId) -> Result<(), SinkError> {
        let until = self.pending.partition_point(|(id, _)| *id <= checkpoint);
        if until > 0 {
            let due: Vec<_> = self.pending.drain(..until).map(|(_, committable)| committable).collect();
            self.sink.commit(&due)?;
        }
        Ok(())
    }
}

impl<T: Record, S: TwoPhaseCommitSink<T>> Clone for TwoPhase<T, S> {
    fn clone(&self) -> Self {
        two_phase(self.sink.clone())
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
        if ctx.restoring { Ok(()) } else { self.sink.recover(ctx.known_checkpoint) }
    }

    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), SinkError> {
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
        self.pre_commit(end)?;
        self.commit(end)
    }

    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), SinkError> {
        self.pre_commit(snapshot.checkpoint())?;
        let pending = self.pending.iter().map(|(id, committable)| (id.0, committable.clone()));
        snapshot.list::<(u64, S::Committable)>(STATE, pending);
        Ok(())
    }

    fn checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<(), SinkError> {
        self.commit(checkpoint)
    }

    fn name(&self) -> &str {
        self.sink.name()
    }
}
