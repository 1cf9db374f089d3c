//! Hooks of a `RowTable` for snapshots: what must happen before a row is changed, moved or removed.
//!
//! While a snapshot is being read, a row that has not been written in this epoch is copied aside before its first
//! change unless it has been read, and the blocks it refers to are kept, read or not: its copy may refer to them too.
//! Blocks written in this epoch are no concern of the snapshot. Keys are kept in any case.

use std::marker::PhantomData;

use thalweg_model::Record;

use crate::{
    cell::{Cells, write_fixed},
    detached::Detached,
    handover::Slice,
    image::{Extent, Header, ImageError, ImageIndex, Shape, Structure},
    limbo::Limbo,
    place::{Salt, TableConfig},
    removed::Changes,
    restore::{FillValue, Restore},
    row::{Found, Layout, RowHeader},
    saved::SavedRows,
    segment::SegmentRef,
    snapshot::{Begun, ImageSink, Progress, SnapshotKind, SnapshotRunning, Snapshots},
    sweep::{OLD_AGE, Phase, Running, Source},
    table::RowTable,
    tail::{Tail, Values},
};

/// Epochs after which a sweep visits every row, changed or not, so that none gets too old.
const VISIT_EVERY: u16 = 1 << 13;
/// Epochs without a complete visit after which beginning a snapshot makes one: as many snapshots were aborted.
const VISIT_AT_ONCE: u16 = 1 << 15;

/// What a table knows of its snapshots.
pub(crate) struct Watch<K: Record, V: Record> {
    pub(crate) config: TableConfig,
    pub(crate) running: Option<Box<Running<K, V>>>,
    /// Room for copies of rows and for blocks: that of the last snapshot, for the next one.
    pub(crate) spare: Option<(SavedRows, Limbo)>,
    /// Tables that were emptied, which no snapshot reads any more.
    pub(crate) gone: Vec<Detached<K, V>>,
    /// Removals and images, once increments are wanted.
    pub(crate) changes: Option<Box<Changes>>,
    /// The epoch whose sweep last visited every row.
    visited_in: u16,
}

impl<K: Record, V: Record> Watch<K, V> {
    pub(crate) const fn new(config: TableConfig) -> Self {
        Self { config, running: None, spare: None, gone: Vec::new(), changes: None, visited_in: 0 }
    }

    /// Memory held, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.running.as_ref().map_or(0, |running| size_of::<Running<K, V>>() + running.held_bytes())
            + self.spare.as_ref().map_or(0, |(saved, limbo)| saved.held_bytes() + limbo.held_bytes())
            + self.gone.iter().map(Detached::held_bytes).sum::<usize>()
            + self.changes.as_ref().map_or(0, |changes| changes.held_bytes())
    }

    /// The snapshot whose image still needs rows of the table.
    #[inline(always)]
    fn reading(&mut self) -> Option<&mut Running<K, V>> {
        self.running.as_deref_mut().filter(|running| running.is_reading() && running.detached.is_none())
    }
}

impl<K: Record, V: Record, S: Salt<K>> RowTable<K, V, S> {
    /// Writes the value of a row that has not been written in this epoch, while that matters.
    ///
    /// # Safety
    /// As for `overwrite`, of the row at this index. (Both by themselves: what was found is then never in memory.)
    #[inline(never)]
    pub(crate) unsafe fn overwrite_first(&mut self, segment: SegmentRef, index: u32, row: *mut u8, value: V::View<'_>) {
        // SAFETY: as promised by the caller.
        unsafe {
            let cell = row.add(Layout::<K, V>::VALUE_AT);
            (*segment.header()).written = self.epoch;
            let Some(running) = self.watch.reading() else {
                self.cells.replace::<V>(cell, value);
                (*row.cast::<RowHeader>()).epoch = self.epoch;
                return;
            };
            running.save(segment, index, row);
            if V::FIXED {
                write_fixed::<V>(cell, value);
            } else if let Some(old) = self.cells.replace_keeping::<V>(cell, value) {
                running.limbo.push(old);
            }
            (*row.cast::<RowHeader>()).epoch = self.epoch;
        }
    }

    /// Notes that a row is about to be removed.
    ///
    /// # Safety
    /// `found` must be an occupied row of this segment of this table.
    #[inline(never)]
    pub(crate) unsafe fn before_removal(&mut self, segment: SegmentRef, found: Found) {
        let rows_bytes = self.live * Layout::<K, V>::BYTES;
        // SAFETY: as promised by the caller.
        unsafe {
            if let Some(running) = self.watch.reading() {
                running.save(segment, found.index, found.row);
            }
            if let Some(changes) = &mut self.watch.changes {
                changes.removed::<K, V>(found.row, &self.cells, self.epoch, rows_bytes);
            }
        }
    }

    /// Keeps the blocks of a row that goes, if the image may need them. False if the caller is to free them.
    ///
    /// # Safety
    /// `row` must be an occupied row of this table, and not be used afterwards.
    pub(crate) unsafe fn keep_row(&mut self, row: *mut u8) -> bool {
        let Some(running) = self.watch.reading() else { return false };
        // SAFETY: as promised by the caller.
        unsafe {
            if let Some(key) = Cells::handle::<K>(row.add(Layout::<K, V>::KEY_AT)) {
                running.limbo.push(key);
            }
            let value = row.add(Layout::<K, V>::VALUE_AT);
            if (*row.cast::<RowHeader>()).epoch == self.epoch {
                self.cells.free::<V>(value);
            } else if let Some(value) = Cells::handle::<V>(value) {
                running.limbo.push(value);
            }
        }
        true
    }

    /// Notes that a segment's rows have been copied to others, of which `low` has the lower positions.
    ///
    /// # Safety
    /// Both must be alive, `old` being as it was in the table.
    pub(crate) unsafe fn moved(&mut self, old: SegmentRef, low: SegmentRef) {
        // SAFETY: as promised by the caller.
        unsafe {
            // The new ones count as read, and what the image needs of the old one hangs on the lower.
            if let Some(running) = self.watch.reading() {
                running.save_all(old);
                (*low.header()).saved = (*old.header()).saved;
                (*low.header()).saved_in = (*old.header()).saved_in;
            }
        }
    }

    /// Notes that a segment is about to lose all its rows.
    ///
    /// # Safety
    /// The segment must be one of this table.
    pub(crate) unsafe fn before_emptying(&mut self, segment: SegmentRef) {
        if let Some(running) = self.watch.reading() {
            // SAFETY: as promised by the caller.
            unsafe { running.save_all(segment) };
        }
        self.lose_base();
    }

    /// Leaves everything to a running snapshot that needs it, and empties the table. False where none does.
    pub(crate) fn detach(&mut self) -> bool {
        self.lose_base();
        if self.watch.reading().is_none() {
            self.watch.spare = None;
            if let Some(running) = &mut self.watch.running {
                // What it has not given back yet goes with the slab.
                running.limbo.forget();
            }
            return false;
        }
        let mut arena = crate::arena::SegmentArena::new(crate::segment::segment_bytes::<K, V>(self.regular_rows_log2));
        std::mem::swap(&mut arena, &mut self.arena);
        let (directory, shift) = (std::mem::take(&mut self.directory), self.shift);
        let slab = std::mem::replace(&mut self.cells, Cells::new()).slab;
        if let Some(running) = self.watch.reading() {
            // SAFETY: the segments were this table's.
            running.detached = Some(unsafe { Detached::new(directory, shift, arena, slab) });
        }
        self.start();
        self.set_watched();
        true
    }

    /// Whether a running snapshot still needs what rows refer to that have not been written in this epoch.
    pub(crate) fn is_being_read(&self) -> bool {
        self.watched && self.watch.running.as_ref().is_some_and(|one| one.is_reading() && one.detached.is_none())
    }

    /// Whether what the row of a key refers to may be part of a running snapshot.
    pub(crate) fn is_shared(&self, hash: thalweg_model::KeyHash, key: K::View<'_>) -> bool {
        if !self.is_being_read() {
            return false;
        }
        let spot = self.spot(hash, key);
        let found = self.find(self.segment(&spot), spot.tag, key);
        // SAFETY: a row that exists begins with a header.
        found.exists && unsafe { (*found.row.cast::<RowHeader>()).epoch } != self.epoch
    }

    pub(crate) fn lose_base(&mut self) {
        if let Some(changes) = &mut self.watch.changes {
            changes.lose_base();
        }
    }

    fn set_watched(&mut self) {
        self.watched = self.watch.changes.is_some() || self.watch.reading().is_some();
    }

    pub(crate) fn begin(&mut self, kind: SnapshotKind, shape: Shape) -> Result<Begun, SnapshotRunning> {
        if self.watch.running.as_ref().is_some_and(|one| !one.is_aborted) {
            return Err(SnapshotRunning);
        }
        self.epoch = self.epoch.wrapping_add(1);
        let unvisited = self.epoch.wrapping_sub(self.watch.visited_in);
        if unvisited >= VISIT_AT_ONCE {
            self.visit_all();
        }
        let epoch = self.epoch;
        let (mut base, mut removals) = (None, Vec::new());
        if kind != SnapshotKind::Full {
            let changes = self.watch.changes.get_or_insert_default();
            if kind == SnapshotKind::Increment {
                base = changes.base(epoch);
            }
            if let Some(base) = base {
                removals = changes.since(base, epoch);
            }
            changes.begun(epoch, base.is_some());
        }
        let TableConfig { range, max_parallelism, .. } = self.watch.config;
        let header = Header { shape, epoch, base, range, max_parallelism };
        let span = base.map_or(u16::MAX, |base| epoch.wrapping_sub(base));
        let visit_all = base.is_none() || unvisited >= VISIT_EVERY;
        let rows_log2 = self.regular_rows_log2;
        // In the long run half of a segment's rows are changed before it is read, or less.
        let new = || (SavedRows::new(Layout::<K, V>::BYTES, 1 << (rows_log2 - 1)), Limbo::default());
        let room = self.take_room().unwrap_or_else(new);
        self.watch.running = Some(Box::new(Running::new(header, span, visit_all, removals, room)));
        self.set_watched();
        Ok(Begun { epoch, base })
    }

    /// Goes on with the running snapshot; `tail` reads what values refer to.
    pub(crate) fn step<T: Tail>(&mut self, tail: &T, budget_ns: u32, sink: &mut dyn ImageSink) -> Progress {
        let Some(mut running) = self.watch.running.take() else { return Progress::Done };
        if let Some(changes) = &mut self.watch.changes {
            changes.release_some();
        }
        let mut left_ns = budget_ns as i64;
        while running.phase != Phase::Release && left_ns > 0 {
            let room = sink.room();
            if room.is_empty() {
                self.watch.running = Some(running);
                return Progress::Full;
            }
            let mut slice = Slice::new(room, left_ns);
            // Taken out for the time of the call, so that it can be read while the rest is changed.
            let detached = running.detached.take();
            let position_bits = self.placer.position_bits();
            let source = match &detached {
                Some(Detached { directory, shift, slab, .. }) => {
                    Source { directory, shift: *shift, position_bits, slab }
                }
                None => Source { directory: &self.directory, shift: self.shift, position_bits, slab: &self.cells.slab },
            };
            // SAFETY: the source is what the table was at the barrier: the hooks above see to it.
            unsafe { running.read(source, tail, &mut slice) };
            let used = slice.used;
            left_ns = slice.left_ns;
            running.detached = detached;
            sink.advance(used);
        }
        let is_read = running.phase == Phase::Release;
        if is_read && !running.is_aborted {
            if running.visit_all {
                self.watch.visited_in = running.epoch;
            }
            if let Some(changes) = &mut self.watch.changes {
                changes.taken(running.epoch, running.written_bytes);
            }
        }
        self.watch.running = Some(running);
        self.set_watched();
        if is_read && self.release_within(left_ns) { Progress::Done } else { Progress::More }
    }

    pub(crate) fn abort(&mut self) {
        if let Some(running) = &mut self.watch.running {
            running.phase = Phase::Release;
            running.is_aborted = true;
        }
        self.set_watched();
    }

    pub(crate) fn confirm(&mut self, epoch: u16) -> bool {
        self.watch.changes.as_mut().is_some_and(|changes| changes.confirm(epoch, self.epoch))
    }

    pub(crate) fn suggested(&self) -> SnapshotKind {
        self.watch.changes.as_ref().map_or(SnapshotKind::Base, |changes| changes.suggested_kind(self.epoch))
    }

    /// Notes what the table was restored from.
    pub(crate) fn watch_restored(&mut self, base: Option<u16>, full_bytes: u64, increments_bytes: u64) {
        self.watch.visited_in = self.epoch;
        if let Some(base) = base {
            self.watch.changes.get_or_insert_default().restored(base, full_bytes, increments_bytes);
            self.set_watched();
        }
    }

    /// Drops a running snapshot with the table.
    pub(crate) fn drop_snapshot(&mut self) {
        self.watch.running = None;
    }

    /// Makes rows and segments that are old young enough for their age to be told.
    #[cold]
    fn visit_all(&mut self) {
        let old = self.epoch.wrapping_sub(OLD_AGE);
        self.for_each_segment(|segment| {
            // SAFETY: the table's segments are alive, and nobody reads them.
            unsafe {
                let header = &mut *segment.header();
                (header.read, header.saved_in, header.saved) = (old, old, 0);
                let rows = segment.rows::<K, V>();
                for index in (0..rows.count()).filter(|&index| rows.is_occupied(index)) {
                    let row = &mut *rows.row(index).cast::<RowHeader>();
                    if self.epoch.wrapping_sub(row.epoch) > OLD_AGE || row.epoch == self.epoch {
                        row.epoch = old;
                    }
                }
            }
        });
        self.watch.visited_in = self.epoch.wrapping_sub(1);
    }
}

impl<K: Record, V: Record, S: Salt<K>> Snapshots for RowTable<K, V, S> {
    fn begin_snapshot(&mut self, kind: SnapshotKind) -> Result<Begun, SnapshotRunning> {
        self.begin(kind, Self::shape(Structure::Rows))
    }

    fn snapshot_step(&mut self, budget_ns: u32, sink: &mut dyn ImageSink) -> Progress {
        self.step(&Values::<V>::new(), budget_ns, sink)
    }

    fn abort_snapshot(&mut self) {
        self.abort();
    }

    fn confirm_snapshot(&mut self, epoch: u16) -> bool {
        self.confirm(epoch)
    }

    fn suggested_kind(&self) -> SnapshotKind {
        self.suggested()
    }

    fn is_snapshot_running(&self) -> bool {
        self.watch.running.is_some()
    }
}

impl<K: Record, V: Record, S: Salt<K>> Restore for RowTable<K, V, S> {
    fn with_room_for(config: TableConfig, images: &[ImageIndex]) -> Result<Self, ImageError> {
        Self::roomy(config, Self::shape(Structure::Rows), images)
    }

    fn take_in(&mut self, image: &ImageIndex, extent: &Extent, bytes: &[u8]) -> Result<(), ImageError> {
        self.take_rows(&mut FillValue::<V>(PhantomData), image, extent, bytes)
    }

    fn restored(&mut self, base: Option<u16>, images: &[ImageIndex]) -> Result<(), ImageError> {
        self.take_base(base, images);
        Ok(())
    }
}
