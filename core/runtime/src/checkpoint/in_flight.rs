//! Records in flight in a checkpoint: how they are named, and who reads them when the job starts again.
//!
//! Of a channel, the receiver keeps what it had queued and the sender what it had not sent. Both go to the receiver when
//! the job starts again, in this order, before anything else; where the parallelism has changed, each record to the subtask
//! that it would be sent to now.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use thalweg_io::{
    FrameBuffer, InFlight, InFlightRecord,
    checkpoint::{BadFile, NamedState, OperatorState, RestoredCheckpoint, StateKind},
};
use thalweg_model::{KeyHash, rkyv::util::AlignedVec};

use crate::{Partitioner, PhysicalPlan, TaskPlan};

/// Records in flight of one channel, at one end of it.
pub(crate) struct ChannelState {
    pub(crate) name: String,
    /// The encoded schema of the records.
    pub(crate) schema: Vec<u8>,
    pub(crate) records: InFlight,
}

/// Records that were in flight, to be read before anything else.
pub(crate) struct RestoredFrames {
    /// The logical input that they came on.
    pub(crate) input: usize,
    pub(crate) frames: FrameBuffer,
    /// How far they have been read, in bytes.
    pub(crate) position: usize,
}

/// The end that a state is of, the name of its edge, and the subtask at the other end.
fn parse(name: &str) -> Option<(bool, &str, u32)> {
    let mut parts = name.split(' ');
    let is_queued = match parts.next()? {
        "in" => true,
        "out" => false,
        _ => return None,
    };
    let (edge, other) = (parts.next()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some((is_queued, edge, other))
}

/// Every state of records in flight of an operator, with the index of its subtask.
fn channel_states(operator: &OperatorState) -> impl Iterator<Item = (u32, &NamedState)> {
    let of = |subtask: &thalweg_io::checkpoint::SubtaskState| subtask.index;
    operator
        .subtasks
        .iter()
        .flat_map(move |subtask| subtask.states.iter().map(move |state| (of(subtask), state)))
        .filter(|(_, state)| state.kind == StateKind::ChannelState)
}

/// Finds records in flight that belong to no edge of the plan: they would be lost.
pub(crate) fn check_restored(plan: &PhysicalPlan, restored: &RestoredCheckpoint) -> Result<(), String> {
    if restored.allows_unclaimed() {
        return Ok(());
    }
    let edges: BTreeSet<String> = (0..plan.edges.len()).map(|edge| plan.edge_name(edge)).collect();
    for operator in &restored.metadata().operators {
        for (_, state) in channel_states(operator) {
            if !parse(&state.name).is_some_and(|(_, edge, _)| edges.contains(edge)) {
                return Err(format!(
                    "checkpoint {} holds records in flight at {} that the job has no place for: restore it into the job \
                     that took it and take a savepoint, which holds none, or leave them out with --allow-non-restored-state",
                    restored.metadata().checkpoint,
                    operator.name
                ));
            }
        }
    }
    Ok(())
}

/// What one old channel held.
#[derive(Default)]
struct OldChannel<'c> {
    queued: Option<&'c NamedState>,
    unsent: Option<&'c NamedState>,
}

/// The records in flight that a subtask of a segment reads first.
///
/// # Errors
/// Where they cannot be read, or are of another type.
pub(crate) fn restored_frames(
    plan: &PhysicalPlan,
    restored: &RestoredCheckpoint,
    task: &TaskPlan,
    segment: usize,
    subtask: u32,
) -> Result<VecDeque<RestoredFrames>, String> {
    let mut all = VecDeque::new();
    for (index, edge) in plan.edges.iter().enumerate().filter(|(_, edge)| edge.to_segment == segment) {
        let name = plan.edge_name(index);
        // By the subtasks that sent and received.
        let mut channels: BTreeMap<(u32, u32), OldChannel<'_>> = BTreeMap::new();
        for operator in &restored.metadata().operators {
            for (own, state) in channel_states(operator) {
                match parse(&state.name) {
                    Some((true, of, sender)) if of == name => {
                        channels.entry((sender, own)).or_default().queued = Some(state);
                    }
                    Some((false, of, receiver)) if of == name => {
                        channels.entry((own, receiver)).or_default().unsent = Some(state);
                    }
                    _ => {}
                }
            }
        }
        let mut frames = FrameBuffer::new(edge.layout);
        for ((_, receiver), channel) in channels {
            let states = [channel.queued, channel.unsent].into_iter().flatten();
            if states.clone().any(|state| state.schema != *edge.records.schema) {
                return Err(
                    "its records in flight are of another type than the job has: the type cannot change with an unaligned \
                     checkpoint; restore it into the job that took it and take a savepoint"
                        .into(),
                );
            }
            let parts = states.flat_map(|state| &state.parts).map(|part| read(restored, part));
            let parts = parts.collect::<Result<Vec<_>, _>>().map_err(|bad| bad.to_string())?;
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let damaged = || "its records in flight are damaged: use an older checkpoint".to_owned();
            for record in InFlight::read(&parts).map_err(|_| damaged())? {
                if target(edge.partitioner, &record, receiver, task.parallelism) != subtask {
                    continue;
                }
                let mut aligned = AlignedVec::<16>::new();
                aligned.extend_from_slice(&record.payload);
                if !(edge.records.is_sound)(&aligned) {
                    return Err(damaged());
                }
                frames.push_encoded(&record.payload, KeyHash(record.hash), record.timestamp);
            }
        }
        if !frames.is_empty() {
            all.push_back(RestoredFrames { input: edge.to_input, frames, position: 0 });
        }
    }
    Ok(all)
}

fn read(restored: &RestoredCheckpoint, part: &thalweg_io::checkpoint::StatePart) -> Result<Vec<u8>, BadFile> {
    let mut reader = restored.open(part)?;
    let mut bytes = vec![0; reader.len() as usize];
    reader.read(0, &mut bytes)?;
    Ok(bytes)
}

/// The subtask that reads a record which was on its way to `receiver`.
fn target(partitioner: Partitioner, record: &InFlightRecord, receiver: u32, parallelism: u32) -> u32 {
    match partitioner {
        Partitioner::Hash { max_parallelism } => {
            max_parallelism.subtask_of(max_parallelism.key_group(KeyHash(record.hash)), parallelism)
        }
        Partitioner::Custom => record.hash % parallelism,
        Partitioner::Global => 0,
        _ => receiver % parallelism,
    }
}
