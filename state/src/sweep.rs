//! The sweep: reads a table's rows as they were at the barrier, in slices, while the table is changed.
//!
//! It goes by positions, segment by segment. A segment's rows that have not been written since the barrier are read
//! where they are, those that have from their copies, which hang on the segment. Work is counted in nanoseconds as
//! they were measured on one machine.

use thalweg_model::{KeyGroupRange, Record};

use crate::{
    ahead::{prefetch, prefetch_block},
    cell::Cells,
    detached::Detached,
    extents::Extents,
    handover::{BYTES_PER_NS, COPY_BYTES, Pending, ROW_READ_NS, Slice},
    image::{Extent, Header, trailer},
    limbo::Limbo,
    removed::Generation,
    row::{Layout, RowHeader, Rows},
    saved::SavedRows,
    segment::SegmentRef,
    slab::Slab,
    tail::Tail,
};

/// Length from which on an extent ends with its segment.
const EXTENT_TARGET_BYTES: u64 = 64 << 10;
/// Age in epochs that a row is given where it is older, so that no age is ever ambiguous.
pub(crate) const OLD_AGE: u16 = 1 << 14;
/// What is fetched ahead of the row that is read: this many rows.
const AHEAD_ROWS: u32 = 8;
/// Rows that are read without a look at the budget, where nothing follows them.
const CHUNK_ROWS: u32 = 32;
/// Rows up to this size are copied before it is known whether they are wanted.
const NARROW_ROW_BYTES: usize = 64;
/// What is fetched at a time.
const LINE_BYTES: usize = 64;

/// Estimated costs in nanoseconds: of a segment, of looking at a row, at one that has lines of its own, of a copy of one.
const SEGMENT_NS: i64 = 100;
const ROW_NS: i64 = 3;
const WIDE_ROW_NS: i64 = 8;
const SAVED_NS: i64 = 8;

/// The groups of no rows.
const NO_GROUPS: KeyGroupRange = KeyGroupRange { start: u16::MAX, end: 0 };

/// What the sweep does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Hand over the removals.
    Removals,
    /// Read rows.
    Rows,
    /// Hand over the table of extents, from this entry on.
    Extents(usize),
    /// Hand over what is left of the trailer.
    Trailer,
    /// Give back what was kept.
    Release,
}

/// A running snapshot.
pub(crate) struct Running<K: Record, V: Record> {
    pub(crate) epoch: u16,
    /// Rows written at most so many epochs ago are part of it.
    pub(crate) span: u16,
    /// Whether segments that have not changed are visited all the same.
    pub(crate) visit_all: bool,
    pub(crate) phase: Phase,
    /// Whether it was given up: what remains is to give back what was kept.
    pub(crate) is_aborted: bool,
    /// Where the segment begins that is being read, and how many of its rows have been.
    pub(crate) position: u64,
    pub(crate) row: u32,
    /// The next copy to be read of those of the segment, 0 for none.
    saved_next: u32,
    pub(crate) saved: SavedRows,
    pub(crate) limbo: Limbo,
    /// The table of the barrier, once it has been emptied as a whole.
    pub(crate) detached: Option<Detached<K, V>>,
    removals: Vec<Generation>,
    /// The removals that are handed over, and how many bytes of them have been.
    removing: Option<(Generation, usize)>,
    pending: Pending,
    extents: Extents,
    extent: Extent,
    pub(crate) written_bytes: u64,
    rows: u64,
}

/// Where the rows are.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) directory: &'a [SegmentRef],
    pub(crate) shift: u32,
    pub(crate) position_bits: u32,
    pub(crate) slab: &'a Slab,
}

impl<K: Record, V: Record> Running<K, V> {
    pub(crate) fn new(
        header: Header,
        span: u16,
        visit_all: bool,
        removals: Vec<Generation>,
        (saved, limbo): (SavedRows, Limbo),
    ) -> Self {
        let carry = header.to_bytes().to_vec();
        let offset = carry.len() as u64;
        Self {
            epoch: header.epoch,
            span,
            visit_all,
            phase: Phase::Removals,
            is_aborted: false,
            position: 0,
            row: 0,
            saved_next: 0,
            saved,
            limbo,
            detached: None,
            removals,
            removing: None,
            pending: Pending { carry, ..Pending::default() },
            extents: Extents::default(),
            extent: Extent { offset, bytes: 0, rows: 0, groups: NO_GROUPS },
            written_bytes: 0,
            rows: 0,
        }
    }

    /// Whether the image is not complete: what it still needs must be kept.
    pub(crate) fn is_reading(&self) -> bool {
        self.phase <= Phase::Rows
    }

    /// Memory held, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        let detached = self.detached.as_ref().map_or(0, Detached::held_bytes);
        self.saved.held_bytes() + self.limbo.held_bytes() + self.pending.carry.capacity() + detached
    }

    /// Whether a row is part of the image that was last written in this epoch.
    #[inline(always)]
    pub(crate) const fn wants(&self, epoch: u16) -> bool {
        let age = self.epoch.wrapping_sub(epoch);
        age != 0 && age <= self.span
    }

    /// Copies a row aside that is about to be changed or to go, if it has not been read yet.
    ///
    /// # Safety
    /// The row at `index` must be an occupied one of this segment, which is one of the table that is being read.
    #[inline]
    pub(crate) unsafe fn save(&mut self, segment: SegmentRef, index: u32, row: *const u8) {
        // SAFETY: as promised by the caller.
        unsafe {
            let header = segment.header();
            let is_read = (*header).read == self.epoch || ((*header).prefix == self.position && index < self.row);
            if !is_read && self.wants((*row.cast::<RowHeader>()).epoch) {
                let before = if (*header).saved_in == self.epoch { (*header).saved } else { 0 };
                (*header).saved = self.saved.push(row, before);
                (*header).saved_in = self.epoch;
            }
        }
    }

    /// Copies all rows of a segment aside that have not been read yet: they are about to move or to go.
    ///
    /// # Safety
    /// The segment must be one of the table that is being read, its rows of these types.
    pub(crate) unsafe fn save_all(&mut self, segment: SegmentRef) {
        // SAFETY: as promised by the caller.
        unsafe {
            if (*segment.header()).read == self.epoch {
                return;
            }
            let rows = segment.rows::<K, V>();
            for index in (0..rows.count()).filter(|&index| rows.is_occupied(index)) {
                self.save(segment, index, rows.row(index));
            }
            (*segment.header()).read = self.epoch;
        }
    }

    /// Goes on as far as room and budget reach. True once the image is complete.
    ///
    /// # Safety
    /// The source must be the table at the barrier, as the hooks have kept it, of these types; the tail that of its
    /// values.
    pub(crate) unsafe fn read<T: Tail>(&mut self, source: Source<'_>, tail: &T, slice: &mut Slice<'_>) -> bool {
        while self.pending.flush(source.slab, tail, slice) && slice.left_ns > 0 {
            match self.phase {
                // SAFETY: as promised by the caller.
                Phase::Rows => unsafe { self.read_segment::<T>(source, tail, slice) },
                Phase::Removals => {
                    if !self.read_removals(slice) {
                        break;
                    }
                }
                Phase::Extents(at) => self.write_extents(at),
                Phase::Trailer => {
                    self.phase = Phase::Release;
                    self.written_bytes += slice.used as u64;
                    return true;
                }
                Phase::Release => return true,
            }
        }
        self.written_bytes += slice.used as u64;
        false
    }

    /// Goes on with the removals. False where there is no room.
    fn read_removals(&mut self, slice: &mut Slice<'_>) -> bool {
        if let Some((generation, at)) = &mut self.removing {
            let rest = &generation.bytes[*at..];
            let count = slice.put(&rest[..rest.len().min(COPY_BYTES)]);
            *at += count;
            if *at < generation.bytes.len() {
                return count > 0;
            }
            self.removing = None;
        }
        self.end_extent(slice);
        match self.removals.pop() {
            Some(generation) => {
                self.extent = Extent { rows: generation.rows, groups: generation.groups, ..self.extent };
                self.removing = Some((generation, 0));
            }
            None => self.phase = Phase::Rows,
        }
        true
    }

    /// Reads rows of the segment at the position, and moves on when it is through.
    ///
    /// # Safety
    /// As for [`Self::read`].
    unsafe fn read_segment<T: Tail>(&mut self, source: Source<'_>, tail: &T, slice: &mut Slice<'_>) {
        if self.position >> source.position_bits != 0 {
            self.end_extent(slice);
            self.phase = Phase::Extents(0);
            return;
        }
        let segment = source.directory[(self.position >> source.shift) as usize];
        let header = segment.header();
        // SAFETY: the source's segments are alive, and nobody else reads or writes them.
        unsafe {
            let next_position = self.position + (1u64 << (source.position_bits - (*header).depth));
            if self.row == 0 {
                if let Some(next) = source.directory.get((next_position >> source.shift) as usize) {
                    prefetch(next.header().cast());
                }
                if (*header).saved_in == self.epoch && (*header).saved != 0 {
                    self.saved.prefetch_block((*header).saved);
                }
            }
            if (*header).read != self.epoch {
                let is_clean = self.epoch.wrapping_sub((*header).written) > self.span && !self.visit_all;
                if !is_clean && !self.read_rows::<T>(segment.rows::<K, V>(), source.slab, tail, slice) {
                    return;
                }
                (*header).read = self.epoch;
            }
            if (*header).saved_in == self.epoch && (*header).saved != 0 {
                self.saved_next = (*header).saved;
                self.ahead_of_saved::<T>(source.slab, tail);
            }
            (*header).saved = 0;
            while self.saved_next != 0 {
                if slice.left_ns <= 0 || !self.pending.flush(source.slab, tail, slice) {
                    return;
                }
                let (row, before) = self.saved.get(self.saved_next);
                let is_last = self.saved.is_first_of_block(self.saved_next);
                self.saved_next = before;
                if is_last && before != 0 {
                    self.ahead_of_saved::<T>(source.slab, tail);
                }
                slice.left_ns -= SAVED_NS;
                self.read_row::<T>(row, tail, slice);
            }
            if !self.pending.flush(source.slab, tail, slice) {
                return;
            }
            self.row = 0;
            self.position = next_position;
        }
        slice.left_ns -= SEGMENT_NS;
        if self.at(slice) - self.extent.offset >= EXTENT_TARGET_BYTES {
            self.end_extent(slice);
        }
    }

    /// Reads the rows of a segment that have not changed since the barrier. True when it is through.
    ///
    /// # Safety
    /// As for [`Self::read`].
    unsafe fn read_rows<T: Tail>(&mut self, rows: Rows<K, V>, slab: &Slab, tail: &T, slice: &mut Slice<'_>) -> bool {
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
                unsafe { self.read_row::<T>(rows.row(index), tail, slice) };
                let is_whole = K::FIXED && !T::FOLLOWS && self.pending.carry.is_empty();
                if !is_whole && !self.pending.flush(slab, tail, slice) {
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
        let (mut low, mut high, mut any_old) = (u32::MAX, 0, false);
        let begin = slice.room[slice.used..].as_mut_ptr();
        let mut next = begin;
        for index in from..to {
            let row = rows.row(index);
            prefetch(row.wrapping_add(row_bytes * CHUNK_ROWS as usize));
            let header = rows.header(index);
            let is_occupied = header.is_occupied();
            let is_wanted = is_occupied & self.wants(header.epoch);
            any_old |= is_occupied & (self.epoch.wrapping_sub(header.epoch) > OLD_AGE);
            low = low.min(if is_wanted { header.group() } else { u32::MAX });
            high = high.max(if is_wanted { header.group() } else { 0 });
            // SAFETY: there is room for all rows, as promised by the caller.
            unsafe {
                next.copy_from_nonoverlapping(row, row_bytes);
                next = next.add(if is_wanted { row_bytes } else { 0 });
            }
        }
        let bytes = next.addr() - begin.addr();
        if bytes > 0 {
            let groups = &mut self.extent.groups;
            *groups = KeyGroupRange { start: groups.start.min(low as u16), end: groups.end.max(high as u16) };
            self.extent.rows += (bytes / row_bytes) as u64;
            slice.used += bytes;
        }
        slice.left_ns -= (to - from) as i64 * ROW_NS + bytes as i64 / BYTES_PER_NS;
        if any_old {
            for index in (from..to).filter(|&index| rows.is_occupied(index)) {
                // SAFETY: the row exists, and nobody reads it.
                unsafe { self.make_younger(rows.row(index)) };
            }
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
                let groups = &mut self.extent.groups;
                *groups = KeyGroupRange {
                    start: groups.start.min(header.group() as u16),
                    end: groups.end.max(header.group() as u16),
                };
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
            for index in (from..to).filter(|&index| rows.is_occupied(index)) {
                // SAFETY: the row exists, and nobody reads it.
                unsafe { self.make_younger(rows.row(index)) };
            }
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
    unsafe fn ahead_of_saved<T: Tail>(&self, slab: &Slab, tail: &T) {
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
    unsafe fn read_row<T: Tail>(&mut self, row: *const u8, tail: &T, slice: &mut Slice<'_>) {
        slice.left_ns -= ROW_READ_NS;
        // SAFETY: as promised by the caller.
        let (header, bytes) =
            unsafe { (row.cast::<RowHeader>().read(), std::slice::from_raw_parts(row, Layout::<K, V>::BYTES)) };
        let group = header.group() as u16;
        let groups = &mut self.extent.groups;
        *groups = KeyGroupRange { start: groups.start.min(group), end: groups.end.max(group) };
        self.extent.rows += 1;
        if let Some(to) = slice.room[slice.used..].get_mut(..Layout::<K, V>::BYTES) {
            // Of a length that is known, which is what most of the work is.
            to.copy_from_slice(bytes);
            slice.used += Layout::<K, V>::BYTES;
            slice.left_ns -= const { Layout::<K, V>::BYTES as i64 / BYTES_PER_NS };
        } else {
            self.pending.carry.extend_from_slice(bytes);
        }
        // SAFETY: as promised by the caller.
        unsafe {
            if !K::FIXED {
                self.pending.key = Cells::handle::<K>(row.add(Layout::<K, V>::KEY_AT));
            }
            if T::FOLLOWS {
                self.pending.tail = Some(tail.begin(row.add(Layout::<K, V>::VALUE_AT)));
            }
        }
    }

    /// How many bytes of the image have been handed over.
    const fn at(&self, slice: &Slice<'_>) -> u64 {
        self.written_bytes + slice.used as u64
    }

    /// Ends the extent that has been begun, if there is anything in it. Nothing may be pending.
    fn end_extent(&mut self, slice: &Slice<'_>) {
        let offset = self.at(slice);
        if self.extent.rows > 0 {
            self.rows += self.extent.rows;
            self.extents.push(Extent { bytes: offset - self.extent.offset, ..self.extent });
        }
        self.extent = Extent { offset, bytes: 0, rows: 0, groups: NO_GROUPS };
    }

    fn write_extents(&mut self, at: usize) {
        let Some(extent) = self.extents.take(at) else {
            let table = self.extent.offset;
            self.pending.carry.extend_from_slice(&trailer(table, at as u64, self.rows));
            self.phase = Phase::Trailer;
            return;
        };
        self.pending.carry.extend_from_slice(&extent.to_bytes());
        self.phase = Phase::Extents(at + 1);
    }
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
