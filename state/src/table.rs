//! `RowTable`: keyed rows in segments, by extendible hashing.
//!
//! A directory over the top bits of a position points to segments. A table starts as one segment of eight rows, which
//! doubles up to its regular size and then splits, halving its interval of positions: no growth ever touches more than
//! a segment, except the directory's own doubling, eight bytes a segment. Rows never move but in `grow`.

use std::marker::PhantomData;

use thalweg_model::{KeyHash, Record};

use crate::{
    ahead::new_stamp,
    arena::SegmentArena,
    cell::Cells,
    home::Homes,
    place::{NoSalt, Placer, Salt, Spot, TableConfig},
    row::{Found, Layout, RowHeader},
    segment::{MIN_ROWS_LOG2, SegmentRef, regular_rows_log2, segment_bytes},
    watch::Watch,
};

/// Marks a table with its types, without owning any.
type Types<K, V, S> = PhantomData<fn() -> (K, V, S)>;

/// A hash table from keys to values of one subtask, in the archived form of both.
///
/// Every method that takes a key takes its hash too, which must be the [`key_hash`](thalweg_model::record::key_hash) of
/// the key that the stream is keyed by, so that equal keys come with equal hashes. A wrong hash loses the row, nothing
/// worse. Keys should belong to the table's key groups; others are kept as well.
pub struct RowTable<K: Record, V: Record, S: Salt<K> = NoSalt> {
    /// One entry for each value of a position's top `depth` bits.
    pub(crate) directory: Vec<SegmentRef>,
    /// What is left of a position's bits below those.
    pub(crate) shift: u32,
    pub(crate) epoch: u16,
    pub(crate) regular_rows_log2: u32,
    pub(crate) placer: Placer,
    pub(crate) live: usize,
    pub(crate) cells: Cells,
    pub(crate) arena: SegmentArena,
    /// Where searches begin.
    pub(crate) homes: Homes,
    /// Drawn anew whenever segments come or go: no two tables ever have the same.
    pub(crate) stamp: u64,
    /// Whether a snapshot has to know of rows that are written for the first time in this epoch, or removed.
    pub(crate) watched: bool,
    pub(crate) watch: Watch<K, V>,
    types: Types<K, V, S>,
}

// SAFETY: the segments that the directory points to are plain memory that this value alone owns, of records, which
// are `Send`.
unsafe impl<K: Record, V: Record, S: Salt<K>> Send for RowTable<K, V, S> {}

impl<K: Record, V: Record, S: Salt<K>> RowTable<K, V, S> {
    /// An empty table. It takes less than 1 KiB until it is used.
    pub fn new(config: TableConfig) -> Self {
        let regular_rows_log2 = regular_rows_log2::<K, V>(config.max_segment_rows);
        let mut table = Self {
            directory: Vec::new(),
            shift: 0,
            epoch: 0,
            regular_rows_log2,
            placer: Placer::new(&config),
            live: 0,
            cells: Cells::new(),
            arena: SegmentArena::new(segment_bytes::<K, V>(regular_rows_log2)),
            homes: Homes::EVERY_ROW,
            stamp: 0,
            watched: false,
            watch: Watch::new(config),
            types: PhantomData,
        };
        table.start();
        table
    }

    pub(crate) fn start(&mut self) {
        self.directory = vec![SegmentRef::new::<K, V>(&mut self.arena, MIN_ROWS_LOG2, (0, 0), self.epoch)];
        self.shift = self.placer.position_bits();
        self.homes = Homes::EVERY_ROW;
        self.stamp = new_stamp();
        self.live = 0;
    }

    /// How many rows there are.
    pub const fn len(&self) -> usize {
        self.live
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Memory held, in bytes: segments, directory and slab, used or not.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.directory.capacity() * size_of::<SegmentRef>()
            + self.arena.held_bytes()
            + self.cells.held_bytes()
            + self.watch.held_bytes()
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, hash: KeyHash, key: K::View<'_>) -> Option<V::View<'_>> {
        let spot = self.spot(hash, key);
        self.get_in(self.segment(&spot), spot.tag, key)
    }

    /// Whether there is a row of this key.
    #[inline]
    pub fn contains(&self, hash: KeyHash, key: K::View<'_>) -> bool {
        let spot = self.spot(hash, key);
        self.find(self.segment(&spot), spot.tag, key).exists
    }

    /// Sets the value of a key. True if it had one before.
    #[inline]
    pub fn insert(&mut self, hash: KeyHash, key: K::View<'_>, value: V::View<'_>) -> bool {
        let spot = self.spot(hash, key);
        let segment = self.segment(&spot);
        let found = self.find(segment, spot.tag, key);
        if found.exists {
            // SAFETY: the row exists, and nobody else reads it.
            unsafe { self.overwrite(found.row, value, |_| (segment, found.index)) };
        } else {
            self.insert_new(hash, key, value);
        }
        found.exists
    }

    /// Sets the value of a key to what `f` makes of the one it has, `None` if it has none.
    ///
    /// For values of fixed size this changes them in place and allocates nothing.
    #[inline]
    pub fn update(&mut self, hash: KeyHash, key: K::View<'_>, f: impl FnOnce(Option<V::View<'_>>) -> V) {
        let spot = self.spot(hash, key);
        self.update_in(self.segment(&spot), hash, key, f);
    }

    /// Changes the value of a key, `init()` if it has none.
    #[inline]
    pub fn modify_or_insert(
        &mut self,
        hash: KeyHash,
        key: K::View<'_>,
        init: impl FnOnce() -> V,
        f: impl FnOnce(&mut V),
    ) {
        self.modify_or_insert_with(hash, key, init, f);
    }

    /// As [`Self::modify_or_insert`], and passes on what `f` answers.
    #[inline]
    pub fn modify_or_insert_with<R>(
        &mut self,
        hash: KeyHash,
        key: K::View<'_>,
        init: impl FnOnce() -> V,
        f: impl FnOnce(&mut V) -> R,
    ) -> R {
        let spot = self.spot(hash, key);
        self.modify_in::<false, R>(self.segment(&spot), hash, key, init, f)
    }

    /// As [`Self::modify_or_insert_with`], for a table that [is near](Self::is_near): faster there, and slower where rows have
    /// to be fetched.
    #[inline]
    pub fn modify_or_insert_near<R>(
        &mut self,
        hash: KeyHash,
        key: K::View<'_>,
        init: impl FnOnce() -> V,
        f: impl FnOnce(&mut V) -> R,
    ) -> R {
        let spot = self.spot(hash, key);
        self.modify_in::<true, R>(self.segment(&spot), hash, key, init, f)
    }

    /// Removes the row of a key. True if there was one.
    #[inline]
    pub fn remove(&mut self, hash: KeyHash, key: K::View<'_>) -> bool {
        let spot = self.spot(hash, key);
        let segment = self.segment(&spot);
        let found = self.find(segment, spot.tag, key);
        if found.exists {
            // SAFETY: the row exists in this segment.
            unsafe { self.remove_found(segment, found) };
        }
        found.exists
    }

    /// Removes all rows and gives the memory back.
    pub fn clear(&mut self) {
        if self.detach() {
            return;
        }
        self.release_segments();
        self.cells = Cells::new();
        self.start();
    }

    /// Removes all rows and keeps segments and slab for reuse. Takes as long as zeroing the segments does.
    pub fn reset(&mut self) {
        if self.detach() {
            return;
        }
        self.for_each_segment(|segment| {
            // SAFETY: the segment is alive, nobody reads it, and the slab that its rows refer to is reset below.
            unsafe {
                (*segment.header()).live = 0;
                (*segment.header()).used = 0;
                segment.rows::<K, V>().wipe();
            }
        });
        self.cells.slab.reset();
        self.live = 0;
    }

    #[inline(always)]
    pub(crate) fn spot(&self, hash: KeyHash, key: K::View<'_>) -> Spot {
        self.spot_salted(hash, S::salt(key))
    }

    /// The spot of a hash, good for finding the segment as long as the directory stays as it is.
    #[inline(always)]
    pub(crate) fn spot_salted(&self, hash: KeyHash, salt: u32) -> Spot {
        if self.directory.len() == 1 {
            // Any position will do: spare small tables the way to it.
            return Spot { position: 0, tag: hash.0 ^ salt };
        }
        self.placer.spot(hash, salt)
    }

    /// The directory's entry of a spot.
    #[inline(always)]
    pub(crate) fn entry(&self, spot: &Spot) -> usize {
        (spot.position >> self.shift) as usize
    }

    /// The segment of a directory's entry.
    ///
    /// # Safety
    /// The entry must be what [`Self::entry`] answered, the directory unchanged since.
    #[inline(always)]
    pub(crate) unsafe fn segment_of(&self, entry: usize) -> SegmentRef {
        debug_assert!(entry < self.directory.len());
        // SAFETY: positions have `depth + shift` bits, and the directory `1 << depth` entries.
        unsafe { *self.directory.get_unchecked(entry) }
    }

    /// The segment of a spot.
    #[inline(always)]
    pub(crate) fn segment(&self, spot: &Spot) -> SegmentRef {
        // SAFETY: the entry has just been answered.
        unsafe { self.segment_of(self.entry(spot)) }
    }

    #[inline(always)]
    pub(crate) fn find(&self, segment: SegmentRef, tag: u32, key: K::View<'_>) -> Found {
        self.lookup::<false>(segment, tag, key)
    }

    #[inline(always)]
    fn lookup<const NEAR: bool>(&self, segment: SegmentRef, tag: u32, key: K::View<'_>) -> Found {
        // SAFETY: the segment is alive and its rows are of these types; the rows asked about exist.
        unsafe { segment.rows::<K, V>().lookup::<NEAR>(self.homes, tag, move |row| K::eq_view(self.key_of(row), key)) }
    }

    #[inline(always)]
    pub(crate) fn get_in(&self, segment: SegmentRef, tag: u32, key: K::View<'_>) -> Option<V::View<'_>> {
        let found = self.find(segment, tag, key);
        // SAFETY: the row exists, and stays as it is while the table is borrowed.
        found.exists.then(|| unsafe { self.value_of(found.row) })
    }

    #[inline(always)]
    pub(crate) fn update_in(
        &mut self,
        segment: SegmentRef,
        hash: KeyHash,
        key: K::View<'_>,
        f: impl FnOnce(Option<V::View<'_>>) -> V,
    ) {
        let found = self.find(segment, hash.0 ^ S::salt(key), key);
        if found.exists {
            // SAFETY: the row exists, in this segment.
            unsafe { self.update_row(found.row, f, |_| (segment, found.index)) };
        } else {
            let value = f(None);
            self.insert_new(hash, key, value.view());
        }
    }

    #[inline(always)]
    pub(crate) fn modify_in<const NEAR: bool, R>(
        &mut self,
        segment: SegmentRef,
        hash: KeyHash,
        key: K::View<'_>,
        init: impl FnOnce() -> V,
        f: impl FnOnce(&mut V) -> R,
    ) -> R {
        let found = self.lookup::<NEAR>(segment, hash.0 ^ S::salt(key), key);
        if found.exists {
            // SAFETY: the row exists, in this segment.
            unsafe { self.modify_row(found.row, f, |_| (segment, found.index)) }
        } else {
            let mut value = init();
            let answer = f(&mut value);
            self.insert_new(hash, key, value.view());
            answer
        }
    }

    /// A row of this hash and salt, of which more may be the case, whose key `is_it`.
    pub(crate) fn find_where(&self, hash: KeyHash, salt: u32, is_it: impl Fn(K::View<'_>) -> bool) -> Option<Found> {
        let (spot, group) = (self.placer.spot(hash, salt), self.placer.group(hash));
        // SAFETY: the segment is alive and its rows are of these types; the rows asked about exist.
        let found = unsafe {
            self.segment(&spot).rows::<K, V>().find(self.homes, spot.tag, |row| {
                (*row.cast::<RowHeader>()).group() == group && is_it(self.key_of(row))
            })
        };
        found.exists.then_some(found)
    }

    /// Removes a row that was found.
    ///
    /// # Safety
    /// `found` must be what [`Self::find_where`] answered for the same hash and salt, the table unchanged since.
    pub(crate) unsafe fn remove_row(&mut self, hash: KeyHash, salt: u32, found: Found) {
        let segment = self.segment(&self.placer.spot(hash, salt));
        // SAFETY: as promised by the caller, the row exists in the segment of this spot.
        unsafe { self.remove_found(segment, found) };
    }

    /// The key hash of an occupied row of this table.
    ///
    /// # Safety
    /// `row` must be an occupied row of this table.
    #[inline(always)]
    pub(crate) unsafe fn hash_of(&self, row: *mut u8) -> KeyHash {
        // SAFETY: as promised by the caller.
        let (header, key) = unsafe { (row.cast::<RowHeader>().read(), self.key_of(row)) };
        KeyHash(header.tag ^ S::salt(key))
    }

    /// # Safety
    /// `row` must be an occupied row of this table that stays as it is while the view is used.
    #[inline(always)]
    pub(crate) unsafe fn key_of(&self, row: *mut u8) -> K::View<'_> {
        // SAFETY: as promised by the caller.
        unsafe { self.cells.view::<K>(row.add(Layout::<K, V>::KEY_AT)) }
    }

    /// # Safety
    /// `row` must be an occupied row of this table that stays as it is while the view is used.
    #[inline(always)]
    pub(crate) unsafe fn value_of(&self, row: *mut u8) -> V::View<'_> {
        // SAFETY: as promised by the caller.
        unsafe { self.cells.view::<V>(row.add(Layout::<K, V>::VALUE_AT)) }
    }

    /// Sets the value of a row to what `f` makes of it.
    ///
    /// # Safety
    /// As for [`Self::overwrite`].
    #[inline(always)]
    pub(crate) unsafe fn update_row(
        &mut self,
        row: *mut u8,
        f: impl FnOnce(Option<V::View<'_>>) -> V,
        whereabouts: impl FnOnce(&Self) -> (SegmentRef, u32),
    ) {
        // SAFETY: as promised by the caller; the view is gone when the row is overwritten.
        unsafe {
            let value = f(Some(self.value_of(row)));
            self.overwrite(row, value.view(), whereabouts);
        }
    }

    /// Changes the value of a row, and passes on what `f` answers.
    ///
    /// # Safety
    /// As for [`Self::overwrite`].
    #[inline(always)]
    pub(crate) unsafe fn modify_row<R>(
        &mut self,
        row: *mut u8,
        f: impl FnOnce(&mut V) -> R,
        whereabouts: impl FnOnce(&Self) -> (SegmentRef, u32),
    ) -> R {
        // SAFETY: as promised by the caller; the view is gone when the row is overwritten.
        unsafe {
            let mut value = V::from_view(self.value_of(row));
            let answer = f(&mut value);
            self.overwrite(row, value.view(), whereabouts);
            answer
        }
    }

    /// Writes the value of a row that exists. Every change of a row in place comes through here: what a running
    /// snapshot has not read yet must be saved first. `whereabouts` answers its segment and its index there.
    ///
    /// # Safety
    /// `row` must be an occupied row of this table where `whereabouts` says, and no view of its value be alive.
    #[inline(always)]
    unsafe fn overwrite(
        &mut self,
        row: *mut u8,
        value: V::View<'_>,
        whereabouts: impl FnOnce(&Self) -> (SegmentRef, u32),
    ) {
        // SAFETY: as promised by the caller.
        unsafe {
            if self.watched && (*row.cast::<RowHeader>()).epoch != self.epoch {
                let (segment, index) = whereabouts(self);
                return self.overwrite_first(segment, index, row, value);
            }
            (*row.cast::<RowHeader>()).epoch = self.epoch;
            self.cells.replace::<V>(row.add(Layout::<K, V>::VALUE_AT), value);
        }
    }

    /// Makes the row of a key that has none.
    #[inline(never)]
    fn insert_new(&mut self, hash: KeyHash, key: K::View<'_>, value: V::View<'_>) {
        let spot = self.placer.spot(hash, S::salt(key));
        let mut segment = self.segment(&spot);
        // SAFETY: the directory's segments are alive; the row is empty and in the segment of its spot.
        unsafe {
            if (*segment.header()).used >= segment.limit() {
                segment = self.make_room(spot.position);
            }
            let row = segment.rows::<K, V>().vacant(self.homes, spot.tag);
            // The slab may panic; the row does not exist before its header is written.
            self.cells.init::<K>(row.add(Layout::<K, V>::KEY_AT), key);
            self.cells.init::<V>(row.add(Layout::<K, V>::VALUE_AT), value);
            row.cast::<RowHeader>().write(RowHeader::new(spot.tag, self.epoch, self.placer.group(hash)));
            (*segment.header()).used += 1;
            (*segment.header()).live += 1;
            (*segment.header()).written = self.epoch;
        }
        self.live += 1;
    }

    /// # Safety
    /// `found` must be an occupied row of this segment of this table.
    pub(crate) unsafe fn remove_found(&mut self, segment: SegmentRef, found: Found) {
        // SAFETY: as promised by the caller; its cells are freed first.
        unsafe {
            if self.watched {
                self.before_removal(segment, found);
            }
            self.free_row(found.row);
            let emptied = segment.rows::<K, V>().vacate(found.index);
            (*segment.header()).used -= emptied;
            (*segment.header()).live -= 1;
        }
        self.live -= 1;
    }

    /// Frees what a row refers to.
    ///
    /// # Safety
    /// `row` must be an occupied row of this table, and be unused afterwards.
    #[inline(always)]
    pub(crate) unsafe fn free_row(&mut self, row: *mut u8) {
        // SAFETY: as promised by the caller.
        unsafe {
            if self.watched && self.keep_row(row) {
                return;
            }
            self.cells.free::<K>(row.add(Layout::<K, V>::KEY_AT));
            self.cells.free::<V>(row.add(Layout::<K, V>::VALUE_AT));
        }
    }

    fn release_segments(&mut self) {
        let directory = std::mem::take(&mut self.directory);
        // SAFETY: the directory is gone, and the arena is the one that its segments are of.
        unsafe { release_all::<K, V>(directory, &mut self.arena) };
    }
}

/// Gives the memory of all segments of a directory back.
///
/// # Safety
/// The segments must be of this arena, and not be used afterwards.
pub(crate) unsafe fn release_all<K: Record, V: Record>(directory: Vec<SegmentRef>, arena: &mut SegmentArena) {
    let mut last = None;
    for segment in directory {
        if last != Some(segment) {
            // SAFETY: a segment's entries are adjacent, so that it is released once; the directory is gone.
            unsafe { segment.release::<K, V>(arena) };
            last = Some(segment);
        }
    }
    // SAFETY: all segments have been released.
    unsafe { arena.clear() };
}

impl<K: Record, V: Record, S: Salt<K>> Drop for RowTable<K, V, S> {
    fn drop(&mut self) {
        self.drop_snapshot();
        self.release_segments();
    }
}
