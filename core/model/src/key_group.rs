//! Key groups: the unit in which keyed state is spread over subtasks and moved between them.
//!
//! As in Flink (`KeyGroupRangeAssignment`), a key's hash decides its group, of which there are as many as the maximum
//! parallelism, and contiguous ranges of groups belong to the subtasks. One step of Flink's is left out: it scrambles the hash
//! first, by murmur, since Java's hash codes are often the number itself. Ours is mixed from 64 bits, and routing a
//! record by it is a third cheaper as it is; the upper bits decide, so that no division is needed.

use crate::KeyHash;

/// Largest maximum parallelism there is: 2^15, as in Flink.
pub const UPPER_BOUND_MAX_PARALLELISM: u32 = 1 << 15;
/// Smallest maximum parallelism that is derived when none is given.
pub const DEFAULT_LOWER_BOUND_MAX_PARALLELISM: u32 = 128;

/// Number of a key group, below the job's maximum parallelism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyGroup(pub u16);

/// Number of key groups of an operator: fixed once state has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MaxParallelism(u32);

/// A contiguous range of key groups, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyGroupRange {
    /// First group.
    pub start: u16,
    /// Last group; `start > end` never holds.
    pub end: u16,
}

impl MaxParallelism {
    /// A maximum parallelism between 1 and 32768.
    ///
    /// # Errors
    /// `None` outside that range.
    pub const fn new(value: u32) -> Option<Self> {
        if value == 0 || value > UPPER_BOUND_MAX_PARALLELISM { None } else { Some(Self(value)) }
    }

    /// The default for an operator of this parallelism: half as much again, rounded up to a power of two, at least 128.
    pub const fn derived(parallelism: u32) -> Self {
        let wanted = parallelism.saturating_add(parallelism / 2);
        let mut rounded = DEFAULT_LOWER_BOUND_MAX_PARALLELISM;
        while rounded < wanted && rounded < UPPER_BOUND_MAX_PARALLELISM {
            rounded *= 2;
        }
        Self(rounded)
    }

    /// The number of key groups.
    #[inline(always)]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The key group of a key with this hash.
    #[inline(always)]
    pub const fn key_group(self, hash: KeyHash) -> KeyGroup {
        KeyGroup(((hash.0 as u64 * self.0 as u64) >> 32) as u16)
    }

    /// The subtask, of `parallelism`, that owns a key group.
    #[inline(always)]
    pub const fn subtask_of(self, group: KeyGroup, parallelism: u32) -> u32 {
        group.0 as u32 * parallelism / self.0
    }

    /// The groups that subtask `index` of `parallelism` owns.
    ///
    /// # Panics
    /// Where `index >= parallelism` or `parallelism` exceeds the maximum parallelism.
    pub const fn range_of(self, index: u32, parallelism: u32) -> KeyGroupRange {
        assert!(index < parallelism && parallelism <= self.0);
        KeyGroupRange {
            start: (index * self.0).div_ceil(parallelism) as u16,
            end: (((index + 1) * self.0 - 1) / parallelism) as u16,
        }
    }
}

impl KeyGroupRange {
    /// How many groups the range holds, at least one.
    pub const fn len(self) -> u32 {
        self.end as u32 - self.start as u32 + 1
    }

    /// Always false: a range holds at least one group.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// Whether a group lies in the range.
    pub const fn contains(self, group: KeyGroup) -> bool {
        self.start <= group.0 && group.0 <= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(value: u32) -> MaxParallelism {
        MaxParallelism::new(value).unwrap()
    }

    /// Fixed vectors: a change here strands every checkpoint ever written.
    #[test]
    fn when_the_code_changes_then_the_groups_do_not() {
        let of =
            |m: u32| [0, 1, 0x0200_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX].map(|h| groups(m).key_group(KeyHash(h)).0);
        assert_eq!(of(128), [0, 0, 1, 63, 64, 127]);
        assert_eq!(of(10), [0, 0, 0, 4, 5, 9]);
        assert_eq!(of(1), [0; 6]);
        assert_eq!(of(32768), [0, 0, 256, 16383, 16384, 32767]);
    }

    #[test]
    fn when_split_then_ranges_match_flinks() {
        let range = |m: u32, i, p| {
            let r = groups(m).range_of(i, p);
            (r.start, r.end)
        };
        assert_eq!([range(128, 0, 3), range(128, 1, 3), range(128, 2, 3)], [(0, 42), (43, 85), (86, 127)]);
        assert_eq!(
            [range(10, 0, 4), range(10, 1, 4), range(10, 2, 4), range(10, 3, 4)],
            [(0, 2), (3, 4), (5, 7), (8, 9)]
        );
    }

    #[test]
    fn when_split_any_way_then_every_group_has_the_owner_its_range_says() {
        for m in [1, 2, 10, 127, 128, 1000] {
            for p in 1..=m.min(40) {
                for group in 0..m {
                    let owner = groups(m).subtask_of(KeyGroup(group as u16), p);
                    assert!(groups(m).range_of(owner, p).contains(KeyGroup(group as u16)), "m {m} p {p} group {group}");
                }
            }
        }
    }

    #[test]
    fn when_derived_then_defaults_are_flinks() {
        let derived = |p| MaxParallelism::derived(p).get();
        assert_eq!(
            [derived(1), derived(85), derived(86), derived(171), derived(200), derived(1000), derived(20000)],
            [128, 128, 256, 256, 512, 2048, 32768]
        );
    }
}
