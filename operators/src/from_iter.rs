//! `FromIter`: the records of an iterator, of which each attempt to run the job reads a clone, if there can be one.

use std::sync::{Arc, Mutex, PoisonError};

use thalweg_model::{Elem, Record, time::MIN_WATERMARK};
use thalweg_runtime::{SegmentContext, SourceStatus, TaskError};

use crate::{
    checkpoint::{OperatorRestore, OperatorSnapshot},
    pipe::Emit,
    source::{Source, SourceError},
};

/// The state of [`FromIter`]: how many records it had emitted.
const ITERATED: &str = "iterated";

/// The records of an iterator, in order, from one subtask.
///
/// Its position in checkpoints is how many records it has emitted: a job that goes on from there skips so many, so the
/// iterator must give the same records again, its clones as well as one that is built anew in another process.
pub struct FromIter<I: IntoIterator> {
    source: Arc<Mutex<Option<I>>>,
    /// How to make another one; without it, it can be taken once in a process.
    again: Option<fn(&I) -> I>,
    running: Option<Running<I>>,
    emitted: u64,
    /// Records before those: emitted before the checkpoint that the job started from.
    skipped: u64,
}

/// Keeps an iterator on its slot: it is made there, and so need not be sendable.
struct Running<I: IntoIterator>(I::IntoIter);

impl<I: IntoIterator> Clone for FromIter<I> {
    fn clone(&self) -> Self {
        Self { source: self.source.clone(), again: self.again, running: None, emitted: 0, skipped: 0 }
    }
}

impl<I: IntoIterator> FromIter<I> {
    /// One that is cloned for each attempt to run the job.
    pub(crate) fn new(records: I) -> Self
    where
        I: Clone,
    {
        Self { again: Some(I::clone), ..Self::once(records) }
    }

    /// One that can be read once.
    pub(crate) fn once(records: I) -> Self {
        let source = Arc::new(Mutex::new(Some(records)));
        Self { source, again: None, running: None, emitted: 0, skipped: 0 }
    }

    fn take(&mut self) -> Result<(), SourceError> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let records = match self.again {
            Some(again) => source.as_ref().map(again),
            None => source.take(),
        };
        let Some(records) = records else {
            let message = "an iterator that cannot be cloned can be read once, so that the job cannot be restarted in this \
                           process: build it anew, or read from a source that can be read again (from_iter, generate, \
                           from_files)";
            // No attempt after this one has it either.
            return Err(Box::new(TaskError::new("", message).permanent()));
        };
        self.running = Some(Running(records.into_iter()));
        Ok(())
    }

    /// Passes over what was emitted before the checkpoint.
    fn skip(&mut self, count: u64) -> Result<(), SourceError> {
        let Some(Running(records)) = &mut self.running else { return Ok(()) };
        for at in 0..count {
            if records.next().is_none() {
                return Err(format!(
                    "the iterator ends after {at} records, but {count} were read before the checkpoint: it must give the \
                     same records each time the job is built"
                )
                .into());
            }
        }
        self.skipped = count;
        Ok(())
    }
}

impl<I> Source for FromIter<I>
where
    I: IntoIterator + Send + 'static,
    I::Item: Record,
    I::IntoIter: Send,
{
    type Out = I::Item;

    fn open(&mut self, _ctx: &mut SegmentContext) -> Result<(), SourceError> {
        self.take()
    }

    fn poll<E: Emit<I::Item>>(&mut self, budget: usize, emit: &mut E) -> Result<SourceStatus, SourceError> {
        let Some(Running(records)) = &mut self.running else { return Ok(SourceStatus::Ended) };
        for _ in 0..budget {
            if !emit.room() {
                break;
            }
            let Some(record) = records.next() else { return Ok(SourceStatus::Ended) };
            self.emitted += 1;
            emit.emit(Elem::new(record.view(), MIN_WATERMARK));
        }
        Ok(SourceStatus::More)
    }

    fn emitted(&self) -> u64 {
        self.emitted
    }

    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), SourceError> {
        // There is one subtask: one position, or none where the state is of another source.
        let positions = restored.positions::<u64>(ITERATED).map_err(|error| error.message)?;
        self.skip(positions.iter().sum())
    }

    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), SourceError> {
        snapshot.positions::<u64>(ITERATED, [self.skipped + self.emitted]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Emitted, checkpoint, restored, snapshot};

    #[test]
    fn when_an_iterator_is_restored_then_it_skips_what_it_gave() {
        let mut source = FromIter::new(0u64..10);
        let mut emitted = Emitted::<u64>::new();
        source.take().unwrap();
        assert_eq!(source.poll(4, &mut emitted).unwrap(), SourceStatus::More);
        let cut = checkpoint(1, vec![snapshot(1, |snapshot| source.snapshot(snapshot)).unwrap()]);

        // As another attempt in the same process does.
        let mut anew = source.clone();
        anew.take().unwrap();
        anew.restore(&restored(&cut, 0, 1)).unwrap();
        assert_eq!(anew.poll(2, &mut emitted).unwrap(), SourceStatus::More);
        let cut = checkpoint(2, vec![snapshot(2, |snapshot| anew.snapshot(snapshot)).unwrap()]);

        // As another process does.
        let mut last = FromIter::once(0u64..10);
        last.take().unwrap();
        last.restore(&restored(&cut, 0, 1)).unwrap();
        assert_eq!(last.poll(100, &mut emitted).unwrap(), SourceStatus::Ended);
        assert_eq!(emitted.records, (0..10).collect::<Vec<_>>());

        let mut shorter = FromIter::new(0u64..3);
        shorter.take().unwrap();
        let error = shorter.restore(&restored(&cut, 0, 1)).unwrap_err().to_string();
        assert!(error.contains("ends after 3 records"), "{error}");
    }

    #[test]
    fn when_an_iterator_cannot_be_cloned_then_it_is_read_once() {
        let mut source = FromIter::once(0u64..10);
        source.take().unwrap();
        let again = source.clone().take().unwrap_err().to_string();
        assert!(again.contains("can be read once") && again.contains("from_iter"), "{again}");
    }
}
