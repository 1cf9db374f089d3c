//! What a running snapshot keeps for itself: rows as they were at the barrier, and blocks that are freed meanwhile.
//!
//! Both grow by pieces of fixed size, so that no push ever moves what is there.

use std::alloc::{Layout as Memory, alloc, dealloc, handle_alloc_error};

use crate::{
    slab::{Handle, Slab},
    snapshot::Progress,
    sweep::FREE_NS,
};

/// Bytes of a piece, unless one row is larger.
const PIECE_BYTES: usize = 64 << 10;
/// Alignment of every row: the largest there is.
const ROW_ALIGN: usize = 16;
/// Handles in a piece of a [`Limbo`].
const LIMBO_PIECE: usize = 8 << 10;

/// Copies of rows, in chains: each knows the one before it.
pub(crate) struct SavedRows {
    row_bytes: usize,
    stride: usize,
    per_piece: u32,
    pieces: Vec<*mut u8>,
    count: u32,
}

// SAFETY: the pieces are plain memory that this value alone owns.
unsafe impl Send for SavedRows {}

impl SavedRows {
    /// No rows, of so many bytes each. Takes no memory.
    pub(crate) fn new(row_bytes: usize) -> Self {
        let stride = (row_bytes + size_of::<u32>()).next_multiple_of(ROW_ALIGN);
        Self { row_bytes, stride, per_piece: (PIECE_BYTES / stride).max(1) as u32, pieces: Vec::new(), count: 0 }
    }

    /// Memory held, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.pieces.len() * self.memory().size()
    }

    /// Copies a row, and answers its number, never 0. `before` is the number of the row before it in its chain, or 0.
    ///
    /// # Safety
    /// `row` must be valid for reading a row's bytes.
    pub(crate) unsafe fn push(&mut self, row: *const u8, before: u32) -> u32 {
        if self.count as usize == self.pieces.len() * self.per_piece as usize {
            self.add_piece();
        }
        let to = self.address(self.count);
        // SAFETY: there is room for a row and a number at every address below the count of rows that the pieces hold.
        unsafe {
            to.copy_from_nonoverlapping(row, self.row_bytes);
            to.add(self.row_bytes).cast::<u32>().write_unaligned(before);
        }
        self.count = self.count.checked_add(1).expect("a table has fewer than 2^32 rows");
        self.count
    }

    /// Address of a row, aligned to 16, and the number of the one before it in its chain. The row stays where it is.
    pub(crate) fn get(&self, number: u32) -> (*mut u8, u32) {
        assert!(number > 0 && number <= self.count);
        let row = self.address(number - 1);
        // SAFETY: a row that was pushed is followed by a number.
        (row, unsafe { row.add(self.row_bytes).cast::<u32>().read_unaligned() })
    }

    /// Gives back one piece of the memory, all rows being done with. False once there is none left.
    pub(crate) fn release_piece(&mut self) -> bool {
        self.count = 0;
        let Some(piece) = self.pieces.pop() else { return false };
        // SAFETY: the piece was allocated with this layout, and its rows are gone.
        unsafe { dealloc(piece, self.memory()) };
        true
    }

    fn memory(&self) -> Memory {
        Memory::from_size_align(self.stride * self.per_piece as usize, ROW_ALIGN).expect("rows are small")
    }

    fn address(&self, index: u32) -> *mut u8 {
        let piece = self.pieces[(index / self.per_piece) as usize];
        // SAFETY: a piece holds `per_piece` strides.
        unsafe { piece.add((index % self.per_piece) as usize * self.stride) }
    }

    #[cold]
    fn add_piece(&mut self) {
        // SAFETY: the layout is not of size zero.
        let piece = unsafe { alloc(self.memory()) };
        if piece.is_null() {
            handle_alloc_error(self.memory());
        }
        self.pieces.push(piece);
    }
}

impl Drop for SavedRows {
    fn drop(&mut self) {
        while self.release_piece() {}
    }
}

/// Blocks that nobody needs but the snapshot.
#[derive(Default)]
pub(crate) struct Limbo {
    pieces: Vec<Vec<Handle>>,
}

impl Limbo {
    /// Keeps a block until [`Self::release`].
    pub(crate) fn push(&mut self, handle: Handle) {
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < LIMBO_PIECE => piece.push(handle),
            _ => {
                let mut piece = Vec::with_capacity(LIMBO_PIECE);
                piece.push(handle);
                self.pieces.push(piece);
            }
        }
    }

    /// Memory held, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.pieces.len() * LIMBO_PIECE * size_of::<Handle>()
    }

    /// Frees up to `count` of the blocks. Answers how many.
    ///
    /// # Safety
    /// The blocks must be live ones of this slab that nothing refers to.
    pub(crate) unsafe fn release(&mut self, slab: &mut Slab, count: usize) -> usize {
        let mut freed = 0;
        while freed < count {
            let Some(piece) = self.pieces.last_mut() else { break };
            match piece.pop() {
                // SAFETY: as promised by the caller; the handle is gone from here.
                Some(handle) => unsafe { slab.free(handle) },
                None => {
                    self.pieces.pop();
                    continue;
                }
            }
            freed += 1;
        }
        if self.pieces.last().is_some_and(Vec::is_empty) {
            self.pieces.pop();
        }
        freed
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Forgets the blocks: their slab is gone.
    pub(crate) fn forget(&mut self) {
        self.pieces = Vec::new();
    }
}

/// What a table of lists or maps keeps of its own slab for a running snapshot.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) limbo: Limbo,
    /// The slab of the barrier, once the table has been emptied as a whole.
    pub(crate) detached: Option<Slab>,
}

impl Kept {
    /// Memory held, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.limbo.held_bytes() + self.detached.as_ref().map_or(0, Slab::held_bytes)
    }

    /// Whether there is nothing to give back.
    pub(crate) fn is_empty(&self) -> bool {
        self.limbo.is_empty() && self.detached.is_none()
    }

    /// Takes the slab of a table that is emptied, if the snapshot still reads it, and answers the one to go on with.
    pub(crate) fn emptied(&mut self, slab: &mut Slab, is_being_read: bool) {
        let old = std::mem::replace(slab, Slab::new());
        if is_being_read {
            self.detached = Some(old);
        } else if self.detached.is_none() {
            self.limbo.forget();
        }
    }

    /// Gives back at once all that an earlier snapshot kept: it is of no use any more.
    pub(crate) fn release_rest(&mut self, slab: &mut Slab) {
        while self.release(slab, Progress::Done, u32::MAX) != Progress::Done {}
    }

    /// Gives back what was kept, once the rows are `Done`, as far as the budget reaches.
    pub(crate) fn release(&mut self, slab: &mut Slab, rows: Progress, budget_ns: u32) -> Progress {
        if rows != Progress::Done {
            return rows;
        }
        if self.detached.take().is_some() {
            self.limbo.forget();
        }
        let count = (budget_ns / FREE_NS as u32).max(1) as usize;
        // SAFETY: the blocks are of this slab, and the image that needed them is complete or given up.
        unsafe { self.limbo.release(slab, count) };
        if self.limbo.is_empty() { Progress::Done } else { Progress::More }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_rows_are_saved_then_each_can_be_read_back_and_knows_the_one_before() {
        for bytes in [8, 24, 200, 100_000] {
            let mut rows = SavedRows::new(bytes);
            for n in 0..5000u32.min(10_000_000 / bytes as u32) {
                let row = vec![n as u8; bytes];
                // SAFETY: the vector is of a row's size.
                let number = unsafe { rows.push(row.as_ptr(), n) };
                assert_eq!(number, n + 1);
            }
            for number in 1..=rows.count {
                let (row, before) = rows.get(number);
                assert_eq!((row as usize % 16, before), (0, number - 1));
                // SAFETY: the row is of that many bytes.
                let bytes = unsafe { std::slice::from_raw_parts(row, bytes) };
                assert!(bytes.iter().all(|&byte| byte == (number - 1) as u8));
            }
            while rows.release_piece() {}
            assert_eq!(rows.held_bytes(), 0);
        }
    }

    #[test]
    fn when_blocks_are_kept_then_they_are_freed_in_portions() {
        let mut slab = Slab::new();
        let mut limbo = Limbo::default();
        for _ in 0..20_000 {
            limbo.push(slab.store(&[1; 40]));
        }
        // SAFETY: the blocks are live, and nobody else knows them.
        let freed: Vec<usize> = (0..4).map(|_| unsafe { limbo.release(&mut slab, 9000) }).collect();
        assert_eq!((freed, slab.live_bytes(), limbo.held_bytes()), (vec![9000, 9000, 2000, 0], 0, 0));
    }
}
