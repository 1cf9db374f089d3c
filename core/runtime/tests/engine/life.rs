//! The life of a job: cancellation, failure, backpressure.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use thalweg_model::{Elem, KeyHash, metrics::MetricRegistry};
use thalweg_runtime::*;

use crate::common::*;

#[test]
fn when_cancelled_in_simulation_then_all_close_and_all_pages_come_home() {
    for seed in seeds(80) {
        let (log, control, seen) = (Log::default(), JobControl::new(), Counted::default());
        let mut job = Job::new(small_config([64, 128, 256][seed as usize % 3]));
        let source = job.task("endless", 2, 0, Arc::new(endless(Counted::default())));
        let canceller = control.clone();
        let middle = job.task(
            "middle",
            3,
            1,
            boxed(move || {
                let (canceller, seen) = (canceller.clone(), seen.clone());
                FnEach(move |out: &mut Outputs, e: Elem<'_, Pair>, h: KeyHash| {
                    if seen.add(1) == 40 + seed {
                        canceller.cancel();
                    }
                    out.write::<Pair>(0, e, h);
                })
            }),
        );
        let sink = job.task("sink", 2, 1, log.sink());
        job.edge(source, middle, hash());
        job.edge(middle, sink, Partitioner::Rebalance);
        let result = job.run_with(&SeededReactor::new(seed), control, &MetricRegistry::default());
        assert!(matches!(result, Err(JobError::Cancelled)), "seed {seed}: {result:?}");
        let seen = log.take();
        assert_eq!(seen.iter().filter(|s| matches!(s, Seen::Close { .. })).count(), 2);
        assert!(!seen.iter().any(|s| matches!(s, Seen::Finish { .. } | Seen::EndInput { .. })));
    }
}

#[test]
fn when_cancelled_on_threads_then_it_ends_soon() {
    for parallelism in [1, 2, 4] {
        let (log, control) = (Log::default(), JobControl::new());
        let mut job = Job::new(small_config(1024));
        let source = job.task("endless", parallelism, 0, Arc::new(endless(Counted::default())));
        let sink = job.task("sink", parallelism, 1, boxed(|| Pass));
        let end = job.task("end", 1, 1, log.sink());
        job.edge(source, sink, hash());
        job.edge(sink, end, Partitioner::Global);
        let canceller = control.clone();
        let thread = thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            canceller.cancel();
            Instant::now()
        });
        let reactor = GlommioReactor::new(&job.plan.config);
        let result = job.run_with(&reactor, control, &MetricRegistry::default());
        assert!(matches!(result, Err(JobError::Cancelled)), "{result:?}");
        assert!(thread.join().unwrap().elapsed() < Duration::from_secs(2));
        assert!(!log.pairs().is_empty());
    }
}

#[test]
fn when_cancelled_before_it_starts_then_nothing_runs() {
    let control = JobControl::new();
    control.cancel();
    let emitted = Counted::default();
    let mut job = Job::new(small_config(128));
    let source = job.task("endless", 1, 0, Arc::new(endless(emitted.clone())));
    let sink = job.task("sink", 1, 1, boxed(|| Pass));
    job.edge(source, sink, Partitioner::Forward);
    let result = job.run_with(&SeededReactor::new(0), control, &MetricRegistry::default());
    assert!(matches!(result, Err(JobError::Cancelled)));
    assert_eq!(emitted.get(), 0);
}

fn failing_job(log: &Log, config: RuntimeConfig, fail: impl Fn(u64) + Send + Sync + Clone + 'static) -> Job {
    let mut job = Job::new(config);
    let source = job.task("endless", 2, 0, Arc::new(endless(Counted::default())));
    let seen = Counted::default();
    let middle = job.task(
        "middle",
        2,
        1,
        boxed(move || {
            let (seen, fail) = (seen.clone(), fail.clone());
            FnEach(move |out: &mut Outputs, e: Elem<'_, Pair>, h: KeyHash| {
                fail(seen.add(1));
                out.write::<Pair>(0, e, h);
            })
        }),
    );
    let sink = job.task("sink", 1, 1, log.sink());
    job.edge(source, middle, Partitioner::Rebalance);
    job.edge(middle, sink, Partitioner::Global);
    job
}

#[test]
fn when_user_code_panics_then_the_error_names_operator_and_subtask_and_all_pages_come_home() {
    std::panic::set_hook(Box::new(|_| {}));
    let check = |result: Result<JobReport, JobError>, log: &Log| {
        let Err(JobError::Task(error)) = result else { panic!("{result:?}") };
        assert_eq!((error.operator.as_str(), error.parallelism), ("middle", 2));
        let text = error.to_string();
        assert!(text.contains("panicked: record 33 is bad") && text.contains("/2)"), "{text}");
        assert!(log.take().iter().any(|s| matches!(s, Seen::Close { .. })));
    };
    let fail = |n| assert!(n != 33, "record {n} is bad");
    for seed in seeds(40) {
        let log = Log::default();
        let job = failing_job(&log, small_config(128), fail);
        check(job.run(&SeededReactor::new(seed)), &log);
    }
    let log = Log::default();
    let job = failing_job(&log, small_config(32 << 10), fail);
    let reactor = GlommioReactor::new(&job.plan.config);
    check(job.run(&reactor), &log);
}

/// Fails in one call, chosen by name.
struct Fails(&'static str);

impl Fails {
    fn at<R>(&self, call: &str, result: R) -> Result<R, TaskError> {
        if self.0 == call { Err(TaskError::new("", format!("{call} went wrong"))) } else { Ok(result) }
    }
}

impl Segment for Fails {
    fn open(&mut self, _: &mut SegmentContext, _: &mut Outputs) -> Result<(), TaskError> {
        self.at("open", ())
    }
    fn process(&mut self, _: usize, frames: &mut FrameCursor<'_>, out: &mut Outputs) -> Result<(), TaskError> {
        each(frames, out, |out, e, h| out.write::<Pair>(0, e, h));
        self.at("process", ())
    }
    fn watermark(&mut self, _: i64, _: &mut Outputs) -> Result<Progress, TaskError> {
        self.at("watermark", Progress::Done)
    }
    fn end_input(&mut self, _: usize, _: &mut Outputs) -> Result<Progress, TaskError> {
        self.at("end_input", Progress::Done)
    }
    fn finish(&mut self, _: &mut Outputs) -> Result<Progress, TaskError> {
        self.at("finish", Progress::Done)
    }
    fn close(&mut self) {
        assert!(self.0 != "close", "close went wrong");
    }
}

#[test]
fn when_any_call_fails_then_the_job_fails_with_its_error() {
    for (seed, call) in ["open", "process", "watermark", "end_input", "finish"].into_iter().enumerate() {
        let mut job = Job::new(small_config(128));
        let source = job.task("numbers", 2, 0, boxed(|| Numbers::new(100, 10)));
        let fails = job.task("fails", 1, 1, boxed(move || Fails(call)));
        let sink = job.task("sink", 2, 1, boxed(|| Pass));
        job.edge(source, fails, Partitioner::Global);
        job.edge(fails, sink, Partitioner::Rebalance);
        let error = job.run(&SeededReactor::new(seed as u64)).unwrap_err().to_string();
        assert_eq!(error, format!("job failed in fails (subtask 1/1): {call} went wrong"));
    }
}

#[test]
fn when_a_sink_is_slow_then_the_source_stays_a_few_pages_ahead() {
    let (emitted, read, lead) = (Counted::default(), Counted::default(), Arc::new(Mutex::new(0)));
    let control = JobControl::new();
    let mut job = Job::new(small_config(256));
    let source = job.task("endless", 1, 0, Arc::new(endless(emitted.clone())));
    let (canceller, most) = (control.clone(), lead.clone());
    let sink = FnEach(move |_: &mut Outputs, _: Elem<'_, Pair>, _| {
        thread::sleep(Duration::from_micros(200));
        let mut most = most.lock().unwrap();
        *most = emitted.get().saturating_sub(read.get()).max(*most);
        if read.add(1) == 1000 {
            canceller.cancel();
        }
    });
    let sink = job.task("slow", 1, 1, once(sink));
    job.plan.tasks[1].slot_of = vec![1];
    job.plan.slots = 2;
    job.edge(source, sink, Partitioner::Forward);
    let reactor = GlommioReactor::new(&job.plan.config);
    let registry = MetricRegistry::default();
    assert!(matches!(job.run_with(&reactor, control, &registry), Err(JobError::Cancelled)));
    // 2 exclusive, 8 floating and one open page of 8 records each; twice that is generous.
    let lead = *lead.lock().unwrap();
    assert!((8..=2 * 11 * 8).contains(&lead), "{lead}");
    let blocked = metric(&registry, "accumulateBackPressuredTimeMs", "endless");
    assert!(blocked > 100.0, "{blocked}");
}

#[test]
fn when_one_call_writes_more_than_fits_then_overdraft_pages_carry_it() {
    for seed in seeds(20) {
        let log = Log::default();
        let mut job = Job::new(small_config(64));
        let source = job.task("numbers", 1, 0, boxed(|| Numbers::new(10, 10)));
        let burst = job.task(
            "burst",
            1,
            1,
            boxed(|| {
                FnEach(|out: &mut Outputs, e: Elem<'_, Pair>, _| (0..100).for_each(|i| emit(out, e.view.0 * 100 + i)))
            }),
        );
        let sink = job.task("sink", 2, 1, log.sink());
        job.edge(source, burst, Partitioner::Forward);
        job.edge(burst, sink, hash());
        job.run(&SeededReactor::new(seed)).unwrap();
        assert_eq!(log.sorted_pairs(), (0..1000).map(|i| (i, i)).collect::<Vec<_>>());
    }
}

#[test]
fn when_there_are_too_few_cores_then_the_error_says_how_to_go_on() {
    let mut job = Job::new(RuntimeConfig { oversubscribe: false, ..small_config(128) });
    let source = job.task("numbers", 100, 0, boxed(|| Numbers::new(10, 10)));
    let sink = job.task("sink", 1, 1, boxed(|| Pass));
    job.edge(source, sink, Partitioner::Global);
    let reactor = GlommioReactor::new(&job.plan.config);
    let error = job.run(&reactor).unwrap_err();
    assert!(matches!(error, JobError::Reactor(ReactorError::TooFewCores { slots: 100, .. })), "{error}");
    assert!(error.to_string().contains("--oversubscribe"));
}

#[test]
fn when_an_operator_is_slow_then_it_is_given_few_records_at_once() {
    struct Slow(Arc<Mutex<Vec<usize>>>);
    impl Segment for Slow {
        fn process(&mut self, _: usize, frames: &mut FrameCursor<'_>, out: &mut Outputs) -> Result<(), TaskError> {
            let mut count = 0;
            each(frames, out, |_, _, _| {
                thread::sleep(Duration::from_micros(20));
                count += 1;
            });
            self.0.lock().unwrap().push(count);
            Ok(())
        }
    }
    let counts = Arc::new(Mutex::new(Vec::new()));
    let mut job = Job::new(small_config(32 << 10));
    let source = job.task("numbers", 1, 0, boxed(|| Numbers::new(4000, 10)));
    let seen = counts.clone();
    let slow = job.task("slow", 1, 1, boxed(move || Slow(seen.clone())));
    job.edge(source, slow, Partitioner::Forward);
    let reactor = GlommioReactor::new(&job.plan.config);
    job.run(&reactor).unwrap();
    let counts = counts.lock().unwrap();
    assert_eq!(counts.iter().sum::<usize>(), 4000);
    assert!(counts[counts.len() / 2..].iter().all(|&n| n <= 4), "{counts:?}");
}

#[test]
fn when_a_segment_is_not_what_the_plan_says_then_the_error_says_so() {
    let mut job = Job::new(small_config(128));
    let source = job.task("pass", 1, 0, boxed(|| Pass));
    let sink = job.task("sink", 1, 1, boxed(|| Pass));
    job.edge(source, sink, Partitioner::Forward);
    let error = job.run(&SeededReactor::new(0)).unwrap_err().to_string();
    assert!(error.contains("pass (subtask 1/1): has no inputs but is no source"), "{error}");
}
