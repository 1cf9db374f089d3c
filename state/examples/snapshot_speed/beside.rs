//! Updates of random keys for a while, beside snapshots if a kind is given: one begins each second.

use std::time::{Duration, Instant};

use thalweg_model::KeyHash;
use thalweg_state::{ImageSink, Progress, SnapshotKind, Snapshots};

use crate::{
    clock::{Times, busy, probe},
    shapes::Shape,
};

pub const BATCH: usize = 256;
pub const SLICE_NS: u32 = 10_000;
const RUN: Duration = Duration::from_millis(4000);

/// A sink that forgets what it is given.
pub struct Forget {
    buffer: Vec<u8>,
    pub bytes: u64,
}

impl Forget {
    pub fn new() -> Self {
        Self { buffer: vec![1; 256 << 10], bytes: 0 }
    }
}

impl ImageSink for Forget {
    fn room(&mut self) -> &mut [u8] {
        &mut self.buffer
    }
    fn advance(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }
}

/// Processor time of updates, and how many.
#[derive(Default)]
struct Pace(Duration, u64);

impl Pace {
    fn each_ns(&self) -> f64 {
        self.0.as_nanos() as f64 / self.1.max(1) as f64
    }
}

pub fn measure<S: Shape>(shape: &mut S, table: &mut S::Table, keys: u64, kind: Option<SnapshotKind>) {
    let (mut sink, mut state) = (Forget::new(), 0x1234_5678_9abc_def1u64);
    let (mut begins, mut confirms, mut slices, mut firsts, mut batches, mut probes) =
        (Times::default(), Times::default(), Times::default(), Times::default(), Times::default(), Times::default());
    let (mut alone, mut beside, mut sliced) = (Pace::default(), Pace::default(), Duration::ZERO);
    let (started, mut running, mut due) = (Instant::now(), None, Duration::ZERO);
    while started.elapsed() < RUN || running.is_some() {
        let mut batch = [(0u64, KeyHash(0)); BATCH];
        for slot in &mut batch {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let key = ((state >> 32) * keys) >> 32;
            *slot = (key, shape.hash(key));
        }
        let mut is_first = false;
        if let Some(kind) = kind.filter(|_| running.is_none() && started.elapsed() >= due && started.elapsed() < RUN) {
            let start = busy();
            running = Some(table.begin_snapshot(kind).unwrap().epoch);
            begins.add(busy() - start);
            due += Duration::from_secs(1);
            is_first = true;
        }
        let start = busy();
        shape.update(table, &batch);
        let took = busy() - start;
        let pace = if running.is_some() { &mut beside } else { &mut alone };
        pace.0 += took;
        pace.1 += BATCH as u64;
        (if is_first { &mut firsts } else { &mut batches }).add(took);
        let Some(epoch) = running else { continue };
        let start = busy();
        let progress = table.snapshot_step(SLICE_NS, &mut sink);
        let took = busy() - start;
        slices.add(took);
        sliced += took;
        probe(&mut probes);
        if progress == Progress::Done {
            let start = busy();
            table.confirm_snapshot(epoch);
            confirms.add(busy() - start);
            running = None;
        }
    }
    let count = confirms.count();
    println!(
        "  {}: an update {:.1} ns{}; batches {} us",
        kind.map_or("no snapshot".to_owned(), |kind| format!("{kind:?} each second")),
        if kind.is_some() { beside.each_ns() } else { alone.each_ns() },
        if kind.is_some() { format!(" beside a sweep, {:.1} after it", alone.each_ns()) } else { String::new() },
        batches.show(),
    );
    if count > 0 {
        println!(
            "    {} slices {} us, probe {} us (median / 99 % / 99.99 % / longest)",
            slices.count(),
            slices.show(),
            probes.show()
        );
        println!(
            "    begin {} us, first batch {} us, confirm {} us; {count} snapshots of {} MiB, sweeping {:.2} s/GiB",
            begins.show(),
            firsts.show(),
            confirms.show(),
            (sink.bytes / count as u64) >> 20,
            sliced.as_secs_f64() / (sink.bytes as f64 / (1u64 << 30) as f64),
        );
    }
}
