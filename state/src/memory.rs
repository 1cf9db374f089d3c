//! Memory straight from the kernel: zeroed, aligned to 2 MiB, in huge pages where the system has them.

use std::ptr::NonNull;

/// Size and alignment of a huge page.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// An anonymous mapping, unmapped when dropped.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is plain memory that this value alone owns.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Zeroed memory of `bytes`, rounded up to whole huge pages.
    ///
    /// # Panics
    /// Where the system has no memory left to map.
    pub(crate) fn new(bytes: usize) -> Self {
        let bytes = bytes.next_multiple_of(HUGE_PAGE_BYTES);
        let reserved = bytes + HUGE_PAGE_BYTES;
        // SAFETY: a fresh anonymous private mapping touches nothing that exists.
        let raw = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                reserved,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert!(
            raw != libc::MAP_FAILED,
            "no memory for {bytes} bytes of keyed state ({}): give the process more memory or more slots",
            std::io::Error::last_os_error()
        );
        let raw = raw.cast::<u8>();
        let head = raw.align_offset(HUGE_PAGE_BYTES);
        // SAFETY: the mapping is a huge page longer than needed, so the aligned part and both trimmed ends lie in it.
        let start = unsafe {
            let start = raw.add(head);
            if head > 0 {
                libc::munmap(raw.cast(), head);
            }
            let tail = reserved - head - bytes;
            if tail > 0 {
                libc::munmap(start.add(bytes).cast(), tail);
            }
            // Advice only: where it is refused the memory has small pages.
            libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE);
            start
        };
        Self { start: NonNull::new(start).expect("mmap does not answer null"), bytes }
    }

    /// Its first byte.
    pub(crate) const fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Gives the last huge page back, unless it is the only one left. False in that case.
    ///
    /// # Safety
    /// Nobody may use that page any more.
    pub(crate) unsafe fn shrink(&mut self) -> bool {
        if self.bytes <= HUGE_PAGE_BYTES {
            return false;
        }
        self.bytes -= HUGE_PAGE_BYTES;
        // SAFETY: the end of this value's own range, which nobody uses any more, as the caller promises.
        unsafe { libc::munmap(self.start.as_ptr().add(self.bytes).cast(), HUGE_PAGE_BYTES) };
        true
    }

    /// Its length.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this value's own, and nobody uses it after the owner is gone.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_mapped_then_memory_is_aligned_and_zeroed() {
        let mapping = Mapping::new(3 << 20);
        assert_eq!(mapping.bytes(), 4 << 20);
        assert_eq!(mapping.start().as_ptr() as usize % HUGE_PAGE_BYTES, 0);
        // SAFETY: the last byte is inside the mapping.
        assert_eq!(unsafe { mapping.start().as_ptr().add(mapping.bytes() - 1).read() }, 0);
    }
}
