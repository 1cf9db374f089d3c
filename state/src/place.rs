//! Where a row goes: its position in the table, from its key's hash.
//!
//! A position is the key group's index within the table's range, then 32 bits from those of the row's hash that follow the ones
//! which decided the group: both are halves of one product. So the rows of a key group are contiguous by position. The index
//! within a segment is mixed from all bits, so that it goes by others than those that chose the segment.

use thalweg_model::{KeyGroupRange, KeyHash, MaxParallelism, Record};

/// Multiplier of the mixing step: odd, bits well spread, not that of the key hash.
const MIX: u64 = 0xd6e8_feb8_6659_fd93;

/// What a state table needs to know to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableConfig {
    /// The key groups whose keys it will hold.
    pub range: KeyGroupRange,
    /// The number of key groups there are.
    pub max_parallelism: MaxParallelism,
    /// Rows (slots, not entries) at which a segment splits instead of growing; rounded to a power of two. Fewer where
    /// rows are large. 2048 by default; tests set 8.
    pub max_segment_rows: u32,
}

impl TableConfig {
    /// A table for the key groups of one subtask.
    pub const fn new(range: KeyGroupRange, max_parallelism: MaxParallelism) -> Self {
        Self { range, max_parallelism, max_segment_rows: 2048 }
    }

    /// A table for all key groups.
    pub const fn whole(max_parallelism: MaxParallelism) -> Self {
        Self::new(KeyGroupRange { start: 0, end: (max_parallelism.get() - 1) as u16 }, max_parallelism)
    }
}

/// Spreads rows whose keys share one key hash, by what else is in the row's key.
///
/// A row's key may be more than the key that the stream is keyed by: `(K, window)` has the hash of `K` alone, since it
/// lives in the key group of `K`. With many windows per key, the salt keeps their rows apart.
pub trait Salt<K: Record> {
    /// A number that is the same for equal keys.
    fn salt(key: K::View<'_>) -> u32;
}

/// No salt: rows are placed by the key hash alone.
#[derive(Clone, Copy, Debug)]
pub struct NoSalt;

impl<K: Record> Salt<K> for NoSalt {
    #[inline(always)]
    fn salt(_: K::View<'_>) -> u32 {
        0
    }
}

/// Salt for keys `(key, namespace)`: mixed from the namespace.
#[derive(Clone, Copy, Debug)]
pub struct NamespaceSalt;

impl<K: Record> Salt<(K, i64)> for NamespaceSalt {
    #[inline(always)]
    fn salt((_, namespace): (K::View<'_>, i64)) -> u32 {
        mix64(namespace as u64)
    }
}

/// 32 bits of a 64-bit number.
#[inline(always)]
pub(crate) const fn mix64(word: u64) -> u32 {
    let wide = word as u128 * MIX as u128;
    ((wide >> 64) as u64 ^ wide as u64) as u32
}

/// Where a row is, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// Chooses the segment, by its top bits.
    pub(crate) position: u64,
    /// The row's hash: chooses the first index in the segment, and marks the row.
    pub(crate) tag: u32,
}

/// The function from hashes to positions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placer {
    max_parallelism: MaxParallelism,
    start: u32,
    /// All bits of a position: those of a group's index, and 32.
    position_mask: u64,
    /// How many those are: processors do not all count bits.
    position_bits: u32,
}

impl Placer {
    pub(crate) const fn new(config: &TableConfig) -> Self {
        let position_mask = ((config.range.len().next_power_of_two() as u64) << 32) - 1;
        Self {
            max_parallelism: config.max_parallelism,
            start: config.range.start as u32,
            position_mask,
            position_bits: position_mask.count_ones(),
        }
    }

    /// How many bits a position has.
    pub(crate) const fn position_bits(&self) -> u32 {
        self.position_bits
    }

    /// The key group of a hash.
    #[inline(always)]
    pub(crate) const fn group(&self, hash: KeyHash) -> u32 {
        self.max_parallelism.key_group(hash).0 as u32
    }

    #[inline(always)]
    pub(crate) const fn spot(&self, hash: KeyHash, salt: u32) -> Spot {
        let tag = hash.0 ^ salt;
        if salt == 0 {
            // The upper half is the group, and the lower one what `position` takes of the tag.
            let product = hash.0 as u64 * self.max_parallelism.get() as u64;
            return Spot { position: product.wrapping_sub((self.start as u64) << 32) & self.position_mask, tag };
        }
        Spot { position: self.position(tag, self.group(hash)), tag }
    }

    /// The position of a row with this tag in this key group. Groups out of the range share the places of others.
    #[inline(always)]
    pub(crate) const fn position(&self, tag: u32, group: u32) -> u64 {
        let part = tag.wrapping_mul(self.max_parallelism.get()) as u64;
        ((group.wrapping_sub(self.start) as u64) << 32 | part) & self.position_mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_hash_is_placed_then_it_can_be_had_back_and_its_group_is_contiguous() {
        for (m, start, end) in [(128, 0, 127), (128, 43, 85), (10, 3, 4), (1, 0, 0), (32768, 0, 32767), (1000, 7, 7)] {
            let max_parallelism = MaxParallelism::new(m).unwrap();
            let config = TableConfig::new(KeyGroupRange { start, end }, max_parallelism);
            let placer = Placer::new(&config);
            for n in 0..20_000u32 {
                let hash = KeyHash(if n < 10 { n } else { n.wrapping_mul(0x9e37_79b9) });
                let group = max_parallelism.key_group(hash);
                if !config.range.contains(group) {
                    continue;
                }
                for salt in [0, 1, hash.0, hash.0 ^ 1, 77] {
                    let spot = placer.spot(hash, salt);
                    assert_eq!(spot.tag ^ salt, hash.0);
                    assert_eq!(placer.position(spot.tag, placer.group(hash)), spot.position);
                    assert_eq!(spot.position >> 32, (group.0 - start) as u64);
                }
            }
        }
    }
}
