//! What a job says about itself, and what it costs when idle.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use thalweg_model::metrics::{MetricRegistry, MetricValue};
use thalweg_runtime::*;

use crate::common::*;

/// CPU time of this process so far.
fn cpu() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: getrusage fills the struct for the process itself, which cannot fail.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

#[test]
#[ignore = "measures the whole process: run it alone"]
fn when_a_job_is_idle_then_it_uses_hardly_any_cpu() {
    for oversubscribe in [false, true] {
        let queue = Arc::new(Mutex::new((Vec::new(), None::<SlotWaker>, false)));
        let mut job = Job::new(RuntimeConfig { oversubscribe, ..small_config(1024) });
        let source = job.task("fed", 1, 0, once(Fed { queue: queue.clone(), polls: Counted::default() }));
        let sink = job.task("sink", 2, 1, boxed(|| Pass));
        job.edge(source, sink, hash());
        let control = JobControl::new();
        let canceller = control.clone();
        let measure = thread::spawn(move || {
            thread::sleep(Duration::from_millis(500));
            let (before, started) = (cpu(), Instant::now());
            thread::sleep(Duration::from_secs(3));
            let share = (cpu() - before).as_secs_f64() / started.elapsed().as_secs_f64();
            canceller.cancel();
            share
        });
        let reactor = GlommioReactor::new(&job.plan.config);
        assert!(matches!(job.run_with(&reactor, control, &MetricRegistry::default()), Err(JobError::Cancelled)));
        let share = measure.join().unwrap();
        println!("idle job, oversubscribe {oversubscribe}: {:.3} % of a core", share * 100.0);
        assert!(share < 0.01, "{share}");
    }
}

#[test]
fn when_it_runs_then_its_metrics_say_what_it_did() {
    let registry = MetricRegistry::default();
    let log = Log::default();
    let mut config = small_config(1024);
    config.latency_interval_ms = 1;
    let mut job = Job::new(config);
    let source = job.task("numbers", 2, 0, boxed(|| Numbers::new(5000, 50)));
    let pass = job.task("pass", 2, 1, boxed(|| Pass));
    let sink = job.task("sink", 1, 1, log.sink());
    job.edge(source, pass, hash());
    job.edge(pass, sink, Partitioner::Global);
    job.run_with(&SeededReactor::new(1), JobControl::new(), &registry).unwrap();
    assert_eq!(metric(&registry, "numRecordsOut", "numbers"), 5000.0);
    assert_eq!(metric(&registry, "numRecordsOut", "pass"), 5000.0);
    assert!(metric(&registry, "numBytesIn", "pass") >= 5000.0 * 32.0);
    assert!(metric(&registry, "numBytesOut", "numbers") >= metric(&registry, "numBytesIn", "pass"));
    assert!(metric(&registry, "numBuffersOut", "numbers") > 100.0);
    assert_eq!(metric(&registry, "currentInputWatermark", "sink"), i64::MAX as f64);
    let mut latencies = Vec::new();
    registry.visit(0, |sample| {
        if sample.full_name().contains("latency_source_id_operator_id_operator_subtask_index_latency")
            && let MetricValue::Histogram(histogram) = &sample.value
        {
            latencies.push((sample.labels.to_vec(), histogram.count()));
        }
    });
    assert_eq!(latencies.len(), 3, "pass 0, pass 1, sink: {latencies:?}");
    assert!(latencies.iter().all(|(_, count)| *count > 0));
}
