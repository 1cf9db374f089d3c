//! Handing an image over: what has been begun and is not through yet, and the slice of time and room there is.

use crate::{
    ahead::CACHE_LINE_BYTES,
    slab::{Handle, Slab},
    tail::{Piece, Tail, TailState},
};

/// Most bytes of one block that are copied in one go.
pub(crate) const COPY_BYTES: usize = 16 << 10;

/// Estimated costs in nanoseconds: of a block, which is far from the one before, and of each cache line at its begin,
/// after which the processor fetches ahead; of a row that is not read together with others; of copying.
const BLOCK_NS: i64 = 25;
const BLOCK_LINE_NS: i64 = 25;
const BLOCK_LINES: i64 = 8;
const CARRY_ROW_NS: i64 = 5;
pub(crate) const ROW_READ_NS: i64 = 5;
pub(crate) const BYTES_PER_NS: i64 = 8;

/// What reading a block costs beside copying it.
const fn block_ns(handle: Handle) -> i64 {
    let lines = handle.len as i64 / CACHE_LINE_BYTES as i64;
    BLOCK_NS + BLOCK_LINE_NS * if lines < BLOCK_LINES { lines } else { BLOCK_LINES }
}

/// Where bytes go, and how much work may still be done.
pub(crate) struct Slice<'a> {
    pub(crate) room: &'a mut [u8],
    pub(crate) used: usize,
    pub(crate) left_ns: i64,
}

impl<'a> Slice<'a> {
    pub(crate) fn new(room: &'a mut [u8], left_ns: i64) -> Self {
        Self { room, used: 0, left_ns }
    }

    /// Copies as many of the bytes as there is room for. Answers how many.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room.len() - self.used);
        self.room[self.used..self.used + count].copy_from_slice(&bytes[..count]);
        self.used += count;
        self.left_ns -= count as i64 / BYTES_PER_NS;
        count
    }

    /// Copies a block, if there is room for all of it and it is short. False if not.
    ///
    /// # Safety
    /// `handle` must be a live block of this slab.
    #[inline(always)]
    pub(crate) unsafe fn put_block(&mut self, slab: &Slab, handle: Handle) -> bool {
        let len = handle.len as usize;
        let Some(to) = self.room[self.used..].get_mut(..len).filter(|_| len <= COPY_BYTES) else { return false };
        // SAFETY: as promised by the caller.
        to.copy_from_slice(unsafe { slab.read(handle) });
        self.used += len;
        self.left_ns -= block_ns(handle) + len as i64 / BYTES_PER_NS;
        true
    }
}

/// What has been begun and not handed over completely.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) carry: Vec<u8>,
    pub(crate) carry_at: usize,
    /// A block, whether it is of the table's own slab, and how much of it has been handed over.
    pub(crate) block: Option<(Handle, bool, usize)>,
    pub(crate) key: Option<Handle>,
    pub(crate) tail: Option<TailState>,
}

impl Pending {
    /// Whether everything that has been begun has been handed over.
    pub(crate) const fn is_empty(&self) -> bool {
        self.carry.is_empty() && self.key.is_none() && self.block.is_none() && self.tail.is_none()
    }

    /// Hands over what has been begun. True when that is all.
    pub(crate) fn flush<T: Tail>(&mut self, own: &Slab, tail: &T, slice: &mut Slice<'_>) -> bool {
        let pending = self;
        loop {
            if !pending.carry.is_empty() {
                pending.carry_at += slice.put(&pending.carry[pending.carry_at..]);
                if pending.carry_at < pending.carry.len() {
                    return false;
                }
                pending.carry.clear();
                pending.carry_at = 0;
            }
            if let Some((handle, is_own, at)) = &mut pending.block {
                let slab = if *is_own { own } else { tail.slab().unwrap_or(own) };
                // SAFETY: blocks of rows that are part of the image are kept until they have been handed over.
                let bytes = unsafe { &slab.read(*handle)[*at..] };
                let count = slice.put(&bytes[..bytes.len().min(COPY_BYTES)]);
                *at += count;
                if count < bytes.len() {
                    if slice.left_ns <= 0 || slice.used == slice.room.len() {
                        return false;
                    }
                    continue;
                }
                pending.block = None;
            }
            if let Some(key) = pending.key.take() {
                slice.left_ns -= block_ns(key);
                pending.block = Some((key, true, 0));
                continue;
            }
            let Some(state) = &mut pending.tail else { return true };
            // Long lists and maps are read in slices too.
            if slice.left_ns <= 0 {
                return false;
            }
            match tail.next(state, own, &mut pending.carry) {
                Piece::Carry(rows) => slice.left_ns -= rows as i64 * CARRY_ROW_NS,
                Piece::Block(handle, from) => {
                    slice.left_ns -= block_ns(handle);
                    pending.block = Some((handle, false, from));
                }
                Piece::End => pending.tail = None,
            }
            slice.left_ns -= ROW_READ_NS;
        }
    }
}
