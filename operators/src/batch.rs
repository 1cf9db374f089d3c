//! `KeyedBatch`: reads frames a batch at a time, so that a keyed operator can ask for its rows ahead of use.

use thalweg_io::FrameCursor;
use thalweg_model::{Elem, KeyHash, Record};

use crate::pipe::{Emit, read};

/// How many records' rows are asked for ahead of use: enough to hide a cache miss, few enough to stay in the
/// processor's miss buffers.
pub(crate) const PREFETCH_RECORDS: usize = 32;

/// The next frames of a cursor, whose hashes have been looked at but which have not been read.
pub(crate) struct KeyedBatch {
    left: usize,
}

impl KeyedBatch {
    pub fn new() -> Self {
        Self { left: 0 }
    }

    /// Looks at the next frames and prefetches for each; false if there are none before the next special frame.
    #[inline(always)]
    pub fn fill(&mut self, frames: &FrameCursor<'_>, mut prefetch: impl FnMut(KeyHash)) -> bool {
        let mut hashes = [KeyHash(0); PREFETCH_RECORDS];
        self.left = frames.hashes(PREFETCH_RECORDS, &mut hashes);
        for &hash in &hashes[..self.left] {
            prefetch(hash);
        }
        self.left > 0
    }

    /// The next record of the batch with its key hash; none when the batch is through or there is no room.
    #[inline(always)]
    pub fn next<'a, T: Record, E: Emit<O>, O: Record>(
        &mut self,
        frames: &mut FrameCursor<'a>,
        emit: &E,
    ) -> Option<(Elem<'a, T>, KeyHash)> {
        if self.left == 0 || !emit.room() {
            return None;
        }
        self.left -= 1;
        let frame = frames.next::<T>()?;
        Some((read::<T>(&frame), frame.hash))
    }
}
