//! A distribution of whole numbers in logarithmic buckets, cheap to record into and of fixed size.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Buckets per power of two: a value is known to 1 in 32, about 3 %.
const SUB_BITS: u32 = 5;
const SUB_COUNT: usize = 1 << SUB_BITS;
/// Values of this many bits and more share the last bucket: 2^40 ns are 18 minutes, 2^40 ms are 34 years.
const VALUE_BITS_MAX: u32 = 40;
const BUCKET_COUNT: usize = SUB_COUNT * (VALUE_BITS_MAX - SUB_BITS + 1) as usize;
/// Quantiles cover this span at least and twice this span at most.
const SPAN_MS: u64 = 60_000;

/// A distribution. One writer, any number of readers; clones are the same histogram.
///
/// The count and the sum cover everything recorded; quantiles cover the last one to two minutes, if somebody ticks the
/// registry, and everything otherwise. Takes 9 KiB.
#[derive(Clone)]
pub struct Histogram(Arc<Cells>);

struct Cells {
    count: AtomicU64,
    sum: AtomicU64,
    /// Which half is recorded into; written by the exporter's tick, read by the writer. A record that races with a
    /// change lands in either half, which only blurs where it is forgotten.
    current: AtomicU32,
    changed_ms: AtomicU64,
    halves: [Box<[AtomicU32]>; 2],
}

/// What a [`Histogram`] held at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistogramSnapshot {
    count: u64,
    sum: u64,
    recent: u64,
    buckets: Vec<u64>,
}

fn bucket_of(value: u64) -> usize {
    let value = value.min((1 << VALUE_BITS_MAX) - 1);
    let bits = u64::BITS - value.leading_zeros();
    if bits <= SUB_BITS {
        return value as usize;
    }
    let shift = bits - SUB_BITS - 1;
    // The leading bit selects the row, the SUB_BITS that follow it the bucket within.
    (shift as usize + 1) * SUB_COUNT + ((value >> shift) as usize - SUB_COUNT)
}

/// The middle of a bucket, exact below 64.
fn value_of(bucket: usize) -> u64 {
    if bucket < SUB_COUNT {
        return bucket as u64;
    }
    let shift = (bucket / SUB_COUNT - 1) as u32;
    let low = ((bucket % SUB_COUNT + SUB_COUNT) as u64) << shift;
    low + ((1_u64 << shift) >> 1)
}

impl Default for Histogram {
    fn default() -> Self {
        let half = || (0..BUCKET_COUNT).map(|_| AtomicU32::new(0)).collect();
        Self(Arc::new(Cells {
            count: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            current: AtomicU32::new(0),
            changed_ms: AtomicU64::new(u64::MAX),
            halves: [half(), half()],
        }))
    }
}

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Histogram").field("count", &self.0.count.load(Relaxed)).finish()
    }
}

impl Histogram {
    /// Records a value. Only one thread may write.
    #[inline]
    pub fn record(&self, value: u64) {
        self.record_n(value, 1);
    }

    /// Records a value that was seen `count` times. Only one thread may write.
    pub fn record_n(&self, value: u64, count: u32) {
        let cells = &*self.0;
        let half = &cells.halves[(cells.current.load(Relaxed) & 1) as usize];
        let cell = &half[bucket_of(value)];
        cell.store(cell.load(Relaxed).saturating_add(count), Relaxed);
        cells.sum.store(cells.sum.load(Relaxed).saturating_add(value.saturating_mul(count.into())), Relaxed);
        cells.count.store(cells.count.load(Relaxed) + u64::from(count), Relaxed);
    }

    /// What it holds now.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let [one, two] = &self.0.halves;
        let buckets: Vec<u64> =
            one.iter().zip(two).map(|(a, b)| u64::from(a.load(Relaxed)) + u64::from(b.load(Relaxed))).collect();
        let recent = buckets.iter().sum();
        HistogramSnapshot { count: self.0.count.load(Relaxed), sum: self.0.sum.load(Relaxed), recent, buckets }
    }

    /// Once a span has passed, forgets the older half and goes on in it.
    pub(super) fn tick(&self, now_ms: u64) {
        let cells = &*self.0;
        let changed_ms = cells.changed_ms.load(Relaxed);
        if changed_ms == u64::MAX {
            cells.changed_ms.store(now_ms, Relaxed);
        } else if now_ms.saturating_sub(changed_ms) >= SPAN_MS {
            let next = (cells.current.load(Relaxed) + 1) & 1;
            for cell in &cells.halves[next as usize] {
                cell.store(0, Relaxed);
            }
            cells.current.store(next, Relaxed);
            cells.changed_ms.store(now_ms, Relaxed);
        }
    }
}

impl HistogramSnapshot {
    /// Values recorded since the start.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sum of the values recorded since the start; stays at the largest number there is.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The value that a fraction `q` (0 to 1) of the recent values does not exceed, to 3 %; 0 if there are none.
    pub fn quantile(&self, q: f64) -> u64 {
        let rank = ((q.clamp(0.0, 1.0) * self.recent as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return value_of(bucket);
            }
        }
        0
    }

    /// Smallest recent value; 0 if there are none.
    pub fn min(&self) -> u64 {
        self.quantile(0.0)
    }

    /// Largest recent value; 0 if there are none.
    pub fn max(&self) -> u64 {
        self.quantile(1.0)
    }

    /// Mean of the recent values; 0 if there are none.
    pub fn mean(&self) -> f64 {
        let sum: f64 = self.values().map(|(value, count)| value * count).sum();
        sum / self.recent.max(1) as f64
    }

    /// Standard deviation of the recent values; 0 if there are none.
    pub fn stddev(&self) -> f64 {
        let mean = self.mean();
        let sum: f64 = self.values().map(|(value, count)| (value - mean).powi(2) * count).sum();
        (sum / self.recent.max(1) as f64).sqrt()
    }

    fn values(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let used = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        used.map(|(bucket, &count)| (value_of(bucket) as f64, count as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_any_value_then_its_bucket_is_within_three_percent() {
        let mut last = 0;
        for exponent in 0..VALUE_BITS_MAX {
            for offset in [0, 1, 3, 7, 1 << exponent >> 1] {
                let value = ((1_u64 << exponent) + offset).min((1 << VALUE_BITS_MAX) - 1);
                let back = value_of(bucket_of(value));
                assert!(back.abs_diff(value) * 32 <= value, "{value} came back as {back}");
            }
            let bucket = bucket_of(1 << exponent);
            assert!(bucket > last || exponent == 0);
            last = bucket;
        }
        assert_eq!(bucket_of(u64::MAX), BUCKET_COUNT - 1);
        assert_eq!(bucket_of((1 << VALUE_BITS_MAX) - 1), BUCKET_COUNT - 1);
    }

    #[test]
    fn when_recorded_then_quantiles_are_those_of_the_values() {
        let histogram = Histogram::default();
        assert_eq!(histogram.snapshot().quantile(0.5), 0);
        for value in 1..=1_000 {
            histogram.record(value);
        }
        let snapshot = histogram.snapshot();
        assert_eq!((snapshot.count(), snapshot.sum(), snapshot.min()), (1_000, 500_500, 1));
        for (q, expected) in [(0.5, 500_u64), (0.99, 990), (1.0, 1_000)] {
            assert!(snapshot.quantile(q).abs_diff(expected) * 32 <= expected, "{q}: {}", snapshot.quantile(q));
        }
        assert!((snapshot.mean() - 500.5).abs() < 16.0);
        assert!((snapshot.stddev() - 288.7).abs() < 10.0);
    }

    #[test]
    fn when_two_spans_have_passed_then_quantiles_forget_and_the_count_stays() {
        let histogram = Histogram::default();
        histogram.tick(0);
        histogram.record(1_000_000);
        histogram.tick(SPAN_MS);
        histogram.record(10);
        assert!(histogram.snapshot().max() > 900_000);
        histogram.tick(2 * SPAN_MS);
        assert_eq!(histogram.snapshot().max(), 10);
        assert_eq!(histogram.snapshot().count(), 2);
    }
}
