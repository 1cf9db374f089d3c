//! Scans of a `RowTable`: all rows, segment by segment, in the order of memory.

use thalweg_model::{KeyHash, Record};

use crate::{place::Salt, row::Rows, segment::SegmentRef, table::RowTable};

/// Where a scan of a table stands. The default is the start.
///
/// It stays true while rows are changed or removed; where new keys are inserted meanwhile, the scan may miss rows or
/// meet them again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    entry: usize,
    /// The first row that has not been looked at.
    row: u32,
    /// Of the group of rows before that one, those that were occupied and have not been met: a bit each.
    ahead: u32,
}

/// Rows that are looked at together: as many as a word has bits, or all where a segment has fewer.
const GROUP_ROWS: u32 = u32::BITS;

impl<K: Record, V: Record, S: Salt<K>> RowTable<K, V, S> {
    /// The next row of a scan: key, value and key hash. `None` at the end, where the cursor stays.
    #[inline]
    pub fn next(&self, cursor: &mut Cursor) -> Option<(K::View<'_>, V::View<'_>, KeyHash)> {
        let row = self.next_row(cursor)?;
        // SAFETY: the row is occupied and stays as it is while the table is borrowed.
        Some(unsafe { self.row_views(row) })
    }

    /// As [`Self::next`], and empties the table behind the cursor, a segment at a time, keeping the memory.
    ///
    /// When it answers `None` the table is empty and the cursor at the start. Before that, the table holds the rows
    /// of the segments that are not finished, this one's met rows included.
    #[inline]
    pub fn drain_next(&mut self, cursor: &mut Cursor) -> Option<(K::View<'_>, V::View<'_>, KeyHash)> {
        while let Some(&segment) = self.directory.get(cursor.entry) {
            // SAFETY: the directory's segments are alive.
            let rows = unsafe { segment.rows::<K, V>() };
            if let Some(row) = next_occupied(rows, cursor) {
                // SAFETY: the row is occupied and stays as it is while the table is borrowed.
                return Some(unsafe { self.row_views(row) });
            }
            self.empty_segment(segment);
            self.step_segment(cursor, segment);
        }
        *cursor = Cursor::default();
        None
    }

    /// Calls `f` with key, value and key hash of every row.
    pub fn for_each(&self, mut f: impl FnMut(K::View<'_>, V::View<'_>, KeyHash)) {
        let mut cursor = Cursor::default();
        while let Some((key, value, hash)) = self.next(&mut cursor) {
            f(key, value, hash);
        }
    }

    /// The next occupied row of a scan.
    #[inline(always)]
    fn next_row(&self, cursor: &mut Cursor) -> Option<*mut u8> {
        while let Some(&segment) = self.directory.get(cursor.entry) {
            // SAFETY: the directory's segments are alive.
            let rows = unsafe { segment.rows::<K, V>() };
            if let Some(row) = next_occupied(rows, cursor) {
                return Some(row);
            }
            self.step_segment(cursor, segment);
        }
        None
    }

    /// Moves on to the entry after the last one of a segment.
    #[inline(always)]
    fn step_segment(&self, cursor: &mut Cursor, segment: SegmentRef) {
        // SAFETY: the directory's segments are alive.
        let depth = unsafe { (*segment.header()).depth };
        let entries = 1usize << (self.depth() - depth);
        *cursor = Cursor { entry: (cursor.entry | (entries - 1)) + 1, ..Cursor::default() };
    }

    /// # Safety
    /// `row` must be an occupied row of this table that stays as it is while the views are used.
    #[inline(always)]
    unsafe fn row_views(&self, row: *mut u8) -> (K::View<'_>, V::View<'_>, KeyHash) {
        // SAFETY: as promised by the caller.
        unsafe { (self.key_of(row), self.value_of(row), self.hash_of(row)) }
    }

    fn empty_segment(&mut self, segment: SegmentRef) {
        // SAFETY: the segment is of this table and alive, and nobody reads it.
        unsafe {
            if self.watched {
                self.before_emptying(segment);
            }
            let rows = segment.rows::<K, V>();
            if !(K::FIXED && V::FIXED) {
                for index in (0..rows.count()).filter(|&index| rows.is_occupied(index)) {
                    self.free_row(rows.row(index));
                }
            }
            let header = &mut *segment.header();
            self.live -= header.live as usize;
            if header.used > 0 {
                rows.wipe();
            }
            header.live = 0;
            header.used = 0;
        }
    }

    /// Calls `f` once with every segment.
    pub(crate) fn for_each_segment(&self, mut f: impl FnMut(SegmentRef)) {
        let mut cursor = Cursor::default();
        while let Some(&segment) = self.directory.get(cursor.entry) {
            f(segment);
            self.step_segment(&mut cursor, segment);
        }
    }
}

/// The next occupied row of a segment; moves the cursor past it.
///
/// Nobody can predict which rows are occupied: a group is looked at without branching, and then only those that are.
#[inline(always)]
fn next_occupied<K: Record, V: Record>(rows: Rows<K, V>, cursor: &mut Cursor) -> Option<*mut u8> {
    let count = rows.count();
    let group = count.min(GROUP_ROWS);
    loop {
        while cursor.ahead != 0 {
            let index = cursor.row.wrapping_sub(group).wrapping_add(cursor.ahead.trailing_zeros());
            cursor.ahead &= cursor.ahead - 1;
            // It may have been removed, or the segment have become another one, since it was looked at.
            if index < count && rows.is_occupied(index) {
                return Some(rows.row(index));
            }
        }
        if cursor.row >= count {
            return None;
        }
        // A multiple already, unless the segment has become another one.
        let first = cursor.row & !(group - 1);
        cursor.ahead = (0..group).fold(0, |ahead, at| ahead | (rows.is_occupied(first + at) as u32) << at);
        cursor.row = first + group;
    }
}
