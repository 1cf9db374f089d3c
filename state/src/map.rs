//! `MapTable`: a map from user keys to values for each key.
//!
//! A key's row holds where its entries are: a block of rows in a slab, by open addressing, which doubles when it is
//! three quarters full. Growing one key's map is one step, whatever its size: 10 to 20 ns an entry.

use thalweg_model::{KeyHash, Record, record::key_hash};

use crate::{
    cell::Cells,
    home::Homes,
    limbo::Kept,
    place::TableConfig,
    row::{Found, Layout, RowHeader, Rows},
    scan::Cursor,
    slab::Handle,
    table::RowTable,
};

/// The block of a key's map: its place in the slab, live and used entries, and its rows as a power of two.
pub(crate) type Head = (u32, u32, u32, u8);

/// Entries of the smallest block, as a power of two.
pub(crate) const MIN_ROWS_LOG2: u8 = 2;

/// Maps from user keys to values by key.
///
/// As with [`RowTable`], every key comes with its hash; user keys do not. A map that is emptied does not exist.
pub struct MapTable<K: Record, UK: Record, UV: Record> {
    pub(crate) rows: RowTable<K, Head>,
    pub(crate) entries: Entries<UK, UV>,
}

/// The entries of all keys.
///
/// While a snapshot is being read, a block that it may need is copied before it is changed for the first time. The copy
/// shares the blocks of keys and values with the original: entries whose epoch is 0 have all of them in common, the
/// others have a value of their own.
pub(crate) struct Entries<UK, UV> {
    /// The blocks, and what their cells refer to.
    pub(crate) cells: Cells,
    /// Whether a snapshot is being read, as of the operation that is going on.
    reading: bool,
    /// What a running snapshot may still need.
    pub(crate) kept: Kept,
    types: std::marker::PhantomData<fn() -> (UK, UV)>,
}

impl<K: Record, UK: Record, UV: Record> MapTable<K, UK, UV> {
    /// An empty table.
    pub fn new(config: TableConfig) -> Self {
        Self::with_rows(RowTable::new(config))
    }

    /// A table of these rows, which must be empty.
    pub(crate) fn with_rows(rows: RowTable<K, Head>) -> Self {
        let types = std::marker::PhantomData;
        Self { rows, entries: Entries { cells: Cells::new(), reading: false, kept: Kept::default(), types } }
    }

    /// How many keys have a map.
    pub const fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no key has one.
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes() + self.entries.cells.held_bytes() + self.entries.kept.held_bytes()
    }

    /// Fetches the row of a key of this hash into the cache.
    #[inline(always)]
    pub fn prefetch(&self, hash: KeyHash) {
        self.rows.prefetch(hash);
    }

    /// Sets the value of a user key in a key's map. True if it had one before.
    pub fn put(&mut self, hash: KeyHash, key: K::View<'_>, user_key: UK::View<'_>, value: UV::View<'_>) -> bool {
        let shared = self.begin_change(hash, key);
        let Self { rows, entries } = self;
        rows.modify_or_insert_with(hash, key, Head::default, |head| {
            let old = shared.then(|| entries.copy_block(head));
            let found = entries.find(head, user_key);
            match found {
                // SAFETY: the entry exists, and nobody reads it.
                Some(found) => unsafe { entries.overwrite(found.row, value) },
                None => entries.insert_new(head, user_key, value),
            }
            entries.keep_block(old);
            found.is_some()
        })
    }

    /// Sets the value of a user key in a key's map to what `f` makes of the one it has, `None` if it has none.
    pub fn update(
        &mut self,
        hash: KeyHash,
        key: K::View<'_>,
        user_key: UK::View<'_>,
        f: impl FnOnce(Option<UV::View<'_>>) -> UV,
    ) {
        let shared = self.begin_change(hash, key);
        let Self { rows, entries } = self;
        rows.modify_or_insert(hash, key, Head::default, |head| {
            let found = entries.find(head, user_key);
            // SAFETY: the entry exists, and stays as it is while its view is used.
            let value = f(found.map(|found| unsafe { entries.value_of(found.row) }));
            let old = shared.then(|| entries.copy_block(head));
            match found {
                // SAFETY: the entry exists at the same index, in a copy of the block or in the block itself.
                Some(found) => unsafe { entries.overwrite(entries.rows(head).row(found.index), value.view()) },
                None => entries.insert_new(head, user_key, value.view()),
            }
            entries.keep_block(old);
        });
    }

    /// The value of a user key in a key's map.
    pub fn get(&self, hash: KeyHash, key: K::View<'_>, user_key: UK::View<'_>) -> Option<UV::View<'_>> {
        let head = self.rows.get(hash, key)?;
        let found = self.entries.find(&head, user_key)?;
        // SAFETY: the entry exists, and stays as it is while the table is borrowed.
        Some(unsafe { self.entries.value_of(found.row) })
    }

    /// Whether a key's map has an entry for a user key.
    pub fn contains(&self, hash: KeyHash, key: K::View<'_>, user_key: UK::View<'_>) -> bool {
        self.rows.get(hash, key).is_some_and(|head| self.entries.find(&head, user_key).is_some())
    }

    /// Removes an entry of a key's map. True if there was one.
    pub fn remove_entry(&mut self, hash: KeyHash, key: K::View<'_>, user_key: UK::View<'_>) -> bool {
        let Some(mut head) = self.rows.get(hash, key) else { return false };
        let Some(found) = self.entries.find(&head, user_key) else { return false };
        if head.1 == 1 {
            return self.remove(hash, key);
        }
        let old = self.begin_change(hash, key).then(|| self.entries.copy_block(&mut head));
        // SAFETY: the entry exists in the block of the head, or at the same index in the copy of it.
        unsafe { self.entries.remove_at(&mut head, found.index) };
        self.entries.keep_block(old);
        self.rows.insert(hash, key, head);
        true
    }

    /// The entries of a key's map, in no particular order; none if it has no map.
    pub fn entries(&self, hash: KeyHash, key: K::View<'_>) -> MapIter<'_, UK, UV> {
        self.entries.iter(self.rows.get(hash, key).unwrap_or_default())
    }

    /// How many entries a key's map has.
    pub fn count(&self, hash: KeyHash, key: K::View<'_>) -> usize {
        self.rows.get(hash, key).map_or(0, |(_, live, _, _)| live as usize)
    }

    /// Whether a key has no map, or an empty one, which is the same.
    pub fn is_empty_map(&self, hash: KeyHash, key: K::View<'_>) -> bool {
        !self.rows.contains(hash, key)
    }

    /// Removes a key's map. True if there was one.
    pub fn remove(&mut self, hash: KeyHash, key: K::View<'_>) -> bool {
        let Some(head) = self.rows.get(hash, key) else { return false };
        let shared = self.begin_change(hash, key);
        self.rows.remove(hash, key);
        self.entries.free_map(head, shared);
        true
    }

    /// Removes all maps and gives the memory back.
    pub fn clear(&mut self) {
        self.entries.kept.emptied(&mut self.entries.cells.slab, self.rows.is_being_read());
        self.rows.clear();
    }

    /// Prepares a change of a key's map. True if its block may be part of a snapshot and must be copied first.
    #[inline]
    fn begin_change(&mut self, hash: KeyHash, key: K::View<'_>) -> bool {
        self.entries.reading = self.rows.is_being_read();
        self.entries.reading && self.rows.is_shared(hash, key)
    }

    /// The next map of a scan: key, entries and key hash. As with [`RowTable::next`].
    pub fn next(&self, cursor: &mut Cursor) -> Option<(K::View<'_>, MapIter<'_, UK, UV>, KeyHash)> {
        let (key, head, hash) = self.rows.next(cursor)?;
        Some((key, self.entries.iter(head), hash))
    }
}

/// The tag of a user key.
#[inline(always)]
pub(crate) fn tag_of<UK: Record>(user_key: UK::View<'_>) -> u32 {
    key_hash::<UK>(user_key).0
}

/// Bytes of a block of rows.
const fn bytes_of<UK: Record, UV: Record>(rows_log2: u8) -> usize {
    Layout::<UK, UV>::BYTES << rows_log2
}

impl<UK: Record, UV: Record> Entries<UK, UV> {
    /// The rows of a head that has a block.
    #[inline(always)]
    pub(crate) fn rows(&self, head: &Head) -> Rows<UK, UV> {
        debug_assert!(head.0 != 0);
        // SAFETY: a head's block is live, aligned to 16, of that many rows, at most three quarters of them used.
        unsafe { Rows::new(self.cells.slab.pointer(head.0), 32 - head.3 as u32) }
    }

    #[inline]
    fn find(&self, head: &Head, user_key: UK::View<'_>) -> Option<Found> {
        if head.0 == 0 {
            return None;
        }
        let tag = tag_of::<UK>(user_key);
        // SAFETY: the rows asked about exist.
        let is_it =
            |row: *mut u8| unsafe { UK::eq_view(self.cells.view::<UK>(row.add(Layout::<UK, UV>::KEY_AT)), user_key) };
        let found = self.rows(head).find(Homes::EVERY_ROW, tag, is_it);
        found.exists.then_some(found)
    }

    /// # Safety
    /// `row` must be an occupied row that stays as it is while the view is used.
    #[inline(always)]
    unsafe fn value_of(&self, row: *mut u8) -> UV::View<'_> {
        // SAFETY: as promised by the caller.
        unsafe { self.cells.view::<UV>(row.add(Layout::<UK, UV>::VALUE_AT)) }
    }

    /// # Safety
    /// `row` must be an occupied row, and no view of its value be alive.
    unsafe fn overwrite(&mut self, row: *mut u8, value: UV::View<'_>) {
        // SAFETY: as promised by the caller.
        unsafe {
            let (header, cell) = (row.cast::<RowHeader>(), row.add(Layout::<UK, UV>::VALUE_AT));
            if self.reading && (*header).epoch == 0 {
                if let Some(old) = self.cells.replace_keeping::<UV>(cell, value) {
                    self.kept.limbo.push(old);
                }
                (*header).epoch = 1;
            } else {
                self.cells.replace::<UV>(cell, value);
            }
        }
    }

    /// Makes a copy of a map's block that the head goes on with, if it has one. Answers the block, which is to be kept.
    fn copy_block(&mut self, head: &mut Head) -> Handle {
        let bytes = if head.0 == 0 { 0 } else { bytes_of::<UK, UV>(head.3) };
        let old = Handle { unit: head.0, len: bytes as u32 };
        if head.0 == 0 {
            return old;
        }
        let unit = self.cells.slab.allocate(bytes).unit;
        // SAFETY: both blocks are of that many bytes, and rows are plain bytes.
        unsafe { self.cells.slab.pointer(unit).copy_from_nonoverlapping(self.cells.slab.pointer(old.unit), bytes) };
        head.0 = unit;
        let rows = self.rows(head);
        for index in (0..rows.count()).filter(|&index| rows.is_occupied(index)) {
            // SAFETY: the row exists, and nobody reads it.
            unsafe { (*rows.row(index).cast::<RowHeader>()).epoch = 0 };
        }
        old
    }

    /// Keeps a block for the snapshot.
    fn keep_block(&mut self, block: Option<Handle>) {
        if let Some(block) = block.filter(|block| block.unit != 0) {
            self.kept.limbo.push(block);
        }
    }

    fn insert_new(&mut self, head: &mut Head, user_key: UK::View<'_>, value: UV::View<'_>) {
        if head.0 == 0 {
            *head = (self.new_block(MIN_ROWS_LOG2), 0, 0, MIN_ROWS_LOG2);
        } else if head.2 as u64 * 4 >= 3 << head.3 {
            self.grow(head);
        }
        let tag = tag_of::<UK>(user_key);
        let row = self.rows(head).vacant(Homes::EVERY_ROW, tag);
        // SAFETY: the row is empty, and its cells are written before its header says that they are there.
        unsafe {
            self.cells.init::<UK>(row.add(Layout::<UK, UV>::KEY_AT), user_key);
            self.cells.init::<UV>(row.add(Layout::<UK, UV>::VALUE_AT), value);
            row.cast::<RowHeader>().write(RowHeader::new(tag, 1, 0));
        }
        head.1 += 1;
        head.2 += 1;
    }

    /// # Safety
    /// There must be an occupied row at that index of the head's block.
    unsafe fn remove_at(&mut self, head: &mut Head, index: u32) {
        // SAFETY: as promised by the caller; the cells are freed first.
        unsafe {
            self.free_cells(self.rows(head).row(index), false);
            head.2 -= self.rows(head).vacate(index);
        }
        head.1 -= 1;
    }

    /// # Safety
    /// `row` must be an occupied row, and be unused afterwards. Where a snapshot has its block too, it must be `shared`.
    unsafe fn free_cells(&mut self, row: *mut u8, shared: bool) {
        // SAFETY: as promised by the caller.
        unsafe {
            if self.reading {
                let is_own = !shared && (*row.cast::<RowHeader>()).epoch != 0;
                let value = row.add(Layout::<UK, UV>::VALUE_AT);
                let kept = if is_own { None } else { Cells::handle::<UV>(value) };
                for handle in [Cells::handle::<UK>(row.add(Layout::<UK, UV>::KEY_AT)), kept].into_iter().flatten() {
                    self.kept.limbo.push(handle);
                }
                if is_own {
                    self.cells.free::<UV>(value);
                }
                return;
            }
            self.cells.free::<UK>(row.add(Layout::<UK, UV>::KEY_AT));
            self.cells.free::<UV>(row.add(Layout::<UK, UV>::VALUE_AT));
        }
    }

    pub(crate) fn new_block(&mut self, rows_log2: u8) -> u32 {
        let bytes = bytes_of::<UK, UV>(rows_log2);
        let unit = self.cells.slab.allocate(bytes).unit;
        // SAFETY: the block is fresh and of that many bytes.
        unsafe { self.cells.slab.pointer(unit).write_bytes(0, bytes) };
        unit
    }

    /// Moves a map to a block of twice the size, or of the same one where half of it are deleted rows.
    fn grow(&mut self, head: &mut Head) {
        let (old, rows_log2) = (self.rows(head), head.3 + (head.1 as u64 * 2 > 1 << head.3) as u8);
        let new = (self.new_block(rows_log2), head.1, head.1, rows_log2);
        let rows = self.rows(&new);
        for index in (0..old.count()).filter(|&index| old.is_occupied(index)) {
            // SAFETY: the new block has room for every row of the old one, which nobody uses afterwards.
            unsafe {
                let row = rows.vacant(Homes::EVERY_ROW, old.header(index).tag);
                row.copy_from_nonoverlapping(old.row(index), Layout::<UK, UV>::BYTES);
            }
        }
        self.free_block(head);
        *head = new;
    }

    fn free_block(&mut self, head: &Head) {
        // SAFETY: the head's block is live, of that length, and the head is done with.
        unsafe { self.cells.slab.free(Handle { unit: head.0, len: bytes_of::<UK, UV>(head.3) as u32 }) };
    }

    pub(crate) fn free_map(&mut self, head: Head, shared: bool) {
        let rows = self.rows(&head);
        if !(UK::FIXED && UV::FIXED) {
            for index in (0..rows.count()).filter(|&index| rows.is_occupied(index)) {
                // SAFETY: the row is occupied, and its block is freed below.
                unsafe { self.free_cells(rows.row(index), shared) };
            }
        }
        if shared {
            self.keep_block(Some(Handle { unit: head.0, len: bytes_of::<UK, UV>(head.3) as u32 }));
        } else {
            self.free_block(&head);
        }
    }

    fn iter(&self, head: Head) -> MapIter<'_, UK, UV> {
        let rows = (head.0 != 0).then(|| self.rows(&head));
        MapIter { cells: &self.cells, rows, index: 0, left: head.1 }
    }
}

/// The entries of one key's map.
pub struct MapIter<'a, UK: Record, UV: Record> {
    cells: &'a Cells,
    rows: Option<Rows<UK, UV>>,
    index: u32,
    left: u32,
}

impl<UK: Record, UV: Record> Clone for MapIter<'_, UK, UV> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<'a, UK: Record, UV: Record> Iterator for MapIter<'a, UK, UV> {
    type Item = (UK::View<'a>, UV::View<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.rows.filter(|_| self.left > 0)?;
        self.left -= 1;
        // With entries left, an occupied row follows.
        while !rows.is_occupied(self.index) {
            self.index += 1;
        }
        let row = rows.row(self.index);
        self.index += 1;
        // SAFETY: the row is occupied and stays as it is while the table is borrowed.
        unsafe {
            let key = self.cells.view::<UK>(row.add(Layout::<UK, UV>::KEY_AT));
            Some((key, self.cells.view::<UV>(row.add(Layout::<UK, UV>::VALUE_AT))))
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl<UK: Record, UV: Record> ExactSizeIterator for MapIter<'_, UK, UV> {}
