//! `Segment`: a piece of user code as the runtime sees it, and what it answers.
//!
//! The runtime calls a segment on its slot's thread only, one call at a time, in this order: `open`; then any of
//! `process`, `watermark`, `idle`, `processing_time`, `poll_source`, `end_input`; `watermark(i64::MAX)` and `finish` once
//! every input has ended; `close`, always, if `open` was called. Calls are bounded in time (10 to 50 µs is good) and never
//! block. While a call that answered other than [`Progress::Done`] has not been repeated to its end, nothing else is called but
//! `keyed_states`, `close` and `report`.
//!
//! At a barrier come `snapshot` and, for each table, `keyed_states`; the latter again and again while images are written.
//! `checkpoint_complete` and `checkpoint_aborted` follow, also after `finish`: a segment that has finished may wait for a last
//! checkpoint before it is closed. Once that is complete come `settle`, which alone may wait, and `close`.

use std::sync::Arc;

use thalweg_io::checkpoint::RestoredCheckpoint;
use thalweg_model::{
    CheckpointId, KeyGroupRange, MaxParallelism,
    metrics::{MetricRegistry, OperatorMetrics},
};

use crate::{
    Clock, FrameCursor, JobLife, KeyedStateRef, OperatorInfo, OperatorStateWriter, Outputs, SlotWaker, TaskError,
};

/// Whether a call is through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// It is.
    Done,
    /// The outputs have no room: the same call comes again, with the same arguments, when they have. The segment must
    /// remember how far it got.
    Blocked,
    /// It has taken its time: the same call comes again, with the same arguments, after the others on the slot had
    /// their turn. The segment must remember how far it got.
    More,
}

/// What a source answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum SourceStatus {
    /// There is more, or there was no room: poll again soon.
    More,
    /// Nothing now. Poll again at `until_ns` of the slot's clock, or when its [`SlotWaker`] is used, whichever is first;
    /// without a time only the waker does it.
    Wait {
        /// When to poll again, in nanoseconds of the slot's clock.
        until_ns: Option<u64>,
    },
    /// Nothing any more. Not polled again.
    Ended,
}

/// A piece of user code, monomorphised, behind one dynamic call per batch.
///
/// An error fails the job; so does a panic, which is caught per call.
pub trait Segment {
    /// Called once, before anything else.
    ///
    /// # Errors
    /// Where the segment cannot start.
    fn open(&mut self, ctx: &mut SegmentContext, out: &mut Outputs) -> Result<(), TaskError> {
        let _ = (ctx, out);
        Ok(())
    }

    /// Reads plain frames of logical input `input` until the cursor answers `None` or `!out.room()`. What it leaves
    /// unread is handed over again.
    ///
    /// # Errors
    /// Where user code fails.
    fn process(&mut self, input: usize, frames: &mut FrameCursor<'_>, out: &mut Outputs) -> Result<(), TaskError>;

    /// Event time, combined over the inputs, has advanced to `watermark`: fire timers, then pass it on with
    /// [`Outputs::watermark`]. `i64::MAX` comes exactly once, after the last input has ended.
    ///
    /// # Errors
    /// Where user code fails.
    fn watermark(&mut self, watermark: i64, out: &mut Outputs) -> Result<Progress, TaskError> {
        out.watermark(watermark);
        Ok(Progress::Done)
    }

    /// All inputs have become idle, or one is active again. Pass it on with [`Outputs::idle`].
    fn idle(&mut self, idle: bool, out: &mut Outputs) {
        out.idle(idle);
    }

    /// Emits up to about `budget_records` records, stopping early when `!out.room()`. Sources only.
    ///
    /// # Errors
    /// Where user code fails.
    fn poll_source(&mut self, budget_records: usize, out: &mut Outputs) -> Result<SourceStatus, TaskError> {
        let _ = (budget_records, out);
        Ok(SourceStatus::Ended)
    }

    /// Processing time has reached [`next_deadline_ms`](Self::next_deadline_ms): fire what is due at `now_ms`.
    ///
    /// # Errors
    /// Where user code fails.
    fn processing_time(&mut self, now_ms: i64, out: &mut Outputs) -> Result<Progress, TaskError> {
        let _ = (now_ms, out);
        Ok(Progress::Done)
    }

    /// When `processing_time` wants to be called, in milliseconds of wall time. Asked once per turn: answer from a field.
    fn next_deadline_ms(&self) -> Option<i64> {
        None
    }

    /// All channels of logical input `input` have ended.
    ///
    /// # Errors
    /// Where user code fails.
    fn end_input(&mut self, input: usize, out: &mut Outputs) -> Result<Progress, TaskError> {
        let _ = (input, out);
        Ok(Progress::Done)
    }

    /// After `watermark(i64::MAX)`: emit what is left. Nothing is emitted afterwards.
    ///
    /// # Errors
    /// Where user code fails.
    fn finish(&mut self, out: &mut Outputs) -> Result<Progress, TaskError> {
        let _ = out;
        Ok(Progress::Done)
    }

    /// Shows every table of keyed state to a function, in any order: the runtime takes their snapshots. A table that has
    /// been shown once must be shown as long as a snapshot of it is running.
    fn keyed_states(&mut self, visit: &mut dyn FnMut(KeyedStateRef<'_>)) {
        let _ = visit;
    }

    /// The barrier of a checkpoint: everything before it has been processed, nothing behind it. Hands over what is small
    /// and not keyed, and prepares what is to be committed when the checkpoint is complete. Its pauses are pauses of the stream.
    ///
    /// # Errors
    /// Where what has been processed cannot be made good for: the job fails.
    fn snapshot(&mut self, checkpoint: CheckpointId, state: &mut OperatorStateWriter) -> Result<(), TaskError> {
        let _ = (checkpoint, state);
        Ok(())
    }

    /// A checkpoint is complete: commit what is pending up to it. Notifications may be lost, and this may come for a
    /// later one only.
    ///
    /// # Errors
    /// Where it cannot be committed: the job fails, and the restored one tries again.
    fn checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<(), TaskError> {
        let _ = checkpoint;
        Ok(())
    }

    /// The last checkpoint is complete, and the segment is closed after this: finishes what `checkpoint_complete` may have
    /// left to other threads. The stream has ended or was stopped, so that this may wait.
    ///
    /// # Errors
    /// Where something cannot be committed: the job fails, and the restored one tries again.
    fn settle(&mut self) -> Result<(), TaskError> {
        Ok(())
    }

    /// A checkpoint came to nothing. A hint: what was prepared for it is committed with the next one.
    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) {
        let _ = checkpoint;
    }

    /// The last call, in every case: after `finish`, on failure, on cancellation.
    fn close(&mut self) {}

    /// Publishes counters to the metrics. Called every 100 ms or so, and before `close`.
    fn report(&mut self) {}

    /// Whether it can take records now, whatever room there is behind it. One that cannot (a sink whose queue to the
    /// outside is full) wakes its slot through `ctx.waker` when it can again; until then it counts as backpressured.
    fn ready(&self) -> bool {
        true
    }

    /// Whether `poll_source` is to be called: true exactly for segments that have no input in the plan.
    fn is_source(&self) -> bool {
        false
    }
}

/// What a segment knows of its place.
#[non_exhaustive]
pub struct SegmentContext {
    /// Id of the job: 32 hexadecimal digits.
    pub job_id: Arc<str>,
    /// Name of the job.
    pub job_name: Arc<str>,
    /// Name of the task: its operators, chained.
    pub task_name: Arc<str>,
    /// Number of the segment in the plan.
    pub segment: usize,
    /// Name of the segment.
    pub segment_name: Arc<str>,
    /// The operators in the segment, as in the plan.
    pub operators: Arc<[OperatorInfo]>,
    /// Index of this subtask, from 0.
    pub subtask: u32,
    /// Number of subtasks.
    pub parallelism: u32,
    /// Number of key groups.
    pub max_parallelism: MaxParallelism,
    /// The key groups whose state this subtask keeps.
    pub key_groups: KeyGroupRange,
    /// Index of the slot it runs on.
    pub slot: usize,
    /// Which attempt to run the job this is, from 0.
    pub attempt: u32,
    /// Metrics of each of `operators`, in their order. Counters have one writer: this segment.
    pub metrics: Vec<OperatorMetrics>,
    /// Where further metrics are registered.
    pub registry: MetricRegistry,
    /// How often periodic watermarks are due, in milliseconds; 0 for never.
    pub auto_watermark_interval_ms: u64,
    /// Wakes this slot, from any thread.
    pub waker: SlotWaker,
    /// The slot's clock.
    pub clock: Arc<dyn Clock>,
    /// The checkpoint that the job starts from.
    pub restored: Option<Arc<RestoredCheckpoint>>,
    /// Where it starts from nothing: the last checkpoint that somebody may keep; `None` where that is not known.
    pub known_checkpoint: Option<CheckpointId>,
    /// Whether checkpoints are taken: what is pending is then committed by them, and not before.
    pub checkpointing: bool,
    /// The life of the job, of which this may be one attempt.
    pub life: JobLife,
}
