//! Rescaling: which parts of a checkpoint each subtask of a new parallelism reads. Semantics are Flink's.

use thalweg_model::{KeyGroupRange, MaxParallelism};

/// A piece of an old subtask's keyed state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyedPart {
    /// Index of the old subtask.
    pub old_subtask: u32,
    /// The key groups of it that are wanted.
    pub groups: KeyGroupRange,
}

/// For each new subtask the pieces of keyed state, timers included, that it reads, in the order of key groups.
///
/// # Panics
/// Where a parallelism is 0 or exceeds the maximum parallelism, which cannot be changed once there is state.
pub fn keyed_parts(max: MaxParallelism, old: u32, new: u32) -> Vec<Vec<KeyedPart>> {
    assert!(old > 0 && new > 0, "there is at least one subtask");
    let parts_of = |index| {
        let wanted = max.range_of(index, new);
        // Ranges are contiguous and in order: only the owners of the first to the last group overlap.
        let owner = |group| max.subtask_of(thalweg_model::KeyGroup(group), old);
        let cut = |old_subtask| {
            let has = max.range_of(old_subtask, old);
            let groups = KeyGroupRange { start: wanted.start.max(has.start), end: wanted.end.min(has.end) };
            KeyedPart { old_subtask, groups }
        };
        (owner(wanted.start)..=owner(wanted.end)).map(cut).collect()
    };
    (0..new).map(parts_of).collect()
}

/// Some consecutive elements of an old subtask's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListPart {
    /// Index of the old subtask.
    pub old_subtask: u32,
    /// First element.
    pub first: usize,
    /// Number of elements, above 0.
    pub count: usize,
}

/// Splits the list states of an operator evenly: for each state and new subtask, the elements that it reads.
///
/// `lengths` holds, for each state, the number of elements per old subtask. The elements of a state, old subtask by old
/// subtask, are dealt out in contiguous runs whose lengths differ by one at most; a state's longer runs begin at the
/// subtask after the last longer run of the state before, so that many short lists do not all end at subtask 0.
/// Where the parallelism does not change, Flink leaves each subtask what it had: so does this.
pub fn split_lists(lengths: &[Vec<usize>], new: u32) -> Vec<Vec<Vec<ListPart>>> {
    assert!(new > 0, "there is at least one subtask");
    let mut start = 0;
    let mut split = |lengths: &Vec<usize>| {
        if lengths.len() == new as usize {
            return kept(lengths);
        }
        let total: usize = lengths.iter().sum();
        let (base, longer) = (total / new as usize, total % new as usize);
        let mut source = Source { lengths, subtask: 0, offset: 0 };
        let mut parts = vec![Vec::new(); new as usize];
        for turn in 0..new as usize {
            let target = (start + turn) % new as usize;
            parts[target] = source.take(base + usize::from(turn < longer));
        }
        start = (start + longer) % new as usize;
        parts
    };
    lengths.iter().map(&mut split).collect()
}

fn kept(lengths: &[usize]) -> Vec<Vec<ListPart>> {
    let whole = |(old, &count): (usize, &usize)| match count {
        0 => Vec::new(),
        _ => vec![ListPart { old_subtask: old as u32, first: 0, count }],
    };
    lengths.iter().enumerate().map(whole).collect()
}

/// The elements of a state, in order.
struct Source<'a> {
    lengths: &'a [usize],
    subtask: usize,
    offset: usize,
}

impl Source<'_> {
    fn take(&mut self, mut wanted: usize) -> Vec<ListPart> {
        let mut parts = Vec::new();
        while wanted > 0 {
            let left = self.lengths[self.subtask] - self.offset;
            if left == 0 {
                (self.subtask, self.offset) = (self.subtask + 1, 0);
                continue;
            }
            let count = left.min(wanted);
            parts.push(ListPart { old_subtask: self.subtask as u32, first: self.offset, count });
            self.offset += count;
            wanted -= count;
        }
        parts
    }
}

/// The old subtasks whose union list each new one reads: all of them, in order.
pub fn union_parts(old: u32) -> Vec<u32> {
    (0..old).collect()
}

/// The old subtask whose copy of broadcast state each new one reads: its own, or round robin beyond.
///
/// # Panics
/// Where there was no subtask.
pub fn broadcast_parts(old: u32, new: u32) -> Vec<u32> {
    assert!(old > 0, "there is at least one subtask");
    (0..new).map(|index| index % old).collect()
}

/// How the old subtasks' buffers in flight are spread over the new subtasks (Flink's `SubtaskStateMapper`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFlightMapping {
    /// Old subtask i goes to new subtask i modulo the new parallelism. Also where any place would do.
    RoundRobin,
    /// All go to subtask 0.
    First,
    /// To each whose key groups overlap; the receiver drops records of groups that are not its own.
    Range,
    /// All go to all; the receiver drops what is not its own.
    Full,
}

impl InFlightMapping {
    /// The old subtasks whose buffers a new subtask takes.
    pub fn old_subtasks(self, new_subtask: u32, old: u32, new: u32, max: MaxParallelism) -> Vec<u32> {
        assert!(new_subtask < new && old > 0);
        match self {
            Self::RoundRobin => (new_subtask..old).step_by(new as usize).collect(),
            Self::First if new_subtask == 0 => (0..old).collect(),
            Self::First => Vec::new(),
            Self::Full => (0..old).collect(),
            Self::Range => {
                let range = max.range_of(new_subtask, new);
                let owner = |group| max.subtask_of(thalweg_model::KeyGroup(group), old);
                (owner(range.start)..=owner(range.end)).collect()
            }
        }
    }
}

/// The ways in which an edge spreads records, as far as unaligned checkpoints differ between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Same index.
    Forward,
    /// Round robin within a share.
    Rescale,
    /// Round robin.
    Rebalance,
    /// At random.
    Shuffle,
    /// All to subtask 0.
    Global,
    /// By key group.
    Hash,
    /// All to all.
    Broadcast,
    /// As the user says.
    Custom,
}

impl Exchange {
    /// Whether barriers may overtake records on it; `forced`: `execution.checkpointing.unaligned.forced`.
    pub fn allows_unaligned(self, forced: bool) -> bool {
        match self {
            Self::Forward | Self::Rescale | Self::Broadcast => false,
            Self::Rebalance | Self::Shuffle | Self::Global | Self::Hash => true,
            Self::Custom => forced,
        }
    }

    /// How buffers in flight move when the sender's and the receiver's parallelism change (in this order); `None` where
    /// there are none to move.
    pub fn in_flight(self) -> Option<(InFlightMapping, InFlightMapping)> {
        use InFlightMapping::*;
        match self {
            Self::Forward | Self::Rescale | Self::Broadcast => None,
            Self::Rebalance | Self::Shuffle => Some((RoundRobin, RoundRobin)),
            Self::Global => Some((RoundRobin, First)),
            Self::Hash => Some((RoundRobin, Range)),
            Self::Custom => Some((RoundRobin, Full)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn max(value: u32) -> MaxParallelism {
        MaxParallelism::new(value).unwrap()
    }

    fn keyed(m: u32, old: u32, new: u32) -> Vec<Vec<(u32, u16, u16)>> {
        let plain = |part: KeyedPart| (part.old_subtask, part.groups.start, part.groups.end);
        keyed_parts(max(m), old, new).into_iter().map(|parts| parts.into_iter().map(plain).collect()).collect()
    }

    #[test]
    fn when_keyed_state_is_rescaled_then_ranges_are_recut_as_flink_does() {
        // 128 groups at 3: 0-42, 43-85, 86-127; 10 groups at 4: 0-2, 3-4, 5-7, 8-9.
        assert_eq!(keyed(128, 1, 3), [[(0, 0, 42)], [(0, 43, 85)], [(0, 86, 127)]]);
        assert_eq!(keyed(10, 4, 1), [[(0, 0, 2), (1, 3, 4), (2, 5, 7), (3, 8, 9)]]);
        assert_eq!(keyed(128, 3, 2), [vec![(0, 0, 42), (1, 43, 63)], vec![(1, 64, 85), (2, 86, 127)]]);
        assert_eq!(keyed(10, 4, 4), [[(0, 0, 2)], [(1, 3, 4)], [(2, 5, 7)], [(3, 8, 9)]]);
    }

    #[test]
    fn when_rescaled_any_way_then_each_group_is_read_once_from_its_owner_by_its_owner() {
        for m in [1, 7, 128, 1000] {
            for old in 1..=m.min(17) {
                for new in 1..=m.min(17) {
                    let mut next = 0;
                    for (index, parts) in keyed_parts(max(m), old, new).into_iter().enumerate() {
                        for KeyedPart { old_subtask, groups } in parts {
                            assert_eq!(u32::from(groups.start), next, "{m} groups, {old} to {new}");
                            for group in groups.start..=groups.end {
                                let group = thalweg_model::KeyGroup(group);
                                assert_eq!(max(m).subtask_of(group, old), old_subtask);
                                assert_eq!(max(m).subtask_of(group, new), index as u32);
                            }
                            next = u32::from(groups.end) + 1;
                        }
                    }
                    assert_eq!(next, m);
                }
            }
        }
    }

    #[test]
    fn when_lists_are_split_then_runs_are_even_contiguous_and_complete() {
        let part = |old_subtask, first, count| ListPart { old_subtask, first, count };
        let split = split_lists(&[vec![3, 2]], 3);
        assert_eq!(split[0], [vec![part(0, 0, 2)], vec![part(0, 2, 1), part(1, 0, 1)], vec![part(1, 1, 1)]]);
        // One element each: the second state's goes to the next subtask.
        let split = split_lists(&[vec![1, 0], vec![0, 1], vec![1, 0]], 4);
        let owners: Vec<usize> = split.iter().map(|s| s.iter().position(|parts| !parts.is_empty()).unwrap()).collect();
        assert_eq!(owners, [0, 1, 2]);
        assert_eq!(split_lists(&[vec![5, 0]], 2)[0], [vec![part(0, 0, 5)], vec![]], "same parallelism: as it was");
        for new in 1..9 {
            let lengths = [vec![4, 0, 7], vec![0, 0, 0], vec![1, 1, 1]];
            if new == 3 {
                continue;
            }
            for (lengths, state) in lengths.iter().zip(split_lists(&lengths, new)) {
                let counts: Vec<usize> = state.iter().map(|p| p.iter().map(|part| part.count).sum()).collect();
                assert_eq!(counts.iter().sum::<usize>(), lengths.iter().sum::<usize>());
                assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
                let mut all: Vec<(u32, usize)> = state.iter().flatten().map(|p| (p.old_subtask, p.first)).collect();
                all.sort_unstable();
                all.dedup();
                assert_eq!(all.len(), state.iter().flatten().count(), "no element twice");
            }
        }
    }

    #[test]
    fn when_state_is_union_or_broadcast_then_all_or_one_copy_is_read() {
        assert_eq!(union_parts(3), [0, 1, 2]);
        assert_eq!(broadcast_parts(2, 5), [0, 1, 0, 1, 0]);
        assert_eq!(broadcast_parts(4, 2), [0, 1]);
    }

    #[test]
    fn when_buffers_are_in_flight_then_they_move_as_the_exchange_says() {
        use InFlightMapping::*;
        let of = |mapping: InFlightMapping, index, old, new| mapping.old_subtasks(index, old, new, max(128));
        assert_eq!([of(RoundRobin, 0, 5, 2), of(RoundRobin, 1, 5, 2)], [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(of(RoundRobin, 3, 2, 4), Vec::<u32>::new());
        assert_eq!([of(First, 0, 2, 3), of(First, 1, 2, 3)], [vec![0, 1], vec![]]);
        assert_eq!([of(Range, 0, 3, 2), of(Range, 1, 3, 2)], [vec![0, 1], vec![1, 2]]);
        assert_eq!(of(Full, 1, 3, 2), [0, 1, 2]);
        assert_eq!(Exchange::Hash.in_flight(), Some((RoundRobin, Range)));
        assert_eq!(Exchange::Global.in_flight(), Some((RoundRobin, First)));
        assert_eq!(Exchange::Custom.in_flight(), Some((RoundRobin, Full)));
        for pointwise in [Exchange::Forward, Exchange::Rescale, Exchange::Broadcast] {
            assert!(!pointwise.allows_unaligned(true) && pointwise.in_flight().is_none());
        }
        assert!(!Exchange::Custom.allows_unaligned(false) && Exchange::Custom.allows_unaligned(true));
    }
}
