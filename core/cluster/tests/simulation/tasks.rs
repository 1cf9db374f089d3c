//! `TaskSim`: a subtask that counts barriers, snapshots, waits for its last checkpoint and commits in two phases.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_cluster::checkpoint::{Barrier, CheckpointId, SubtaskId};

/// What a task snapshots: for a source how far it is, for all what is not committed yet (checkpoint and up to where).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub owner: Option<SubtaskId>,
    pub position: u64,
    pub uncommitted: BTreeMap<CheckpointId, (u64, u64)>,
    pub end_of_data: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Running,
    EndOfData,
    Gone,
}

#[derive(Clone, Copy, Debug)]
pub enum Element {
    Barrier(Barrier),
    EndOfData,
    Finished,
}

#[derive(Default)]
struct Channel {
    end_of_data: bool,
    finished: bool,
}

pub struct TaskSim {
    pub id: SubtaskId,
    pub phase: Phase,
    pub is_source: bool,
    pub position: u64,
    /// Up to where the last snapshot went.
    snapshotted: u64,
    pub uncommitted: BTreeMap<CheckpointId, (u64, u64)>,
    inputs: BTreeMap<SubtaskId, Channel>,
    aligning: BTreeMap<CheckpointId, (Barrier, BTreeSet<SubtaskId>)>,
    /// The newest barrier it has answered: older ones, and the same again, are ignored.
    newest: CheckpointId,
    /// The first checkpoint after the end of data: the task ends when it or a later one completes.
    last: Option<CheckpointId>,
    pub stopping: Option<CheckpointId>,
}

impl TaskSim {
    pub fn new(id: SubtaskId, senders: Vec<SubtaskId>, state: Option<State>) -> Self {
        let state = state.unwrap_or_default();
        Self {
            id,
            phase: Phase::Starting,
            is_source: senders.is_empty(),
            position: state.position,
            snapshotted: state.position,
            uncommitted: state.uncommitted,
            inputs: senders.into_iter().map(|sender| (sender, Channel::default())).collect(),
            aligning: BTreeMap::new(),
            newest: CheckpointId(0),
            last: None,
            stopping: None,
        }
    }

    pub fn runs(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::EndOfData)
    }

    /// Told by message; it still waits for channels that are open on its side.
    pub fn triggered(&mut self, barrier: Barrier) -> Vec<Barrier> {
        self.aligning.entry(barrier.id).or_insert((barrier, BTreeSet::new()));
        self.aligned()
    }

    /// Takes an element; returns the barriers that are aligned now.
    pub fn receive(&mut self, from: SubtaskId, element: Element) -> Vec<Barrier> {
        let channel = self.inputs.get_mut(&from).expect("a channel of the topology");
        match element {
            Element::Barrier(barrier) => {
                self.aligning.entry(barrier.id).or_insert((barrier, BTreeSet::new())).1.insert(from);
            }
            Element::EndOfData => channel.end_of_data = true,
            Element::Finished => (channel.end_of_data, channel.finished) = (true, true),
        }
        self.aligned()
    }

    fn aligned(&mut self) -> Vec<Barrier> {
        let mut aligned = Vec::new();
        self.aligning = self.aligning.split_off(&CheckpointId(self.newest.0 + 1));
        // One that lost a barrier never completes and must not hold up those behind it.
        for (barrier, from) in self.aligning.values() {
            if self.inputs.iter().all(|(sender, channel)| channel.finished || from.contains(sender)) {
                aligned.push(*barrier);
                self.newest = barrier.id;
            }
        }
        self.aligning = self.aligning.split_off(&CheckpointId(self.newest.0 + 1));
        aligned
    }

    pub fn inputs_ended(&self) -> bool {
        !self.is_source && self.inputs.values().all(|channel| channel.end_of_data)
    }

    pub fn snapshot(&mut self, barrier: Barrier) -> State {
        let (from, to) = (self.snapshotted, self.position);
        self.snapshotted = to;
        self.uncommitted.insert(barrier.id, (from, to));
        if barrier.kind.stop().is_some() {
            self.stopping = Some(barrier.id);
        }
        if self.phase == Phase::EndOfData && self.last.is_none() {
            self.last = Some(barrier.id);
        }
        State {
            owner: Some(self.id),
            position: to,
            uncommitted: self.uncommitted.clone(),
            end_of_data: self.phase == Phase::EndOfData,
        }
    }

    /// What is committed by the completion of a checkpoint, and whether the task ends with it.
    pub fn completed(&mut self, id: CheckpointId) -> (BTreeMap<CheckpointId, (u64, u64)>, bool) {
        let later = self.uncommitted.split_off(&CheckpointId(id.0 + 1));
        let commits = std::mem::replace(&mut self.uncommitted, later);
        let waited_for = self.stopping.into_iter().chain(self.last).any(|waited| waited <= id);
        (commits, waited_for)
    }
}
