//! What tests of sources and sinks use: an emitter that collects, and checkpoints in memory.

use std::{path::PathBuf, sync::Arc};

use thalweg_io::checkpoint::{
    LocalDisk, Metadata, NamedState, OperatorState, Place, RestoredCheckpoint, SnapshotKind, StatePart, SubtaskState,
};
use thalweg_model::{CheckpointId, Elem, JobId, OperatorId, Record};
use thalweg_runtime::{OperatorStateWriter, SlotWaker};

use crate::{
    checkpoint::{OperatorRestore, OperatorSnapshot},
    pipe::Emit,
    sink::SinkContext,
};

/// Keeps what is emitted.
pub(crate) struct Emitted<T> {
    pub(crate) records: Vec<T>,
    pub(crate) watermarks: Vec<i64>,
    /// How many records there may be.
    pub(crate) room: usize,
}

impl<T> Emitted<T> {
    pub(crate) fn new() -> Self {
        Self { records: Vec::new(), watermarks: Vec::new(), room: usize::MAX }
    }
}

impl<T: Record> Emit<T> for Emitted<T> {
    fn emit(&mut self, elem: Elem<'_, T>) {
        self.records.push(T::from_view(elem.view));
    }
    fn watermark(&mut self, watermark: i64) {
        self.watermarks.push(watermark);
    }
    fn idle(&mut self, _idle: bool) {}
    fn room(&self) -> bool {
        self.records.len() < self.room
    }
    fn side<U: Record>(&mut self, _port: usize, _elem: Elem<'_, U>) {}
}

/// The state that a subtask hands over at the barrier of a checkpoint, which holds nothing back.
pub(crate) fn snapshot<E>(
    checkpoint: u64,
    take: impl FnOnce(&mut OperatorSnapshot<'_>) -> Result<(), E>,
) -> Result<Vec<NamedState>, E> {
    let (states, safe) = held_snapshot(checkpoint, take)?;
    assert_eq!(safe(), Some(Ok(())), "the checkpoint is held back");
    Ok(states)
}

/// Says whether something is safe, once that is known.
pub(crate) type IsSafe = Box<dyn Fn() -> Option<Result<(), String>>>;

/// The same, and what says whether everything is safe that the checkpoint is held back for, once that is known.
pub(crate) fn held_snapshot<E>(
    checkpoint: u64,
    take: impl FnOnce(&mut OperatorSnapshot<'_>) -> Result<(), E>,
) -> Result<(Vec<NamedState>, IsSafe), E> {
    let mut writer = OperatorStateWriter::default();
    take(&mut OperatorSnapshot::new(&mut writer, 0, CheckpointId(checkpoint)))?;
    let safe = Box::new(writer.take_holds());
    let named = |(_, name, kind, schema, elements): (usize, String, _, Vec<u8>, thalweg_state::elements::Elements)| {
        let (rows, place) = (elements.count(), Place::Inline(elements.into_bytes()));
        NamedState { name, kind, schema, parts: vec![StatePart { increment: 0, rows, place, groups: vec![] }] }
    };
    Ok((writer.into_parts().into_iter().map(named).collect(), safe))
}

/// A checkpoint of one operator, from the states of its subtasks. Those without state had finished.
pub(crate) fn checkpoint(number: u64, subtasks: Vec<Vec<NamedState>>) -> Arc<RestoredCheckpoint> {
    let parallelism = subtasks.len() as u32;
    let subtasks = subtasks.into_iter().zip(0..).map(|(states, index)| SubtaskState {
        index,
        finished: states.is_empty(),
        states,
    });
    let operator = OperatorState {
        id: OperatorId::from_name("tested"),
        uid: "tested".into(),
        name: "Tested".into(),
        parallelism,
        max_parallelism: 128,
        finished: false,
        coordinator: Vec::new(),
        subtasks: subtasks.collect(),
    };
    let metadata = Metadata {
        checkpoint: CheckpointId(number),
        timestamp_ms: 0,
        kind: SnapshotKind::Checkpoint,
        incremental: false,
        job: JobId::from_name("tested"),
        job_name: "tested".into(),
        max_parallelism: 128,
        properties: Vec::new(),
        files: Vec::new(),
        operators: vec![operator],
    };
    Arc::new(RestoredCheckpoint::new(Arc::new(LocalDisk), PathBuf::new(), metadata, false))
}

/// What a subtask finds in a checkpoint of one operator.
pub(crate) fn restored(checkpoint: &Arc<RestoredCheckpoint>, subtask: u32, parallelism: u32) -> OperatorRestore<'_> {
    OperatorRestore::first(checkpoint, subtask, parallelism)
}

/// The place of a subtask of a sink, in a job with checkpoints.
pub(crate) fn sink_context(subtask: u32, parallelism: u32, restoring: bool) -> SinkContext {
    SinkContext {
        subtask,
        parallelism,
        waker: SlotWaker::new().unwrap(),
        job_id: "tested".into(),
        operator_id: "sink".into(),
        restoring,
        known_checkpoint: None,
        checkpointing: true,
        life: thalweg_runtime::JobLife::default(),
        clock: Arc::new(thalweg_runtime::VirtualClock::default()),
    }
}
