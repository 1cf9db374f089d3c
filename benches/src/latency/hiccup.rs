//! The hiccup probe: what the machine does to a loop that does nothing but look at the clock.
//!
//! One pinned thread per core, spinning. Records are due at the same rate as in the job beside it; whenever the loop looks, those
//! that have become due are recorded with the time since. A loop that is never interrupted sees tens of nanoseconds; where it
//! is kept from running, every record that was due meanwhile sees the rest of the gap, as it would in the best of engines.
//!
//! A loop that touches no memory never waits for the pages that the host of a virtual machine moves, merges or takes back:
//! beside a job that keeps state the probe changes a row for each record, in as much memory.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::stalls::{StallMeter, Stalls};
use crate::limits::memory::HugeSlice;
use crate::limits::pinned::on_cores;

/// What a probe saw.
#[derive(Debug)]
pub struct Probed {
    /// How late the records were, in nanoseconds.
    pub latency: Histogram<u64>,
    /// How often the loops did not come round for how long.
    pub stalls: Stalls,
    /// The same without the time that the system gave to others.
    pub own_stalls: Stalls,
}

/// Rows in memory, changed at random places.
pub struct ProbeRows {
    words: HugeSlice<u64>,
    row_words: usize,
}

impl ProbeRows {
    /// Rows of so many bytes, in all about `bytes`; at least one row of at least a word.
    pub fn new(bytes: u64, row_bytes: u64) -> Self {
        let row_words = (row_bytes / 8).max(1) as usize;
        let rows = (bytes / 8) as usize / row_words;
        Self { words: HugeSlice::new(rows.max(1) * row_words), row_words }
    }

    /// Changes the begin and the end of a row, which one depending on `n`.
    #[inline(always)]
    fn change(&mut self, n: u64) {
        // A step by the golden ratio, mixed: neighbours are far apart, and none is foreseen by the processor.
        let hash = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let hash = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let words = self.words.as_mut_slice();
        let rows = words.len() / self.row_words;
        let row = ((u128::from(hash) * rows as u128) >> 64) as usize * self.row_words;
        words[row] += 1;
        words[row + self.row_words - 1] = n;
    }
}

/// Probes `cores` for a while, with `records_per_s` due in all, and answers how late they were.
///
/// # Panics
/// Where there are no cores or no rate.
pub fn probe(cores: &[usize], records_per_s: f64, duration: Duration) -> Histogram<u64> {
    run(cores, records_per_s, duration, cores.to_vec(), |_, _| {}).latency
}

/// As [`probe`], changing a row for each record: of those of each core, of which there have to be as many as cores.
///
/// # Panics
/// As [`probe`].
pub fn probe_rows(cores: &[usize], records_per_s: f64, duration: Duration, rows: &mut [ProbeRows]) -> Probed {
    run(cores, records_per_s, duration, rows.iter_mut().collect(), |rows, n| rows.change(n))
}

fn run<S: Send>(
    cores: &[usize],
    records_per_s: f64,
    duration: Duration,
    parts: Vec<S>,
    work: impl Fn(&mut S, u64) + Sync,
) -> Probed {
    assert!(records_per_s > 0.0, "no rate, no latency");
    let line = Barrier::new(parts.len());
    let interval_ns = 1e9 * parts.len() as f64 / records_per_s;
    let all = on_cores(cores, parts, |_, mut part| {
        let (mut latency, mut meter) = (super::histogram(), StallMeter::new());
        line.wait();
        let started = Instant::now();
        let (mut due, mut next, mut n) = (0.0f64, 0u64, 0u64);
        loop {
            let now = Instant::now();
            let now_ns = (now - started).as_nanos() as u64;
            meter.called(now);
            while next <= now_ns {
                work(&mut part, n);
                super::record(&mut latency, now_ns - next);
                n += 1;
                due += 1.0;
                next = (due * interval_ns) as u64;
            }
            if now_ns >= duration.as_nanos() as u64 {
                return (latency, meter);
            }
        }
    });
    let mut probed = Probed { latency: super::histogram(), stalls: Stalls::default(), own_stalls: Stalls::default() };
    for (latency, meter) in all {
        probed.latency.add(latency).expect("the same bounds");
        probed.stalls.add(&meter.all);
        probed.own_stalls.add(&meter.own);
    }
    probed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::pinned::available_cores;

    #[test]
    fn when_probed_then_every_record_that_was_due_is_there() {
        let histogram = probe(&available_cores()[..1], 100_000.0, Duration::from_millis(50));
        assert!((5_000..=5_500).contains(&histogram.len()) || histogram.max() > 1_000_000, "{}", histogram.len());
    }

    #[test]
    fn when_rows_are_probed_then_each_record_changes_one() {
        let mut rows = [ProbeRows::new(1 << 20, 200)];
        let cores = &available_cores()[..1];
        let probed = probe_rows(cores, 100_000.0, Duration::from_millis(50), &mut rows);
        let changed = rows[0].words.as_slice().iter().step_by(25).sum::<u64>();
        assert_eq!(changed, probed.latency.len());
        let most = rows[0].words.as_slice().iter().step_by(25).max();
        assert!(most.is_some_and(|&most| most < 20), "{most:?} at one place");
    }
}
