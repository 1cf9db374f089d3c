//! Zeroed memory in huge pages where the system has them.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Size and alignment of a huge page.
const HUGE_BYTES: usize = 2 << 20;

/// A type of which all zeros are a value, and every bit pattern is one.
///
/// # Safety
/// As said.
pub unsafe trait Plain: Copy {}

// SAFETY: integers.
unsafe impl Plain for u64 {}
// SAFETY: bytes.
unsafe impl Plain for u8 {}

/// A fixed number of values in memory aligned to huge pages, touched before it is handed out.
pub struct HugeSlice<T: Plain> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: plain values that this alone owns.
unsafe impl<T: Plain + Send> Send for HugeSlice<T> {}

impl<T: Plain> HugeSlice<T> {
    /// `len` zeroed values.
    ///
    /// # Panics
    /// Where `len` is 0, or beyond the address space.
    pub fn new(len: usize) -> Self {
        Self::try_new(len).unwrap_or_else(|| handle_alloc_error(Self::layout(len)))
    }

    /// As [`new`](Self::new); `None` where the system does not give so much.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn try_new(len: usize) -> Option<Self> {
        assert!(len > 0, "no memory of no size");
        let layout = Self::layout(len);
        // Not zeroed yet: with such an alignment the allocator would touch it, page by small page, before the advice.
        // SAFETY: the layout has a size.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        // SAFETY: the range is this allocation. The first advice drops pages that are left of an earlier use. Either may be
        // refused; then the pages are small. Touching every page afterwards makes none of them cost anything later.
        unsafe {
            libc::madvise(start.as_ptr().cast(), layout.size(), libc::MADV_DONTNEED);
            libc::madvise(start.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE);
            start.as_ptr().write_bytes(0, layout.size());
        }
        Some(Self { start: start.cast(), len })
    }

    fn layout(len: usize) -> Layout {
        let bytes = len.checked_mul(size_of::<T>()).expect("a size within the address space");
        Layout::from_size_align(bytes.next_multiple_of(HUGE_BYTES), HUGE_BYTES)
            .expect("a size within the address space")
    }

    /// The values.
    #[inline(always)]
    pub fn as_slice(&self) -> &[T] {
        // SAFETY: `len` values live there, any bits are one.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The values, to be changed.
    #[inline(always)]
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        // SAFETY: as above, and they are borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> Drop for HugeSlice<T> {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`.
        unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.len)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_the_system_does_not_give_so_much_then_there_is_none() {
        assert!(HugeSlice::<u64>::try_new(1 << 56).is_none());
    }

    #[test]
    fn when_made_then_it_is_zeroed_and_aligned() {
        let mut slice = HugeSlice::<u64>::new(1000);
        assert_eq!(slice.as_slice().iter().sum::<u64>(), 0);
        assert!(slice.as_slice().as_ptr().addr().is_multiple_of(HUGE_BYTES));
        slice.as_mut_slice()[999] = 7;
        assert_eq!(slice.as_slice()[999], 7);
    }
}
