//! Looking ahead: fetching rows into the cache before their turn, and keeping where they are.
//!
//! An operator that sees a batch asks for the rows [`LOCATE_AHEAD`] records ahead: for one line each, that of the row's home, since lines
//! are what a core can ask for so many of. [`PINPOINT_AHEAD`] records before its turn it pinpoints the row: by then the line is there, and says
//! whether more is needed. What it is given back spares it the way from the hash to the row, which is most of what an update
//! of a cached row costs.

use std::sync::atomic::{AtomicU64, Ordering};

use thalweg_model::{KeyHash, Record};

use crate::{
    home::Homes,
    place::{Salt, Spot},
    row::{Layout, RowHeader, Rows},
    segment::SegmentRef,
    table::RowTable,
};

/// How many records ahead of use to [locate](RowTable::locate) a row: the misses that a core can have under way, and the time that
/// one takes.
pub const LOCATE_AHEAD: usize = 24;
/// How many records ahead of use to [pinpoint](RowTable::pinpoint) a row: most lines have come by then, and what is found missing
/// still can.
pub const PINPOINT_AHEAD: usize = 9;

/// Where a table keeps the rows of a hash: what [`RowTable::locate`] answers.
///
/// It can be used with the same hash in the same table only, at any later time: the table notices if rows have moved since.
/// Used otherwise it finds no row, or makes a second one of the key.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Of rows that share lines the home, or what [`RowTable::pinpoint`] found there; of others the directory's entry, by its
    /// number.
    at: *mut u8,
    /// The table's stamp when the place was made, and one more once it was pinpointed.
    stamp: u64,
}

/// Distance of addresses that are fetched together.
pub(crate) const CACHE_LINE_BYTES: usize = 64;

/// Bytes of a wide row that are asked for ahead: what follows, the processor fetches by itself.
const MAX_ROW_AHEAD_BYTES: usize = 256;

impl Default for Place {
    /// A place that no table has: to initialise an array with.
    fn default() -> Self {
        Self { at: std::ptr::null_mut(), stamp: 0 }
    }
}

impl Place {
    /// Fetches the line in which the row may end, or lie if it is not in its home's: for those who will not pinpoint it.
    #[inline(always)]
    fn prefetch_rest<K: Record, V: Record>(self) {
        if Layout::<K, V>::SHARES_LINES {
            prefetch(self.at.wrapping_add(CACHE_LINE_BYTES));
        }
    }
}

/// A stamp that no table had before; even.
pub(crate) fn new_stamp() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(2);
    NEXT.fetch_add(2, Ordering::Relaxed)
}

impl<K: Record, V: Record, S: Salt<K>> RowTable<K, V, S> {
    /// Fetches a row of this hash into the cache. Worth it 16 to 24 records ahead of its use.
    ///
    /// Only for tables without a salt; [`Self::prefetch_key`] is for all.
    #[inline(always)]
    pub fn prefetch(&self, hash: KeyHash) {
        self.locate(hash).prefetch_rest::<K, V>();
    }

    /// Fetches the row of a key into the cache. Worth it 16 to 24 records ahead of its use.
    #[inline(always)]
    pub fn prefetch_key(&self, hash: KeyHash, key: K::View<'_>) {
        self.locate_key(hash, key).prefetch_rest::<K, V>();
    }

    /// Whether the table is so small that it stays in the core's own cache: looking ahead then costs more than it spares.
    #[inline]
    pub fn is_near(&self) -> bool {
        self.homes == Homes::EVERY_ROW
    }

    /// Fetches the line in which a row of this hash probably is, and says where that is: to be [pinpointed](Self::pinpoint).
    /// Worth it [`LOCATE_AHEAD`] records ahead of the row's use.
    ///
    /// Only for tables without a salt; [`Self::locate_key`] is for all.
    #[inline(always)]
    pub fn locate(&self, hash: KeyHash) -> Place {
        self.locate_spot(&self.spot_salted(hash, 0))
    }

    /// As [`Self::locate`], of the row of a key.
    #[inline(always)]
    pub fn locate_key(&self, hash: KeyHash, key: K::View<'_>) -> Place {
        self.locate_spot(&self.spot(hash, key))
    }

    /// Looks which of the rows that came is the one of the hash, and asks for what is missing of it. Worth it when what
    /// [`Self::locate`] asked for has come, [`PINPOINT_AHEAD`] records ahead of the row's use.
    ///
    /// Only for tables without a salt.
    #[inline(always)]
    pub fn pinpoint(&self, place: &mut Place, hash: KeyHash) {
        if Layout::<K, V>::SHARES_LINES && place.stamp == self.stamp {
            // SAFETY: the stamp says that no segment has come or gone since, so a home of one lies there.
            place.at = unsafe { Rows::<K, V>::in_line(place.at, hash.0) };
            place.stamp += 1;
            prefetch(place.at.wrapping_add(Layout::<K, V>::BYTES - 1));
        }
    }

    /// As [`Self::get`], of a row that was located.
    #[inline]
    pub fn get_at(&self, place: Place, hash: KeyHash, key: K::View<'_>) -> Option<V::View<'_>> {
        match self.row_at(place, hash, key) {
            // SAFETY: the row exists, and stays as it is while the table is borrowed.
            Some(row) => Some(unsafe { self.value_of(row) }),
            None => self.get_in(self.segment_at(place, hash, key), hash.0 ^ S::salt(key), key),
        }
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
        let Some(row) = self.row_at(place, hash, key) else {
            return self.update_in(self.segment_at(place, hash, key), hash, key, f);
        };
        // SAFETY: the row exists, in the segment of its key.
        unsafe { self.update_row(row, f, |table| table.whereabouts(row, hash, key)) };
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
        let Some(row) = self.row_at(place, hash, key) else {
            return self.modify_in::<false, R>(self.segment_at(place, hash, key), hash, key, init, f);
        };
        // SAFETY: the row exists, in the segment of its key.
        unsafe { self.modify_row(row, f, |table| table.whereabouts(row, hash, key)) }
    }

    #[inline(always)]
    fn locate_spot(&self, spot: &Spot) -> Place {
        let entry = self.entry(spot);
        // SAFETY: the entry has just been answered.
        let segment = unsafe { self.segment_of(entry) };
        // SAFETY: the directory's segments are alive.
        let home = unsafe { segment.rows::<K, V>() }.home(self.homes, spot.tag);
        if self.watched {
            // The first change of a row since the barrier of a snapshot is noted there.
            prefetch(segment.header().cast());
        }
        if Layout::<K, V>::SHARES_LINES {
            prefetch(home);
            return Place { at: home, stamp: self.stamp };
        }
        let bytes = Layout::<K, V>::AHEAD_BYTES.min(MAX_ROW_AHEAD_BYTES);
        prefetch_block(home, bytes);
        // The last byte lies in another line, unless rows begin and end where lines do.
        if !bytes.is_multiple_of(CACHE_LINE_BYTES) || !Layout::<K, V>::BYTES.is_multiple_of(CACHE_LINE_BYTES) {
            prefetch(home.wrapping_add(bytes - 1));
        }
        Place { at: std::ptr::without_provenance_mut(entry), stamp: self.stamp }
    }

    /// The row of a key, if it is the one that its place says.
    #[inline(always)]
    fn row_at(&self, place: Place, hash: KeyHash, key: K::View<'_>) -> Option<*mut u8> {
        if !Layout::<K, V>::SHARES_LINES || place.stamp != self.stamp + 1 {
            return None;
        }
        // SAFETY: the stamp says that no segment has come or gone since: there lies a row of one, or the zeros that follow
        // its last. Only what exists is asked for its key.
        unsafe {
            let header = place.at.cast::<RowHeader>().read();
            let is_it =
                header.tag == hash.0 ^ S::salt(key) && header.is_occupied() && K::eq_view(self.key_of(place.at), key);
            is_it.then_some(place.at)
        }
    }

    #[inline(always)]
    fn segment_at(&self, place: Place, hash: KeyHash, key: K::View<'_>) -> SegmentRef {
        if !Layout::<K, V>::SHARES_LINES && place.stamp == self.stamp {
            // SAFETY: the stamp says that no segment has come or gone since, so the directory is as it was.
            return unsafe { self.segment_of(place.at.addr()) };
        }
        self.segment(&self.spot(hash, key))
    }

    /// The segment of a key's row, and the row's index there.
    fn whereabouts(&self, row: *mut u8, hash: KeyHash, key: K::View<'_>) -> (SegmentRef, u32) {
        let segment = self.segment(&self.spot(hash, key));
        // SAFETY: the directory's segments are alive.
        let first = unsafe { segment.rows::<K, V>() }.row(0);
        (segment, ((row.addr() - first.addr()) / Layout::<K, V>::BYTES) as u32)
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
