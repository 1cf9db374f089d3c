//! The buffers of a writer: one mapping, cut into blocks that start on a page boundary.
//!
//! A buffer is owned by whoever holds it: the free list, a stream that fills it, or an operation in flight.

use std::{
    io,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::Arc,
};

use crate::checkpoint::limits::PAGE_BYTES;

/// The mapping. Lives until the last buffer of it is gone.
struct Region {
    base: NonNull<u8>,
    bytes: usize,
    block_bytes: usize,
}

// SAFETY: the region only owns the mapping. Its bytes are reached through buffers, each of which exists once.
unsafe impl Send for Region {}
// SAFETY: as above; a shared region gives out nothing but its address.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `map_buffers`, and every buffer, which alone can reach it, holds the region.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// One block of memory, aligned to a page.
pub(crate) struct Buffer {
    region: Arc<Region>,
    index: u16,
}

impl Buffer {
    /// Its place among the buffers of the mapping, as registered with the ring.
    pub(crate) fn index(&self) -> u16 {
        self.index
    }

    fn start(&self) -> NonNull<u8> {
        // SAFETY: `map_buffers` makes only indices whose block lies in the mapping.
        unsafe { self.region.base.add(self.index as usize * self.region.block_bytes) }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the block lies in the mapping, was zeroed by the system, and only this buffer has this index.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.region.block_bytes) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`; the exclusive borrow of the only buffer with this index makes the bytes exclusive. The
        // kernel reads them while a write is in flight, but then the buffer is part of that operation.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.region.block_bytes) }
    }
}

/// Maps `count` buffers of `block_bytes`, a multiple of the page size.
pub(crate) fn map_buffers(block_bytes: usize, count: u16) -> io::Result<Vec<Buffer>> {
    assert!(block_bytes.is_multiple_of(PAGE_BYTES) && block_bytes > 0 && count > 0);
    let bytes = block_bytes * count as usize;
    // SAFETY: a new private mapping at an address of the system's choice touches no existing memory.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
    // SAFETY: the range is the mapping. An error means that there are no huge pages; small ones do.
    unsafe { libc::madvise(base.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
    let region = Arc::new(Region { base, bytes, block_bytes });
    Ok((0..count).map(|index| Buffer { region: Arc::clone(&region), index }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_mapped_then_buffers_are_aligned_and_apart_and_outlive_each_other() {
        let mut buffers = map_buffers(8192, 3).unwrap();
        for (value, buffer) in (1..).zip(&mut buffers) {
            assert!(buffer.as_ptr().addr().is_multiple_of(PAGE_BYTES) && buffer.len() == 8192);
            assert!(buffer.iter().all(|byte| *byte == 0));
            buffer.fill(value);
        }
        let last = buffers.pop().unwrap();
        assert!(buffers[0].iter().all(|byte| *byte == 1) && buffers[1].iter().all(|byte| *byte == 2));
        drop(buffers);
        assert!(last.iter().all(|byte| *byte == 3) && last.index() == 2);
    }
}
