//! Room for what is restored: a directory made to measure, from what images say of their key groups.

use thalweg_model::{KeyGroupRange, Record};

use crate::{
    ahead::new_stamp,
    grow::MAX_DEPTH,
    home::Homes,
    image::ImageIndex,
    place::Salt,
    row::Layout,
    segment::{MIN_ROWS_LOG2, SegmentRef},
    table::{RowTable, release_all},
};

/// The part of a segment's rows that may be filled, with room below the limit of three quarters for what the estimate
/// does not know.
const FULL: f64 = 0.66;
/// The part of a regular segment's rows from which on a segment is one: half of what [`FULL`] leaves, or less.
const SPARSE: f64 = 0.3;

/// About how many rows each key group of a range has.
pub(crate) struct Estimate {
    /// Rows of all groups before.
    before: Vec<f64>,
}

impl Estimate {
    pub(crate) fn of(range: KeyGroupRange, images: &[ImageIndex]) -> Self {
        let mut rows = vec![0.0; range.len() as usize + 1];
        for extent in images.iter().filter(|image| image.base().is_none()).flat_map(ImageIndex::extents) {
            let each = extent.rows as f64 / f64::from(extent.groups.len());
            let (first, last) = (extent.groups.start.max(range.start), extent.groups.end.min(range.end));
            for group in first..=last {
                rows[(group - range.start) as usize + 1] += each;
            }
        }
        let mut sum = 0.0;
        let before = rows
            .iter()
            .map(|rows| {
                sum += rows;
                sum
            })
            .collect();
        Self { before }
    }

    pub(crate) fn total(&self) -> f64 {
        self.before[self.before.len() - 1]
    }

    /// How many rows lie in an interval of positions.
    fn between(&self, from: u64, to: u64) -> f64 {
        self.up_to(to) - self.up_to(from)
    }

    fn up_to(&self, position: u64) -> f64 {
        let (group, part) = ((position >> 32) as usize, (position & 0xffff_ffff) as f64 / (1u64 << 32) as f64);
        let last = self.before.len() - 1;
        let (low, high) = (self.before[group.min(last)], self.before[(group + 1).min(last)]);
        low + (high - low) * part
    }
}

impl<K: Record, V: Record, S: Salt<K>> RowTable<K, V, S> {
    /// Makes the segments that so many rows need.
    pub(crate) fn make_directory(&mut self, groups: &Estimate) {
        let bits = self.placer.position_bits();
        let entries = (groups.total() * Layout::<K, V>::BYTES as f64 / 32.0).max(64.0) as u64;
        let deepest = entries.ilog2().min(bits).min(MAX_DEPTH);
        let regular = (1u64 << self.regular_rows_log2) as f64;
        // From the last interval to the first, so that the first is what comes out of the stack first.
        let (mut stack, mut leaves, mut depth) = (vec![(0u64, 0u32)], Vec::new(), 0);
        while let Some((prefix, at)) = stack.pop() {
            let width = 1u64 << (bits - at);
            let rows = groups.between(prefix, prefix + width);
            if rows > regular * FULL && at < deepest {
                stack.push((prefix + width / 2, at + 1));
                stack.push((prefix, at + 1));
                continue;
            }
            let fitting = ((rows * 1.4) as u64 + 4).next_power_of_two().ilog2().max(MIN_ROWS_LOG2);
            // Regular segments are cut from large mappings, others come one by one from the allocator.
            let is_regular = rows > regular * SPARSE && fitting < self.regular_rows_log2;
            leaves.push((prefix, at, if is_regular { self.regular_rows_log2 } else { fitting.min(31) }));
            depth = depth.max(at);
        }
        let new = Vec::with_capacity(1 << depth);
        let old = std::mem::replace(&mut self.directory, new);
        // SAFETY: the old segments are this arena's, and out of the directory.
        unsafe { release_all::<K, V>(old, &mut self.arena) };
        for (prefix, at, rows_log2) in leaves {
            let segment = SegmentRef::new::<K, V>(&mut self.arena, rows_log2, (prefix, at), self.epoch);
            self.directory.extend(std::iter::repeat_n(segment, 1 << (depth - at)));
        }
        self.shift = bits - depth;
        self.stamp = new_stamp();
        if self.has_outgrown_near() {
            self.homes = Homes::EVERY_LINE;
        }
    }
}
