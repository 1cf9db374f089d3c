//! `KeyedBatch` and `RowsAhead`: how a keyed operator asks for its rows ahead of use.

use thalweg_io::{FrameCursor, TypedCursor};
use thalweg_model::{Elem, KeyHash, Record};
use thalweg_state::{LOCATE_AHEAD, PINPOINT_AHEAD, Place, RowTable};

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

/// Places that are remembered: a power of two above [`LOCATE_AHEAD`].
const PLACES: usize = 32;

/// Reads records one by one while the row of a later one is being fetched, and keeps where each was found.
///
/// For operators with one table: there are no pauses between batches in which no fetch is under way.
pub(crate) struct RowsAhead<'a, T: Record, const TIMED: bool> {
    records: TypedCursor<'a, T, TIMED>,
    taken: usize,
    places: [Place; PLACES],
    /// Where records are of different lengths: those ahead, and the hashes that were seen there.
    ahead: TypedCursor<'a, T, TIMED>,
    hashes: [KeyHash; PLACES],
}

impl<'a, T: Record, const TIMED: bool> RowsAhead<'a, T, TIMED> {
    /// Begins to fetch.
    #[inline(always)]
    pub fn new<K: Record, V: Record>(records: TypedCursor<'a, T, TIMED>, table: &RowTable<K, V>) -> Self {
        let ahead = records.clone();
        let (places, hashes) = ([Place::default(); PLACES], [KeyHash(0); PLACES]);
        let mut rows = Self { records, taken: 0, places, ahead, hashes };
        for distance in 0..LOCATE_AHEAD {
            rows.locate_after(distance, table);
        }
        for distance in 0..PINPOINT_AHEAD - 1 {
            rows.pinpoint_after(distance, table);
        }
        rows
    }

    /// Locates the row of the record that comes after that many others.
    #[inline(always)]
    fn locate_after<K: Record, V: Record>(&mut self, distance: usize, table: &RowTable<K, V>) {
        let index = (self.taken + distance) % PLACES;
        if T::FIXED {
            if let Some(hash) = self.records.hash_after(distance) {
                self.places[index] = table.locate(hash);
            }
        } else if let Some(frame) = self.ahead.next() {
            self.hashes[index] = frame.hash;
            self.places[index] = table.locate(frame.hash);
        }
    }

    /// Pinpoints the row of the record that comes after that many others.
    #[inline(always)]
    fn pinpoint_after<K: Record, V: Record>(&mut self, distance: usize, table: &RowTable<K, V>) {
        let index = (self.taken + distance) % PLACES;
        // At the end of the records a place that was used comes round again, which is of no consequence.
        let hash = if T::FIXED { self.records.hash_after(distance) } else { Some(self.hashes[index]) };
        if let Some(hash) = hash {
            table.pinpoint(&mut self.places[index], hash);
        }
    }

    /// The next record with its key hash and its row's place; none at the end of the records, or without room.
    #[inline(always)]
    pub fn next<E: Emit<O>, O: Record, K: Record, V: Record>(
        &mut self,
        emit: &E,
        table: &RowTable<K, V>,
    ) -> Option<(Elem<'a, T>, KeyHash, Place)> {
        if !emit.room() {
            return None;
        }
        let frame = self.records.next()?;
        let place = self.places[self.taken % PLACES];
        self.taken += 1;
        self.locate_after(LOCATE_AHEAD - 1, table);
        self.pinpoint_after(PINPOINT_AHEAD - 1, table);
        Some((read::<T>(&frame), frame.hash, place))
    }

    /// The cursor, at what has not been read.
    pub fn into_records(self) -> TypedCursor<'a, T, TIMED> {
        self.records
    }
}
