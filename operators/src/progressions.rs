//! `Progressions`: the numbers that a subtask of a counting source still has to make, through any change of parallelism.
//!
//! Subtask `i` of `p` makes the numbers `n` with `n mod p = i`. Subtasks are never equally far, so at another parallelism
//! some numbers below the highest one reached are still missing: those become *leftovers*, progressions with an end, which
//! are dealt out whole. From the number on that nobody has reached, the new subtasks divide by the new remainder. A subtask
//! makes its numbers in increasing order, leftovers merged, so that timestamps that follow the numbers never go back.
//!
//! Size of the state: one progression a subtask, and for each change of parallelism at most one more for each subtask then,
//! until its numbers are made; without a change, leftovers of the same remainder join.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
};

use thalweg_derive::Record;

use crate::{
    checkpoint::{OperatorRestore, OperatorSnapshot},
    source::SourceError,
};

/// The state's name in checkpoints.
const STATE: &str = "numbers";

/// The numbers `next`, `next + step`, ... below `end`. A position of a counting source in a checkpoint.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Progression {
    /// The first of them.
    pub next: u64,
    /// From one to the next; above 0.
    pub step: u64,
    /// The first number beyond them; [`OPEN`](Self::OPEN) where the source's count is their end.
    pub end: u64,
}

impl Progression {
    /// The end of a progression that goes on as long as its source does.
    pub const OPEN: u64 = u64::MAX;

    fn is_open(self) -> bool {
        self.end == Self::OPEN
    }

    /// The first number of remainder `remainder` that is not below `from`.
    fn first(from: u64, remainder: u64, step: u64) -> u64 {
        let ahead = (remainder + step - from % step) % step;
        from.saturating_add(ahead)
    }
}

/// Numbers to make one after the other: `next`, `next + step`, ... below `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first.
    pub next: u64,
    /// From one to the next.
    pub step: u64,
    /// Beyond the last.
    pub until: u64,
}

impl Run {
    /// How many there are.
    #[inline]
    pub fn left(&self) -> u64 {
        self.until.saturating_sub(self.next).div_ceil(self.step)
    }
}

/// The numbers of `0..count` that one subtask has to make.
///
/// Take the [`run`](Self::run), make numbers of it in a loop of your own, and say with [`reached`](Self::reached) which one
/// is next; until [`is_done`](Self::is_done). Hand over to a [`Source`](crate::source::Source)'s hooks of the same names.
#[derive(Clone, Debug)]
pub struct Progressions {
    count: u64,
    run: Run,
    /// Where the progression ends whose run is at hand.
    end: u64,
    /// The others. The open one is at hand only when it is the last.
    waiting: BinaryHeap<Reverse<Progression>>,
}

impl Progressions {
    /// Of the numbers `0..count`, all, until [`open`](Self::open) says otherwise.
    pub fn new(count: u64) -> Self {
        let run = Run { next: 0, step: 1, until: count };
        Self { count, run, end: Progression::OPEN, waiting: BinaryHeap::new() }
    }

    /// Those of a subtask, from the start.
    ///
    /// # Panics
    /// Where `parallelism` is 0.
    pub fn open(&mut self, subtask: u32, parallelism: u32) {
        self.begin(0, Vec::new(), subtask, parallelism);
    }

    /// What is missing in the checkpoint, as far as this subtask has to make it.
    ///
    /// # Errors
    /// Where the positions cannot be read.
    pub fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), SourceError> {
        let positions = restored.positions::<Progression>(STATE).map_err(|error| error.message)?;
        self.resume(&positions, restored.subtask(), restored.parallelism());
        Ok(())
    }

    /// Hands over what is missing.
    pub fn snapshot(&self, snapshot: &mut OperatorSnapshot<'_>) {
        snapshot.positions::<Progression>(STATE, self.positions());
    }

    /// The numbers at hand, in increasing order.
    #[inline(always)]
    pub fn run(&self) -> Run {
        self.run
    }

    /// The numbers of the run below `next` are made.
    #[inline(always)]
    pub fn reached(&mut self, next: u64) {
        self.run.next = next;
        if next >= self.run.until {
            self.turn();
        }
    }

    /// Whether all numbers are made.
    #[inline(always)]
    pub fn is_done(&self) -> bool {
        self.run.next >= self.run.until
    }

    /// The run is over: goes on with the smallest number that is missing.
    #[cold]
    fn turn(&mut self) {
        let at_hand = Progression { next: self.run.next, step: self.run.step, end: self.end };
        let smallest = match self.waiting.peek_mut() {
            // The one at hand goes on, or has to wait for its turn.
            Some(mut top) if at_hand.next < at_hand.end => {
                let (smaller, larger) = (at_hand.min(top.0), at_hand.max(top.0));
                top.0 = larger;
                smaller
            }
            Some(top) => PeekMut::pop(top).0,
            None => at_hand,
        };
        self.take(smallest);
    }

    fn take(&mut self, smallest: Progression) {
        let Progression { next, step, end } = smallest;
        let other = self.waiting.peek().map_or(u64::MAX, |other| other.0.next);
        self.run = Run { next, step, until: end.min(self.count).min(other) };
        self.end = end;
    }

    /// What is missing: the open progression, and leftovers.
    fn positions(&self) -> Vec<Progression> {
        let at_hand = Progression { next: self.run.next, step: self.run.step, end: self.end };
        self.waiting.iter().map(|waiting| waiting.0).chain([at_hand]).collect()
    }

    /// Takes this subtask's share of what is missing of all subtasks together.
    fn resume(&mut self, positions: &[Progression], subtask: u32, parallelism: u32) {
        let (from, leftovers) = missing(positions, self.count);
        let own = leftovers.into_iter().skip(subtask as usize).step_by(parallelism as usize);
        self.begin(from, own.collect(), subtask, parallelism);
    }

    fn begin(&mut self, from: u64, leftovers: Vec<Progression>, subtask: u32, parallelism: u32) {
        let (remainder, step) = (u64::from(subtask), u64::from(parallelism));
        let next = Progression::first(from, remainder, step);
        self.waiting = leftovers.into_iter().map(Reverse).collect();
        self.waiting.push(Reverse(Progression { next, step, end: Progression::OPEN }));
        if let Some(Reverse(smallest)) = self.waiting.pop() {
            self.take(smallest);
        }
    }
}

/// From the positions of all subtasks of a source of `0..count`: the number from which on all are missing, and what is
/// missing below it, by increasing first number.
fn missing(positions: &[Progression], count: u64) -> (u64, Vec<Progression>) {
    let (open, mut leftovers): (Vec<_>, Vec<_>) = positions.iter().copied().partition(|position| position.is_open());
    let from = match open.iter().max() {
        // One for each remainder: of no remainder has anybody made a number above the last one of the farthest.
        Some(farthest) if open.len() as u64 == farthest.step => (farthest.next + 1).saturating_sub(farthest.step),
        // Subtasks that had finished are not in the checkpoint, and all numbers of their remainders are made.
        _ => count,
    };
    leftovers.extend(open.iter().map(|open| Progression { end: from, ..*open }));
    leftovers.retain(|leftover| leftover.next < leftover.end);
    leftovers.sort_unstable_by_key(|leftover| (leftover.step, leftover.next % leftover.step, leftover.next));
    leftovers.dedup_by(|after, before| {
        let goes_on = after.step == before.step
            && Progression::first(before.end, before.next % before.step, before.step) == after.next;
        if goes_on {
            before.end = after.end;
        }
        goes_on
    });
    leftovers.sort_unstable();
    (from, leftovers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Makes up to `budget` numbers.
    fn make(numbers: &mut Progressions, budget: u64, made: &mut Vec<u64>) {
        let mut left = budget;
        while left > 0 && !numbers.is_done() {
            let Run { mut next, step, until } = numbers.run();
            while next < until && left > 0 {
                made.push(next);
                next += step;
                left -= 1;
            }
            numbers.reached(next);
        }
    }

    fn subtasks(count: u64, parallelism: u32, positions: Option<&[Progression]>) -> Vec<Progressions> {
        let subtask = |index| {
            let mut numbers = Progressions::new(count);
            match positions {
                Some(positions) => numbers.resume(positions, index, parallelism),
                None => numbers.open(index, parallelism),
            }
            numbers
        };
        (0..parallelism).map(subtask).collect()
    }

    fn positions(subtasks: &[Progressions], drop_finished: bool) -> Vec<Progression> {
        let kept = subtasks.iter().filter(|numbers| !(drop_finished && numbers.is_done()));
        kept.flat_map(Progressions::positions).collect()
    }

    proptest! {
        #[test]
        fn when_the_parallelism_changes_at_any_cut_then_every_number_is_made_once(
            count in 0u64..600,
            attempts in prop::collection::vec((1u32..9, prop::collection::vec(0u64..60, 8), any::<bool>()), 1..9),
            last in 1u32..9,
        ) {
            let mut made = Vec::new();
            let mut at: Option<Vec<Progression>> = None;
            for (parallelism, budgets, drop_finished) in attempts {
                let mut all = subtasks(count, parallelism, at.as_deref());
                for (numbers, budget) in all.iter_mut().zip(budgets) {
                    let begin = made.len();
                    make(numbers, budget, &mut made);
                    prop_assert!(made[begin..].is_sorted(), "{:?}", &made[begin..]);
                }
                at = Some(positions(&all, drop_finished));
            }
            for mut numbers in subtasks(count, last, at.as_deref()) {
                make(&mut numbers, u64::MAX, &mut made);
                prop_assert!(numbers.is_done());
            }
            made.sort_unstable();
            prop_assert_eq!(made, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn when_nothing_is_made_between_restores_then_the_state_does_not_grow() {
        let mut all = subtasks(u64::MAX, 4, None);
        all.iter_mut().zip([5, 0, 17, 3]).for_each(|(numbers, budget)| make(numbers, budget, &mut Vec::new()));
        let first = positions(&subtasks(u64::MAX, 3, Some(&positions(&all, false))), false);
        let mut at = first.clone();
        for parallelism in [3, 7, 1, 3, 5, 3] {
            at = positions(&subtasks(u64::MAX, parallelism, Some(&at)), false);
        }
        assert_eq!(at.len(), first.len());
    }

    #[test]
    fn when_one_subtask_never_advances_then_its_leftovers_join() {
        let mut at = positions(&subtasks(u64::MAX, 3, None), false);
        for _ in 0..50 {
            let mut all = subtasks(u64::MAX, 3, Some(&at));
            make(&mut all[1], 100, &mut Vec::new());
            make(&mut all[2], 90, &mut Vec::new());
            at = positions(&all, false);
        }
        assert!(at.len() <= 6, "{at:?}");
    }

    #[test]
    fn when_subtasks_are_equally_far_then_there_are_no_leftovers() {
        let mut all = subtasks(1_000, 4, None);
        all.iter_mut().for_each(|numbers| make(numbers, 10, &mut Vec::new()));
        assert_eq!(missing(&positions(&all, false), 1_000), (40, Vec::new()));
    }
}
