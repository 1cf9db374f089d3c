//! `SliceBudget`: how much work a slice of writing is given, so that it takes the time it should on this machine.
//!
//! Tables count their work in nanoseconds that were measured on one machine when it was quiet. On a slower one, or where
//! others use the memory too, the same work takes several times as long; what slices have taken says how many.

/// What one slice may take: after it the stream has its turn.
const SLICE_NS: u64 = 20_000;
/// A slice that takes longer was too large.
const TOO_LONG_NS: u64 = SLICE_NS + SLICE_NS / 2;
/// Least budget: below it, what goes around a slice costs more than what is in it.
const LEAST_NS: u32 = 1_000;
const MOST_NS: u32 = SLICE_NS as u32;

/// See the module. The budget of the next slice, in estimated nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SliceBudget(u32);

impl Default for SliceBudget {
    fn default() -> Self {
        Self(MOST_NS)
    }
}

impl SliceBudget {
    pub(crate) const fn ns(self) -> u32 {
        self.0
    }

    /// What the next one is given after one that took so long. It shrinks faster than it grows: one slice in which the
    /// system ran something else is soon forgotten, and a slow machine is soon known.
    pub(crate) fn after(self, took_ns: u64) -> Self {
        let next = match took_ns {
            ..=SLICE_NS => self.0 + (self.0 / 16).max(1),
            TOO_LONG_NS.. => self.0 - self.0 / 4,
            _ => self.0,
        };
        Self(next.clamp(LEAST_NS, MOST_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Budgets of slices on a machine that takes `factor` times as long as was estimated.
    fn settled(factor: f64) -> u32 {
        let mut budget = SliceBudget::default();
        for _ in 0..200 {
            budget = budget.after((f64::from(budget.ns()) * factor) as u64);
        }
        budget.ns()
    }

    #[test]
    fn when_the_machine_is_as_it_was_measured_then_the_budget_is_the_slice() {
        assert_eq!(settled(1.0), MOST_NS);
        assert_eq!(settled(0.1), MOST_NS, "a faster one goes on sooner, not longer");
        assert_eq!(settled(0.0), MOST_NS, "as in simulation, where time stands still");
    }

    #[test]
    fn when_the_machine_is_slower_then_slices_take_about_as_long_as_they_may() {
        for factor in [2.0, 5.0, 15.0] {
            let took_ns = f64::from(settled(factor)) * factor;
            assert!((10_000.0..=30_000.0).contains(&took_ns), "{factor}: {took_ns}");
        }
        assert_eq!(settled(1e6), LEAST_NS);
    }

    #[test]
    fn when_one_slice_is_interrupted_then_the_budget_recovers() {
        let mut budget = SliceBudget::default().after(5_000_000);
        assert_eq!(budget.ns(), 15_000);
        (0..5).for_each(|_| budget = budget.after(u64::from(budget.ns())));
        assert_eq!(budget.ns(), MOST_NS);
    }
}
