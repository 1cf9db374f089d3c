//! Growth of a `RowTable`: the only place where rows move.
//!
//! Rows are copied to new segments and the old one is released as a whole afterwards, in `replace`, where a running
//! snapshot that has not read it yet copies what it needs of it.

use thalweg_model::Record;

use crate::{
    ahead::new_stamp,
    home::Homes,
    place::Salt,
    row::{Layout, RowHeader, Rows},
    segment::{MIN_ROWS_LOG2, SegmentRef, segment_bytes},
    table::RowTable,
};

/// Most top bits of positions that a directory goes by.
pub(crate) const MAX_DEPTH: u32 = 28;
/// Regular segments up to which a table counts as near: no more than 256 KiB, a part of any second-level cache of today.
const NEAR_SEGMENTS: usize = 4;
/// Size of the directory that is always allowed, in entries.
const FREE_DIRECTORY_ENTRIES: usize = 64;

impl<K: Record, V: Record, S: Salt<K>> RowTable<K, V, S> {
    /// Makes room for one more row in the segment of a position, and answers the segment that it is then.
    ///
    /// A segment with many deleted rows is written anew; one below the regular size doubles; any other splits. Where
    /// splitting is of no use, since too many keys share one hash, it doubles beyond the regular size.
    #[cold]
    #[inline(never)]
    pub(crate) fn make_room(&mut self, position: u64) -> SegmentRef {
        loop {
            let index = (position >> self.shift) as usize;
            let segment = self.directory[index];
            // SAFETY: the directory's segments are alive.
            let (live, used) = unsafe { ((*segment.header()).live, (*segment.header()).used) };
            if used < segment.limit() {
                if self.is_near() && self.has_outgrown_near() {
                    self.leave_near();
                    continue;
                }
                return segment;
            }
            if live as u64 * 2 <= 1 << segment.rows_log2() {
                self.rewrite(index, segment.rows_log2());
            } else if segment.rows_log2() < self.regular_rows_log2 || !self.split(index) {
                self.rewrite(index, segment.rows_log2() + 1);
            }
        }
    }

    /// Whether the table is too large to be near.
    pub(crate) fn has_outgrown_near(&self) -> bool {
        self.arena.held_bytes() > NEAR_SEGMENTS * segment_bytes::<K, V>(self.regular_rows_log2)
    }

    /// Goes over to homes that spare a search lines: moves the rows of the few segments that there are.
    fn leave_near(&mut self) {
        self.homes = Homes::EVERY_LINE;
        let mut index = 0;
        while let Some(segment) = self.directory.get(index) {
            self.rewrite(index, segment.rows_log2());
            // SAFETY: the directory's segments are alive.
            let depth = unsafe { (*self.directory[index].header()).depth };
            index += 1 << (self.depth() - depth);
        }
    }

    /// Copies a segment's rows into a new one of that many rows.
    fn rewrite(&mut self, index: usize, rows_log2: u32) {
        let old = self.directory[index];
        // SAFETY: the directory's segments are alive, and the new one has room for all rows of the old one.
        unsafe {
            let (prefix, depth) = ((*old.header()).prefix, (*old.header()).depth);
            let new = SegmentRef::new::<K, V>(&mut self.arena, rows_log2, (prefix, depth), self.epoch);
            copy_rows(old.rows::<K, V>(), [new, new], self.homes, |_| false);
            self.replace(old, new, new);
        }
    }

    /// Splits a segment into the halves of its interval. False if that is not worth it: all its rows are at one
    /// position, or the directory would take too much memory.
    fn split(&mut self, index: usize) -> bool {
        let old = self.directory[index];
        // SAFETY: the directory's segments are alive.
        let (prefix, depth, live) = unsafe { ((*old.header()).prefix, (*old.header()).depth, (*old.header()).live) };
        if depth == MAX_DEPTH {
            return false;
        }
        // SAFETY: as above.
        let rows = unsafe { old.rows::<K, V>() };
        let bit = 1u64 << (self.placer.position_bits() - 1 - depth);
        let (mut any, mut all, mut upper) = (0u64, u64::MAX, 0u32);
        for row in (0..rows.count()).filter(|&row| rows.is_occupied(row)) {
            let header = rows.header(row);
            let position = self.placer.position(header.tag, header.group());
            any |= position;
            all &= position;
            upper += (position & bit != 0) as u32;
        }
        let separable = (any ^ all) >> (self.placer.position_bits() - MAX_DEPTH) != 0;
        if !separable || (1 << depth == self.directory.len() && !self.double_directory()) {
            return false;
        }
        let mut half = |prefix: u64, live: u32| {
            let rows_log2 = rows_log2_for(live).min(old.rows_log2());
            SegmentRef::new::<K, V>(&mut self.arena, rows_log2, (prefix, depth + 1), self.epoch)
        };
        let (low, high) = (half(prefix, live - upper), half(prefix | bit, upper));
        let (placer, homes) = (self.placer, self.homes);
        // SAFETY: each half has as many rows as the old segment, or room for those that go there.
        unsafe {
            copy_rows(rows, [low, high], homes, |row| placer.position(row.tag, row.group()) & bit != 0);
            self.replace(old, low, high);
        }
        true
    }

    /// How many top bits of a position the directory goes by.
    pub(crate) const fn depth(&self) -> u32 {
        self.placer.position_bits() - self.shift
    }

    /// Doubles the directory, unless it would then take more than a quarter of what the rows take.
    fn double_directory(&mut self) -> bool {
        let entries = self.directory.len() * 2;
        let allowed = self.live * Layout::<K, V>::BYTES / 4 / size_of::<SegmentRef>();
        if self.depth() == MAX_DEPTH || entries > allowed.max(FREE_DIRECTORY_ENTRIES) {
            return false;
        }
        self.directory = self.directory.iter().flat_map(|&segment| [segment, segment]).collect();
        self.shift -= 1;
        true
    }

    /// Puts two segments, or one, in the place of another in the directory, and releases that.
    ///
    /// # Safety
    /// The rows of `old` must have been copied.
    unsafe fn replace(&mut self, old: SegmentRef, low: SegmentRef, high: SegmentRef) {
        self.stamp = new_stamp();
        // SAFETY: the directory's segments are alive; nothing refers to `old` once its entries are overwritten.
        unsafe {
            let (prefix, depth) = ((*old.header()).prefix, (*old.header()).depth);
            let first = (prefix >> self.shift) as usize;
            let entries = 1usize << (self.depth() - depth);
            let (lower, upper) = self.directory[first..first + entries].split_at_mut(entries / 2);
            lower.fill(low);
            upper.fill(high);
            if self.watched {
                self.moved(old, low);
            }
            old.release::<K, V>(&mut self.arena);
        }
    }
}

/// The rows of a new half: so many that it is up to three eighths full.
fn rows_log2_for(live: u32) -> u32 {
    (live as u64 * 8).div_ceil(3).next_power_of_two().ilog2().max(MIN_ROWS_LOG2)
}

/// Copies every occupied row to one of two new segments: the second where `is_upper` says so of its header.
///
/// # Safety
/// The targets must be alive, empty, other than the source, and have more rows than are copied there.
unsafe fn copy_rows<K: Record, V: Record>(
    from: Rows<K, V>,
    to: [SegmentRef; 2],
    homes: Homes,
    is_upper: impl Fn(RowHeader) -> bool,
) {
    // SAFETY: as promised by the caller.
    let targets = to.map(|segment| unsafe { segment.rows::<K, V>() });
    let mut copied = [0; 2];
    for index in (0..from.count()).filter(|&index| from.is_occupied(index)) {
        let header = from.header(index);
        // An index instead of a branch, which nobody could predict.
        let side = is_upper(header) as usize;
        let row = targets[side].vacant(homes, header.tag);
        // SAFETY: as promised by the caller; rows are plain bytes, and whatever they refer to stays where it is.
        unsafe { row.copy_from_nonoverlapping(from.row(index), Layout::<K, V>::BYTES) };
        copied[side] += 1;
    }
    // The lower one last: both may be the same, and all rows in the lower one.
    for side in [1, 0] {
        // SAFETY: as promised by the caller.
        unsafe {
            (*to[side].header()).live = copied[side];
            (*to[side].header()).used = copied[side];
        }
    }
}
