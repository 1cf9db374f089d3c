//! `Task`: one subtask of a task: its segments in order, and where its time goes.

use std::sync::Arc;

use thalweg_io::checkpoint::{Event, SlotWriter};
use thalweg_model::{
    CheckpointId,
    metrics::{Counter, TaskMetrics},
};

use crate::{
    Acknowledgement, CheckpointRequest, Clock, DeclineReason, TaskError, TaskListener, TaskReport, TaskSubtask,
    checkpoint::{Outcome, Slice, SliceEnv},
    segment_run::{Queued, SegmentRun, Step, StepEnv},
    wake_set::WakeSet,
};

/// What a task shows of itself, and where the figures come from.
pub(crate) struct TaskMeter {
    pub(crate) metrics: TaskMetrics,
    /// Records that entered the operators at the head of the task.
    pub(crate) records_in: Vec<Counter>,
    /// Of each segment: whether its input comes from other tasks.
    pub(crate) heads: Vec<bool>,
    /// Of each segment: the bytes of its first operator, where those come from other tasks, and of its last, where they go
    /// there.
    pub(crate) bytes: Vec<(Option<Counter>, Option<Counter>)>,
}

/// What has been said of a task to whoever listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Nothing,
    Running,
    AtEnd,
    Finished,
}

/// The parts of a checkpoint that the segments of a task have brought so far.
struct Parts {
    id: CheckpointId,
    whole: Acknowledgement,
    /// The segments whose part is there.
    from: Vec<bool>,
}

/// A subtask at work.
pub(crate) struct Task {
    id: TaskSubtask,
    listener: Option<Arc<dyn TaskListener>>,
    said: Said,
    parts: Vec<Parts>,
    segments: Vec<SegmentRun>,
    meter: TaskMeter,
    /// What the last step came to, and when it was over.
    last: Step,
    last_ns: u64,
    last_step_ns: u64,
    busy_ns: u64,
    idle_ns: u64,
    blocked_ns: u64,
}

impl Task {
    pub(crate) fn new(
        id: TaskSubtask,
        listener: Option<Arc<dyn TaskListener>>,
        segments: Vec<SegmentRun>,
        meter: TaskMeter,
        now_ns: u64,
    ) -> Self {
        Self {
            id,
            listener,
            said: Said::Nothing,
            parts: Vec::new(),
            segments,
            meter,
            last: Step::Idle,
            last_ns: now_ns,
            last_step_ns: 0,
            busy_ns: 0,
            idle_ns: 0,
            blocked_ns: 0,
        }
    }

    /// Gives every segment one step, upstream first, so that a batch goes through the whole chain.
    pub(crate) fn step(&mut self, env: &mut StepEnv<'_>) -> Result<Step, TaskError> {
        let (mut busy, mut blocked, mut ended) = (false, false, true);
        for segment in &mut self.segments {
            match segment.step(env)? {
                Step::Busy => (busy, ended) = (true, false),
                Step::Blocked => (blocked, ended) = (true, false),
                Step::Idle => ended = false,
                Step::Ended => {}
            }
        }
        self.say_how_far();
        Ok(match (busy, blocked, ended) {
            (_, _, true) => Step::Ended,
            (true, ..) => Step::Busy,
            (_, true, _) => Step::Blocked,
            _ => Step::Idle,
        })
    }

    fn report_to_listener(&self, report: TaskReport) {
        if let Some(listener) = &self.listener {
            listener.report(self.id, report);
        }
    }

    /// Says how far the task has come, once for each step of its life.
    #[inline]
    fn say_how_far(&mut self) {
        if self.listener.is_none() || self.said == Said::Finished {
            return;
        }
        let far = match () {
            () if self.segments.iter().all(SegmentRun::is_closed) => Said::Finished,
            () if self.segments.iter().all(SegmentRun::is_at_end) => Said::AtEnd,
            () => Said::Running,
        };
        if far > self.said {
            self.said = far;
            self.report_to_listener(match far {
                Said::Finished => TaskReport::Finished,
                Said::AtEnd => TaskReport::EndOfData,
                _ => TaskReport::Running,
            });
        }
        for at in 0..self.segments.len() {
            for (id, message) in self.segments[at].take_declined() {
                self.report_to_listener(TaskReport::Declined { id, reason: DeclineReason::Overtaken, message });
            }
        }
    }

    /// Which subtask it is.
    pub(crate) fn id(&self) -> TaskSubtask {
        self.id
    }

    /// A checkpoint that no barrier announces.
    pub(crate) fn trigger(&mut self, request: &Arc<CheckpointRequest>, now_ns: u64) {
        for (segment, head) in self.segments.iter_mut().zip(&self.meter.heads) {
            if *head || segment.is_source() {
                segment.trigger(request, now_ns);
            }
        }
    }

    /// A checkpoint is complete.
    pub(crate) fn checkpoint_complete(&mut self, id: CheckpointId) -> Result<(), TaskError> {
        self.parts.retain(|parts| parts.id > id);
        self.segments.iter_mut().try_for_each(|segment| segment.checkpoint_complete(id))?;
        // All or none: one that has ended would pass no barrier on to those behind it.
        if self.segments.iter().all(|segment| segment.ends_with(id)) {
            self.segments.iter_mut().try_for_each(SegmentRun::end)?;
        }
        Ok(())
    }

    /// A checkpoint came to nothing.
    pub(crate) fn checkpoint_aborted(
        &mut self,
        id: CheckpointId,
        mut writer: Option<&mut SlotWriter>,
    ) -> Result<(), TaskError> {
        self.parts.retain(|parts| parts.id != id);
        self.segments.iter_mut().try_for_each(|segment| segment.checkpoint_aborted(id, writer.as_deref_mut()))
    }

    /// Whether a snapshot is being written.
    pub(crate) fn is_writing(&self) -> bool {
        self.segments.iter().any(SegmentRun::is_writing)
    }

    /// Something that the slot's writer has done.
    pub(crate) fn writer_event(&mut self, event: &Event) {
        self.segments.iter_mut().for_each(|segment| segment.writer_event(event));
    }

    /// Goes on writing the snapshot of the first segment that has one.
    pub(crate) fn write_slice(&mut self, env: &mut SliceEnv<'_>) -> Result<Slice, TaskError> {
        let mut waiting = Slice::Idle;
        for at in 0..self.segments.len() {
            if !self.segments[at].is_writing() {
                continue;
            }
            let (slice, outcome) = self.segments[at].write_slice(env)?;
            match outcome {
                Some(Outcome::Safe(part)) => self.collect(at, *part),
                Some(Outcome::Failed { id, message }) => {
                    self.parts.retain(|parts| parts.id != id);
                    self.report_to_listener(TaskReport::Declined { id, reason: DeclineReason::Writing, message });
                }
                None => {}
            }
            match slice {
                Slice::Busy => return Ok(Slice::Busy),
                Slice::Waiting => waiting = Slice::Waiting,
                Slice::Idle => {}
            }
        }
        Ok(waiting)
    }

    /// Takes a segment's part of a checkpoint in; sends the whole on once it is whole. Segments that have closed have none.
    fn collect(&mut self, segment: usize, part: Acknowledgement) {
        let at = match self.parts.iter().position(|parts| parts.id == part.id) {
            Some(at) => {
                let whole = &mut self.parts[at].whole;
                whole.figures.add(&part.figures);
                whole.end_of_data &= part.end_of_data;
                whole.operators.extend(part.operators);
                at
            }
            None => {
                let from = vec![false; self.segments.len()];
                self.parts.push(Parts { id: part.id, whole: part, from });
                self.parts.len() - 1
            }
        };
        self.parts[at].from[segment] = true;
        let missing = |(segment, has): (&SegmentRun, &bool)| !has && !segment.is_closed();
        if !self.segments.iter().zip(&self.parts[at].from).any(missing) {
            let whole = self.parts.swap_remove(at).whole;
            self.report_to_listener(TaskReport::Acknowledged(Box::new(whole)));
        }
    }

    /// Memory that its keyed state holds, in bytes, and a segment to blame for it.
    pub(crate) fn state_bytes(&mut self) -> (u64, Option<&SegmentRun>) {
        let mut bytes = 0;
        let mut largest = (0, None);
        for (at, segment) in self.segments.iter_mut().enumerate() {
            let own = segment.state_bytes();
            bytes += own;
            if own > largest.0 {
                largest = (own, Some(at));
            }
        }
        (bytes, largest.1.map(|at| &self.segments[at]))
    }

    /// Accounts for a step: the time since the last one counts as what that one came to.
    #[inline]
    pub(crate) fn account(&mut self, started_ns: u64, ended_ns: u64, step: Step) {
        *self.time_of(self.last) += started_ns - self.last_ns.min(started_ns);
        *self.time_of(step) += ended_ns - started_ns;
        self.last = step;
        self.last_ns = ended_ns;
        self.last_step_ns = ended_ns - started_ns;
    }

    /// How long the last step took.
    #[inline]
    pub(crate) fn last_step_ns(&self) -> u64 {
        self.last_step_ns
    }

    fn time_of(&mut self, step: Step) -> &mut u64 {
        match step {
            Step::Busy => &mut self.busy_ns,
            Step::Blocked => &mut self.blocked_ns,
            Step::Idle | Step::Ended => &mut self.idle_ns,
        }
    }

    /// When a segment wants to be stepped although nothing comes in.
    pub(crate) fn deadline_ns(&self, clock: &dyn Clock) -> Option<u64> {
        self.segments.iter().filter_map(|segment| segment.deadline_ns(clock)).min()
    }

    #[inline]
    pub(crate) fn note_wakes(&mut self, wakes: &mut WakeSet) {
        for segment in &mut self.segments {
            segment.note_wakes(wakes);
        }
    }

    /// Closes all segments without finishing.
    pub(crate) fn abort(&mut self) {
        self.segments.iter_mut().for_each(SegmentRun::abort);
    }

    /// After the end: takes back pages, sends what waited. Answers whether anything changed.
    pub(crate) fn settle_outputs(&mut self) -> bool {
        self.segments.iter_mut().fold(false, |changed, segment| segment.settle_outputs() | changed)
    }

    /// After the end: sends pages home. Answers whether all are on their way.
    pub(crate) fn settle_inputs(&mut self) -> bool {
        self.segments.iter_mut().fold(true, |drained, segment| segment.settle_inputs() & drained)
    }

    /// Whether all pages that were sent are back.
    pub(crate) fn quiescent(&self) -> bool {
        self.segments.iter().all(|segment| segment.outputs().quiescent())
    }

    /// Publishes the figures.
    pub(crate) fn report(&mut self) -> Result<(), TaskError> {
        self.segments.iter_mut().try_for_each(SegmentRun::report)?;
        self.publish();
        Ok(())
    }

    /// Publishes the figures that the runtime itself keeps.
    pub(crate) fn publish(&mut self) {
        let TaskMeter { metrics, records_in, heads, bytes } = &self.meter;
        let (mut bytes_in, mut buffers_in, mut timers, mut queued) = (0, 0, 0, Queued::default());
        let (mut records_out, mut bytes_out, mut buffers_out) = (0, 0, 0);
        let (mut waiting, mut waiting_bytes, mut in_use) = (0, 0, 0);
        let mut watermark = None;
        for ((segment, head), (operator_in, operator_out)) in self.segments.iter().zip(heads).zip(bytes) {
            let counters = segment.counters();
            let mut segment_out = 0;
            timers += counters.timers;
            if *head {
                bytes_in += counters.bytes;
                buffers_in += counters.buffers;
                let waiting = segment.queued();
                queued.buffers += waiting.buffers;
                queued.bytes += waiting.bytes;
                queued.capacity_buffers += waiting.capacity_buffers;
                watermark = [watermark, segment.input_watermark()].into_iter().flatten().min();
            }
            for edge in segment.outputs().edges().filter(|edge| !edge.is_within_task()) {
                let counters = edge.writer.counters();
                records_out += counters.records;
                segment_out += counters.bytes;
                buffers_out += counters.buffers;
                waiting += edge.writer.buffers_waiting();
                waiting_bytes += edge.writer.bytes_waiting();
                in_use += edge.writer.buffers_in_use();
            }
            bytes_out += segment_out;
            operator_in.iter().for_each(|bytes| bytes.set(counters.bytes));
            operator_out.iter().for_each(|bytes| bytes.set(segment_out));
        }
        metrics.num_records_in.set(records_in.iter().map(Counter::get).sum());
        metrics.num_bytes_in.set(bytes_in);
        metrics.num_bytes_in_local.set(bytes_in);
        metrics.num_buffers_in_local.set(buffers_in);
        metrics.num_records_out.set(records_out);
        metrics.num_bytes_out.set(bytes_out);
        metrics.num_buffers_out.set(buffers_out);
        metrics.busy_ns.set(self.busy_ns);
        metrics.idle_ns.set(self.idle_ns);
        metrics.back_pressured_ns.set(self.blocked_ns);
        metrics.is_back_pressured.set(i64::from(self.last == Step::Blocked));
        metrics.num_fired_timers.set(timers);
        metrics.input_queue_length.set(queued.buffers as i64);
        metrics.input_queue_bytes.set(queued.bytes as i64);
        metrics.in_pool_usage.set((queued.buffers as f64 / queued.capacity_buffers.max(1) as f64).min(1.0));
        metrics.output_queue_bytes.set(waiting_bytes as i64);
        metrics.output_queue_length.set(waiting as i64);
        let capacity: usize = self.segments.iter().flat_map(|s| s.outputs().edges()).map(|edge| edge.max_pages).sum();
        metrics.out_pool_usage.set(in_use as f64 / capacity.max(1) as f64);
        if let Some(watermark) = watermark {
            metrics.current_input_watermark.set(watermark);
        }
    }
}
