//! Reading rows of a segment, for the sweep: those that have not changed since the barrier where they are, and copies.

use std::hint::black_box;

use thalweg_model::{KeyGroupRange, Record};

use crate::{
    ahead::{prefetch, prefetch_block},
    cell::Cells,
    handover::{BYTES_PER_NS, ROW_READ_NS, Slice},
    row::{Layout, RowHeader, Rows},
    slab::Slab,
    sweep::{OLD_AGE, Running},
    tail::Tail,
};

/// What is fetched ahead of the row that is read: this many rows.
const AHEAD_ROWS: u32 = 8;
/// Rows that are read without a look at the budget, where nothing follows them.
const CHUNK_ROWS: u32 = 32;
/// Rows up to this size are copied before it is known whether they are wanted.
const NARROW_ROW_BYTES: usize = 64;
/// What is fetched ahead of rows that lie in a row, in bytes.
const AHEAD_BYTES: usize = 4096;
/// The same of where copies go, which the disk has had since.
const AHEAD_COPIES_BYTES: usize = 512;
/// What is fetched at a time.
const LINE_BYTES: usize = 64;

/// Estimated costs in nanoseconds: of looking at a row, and at one that has lines of its own.
const ROW_NS: i64 = 3;
const WIDE_ROW_NS: i64 = 8;

impl<K: Record, V: Record> Running<K, V> {
    /// Reads the rows of a segment that have not changed since the barrier. True when it is through.
    ///
    /// # Safety
    /// As for [`Self::read`].
    pub(crate) unsafe fn read_rows<T: Tail>(
        &mut self,
        rows: Rows<K, V>,
        slab: &Slab,
        tail: &T,
        slice: &mut Slice<'_>,
    ) -> bool {
        while self.row < rows.count() {
            let index = self.row;
            if K::FIXED && !T::FOLLOWS && self.pending.carry.is_empty() {
                let end = (index + CHUNK_ROWS).min(rows.count());
                if slice.room.len() - slice.used >= (end - index) as usize * Layout::<K, V>::BYTES {
                    // SAFETY: there is room for all of these rows.
                    unsafe {
                        if const { Layout::<K, V>::BYTES <= NARROW_ROW_BYTES } {
                            self.read_chunk(rows, index, end, slice);
                        } else {
                            self.read_wide_chunk(rows, index, end, slice);
                        }
                    }
                    self.row = end;
                    if slice.left_ns <= 0 {
                        return end == rows.count();
                    }
                    continue;
                }
            }
            if (T::FOLLOWS || !K::FIXED) && index + AHEAD_ROWS < rows.count() {
                let ahead = rows.header(index + AHEAD_ROWS);
                if ahead.is_occupied() && self.wants(ahead.epoch) {
                    // SAFETY: the row is occupied.
                    unsafe { prefetch_row::<K, V, T>(rows.row(index + AHEAD_ROWS), slab, tail) };
                }
            }
            self.row += 1;
            slice.left_ns -= ROW_NS;
            let header = rows.header(index);
            if !header.is_occupied() {
                continue;
            }
            if self.epoch.wrapping_sub(header.epoch) > OLD_AGE {
                // SAFETY: the row exists, and nobody reads it.
                unsafe { self.make_younger(rows.row(index)) };
            }
            if self.wants(header.epoch) {
                // SAFETY: the row is occupied, and of these types.
                unsafe { self.read_row::<T>(rows.row(index), slab, tail, slice) };
                if !self.pending.is_empty() && !self.pending.flush(slab, tail, slice) {
                    return false;
                }
            }
            if slice.left_ns <= 0 {
                return self.row == rows.count();
            }
        }
        true
    }

    /// Reads the rows from one index to another, which nothing follows. Nothing may be pending.
    ///
    /// Which rows are occupied and wanted cannot be predicted: every row is copied, and the next one over it if it is
    /// not one of these.
    ///
    /// # Safety
    /// The rows must be of the table that is being read, and there must be room for all of them.
    #[inline(always)]
    unsafe fn read_chunk(&mut self, rows: Rows<K, V>, from: u32, to: u32, slice: &mut Slice<'_>) {
        let row_bytes = const { Layout::<K, V>::BYTES };
        // The span in disguise, so that no compiler makes a branch of what it is compared for.
        let (epoch, span) = (self.epoch, black_box(self.span as i32));
        let known_group = self.extent.groups.end as usize;
        let begin = slice.room[slice.used..].as_mut_ptr();
        let (mut row, mut next) = (rows.row(from).cast_const(), begin);
        // Which bits are set in the age of a row, and not as they are known in the group of one that is wanted.
        let (mut ages, mut unknown) = (0, 0);
        for _ in from..to {
            prefetch(row.wrapping_add(AHEAD_BYTES));
            prefetch(next.wrapping_add(AHEAD_COPIES_BYTES));
            // SAFETY: all of these rows exist, and there is room for them, as promised by the caller.
            unsafe {
                let header = row.cast::<RowHeader>().read();
                next.copy_from_nonoverlapping(row, row_bytes);
                let age = epoch.wrapping_sub(header.epoch);
                let occupied = header.occupied_bits();
                let wanted = occupied & sign_bits((age.wrapping_sub(1) as i32).wrapping_sub(span));
                ages |= occupied & age as usize;
                unknown |= wanted & (header.group() as usize ^ known_group);
                next = next.add(wanted & row_bytes);
                row = row.add(row_bytes);
            }
        }
        let bytes = next.addr() - begin.addr();
        if unknown != 0 || self.extent.rows == 0 {
            for copy in (0..bytes).step_by(row_bytes) {
                // SAFETY: the loop above has copied a row there.
                self.add_group(unsafe { begin.add(copy).cast::<RowHeader>().read() });
            }
        }
        self.extent.rows += (bytes / row_bytes) as u64;
        slice.used += bytes;
        slice.left_ns -= (to - from) as i64 * ROW_NS + bytes as i64 / BYTES_PER_NS;
        if ages >= OLD_AGE as usize {
            // SAFETY: the rows exist, and nobody reads them.
            unsafe { self.make_younger_all(rows, from, to) };
        }
    }

    /// As [`Self::read_chunk`], where copying a row in vain costs more than a branch that was not foreseen: looks at all
    /// headers first, and fetches what is wanted before any of it is copied.
    ///
    /// # Safety
    /// As for [`Self::read_chunk`].
    #[inline(always)]
    unsafe fn read_wide_chunk(&mut self, rows: Rows<K, V>, from: u32, to: u32, slice: &mut Slice<'_>) {
        let row_bytes = const { Layout::<K, V>::BYTES };
        let (mut wanted, mut any_old) = (0u32, false);
        for index in from..to {
            let row = rows.row(index);
            prefetch(row.wrapping_add(row_bytes * CHUNK_ROWS as usize));
            let header = rows.header(index);
            if !header.is_occupied() {
                continue;
            }
            any_old |= self.epoch.wrapping_sub(header.epoch) > OLD_AGE;
            if self.wants(header.epoch) {
                wanted |= 1 << (index - from);
                self.add_group(header);
                (LINE_BYTES..row_bytes).step_by(LINE_BYTES).for_each(|line| prefetch(row.wrapping_add(line)));
            }
        }
        let count = wanted.count_ones() as usize;
        let mut next = slice.room[slice.used..].as_mut_ptr();
        while wanted != 0 {
            let row = rows.row(from + wanted.trailing_zeros());
            wanted &= wanted - 1;
            // SAFETY: there is room for all rows, as promised by the caller.
            unsafe {
                next.copy_from_nonoverlapping(row, row_bytes);
                next = next.add(row_bytes);
            }
        }
        let bytes = count * row_bytes;
        self.extent.rows += count as u64;
        slice.used += bytes;
        slice.left_ns -= (to - from) as i64 * WIDE_ROW_NS + bytes as i64 / BYTES_PER_NS;
        if any_old {
            // SAFETY: the rows exist, and nobody reads them.
            unsafe { self.make_younger_all(rows, from, to) };
        }
    }

    /// Takes the group of a row into those of the extent.
    #[inline(always)]
    fn add_group(&mut self, header: RowHeader) {
        let (groups, group) = (&mut self.extent.groups, header.group() as u16);
        *groups = KeyGroupRange { start: groups.start.min(group), end: groups.end.max(group) };
    }

    /// As [`Self::make_younger`], for the occupied ones of the rows from one index to another.
    ///
    /// # Safety
    /// As for that, but that the rows need not be occupied.
    #[cold]
    unsafe fn make_younger_all(&self, rows: Rows<K, V>, from: u32, to: u32) {
        for index in (from..to).filter(|&index| rows.is_occupied(index)) {
            // SAFETY: the row is an occupied one of the table, as promised by the caller.
            unsafe { self.make_younger(rows.row(index)) };
        }
    }

    /// Makes a row young enough for its age to be told, if it is not.
    ///
    /// # Safety
    /// `row` must be an occupied row of the table that is being read.
    #[cold]
    unsafe fn make_younger(&self, row: *mut u8) {
        // SAFETY: as promised by the caller; nobody reads the row.
        let header = unsafe { &mut *row.cast::<RowHeader>() };
        if self.epoch.wrapping_sub(header.epoch) > OLD_AGE {
            header.epoch = self.epoch.wrapping_sub(OLD_AGE);
        }
    }

    /// Fetches what follows the copies of the block that is read next, and the block after it.
    ///
    /// # Safety
    /// As for [`Self::read`].
    pub(crate) unsafe fn ahead_of_saved<T: Tail>(&self, slab: &Slab, tail: &T) {
        let mut number = self.saved_next;
        if T::FOLLOWS || !K::FIXED {
            loop {
                // SAFETY: a copy is one of a row that was occupied, whose blocks are kept.
                unsafe { prefetch_row::<K, V, T>(self.saved.get(number).0, slab, tail) };
                if self.saved.is_first_of_block(number) {
                    break;
                }
                number -= 1;
            }
        }
        self.saved.prefetch_block_before(self.saved_next);
    }

    /// Takes up one row. Nothing may be pending.
    ///
    /// # Safety
    /// `row` must be a row of these types that was occupied at the barrier.
    #[inline(always)]
    pub(crate) unsafe fn read_row<T: Tail>(&mut self, row: *const u8, slab: &Slab, tail: &T, slice: &mut Slice<'_>) {
        slice.left_ns -= ROW_READ_NS;
        // SAFETY: as promised by the caller.
        let (header, bytes) =
            unsafe { (row.cast::<RowHeader>().read(), std::slice::from_raw_parts(row, Layout::<K, V>::BYTES)) };
        self.add_group(header);
        self.extent.rows += 1;
        if let Some(to) = slice.room[slice.used..].get_mut(..Layout::<K, V>::BYTES) {
            // Of a length that is known, which is what most of the work is.
            to.copy_from_slice(bytes);
            slice.used += Layout::<K, V>::BYTES;
            slice.left_ns -= const { Layout::<K, V>::BYTES as i64 / BYTES_PER_NS };
        } else {
            self.pending.carry.extend_from_slice(bytes);
        }
        // What follows is handed over at once where there is room, since noting it costs more than copying it.
        let mut is_whole = self.pending.carry.is_empty();
        // SAFETY: as promised by the caller; blocks of rows that are part of the image are kept.
        unsafe {
            if let Some(key) = Cells::handle::<K>(row.add(Layout::<K, V>::KEY_AT)) {
                is_whole = is_whole && slice.put_block(slab, key);
                if !is_whole {
                    self.pending.key = Some(key);
                }
            }
            if T::FOLLOWS {
                let (value, slab) = (row.add(Layout::<K, V>::VALUE_AT), tail.slab().unwrap_or(slab));
                if !(is_whole && tail.only_block(value).is_some_and(|block| slice.put_block(slab, block))) {
                    self.pending.tail = Some(tail.begin(value));
                }
            }
        }
    }
}

/// All bits if a number is negative, else none.
#[inline(always)]
const fn sign_bits(number: i32) -> usize {
    (number >> 31) as isize as usize
}

/// Fetches what will be read of a row.
///
/// # Safety
/// `row` must be an occupied row of these types.
#[inline(always)]
unsafe fn prefetch_row<K: Record, V: Record, T: Tail>(row: *const u8, slab: &Slab, tail: &T) {
    // SAFETY: as promised by the caller; the handles of an occupied row are of live blocks.
    unsafe {
        if let Some(key) = Cells::handle::<K>(row.add(Layout::<K, V>::KEY_AT)) {
            prefetch_block(slab.pointer(key.unit), key.len as usize);
        }
        if T::FOLLOWS {
            tail.prefetch(slab, row.add(Layout::<K, V>::VALUE_AT));
        }
    }
}
