//! What the task loop itself costs: records per second through edges, and the time from a source to a sleeping sink.
//!
//! `cargo run --release -p thalweg-runtime --example rates [words of the measurements' names] [--oversubscribe]`

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use thalweg_model::{
    Elem, KeyHash, MaxParallelism,
    metrics::{Histogram, MetricRegistry},
    record::{decode_unchecked, key_hash},
};
use thalweg_runtime::*;

#[path = "../tests/engine/cpu.rs"]
mod cpu;

use cpu::cpu;

type Rec = (u64, u64, u64);

struct Generate {
    left: u64,
    next: u64,
}

impl Segment for Generate {
    fn is_source(&self) -> bool {
        true
    }
    fn process(&mut self, _: usize, _: &mut FrameCursor<'_>, _: &mut Outputs) -> Result<(), TaskError> {
        Ok(())
    }
    fn poll_source(&mut self, budget_records: usize, out: &mut Outputs) -> Result<SourceStatus, TaskError> {
        let n = self.left.min(budget_records as u64);
        for i in 0..n {
            if !out.room() {
                self.left -= i;
                return Ok(SourceStatus::More);
            }
            self.next = self.next.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let key = self.next >> 40;
            out.write::<Rec>(0, Elem::new((key, i, 7), 0), key_hash::<u64>(key));
        }
        self.left -= n;
        Ok(if self.left == 0 { SourceStatus::Ended } else { SourceStatus::More })
    }
}

/// Adds up, and passes on if anyone listens.
struct Sum(u64, Arc<AtomicU64>);

impl Segment for Sum {
    fn process(&mut self, _: usize, frames: &mut FrameCursor<'_>, out: &mut Outputs) -> Result<(), TaskError> {
        if out.has_edges(0) {
            while out.room()
                && let Some(frame) = frames.next::<Rec>()
            {
                // SAFETY: all edges of this example carry `Rec`.
                let view = unsafe { decode_unchecked::<Rec>(frame.payload) };
                out.write::<Rec>(0, Elem { view, timestamp: 0, raw: frame.payload }, frame.hash);
            }
            return Ok(());
        }
        while let Some(frame) = frames.next::<Rec>() {
            // SAFETY: as above.
            self.0 += unsafe { decode_unchecked::<Rec>(frame.payload) }.2;
        }
        Ok(())
    }
    fn close(&mut self) {
        self.1.fetch_add(self.0, Ordering::Relaxed);
    }
}

/// Sends the time, every so often.
struct Pulse {
    clock: Option<Arc<dyn Clock>>,
    next_ns: u64,
    every_ns: u64,
    left: u64,
}

impl Segment for Pulse {
    fn is_source(&self) -> bool {
        true
    }
    fn open(&mut self, ctx: &mut SegmentContext, _: &mut Outputs) -> Result<(), TaskError> {
        self.next_ns = ctx.clock.now_ns() + 50_000_000;
        self.clock = Some(ctx.clock.clone());
        Ok(())
    }
    fn process(&mut self, _: usize, _: &mut FrameCursor<'_>, _: &mut Outputs) -> Result<(), TaskError> {
        Ok(())
    }
    fn poll_source(&mut self, _: usize, out: &mut Outputs) -> Result<SourceStatus, TaskError> {
        let now_ns = self.clock.as_ref().map_or(0, |clock| clock.now_ns());
        while now_ns >= self.next_ns {
            // Slot 1 is where the other subtask of the sink runs.
            out.write::<Rec>(0, Elem::new((self.next_ns, now_ns, 1), 0), KeyHash(1));
            self.next_ns += self.every_ns;
            self.left -= 1;
            if self.left == 0 {
                return Ok(SourceStatus::Ended);
            }
        }
        Ok(SourceStatus::Wait { until_ns: Some(self.next_ns) })
    }
}

struct Delay {
    clock: Option<Arc<dyn Clock>>,
    scheduled: Histogram,
    way: Histogram,
}

impl Segment for Delay {
    fn open(&mut self, ctx: &mut SegmentContext, _: &mut Outputs) -> Result<(), TaskError> {
        self.clock = Some(ctx.clock.clone());
        Ok(())
    }
    fn process(&mut self, _: usize, frames: &mut FrameCursor<'_>, _: &mut Outputs) -> Result<(), TaskError> {
        let now_ns = self.clock.as_ref().map_or(0, |clock| clock.now_ns());
        while let Some(frame) = frames.next::<Rec>() {
            // SAFETY: as above.
            let (scheduled_ns, sent_ns, _) = unsafe { decode_unchecked::<Rec>(frame.payload) };
            self.scheduled.record(now_ns.saturating_sub(scheduled_ns));
            self.way.record(now_ns.saturating_sub(sent_ns));
        }
        Ok(())
    }
}

fn segment(id: usize, inputs: usize, factory: SegmentFactory) -> SegmentPlan {
    let name = format!("s{id}");
    let operators = vec![OperatorInfo { name: name.clone(), uid: None, id: format!("{id:032x}") }];
    let max_parallelism = MaxParallelism::derived(1);
    SegmentPlan { id, name, inputs, side_ports: 0, factory, max_parallelism, operators, state_id: format!("{id:032x}") }
}

fn task(parallelism: u32, segments: Vec<SegmentPlan>) -> TaskPlan {
    let name = segments[0].name.clone();
    TaskPlan { id: name.clone(), name, parallelism, slot_of: (0..parallelism as usize).collect(), segments }
}

fn edge(from_segment: usize, to_segment: usize, partitioner: Partitioner, timeout_ms: i64) -> EdgePlan {
    EdgePlan {
        from_segment,
        from_port: 0,
        to_segment,
        to_input: 0,
        partitioner,
        layout: FrameLayout::of::<Rec>(false),
        buffer_timeout: BufferTimeout::from_millis(timeout_ms),
        records: RecordType::of::<Rec>([].into()),
    }
}

fn run(tasks: Vec<TaskPlan>, edges: Vec<EdgePlan>, slots: usize) -> Duration {
    let config = RuntimeConfig {
        oversubscribe: std::env::args().any(|a| a == "--oversubscribe"),
        batch_records: std::env::var("BATCH").ok().and_then(|b| b.parse().ok()).unwrap_or(1024),
        ..RuntimeConfig::default()
    };
    let reactor = GlommioReactor::new(&config);
    let plan = PhysicalPlan { job_id: "0".repeat(32), job_name: "rates".into(), slots, tasks, edges, config };
    let started = Instant::now();
    match execute(plan, &reactor, JobControl::new(), &MetricRegistry::default()) {
        Ok(report) => report.duration,
        Err(error) => {
            eprintln!("{error}");
            started.elapsed()
        }
    }
}

/// Whether a measurement is asked for: those whose name has an argument in it, or all.
fn wanted(name: &str) -> bool {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--")).peekable();
    words.peek().is_none() || words.any(|word| name.contains(&word))
}

fn throughput(name: &str, parallelism: u32, stages: usize, partitioner: Partitioner, timeout_ms: i64, chained: bool) {
    if !wanted(name) {
        return;
    }
    let records: u64 = if timeout_ms == 0 { 10_000_000 } else { 60_000_000 };
    let total = Arc::new(AtomicU64::new(0));
    let per_subtask = records / u64::from(parallelism);
    let mut segments = vec![segment(0, 0, Arc::new(move || Box::new(Generate { left: per_subtask, next: 1 })))];
    for id in 1..=stages {
        let total = total.clone();
        segments.push(segment(id, 1, Arc::new(move || Box::new(Sum(0, total.clone())))));
    }
    let tasks = if chained {
        vec![task(parallelism, segments)]
    } else {
        segments.into_iter().map(|segment| task(parallelism, vec![segment])).collect()
    };
    let edges = (0..stages).map(|id| edge(id, id + 1, partitioner, timeout_ms)).collect();
    let before = cpu();
    let took = run(tasks, edges, parallelism as usize);
    let sum = total.load(Ordering::Relaxed);
    assert_eq!(sum, per_subtask * u64::from(parallelism) * 7, "{name}");
    let cpu_ns = (cpu() - before).as_nanos() as f64 / records as f64;
    println!("{name:44} {:8.1} M records/s, {cpu_ns:6.2} ns of CPU each", records as f64 / took.as_secs_f64() / 1e6);
}

fn latency(every: Duration, count: u64) {
    let (scheduled, way) = (Histogram::default(), Histogram::default());
    let (s, w) = (scheduled.clone(), way.clone());
    let every_ns = every.as_nanos() as u64;
    let pulse = segment(0, 0, Arc::new(move || Box::new(Pulse { clock: None, next_ns: 0, every_ns, left: count })));
    let delay =
        Arc::new(move || -> Box<dyn Segment> { Box::new(Delay { clock: None, scheduled: s.clone(), way: w.clone() }) });
    let tasks = vec![task(1, vec![pulse]), task(2, vec![segment(1, 1, delay)])];
    run(tasks, vec![edge(0, 1, Partitioner::Custom, 100)], 2);
    for (name, histogram) in [("from its time", scheduled.snapshot()), ("from the write", way.snapshot())] {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|q| histogram.quantile(q) as f64 / 1000.0);
        println!("to the other slot, every {every:?}, {name}: p50 {p50:.1} µs, p99 {p99:.1} µs, p99.9 {p999:.1} µs");
    }
}

fn main() {
    let hash = Partitioner::Hash { max_parallelism: MaxParallelism::derived(1) };
    for _ in 0..2 {
        throughput("chain of two segments, 1 slot", 1, 1, Partitioner::Forward, 100, true);
        throughput("chain of four segments, 1 slot", 1, 3, Partitioner::Forward, 100, true);
        throughput("hash edge, 1 slot", 1, 1, hash, 100, false);
        throughput("hash edge, 2 slots", 2, 1, hash, 100, false);
        throughput("rebalance edge, 2 slots", 2, 1, Partitioner::Rebalance, 100, false);
        throughput("hash edge, 1 slot, published per record", 1, 1, hash, 0, false);
        throughput("hash edge, 2 slots, published per record", 2, 1, hash, 0, false);
    }
    if wanted("latency") {
        latency(Duration::from_micros(20), 100_000);
        latency(Duration::from_micros(500), 6_000);
        latency(Duration::from_millis(5), 600);
    }
}
