//! The sweep: reads a table's rows as they were at the barrier, in slices, while the table is changed.
//!
//! It goes by positions, segment by segment. A segment's rows that have not been written since the barrier are read
//! where they are, those that have from their copies, which hang on the segment. Work is counted in nanoseconds as
//! they were measured on one machine.

use thalweg_model::{KeyGroupRange, Record};

use crate::{
    ahead::prefetch,
    detached::Detached,
    extents::Extents,
    handover::{COPY_BYTES, Pending, Slice},
    image::{Extent, Header, trailer},
    limbo::Limbo,
    removed::Generation,
    row::{Layout, RowHeader},
    saved::SavedRows,
    segment::SegmentRef,
    slab::Slab,
    tail::Tail,
};

/// Length from which on an extent ends with its segment.
const EXTENT_TARGET_BYTES: u64 = 64 << 10;
/// Age in epochs that a row is given where it is older, so that no age is ever ambiguous.
pub(crate) const OLD_AGE: u16 = 1 << 14;
/// Estimated costs in nanoseconds: of a segment, and of a copy of a row.
const SEGMENT_NS: i64 = 100;
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
    pub(crate) saved_next: u32,
    pub(crate) saved: SavedRows,
    pub(crate) limbo: Limbo,
    /// The table of the barrier, once it has been emptied as a whole.
    pub(crate) detached: Option<Detached<K, V>>,
    removals: Vec<Generation>,
    /// The removals that are handed over, and how many bytes of them have been.
    removing: Option<(Generation, usize)>,
    pub(crate) pending: Pending,
    extents: Extents,
    pub(crate) extent: Extent,
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
                (*header).saved = self.saved.push(row, const { Layout::<K, V>::BYTES }, before);
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
                self.read_row::<T>(row, source.slab, tail, slice);
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
