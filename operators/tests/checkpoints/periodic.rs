//! Periodic checkpoints and restarts from them in one process.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use thalweg::{cluster::JobState, model::metrics::MetricValue, prelude::*, runtime::SeededReactor};

use crate::numbers::{
    ALL, Numbers, checkpoints_in, completed, counting, environment, environment_in, exact, is_cancelled, last_counts,
    restarts, wait_until,
};

#[test]
fn when_checkpoints_are_periodic_then_they_complete_and_the_newest_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let env = environment_in(dir.path(), 2);
    env.checkpoint_config(|options| {
        options.retained_count = 2;
        options.retention = CheckpointRetention::RetainOnCancellation;
    });
    let (numbers, _until) = Numbers::endless();
    counting(&env, numbers);
    let job = env.execute_async().unwrap();
    wait_until("four checkpoints", || completed(&job) >= 4);
    assert_eq!(job.control().state(), JobState::Running);
    job.cancel();
    assert!(is_cancelled(job.wait()));
    let kept = checkpoints_in(dir.path());
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert_eq!(kept[1], kept[0] + 1);
}

#[test]
fn when_a_task_panics_once_then_the_job_goes_on_from_the_checkpoint_and_counts_are_exact() {
    for in_files in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let env = if in_files { environment_in(dir.path(), 2) } else { environment(2) };
        env.restart_strategy(restarts(3));
        let (numbers, until) = Numbers::endless();
        let panic_now = Arc::new(AtomicBool::new(false));
        let (sink, counts) = collect();
        let now = panic_now.clone();
        env.from_source("Numbers", numbers)
            .map(move |n| if now.swap(false, Relaxed) { panic!("once") } else { n })
            .key_by(|n| n % 10)
            .aggregate(Count, |key, count| (key, count))
            .sink(sink);
        let job = env.execute_async().unwrap();
        wait_until("two checkpoints", || completed(&job) >= 2);
        panic_now.store(true, Relaxed);
        let before = completed(&job);
        wait_until("checkpoints after the restart", || completed(&job) >= before + 2 && !panic_now.load(Relaxed));
        until.store(ALL, Relaxed);
        job.wait().unwrap();
        assert_eq!(last_counts(counts.take()), exact(ALL), "in files: {in_files}");
        if in_files {
            assert_eq!(checkpoints_in(dir.path()), [0; 0], "a job that has finished needs none");
        }
    }
}

#[test]
fn when_a_job_runs_in_simulation_then_its_last_checkpoint_comes_too() {
    for seed in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let env = environment_in(dir.path(), 2);
        let (sink, counts) = collect();
        env.generate(1000, |n| n).key_by(|n| n % 10).aggregate(Count, |key, count| (key, count)).sink(sink);
        env.execute_on(&SeededReactor::new(seed)).unwrap();
        assert_eq!(last_counts(counts.take()), (0..10).map(|digit| (digit, 100)).collect());
        let mut completed = 0;
        env.metrics().visit(0, |sample| {
            if let ("numberOfCompletedCheckpoints", MetricValue::Gauge(value)) = (sample.name, &sample.value) {
                completed = *value;
            }
        });
        assert!(completed > 0, "seed {seed}");
    }
}
