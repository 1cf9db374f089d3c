//! `SlotSnapshots`: the writing of all snapshots of a slot, in slices between the turns of its tasks.

use std::os::fd::OwnedFd;

use thalweg_io::checkpoint::{Event, FileIds, SlotWriter, WriterConfig, WriterError};

use super::{
    CheckpointingSetup,
    segment_snapshot::{Slice, SliceEnv},
    slice_budget::SliceBudget,
};
use crate::{Clock, TaskError, task::Task};

/// See the module.
pub(crate) struct SlotSnapshots {
    writer: Option<SlotWriter>,
    ids: FileIds,
    setup: CheckpointingSetup,
    events: Vec<Event>,
    /// Where the last slice was: the task, so that all get their share.
    turn: usize,
    budget: SliceBudget,
}

/// What a slice came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Something was done.
    Busy,
    /// The disk is waited for; it wakes the slot.
    Waiting,
    /// Nothing is being written.
    None,
}

impl SlotSnapshots {
    /// The writing of a slot that is woken through `wake`, an event descriptor; without files, nothing wakes it.
    ///
    /// # Errors
    /// No memory or descriptors for the writer, or no randomness.
    pub(crate) fn new(setup: CheckpointingSetup, wake: Option<OwnedFd>, files: bool) -> Result<Self, WriterError> {
        let ids = FileIds::from_system().map_err(|source| WriterError::System { what: "file ids", source })?;
        let config =
            WriterConfig { wake, direct: setup.direct, faults: setup.faults.clone(), ..WriterConfig::default() };
        let writer = if files { Some(SlotWriter::new(config)?) } else { None };
        Ok(Self { writer, ids, setup, events: Vec::new(), turn: 0, budget: SliceBudget::default() })
    }

    /// The writer, for giving files up.
    pub(crate) fn writer(&mut self) -> Option<&mut SlotWriter> {
        self.writer.as_mut()
    }

    /// Goes on with what is being written, for one slice.
    ///
    /// # Errors
    /// A table failed: the job does too.
    pub(crate) fn step(&mut self, tasks: &mut [Task], now_ns: u64, clock: &dyn Clock) -> Result<Work, TaskError> {
        let mut work = Work::None;
        if self.writer.as_ref().is_some_and(|writer| !writer.is_idle()) {
            work = if self.hand_on_events(tasks) { Work::Busy } else { Work::Waiting };
        }
        let count = tasks.len();
        for n in 0..count {
            let at = (self.turn + n) % count;
            if !tasks[at].is_writing() {
                continue;
            }
            let mut env = SliceEnv {
                writer: self.writer.as_mut(),
                ids: &mut self.ids,
                inline_threshold_bytes: self.setup.inline_threshold_bytes,
                budget_ns: self.budget.ns(),
                now_ns,
            };
            match tasks[at].write_slice(&mut env)? {
                Slice::Busy => {
                    self.budget = self.budget.after(clock.now_ns().saturating_sub(now_ns));
                    self.turn = at;
                    work = Work::Busy;
                    break;
                }
                Slice::Waiting => work = if work == Work::Busy { Work::Busy } else { Work::Waiting },
                Slice::Idle => {}
            }
        }
        // What was appended goes to the kernel before the slot may sleep.
        if self.hand_on_events(tasks) {
            work = Work::Busy;
        }
        Ok(work)
    }

    /// Lets the writer go on, and tells the tasks what it has done. True if that was anything.
    fn hand_on_events(&mut self, tasks: &mut [Task]) -> bool {
        let Some(writer) = &mut self.writer else { return false };
        writer.poll(&mut self.events);
        let any = !self.events.is_empty();
        for event in self.events.drain(..) {
            tasks.iter_mut().for_each(|task| task.writer_event(&event));
        }
        any
    }
}
