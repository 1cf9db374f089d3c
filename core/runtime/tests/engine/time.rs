//! Waiting and time: sources that wait, timers, buffer timeouts, idleness.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use thalweg_model::{Elem, KeyHash, metrics::MetricRegistry};
use thalweg_runtime::*;

use crate::common::*;

#[test]
fn when_a_source_waits_until_a_time_then_it_is_polled_then() {
    struct Ticks(u64, Option<Arc<dyn Clock>>);
    impl Segment for Ticks {
        fn is_source(&self) -> bool {
            true
        }
        fn open(&mut self, ctx: &mut SegmentContext, _: &mut Outputs) -> Result<(), TaskError> {
            self.1 = Some(ctx.clock.clone());
            Ok(())
        }
        fn process(&mut self, _: usize, _: &mut FrameCursor<'_>, _: &mut Outputs) -> Result<(), TaskError> {
            Ok(())
        }
        fn poll_source(&mut self, _: usize, out: &mut Outputs) -> Result<SourceStatus, TaskError> {
            let now_ns = self.1.as_ref().unwrap().now_ns();
            let due_ns = self.0 * 10_000_000_000;
            if now_ns >= due_ns {
                assert!(now_ns - due_ns < 1_000_000, "{now_ns} for {due_ns}");
                emit(out, self.0);
                self.0 += 1;
            }
            if self.0 == 100 {
                return Ok(SourceStatus::Ended);
            }
            Ok(SourceStatus::Wait { until_ns: Some(self.0 * 10_000_000_000) })
        }
    }
    let log = Log::default();
    let mut job = Job::new(small_config(256));
    let source = job.task("ticks", 1, 0, boxed(|| Ticks(1, None)));
    let sink = job.task("sink", 1, 1, log.sink());
    job.edge(source, sink, Partitioner::Forward);
    let started = Instant::now();
    job.run(&SeededReactor::new(11)).unwrap();
    assert_eq!(log.pairs().len(), 99);
    assert!(started.elapsed() < Duration::from_secs(20), "a thousand seconds of virtual time");
}

#[test]
fn when_a_thread_feeds_a_source_then_its_wakes_are_never_lost() {
    for simulated in [false, true] {
        let queue = Arc::new(Mutex::new((Vec::new(), None::<SlotWaker>, false)));
        let (log, polls) = (Log::default(), Counted::default());
        let mut job = Job::new(RuntimeConfig { oversubscribe: true, ..small_config(1024) });
        let source = job.task("fed", 1, 0, once(Fed { queue: queue.clone(), polls: polls.clone() }));
        let sink = job.task("sink", 2, 1, log.sink());
        job.edge(source, sink, hash());
        let received = log.clone();
        let feeder = thread::spawn(move || {
            while queue.lock().unwrap().1.is_none() {
                thread::yield_now();
            }
            let waker = queue.lock().unwrap().1.clone().unwrap();
            for n in 0..300u64 {
                queue.lock().unwrap().0.push(n);
                waker.wake();
                let sent = Instant::now();
                while received.pairs().len() as u64 <= n {
                    assert!(sent.elapsed() < Duration::from_secs(5), "record {n} is stuck");
                    thread::yield_now();
                }
                if n % 3 == 0 {
                    thread::sleep(Duration::from_micros(n * 7 % 500));
                }
            }
            queue.lock().unwrap().2 = true;
            waker.wake();
        });
        let glommio = GlommioReactor::new(&job.plan.config);
        let seeded = SeededReactor::new(4);
        let reactor: &dyn Reactor = if simulated { &seeded } else { &glommio };
        job.run(reactor).unwrap();
        feeder.join().unwrap();
        assert_eq!(log.sorted_pairs(), (0..300).map(|n| (n, n)).collect::<Vec<_>>());
        assert!(polls.get() < 2000, "polled {} times", polls.get());
    }
}

#[test]
fn when_timers_are_set_then_they_fire_at_their_time_and_blocked_ones_go_on() {
    /// Emits ten records at each of ten deadlines, one second apart.
    #[derive(Default)]
    struct Timers {
        first_ms: i64,
        fired: i64,
        part: u64,
    }
    impl Segment for Timers {
        fn is_source(&self) -> bool {
            true
        }
        fn open(&mut self, ctx: &mut SegmentContext, _: &mut Outputs) -> Result<(), TaskError> {
            self.first_ms = ctx.clock.now_ms() + 1000;
            Ok(())
        }
        fn process(&mut self, _: usize, _: &mut FrameCursor<'_>, _: &mut Outputs) -> Result<(), TaskError> {
            Ok(())
        }
        fn next_deadline_ms(&self) -> Option<i64> {
            (self.fired < 10).then_some(self.first_ms + self.fired * 1000)
        }
        fn processing_time(&mut self, now_ms: i64, out: &mut Outputs) -> Result<Progress, TaskError> {
            let late_ms = now_ms - (self.first_ms + self.fired * 1000);
            assert!((0..50).contains(&late_ms), "{late_ms}");
            while self.part < 10 {
                if !out.room() {
                    return Ok(Progress::Blocked);
                }
                emit(out, self.fired as u64 * 10 + self.part);
                self.part += 1;
            }
            (self.fired, self.part) = (self.fired + 1, 0);
            Ok(Progress::Done)
        }
        fn poll_source(&mut self, _: usize, _: &mut Outputs) -> Result<SourceStatus, TaskError> {
            let until_ns = Some(u64::MAX);
            Ok(if self.fired == 10 { SourceStatus::Ended } else { SourceStatus::Wait { until_ns } })
        }
    }
    for seed in seeds(10) {
        let log = Log::default();
        let mut job = Job::new(small_config(64));
        // A source that would wait for ever: only a wake polls it, so a second source keeps the job's end in hand.
        let control = JobControl::new();
        let source = job.task("timers", 1, 0, boxed(Timers::default));
        let canceller = control.clone();
        let seen = Counted::default();
        let middle = job.task(
            "middle",
            1,
            1,
            boxed(move || {
                let (canceller, seen) = (canceller.clone(), seen.clone());
                FnEach(move |out: &mut Outputs, e: Elem<'_, Pair>, h: KeyHash| {
                    out.write::<Pair>(0, e, h);
                    if seen.add(1) == 100 {
                        canceller.cancel();
                    }
                })
            }),
        );
        let sink = job.task("sink", 1, 1, log.sink());
        job.edge(source, middle, Partitioner::Forward);
        job.edge(middle, sink, Partitioner::Forward);
        let result = job.run_with(&SeededReactor::new(seed), control, &MetricRegistry::default());
        assert!(matches!(result, Err(JobError::Cancelled)), "{result:?}");
        let pairs = log.pairs();
        assert!(pairs.windows(2).all(|w| w[0].0 + 1 == w[1].0), "in order: {pairs:?}");
    }
}

#[test]
fn when_a_call_gives_its_time_back_then_it_goes_on_at_once() {
    /// Takes five turns for every watermark.
    #[derive(Default)]
    struct Slow {
        turns: usize,
    }
    impl Segment for Slow {
        fn process(&mut self, _: usize, frames: &mut FrameCursor<'_>, out: &mut Outputs) -> Result<(), TaskError> {
            each(frames, out, |out, elem, hash| out.write::<Pair>(0, elem, hash));
            Ok(())
        }
        fn watermark(&mut self, watermark: i64, out: &mut Outputs) -> Result<Progress, TaskError> {
            self.turns += 1;
            if self.turns < 5 {
                return Ok(Progress::More);
            }
            self.turns = 0;
            out.watermark(watermark);
            Ok(Progress::Done)
        }
    }
    for seed in seeds(10) {
        let log = Log::default();
        let mut job = Job::new(small_config(1024));
        let source = job.task("numbers", 1, 0, boxed(|| Numbers::new(100, 3)));
        let slow = job.task("slow", 1, 1, boxed(Slow::default));
        let sink = job.task("sink", 1, 1, log.sink());
        job.edge(source, slow, Partitioner::Forward);
        job.edge(slow, sink, Partitioner::Forward);
        let reactor = SeededReactor::new(seed);
        job.run(&reactor).unwrap();
        assert_eq!(log.pairs().len(), 100);
        // Asleep, it would have to wait for the next report or so, 100 ms away.
        assert!(reactor.clock().now_ns() < 20_000_000, "seed {seed}: {} ns", reactor.clock().now_ns());
    }
}

#[test]
fn when_buffers_may_only_be_sent_full_then_one_record_waits_for_the_end() {
    // Virtual seconds between the records; only the per-record and the timed edge deliver before the end.
    let arrivals = |timeout: BufferTimeout| {
        let log = Log::default();
        let mut sent = 0;
        let seen = log.clone();
        let before_end = Arc::new(Mutex::new(0));
        let noted = before_end.clone();
        let source = FnSource(move |_, out: &mut Outputs| {
            *noted.lock().unwrap() = seen.pairs().len();
            if sent == 5 {
                return Ok(SourceStatus::Ended);
            }
            emit(out, sent);
            sent += 1;
            Ok(SourceStatus::Wait { until_ns: Some(sent * 1_000_000_000) })
        });
        let mut job = Job::new(small_config(4096));
        let source = job.task("source", 1, 0, once(source));
        let sink = job.task("sink", 1, 1, log.sink());
        job.edge(source, sink, Partitioner::Rebalance).buffer_timeout = timeout;
        job.run(&SeededReactor::new(2)).unwrap();
        assert_eq!(log.pairs().len(), 5);
        *before_end.lock().unwrap()
    };
    assert_eq!(arrivals(BufferTimeout::WhenFull), 0);
    assert_eq!(arrivals(BufferTimeout::Millis(100)), 5);
    assert_eq!(arrivals(BufferTimeout::PerRecord), 5);
}

#[test]
fn when_a_source_is_idle_then_sinks_hear_of_it_and_time_goes_on() {
    for seed in seeds(10) {
        let log = Log::default();
        let mut calls = 0;
        let source = FnSource(move |_, out: &mut Outputs| {
            calls += 1;
            match calls {
                1 => out.watermark(5),
                2 => out.idle(true),
                3 => out.idle(false),
                4 => out.watermark(7),
                _ => return Ok(SourceStatus::Ended),
            }
            Ok(SourceStatus::More)
        });
        let mut job = Job::new(small_config(128));
        let source = job.task("source", 1, 0, once(source));
        let sink = job.task("sink", 1, 1, log.sink());
        job.edge(source, sink, Partitioner::Rebalance);
        job.run(&SeededReactor::new(seed)).unwrap();
        let mark = |watermark| Seen::Watermark { subtask: 0, watermark };
        let idle = |idle| Seen::Idle { subtask: 0, idle };
        assert_eq!(log.take()[..4], [mark(5), idle(true), idle(false), mark(7)]);
    }
}
