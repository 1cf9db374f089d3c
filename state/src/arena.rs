//! Memory of segments: small ones from the allocator, regular ones of a large table cut from huge pages.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};

use crate::memory::{HUGE_PAGE_BYTES, Mapping};

/// Alignment of every segment: a cache line.
pub(crate) const SEGMENT_ALIGN: usize = 64;
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

/// Hands out and takes back the memory of one table's segments.
pub(crate) struct SegmentArena {
    /// Size of the segments that a large table consists of.
    regular_bytes: usize,
    mappings: Vec<Mapping>,
    /// Where the last mapping goes on, and how much is left of it.
    next: *mut u8,
    left_bytes: usize,
    /// Released segments of the regular size.
    free: Vec<(*mut u8, Source)>,
    held_bytes: usize,
}

impl SegmentArena {
    /// An arena that holds no memory yet.
    pub(crate) const fn new(regular_bytes: usize) -> Self {
        Self {
            regular_bytes,
            mappings: Vec::new(),
            next: std::ptr::null_mut(),
            left_bytes: 0,
            free: Vec::new(),
            held_bytes: 0,
        }
    }

    /// Bytes of the segments handed out, and of those kept for reuse.
    pub(crate) const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Zeroed memory of `bytes`, a multiple of the alignment.
    pub(crate) fn allocate(&mut self, bytes: usize) -> (*mut u8, Source) {
        if bytes == self.regular_bytes {
            if let Some((start, source)) = self.free.pop() {
                // SAFETY: a free segment of the regular size, unused by anyone.
                unsafe { start.write_bytes(0, bytes) };
                return (start, source);
            }
            if self.held_bytes >= HEAP_FIRST_BYTES {
                return (self.cut(), Source::Cut);
            }
        }
        let layout = layout(bytes);
        // SAFETY: segments are never of size zero.
        let start = unsafe { alloc_zeroed(layout) };
        if start.is_null() {
            handle_alloc_error(layout);
        }
        self.held_bytes += bytes;
        (start, Source::Heap)
    }

    /// # Safety
    /// `start` must be from [`Self::allocate`] of this arena with the same `bytes` and answer, and not be used again.
    pub(crate) unsafe fn release(&mut self, start: *mut u8, bytes: usize, source: Source) {
        if bytes == self.regular_bytes {
            self.free.push((start, source));
            return;
        }
        // SAFETY: as promised by the caller; only regular segments are cut.
        unsafe { self.dissolve(start, bytes) };
    }

    /// Gives the memory of a segment from the allocator back.
    ///
    /// # Safety
    /// As for [`Self::release`], with [`Source::Heap`].
    pub(crate) unsafe fn dissolve(&mut self, start: *mut u8, bytes: usize) {
        self.held_bytes -= bytes;
        // SAFETY: allocated with this layout, as the caller promises.
        unsafe { dealloc(start, layout(bytes)) };
    }

    /// Gives some of the memory back of an arena that nobody uses any more. False once there is none left.
    ///
    /// # Safety
    /// No segment of this arena may be in use.
    pub(crate) unsafe fn release_some(&mut self) -> bool {
        while let Some((start, source)) = self.free.pop() {
            self.held_bytes -= self.regular_bytes;
            if source == Source::Heap {
                // SAFETY: a regular segment from the allocator, which nobody uses.
                unsafe { dealloc(start, layout(self.regular_bytes)) };
                return true;
            }
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
        for (start, source) in self.free.drain(..) {
            if source == Source::Heap {
                // SAFETY: a regular segment from the allocator, which nobody uses.
                unsafe { dealloc(start, layout(self.regular_bytes)) };
            }
        }
        *self = Self::new(self.regular_bytes);
    }

    fn cut(&mut self) -> *mut u8 {
        if self.left_bytes < self.regular_bytes {
            let wanted = (self.held_bytes / 4).clamp(*MAPPING_BYTES.start(), *MAPPING_BYTES.end());
            let mapping = Mapping::between(self.regular_bytes, wanted.max(self.regular_bytes));
            self.next = mapping.start().as_ptr();
            self.left_bytes = mapping.bytes();
            self.mappings.push(mapping);
        }
        let start = self.next;
        if !self.mappings.last().is_none_or(Mapping::is_zeroed) {
            // Segment by segment, as the system would page by page.
            // SAFETY: at least `regular_bytes` are left of the mapping.
            unsafe { start.write_bytes(0, self.regular_bytes) };
        }
        // SAFETY: as above.
        self.next = unsafe { start.add(self.regular_bytes) };
        self.left_bytes -= self.regular_bytes;
        self.held_bytes += self.regular_bytes;
        start
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, SEGMENT_ALIGN).expect("segments are far smaller than the address space")
}
