//! Blocks of a slab that nobody needs but a running snapshot, and what is left of tables that were emptied.
//!
//! All of it is given back in small portions, by the steps of the snapshot or of the next one.

use crate::{
    ahead::prefetch,
    slab::{Handle, Slab},
    snapshot::Progress,
};

/// Blocks ahead that are fetched before they are freed: a free block is written to.
const FREE_AHEAD: usize = 12;
/// Handles in a piece of a [`Limbo`].
const PIECE_HANDLES: usize = 8 << 10;
/// Pieces that are kept for the next snapshot: 4 MiB.
const MAX_SPARE_PIECES: usize = 64;

/// Estimated costs in nanoseconds: of a block that is freed, and of a piece of memory that goes back to the system.
const FREE_NS: i64 = 45;
pub(crate) const PIECE_NS: i64 = 8_000;
/// Blocks that are freed without a look at the budget.
const BLOCKS_AT_ONCE: usize = 64;

/// Blocks that nobody needs but the snapshot.
#[derive(Default)]
pub(crate) struct Limbo {
    pieces: Vec<Vec<Handle>>,
    /// Empty ones.
    spare: Vec<Vec<Handle>>,
}

impl Limbo {
    /// Keeps a block until [`Self::release`].
    pub(crate) fn push(&mut self, handle: Handle) {
        match self.pieces.last_mut() {
            Some(piece) if piece.len() < PIECE_HANDLES => piece.push(handle),
            _ => {
                let mut piece = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(PIECE_HANDLES));
                piece.push(handle);
                self.pieces.push(piece);
            }
        }
    }

    /// Memory held, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        (self.pieces.len() + self.spare.len()) * PIECE_HANDLES * size_of::<Handle>()
    }

    /// Frees some of the blocks. Answers about what that cost in nanoseconds, `None` if there was nothing to do. Their
    /// memory is kept for the next ones if `keep`.
    ///
    /// # Safety
    /// The blocks must be live ones of this slab that nothing refers to.
    pub(crate) unsafe fn release(&mut self, slab: &mut Slab, keep: bool) -> Option<i64> {
        let mut freed = 0;
        let Some(piece) = self.pieces.last_mut() else {
            let goes = !keep && self.spare.pop().is_some();
            return goes.then_some(PIECE_NS);
        };
        while freed < BLOCKS_AT_ONCE
            && let Some(handle) = piece.pop()
        {
            if let Some(ahead) = piece.len().checked_sub(FREE_AHEAD).and_then(|at| piece.get(at)) {
                // SAFETY: as promised by the caller.
                prefetch(unsafe { slab.pointer(ahead.unit) });
            }
            // SAFETY: as promised by the caller; the handle is gone from here.
            unsafe { slab.free(handle) };
            freed += 1;
        }
        let mut cost_ns = freed as i64 * FREE_NS;
        if piece.is_empty()
            && let Some(piece) = self.pieces.pop()
        {
            if keep && self.spare.len() < MAX_SPARE_PIECES {
                self.spare.push(piece);
            } else {
                drop(piece);
                cost_ns += PIECE_NS;
            }
        }
        Some(cost_ns)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Forgets the blocks: their slab is gone.
    pub(crate) fn forget(&mut self) {
        self.pieces.iter_mut().for_each(Vec::clear);
    }

    /// Gives the memory back that is kept for the next blocks.
    pub(crate) fn release_spare(&mut self) {
        self.spare = Vec::new();
    }
}

/// What a table of lists or maps keeps of its own slab for a running snapshot.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) limbo: Limbo,
    /// The slab of the barrier, once the table has been emptied as a whole.
    pub(crate) detached: Option<Slab>,
    /// Slabs that nobody needs any more.
    gone: Vec<Slab>,
}

impl Kept {
    /// Memory held, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.limbo.held_bytes() + self.detached.iter().chain(&self.gone).map(Slab::held_bytes).sum::<usize>()
    }

    /// Whether there is nothing to give back.
    pub(crate) fn is_empty(&self) -> bool {
        self.limbo.is_empty() && self.detached.is_none() && self.gone.is_empty()
    }

    /// Takes the slab of a table that is emptied, if the snapshot still reads it, and answers the one to go on with.
    pub(crate) fn emptied(&mut self, slab: &mut Slab, is_being_read: bool) {
        let old = std::mem::replace(slab, Slab::new());
        if is_being_read {
            self.detached = Some(old);
        } else if self.detached.is_none() {
            self.limbo.forget();
            self.limbo.release_spare();
        }
    }

    /// A snapshot has ended, or another one begins: what was kept is of no use any more, and goes by and by.
    pub(crate) fn done(&mut self) {
        if let Some(slab) = self.detached.take() {
            self.limbo.forget();
            self.gone.push(slab);
        }
    }

    /// How far the snapshot is once its rows are so far.
    pub(crate) fn after_rows(&mut self, rows: Progress) -> Progress {
        if rows != Progress::Done {
            return rows;
        }
        self.done();
        if self.is_empty() { Progress::Done } else { Progress::More }
    }

    /// Gives back what was kept, the rows being done, as far as the budget reaches.
    pub(crate) fn release(&mut self, slab: &mut Slab, budget_ns: u32) -> Progress {
        self.done();
        let mut left_ns = budget_ns as i64;
        while left_ns > 0 {
            // SAFETY: the blocks are of this slab, and the image that needed them is complete or given up.
            if let Some(cost_ns) = unsafe { self.limbo.release(slab, true) } {
                left_ns -= cost_ns;
            } else if let Some(gone) = self.gone.last_mut() {
                if !gone.release_some() {
                    self.gone.pop();
                }
                left_ns -= PIECE_NS;
            } else {
                return Progress::Done;
            }
        }
        if self.is_empty() { Progress::Done } else { Progress::More }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_blocks_are_kept_then_they_are_freed_in_portions() {
        let mut slab = Slab::new();
        let mut limbo = Limbo::default();
        let mut held = Vec::new();
        for _ in 0..2 {
            for _ in 0..20_000 {
                limbo.push(slab.store(&[1; 40]));
            }
            held.push(limbo.held_bytes());
            let mut portions = 0;
            // SAFETY: the blocks are live, and nobody else knows them.
            while unsafe { limbo.release(&mut slab, true) }.is_some() {
                portions += 1;
            }
            assert!(portions >= 20_000 / BLOCKS_AT_ONCE, "{portions}");
            assert_eq!((slab.live_bytes(), limbo.is_empty()), (0, true));
        }
        assert_eq!(held[0], held[1], "pieces are used again");
        limbo.push(slab.store(&[1; 40]));
        limbo.forget();
        // SAFETY: the block has been forgotten.
        while unsafe { limbo.release(&mut slab, true) }.is_some() {}
        assert!(slab.live_bytes() > 0);
        limbo.release_spare();
        assert_eq!(limbo.held_bytes(), 0);
    }

    #[test]
    fn when_a_slab_is_gone_then_it_is_released_in_portions() {
        let mut kept = Kept::default();
        let mut slab = Slab::new();
        for _ in 0..40 {
            slab.allocate(1 << 20);
        }
        slab.allocate(7 << 20);
        kept.emptied(&mut slab, true);
        let mut steps = 0;
        while kept.release(&mut slab, 1) != Progress::Done {
            steps += 1;
        }
        assert!(steps > 20 && kept.is_empty() && kept.held_bytes() == 0, "{steps}");
    }
}
