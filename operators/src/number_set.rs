//! `NumberSet`: a set of numbers that lie close together, as ranges.

use std::collections::BTreeMap;

/// A set of numbers, in memory that grows with the number of gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NumberSet {
    /// From the first number of a range to the first beyond it. Ranges neither touch nor are empty.
    ranges: BTreeMap<u64, u64>,
}

impl NumberSet {
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, end)| number < *end)
    }

    /// Adds the numbers from `start` to below `end`.
    pub(crate) fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (mut start, mut end) = (start, end);
        while let Some((&from, &to)) = self.ranges.range(..=end).next_back().filter(|(_, to)| **to >= start) {
            self.ranges.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        self.ranges.insert(start, end);
    }

    pub(crate) fn insert_all(&mut self, other: &Self) {
        other.ranges().for_each(|(start, end)| self.insert(start, end));
    }

    /// Takes out the range that begins at `from` or before, if `from` is in it or at its end; answers where it ends.
    pub(crate) fn take_prefix(&mut self, from: u64) -> Option<u64> {
        let (&start, &end) = self.ranges.first_key_value().filter(|(start, _)| **start <= from)?;
        self.ranges.remove(&start);
        Some(end.max(from))
    }

    /// Its ranges, ascending: the first number, and the first beyond.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges.iter().map(|(start, end)| (*start, *end))
    }

    /// Whether every number of it is in `other`, or below `below`.
    pub(crate) fn is_within(&self, other: &Self, below: u64) -> bool {
        self.ranges().all(|(start, end)| {
            let start = start.max(below);
            start >= end || other.ranges.range(..=start).next_back().is_some_and(|(_, to)| end <= *to)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn when_ranges_are_added_then_the_set_holds_just_them(
            added in prop::collection::vec((0u64..60, 0u64..9), 0..30),
            other in prop::collection::vec((0u64..60, 0u64..30), 0..5),
            below in 0u64..60,
        ) {
            let build = |parts: &[(u64, u64)]| {
                let (mut set, mut model) = (NumberSet::default(), BTreeSet::new());
                for &(start, count) in parts {
                    set.insert(start, start + count);
                    model.extend(start..start + count);
                }
                (set, model)
            };
            let (mut set, mut model) = build(&added);
            for number in 0..100 {
                prop_assert_eq!(set.contains(number), model.contains(&number));
            }
            let ranges: Vec<_> = set.ranges().collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0), "{:?}", ranges);
            let (other, other_model) = build(&other);
            let within = model.iter().all(|number| *number < below || other_model.contains(number));
            prop_assert_eq!(set.is_within(&other, below), within);

            let prefix = set.take_prefix(0);
            prop_assert_eq!(prefix.is_some(), model.remove(&0));
            if let Some(end) = prefix {
                prop_assert!((1..end).all(|number| model.remove(&number)) && !model.contains(&end));
            }
            prop_assert_eq!(set.ranges().map(|(start, end)| end - start).sum::<u64>(), model.len() as u64);
        }
    }
}
