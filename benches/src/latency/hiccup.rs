//! The hiccup probe: what the machine does to a loop that does nothing but look at the clock.
//!
//! One pinned thread per core, spinning. Records are due at the same rate as in the job beside it; whenever the loop looks, those
//! that have become due are recorded with the time since. A loop that is never interrupted sees tens of nanoseconds; where it
//! is kept from running, every record that was due meanwhile sees the rest of the gap, as it would in the best of engines.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::checkpoint::Stalls;
use crate::limits::pinned::on_cores;

/// Probes `cores` for a while, with `records_per_s` due in all.
///
/// # Panics
/// Where there are no cores or no rate.
pub fn probe(cores: &[usize], records_per_s: f64, duration: Duration) -> Histogram<u64> {
    probe_stalls(cores, records_per_s, duration).0
}

/// As [`probe`]; beside it how often the loops did not come round for how long.
///
/// # Panics
/// As [`probe`].
pub fn probe_stalls(cores: &[usize], records_per_s: f64, duration: Duration) -> (Histogram<u64>, Stalls) {
    assert!(records_per_s > 0.0, "no rate, no latency");
    let line = Barrier::new(cores.len());
    let interval_ns = 1e9 * cores.len() as f64 / records_per_s;
    let histograms = on_cores(cores, cores.to_vec(), |_, _| {
        let (mut histogram, mut stalls, mut last_ns) = (super::histogram(), Stalls::default(), 0);
        line.wait();
        let started = Instant::now();
        let (mut due, mut next) = (0.0f64, 0u64);
        loop {
            let now_ns = started.elapsed().as_nanos() as u64;
            stalls.note(now_ns - last_ns);
            last_ns = now_ns;
            while next <= now_ns {
                super::record(&mut histogram, now_ns - next);
                due += 1.0;
                next = (due * interval_ns) as u64;
            }
            if now_ns >= duration.as_nanos() as u64 {
                return (histogram, stalls);
            }
        }
    });
    let (mut all, mut all_stalls) = (super::histogram(), Stalls::default());
    for (histogram, stalls) in histograms {
        all.add(histogram).expect("the same bounds");
        all_stalls.add(&stalls);
    }
    (all, all_stalls)
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
}
