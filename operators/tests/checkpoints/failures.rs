//! Checkpoints that fail, and jobs that restart or fail.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use thalweg::{
    model::metrics::MetricValue,
    prelude::*,
    runtime::{CheckpointingSetup, JobError},
};
use thalweg_io::checkpoint::{Depth, FaultPlan, LocalDisk, Operation, discover};

use crate::numbers::{
    ALL, Numbers, checkpoints_in, completed, counting, environment, environment_in, exact, is_cancelled, job_dir,
    last_counts, restarts, wait_until,
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
fn when_it_is_unknown_whether_a_checkpoint_stays_then_the_job_restarts_from_what_is_there() {
    let (dir, faults) = (tempfile::tempdir().unwrap(), FaultPlan::new());
    let env = environment_in(dir.path(), 1);
    env.enable_checkpointing(Duration::ZERO).restart_strategy(restarts(1));
    // Nothing is deleted meanwhile.
    env.checkpoint_config(|options| options.retained_count = 10);
    let setup = CheckpointingSetup { faults: Some(faults.clone()), ..CheckpointingSetup::default() };
    env.configure_runtime(|config| config.checkpointing = Some(setup));
    let (numbers, until) = Numbers::endless();
    let counts = counting(&env, numbers);
    let job = env.execute_async().unwrap();
    wait_until("checkpoint", || job.trigger_checkpoint().wait().is_ok());
    // `_metadata`, the shared directory, the job's, the checkpoint's; after the rename the one that matters.
    faults.fail_nth(Operation::Sync, 5, libc::EIO);
    faults.fail_nth(Operation::Unlink, 1, libc::EIO);
    let error = job.trigger_checkpoint().wait().unwrap_err();
    assert!(error.to_string().contains("unknown"), "{error}");
    let restored = || job.control().checkpoints()?.restored().map(|restored| restored.id.0);
    wait_until("restart", || restored().is_some());
    assert_eq!(restored(), checkpoints_in(dir.path()).last().copied(), "what was in doubt is what is there");
    until.store(ALL, Relaxed);
    job.wait().unwrap();
    assert_eq!(last_counts(counts.take()), exact(ALL));
}

#[test]
fn when_tasks_and_disks_fail_again_and_again_then_nothing_is_left_but_what_is_kept() {
    let (dir, faults) = (tempfile::tempdir().unwrap(), FaultPlan::new());
    let env = environment_in(dir.path(), 2);
    env.restart_strategy(restarts(u32::MAX));
    env.enable_checkpointing(Duration::from_millis(10)).checkpoint_config(|options| {
        options.retention = CheckpointRetention::RetainOnCancellation;
        (options.incremental, options.retained_count, options.tolerable_failed) = (true, 2, 3);
        options.data_inline_threshold_bytes = 0;
    });
    let setup = CheckpointingSetup { faults: Some(faults.clone()), ..CheckpointingSetup::default() };
    env.configure_runtime(|config| config.checkpointing = Some(setup));
    let fail = Arc::new(AtomicU32::new(0));
    let now = fail.clone();
    let fails = move |n: u64| {
        if now.swap(0, Relaxed) > 0 { panic!("again") } else { n }
    };
    env.from_source("Numbers", Numbers::endless().0)
        .map(fails)
        .key_by(|n| n % 1000)
        .aggregate(Count, |_, count| count)
        .sink(discard().0);
    let job = env.execute_async().unwrap();
    let all = Operation::ALL.into_iter().filter(|operation| operation.changes());
    for (round, operation) in all.chain(Operation::ALL.into_iter().filter(|one| one.changes())).enumerate() {
        let before = completed(&job);
        wait_until("checkpoint", || completed(&job) > before);
        faults.fail_nth(operation, 1 + round as u64, libc::EIO);
        if round % 3 == 0 {
            fail.store(1, Relaxed);
        }
    }
    faults.heal();
    let before = completed(&job);
    wait_until("checkpoints", || completed(&job) > before + 2);
    job.cancel();
    assert!(is_cancelled(job.wait()));
    let job_dir = job_dir(dir.path());
    let mut named = BTreeSet::new();
    for found in discover(&LocalDisk, &job_dir, Depth::Checksums).unwrap() {
        let files = found.metadata.unwrap().files;
        named.extend(files.iter().map(|file| file.path.rsplit('/').next().unwrap().to_owned()));
        named.insert("_metadata".to_owned());
    }
    assert_eq!(checkpoints_in(dir.path()).len(), 2);
    assert_eq!(files_below(&job_dir), named);
}

/// Names of all files below a directory.
fn files_below(dir: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.path().is_dir() {
            true => names.append(&mut files_below(&entry.path())),
            false => drop(names.insert(entry.file_name().into_string().unwrap())),
        }
    }
    names
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

#[test]
fn when_a_job_that_reads_an_iterator_restarts_then_it_goes_on_from_the_checkpoint_in_the_same_process() {
    const RECORDS: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let env = environment_in(dir.path(), 2);
    env.restart_strategy(restarts(3));
    // So slow that checkpoints come before the end.
    let records = (0..RECORDS).inspect(|_| std::thread::sleep(Duration::from_micros(20)));
    let fails = Arc::new(AtomicBool::new(false));
    let (failing, (sink, counts)) = (fails.clone(), collect());
    env.from_iter(records)
        .uid("iterator")
        .map(move |n| {
            assert!(!failing.swap(false, Relaxed), "as the test wants it");
            n
        })
        .key_by(|n| n % 10)
        .aggregate(Count, |key, count| (key, count))
        .uid("count")
        .sink(sink);
    let job = env.execute_async().unwrap();
    wait_until("checkpoint", || completed(&job) > 0);
    fails.store(true, Relaxed);
    wait_until("restart from it", || {
        job.control().checkpoints().is_some_and(|statistics| statistics.restored().is_some())
    });
    job.wait().unwrap();
    assert_eq!(last_counts(counts.take()), (0..10).map(|digit| (digit, RECORDS / 10)).collect());
}

#[test]
fn when_a_job_reads_an_iterator_that_cannot_be_cloned_then_it_fails_instead_of_restarting_for_ever() {
    let env = environment(1);
    env.restart_strategy(restarts(1_000_000));
    env.from_iter_once(0..10u64).map(|n: u64| -> u64 { panic!("as the test wants it: {n}") }).sink(discard().0);
    let error = env.execute().unwrap_err().to_string();
    assert!(error.contains("Iterator") && error.contains("can be read once"), "{error}");
    assert_eq!(gauge(&env, "numRestarts"), Some(1));
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
    env.enable_checkpointing(Duration::ZERO).restart_strategy(restarts(2));
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
    env.enable_checkpointing(Duration::ZERO);
    failing(&env, 1);
    let without = same(&env);
    let env = environment(1);
    env.enable_checkpointing(Duration::ZERO).restart_strategy(restarts(2));
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
