//! A segment: a header and a power of two of rows, which hold one interval of positions. The two may lie apart.

use thalweg_model::Record;

use crate::{
    ahead::CACHE_LINE_BYTES,
    arena::{HEADER_BYTES, SEGMENT_ALIGN, SegmentArena, SegmentMemory, Source},
    row::{Layout, Rows},
};

/// Rows of the smallest segment, as a power of two.
pub(crate) const MIN_ROWS_LOG2: u32 = 3;
/// Rows of the largest segment, as a power of two: only keys that share their hashes need more than the regular size.
const MAX_ROWS_LOG2: u32 = 31;
/// Size at which segments split, unless that is fewer than eight rows.
const REGULAR_BYTES: usize = 64 << 10;

/// What is known of a segment beside its rows.
#[repr(C, align(64))]
pub(crate) struct SegmentHeader {
    /// The top bits that all positions in it share; the rest are zeros.
    pub(crate) prefix: u64,
    /// How many top bits those are.
    pub(crate) depth: u32,
    /// Rows that hold something.
    pub(crate) live: u32,
    /// Rows that are not empty: live and deleted.
    pub(crate) used: u32,
    source: Source,
    /// The epoch in which a row of it was last written.
    pub(crate) written: u16,
    /// The epoch whose snapshot has read it, or has no need to.
    pub(crate) read: u16,
    /// The epoch whose snapshot has copies of its rows, and the last of these.
    pub(crate) saved_in: u16,
    pub(crate) saved: u32,
    /// While a table is restored: all rows from the first index up to the second, without that, are occupied.
    pub(crate) run: (u32, u32),
}

const _: () = assert!(size_of::<SegmentHeader>() == HEADER_BYTES);

/// Where a segment lies.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentRef {
    /// Address of the rows, and in the bits that alignment leaves free 32 less the logarithm of their number.
    rows: *mut u8,
    header: *mut SegmentHeader,
}

/// Rows, as a power of two, at which segments of such rows split.
pub(crate) fn regular_rows_log2<K: Record, V: Record>(max_segment_rows: u32) -> u32 {
    let fitting = (REGULAR_BYTES / Layout::<K, V>::BYTES).max(1).ilog2();
    max_segment_rows.max(1).ilog2().min(fitting).max(MIN_ROWS_LOG2)
}

/// Memory of a segment with that many rows. Where rows share lines, a line of zeros follows them: the line after the last may
/// be looked at as if a row began there.
pub(crate) const fn segment_bytes<K: Record, V: Record>(rows_log2: u32) -> usize {
    let zeros = if Layout::<K, V>::SHARES_LINES { CACHE_LINE_BYTES } else { 0 };
    (HEADER_BYTES + (Layout::<K, V>::BYTES << rows_log2) + zeros).next_multiple_of(SEGMENT_ALIGN)
}

impl SegmentRef {
    /// A new, empty segment for an interval of positions, which no snapshot of this epoch or before has to read.
    ///
    /// # Panics
    /// Where more rows are asked for than a segment can have: over a billion keys of one hash.
    pub(crate) fn new<K: Record, V: Record>(
        arena: &mut SegmentArena,
        rows_log2: u32,
        (prefix, depth): (u64, u32),
        epoch: u16,
    ) -> Self {
        assert!(rows_log2 <= MAX_ROWS_LOG2, "too many keys share one hash: use a key with more than one value in it");
        let SegmentMemory { header: at, rows, source } = arena.allocate(segment_bytes::<K, V>(rows_log2));
        let at = at.cast::<SegmentHeader>();
        let header = SegmentHeader {
            prefix,
            depth,
            live: 0,
            used: 0,
            source,
            written: epoch,
            read: epoch,
            saved_in: epoch,
            saved: 0,
            run: (0, 0),
        };
        // SAFETY: there is room for a header, aligned to a cache line.
        unsafe { at.write(header) };
        Self { rows: rows.map_addr(|address| address | (32 - rows_log2) as usize), header: at }
    }

    /// Gives the memory back.
    ///
    /// # Safety
    /// The segment must be of this arena and not be used again; so must no copy of this value.
    pub(crate) unsafe fn release<K: Record, V: Record>(self, arena: &mut SegmentArena) {
        // SAFETY: the caller says that the segment is the arena's and not used again.
        unsafe {
            arena.release(self.memory(), segment_bytes::<K, V>(self.rows_log2()));
        }
    }

    /// As [`Self::release`], where all of the arena's memory is about to go. True if this segment's has gone at once.
    ///
    /// # Safety
    /// As for [`Self::release`].
    pub(crate) unsafe fn dissolve<K: Record, V: Record>(self, arena: &mut SegmentArena) -> bool {
        // SAFETY: the caller says that the segment is the arena's and not used again.
        unsafe {
            let memory = self.memory();
            memory.source == Source::Heap && {
                arena.dissolve(memory, segment_bytes::<K, V>(self.rows_log2()));
                true
            }
        }
    }

    /// # Safety
    /// The segment must be alive.
    unsafe fn memory(self) -> SegmentMemory {
        // SAFETY: as promised by the caller.
        let source = unsafe { (*self.header).source };
        SegmentMemory { header: self.header.cast(), rows: self.first_row(), source }
    }

    #[inline(always)]
    fn first_row(self) -> *mut u8 {
        self.rows.map_addr(|address| address & !(SEGMENT_ALIGN - 1))
    }

    /// Rows, as a power of two.
    #[inline(always)]
    pub(crate) fn rows_log2(self) -> u32 {
        32 - self.rows_shift()
    }

    #[inline(always)]
    fn rows_shift(self) -> u32 {
        (self.rows.addr() & (SEGMENT_ALIGN - 1)) as u32
    }

    /// Address of the header.
    #[inline(always)]
    pub(crate) const fn header(self) -> *mut SegmentHeader {
        self.header
    }

    /// The rows.
    ///
    /// # Safety
    /// The segment must be alive, and have been made for the same types.
    #[inline(always)]
    pub(crate) unsafe fn rows<K: Record, V: Record>(self) -> Rows<K, V> {
        // SAFETY: as promised by the caller, that many rows lie there.
        unsafe { Rows::new(self.first_row(), self.rows_shift()) }
    }

    /// How many rows may be used: three quarters.
    #[inline(always)]
    pub(crate) fn limit(self) -> u32 {
        (3u64 << self.rows_log2() >> 2) as u32
    }
}
