//! `PhysicalPlan`: the job as the runtime runs it: tasks of segments, edges between them, slots, limits.

use std::{fmt, sync::Arc, time::Duration};

use thalweg_model::{MaxParallelism, Record, record::decode_checked};

use crate::{CheckpointingSetup, FrameLayout, JobLife, Partitioner, Segment};

/// A job, laid out over slots.
#[derive(Clone, Debug)]
pub struct PhysicalPlan {
    /// Identifier of the job: 32 hexadecimal digits.
    pub job_id: String,
    /// Name of the job.
    pub job_name: String,
    /// Number of slots.
    pub slots: usize,
    /// The tasks.
    pub tasks: Vec<TaskPlan>,
    /// What connects their segments, within a task and between tasks.
    pub edges: Vec<EdgePlan>,
    /// Sizes and times.
    pub config: RuntimeConfig,
}

/// A task: segments that share a thread, subtask by subtask.
#[derive(Clone, Debug)]
pub struct TaskPlan {
    /// Identifier of the task (Flink's vertex id): 32 hexadecimal digits.
    pub id: String,
    /// Name of the task: its operators, chained.
    pub name: String,
    /// Number of subtasks.
    pub parallelism: u32,
    /// The slot of each subtask.
    pub slot_of: Vec<usize>,
    /// The segments, upstream before downstream.
    pub segments: Vec<SegmentPlan>,
}

/// Makes the segment of one subtask. Called on the slot's thread, once per subtask.
pub type SegmentFactory = Arc<dyn Fn() -> Box<dyn Segment> + Send + Sync>;

/// A segment of a task.
#[derive(Clone)]
pub struct SegmentPlan {
    /// Number, unique in the job; any numbers do.
    pub id: usize,
    /// Name, for messages.
    pub name: String,
    /// Number of logical inputs; none for a source.
    pub inputs: usize,
    /// Number of output ports beyond port 0.
    pub side_ports: usize,
    /// Makes it.
    pub factory: SegmentFactory,
    /// Number of key groups.
    pub max_parallelism: MaxParallelism,
    /// What it is made of; the first one gives the name in errors where the segment does not.
    pub operators: Vec<OperatorInfo>,
    /// What its records in flight are kept under in checkpoints: 32 hexadecimal digits, that of the first operator where
    /// there is one.
    pub state_id: String,
}

impl fmt::Debug for SegmentPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentPlan")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("inputs", &self.inputs)
            .field("side_ports", &self.side_ports)
            .field("operators", &self.operators)
            .finish_non_exhaustive()
    }
}

/// An operator in a segment, as metrics and messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorInfo {
    /// Its name.
    pub name: String,
    /// The user's identifier for its state, if given.
    pub uid: Option<String>,
    /// Its identifier: 32 hexadecimal digits.
    pub id: String,
}

/// An edge from an output port of a segment to a logical input of another.
#[derive(Clone, Debug)]
pub struct EdgePlan {
    /// Id of the sending segment.
    pub from_segment: usize,
    /// Its port: 0 is the main output.
    pub from_port: usize,
    /// Id of the receiving segment.
    pub to_segment: usize,
    /// Its logical input. Several edges into one input form a union.
    pub to_input: usize,
    /// Who gets what.
    pub partitioner: Partitioner,
    /// How records are framed.
    pub layout: FrameLayout,
    /// When a page that is not full is sent.
    pub buffer_timeout: BufferTimeout,
    /// What its records are.
    pub records: RecordType,
}

/// The type of an edge's records, for those that come from a checkpoint.
#[derive(Clone, Debug)]
pub struct RecordType {
    /// Its encoded schema.
    pub schema: Arc<[u8]>,
    /// Whether bytes, aligned to 16, are a sound record of it.
    pub is_sound: fn(&[u8]) -> bool,
    /// The alignment its bytes need.
    pub align: usize,
}

impl RecordType {
    /// Records of type `T` with this schema.
    pub fn of<T: Record>(schema: Arc<[u8]>) -> Self {
        Self { schema, is_sound: |bytes| decode_checked::<T>(bytes).is_some(), align: T::ALIGN }
    }
}

impl PhysicalPlan {
    /// What names the channels of an edge in checkpoints: the same in another build of the job, as far as its ends are.
    pub(crate) fn edge_name(&self, edge: usize) -> String {
        let state_id = |id| {
            let mut segments = self.tasks.iter().flat_map(|task| &task.segments);
            segments.find(|segment| segment.id == id).map_or("", |segment| segment.state_id.as_str())
        };
        let ends = |edge: &EdgePlan| (edge.from_segment, edge.from_port, edge.to_segment, edge.to_input);
        let (from, port, to, input) = ends(&self.edges[edge]);
        let ordinal = self.edges[..edge].iter().filter(|other| ends(other) == (from, port, to, input)).count();
        format!("{}.{port}.{ordinal}>{}.{input}", state_id(from), state_id(to))
    }
}

/// When a page that is not full is sent. In any case at the end of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferTimeout {
    /// After each record.
    PerRecord,
    /// When the task has no more input, and at the latest this long after the first record.
    Millis(u32),
    /// Only when full. Not even a watermark is sent before.
    WhenFull,
}

impl BufferTimeout {
    /// From Flink's `execution.buffer-timeout.interval` in milliseconds: negative means only when full.
    pub fn from_millis(millis: i64) -> Self {
        match millis {
            ..0 => Self::WhenFull,
            0 => Self::PerRecord,
            _ => Self::Millis(u32::try_from(millis).unwrap_or(u32::MAX)),
        }
    }
}

/// Sizes and times of a running job.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Size of a network buffer in bytes.
    pub page_bytes: usize,
    /// Buffers that every channel may always have under way.
    pub exclusive_buffers_per_channel: usize,
    /// Further buffers that the channels of one input share.
    pub floating_buffers_per_gate: usize,
    /// The most buffers one channel may have under way.
    pub max_buffers_per_channel: usize,
    /// The largest record, encoded, in bytes; larger ones fail the job.
    pub max_record_bytes: usize,
    /// Whether buffers may lie in huge pages.
    pub huge_pages: bool,
    /// How often periodic watermarks are due, in milliseconds; 0 for never.
    pub auto_watermark_interval_ms: u64,
    /// How often sources send latency markers, in milliseconds; 0 for never.
    pub latency_interval_ms: u64,
    /// The most records a source is asked for at once.
    pub batch_records: usize,
    /// How long an idle slot looks for work before it sleeps, in microseconds. Not at all with `oversubscribe`. With 0, a
    /// slot that is due again at once (rates, flushes, timers) rests for 75 µs, whatever else comes in meanwhile.
    pub spin_us: u64,
    /// The cores to use, in the order of the slots; empty: whichever the process may use.
    pub cores: Vec<usize>,
    /// Whether several slots may share a core.
    pub oversubscribe: bool,
    /// How often tasks publish their metrics.
    pub report_interval: Duration,
    /// How long the end of a job may wait for buffers to be given back.
    pub teardown_timeout: Duration,
    /// Which attempt to run the job this is, from 0.
    pub attempt: u32,
    /// How checkpoints are taken; `None`: not at all.
    pub checkpointing: Option<CheckpointingSetup>,
    /// Memory that the keyed state of a slot may hold, in bytes; a task that needs more fails. `None`: any.
    pub max_state_bytes_per_slot: Option<u64>,
    /// The life of the job, of which this may be one attempt.
    pub life: JobLife,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            page_bytes: 32 << 10,
            exclusive_buffers_per_channel: 2,
            floating_buffers_per_gate: 8,
            max_buffers_per_channel: 10,
            max_record_bytes: 64 << 20,
            huge_pages: true,
            auto_watermark_interval_ms: 200,
            latency_interval_ms: 0,
            batch_records: 1024,
            spin_us: 50,
            cores: Vec::new(),
            oversubscribe: false,
            report_interval: Duration::from_millis(100),
            teardown_timeout: Duration::from_secs(10),
            attempt: 0,
            checkpointing: None,
            max_state_bytes_per_slot: None,
            life: JobLife::default(),
        }
    }
}
