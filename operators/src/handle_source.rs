//! `HandleSource`: the source behind an input handle.
//!
//! With checkpoints it keeps each event until a checkpoint is complete that the event was emitted before, so that a restart
//! within the process loses nothing; across processes, whoever pushes replays from what was durable.

use std::{collections::VecDeque, sync::Arc};

use thalweg_derive::Record;
use thalweg_model::{CheckpointId, Elem, Record, time::MIN_WATERMARK};
use thalweg_runtime::{JobLife, SegmentContext, SlotWaker, SourceStatus};

use crate::{
    checkpoint::{OperatorRestore, OperatorSnapshot},
    input_queue::{InputQueue, Taken},
    number_set::NumberSet,
    pipe::Emit,
    source::{Source, SourceError},
};

#[cfg(test)]
mod tests;

/// The state's name in checkpoints.
const STATE: &str = "events";

/// Numbers of events that a checkpoint covers. A position of a handle's source.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRange {
    /// The first.
    pub from: u64,
    /// The first beyond.
    pub to: u64,
}

/// The source behind an [`InputHandle`](crate::handle::InputHandle); its subtasks share one queue.
pub struct HandleSource<T: Record> {
    queue: Arc<InputQueue<T>>,
    taking: Option<Taking<T>>,
    emitted: u64,
}

type Numbered<T> = (u64, T);

/// A subtask that takes events, and what it must give back if it fails.
struct Taking<T: Record> {
    queue: Arc<InputQueue<T>>,
    attachment: u64,
    life: JobLife,
    keeping: bool,
    /// Whether it is settled where the numbers begin.
    started: bool,
    /// Taken, not emitted.
    batch: VecDeque<Numbered<T>>,
    /// Emitted since the last barrier.
    current: Vec<Numbered<T>>,
    /// Emitted before a barrier whose checkpoint is not complete.
    epochs: VecDeque<(CheckpointId, Vec<Numbered<T>>)>,
}

impl<T: Record> Drop for Taking<T> {
    fn drop(&mut self) {
        let epochs = std::mem::take(&mut self.epochs).into_iter().flat_map(|(_, events)| events);
        let emitted = std::mem::take(&mut self.current).into_iter().chain(epochs);
        let events: Vec<Numbered<T>> = std::mem::take(&mut self.batch).into_iter().chain(emitted).collect();
        let kept = if self.keeping { events.len() } else { 0 };
        if self.queue.detach(self.attachment, events, kept) {
            let queue = self.queue.clone();
            self.life.at_end(move || queue.close());
        }
    }
}

impl<T: Record> Clone for HandleSource<T> {
    fn clone(&self) -> Self {
        Self::new(self.queue.clone())
    }
}

impl<T: Record> HandleSource<T> {
    pub(crate) fn new(queue: Arc<InputQueue<T>>) -> Self {
        Self { queue, taking: None, emitted: 0 }
    }

    /// Takes part in a job. Nothing is taken before [`start`](Self::start), [`restore`](Source::restore) or the first poll.
    pub(crate) fn attach(&mut self, waker: &SlotWaker, life: JobLife, keeping: bool) -> Result<(), SourceError> {
        self.taking = Some(Taking {
            queue: self.queue.clone(),
            attachment: self.queue.attach(waker)?,
            life,
            keeping,
            started: false,
            batch: VecDeque::new(),
            current: Vec::new(),
            epochs: VecDeque::new(),
        });
        Ok(())
    }

    fn start(&mut self) -> Result<(), SourceError> {
        if let Some(taking) = self.taking.as_mut().filter(|taking| !taking.started) {
            taking.started = true;
            self.queue.start()?;
        }
        Ok(())
    }
}

fn numbers<T>(events: &[Numbered<T>], into: &mut NumberSet) {
    events.iter().for_each(|(number, _)| into.insert(*number, *number + 1));
}

impl<T: Record> Source for HandleSource<T> {
    type Out = T;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), SourceError> {
        self.attach(&ctx.waker, ctx.life.clone(), ctx.checkpointing)?;
        // Otherwise the checkpoint says where the numbers begin; or, if it does not know this source, the first poll does.
        if ctx.restored.is_none() { self.start() } else { Ok(()) }
    }

    fn poll<E: Emit<T>>(&mut self, budget: usize, emit: &mut E) -> Result<SourceStatus, SourceError> {
        self.start()?;
        let Some(taking) = &mut self.taking else { return Ok(SourceStatus::Ended) };
        for left in (1..=budget).rev() {
            if !emit.room() {
                return Ok(SourceStatus::More);
            }
            if taking.batch.is_empty() {
                match self.queue.take(&mut taking.batch, left, taking.keeping) {
                    Taken::Some => {}
                    Taken::Nothing => return Ok(SourceStatus::Wait { until_ns: None }),
                    Taken::Ended => return Ok(SourceStatus::Ended),
                }
            }
            if let Some((number, event)) = taking.batch.pop_front() {
                self.emitted += 1;
                emit.emit(Elem::new(event.view(), MIN_WATERMARK));
                if taking.keeping {
                    taking.current.push((number, event));
                }
            }
        }
        Ok(SourceStatus::More)
    }

    fn emitted(&self) -> u64 {
        self.emitted
    }

    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), SourceError> {
        let mut covered = NumberSet::default();
        let ranges = restored.positions::<EventRange>(STATE).map_err(|error| error.message)?;
        ranges.iter().for_each(|range| covered.insert(range.from, range.to));
        let durable = covered.take_prefix(0).unwrap_or(0);
        if let Some(taking) = &mut self.taking {
            taking.started = true;
        }
        Ok(self.queue.resume(durable, &covered)?)
    }

    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), SourceError> {
        // What complete checkpoints cover is covered by this one too. The rest this subtask still keeps.
        let (durable, mut covered) = self.queue.covered();
        covered.insert(0, durable);
        if let Some(taking) = &mut self.taking {
            numbers(&taking.current, &mut covered);
            taking.epochs.iter().for_each(|(_, events)| numbers(events, &mut covered));
            taking.epochs.push_back((snapshot.checkpoint(), std::mem::take(&mut taking.current)));
        }
        snapshot.positions::<EventRange>(STATE, covered.ranges().map(|(from, to)| EventRange { from, to }));
        Ok(())
    }

    fn checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<(), SourceError> {
        let Some(taking) = &mut self.taking else { return Ok(()) };
        let (mut covered, mut events) = (NumberSet::default(), Vec::new());
        while let Some((_, epoch)) = taking.epochs.pop_front_if(|(id, _)| *id <= checkpoint) {
            numbers(&epoch, &mut covered);
            events.extend(epoch);
        }
        if !events.is_empty() {
            self.queue.completed(&covered, events.len());
        }
        Ok(())
    }
}
