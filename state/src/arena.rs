//! Memory of segments: small ones from the allocator, regular ones of a large table cut from huge pages.
//!
//! Of those that are cut from a mapping the headers lie together at its begin. Whoever changes rows here and there changes
//! headers too while a snapshot runs: apart, each would have a page of its own, whose address is yet to be translated.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

use crate::memory::{HUGE_PAGE_BYTES, Mapping};

/// Alignment of headers and rows: a cache line.
pub(crate) const SEGMENT_ALIGN: usize = 64;
/// Room for a header: a cache line.
pub(crate) const HEADER_BYTES: usize = SEGMENT_ALIGN;
/// A table's first memory comes from the allocator, so that small tables stay small.
const HEAP_FIRST_BYTES: usize = 1 << 20;
/// Bounds of the mappings that regular segments are cut from.
const MAPPING_BYTES: std::ops::RangeInclusive<usize> = HUGE_PAGE_BYTES..=64 << 20;

/// Where a segment's memory is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Source {
    /// The allocator.
    Heap,
    /// Cut from a mapping; all such segments are of one size.
    Cut,
}

/// The memory of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentMemory {
    /// [`HEADER_BYTES`], in front of the rows where it is the allocator's.
    pub(crate) header: *mut u8,
    /// The rest.
    pub(crate) rows: *mut u8,
    pub(crate) source: Source,
}

/// Hands out and takes back the memory of one table's segments.
pub(crate) struct SegmentArena {
    /// Size of the segments that a large table consists of.
    regular_bytes: usize,
    mappings: Vec<Mapping>,
    /// Where headers and rows of the last mapping go on, and for how many segments.
    next_header: *mut u8,
    next_rows: *mut u8,
    left: usize,
    /// Released segments of the regular size.
    free: Vec<SegmentMemory>,
    held_bytes: usize,
}

impl SegmentArena {
    /// An arena that holds no memory yet.
    pub(crate) const fn new(regular_bytes: usize) -> Self {
        Self {
            regular_bytes,
            mappings: Vec::new(),
            next_header: std::ptr::null_mut(),
            next_rows: std::ptr::null_mut(),
            left: 0,
            free: Vec::new(),
            held_bytes: 0,
        }
    }

    /// Bytes of the segments handed out, and of those kept for reuse.
    pub(crate) const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Memory of `bytes`, a multiple of the alignment, header included. All but the header is zeroed.
    pub(crate) fn allocate(&mut self, bytes: usize) -> SegmentMemory {
        if bytes == self.regular_bytes {
            if let Some(free) = self.free.pop() {
                // SAFETY: a free segment of the regular size, unused by anyone.
                unsafe { free.rows.write_bytes(0, bytes - HEADER_BYTES) };
                return free;
            }
            if self.held_bytes >= HEAP_FIRST_BYTES {
                return self.cut();
            }
        }
        let layout = layout(bytes);
        // SAFETY: segments are never of size zero.
        let header = unsafe { alloc_zeroed(layout) };
        if header.is_null() {
            handle_alloc_error(layout);
        }
        self.held_bytes += bytes;
        // SAFETY: the segment is longer than its header.
        SegmentMemory { header, rows: unsafe { header.add(HEADER_BYTES) }, source: Source::Heap }
    }

    /// # Safety
    /// `memory` must be from [`Self::allocate`] of this arena with the same `bytes`, and not be used again.
    pub(crate) unsafe fn release(&mut self, memory: SegmentMemory, bytes: usize) {
        if bytes == self.regular_bytes {
            self.free.push(memory);
            return;
        }
        // SAFETY: as promised by the caller; only regular segments are cut.
        unsafe { self.dissolve(memory, bytes) };
    }

    /// Gives the memory of a segment from the allocator back.
    ///
    /// # Safety
    /// As for [`Self::release`], with [`Source::Heap`].
    pub(crate) unsafe fn dissolve(&mut self, memory: SegmentMemory, bytes: usize) {
        self.held_bytes -= bytes;
        // SAFETY: allocated with this layout, as the caller promises.
        unsafe { dealloc(memory.header, layout(bytes)) };
    }

    /// Gives some of the memory back of an arena that nobody uses any more. False once there is none left.
    ///
    /// # Safety
    /// No segment of this arena may be in use.
    pub(crate) unsafe fn release_some(&mut self) -> bool {
        while let Some(free) = self.free.pop() {
            if free.source == Source::Heap {
                // SAFETY: a regular segment from the allocator, which nobody uses.
                unsafe { self.dissolve(free, self.regular_bytes) };
                return true;
            }
            self.held_bytes -= self.regular_bytes;
        }
        let Some(mapping) = self.mappings.last_mut() else { return false };
        // SAFETY: as promised by the caller, and the mapping is released from its end.
        if !unsafe { mapping.shrink() } {
            self.mappings.pop();
        }
        true
    }

    /// Gives all memory back.
    ///
    /// # Safety
    /// No segment of this arena may be in use.
    pub(crate) unsafe fn clear(&mut self) {
        for free in std::mem::take(&mut self.free) {
            if free.source == Source::Heap {
                // SAFETY: a regular segment from the allocator, which nobody uses.
                unsafe { self.dissolve(free, self.regular_bytes) };
            }
        }
        *self = Self::new(self.regular_bytes);
    }

    fn cut(&mut self) -> SegmentMemory {
        let rows_bytes = self.regular_bytes - HEADER_BYTES;
        if self.left == 0 {
            let wanted = (self.held_bytes / 4).clamp(*MAPPING_BYTES.start(), *MAPPING_BYTES.end());
            let mapping = Mapping::between(self.regular_bytes, wanted.max(self.regular_bytes));
            self.left = mapping.bytes() / self.regular_bytes;
            self.next_header = mapping.start().as_ptr();
            // SAFETY: the mapping has room for so many headers, and for as many times the rows of a segment.
            self.next_rows = unsafe { self.next_header.add(self.left * HEADER_BYTES) };
            self.mappings.push(mapping);
        }
        let (header, rows) = (self.next_header, self.next_rows);
        // SAFETY: header and rows of a segment are left of the mapping, at least.
        unsafe {
            if !self.mappings.last().is_none_or(Mapping::is_zeroed) {
                // Segment by segment, as the system would page by page.
                rows.write_bytes(0, rows_bytes);
            }
            self.next_header = header.add(HEADER_BYTES);
            self.next_rows = rows.add(rows_bytes);
        }
        self.left -= 1;
        self.held_bytes += self.regular_bytes;
        SegmentMemory { header, rows, source: Source::Cut }
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, SEGMENT_ALIGN).expect("segments are far smaller than the address space")
}
