//! A four-way heap of timers in the order of their times.
//!
//! An entry does not hold its timer: it says enough to find the timer's row.

/// A timer in the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) timestamp: i64,
    /// Key hash and salt of the timer's row.
    pub(crate) hash: u32,
    pub(crate) salt: u32,
}

/// Entries, the earliest first. Order among equal times is arbitrary.
#[derive(Default)]
pub(crate) struct TimerHeap {
    entries: Vec<Entry>,
}

const WAYS: usize = 4;

impl TimerHeap {
    #[cfg(test)]
    const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Memory held, in bytes.
    pub(crate) const fn held_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
    }

    /// The earliest entry.
    pub(crate) fn first(&self) -> Option<Entry> {
        self.entries.first().copied()
    }

    /// The entry at a place between 0 and the length.
    pub(crate) fn get(&self, at: usize) -> Option<Entry> {
        self.entries.get(at).copied()
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        self.entries.push(entry);
        self.sift_up(self.entries.len() - 1, entry);
    }

    /// Removes the entry at a place; others may move there.
    pub(crate) fn remove(&mut self, at: usize) {
        let Some(last) = self.entries.pop() else { return };
        if at < self.entries.len() {
            let at = self.sift_down(at, last);
            self.sift_up(at, last);
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Puts `entry` at `at`, or above it where it is earlier than what is there.
    fn sift_up(&mut self, mut at: usize, entry: Entry) {
        while at > 0 {
            let parent = (at - 1) / WAYS;
            if self.entries[parent].timestamp <= entry.timestamp {
                break;
            }
            self.entries[at] = self.entries[parent];
            at = parent;
        }
        self.entries[at] = entry;
    }

    /// Puts `entry` at `at`, or below it where it is later than what is there. Answers where.
    fn sift_down(&mut self, mut at: usize, entry: Entry) -> usize {
        loop {
            let first = at * WAYS + 1;
            let children = first.min(self.entries.len())..(first + WAYS).min(self.entries.len());
            let earliest = children.min_by_key(|&child| self.entries[child].timestamp);
            match earliest {
                Some(child) if self.entries[child].timestamp < entry.timestamp => {
                    self.entries[at] = self.entries[child];
                    at = child;
                }
                _ => break,
            }
        }
        self.entries[at] = entry;
        at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn when_entries_come_and_go_then_the_first_is_the_earliest(
            ops in prop::collection::vec((any::<bool>(), -20i64..20, any::<usize>()), 0..300),
        ) {
            let mut heap = TimerHeap::default();
            let mut model = Vec::new();
            for (push, timestamp, at) in ops {
                if push || model.is_empty() {
                    heap.push(Entry { timestamp, hash: 0, salt: 0 });
                    model.push(timestamp);
                } else {
                    let at = at % heap.len();
                    let gone = heap.get(at).unwrap().timestamp;
                    heap.remove(at);
                    model.swap_remove(model.iter().position(|&t| t == gone).unwrap());
                }
                prop_assert_eq!(heap.first().map(|entry| entry.timestamp), model.iter().min().copied());
                prop_assert_eq!(heap.len(), model.len());
            }
            model.sort_unstable();
            for timestamp in model {
                prop_assert_eq!(heap.first().unwrap().timestamp, timestamp);
                heap.remove(0);
            }
        }
    }
}
