//! Rows as they were at the barrier of a running snapshot, which have changed since.
//!
//! They are kept in pieces of fixed size, so that no push ever moves what is there. Their memory is kept from snapshot
//! to snapshot, as far as the last one needed it: taking it anew costs more than the copying.

use std::alloc::{Layout as Memory, alloc, dealloc, handle_alloc_error};

use crate::ahead::{CACHE_LINE_BYTES, prefetch_block};

/// Bytes of a piece, unless one block is larger.
const PIECE_BYTES: usize = 64 << 10;
/// Most bytes of the rows of a block, unless one row is larger, and most rows of one.
const BLOCK_BYTES: usize = 512;
const MAX_BLOCK_ROWS: usize = 16;
/// What a block begins with, the number of the row before its first, and the largest alignment of a row.
const BLOCK_HEADER_BYTES: usize = 16;

/// Copies of rows, in chains: each knows the one before it.
///
/// A chain is one of blocks, so that most of it lies together and is read as fast as memory gives it: rows are copied
/// in the order in which they are changed, which for those of one chain are far apart.
pub(crate) struct SavedRows {
    row_bytes: usize,
    /// Rows of a block, and blocks of a piece, as powers of two.
    rows_log2: u32,
    blocks_log2: u32,
    pieces: Vec<*mut u8>,
    /// How many blocks have rows.
    blocks: u32,
}

// SAFETY: the pieces are plain memory that this value alone owns.
unsafe impl Send for SavedRows {}

impl SavedRows {
    /// No rows, of so many bytes each, a multiple of their alignment, whose chains are about so long. Takes no memory.
    pub(crate) fn new(row_bytes: usize, chain_rows: usize) -> Self {
        let rows_log2 = (BLOCK_BYTES / row_bytes).min(chain_rows).clamp(1, MAX_BLOCK_ROWS).ilog2();
        let mut rows = Self { row_bytes, rows_log2, blocks_log2: 0, pieces: Vec::new(), blocks: 0 };
        rows.blocks_log2 = (PIECE_BYTES / rows.block_bytes()).max(1).ilog2();
        rows
    }

    /// Memory held, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.pieces.len() * self.memory().size()
    }

    /// Copies a row, and answers its number, never 0. `before` is the number of the row before it in its chain, the
    /// last one so far, or 0. `row_bytes` is the length once more: whoever knows it as a constant spares a call.
    ///
    /// # Safety
    /// `row` must be valid for reading a row's bytes.
    #[inline(always)]
    pub(crate) unsafe fn push(&mut self, row: *const u8, row_bytes: usize, before: u32) -> u32 {
        debug_assert_eq!(row_bytes, self.row_bytes);
        // Numbers begin at 1, so that the row after one of these number is in the same block unless that is full.
        let index = if before & self.mask() == 0 { self.add_block(before) } else { before };
        // SAFETY: there is room for a row at every index of a block that has been added.
        unsafe { self.address(index).copy_from_nonoverlapping(row, row_bytes) };
        index + 1
    }

    /// Address of a row, aligned as rows are, and the number of the one before it in its chain. The row stays where it
    /// is.
    #[inline(always)]
    pub(crate) fn get(&self, number: u32) -> (*mut u8, u32) {
        let index = number.wrapping_sub(1);
        assert!(index >> self.rows_log2 < self.blocks);
        let row = self.address(index);
        if index & self.mask() != 0 {
            return (row, index);
        }
        // SAFETY: a block begins with the number of the row before its first.
        (row, unsafe { row.sub(BLOCK_HEADER_BYTES).cast::<u32>().read() })
    }

    /// Whether a row is the first of its block, so that the one before it lies elsewhere.
    #[inline(always)]
    pub(crate) const fn is_first_of_block(&self, number: u32) -> bool {
        number.wrapping_sub(1) & self.mask() == 0
    }

    /// Fetches the rows of the block before that of a row.
    #[inline(always)]
    pub(crate) fn prefetch_block_before(&self, number: u32) {
        let first = number.wrapping_sub(1) & !self.mask();
        let (_, before) = self.get(first + 1);
        if before != 0 {
            self.prefetch_block(before);
        }
    }

    /// Fetches the block of a row.
    #[inline(always)]
    pub(crate) fn prefetch_block(&self, number: u32) {
        let block = self.address(number.wrapping_sub(1) & !self.mask()).wrapping_sub(BLOCK_HEADER_BYTES);
        prefetch_block(block, self.block_bytes());
    }

    /// Forgets all rows, which are done with. The memory that they took is kept for the next ones.
    pub(crate) fn forget(&mut self) {
        self.blocks = 0;
    }

    /// Gives back one piece of the memory, all rows being done with: one that they had no need of, or what goes beyond
    /// `keep_bytes`. False if there is none.
    pub(crate) fn release_piece(&mut self, keep_bytes: usize) -> bool {
        let needed = (self.blocks as usize).div_ceil(1 << self.blocks_log2);
        if self.pieces.len() <= needed && self.held_bytes() <= keep_bytes {
            return false;
        }
        let Some(piece) = self.pieces.pop() else { return false };
        self.blocks = self.blocks.min((self.pieces.len() << self.blocks_log2) as u32);
        // SAFETY: the piece was allocated with this layout, and its rows are done with.
        unsafe { dealloc(piece, self.memory()) };
        true
    }

    const fn mask(&self) -> u32 {
        (1 << self.rows_log2) - 1
    }

    const fn block_bytes(&self) -> usize {
        (BLOCK_HEADER_BYTES + (self.row_bytes << self.rows_log2)).next_multiple_of(BLOCK_HEADER_BYTES)
    }

    fn memory(&self) -> Memory {
        Memory::from_size_align(self.block_bytes() << self.blocks_log2, CACHE_LINE_BYTES).expect("rows are small")
    }

    #[inline(always)]
    fn address(&self, index: u32) -> *mut u8 {
        let block = index >> self.rows_log2;
        let piece = self.pieces[(block >> self.blocks_log2) as usize];
        let in_piece = (block & ((1 << self.blocks_log2) - 1)) as usize * self.block_bytes();
        let in_block = (index & self.mask()) as usize * self.row_bytes;
        // SAFETY: a piece holds that many blocks, and a block that many rows after its header.
        unsafe { piece.add(in_piece + BLOCK_HEADER_BYTES + in_block) }
    }

    /// Begins a block in a chain whose last row is `before`, and answers the index of its first row.
    #[inline(never)]
    fn add_block(&mut self, before: u32) -> u32 {
        let block = self.blocks;
        assert!(block < u32::MAX >> self.rows_log2, "a table has fewer than 2^32 rows");
        if (block >> self.blocks_log2) as usize == self.pieces.len() {
            self.add_piece();
        }
        self.blocks += 1;
        let index = block << self.rows_log2;
        // SAFETY: the block's header lies before its first row, which the piece holds.
        unsafe { self.address(index).sub(BLOCK_HEADER_BYTES).cast::<u32>().write(before) };
        index
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
        while self.release_piece(0) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_rows_are_saved_then_each_can_be_read_back_and_knows_the_one_before() {
        for bytes in [8, 24, 200, 520, 100_000] {
            let mut rows = SavedRows::new(bytes, 100);
            let mut held = Vec::new();
            for round in 0..2 {
                let count = 5000u32.min(10_000_000 / bytes as u32);
                let mut chains = [const { Vec::<(u32, u8)>::new() }; 7];
                for n in 0..count {
                    let chain = &mut chains[(n * n % 7) as usize];
                    let row = vec![(n + round) as u8; bytes];
                    // SAFETY: the vector is of a row's size.
                    let number =
                        unsafe { rows.push(row.as_ptr(), bytes, chain.last().map_or(0, |&(before, _)| before)) };
                    chain.push((number, (n + round) as u8));
                }
                for chain in chains {
                    let mut next = chain.last().map_or(0, |&(last, _)| last);
                    for &(number, fill) in chain.iter().rev() {
                        assert_eq!(next, number);
                        rows.prefetch_block_before(number);
                        assert_eq!(
                            rows.is_first_of_block(number),
                            number % (1 << rows.rows_log2) == 1 % (1 << rows.rows_log2)
                        );
                        let (row, before) = rows.get(number);
                        assert_eq!(row as usize % 8, 0);
                        // SAFETY: the row is of that many bytes.
                        let bytes = unsafe { std::slice::from_raw_parts(row, bytes) };
                        assert!(bytes.iter().all(|&byte| byte == fill));
                        next = before;
                    }
                    assert_eq!(next, 0);
                }
                assert!(!rows.release_piece(usize::MAX), "all pieces are in use");
                held.push(rows.held_bytes());
                rows.forget();
            }
            assert_eq!(held[0], held[1], "what rows took is used for the next ones");
            let keep_bytes = held[0] / 2;
            while rows.release_piece(keep_bytes) {}
            assert!(rows.held_bytes() <= keep_bytes);
            while rows.release_piece(0) {}
            assert_eq!(rows.held_bytes(), 0);
        }
    }
}
