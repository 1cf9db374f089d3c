//! Snapshots of a segment with one table, in memory: whichever checkpoints overlap and complete, each one is a whole.

use thalweg_model::{MaxParallelism, record::key_hash};
use thalweg_state::{ImageIndex, RowTable, TableConfig};

use super::*;
use crate::{
    FrameCursor, Outputs, TaskError,
    checkpoint::{BarrierAlignment, SnapshotPlace, StateHandle},
};

/// A segment with one table.
struct OneTable {
    handle: StateHandle,
    table: RowTable<u64, u64>,
}

impl Segment for OneTable {
    fn process(&mut self, _: usize, _: &mut FrameCursor<'_>, _: &mut Outputs) -> Result<(), TaskError> {
        Ok(())
    }

    fn keyed_states(&mut self, visit: &mut dyn FnMut(KeyedStateRef<'_>)) {
        visit(KeyedStateRef { handle: &self.handle, table: &mut self.table, memory_bytes: 0, live: true });
    }
}

/// A segment and its snapshots, in memory.
struct Tested {
    segment: OneTable,
    snapshots: SegmentSnapshots,
    next: u64,
}

impl Tested {
    fn new() -> Self {
        let handle = StateHandle::new(0, "numbers", StateKind::KeyedTable, Arc::from([]));
        let table = RowTable::new(TableConfig::whole(MaxParallelism::new(128).unwrap()));
        let snapshots = SegmentSnapshots::new(vec![OperatorId([1; 16])]);
        Self { segment: OneTable { handle, table }, snapshots, next: 0 }
    }

    fn write(&mut self, key: u64) {
        self.segment.table.insert(key_hash::<u64>(key), key, self.next);
    }

    /// Takes a checkpoint that may go on from `base`. Answers the images that it consists of.
    fn take(&mut self, base: Option<u64>) -> (u64, Vec<ImageIndex>) {
        self.next += 1;
        let request = CheckpointRequest {
            id: CheckpointId(self.next),
            savepoint: false,
            stop: None,
            triggered_ms: 0,
            alignment: BarrierAlignment::Aligned,
            incremental: true,
            base: base.map(CheckpointId),
            files: None,
        };
        let at = AtBarrier {
            request: Arc::new(request),
            operator_state: OperatorStateWriter::default(),
            figures: SnapshotFigures::default(),
            end_of_data: false,
            now_ns: 0,
            open: false,
        };
        self.snapshots.begin(&mut self.segment, at);
        let mut ids = FileIds::from_system().unwrap();
        let outcome = loop {
            let mut env = SliceEnv {
                writer: None,
                ids: &mut ids,
                inline_threshold_bytes: usize::MAX,
                budget_ns: 1_000_000,
                now_ns: 0,
            };
            self.snapshots.step(&mut self.segment, &mut env);
            if let Some(outcome) = self.snapshots.outcome(&mut self.segment, None, 0) {
                break outcome;
            }
        };
        let Outcome::Safe(acknowledged) = outcome else { panic!("{outcome:?}") };
        let images = acknowledged.operators[0].states[0].parts.iter().map(|part| match &part.place {
            SnapshotPlace::Inline(bytes) => ImageIndex::of(bytes).unwrap(),
            SnapshotPlace::File(_) => unreachable!("there are no files"),
        });
        (self.next, images.collect())
    }
}

/// Whether each image goes on from the one before it, and the first from nothing.
fn is_chain(images: &[ImageIndex]) -> bool {
    let mut before = None;
    images.iter().all(|image| image.base() == before.replace(image.epoch()))
}

#[test]
fn when_one_says_nothing_and_one_before_it_completes_later_then_the_next_is_whole() {
    let mut tested = Tested::new();
    (0..1000).for_each(|key| tested.write(key));
    let (first, _) = tested.take(None);
    tested.write(1);
    let (second, images) = tested.take(Some(first));
    assert!(is_chain(&images) && images.len() == 2, "an increment");
    let (third, images) = tested.take(Some(first));
    assert!(is_chain(&images) && images.len() == 2, "an increment beside another");
    let (fourth, images) = tested.take(Some(second));
    assert!(is_chain(&images) && images.len() == 2, "nothing has changed: it is what the second is");
    tested.write(2);
    let (_, images) = tested.take(Some(third));
    assert!(is_chain(&images) && images.len() == 3, "an increment on the third");
    tested.write(3);
    let (_, images) = tested.take(Some(fourth));
    assert!(is_chain(&images), "goes on from the second, though the third has been gone on from");
}

#[test]
fn when_checkpoints_overlap_anyhow_then_every_one_is_whole() {
    let mut increments = 0;
    for seed in 0..200u64 {
        let mut tested = Tested::new();
        (0..300).for_each(|key| tested.write(key));
        let (mut completed, mut open) = (None, Vec::new());
        for step in 0..60u64 {
            let random = u64::from(key_hash::<(u64, u64)>((seed, step)).0);
            match random % 4 {
                0 => tested.write(random >> 8 & 0xff),
                1 | 2 if open.len() < 3 => {
                    let (id, images) = tested.take(completed);
                    assert!(is_chain(&images), "seed {seed}, checkpoint {id} on {completed:?}");
                    increments += usize::from(images.len() > 1);
                    open.push(id);
                }
                _ if !open.is_empty() => {
                    let at = random as usize / 4 % open.len();
                    completed = Some(open[at]);
                    // Those before it are subsumed.
                    open.drain(..=at);
                }
                _ => {}
            }
        }
    }
    assert!(increments > 1000, "{increments}");
}
