//! The chained pipeline as a loop written by hand: make a record, map it, filter it, take it.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use super::pinned::on_cores;
use crate::workloads::pipeline::{made, mapped, passes};

/// Runs the loop over records `0..records` on `threads` pinned threads. Answers the seconds it took, and the checksum.
pub fn run(threads: usize, cores: &[usize], records: u64) -> (f64, u64) {
    let line = Barrier::new(threads);
    let done = on_cores(cores, (0..threads as u64).collect(), |_, first| {
        line.wait();
        let started = Instant::now();
        let mut checksum = 0u64;
        let mut n = first;
        while n < records {
            let event = mapped(made(n));
            if passes(event) {
                // As the engine's sink does: the record exists.
                black_box(&event);
                checksum = checksum.wrapping_add(event.value);
            }
            n += threads as u64;
        }
        (started, Instant::now(), checksum)
    });
    let started = done.iter().map(|&(started, ..)| started).min().expect("a thread");
    let ended = done.iter().map(|&(_, ended, _)| ended).max().expect("a thread");
    ((ended - started).as_secs_f64(), done.iter().fold(0, |all, &(_, _, sum)| all.wrapping_add(sum)))
}
