//! `Shape`: the operators of a job as its checkpoints name them, and the metadata of a checkpoint of it.

use std::collections::HashMap;

use thalweg_cluster::checkpoint::{Checkpoint, SubtaskId};
use thalweg_io::checkpoint::{
    FileRef, Metadata, NamedState, OperatorState, Place, SHARED_DIR, SnapshotKind, StatePart, SubtaskState,
};
use thalweg_model::{CheckpointId, JobId, OperatorId};
use thalweg_runtime::{OperatorSnapshot, PhysicalPlan, SnapshotPlace, StateSnapshot};

/// A subtask's part of a checkpoint: the state of its operators.
pub(super) type Parts = Vec<OperatorSnapshot>;

/// An operator of a job.
#[derive(Clone, Debug)]
pub(super) struct ShapeOperator {
    pub(super) vertex: u32,
    pub(super) id: OperatorId,
    pub(super) uid: String,
    pub(super) name: String,
    pub(super) parallelism: u32,
    pub(super) max_parallelism: u32,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    job: JobId,
    job_name: String,
    operators: Vec<ShapeOperator>,
}

impl Shape {
    /// The operators of a plan.
    pub(super) fn of(plan: &PhysicalPlan) -> Self {
        let mut operators = Vec::new();
        for (vertex, task) in plan.tasks.iter().enumerate() {
            for segment in &task.segments {
                // A segment without operators of its own has no state, but may have records in flight.
                if segment.operators.is_empty()
                    && let Ok(id) = segment.state_id.parse()
                {
                    operators.push(ShapeOperator {
                        vertex: vertex as u32,
                        id,
                        uid: String::new(),
                        name: segment.name.clone(),
                        parallelism: task.parallelism,
                        max_parallelism: segment.max_parallelism.get(),
                    });
                }
                let named = segment.operators.iter().filter_map(|operator| Some((operator.id.parse().ok()?, operator)));
                operators.extend(named.map(|(id, operator)| ShapeOperator {
                    vertex: vertex as u32,
                    id,
                    uid: operator.uid.clone().unwrap_or_default(),
                    name: operator.name.clone(),
                    parallelism: task.parallelism,
                    max_parallelism: segment.max_parallelism.get(),
                }));
            }
        }
        let job = plan.job_id.parse().unwrap_or_else(|_| JobId::from_name(&plan.job_name));
        Self { job, job_name: plan.job_name.clone(), operators }
    }

    /// The job.
    pub(super) fn job(&self) -> JobId {
        self.job
    }

    /// An operator.
    pub(super) fn operator(&self, id: OperatorId) -> Option<&ShapeOperator> {
        self.operators.iter().find(|operator| operator.id == id)
    }

    /// What `_metadata` says of a checkpoint.
    pub(super) fn metadata(&self, checkpoint: &Checkpoint<Parts>) -> Metadata {
        let mut files = Files::default();
        let operators: Vec<OperatorState> =
            self.operators.iter().filter_map(|operator| operator_state(operator, checkpoint, &mut files)).collect();
        let id = CheckpointId(checkpoint.id.0);
        let savepoint = checkpoint.kind.is_savepoint();
        Metadata {
            checkpoint: id,
            timestamp_ms: i64::try_from(checkpoint.triggered_at.0).unwrap_or(i64::MAX),
            kind: if savepoint { SnapshotKind::Savepoint } else { SnapshotKind::Checkpoint },
            incremental: files.list.iter().any(|file| is_of_another(&file.path, id)),
            job: self.job,
            job_name: self.job_name.clone(),
            max_parallelism: self.operators.iter().map(|operator| operator.max_parallelism).max().unwrap_or(1),
            properties: Vec::new(),
            files: files.list,
            operators,
        }
    }
}

/// Whether a file was made by an earlier checkpoint: names of shared files begin with their maker.
fn is_of_another(path: &str, id: CheckpointId) -> bool {
    let name = path.strip_prefix("../").and_then(|path| path.strip_prefix(SHARED_DIR)?.strip_prefix('/'));
    name.is_some_and(|name| !name.starts_with(&format!("{id}-")))
}

/// The files of a checkpoint, each once.
#[derive(Default)]
struct Files {
    list: Vec<FileRef>,
    index: HashMap<String, u32>,
}

impl Files {
    fn place(&mut self, place: &SnapshotPlace) -> Place {
        match place {
            SnapshotPlace::Inline(bytes) => Place::Inline(bytes.clone()),
            SnapshotPlace::File(file) => {
                let list = &mut self.list;
                let index = *self.index.entry(file.path.clone()).or_insert_with(|| {
                    list.push(file.clone());
                    (list.len() - 1) as u32
                });
                Place::File { file: index, offset: 0, bytes: file.written.payload_bytes }
            }
        }
    }

    fn state(&mut self, state: &StateSnapshot) -> NamedState {
        let parts = state.parts.iter().enumerate().map(|(increment, part)| StatePart {
            increment: increment as u32,
            rows: part.rows,
            place: self.place(&part.place),
            // Images have an index of their own.
            groups: Vec::new(),
        });
        let parts = parts.collect();
        NamedState { name: state.name.clone(), kind: state.kind, schema: state.schema.clone(), parts }
    }
}

/// The state of one operator; none where it has no state and has not finished.
fn operator_state(
    operator: &ShapeOperator,
    checkpoint: &Checkpoint<Parts>,
    files: &mut Files,
) -> Option<OperatorState> {
    let subtask = |index| {
        let subtask = SubtaskId { vertex: operator.vertex, index };
        let at = checkpoint.parts.binary_search_by_key(&subtask, |part| part.subtask).ok();
        let part = at.map(|at| &checkpoint.parts[at]);
        let finished = part.is_some_and(|part| part.end_of_data) || checkpoint.finished.contains(&subtask);
        let own = part.and_then(|part| part.state.iter().find(|snapshot| snapshot.operator == operator.id));
        let states = own.map_or_else(Vec::new, |own| own.states.iter().map(|state| files.state(state)).collect());
        (finished || !states.is_empty()).then_some(SubtaskState { index, finished, states })
    };
    let subtasks: Vec<SubtaskState> = (0..operator.parallelism).filter_map(subtask).collect();
    let finished = checkpoint.is_fully_finished(operator.vertex);
    let has_state = subtasks.iter().any(|subtask| !subtask.states.is_empty());
    (finished || has_state).then(|| OperatorState {
        id: operator.id,
        uid: operator.uid.clone(),
        name: operator.name.clone(),
        parallelism: operator.parallelism,
        max_parallelism: operator.max_parallelism,
        finished,
        coordinator: Vec::new(),
        subtasks,
    })
}

#[cfg(test)]
mod tests {
    use thalweg_cluster::{
        TimeMs,
        checkpoint::{CheckpointId as Id, Kind, Part},
    };
    use thalweg_io::checkpoint::{FileId, StateKind, Written};
    use thalweg_runtime::SnapshotPart;

    use super::*;
    use crate::{Environment, prelude::*};

    fn file(path: &str) -> SnapshotPlace {
        let written = Written { file: FileId([7; 16]), payload_bytes: 100, file_bytes: 4096, digest: 1 };
        SnapshotPlace::File(FileRef { path: path.to_owned(), written })
    }

    fn part(index: u32, end_of_data: bool, state: Parts) -> Part<Parts> {
        Part { subtask: SubtaskId { vertex: 0, index }, state, end_of_data }
    }

    fn checkpoint(parts: Vec<Part<Parts>>, finished: Vec<SubtaskId>) -> Checkpoint<Parts> {
        let of = Checkpoint::on_storage(Id(5), Kind::Checkpoint { full: false }, TimeMs(9), None);
        Checkpoint { parts, finished, ..of }
    }

    /// A job of one task with two subtasks, and the state of its first operator.
    fn shape() -> (Shape, impl Fn(Vec<SnapshotPlace>) -> Parts) {
        let env = Environment::new();
        env.parallelism(2);
        env.generate(10, |n| n).uid("numbers").sink(discard().0);
        let shape = Shape::of(&env.plan().unwrap());
        let operator = shape.operators.iter().find(|operator| operator.uid == "numbers").unwrap().id;
        let state = move |places: Vec<SnapshotPlace>| {
            let parts = places.into_iter().map(|place| SnapshotPart { rows: 3, place }).collect();
            let state = StateSnapshot { name: "s".into(), kind: StateKind::SourcePosition, schema: Vec::new(), parts };
            vec![OperatorSnapshot { operator, states: vec![state] }]
        };
        (shape, state)
    }

    #[test]
    fn when_parts_name_one_file_then_the_metadata_lists_it_once_and_can_be_written() {
        let (shape, state) = shape();
        let shared = || file("../shared/4-07070707070707070707070707070707");
        let parts = vec![
            part(0, false, state(vec![shared(), SnapshotPlace::Inline(vec![1, 2])])),
            part(1, false, state(vec![shared()])),
        ];
        let metadata = shape.metadata(&checkpoint(parts, Vec::new()));
        metadata.encode().unwrap();
        assert_eq!((metadata.files.len(), metadata.operators.len(), metadata.incremental), (1, 1, true));
        let operator = &metadata.operators[0];
        assert_eq!((operator.uid.as_str(), operator.parallelism, operator.finished), ("numbers", 2, false));
        let parts = &operator.subtasks[0].states[0].parts;
        assert_eq!((parts[0].increment, parts[1].increment), (0, 1));
        assert_eq!(parts[0].place, Place::File { file: 0, offset: 0, bytes: 100 });
        assert_eq!(operator.subtasks[1].states[0].parts[0].place, parts[0].place);
        let own = shape.metadata(&checkpoint(
            vec![part(0, false, state(vec![file("../shared/5-07070707070707070707070707070707")]))],
            Vec::new(),
        ));
        assert!(!own.incremental, "its own shared files are no one else's");
    }

    #[test]
    fn when_all_subtasks_have_finished_then_every_operator_has() {
        let (shape, state) = shape();
        let some = part(0, true, state(vec![SnapshotPlace::Inline(vec![1])]));
        let partly = shape.metadata(&checkpoint(vec![some.clone(), part(1, false, Vec::new())], Vec::new()));
        assert!(partly.operators.iter().all(|operator| !operator.finished));
        assert!(partly.operators[0].subtasks[0].finished);
        let rest = SubtaskId { vertex: 0, index: 1 };
        let all = shape.metadata(&checkpoint(vec![some], vec![rest]));
        assert_eq!(all.operators.len(), shape.operators.len(), "those without state too");
        assert!(all.operators.iter().all(|operator| operator.finished));
        all.encode().unwrap();
    }
}
