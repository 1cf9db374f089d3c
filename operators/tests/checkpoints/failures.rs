//! Checkpoints that fail, and jobs that restart or fail.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use thalweg::{
    model::metrics::MetricValue,
    prelude::*,
    runtime::{CheckpointingSetup, JobError},
};
use thalweg_io::checkpoint::FaultPlan;

use crate::numbers::{
    ALL, Numbers, completed, counting, environment, environment_in, exact, last_counts, restarts, wait_until,
};

fn failed(job: &JobHandle) -> u64 {
    job.control().checkpoints().map_or(0, |statistics| statistics.counts().failed)
}

/// A gauge of the job as a whole.
fn gauge(env: &Environment, name: &str) -> Option<i64> {
    let mut found = None;
    env.metrics().visit(0, |sample| {
        if sample.full_name() == format!("flink_jobmanager_job_{name}")
            && let MetricValue::Gauge(value) = sample.value
        {
            found = Some(value);
        }
    });
    found
}

#[test]
fn when_the_disk_is_full_then_checkpoints_fail_and_are_counted_and_the_job_goes_on() {
    for inline in [0, 1 << 20] {
        let (dir, faults) = (tempfile::tempdir().unwrap(), FaultPlan::new());
        let env = environment_in(dir.path(), 2);
        env.restart_strategy(RestartStrategyOptions::None);
        env.checkpoint_config(|options| {
            (options.tolerable_failed, options.data_inline_threshold_bytes) = (u32::MAX, inline);
        });
        let setup = CheckpointingSetup { faults: Some(faults.clone()), ..CheckpointingSetup::default() };
        env.configure_runtime(|config| config.checkpointing = Some(setup));
        let (numbers, until) = Numbers::endless();
        let counts = counting(&env, numbers);
        let job = env.execute_async().unwrap();
        wait_until("checkpoint", || completed(&job) > 0);
        faults.disk_full_after(0);
        wait_until("failures", || failed(&job) >= 2);
        faults.heal();
        let before = completed(&job);
        wait_until("checkpoints again", || completed(&job) > before);
        until.store(ALL, Relaxed);
        job.wait().unwrap();
        assert_eq!(last_counts(counts.take()), exact(ALL));
        assert!(gauge(&env, "numberOfFailedCheckpoints") >= Some(2));
        assert_eq!(gauge(&env, "numRestarts"), Some(0));
    }
}

#[test]
fn when_more_checkpoints_fail_than_are_tolerated_then_the_job_fails() {
    let (dir, faults) = (tempfile::tempdir().unwrap(), FaultPlan::new());
    let env = environment_in(dir.path(), 2);
    env.restart_strategy(RestartStrategyOptions::None);
    env.checkpoint_config(|options| (options.tolerable_failed, options.data_inline_threshold_bytes) = (1, 0));
    let setup = CheckpointingSetup { faults: Some(faults.clone()), ..CheckpointingSetup::default() };
    env.configure_runtime(|config| config.checkpointing = Some(setup));
    counting(&env, Numbers::endless().0);
    let job = env.execute_async().unwrap();
    wait_until("checkpoint", || completed(&job) > 0);
    faults.disk_full_after(0);
    let error = job.wait().unwrap_err();
    assert!(matches!(&error, Error::Job(JobError::Failed(why)) if why.contains("a task could not write")), "{error}");
}

/// A job whose map panics in its first attempts.
fn failing(env: &Environment, attempts: u32) -> thalweg::sink::Collected<u64> {
    let (sink, all) = collect();
    let left = Arc::new(AtomicU32::new(attempts));
    let fail = move |n: u64| {
        let fails = n == 50 && left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        if fails { panic!("not yet") } else { n }
    };
    env.generate(100, |n| n).map(fail).name("Fail").sink(sink);
    all
}

#[test]
fn when_there_are_no_checkpoints_then_a_job_restarts_from_nothing_if_it_is_to() {
    let env = environment(1);
    env.enable_checkpointing(std::time::Duration::ZERO).restart_strategy(restarts(2));
    let all = failing(&env, 2);
    env.execute().unwrap();
    let all = all.take();
    assert_eq!(all.last(), Some(&99));
    assert_eq!(all.iter().filter(|n| **n == 99).count(), 1);
    assert_eq!((gauge(&env, "numRestarts"), gauge(&env, "fullRestarts")), (Some(2), Some(2)));
}

#[test]
fn when_a_job_may_not_restart_any_more_then_it_fails_with_its_tasks_error() {
    let same = |env: &Environment| env.execute().unwrap_err().to_string();
    let env = environment(1);
    env.enable_checkpointing(std::time::Duration::ZERO);
    failing(&env, 1);
    let without = same(&env);
    let env = environment(1);
    env.enable_checkpointing(std::time::Duration::ZERO).restart_strategy(restarts(2));
    failing(&env, 3);
    assert_eq!(same(&env), without);
    assert!(without.contains("panicked: not yet"), "{without}");
}

#[test]
fn when_a_job_has_run_then_its_metrics_say_how_its_checkpoints_went() {
    let dir = tempfile::tempdir().unwrap();
    let env = environment_in(dir.path(), 2);
    let (numbers, until) = Numbers::endless();
    counting(&env, numbers);
    let job = env.execute_async().unwrap();
    wait_until("two checkpoints", || completed(&job) >= 2);
    until.store(0, Relaxed);
    job.wait().unwrap();
    assert!(gauge(&env, "numberOfCompletedCheckpoints") >= Some(2));
    assert_eq!(gauge(&env, "numberOfInProgressCheckpoints"), Some(0));
    for name in
        ["lastCheckpointSize", "lastCheckpointFullSize", "lastCheckpointMetadataSize", "lastCompletedCheckpointId"]
    {
        assert!(gauge(&env, name) > Some(0), "{name}");
    }
    assert_eq!(gauge(&env, "lastCheckpointRestoreTimestamp"), Some(-1));
}
