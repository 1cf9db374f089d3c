//! `MapTable`: a map from user keys to values for each key.
//!
//! A key's row holds where its entries are: a block of rows in a slab, by open addressing, which doubles when it is
//! three quarters full. Growing one key's map is one step, whatever its size: 10 to 20 ns an entry.

use thalweg_model::{KeyHash, Record, record::key_hash};

use crate::{
    cell::Cells,
    place::TableConfig,
    row::{Found, Layout, RowHeader, Rows},
    scan::Cursor,
    slab::Handle,
    table::RowTable,
};

/// The block of a key's map: its place in the slab, live and used entries, and its rows as a power of two.
type Head = (u32, u32, u32, u8);

/// Entries of the smallest block, as a power of two.
const MIN_ROWS_LOG2: u8 = 2;

/// Maps from user keys to values by key.
///
/// As with [`RowTable`], every key comes with its hash; user keys do not. A map that is emptied does not exist.
pub struct MapTable<K: Record, UK: Record, UV: Record> {
    rows: RowTable<K, Head>,
    entries: Entries<UK, UV>,
}

/// The entries of all keys.
struct Entries<UK, UV> {
    /// The blocks, and what their cells refer to.
    cells: Cells,
    types: std::marker::PhantomData<fn() -> (UK, UV)>,
}

impl<K: Record, UK: Record, UV: Record> MapTable<K, UK, UV> {
    /// An empty table.
    pub fn new(config: TableConfig) -> Self {
        let entries = Entries { cells: Cells::new(), types: std::marker::PhantomData };
        Self { rows: RowTable::new(config), entries }
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
        self.rows.memory_bytes() + self.entries.cells.held_bytes()
    }

    /// Fetches the row of a key of this hash into the cache.
    #[inline(always)]
    pub fn prefetch(&self, hash: KeyHash) {
        self.rows.prefetch(hash);
    }

    /// Sets the value of a user key in a key's map. True if it had one before.
    pub fn put(&mut self, hash: KeyHash, key: K::View<'_>, user_key: UK::View<'_>, value: UV::View<'_>) -> bool {
        let Self { rows, entries } = self;
        rows.modify_or_insert_with(hash, key, Head::default, |head| {
            let found = entries.find(head, user_key);
            match found {
                // SAFETY: the entry exists, and nobody reads it.
                Some(found) => unsafe { entries.overwrite(found.row, value) },
                None => entries.insert_new(head, user_key, value),
            }
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
        let Self { rows, entries } = self;
        rows.modify_or_insert(hash, key, Head::default, |head| match entries.find(head, user_key) {
            // SAFETY: the entry exists, and the view of it is gone when it is overwritten.
            Some(found) => unsafe {
                let value = f(Some(entries.value_of(found.row)));
                entries.overwrite(found.row, value.view());
            },
            None => {
                let value = f(None);
                entries.insert_new(head, user_key, value.view());
            }
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
        // SAFETY: the entry exists in the block of the head.
        unsafe { self.entries.remove_found(&mut head, found) };
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
        self.rows.remove(hash, key);
        self.entries.free_map(head);
        true
    }

    /// Removes all maps and gives the memory back.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.entries.cells = Cells::new();
    }

    /// The next map of a scan: key, entries and key hash. As with [`RowTable::next`].
    pub fn next(&self, cursor: &mut Cursor) -> Option<(K::View<'_>, MapIter<'_, UK, UV>, KeyHash)> {
        let (key, head, hash) = self.rows.next(cursor)?;
        Some((key, self.entries.iter(head), hash))
    }
}

/// The tag of a user key.
#[inline(always)]
fn tag_of<UK: Record>(user_key: UK::View<'_>) -> u32 {
    key_hash::<UK>(user_key).0
}

/// Bytes of a block of rows.
const fn bytes_of<UK: Record, UV: Record>(rows_log2: u8) -> usize {
    Layout::<UK, UV>::BYTES << rows_log2
}

impl<UK: Record, UV: Record> Entries<UK, UV> {
    /// The rows of a head that has a block.
    #[inline(always)]
    fn rows(&self, head: &Head) -> Rows<UK, UV> {
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
        let found = self.rows(head).find(tag, is_it);
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
        unsafe { self.cells.replace::<UV>(row.add(Layout::<UK, UV>::VALUE_AT), value) };
    }

    fn insert_new(&mut self, head: &mut Head, user_key: UK::View<'_>, value: UV::View<'_>) {
        if head.0 == 0 {
            *head = (self.new_block(MIN_ROWS_LOG2), 0, 0, MIN_ROWS_LOG2);
        } else if head.2 as u64 * 4 >= 3 << head.3 {
            self.grow(head);
        }
        let tag = tag_of::<UK>(user_key);
        let row = self.rows(head).vacant(tag);
        // SAFETY: the row is empty, and its cells are written before its header says that they are there.
        unsafe {
            self.cells.init::<UK>(row.add(Layout::<UK, UV>::KEY_AT), user_key);
            self.cells.init::<UV>(row.add(Layout::<UK, UV>::VALUE_AT), value);
            row.cast::<RowHeader>().write(RowHeader::new(tag, 0, 0));
        }
        head.1 += 1;
        head.2 += 1;
    }

    /// # Safety
    /// `found` must be an occupied row of the head's block.
    unsafe fn remove_found(&mut self, head: &mut Head, found: Found) {
        // SAFETY: as promised by the caller; the cells are freed first.
        unsafe {
            self.free_cells(found.row);
            head.2 -= self.rows(head).vacate(found.index);
        }
        head.1 -= 1;
    }

    /// # Safety
    /// `row` must be an occupied row, and be unused afterwards.
    unsafe fn free_cells(&mut self, row: *mut u8) {
        // SAFETY: as promised by the caller.
        unsafe {
            self.cells.free::<UK>(row.add(Layout::<UK, UV>::KEY_AT));
            self.cells.free::<UV>(row.add(Layout::<UK, UV>::VALUE_AT));
        }
    }

    fn new_block(&mut self, rows_log2: u8) -> u32 {
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
                let row = rows.vacant(old.header(index).tag);
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

    fn free_map(&mut self, head: Head) {
        let rows = self.rows(&head);
        if !(UK::FIXED && UV::FIXED) {
            for index in (0..rows.count()).filter(|&index| rows.is_occupied(index)) {
                // SAFETY: the row is occupied, and its block is freed below.
                unsafe { self.free_cells(rows.row(index)) };
            }
        }
        self.free_block(&head);
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
