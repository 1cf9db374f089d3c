//! `SegmentSnapshots`: the snapshots of one segment: taken at a barrier, written beside the stream, confirmed later.
//!
//! At the barrier the epoch of every table is flipped; the images follow table by table in slices. What a table has
//! handed over for a checkpoint is remembered until it is known which checkpoint the next one may go on from.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::Arc};

use thalweg_io::checkpoint::{Event, FileIds, SlotWriter, StateKind};
use thalweg_model::{CheckpointId, OperatorId};
use thalweg_state::{Progress, SnapshotKind};

use super::{
    Acknowledgement, ChannelState, CheckpointRequest, Held, KeyedStateRef, OperatorSnapshot, OperatorStateWriter,
    SnapshotFigures, SnapshotPart, StateSnapshot,
    image_file::{ImageFile, ImageTarget, ImageWriter},
    operator_state::OperatorStateOf,
};
use crate::Segment;

/// Increments on one base at most: each is a file, or a place in the metadata, of its own.
const MAX_INCREMENTS: usize = 24;
/// Checkpoints whose outcome is open, at most; older ones are written off as a base.
const MAX_OPEN_CHECKPOINTS: usize = 64;

/// How far a slice has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slice {
    /// There is more to do.
    Busy,
    /// It waits for the disk.
    Waiting,
    /// Nothing is being written.
    Idle,
}

/// What has become of a snapshot.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The segment's part is safe.
    Safe(Box<Acknowledgement>),
    /// It could not be written.
    Failed { id: CheckpointId, message: String },
}

/// What a table has handed over for one checkpoint.
struct Taken {
    checkpoint: CheckpointId,
    epoch: u16,
    parts: Vec<SnapshotPart>,
}

/// One state on its way to storage.
struct Job {
    operator: usize,
    name: String,
    kind: StateKind,
    schema: Vec<u8>,
    /// What the image goes on from.
    base: Vec<SnapshotPart>,
    image: ImageFile,
    content: Content,
}

enum Content {
    /// Read from the table with this number, as it was at this epoch.
    Table { id: u64, epoch: u16, base_epoch: Option<u16>, shared: bool, is_read: bool },
    /// These bytes, written up to here.
    Bytes { bytes: Vec<u8>, at: usize, rows: u64 },
}

struct Running {
    request: Arc<CheckpointRequest>,
    jobs: Vec<Job>,
    /// The job that is being read.
    next: usize,
    figures: SnapshotFigures,
    end_of_data: bool,
    began_ns: u64,
    /// Whether something more will be added (buffers in flight).
    open: bool,
    /// What must become safe on other threads.
    holds: Vec<Held>,
    failure: Option<String>,
}

/// What a segment hands over besides its tables.
pub(crate) struct AtBarrier {
    pub(crate) request: Arc<CheckpointRequest>,
    pub(crate) operator_state: OperatorStateWriter,
    pub(crate) figures: SnapshotFigures,
    pub(crate) end_of_data: bool,
    pub(crate) now_ns: u64,
    /// Whether buffers in flight are still being recorded: see [`SegmentSnapshots::add_in_flight`].
    pub(crate) open: bool,
}

/// What it takes to write a slice.
pub(crate) struct SliceEnv<'a> {
    pub(crate) writer: Option<&'a mut SlotWriter>,
    pub(crate) ids: &'a mut FileIds,
    pub(crate) inline_threshold_bytes: usize,
    pub(crate) budget_ns: u32,
    pub(crate) now_ns: u64,
}

/// See the module.
pub(crate) struct SegmentSnapshots {
    /// Ids of the segment's operators, by index.
    operators: Vec<OperatorId>,
    history: HashMap<u64, Vec<Taken>>,
    running: Option<Running>,
    /// Whether tables may still be reading for a snapshot that was given up.
    cleaning: bool,
}

impl SegmentSnapshots {
    pub(crate) fn new(operators: Vec<OperatorId>) -> Self {
        Self { operators, history: HashMap::new(), running: None, cleaning: false }
    }

    /// Whether a snapshot is being written or cleaned up: the next one has to wait.
    pub(crate) fn is_busy(&self) -> bool {
        self.running.is_some() || self.cleaning
    }

    /// Starts the snapshot of a segment.
    pub(crate) fn begin(&mut self, segment: &mut dyn Segment, at: AtBarrier) {
        let AtBarrier { request, operator_state, figures, end_of_data, now_ns, open } = at;
        let mut jobs = Vec::new();
        let mut failure = None;
        let mut live = Vec::new();
        segment.keyed_states(&mut |state| {
            live.push(state.handle.id());
            if state.live && failure.is_none() {
                match self.begin_table(&request, state) {
                    Ok(job) => jobs.push(job),
                    Err(message) => failure = Some(message),
                }
            }
        });
        self.history.retain(|id, _| live.contains(id));
        let (states, holds) = operator_state.into_states();
        jobs.extend(states.into_iter().map(Job::of_operator_state));
        let running = Running { request, jobs, next: 0, figures, end_of_data, began_ns: now_ns, open, holds, failure };
        self.running = Some(running);
    }

    fn begin_table(&mut self, request: &CheckpointRequest, state: KeyedStateRef<'_>) -> Result<Job, String> {
        let KeyedStateRef { handle, table, .. } = state;
        let history = self.history.entry(handle.id()).or_default();
        if let Some(restored) = handle.restored.as_ref().filter(|_| history.is_empty()) {
            let (checkpoint, epoch, parts) = (restored.checkpoint, restored.epoch, restored.parts.clone());
            history.push(Taken { checkpoint, epoch, parts });
        }
        let incremental = request.incremental && !request.savepoint;
        let mut base = None;
        if incremental && let Some(wanted) = request.base {
            history.retain(|taken| taken.checkpoint >= wanted);
            base = history.iter().find(|taken| taken.checkpoint == wanted);
        }
        let kind = match base {
            _ if !incremental => SnapshotKind::Full,
            // With several checkpoints under way, a later one may be confirmed already where this one said nothing, and
            // is named by the epoch of what it went on from: then nothing can go on from it any more.
            Some(base) if base.parts.len() <= MAX_INCREMENTS && table.confirm_snapshot(base.epoch) => {
                table.suggested_kind()
            }
            _ => SnapshotKind::Base,
        };
        let begun = table.begin_snapshot(kind).map_err(|error| format!("state {}: {error}", handle.name))?;
        let parts = base.filter(|base| begun.base == Some(base.epoch)).map_or_else(Vec::new, |base| base.parts.clone());
        Ok(Job {
            operator: handle.operator,
            name: handle.name.to_string(),
            kind: handle.kind,
            schema: handle.schema.to_vec(),
            base: parts,
            image: ImageFile::default(),
            content: Content::Table {
                id: handle.id(),
                epoch: begun.epoch,
                base_epoch: begun.base,
                shared: incremental,
                is_read: false,
            },
        })
    }

    /// Notes how long the segment stood still for the snapshot that has just begun.
    pub(crate) fn paused(&mut self, sync_ns: u64) {
        if let Some(running) = &mut self.running {
            running.figures.sync_ns = sync_ns;
        }
    }

    /// Adds buffers in flight, whose recording has come to its end.
    pub(crate) fn add_in_flight(&mut self, id: CheckpointId, states: Vec<ChannelState>) {
        let Some(running) = self.running.as_mut().filter(|running| running.request.id == id) else { return };
        running.open = false;
        for ChannelState { name, schema, records } in states {
            let (rows, bytes) = (records.frames(), records.into_bytes());
            running.figures.persisted_bytes += bytes.len() as u64;
            running.jobs.push(Job {
                operator: 0,
                name,
                kind: StateKind::ChannelState,
                schema,
                base: Vec::new(),
                image: ImageFile::default(),
                content: Content::Bytes { bytes, at: 0, rows },
            });
        }
    }

    /// Writes for about the budget.
    pub(crate) fn step(&mut self, segment: &mut dyn Segment, env: &mut SliceEnv<'_>) -> Slice {
        if self.cleaning {
            return self.clean(segment, env.budget_ns);
        }
        let Some(running) = &mut self.running else { return Slice::Idle };
        if running.failure.is_some() {
            return Slice::Busy;
        }
        let Running { request, jobs, next, failure, .. } = running;
        let Some(job) = jobs.get_mut(*next) else { return Slice::Waiting };
        let mut target = ImageTarget {
            writer: env.writer.as_deref_mut(),
            ids: env.ids,
            files: request.files.as_ref(),
            shared: matches!(job.content, Content::Table { shared: true, .. }),
            inline_threshold_bytes: env.inline_threshold_bytes,
            error: None,
        };
        let mut into = ImageWriter { image: &mut job.image, target: &mut target };
        let progress = match &mut job.content {
            Content::Table { id, is_read, .. } => {
                let mut progress = None;
                segment.keyed_states(&mut |state| {
                    if state.handle.id() == *id {
                        progress = Some(state.table.snapshot_step(env.budget_ns, &mut into));
                    }
                });
                *is_read = progress == Some(Progress::Done);
                progress
            }
            Content::Bytes { bytes, at, .. } => {
                let taken = into.put(&bytes[*at..]);
                *at += taken;
                Some(match *at == bytes.len() {
                    true => Progress::Done,
                    false if taken == 0 => Progress::Full,
                    false => Progress::More,
                })
            }
        };
        if let Some(error) = target.error {
            *failure = Some(error.to_string());
            return Slice::Busy;
        }
        match progress {
            Some(Progress::More) => Slice::Busy,
            Some(Progress::Full) => Slice::Waiting,
            Some(Progress::Done) => {
                job.image.end(env.writer.as_deref_mut());
                *next += 1;
                Slice::Busy
            }
            None => {
                *failure = Some(format!("state {} went away while it was being written", job.name));
                Slice::Busy
            }
        }
    }

    /// Gives back what tables keep for a snapshot that was given up.
    fn clean(&mut self, segment: &mut dyn Segment, budget_ns: u32) -> Slice {
        let mut left = false;
        segment.keyed_states(&mut |state| {
            if !left && state.table.is_snapshot_running() {
                let progress = state.table.snapshot_step(budget_ns, &mut Nowhere);
                left = progress != Progress::Done;
            }
        });
        self.cleaning = left;
        if left { Slice::Busy } else { Slice::Idle }
    }

    /// Takes in what the writer has done.
    pub(crate) fn event(&mut self, event: &Event) {
        let Some(running) = &mut self.running else { return };
        match event {
            Event::Finished { stream, written } => {
                if let Some(job) = running.jobs.iter_mut().find(|job| job.image.stream() == Some(*stream)) {
                    job.image.finished(*written);
                }
            }
            Event::Failed { stream, failure, .. }
                if running.jobs.iter().any(|job| job.image.stream() == Some(*stream)) =>
            {
                running.failure.get_or_insert_with(|| failure.to_string());
            }
            _ => {}
        }
    }

    /// What has become of the running snapshot, once that is known.
    pub(crate) fn outcome(
        &mut self,
        segment: &mut dyn Segment,
        writer: Option<&mut SlotWriter>,
        now_ns: u64,
    ) -> Option<Outcome> {
        let running = self.running.as_mut()?;
        if let Some(Err(message)) = running.holds.iter().filter_map(Held::result).find(|result| result.is_err()) {
            running.failure.get_or_insert_with(|| message.clone());
        }
        if let Some(message) = running.failure.take() {
            let id = running.request.id;
            self.abort(id, segment, writer);
            return Some(Outcome::Failed { id, message });
        }
        let durable = |job: &Job| job.image.is_safe();
        let held = running.open || running.holds.iter().any(|held| held.result().is_none());
        if held || running.next < running.jobs.len() || !running.jobs.iter().all(durable) {
            return None;
        }
        let running = self.running.take()?;
        Some(Outcome::Safe(Box::new(self.acknowledge(running, now_ns))))
    }

    fn acknowledge(&mut self, running: Running, now_ns: u64) -> Acknowledgement {
        let Running { request, jobs, mut figures, end_of_data, began_ns, .. } = running;
        figures.async_ns = now_ns.saturating_sub(began_ns);
        let mut operators: Vec<OperatorSnapshot> = Vec::new();
        for mut job in jobs {
            let id = self.operators.get(job.operator).copied().unwrap_or(OperatorId([0; 16]));
            let Some(place) = job.image.place() else { continue };
            let rows = job.rows();
            let Job { name, kind, schema, base: mut parts, image, content, .. } = job;
            // An increment without a row says nothing: the next one goes on from what this one went on from.
            let says_nothing = rows == 0 && !parts.is_empty();
            if !says_nothing {
                figures.written_bytes += image.bytes();
                parts.push(SnapshotPart { rows, place });
            }
            if let Content::Table { id, epoch, base_epoch, shared: true, .. } = content {
                let epoch = base_epoch.filter(|_| says_nothing).unwrap_or(epoch);
                let history = self.history.entry(id).or_default();
                history.push(Taken { checkpoint: request.id, epoch, parts: parts.clone() });
                if history.len() > MAX_OPEN_CHECKPOINTS {
                    history.remove(0);
                }
            }
            figures.state_bytes += parts.iter().map(|part| part.place.bytes()).sum::<u64>();
            let state = StateSnapshot { name, kind, schema, parts };
            match operators.iter_mut().find(|operator| operator.operator == id) {
                Some(operator) => operator.states.push(state),
                None => operators.push(OperatorSnapshot { operator: id, states: vec![state] }),
            }
        }
        Acknowledgement { id: request.id, operators, figures, end_of_data }
    }

    /// Gives up the snapshot of a checkpoint, if it is being written, and never builds on it.
    pub(crate) fn abort(&mut self, id: CheckpointId, segment: &mut dyn Segment, mut writer: Option<&mut SlotWriter>) {
        for history in self.history.values_mut() {
            history.retain(|taken| taken.checkpoint != id);
        }
        let Some(running) = self.running.take_if(|running| running.request.id == id) else { return };
        for job in &running.jobs {
            job.image.abort(writer.as_deref_mut());
        }
        let unread = |job: &Job| match job.content {
            Content::Table { id, is_read, .. } => (!is_read).then_some(id),
            Content::Bytes { .. } => None,
        };
        let unread: Vec<u64> = running.jobs.iter().filter_map(unread).collect();
        segment.keyed_states(&mut |state| {
            if unread.contains(&state.handle.id()) {
                state.table.abort_snapshot();
            }
        });
        self.cleaning = !unread.is_empty();
    }
}

impl Job {
    fn of_operator_state(state: OperatorStateOf) -> Self {
        let OperatorStateOf { operator, name, kind, schema, elements } = state;
        let rows = elements.count();
        let content = Content::Bytes { bytes: elements.into_bytes(), at: 0, rows };
        Self { operator, name, kind, schema, base: Vec::new(), image: ImageFile::default(), content }
    }

    fn rows(&self) -> u64 {
        match self.content {
            Content::Table { .. } => self.image.image_rows(),
            Content::Bytes { rows, .. } => rows,
        }
    }
}

/// Where nothing more is written.
struct Nowhere;

impl thalweg_state::ImageSink for Nowhere {
    fn room(&mut self) -> &mut [u8] {
        &mut []
    }

    fn advance(&mut self, _: usize) {}
}
