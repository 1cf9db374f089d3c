//! Pairs: the limit and the job by turns, so that both meet the machine in the same mood; medians, and all runs shown.

use std::fmt::Write as _;

use crate::report::rate;

/// The middle of some numbers; of an even count, the mean of the middle two.
///
/// # Panics
/// Where there are none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    assert!(!values.is_empty(), "no runs, no median");
    values.sort_by(f64::total_cmp);
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
}

/// The rates of a limit and a job that ran one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Records per second of the limit.
    pub limit: f64,
    /// Records per second of the job.
    pub job: f64,
}

impl Pair {
    /// The job's rate as a share of the limit's.
    pub fn ratio(&self) -> f64 {
        self.job / self.limit
    }
}

/// All pairs of a measurement.
#[derive(Clone, Debug, Default)]
pub struct Pairs(pub Vec<Pair>);

impl Pairs {
    /// The median rate of the limit.
    pub fn limit(&self) -> f64 {
        median(self.0.iter().map(|pair| pair.limit))
    }

    /// The median rate of the job.
    pub fn job(&self) -> f64 {
        median(self.0.iter().map(|pair| pair.job))
    }

    /// The median of the pairs' ratios.
    pub fn ratio(&self) -> f64 {
        median(self.0.iter().map(Pair::ratio))
    }

    /// Every run, as a table.
    pub fn table(&self) -> String {
        let mut text = String::from("  run     limit/s       job/s   ratio\n");
        for (index, pair) in self.0.iter().enumerate() {
            writeln!(
                text,
                "  {:>3}  {:>10}  {:>10}  {:>5.0} %",
                index + 1,
                rate(pair.limit),
                rate(pair.job),
                pair.ratio() * 100.0
            )
            .expect("writing to a string");
        }
        writeln!(text, "  median of the pairs' ratios: {:.0} %", self.ratio() * 100.0).expect("writing to a string");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_runs_differ_then_the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        let pairs = Pairs([(100.0, 50.0), (200.0, 60.0), (100.0, 90.0)].map(|(limit, job)| Pair { limit, job }).into());
        assert_eq!((pairs.limit(), pairs.job(), pairs.ratio()), (100.0, 60.0, 0.5));
        assert!(pairs.table().contains("30 %"), "{}", pairs.table());
    }
}
