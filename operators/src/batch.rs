//! `KeyedBatch` and `RowsAhead`: how a keyed operator asks for its rows ahead of use.

use thalweg_io::{FrameCursor, HashesAhead};
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

/// How far ahead [`RowsAhead`] looks: the misses that a core can have under way, and the time that one takes.
const AHEAD_RECORDS: usize = 20;
/// Places that are remembered: a power of two above that.
const PLACES: usize = 32;

/// Reads records one by one while the row of a later one is being fetched, and keeps where each was found.
///
/// For operators with one table: there are no pauses between batches in which no fetch is under way.
pub(crate) struct RowsAhead<'a, P> {
    hashes: HashesAhead<'a>,
    places: [P; PLACES],
    located: usize,
    taken: usize,
}

impl<'a, P: Copy + Default> RowsAhead<'a, P> {
    /// Begins to fetch.
    #[inline(always)]
    pub fn new<T: Record>(frames: &FrameCursor<'a>, mut locate: impl FnMut(KeyHash) -> P) -> Self {
        let mut rows = Self { hashes: frames.ahead(), places: [P::default(); PLACES], located: 0, taken: 0 };
        for _ in 0..AHEAD_RECORDS {
            rows.locate_next::<T>(&mut locate);
        }
        rows
    }

    #[inline(always)]
    fn locate_next<T: Record>(&mut self, locate: impl FnOnce(KeyHash) -> P) {
        if let Some(hash) = self.hashes.next::<T>() {
            self.places[self.located % PLACES] = locate(hash);
            self.located += 1;
        }
    }

    /// The next record with its key hash and its row's place; none at the end of the records, or without room.
    #[inline(always)]
    pub fn next<T: Record, E: Emit<O>, O: Record>(
        &mut self,
        frames: &mut FrameCursor<'a>,
        emit: &E,
        locate: impl FnOnce(KeyHash) -> P,
    ) -> Option<(Elem<'a, T>, KeyHash, P)> {
        if !emit.room() {
            return None;
        }
        let frame = frames.next::<T>()?;
        debug_assert!(self.taken < self.located);
        let place = self.places[self.taken % PLACES];
        self.taken += 1;
        self.locate_next::<T>(locate);
        Some((read::<T>(&frame), frame.hash, place))
    }
}
