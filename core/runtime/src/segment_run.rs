//! `SegmentRun`: one segment at work: its gate, its outputs, and what it still has to do.
//!
//! A step is bounded: it finishes what was interrupted, fires timers, then reads about a page of input or polls the
//! source once. Whatever a full output interrupts is kept in `todo` and goes on before anything else.

mod checkpoints;

use std::{collections::VecDeque, sync::Arc};

use thalweg_model::{CheckpointId, time::MAX_WATERMARK};

use crate::{
    Clock, Outputs, Progress, Segment, SegmentContext, SlotWaker, SourceStatus, TaskError,
    checkpoint::{ChannelState, Complete, RestoredFrames, SegmentSnapshots},
    guard::Who,
    inputs::{Event, Inputs},
    latency::LatencyProbe,
    pace::Pace,
    partition::XorShift,
    valve::Change,
    wake_set::WakeSet,
};

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Something was done: there may be more.
    Busy,
    /// There was nothing to do.
    Idle,
    /// There is no room in the outputs.
    Blocked,
    /// All is done.
    Ended,
}

/// What a step may use of its slot.
pub(crate) struct StepEnv<'a> {
    /// The time at the start of the step.
    pub(crate) now_ns: u64,
    /// How long the task's last step took.
    pub(crate) last_step_ns: u64,
    pub(crate) now_ms: i64,
    /// The clock of both, for what a step measures itself.
    pub(crate) clock: &'a dyn Clock,
    /// Whether the slot's waker was used: waiting sources are polled.
    pub(crate) notified: bool,
    /// In simulation: makes batches and flushes random.
    pub(crate) chaos: Option<&'a mut XorShift>,
}

/// A call that may have to be repeated until it is done.
#[derive(Debug)]
enum Todo {
    /// The moment of a checkpoint. Needs no room.
    Barrier(Complete),
    Idle(bool),
    Watermark(i64),
    Timers(i64),
    EndInput(usize),
    Finish,
}

/// Where a segment is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// It takes what comes.
    Running,
    /// It has finished its work, and waits for a checkpoint that was taken since: `taken` is the first one.
    AtEnd { taken: Option<CheckpointId> },
    /// It has stopped with this savepoint and waits for it to be complete.
    Stopped(CheckpointId),
}

/// When a source is polled next.
#[derive(Clone, Copy, Debug)]
enum Wait {
    No,
    Until(u64),
    Woken,
}

/// Records that a source is asked for at first.
const FIRST_POLL_RECORDS: usize = 64;
/// Records that one step is given at most where its operator is fast enough; slower ones get fewer.
const MAX_READ_RECORDS: usize = 4096;
/// Input that one step reads at most, beyond the slice that exceeds it.
const STEP_BYTES: usize = 32 << 10;
/// Slices that one step reads at most.
const STEP_SLICES: usize = 32;

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct InputCounters {
    pub(crate) bytes: u64,
    pub(crate) buffers: u64,
    pub(crate) timers: u64,
}

/// What waits to be read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Queued {
    /// Slices of buffers: more than buffers where those are sent in parts.
    pub(crate) buffers: usize,
    pub(crate) bytes: usize,
    /// Buffers that may be under way.
    pub(crate) capacity_buffers: usize,
}

/// One segment at work.
pub(crate) struct SegmentRun {
    segment: Box<dyn Segment>,
    who: Who,
    inputs: Option<Inputs>,
    /// Whether a source is polled; no for an operator.
    wait: Wait,
    /// Records that are asked for at once, or given.
    pace: Pace,
    /// Whether the last step called user code with records, and whether that did as much as it was given.
    gave: bool,
    full: bool,
    /// Whether the call that was interrupted last goes on although nothing changes outside.
    more: bool,
    out: Outputs,
    todo: VecDeque<Todo>,
    probe: LatencyProbe,
    /// Whether `watermark(i64::MAX)` is done or under way.
    time_ended: bool,
    idle: bool,
    opened: bool,
    closed: bool,
    counters: InputCounters,
    life: Life,
    snapshots: SegmentSnapshots,
    /// Whether the segment waits for one more checkpoint when it has finished.
    final_checkpoint: bool,
    /// Whether it had finished before the checkpoint that the job starts from: its code is not run again.
    skipped: bool,
    /// Checkpoints that it has to decline, and why.
    declined: Vec<(CheckpointId, String)>,
    /// The last checkpoint that a source was told to take.
    triggered: CheckpointId,
    /// Wakes the slot.
    waker: SlotWaker,
    /// Whether the first thing to do has been tried and interrupted.
    begun: bool,
    /// Records in flight of a checkpoint that is being taken.
    in_flight: Option<InFlightParts>,
    /// What names the channels of its inputs in checkpoints, and the schemas of their records.
    channels: Vec<(String, Arc<[u8]>)>,
    /// Records that were in flight when the checkpoint was taken that the job starts from.
    restored: VecDeque<RestoredFrames>,
}

/// Records in flight that belong to a checkpoint, while they are being gathered.
struct InFlightParts {
    id: CheckpointId,
    states: Vec<ChannelState>,
    /// Whether channels of the inputs are still being recorded.
    inputs: bool,
    /// Whether barriers may still be stuck in the outputs, and when they overtake there.
    outputs_until_ms: Option<i64>,
}

/// What a segment is told at its making.
pub(crate) struct SegmentSettings {
    pub(crate) probe: LatencyProbe,
    pub(crate) batch_records: usize,
    pub(crate) snapshots: SegmentSnapshots,
    pub(crate) final_checkpoint: bool,
    pub(crate) skipped: bool,
    pub(crate) channels: Vec<(String, Arc<[u8]>)>,
    pub(crate) restored: VecDeque<RestoredFrames>,
    pub(crate) waker: SlotWaker,
}

impl SegmentRun {
    pub(crate) fn new(
        segment: Box<dyn Segment>,
        who: Who,
        inputs: Option<Inputs>,
        out: Outputs,
        settings: SegmentSettings,
    ) -> Self {
        let SegmentSettings { probe, batch_records, snapshots, final_checkpoint, skipped, channels, restored, waker } =
            settings;
        let pace = match inputs {
            Some(_) => Pace::reading(MAX_READ_RECORDS),
            None => Pace::polling(FIRST_POLL_RECORDS, batch_records),
        };
        Self {
            segment,
            who,
            inputs,
            wait: Wait::No,
            pace,
            gave: false,
            full: false,
            more: false,
            out,
            todo: VecDeque::with_capacity(8),
            probe,
            time_ended: false,
            idle: false,
            opened: false,
            closed: false,
            counters: InputCounters::default(),
            life: Life::Running,
            snapshots,
            final_checkpoint,
            skipped,
            declined: Vec::new(),
            triggered: CheckpointId(0),
            waker,
            begun: false,
            in_flight: None,
            channels,
            restored,
        }
    }

    /// Finds a segment that is not what the plan says.
    pub(crate) fn check(&self) -> Result<(), TaskError> {
        match (self.inputs.is_some(), self.segment.is_source()) {
            (true, true) => Err(self.who.error("is a source and cannot have inputs")),
            (false, false) => Err(self.who.error("has no inputs but is no source")),
            _ => Ok(()),
        }
    }

    /// Opens the segment.
    pub(crate) fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), TaskError> {
        self.opened = true;
        if let (Some(inputs), Some(head)) = (&mut self.inputs, ctx.metrics.first()) {
            inputs.register(head);
        }
        self.who.guard(|| self.segment.open(ctx, &mut self.out))
    }

    /// Does a bounded piece of work.
    pub(crate) fn step(&mut self, env: &mut StepEnv<'_>) -> Result<Step, TaskError> {
        let mut changed = self.out.poll();
        if self.closed {
            return Ok(Step::Ended);
        }
        if self.inputs.as_ref().is_some_and(Inputs::overtakes) || self.in_flight.is_some() {
            self.mind_overtaking(env)?;
        }
        let mut step = self.work(env)?;
        if let Some(message) = self.out.take_error() {
            return Err(self.who.error(message));
        }
        let flush_now = step != Step::Busy || env.chaos.as_mut().is_some_and(|random| random.below(3) == 0);
        changed |= self.out.flush(flush_now, env.now_ns);
        if changed && matches!(step, Step::Idle | Step::Blocked) {
            step = Step::Busy;
        }
        Ok(step)
    }

    fn work(&mut self, env: &mut StepEnv<'_>) -> Result<Step, TaskError> {
        if !self.can_take_more() && !matches!(self.todo.front(), Some(Todo::Barrier(_))) {
            return Ok(Step::Blocked);
        }
        if std::mem::take(&mut self.gave) {
            self.pace.adapt(env.last_step_ns, std::mem::take(&mut self.full));
        }
        let mut worked = !self.todo.is_empty();
        if !worked
            && self.life == Life::Running
            && self.segment.next_deadline_ms().is_some_and(|deadline_ms| deadline_ms <= env.now_ms)
        {
            self.todo.push_back(Todo::Timers(env.now_ms));
            worked = true;
        }
        if worked && !self.run_todo(env)? {
            return Ok(match () {
                () if self.closed => Step::Ended,
                () if self.more => Step::Busy,
                () => Step::Blocked,
            });
        }
        if matches!(self.life, Life::Stopped(_)) || !self.can_take_more() {
            return Ok(if worked { Step::Busy } else { Step::Idle });
        }
        if self.inputs.is_some() {
            worked |= self.read(env)?;
        } else {
            worked |= self.poll_source(env)?;
        }
        Ok(match worked {
            _ if self.closed => Step::Ended,
            true => Step::Busy,
            false if !self.can_take_more() => Step::Blocked,
            false => Step::Idle,
        })
    }

    /// Whether records may be handed to the segment: there is room behind it, and it is ready itself.
    fn can_take_more(&self) -> bool {
        self.out.room() && self.segment.ready()
    }

    /// Does what is to be done, in order. False if it was interrupted, or the segment has closed.
    fn run_todo(&mut self, env: &StepEnv<'_>) -> Result<bool, TaskError> {
        self.more = false;
        while let Some(todo) = self.todo.front() {
            if let Todo::Barrier(_) = todo {
                // The one before must have been written: its images are still being read.
                if self.snapshots.is_busy() {
                    return Ok(false);
                }
                self.begun = false;
                if let Some(Todo::Barrier(complete)) = self.todo.pop_front() {
                    self.take_snapshot(complete, env)?;
                }
                continue;
            }
            if !self.out.room() {
                return Ok(false);
            }
            let Self { segment, out, skipped, .. } = self;
            let progress = self.who.guard(|| match todo {
                _ if *skipped => Ok(Progress::Done),
                Todo::Idle(idle) => {
                    segment.idle(*idle, out);
                    Ok(Progress::Done)
                }
                Todo::Watermark(watermark) => segment.watermark(*watermark, out),
                Todo::Timers(now_ms) => segment.processing_time(*now_ms, out),
                Todo::EndInput(input) => segment.end_input(*input, out),
                Todo::Finish => segment.finish(out),
                Todo::Barrier(_) => Ok(Progress::Done),
            })?;
            self.begun = progress != Progress::Done;
            if self.begun {
                self.more = progress == Progress::More;
                return Ok(false);
            }
            match self.todo.pop_front() {
                Some(Todo::Timers(_)) => self.counters.timers += 1,
                Some(Todo::Finish) if self.final_checkpoint => {
                    self.life = Life::AtEnd { taken: None };
                    self.out.end_of_data();
                }
                Some(Todo::Finish) => {
                    self.out.finish();
                    self.close();
                    return Ok(false);
                }
                _ => {}
            }
        }
        Ok(true)
    }

    /// Whether nothing more is waited for once this checkpoint is complete.
    pub(crate) fn ends_with(&self, id: CheckpointId) -> bool {
        match self.life {
            _ if self.closed => true,
            Life::Running => false,
            Life::AtEnd { taken } => taken.is_some_and(|taken| taken <= id),
            Life::Stopped(savepoint) => savepoint == id,
        }
    }

    /// Ends in order, after the last checkpoint.
    pub(crate) fn end(&mut self) -> Result<(), TaskError> {
        if self.closed {
            return Ok(());
        }
        let Self { segment, who, .. } = self;
        who.guard(|| segment.settle())?;
        self.out.finish();
        if let Some(inputs) = &mut self.inputs {
            inputs.gate.discard();
        }
        self.close();
        Ok(())
    }

    /// Whether it has processed all of its input.
    pub(crate) fn is_at_end(&self) -> bool {
        self.closed || matches!(self.life, Life::AtEnd { .. })
    }

    /// Whether it has no inputs.
    pub(crate) fn is_source(&self) -> bool {
        self.inputs.is_none()
    }

    /// Whether it has closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Memory that its keyed state holds, in bytes.
    pub(crate) fn state_bytes(&mut self) -> u64 {
        let mut bytes = 0;
        if !self.closed {
            self.segment.keyed_states(&mut |state| bytes += state.memory_bytes as u64);
        }
        bytes
    }

    /// An error of this segment.
    pub(crate) fn error(&self, message: impl Into<String>) -> TaskError {
        self.who.error(message)
    }

    /// Reads input. Answers whether there was any.
    fn read(&mut self, env: &mut StepEnv<'_>) -> Result<bool, TaskError> {
        if !self.restored.is_empty() {
            return self.read_restored();
        }
        let (mut bytes, mut slices) = (0, 0);
        let max_slices = env.chaos.as_mut().map_or(STEP_SLICES, |random| 1 + random.below(3));
        while let Some(inputs) = &mut self.inputs
            && bytes < STEP_BYTES
            && slices < max_slices
            && !self.full
            && let Some(channel) = inputs.gate.poll()
        {
            slices += 1;
            if inputs.overtakes() {
                // What the slice brings may have been sent after a barrier that has overtaken.
                let moment = inputs.look(channel, env.now_ns, self.counters.bytes);
                if moment.complete.is_some() || moment.cancelled.is_some() {
                    self.overtaking_moment(moment);
                    if !self.run_todo(env)? {
                        break;
                    }
                    continue;
                }
            }
            let input = inputs.input_of(channel);
            let mut frames = inputs.gate.cursor(channel);
            if !frames.is_at_special() {
                if !self.pace.is_full() {
                    // A slow operator: one short slice per step.
                    frames.limit(self.pace.records());
                    self.full = true;
                }
                self.gave = true;
                self.who.guard(|| self.segment.process(input, &mut frames, &mut self.out))?;
            }
            let (read, left, special) = (frames.position(), frames.remaining(), frames.is_at_special());
            inputs.gate.consume(channel, read);
            bytes += read;
            self.counters.bytes += read as u64;
            if !self.out.room() || !self.segment.ready() {
                break;
            }
            if special {
                let event = inputs.take_control(channel, env.now_ns, self.counters.bytes);
                let ended = inputs.channel_ended(channel);
                self.handle(event, env);
                self.moment(ended);
                if !self.run_todo(env)? {
                    break;
                }
            } else if read == 0 && left > 0 {
                return Err(self.who.error("left its input unread although there is room: an error in the operator"));
            }
        }
        self.full |= bytes >= STEP_BYTES;
        self.counters.buffers += slices as u64;
        Ok(slices > 0)
    }

    /// Reads records that were in flight when the checkpoint was taken that the job starts from.
    fn read_restored(&mut self) -> Result<bool, TaskError> {
        let Some(RestoredFrames { input, frames, position }) = self.restored.front_mut() else { return Ok(false) };
        let mut cursor = frames.cursor_from(*position);
        self.who.guard(|| self.segment.process(*input, &mut cursor, &mut self.out))?;
        *position += cursor.position();
        if *position == frames.len() {
            self.restored.pop_front();
        }
        Ok(true)
    }

    fn handle(&mut self, event: Event, env: &StepEnv<'_>) {
        match event {
            Event::Nothing => {}
            Event::Marker(marker) => self.probe.pass(marker, env.now_ns, &mut self.out),
            Event::Barriers(moment) => self.moment(moment),
            Event::Change { change, ended, all_ended } => {
                self.changed(change);
                self.todo.extend(ended.map(Todo::EndInput));
                if all_ended {
                    self.all_ended();
                }
            }
        }
    }

    fn changed(&mut self, change: Change) {
        if change.active {
            self.set_idle(false);
        }
        // The end of time comes when all inputs have ended, even where their watermarks have got there before.
        if let Some(watermark) = change.watermark.filter(|&w| w != MAX_WATERMARK) {
            self.todo.push_back(Todo::Watermark(watermark));
        }
        if change.idle {
            self.set_idle(true);
        }
    }

    fn set_idle(&mut self, idle: bool) {
        self.idle = idle;
        self.todo.push_back(Todo::Idle(idle));
    }

    fn all_ended(&mut self) {
        if self.idle {
            self.set_idle(false);
        }
        if !std::mem::replace(&mut self.time_ended, true) {
            self.todo.push_back(Todo::Watermark(MAX_WATERMARK));
        }
        // Where no checkpoints come by themselves, a drain still has its savepoint taken behind the end of all data.
        self.final_checkpoint |= self.inputs.as_ref().is_some_and(Inputs::barrier_follows);
        self.todo.push_back(Todo::Finish);
    }

    /// Polls the source if it is time to. Answers whether it was.
    fn poll_source(&mut self, env: &mut StepEnv<'_>) -> Result<bool, TaskError> {
        if self.skipped && !self.time_ended {
            self.all_ended();
            self.run_todo(env)?;
            return Ok(true);
        }
        let due = match self.wait {
            Wait::No => true,
            Wait::Until(at_ns) => env.notified || env.now_ns >= at_ns,
            Wait::Woken => env.notified,
        };
        if !due || self.time_ended {
            return Ok(false);
        }
        self.probe.mark(env.now_ns, &mut self.out);
        let budget = match &mut env.chaos {
            Some(random) => 1 + random.below(self.pace.records().min(16)),
            None => self.pace.records(),
        };
        self.gave = true;
        let status = self.who.guard(|| self.segment.poll_source(budget, &mut self.out))?;
        match status {
            SourceStatus::More => {
                self.wait = Wait::No;
                self.full = self.out.room();
            }
            SourceStatus::Wait { until_ns } => self.wait = until_ns.map_or(Wait::Woken, Wait::Until),
            SourceStatus::Ended => {
                self.all_ended();
                self.run_todo(env)?;
            }
        }
        Ok(!matches!(status, SourceStatus::Wait { .. }) || !self.out.room())
    }

    /// When the segment wants to be stepped although nothing comes in, in nanoseconds of the clock.
    pub(crate) fn deadline_ns(&self, clock: &dyn Clock) -> Option<u64> {
        if self.closed {
            return None;
        }
        // Barriers overtake whatever room there is.
        let overtaking = [
            self.inputs.as_ref().and_then(Inputs::overtakes_at_ms),
            self.in_flight.as_ref().and_then(|parts| parts.outputs_until_ms),
        ];
        let overtaking = overtaking.into_iter().flatten().map(|ms| clock.ns_at(ms)).min();
        if !self.out.room() {
            return overtaking;
        }
        let timer = self.segment.next_deadline_ms().filter(|_| self.life == Life::Running).map(|ms| clock.ns_at(ms));
        let source = match self.wait {
            Wait::Until(at_ns) if !self.time_ended => Some(at_ns),
            _ => None,
        };
        [timer, source, self.out.flush_deadline_ns(), overtaking].into_iter().flatten().min()
    }

    /// Notes the slots that must hear of what was done.
    #[inline]
    pub(crate) fn note_wakes(&mut self, wakes: &mut WakeSet) {
        self.out.note_wakes(wakes);
        if let Some(inputs) = &mut self.inputs {
            inputs.note_wakes(wakes);
        }
    }

    /// Closes the segment, once, if it was opened.
    pub(crate) fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) || !self.opened {
            return;
        }
        self.inputs.iter().for_each(Inputs::report);
        let Self { segment, who, .. } = self;
        let closed = who.guard(|| {
            segment.report();
            segment.close();
            Ok(())
        });
        if let Err(error) = closed {
            // Its work is done or has failed already: nothing depends on how it closes.
            tracing::warn!(%error, "closing failed");
        }
    }

    /// Gives up: closes the segment, drops what it has not sent and not read.
    pub(crate) fn abort(&mut self) {
        self.close();
        self.out.discard();
        if let Some(inputs) = &mut self.inputs {
            inputs.gate.discard();
        }
    }

    /// After the end: takes back pages and sends what waited. Answers whether anything changed.
    pub(crate) fn settle_outputs(&mut self) -> bool {
        self.out.poll()
    }

    /// After the end: sends pages home. Answers whether all are on their way.
    pub(crate) fn settle_inputs(&mut self) -> bool {
        self.inputs.as_mut().is_none_or(|inputs| inputs.gate.drained())
    }

    /// Lets the segment publish its counters.
    pub(crate) fn report(&mut self) -> Result<(), TaskError> {
        if self.closed {
            return Ok(());
        }
        self.inputs.iter().for_each(Inputs::report);
        let Self { segment, who, .. } = self;
        who.guard(|| {
            segment.report();
            Ok(())
        })
    }

    pub(crate) fn counters(&self) -> InputCounters {
        self.counters
    }

    pub(crate) fn outputs(&self) -> &Outputs {
        &self.out
    }

    /// The combined input watermark; none for a source.
    pub(crate) fn input_watermark(&self) -> Option<i64> {
        self.inputs.as_ref().map(|inputs| inputs.watermark())
    }

    /// What waits in the gate, if there is one.
    pub(crate) fn queued(&self) -> Queued {
        self.inputs.as_ref().map_or_else(Queued::default, |inputs| Queued {
            buffers: inputs.gate.queued_buffers(),
            bytes: inputs.gate.queued_bytes(),
            capacity_buffers: inputs.gate.capacity_buffers(),
        })
    }
}
