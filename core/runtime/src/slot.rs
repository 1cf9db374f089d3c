//! `Slot`: all subtasks of one index, stepped in turn on one thread.
//!
//! A slot starts when all slots are built, runs until its tasks have ended or the job stops, and then settles: it keeps
//! sending home the pages of others until its own are back. Only then may its thread go.

use std::{rc::Rc, sync::Arc};

use thalweg_model::metrics::SlotMetrics;

use crate::{
    Clock, JobControl, SlotWaker,
    checkpoint::{Mailbox, SlotMessage, SlotSnapshots, Work},
    exchange::PagePool,
    partition::XorShift,
    segment_run::{Step, StepEnv},
    task::Task,
    wake_set::WakeSet,
};

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Turn {
    /// Something was done: take another turn.
    Busy,
    /// Nothing to do until the slot is woken or its clock shows `until_ns`.
    Idle {
        /// When to take the next turn at the latest.
        until_ns: Option<u64>,
    },
    /// The slot has come to its end.
    Done,
}

/// How a slot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlotOutcome {
    /// Its number.
    pub slot: usize,
    /// Network buffers it had.
    pub pages: usize,
    /// Network buffers that have not come back: 0.
    pub pages_outstanding: usize,
    /// Turns that did something.
    pub busy_turns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    Settling { since_ns: Option<u64> },
    Done,
}

/// What a slot is made of.
pub(crate) struct SlotParts {
    pub(crate) slot: usize,
    pub(crate) slots: usize,
    pub(crate) tasks: Vec<Task>,
    /// None where building it failed: the job is being stopped, and the slot ends at once.
    pub(crate) pool: Option<Rc<PagePool>>,
    pub(crate) metrics: Option<SlotMetrics>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) waker: SlotWaker,
    pub(crate) wakes: WakeSet,
    pub(crate) control: JobControl,
    pub(crate) chaos: Option<XorShift>,
    pub(crate) report_interval_ns: u64,
    pub(crate) settle_timeout_ns: u64,
    pub(crate) mailbox: Arc<Mailbox>,
    /// None where no checkpoints are taken.
    pub(crate) snapshots: Option<SlotSnapshots>,
    pub(crate) max_state_bytes: Option<u64>,
}

/// A slot at work. Lives on one thread.
pub struct Slot {
    parts: SlotParts,
    phase: Phase,
    next_report_ns: u64,
    /// The end of the last turn, if it was a busy one: the next one starts there, and need not ask.
    now_ns: Option<u64>,
    busy_turns: u64,
}

/// While idle, figures are published at this many times the interval.
const IDLE_REPORT_FACTOR: u64 = 5;

impl Slot {
    pub(crate) fn new(parts: SlotParts) -> Self {
        parts.control.count_ready();
        Self { parts, phase: Phase::Starting, next_report_ns: 0, now_ns: None, busy_turns: 0 }
    }

    /// Wakes it.
    pub fn waker(&self) -> &SlotWaker {
        &self.parts.waker
    }

    /// What it goes by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.parts.clock
    }

    /// Steps every task once.
    pub fn turn(&mut self) -> Turn {
        let notified = self.parts.waker.take_notified();
        let stopping = self.parts.control.stopping();
        let turn = match self.phase {
            Phase::Starting | Phase::Running if stopping => {
                self.abort();
                Turn::Busy
            }
            Phase::Starting if self.parts.control.ready() < self.parts.slots => Turn::Idle { until_ns: None },
            Phase::Starting => {
                self.phase = Phase::Running;
                Turn::Busy
            }
            Phase::Running => self.run(notified),
            Phase::Settling { since_ns } => self.settle(stopping, since_ns),
            Phase::Done => Turn::Done,
        };
        self.busy_turns += u64::from(turn == Turn::Busy);
        turn
    }

    /// Reads the mailbox.
    #[cold]
    fn read_messages(&mut self) -> bool {
        let now_ns = self.parts.clock.now_ns();
        let SlotParts { tasks, mailbox, snapshots, control, .. } = &mut self.parts;
        for message in mailbox.take() {
            let (SlotMessage::Trigger(id, _) | SlotMessage::Complete(id, _) | SlotMessage::Aborted(id, _)) = &message;
            let Some(task) = tasks.iter_mut().find(|task| task.id() == *id) else { continue };
            let done = match message {
                SlotMessage::Trigger(_, request) => {
                    task.trigger(&request, now_ns);
                    Ok(())
                }
                SlotMessage::Complete(_, id) => task.checkpoint_complete(id),
                SlotMessage::Aborted(_, id) => {
                    task.checkpoint_aborted(id, snapshots.as_mut().and_then(SlotSnapshots::writer))
                }
            };
            if let Err(error) = done {
                control.fail(error);
                return false;
            }
        }
        true
    }

    /// Goes on writing snapshots, for one slice.
    fn write_snapshots(&mut self, now_ns: u64) -> Work {
        let SlotParts { tasks, snapshots: Some(snapshots), control, clock, .. } = &mut self.parts else {
            return Work::None;
        };
        match snapshots.step(tasks, now_ns, clock.as_ref()) {
            Ok(work) => work,
            Err(error) => {
                control.fail(error);
                Work::Busy
            }
        }
    }

    fn run(&mut self, notified: bool) -> Turn {
        if self.parts.mailbox.is_filled() && !self.read_messages() {
            self.abort();
            return Turn::Busy;
        }
        let SlotParts { tasks, clock, wakes, chaos, control, .. } = &mut self.parts;
        let clock: &dyn Clock = clock.as_ref();
        let mut now_ns = self.now_ns.take().unwrap_or_else(|| clock.now_ns());
        let (mut busy, mut ended) = (false, true);
        for task in tasks {
            let mut env = StepEnv {
                now_ns,
                now_ms: clock.ms_at(now_ns),
                clock,
                last_step_ns: task.last_step_ns(),
                notified,
                chaos: chaos.as_mut(),
            };
            let step = match task.step(&mut env) {
                Ok(step) => step,
                Err(error) => {
                    control.fail(error);
                    self.abort();
                    return Turn::Busy;
                }
            };
            task.note_wakes(wakes);
            wakes.wake();
            let started_ns = std::mem::replace(&mut now_ns, clock.now_ns());
            task.account(started_ns, now_ns, step);
            busy |= step == Step::Busy;
            ended &= step == Step::Ended;
        }
        if ended {
            self.end();
            return Turn::Busy;
        }
        if now_ns >= self.next_report_ns {
            self.report(now_ns);
        }
        match self.write_snapshots(now_ns) {
            // A slice takes its time: the next turn has to ask for it.
            Work::Busy => return Turn::Busy,
            Work::Waiting | Work::None => {}
        }
        if busy {
            self.now_ns = Some(now_ns);
            return Turn::Busy;
        }
        Turn::Idle { until_ns: Some(self.deadline_ns(now_ns)) }
    }

    /// When an idle slot has to take a turn at the latest.
    fn deadline_ns(&self, now_ns: u64) -> u64 {
        let SlotParts { tasks, clock, report_interval_ns, .. } = &self.parts;
        let report_ns = now_ns.max(self.next_report_ns) + report_interval_ns * (IDLE_REPORT_FACTOR - 1);
        tasks.iter().filter_map(|task| task.deadline_ns(clock.as_ref())).fold(report_ns, u64::min)
    }

    fn report(&mut self, now_ns: u64) {
        self.next_report_ns = now_ns + self.parts.report_interval_ns;
        if let (Some(metrics), Some(pool)) = (&self.parts.metrics, &self.parts.pool) {
            metrics.set_used(pool.in_use());
        }
        if let Err(error) = self.parts.tasks.iter_mut().try_for_each(Task::report) {
            self.parts.control.fail(error);
        }
        self.limit_state();
    }

    /// Fails the task with the largest state where that of the slot exceeds its share of memory.
    fn limit_state(&mut self) {
        let SlotParts { tasks, max_state_bytes: Some(most), control, slots, .. } = &mut self.parts else { return };
        let mut all = 0;
        let mut largest = (0, None);
        for task in tasks {
            let (bytes, segment) = task.state_bytes();
            all += bytes;
            if bytes > largest.0 {
                largest = (bytes, segment);
            }
        }
        if all > *most
            && let Some(segment) = largest.1
        {
            control.fail(segment.error(format!(
                "the keyed state of the slot holds {all} bytes and may hold {most}: raise taskmanager.memory.managed.size \
                 (or .fraction), of which each of the {slots} slots has an equal share, or use more slots"
            )));
        }
    }

    fn abort(&mut self) {
        self.parts.tasks.iter_mut().for_each(Task::abort);
        self.end();
    }

    fn end(&mut self) {
        self.parts.tasks.iter_mut().for_each(Task::publish);
        self.phase = Phase::Settling { since_ns: None };
        self.parts.control.count_ended();
    }

    fn settle(&mut self, stopping: bool, since_ns: Option<u64>) -> Turn {
        let now_ns = self.parts.clock.now_ns();
        let SlotParts { tasks, wakes, .. } = &mut self.parts;
        if stopping {
            // What has ended in order may still have sent pages that nobody will read any more.
            tasks.iter_mut().for_each(Task::abort);
        }
        // Twice, so that pages between two tasks of this slot come home within one turn.
        let mut changed = tasks.iter_mut().fold(false, |changed, task| task.settle_outputs() | changed);
        let drained = tasks.iter_mut().fold(true, |drained, task| task.settle_inputs() & drained);
        changed |= tasks.iter_mut().fold(false, |changed, task| task.settle_outputs() | changed);
        tasks.iter_mut().for_each(|task| task.note_wakes(wakes));
        wakes.wake();
        if drained && tasks.iter().all(Task::quiescent) {
            self.phase = Phase::Done;
            return Turn::Done;
        }
        if changed {
            return Turn::Busy;
        }
        // Consumers may take their time as long as they run; afterwards pages must come home soon.
        if !stopping && self.parts.control.ended() < self.parts.slots {
            return Turn::Idle { until_ns: None };
        }
        let until_ns = since_ns.unwrap_or(now_ns) + self.parts.settle_timeout_ns;
        if now_ns >= until_ns {
            self.phase = Phase::Done;
            return Turn::Done;
        }
        self.phase = Phase::Settling { since_ns: Some(since_ns.unwrap_or(now_ns)) };
        Turn::Idle { until_ns: Some(until_ns) }
    }

    /// How it ended. Call it after [`Turn::Done`].
    pub fn outcome(&self) -> SlotOutcome {
        let pool = self.parts.pool.as_ref();
        SlotOutcome {
            slot: self.parts.slot,
            pages: pool.map_or(0, |pool| pool.total()),
            pages_outstanding: pool.map_or(0, |pool| pool.in_use()),
            busy_turns: self.busy_turns,
        }
    }
}

impl Drop for Slot {
    /// A slot that goes before its end, in a panic, takes the job with it.
    fn drop(&mut self) {
        if !matches!(self.phase, Phase::Settling { .. } | Phase::Done) {
            self.parts.control.stop();
            self.parts.control.count_ended();
        }
    }
}
