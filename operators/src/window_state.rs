//! The slices of keyed windows in checkpoints: each a table of its own, and what says which windows have fired.
//!
//! Unlike Flink's, a restored operator knows how far its windows had fired, so that what was late before a failure is late
//! after it, too. (The watermark itself is no state: what is sent downstream begins anew.)

use std::ops::{Deref, DerefMut};

use thalweg_model::{KeyGroup, KeyGroupRange, KeyHash, time::MIN_WATERMARK};
use thalweg_runtime::{KeyedStateRef, SegmentContext, TaskError};
use thalweg_state::{Migrate, Migration, TableConfig};

use crate::{
    checkpoint::{KeyedTable, OperatorRestore, OperatorSnapshot, StateTable},
    window::{TimeWindow, WindowConfig},
    window_slices::{Place, SlicedWindows},
};

/// Names of slices: this and the slice's begin in milliseconds.
const SLICE_PREFIX: &str = "window-contents@";
/// Name of what says how far windows have fired: key groups (first, last) and the watermark up to which they have.
const FIRED_NAME: &str = "fired-windows";

/// Keyed windows over slices that checkpoints hold.
pub(crate) struct KeyedWindows<T> {
    sliced: SlicedWindows<KeyedTable<T>>,
    tables: TableConfig,
    /// Key groups whose windows had fired further than those of the others: empty but after a change of parallelism.
    ahead: Vec<(KeyGroupRange, i64)>,
}

impl<T> Deref for KeyedWindows<T> {
    type Target = SlicedWindows<KeyedTable<T>>;

    #[inline(always)]
    fn deref(&self) -> &Self::Target {
        &self.sliced
    }
}

impl<T> DerefMut for KeyedWindows<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.sliced
    }
}

impl<T: StateTable + Migrate> KeyedWindows<T> {
    /// The windows of the segment's first operator: as they were in the checkpoint that the job starts from, or none. With
    /// a migration, what they hold may have been stored as another type.
    pub fn open(
        ctx: &SegmentContext,
        config: WindowConfig,
        migration: Option<&Migration<T::Value>>,
    ) -> Result<Self, TaskError> {
        let tables = TableConfig::new(ctx.key_groups, ctx.max_parallelism);
        let mut windows = Self { sliced: SlicedWindows::new(config), tables, ahead: Vec::new() };
        if let Some(restored) = OperatorRestore::of(ctx, 0) {
            windows.restore(&restored, migration)?;
        }
        Ok(windows)
    }

    fn restore(
        &mut self,
        restored: &OperatorRestore<'_>,
        migration: Option<&Migration<T::Value>>,
    ) -> Result<(), TaskError> {
        let own = self.tables.range;
        let fired = restored.positions::<(u16, u16, i64)>(FIRED_NAME)?.into_iter();
        let mut fired: Vec<(KeyGroupRange, i64)> = fired
            .map(|(start, end, watermark)| (KeyGroupRange { start, end }, watermark))
            .filter(|(range, _)| range.start <= own.end && own.start <= range.end)
            .collect();
        let all = fired.iter().map(|(_, watermark)| *watermark).min().unwrap_or(MIN_WATERMARK);
        self.sliced.watermark = all;
        fired.retain(|(_, watermark)| *watermark > all);
        self.ahead = fired;
        let mut names: Vec<(i64, String)> = Vec::new();
        for name in restored.names(T::KIND, SLICE_PREFIX) {
            let start = name[SLICE_PREFIX.len()..].parse().map_err(|_| {
                TaskError::new("", format!("the checkpoint holds a window slice {name:?}, which is no name of one"))
            })?;
            names.push((start, name));
        }
        names.sort_unstable();
        for (start_ms, name) in names {
            let table = KeyedTable::take(restored, 0, &name, self.tables, migration)?;
            self.sliced.restore(start_ms, table);
        }
        Ok(())
    }

    /// Where a record of a key with this timestamp goes; a slice is made for it if there is none.
    #[inline(always)]
    pub fn place_keyed(&mut self, timestamp: i64, hash: KeyHash) -> Place {
        if !self.ahead.is_empty() {
            return self.place_ahead(timestamp, hash);
        }
        let tables = self.tables;
        self.sliced.place(timestamp, |free, start_ms| Self::table(tables, free, start_ms))
    }

    /// The same by how far the windows of this key have fired: what was late for them still is, although the windows of
    /// other keys have not fired yet.
    #[cold]
    fn place_ahead(&mut self, timestamp: i64, hash: KeyHash) -> Place {
        let (tables, watermark) = (self.tables, self.fired_up_to(hash));
        self.sliced.place_under(watermark, timestamp, |free, start_ms| Self::table(tables, free, start_ms))
    }

    /// The windows of a late record of a key that have fired and are still kept.
    pub fn refiring_keyed(&self, timestamp: i64, hash: KeyHash) -> impl Iterator<Item = TimeWindow> + use<T> {
        self.sliced.refiring(self.fired_up_to(hash), timestamp)
    }

    /// The watermark up to which the windows of a key have fired.
    fn fired_up_to(&self, hash: KeyHash) -> i64 {
        self.fired_in(self.tables.max_parallelism.key_group(hash))
    }

    fn fired_in(&self, group: KeyGroup) -> i64 {
        let ahead = self.ahead.iter().find(|(range, _)| range.contains(group));
        ahead.map_or(self.sliced.watermark, |(_, watermark)| *watermark)
    }

    /// An empty table for the slice that begins then: one that is left over from another, or a new one.
    fn table(tables: TableConfig, free: Option<KeyedTable<T>>, start_ms: i64) -> KeyedTable<T> {
        let handle = KeyedTable::<T>::handle(0, format!("{SLICE_PREFIX}{start_ms}"));
        let table = free.map_or_else(|| <T as StateTable>::empty(tables), |free| free.table);
        KeyedTable { table, handle }
    }

    /// Whether a window has fired for a key before the checkpoint that the job started from, though not for all keys.
    #[inline(always)]
    pub fn has_fired(&self, window: TimeWindow, hash: KeyHash) -> bool {
        !self.ahead.is_empty() && window.max_timestamp() <= self.fired_up_to(hash)
    }

    /// Takes the watermark, once its windows have fired.
    pub fn advance_keyed(&mut self, watermark: i64) {
        self.sliced.advance(watermark);
        self.ahead.retain(|(_, fired)| *fired > watermark);
    }

    /// Shows the tables to the runtime.
    pub fn visit(&mut self, visit: &mut dyn FnMut(KeyedStateRef<'_>)) {
        for (KeyedTable { table, handle }, live) in self.sliced.tables_mut() {
            let memory_bytes = table.bytes();
            visit(KeyedStateRef { handle, table, memory_bytes, live });
        }
    }

    /// Hands over how far windows have fired.
    pub fn snapshot(&self, snapshot: &mut OperatorSnapshot<'_>) {
        let KeyGroupRange { start, end } = self.tables.range;
        let mut fired = vec![(start, end, self.sliced.watermark)];
        if !self.ahead.is_empty() {
            // Group by group, since the ranges of others may reach beyond our own.
            fired = (start..=end).map(|group| (group, group, self.fired_in(KeyGroup(group)))).collect();
        }
        // Positions in time. No union list: a subtask that has finished has fired everything, and nobody needs its entry.
        snapshot.positions(FIRED_NAME, fired);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use thalweg_io::checkpoint::{NamedState, Place as PartPlace, RestoredCheckpoint, StatePart};
    use thalweg_model::{MaxParallelism, StateSchema, record::key_hash};
    use thalweg_state::{RowTable, SnapshotKind, snapshot_to_vec};

    use super::*;
    use crate::{
        testing::{checkpoint, restored, snapshot},
        window::Windows,
    };

    type Tables = KeyedWindows<RowTable<u64, u64>>;

    fn windows(subtask: u32, parallelism: u32, lateness_ms: i64) -> Tables {
        let max_parallelism = MaxParallelism::new(128).unwrap();
        let windows = Windows { size_ms: 10, slide_ms: 5, offset_ms: 0 };
        let config = WindowConfig { windows, lateness_ms, late_port: None };
        let tables = TableConfig::new(max_parallelism.range_of(subtask, parallelism), max_parallelism);
        KeyedWindows { sliced: SlicedWindows::new(config), tables, ahead: Vec::new() }
    }

    fn hash(key: u64) -> KeyHash {
        key_hash::<u64>(key)
    }

    /// A key of a subtask of two.
    fn key_of(subtask: u32) -> u64 {
        let range = windows(subtask, 2, 0).tables.range;
        (0..).find(|key| range.contains(MaxParallelism::new(128).unwrap().key_group(hash(*key)))).unwrap()
    }

    /// Takes a record; answers where it went.
    fn add(windows: &mut Tables, key: u64, timestamp: i64) -> Place {
        let place = windows.place_keyed(timestamp, hash(key));
        if let Place::OnTime(index) | Place::Refire(index) = place {
            windows.slices[index].table.table.modify_or_insert(hash(key), key, || 0, |count| *count += 1);
        }
        place
    }

    /// Fires what is due for all keys but those for which it has; answers window, key and count.
    fn fire(windows: &mut Tables, watermark: i64) -> Vec<(i64, u64, u64)> {
        let mut fired = Vec::new();
        while let Some(window) = windows.due(watermark) {
            let slices = windows.slices_of(window);
            for key in [key_of(0), key_of(1)].into_iter().filter(|key| !windows.has_fired(window, hash(*key))) {
                let counts = windows.slices[slices.clone()].iter();
                let count: u64 = counts.filter_map(|slice| slice.table.table.get(hash(key), key)).sum();
                fired.extend((count > 0).then_some((window.start_ms, key, count)));
            }
            windows.fired(window);
        }
        while windows.first_has_expired(watermark) {
            windows.forget_first(|slice| slice.table.reset());
        }
        windows.advance_keyed(watermark);
        fired
    }

    /// All that a subtask hands over at a barrier.
    fn states(windows: &mut Tables) -> Vec<NamedState> {
        let mut states = snapshot(1, |out| {
            windows.snapshot(out);
            Ok::<_, TaskError>(())
        })
        .unwrap();
        let schema = StateSchema::rows::<u64, u64>().encode().unwrap();
        windows.visit(&mut |state| {
            if state.live {
                let image = snapshot_to_vec(state.table, SnapshotKind::Full).unwrap();
                let place = PartPlace::Inline(image);
                let parts = vec![StatePart { increment: 0, rows: 0, place, groups: vec![] }];
                let name = state.handle.name.to_string();
                states.push(NamedState { name, kind: state.handle.kind, schema: schema.clone(), parts });
            }
        });
        states
    }

    fn from(checkpoint: &Arc<RestoredCheckpoint>, subtask: u32, parallelism: u32, lateness_ms: i64) -> Tables {
        let mut windows = windows(subtask, parallelism, lateness_ms);
        windows.restore(&restored(checkpoint, subtask, parallelism), None).unwrap();
        windows
    }

    /// Two subtasks that have fired differently far, as one: with a record of each key at 3, 12 and 17.
    fn two_as_one(lateness_ms: i64) -> (Tables, Vec<(i64, u64, u64)>) {
        let mut fired = Vec::new();
        let mut old = Vec::new();
        for (subtask, watermark) in [(0, 9), (1, 19)] {
            let mut windows = windows(subtask, 2, lateness_ms);
            for timestamp in [3, 12, 17] {
                add(&mut windows, key_of(subtask), timestamp);
            }
            fired.extend(fire(&mut windows, watermark));
            old.push(states(&mut windows));
        }
        (from(&checkpoint(1, old), 0, 1, lateness_ms), fired)
    }

    #[test]
    fn when_subtasks_that_have_fired_differently_far_become_one_then_no_window_is_lost_or_fires_twice() {
        for then in [1, 3] {
            let (mut windows, mut fired) = two_as_one(0);
            // And once more, into as many.
            let states = states(&mut windows);
            let checkpoint = checkpoint(2, vec![states]);
            for subtask in 0..then {
                fired.extend(fire(&mut from(&checkpoint, subtask, then, 0), i64::MAX));
            }
            fired.sort_unstable();
            let mut expected: Vec<_> = [key_of(0), key_of(1)]
                .into_iter()
                .flat_map(|key| [(-5, key, 1), (0, key, 1), (5, key, 1), (10, key, 2), (15, key, 1)])
                .collect();
            expected.sort_unstable();
            assert_eq!(fired, expected, "into {then}");
        }
    }

    #[test]
    fn when_windows_of_a_key_had_fired_further_then_what_was_late_for_it_still_is() {
        let (behind, ahead) = (key_of(0), key_of(1));
        let (mut windows, _) = two_as_one(0);
        // Its last window, from 5 to 15, has not fired for the one, and is over for the other.
        assert!(matches!(add(&mut windows, behind, 8), Place::Refire(_)));
        assert_eq!(add(&mut windows, ahead, 8), Place::Late);
        assert!(matches!(add(&mut windows, ahead, 21), Place::OnTime(_)));

        let (mut windows, _) = two_as_one(20);
        assert!(matches!(add(&mut windows, behind, 12), Place::OnTime(_)));
        assert!(matches!(add(&mut windows, ahead, 12), Place::Refire(_)));
        let starts = |windows: &Tables, key| -> Vec<i64> {
            windows.refiring_keyed(12, hash(key)).map(|window| window.start_ms).collect()
        };
        assert_eq!((starts(&windows, behind), starts(&windows, ahead)), (vec![], vec![5, 10]));
        // What has been refired does not fire once more.
        let fired = fire(&mut windows, 19);
        assert_eq!(fired, [(5, behind, 2), (10, behind, 3)]);
    }
}
