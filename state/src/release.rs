//! Giving back what a snapshot of a `RowTable` kept, in portions, or handing it to the next one.

use thalweg_model::Record;

use crate::{
    limbo::{Limbo, PIECE_NS},
    place::Salt,
    saved::SavedRows,
    sweep::Running,
    table::RowTable,
};

/// What room for copies of rows is kept for the next snapshot: this part of the table's segments, or so many bytes.
const SPARE_PART: usize = 4;
const SPARE_BYTES: usize = 256 << 10;

impl<K: Record, V: Record, S: Salt<K>> RowTable<K, V, S> {
    /// Room for the next snapshot: what the one before left, with the blocks of one that was aborted.
    pub(crate) fn take_room(&mut self) -> Option<(SavedRows, Limbo)> {
        let Some(aborted) = self.watch.running.take() else { return self.watch.spare.take() };
        let Running { mut saved, mut limbo, detached, .. } = *aborted;
        saved.forget();
        if let Some(detached) = detached {
            limbo.forget();
            self.watch.gone.push(detached);
        }
        Some((saved, limbo))
    }

    /// Gives back what a snapshot kept, as far as the budget reaches. True if that was all, and the snapshot is gone.
    pub(crate) fn release_within(&mut self, mut left_ns: i64) -> bool {
        while left_ns > 0 {
            let Some(spent_ns) = self.release() else { return true };
            left_ns -= spent_ns;
        }
        false
    }

    /// Gives back some blocks, or a piece of memory. Answers about what that cost, `None` if nothing was left, and the
    /// snapshot is gone.
    fn release(&mut self) -> Option<i64> {
        let running = self.watch.running.as_mut()?;
        if let Some(detached) = running.detached.take() {
            running.limbo.forget();
            self.watch.gone.push(detached);
        }
        let spare_bytes = (self.arena.held_bytes() / SPARE_PART).max(SPARE_BYTES);
        let keep_bytes = if running.is_aborted { 0 } else { spare_bytes };
        // SAFETY: the blocks are of this slab, and the image that needed them is complete or given up.
        if let Some(cost_ns) = unsafe { running.limbo.release(&mut self.cells.slab, !running.is_aborted) } {
            return Some(cost_ns);
        }
        if running.saved.release_piece(keep_bytes) {
            return Some(PIECE_NS);
        }
        if let Some(gone) = self.watch.gone.last_mut() {
            if !gone.release_some() {
                self.watch.gone.pop();
            }
            return Some(PIECE_NS);
        }
        let Running { mut saved, limbo, .. } = *self.watch.running.take()?;
        saved.forget();
        self.watch.spare = Some((saved, limbo));
        None
    }
}
