//! Latency from scheduled send time, and the machine's own hiccups beside it.

pub mod cpu;
pub mod hiccup;
pub mod stalls;

use hdrhistogram::Histogram;

/// The largest latency that is told apart: a minute, in nanoseconds.
const MAX_NS: u64 = 60_000_000_000;

/// An empty histogram of nanoseconds, three digits.
///
/// # Panics
/// Never: the bounds are constant.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_NS, 3).expect("constant bounds")
}

/// Records a latency; beyond a minute, as a minute.
#[inline(always)]
pub fn record(histogram: &mut Histogram<u64>, ns: u64) {
    histogram.saturating_record(ns);
}
