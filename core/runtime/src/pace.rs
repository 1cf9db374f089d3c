//! `Pace`: how many records a segment is asked for or given at once, so that a task's step takes 10 to 40 µs.

/// A step should take at most this long.
const MAX_STEP_NS: u64 = 40_000;
/// Under this a source is asked for more: what it makes at once should still be in the first cache when it is read.
const SHORT_POLL_NS: u64 = 10_000;
/// Under this an operator is given more: twice as much just stays within a step.
const SHORT_READ_NS: u64 = 20_000;

/// A number of records that follows the time they take.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    records: usize,
    max_records: usize,
    /// Steps under this are too short.
    short_ns: u64,
}

impl Pace {
    /// Of a source: starts at `records`, and never exceeds `max_records`.
    pub(crate) fn polling(records: usize, max_records: usize) -> Self {
        let max_records = max_records.max(1);
        Self { records: records.clamp(1, max_records), max_records, short_ns: SHORT_POLL_NS }
    }

    /// Of an operator: starts at `max_records`, which it never exceeds.
    pub(crate) fn reading(max_records: usize) -> Self {
        Self { records: max_records, max_records, short_ns: SHORT_READ_NS }
    }

    /// The number of records for the next step.
    #[inline]
    pub(crate) fn records(&self) -> usize {
        self.records
    }

    /// Whether there is no reason to give fewer than there may be.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.records == self.max_records
    }

    /// Takes in how long a step took. `full` says that it did as much as it was given: a quick step that did less is no
    /// reason to give more.
    #[inline]
    pub(crate) fn adapt(&mut self, step_ns: u64, full: bool) {
        if full && step_ns < self.short_ns {
            self.records = (self.records * 2).min(self.max_records);
        } else if step_ns > MAX_STEP_NS {
            self.records = (self.records / 2).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_steps_are_long_or_short_then_the_pace_follows_within_its_bounds() {
        let mut pace = Pace::polling(64, 1000);
        (0..10).for_each(|_| pace.adapt(5_000, true));
        assert!(pace.is_full());
        pace.adapt(20_000, true);
        assert_eq!(pace.records(), 1000);
        (0..20).for_each(|_| pace.adapt(1_000_000, false));
        assert_eq!(pace.records(), 1);
        pace.adapt(1_000, false);
        assert_eq!(pace.records(), 1);
    }

    #[test]
    fn when_one_step_of_an_operator_was_long_then_its_pace_comes_back_and_that_of_a_source_does_not() {
        let (mut reading, mut polling) = (Pace::reading(512), Pace::polling(512, 512));
        for pace in [&mut reading, &mut polling] {
            pace.adapt(100_000, true);
            assert_eq!(pace.records(), 256);
            // Half of what took 30 µs.
            pace.adapt(15_000, true);
        }
        assert_eq!((reading.records(), polling.records()), (512, 256));
    }
}
