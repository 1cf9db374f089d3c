//! What an idle job costs. A program of its own, since it measures the whole process.

#[path = "engine/common.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod common;
#[path = "engine/cpu.rs"]
mod cpu;

use std::{
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use thalweg_model::metrics::MetricRegistry;
use thalweg_runtime::*;

use crate::{common::*, cpu::cpu};

#[test]
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
