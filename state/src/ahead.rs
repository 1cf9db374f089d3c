//! Looking ahead: fetching rows into the cache before their turn, and keeping where they are.
//!
//! An operator that sees a batch asks for the rows 16 to 24 records ahead. What it is given back spares it the way from
//! the hash to the segment when the record's turn comes, which is most of what an update of a cached row costs.

use thalweg_model::{KeyHash, Record};

use crate::{
    place::{Salt, Spot},
    row::Layout,
    segment::SegmentRef,
    table::RowTable,
};

/// Where a table keeps the rows of a hash: what [`RowTable::locate`] answers.
///
/// It can be used with the same hash in the same table only, at any later time: the table notices if it has outgrown
/// it. Used otherwise it finds no row, or makes a second one of the key.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    entry: u32,
    /// The directory's shift when the place was made: it has doubled if that is another.
    shift: u32,
}

/// Distance of addresses that are fetched together.
pub(crate) const CACHE_LINE_BYTES: usize = 64;

/// Bytes of a wide row that are asked for ahead: what follows, the processor fetches by itself.
const MAX_ROW_AHEAD_BYTES: usize = 256;

/// The size up to which a table counts as near: a part of any second-level cache of today.
const NEAR_BYTES: usize = 192 << 10;

impl Default for Place {
    /// A place that no table has: to initialise an array with.
    fn default() -> Self {
        Self { entry: u32::MAX, shift: u32::MAX }
    }
}

impl<K: Record, V: Record, S: Salt<K>> RowTable<K, V, S> {
    /// Fetches a row of this hash into the cache. Worth it 16 to 24 records ahead of its use.
    ///
    /// Only for tables without a salt; [`Self::prefetch_key`] is for all.
    #[inline(always)]
    pub fn prefetch(&self, hash: KeyHash) {
        self.locate(hash);
    }

    /// Fetches the row of a key into the cache. Worth it 16 to 24 records ahead of its use.
    #[inline(always)]
    pub fn prefetch_key(&self, hash: KeyHash, key: K::View<'_>) {
        self.locate_key(hash, key);
    }

    /// Whether the table is so small that it stays in the core's own cache: looking ahead then costs more than it spares.
    #[inline]
    pub fn is_near(&self) -> bool {
        self.arena.held_bytes() <= NEAR_BYTES
    }

    /// As [`Self::prefetch`], and says where the row is.
    #[inline(always)]
    pub fn locate(&self, hash: KeyHash) -> Place {
        self.locate_spot(&self.spot_salted(hash, 0))
    }

    /// As [`Self::prefetch_key`], and says where the row is.
    #[inline(always)]
    pub fn locate_key(&self, hash: KeyHash, key: K::View<'_>) -> Place {
        self.locate_spot(&self.spot(hash, key))
    }

    /// As [`Self::get`], of a row that was located.
    #[inline]
    pub fn get_at(&self, place: Place, hash: KeyHash, key: K::View<'_>) -> Option<V::View<'_>> {
        self.get_in(self.segment_at(place, hash, key), hash.0 ^ S::salt(key), key)
    }

    /// As [`Self::update`], of a row that was located.
    #[inline]
    pub fn update_at(
        &mut self,
        place: Place,
        hash: KeyHash,
        key: K::View<'_>,
        f: impl FnOnce(Option<V::View<'_>>) -> V,
    ) {
        self.update_in(self.segment_at(place, hash, key), hash, key, f);
    }

    /// As [`Self::modify_or_insert_with`], of a row that was located.
    #[inline]
    pub fn modify_or_insert_at<R>(
        &mut self,
        place: Place,
        hash: KeyHash,
        key: K::View<'_>,
        init: impl FnOnce() -> V,
        f: impl FnOnce(&mut V) -> R,
    ) -> R {
        self.modify_in::<false, R>(self.segment_at(place, hash, key), hash, key, init, f)
    }

    #[inline(always)]
    fn locate_spot(&self, spot: &Spot) -> Place {
        let segment = self.segment(spot);
        // SAFETY: the directory's segments are alive.
        let row = unsafe { segment.rows::<K, V>() }.first_row(spot.tag);
        let bytes = Layout::<K, V>::AHEAD_BYTES.min(MAX_ROW_AHEAD_BYTES);
        prefetch_block(row, bytes);
        if self.watched {
            // The first change of a row since the barrier of a snapshot is noted there.
            prefetch(segment.header().cast());
        }
        // The last byte lies in another line, unless rows begin and end where lines do.
        if !bytes.is_multiple_of(CACHE_LINE_BYTES) || !Layout::<K, V>::BYTES.is_multiple_of(CACHE_LINE_BYTES) {
            prefetch(row.wrapping_add(bytes - 1));
        }
        Place { entry: (spot.position >> self.shift) as u32, shift: self.shift }
    }

    #[inline(always)]
    fn segment_at(&self, place: Place, hash: KeyHash, key: K::View<'_>) -> SegmentRef {
        match self.directory.get(place.entry as usize) {
            Some(&segment) if place.shift == self.shift => segment,
            _ => self.segment_again(hash, key),
        }
    }

    #[cold]
    fn segment_again(&self, hash: KeyHash, key: K::View<'_>) -> SegmentRef {
        self.segment(&self.spot(hash, key))
    }
}

/// Asks for a row's cache line.
#[inline(always)]
pub(crate) fn prefetch(row: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program sees, at any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(row.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

/// Most bytes of a block that are asked for: what follows, the processor fetches by itself.
const AHEAD_BYTES: usize = 1 << 10;

/// Asks for the cache lines at the begin of a block.
#[inline(always)]
pub(crate) fn prefetch_block(start: *const u8, bytes: usize) {
    for at in (0..bytes.min(AHEAD_BYTES)).step_by(CACHE_LINE_BYTES) {
        prefetch(start.wrapping_add(at));
    }
}
