//! The slices of keyed windows in checkpoints: each a table of its own, and what says which windows have fired.
//!
//! Unlike Flink's, a restored operator knows how far its windows had fired, so that what was late before a failure is late
//! after it, too. (The watermark itself is no state: what is sent downstream begins anew.)

use std::ops::{Deref, DerefMut};

use thalweg_model::{KeyGroupRange, KeyHash, time::MIN_WATERMARK};
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
            windows.restore(ctx, &restored, migration)?;
        }
        Ok(windows)
    }

    fn restore(
        &mut self,
        ctx: &SegmentContext,
        restored: &OperatorRestore<'_>,
        migration: Option<&Migration<T::Value>>,
    ) -> Result<(), TaskError> {
        let own = ctx.key_groups;
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
            let table = KeyedTable::open_migrating(ctx, 0, &name, self.tables, migration)?;
            self.sliced.restore(start_ms, table);
        }
        Ok(())
    }

    /// Where a record with this timestamp goes; a slice is made for it if there is none.
    #[inline(always)]
    pub fn place_keyed(&mut self, timestamp: i64) -> Place {
        let tables = self.tables;
        self.sliced.place(timestamp, |free, start_ms| Self::table(tables, free, start_ms))
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
        !self.ahead.is_empty() && self.is_ahead(window, hash)
    }

    #[cold]
    fn is_ahead(&self, window: TimeWindow, hash: KeyHash) -> bool {
        let group = self.tables.max_parallelism.key_group(hash);
        self.ahead.iter().any(|(range, watermark)| range.contains(group) && window.max_timestamp() <= *watermark)
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
            fired = (start..=end)
                .map(|group| {
                    let of = |(range, _): &&(KeyGroupRange, i64)| range.start <= group && group <= range.end;
                    let watermark =
                        self.ahead.iter().find(of).map_or(self.sliced.watermark, |(_, watermark)| *watermark);
                    (group, group, watermark)
                })
                .collect();
        }
        // Positions in time. No union list: a subtask that has finished has fired everything, and nobody needs its entry.
        snapshot.positions(FIRED_NAME, fired);
    }
}
