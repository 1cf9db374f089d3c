//! Exactly once at the edges: what sources read and sinks commit, over restarts in the process and across processes.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use thalweg::{
    prelude::*,
    runtime::{CheckpointingSetup, StopMode},
};
use thalweg_io::checkpoint::{FaultPlan, Operation};

use crate::numbers::{
    checkpoints_in, completed, environment, environment_in, is_cancelled, job_dir, restarts, restored, wait_until,
};

/// A function that passes numbers on and panics at the records with these counts, over all subtasks and attempts.
fn fragile(at: &[u64]) -> impl Fn(u64) -> u64 + Clone + Send + 'static {
    let (seen, at) = (Arc::new(AtomicU64::new(0)), at.to_vec());
    move |n| {
        let seen = seen.fetch_add(1, Relaxed);
        assert!(!at.contains(&seen), "on purpose, at record {seen}");
        n
    }
}

/// The numbers in committed files, sorted; there must be no others.
fn output(dir: &Path) -> Vec<u64> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("part-") && name.ends_with(".ndjson"), "{name} is left over");
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.is_empty(), "{name} is empty");
        numbers.extend(text.lines().map(|line| line.parse::<u64>().unwrap()));
    }
    numbers.sort_unstable();
    numbers
}

fn all(count: u64) -> Vec<u64> {
    (0..count).collect()
}

#[test]
fn when_a_job_fails_then_what_it_generates_is_committed_once() {
    let dir = tempfile::tempdir().unwrap();
    let env = environment(2);
    env.restart_strategy(restarts(10));
    env.generate_at_rate(16_000, 20_000.0, |n| n)
        .uid("numbers")
        .rebalance()
        .map(fragile(&[3_000, 9_000, 9_100, 18_000]))
        .sink(committed_ndjson_files(dir.path()))
        .uid("out");
    env.execute().unwrap();
    assert_eq!(output(dir.path()), all(16_000));
}

#[test]
fn when_a_job_goes_on_in_another_process_then_what_it_reads_from_files_is_committed_once() {
    const COUNT: u64 = 60_000;
    let (checkpoints, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (input, out) = (dir.path().join("in"), dir.path().join("out"));
    fs::create_dir(&input).unwrap();
    for file in 0..3 {
        let numbers = (0..COUNT).filter(|n| n % 3 == file).map(|n| format!("{n}\n"));
        fs::write(input.join(format!("{file}.ndjson")), numbers.collect::<String>()).unwrap();
    }
    let build = |env: &Environment, slowly: bool| {
        env.checkpoint_config(|options| options.retention = CheckpointRetention::RetainOnCancellation);
        let source = FileSource::new(NdjsonFormat::<u64>::new(), [&input]).split_bytes(20_000);
        env.from_files(source)
            .unwrap()
            .uid("files")
            .map(move |n| {
                // So that there is time for a checkpoint.
                if slowly && n % 10 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                n
            })
            .rebalance()
            .sink(committed_ndjson_files(&out))
            .uid("out");
    };
    for (attempt, parallelism) in [2, 1, 2].into_iter().enumerate() {
        let env = match attempt {
            0 => environment_in(checkpoints.path(), parallelism),
            _ => restored(checkpoints.path(), None, parallelism),
        };
        build(&env, true);
        let job = env.execute_async().unwrap();
        wait_until("checkpoint", || completed(&job) > 0);
        job.cancel();
        assert!(is_cancelled(job.wait()));
    }
    let env = restored(checkpoints.path(), None, 2);
    build(&env, false);
    env.execute().unwrap();
    assert_eq!(output(&out), all(COUNT));
}

#[test]
fn when_a_job_fails_then_what_was_pushed_is_committed_once_and_durable_in_order() {
    const COUNT: u64 = 8_000;
    let dir = tempfile::tempdir().unwrap();
    let env = environment(2);
    env.restart_strategy(restarts(10));
    let (handle, events) = env.from_handle::<u64>(64);
    events.uid("in").rebalance().map(fragile(&[1_000, 3_000, 3_050, 9_000])).sink(committed_ndjson_files(dir.path()));
    let job = env.execute_async().unwrap();
    for n in 0..COUNT {
        assert_eq!(handle.push(n).unwrap(), n);
        if n % 20 == 0 {
            std::thread::sleep(std::time::Duration::from_micros(500));
        }
    }
    handle.wait_durable(COUNT - 1).unwrap();
    assert_eq!(handle.durable(), COUNT);
    drop(handle);
    job.wait().unwrap();
    assert_eq!(output(dir.path()), all(COUNT));
}

#[test]
fn when_a_service_dies_then_it_replays_from_what_is_durable() {
    const COUNT: u64 = 6_000;
    let (checkpoints, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut pushed = 0;
    for (attempt, parallelism) in [2, 1, 2].into_iter().enumerate() {
        let env = match attempt {
            0 => environment_in(checkpoints.path(), parallelism),
            _ => restored(checkpoints.path(), None, parallelism),
        };
        env.checkpoint_config(|options| options.retention = CheckpointRetention::RetainOnCancellation);
        let (handle, events) = env.from_handle::<u64>(64);
        events.uid("in").rebalance().sink(committed_ndjson_files(dir.path())).uid("out");
        let job = env.execute_async().unwrap();
        let from = handle.resume_from().unwrap();
        assert!(from <= pushed && (attempt == 0 || from > 0), "{from} of {pushed}");
        for n in from..(attempt as u64 + 1) * COUNT / 3 {
            pushed = handle.push(n).unwrap() + 1;
            assert_eq!(pushed, n + 1);
        }
        handle.wait_durable(pushed - 100).unwrap();
        if attempt < 2 {
            job.cancel();
            assert!(is_cancelled(job.wait()));
            assert!(handle.push(0).is_err());
            continue;
        }
        handle.wait_durable(COUNT - 1).unwrap();
        drop(handle);
        job.wait().unwrap();
    }
    assert_eq!(output(dir.path()), all(COUNT));
}

#[test]
fn when_a_job_stops_with_a_savepoint_then_all_before_it_is_committed_when_it_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for mode in [StopMode::Suspend, StopMode::Drain] {
        let env = environment_in(&dir.path().join("checkpoints"), 2);
        let (handle, events) = env.from_handle::<u64>(64);
        events.uid("in").rebalance().sink(committed_ndjson_files(out.join(format!("{mode:?}")))).uid("out");
        let job = env.execute_async().unwrap();
        for n in 0..1_000 {
            handle.push(n).unwrap();
        }
        handle.wait_durable(500).unwrap();
        job.stop_with_savepoint(Some(&dir.path().join("savepoints")), mode).wait().unwrap();
        job.wait().unwrap();
        let numbers = output(&out.join(format!("{mode:?}")));
        assert_eq!(numbers, all(numbers.len() as u64), "{mode:?}");
        assert_eq!(numbers.len() as u64, handle.durable(), "{mode:?}: what is durable is committed");
    }
}

/// What files in a directory wait for their checkpoint.
fn pending(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|end| end == "pending")).count()
}

#[test]
fn when_a_job_ends_between_its_first_barrier_and_its_first_checkpoint_then_the_next_removes_what_was_pending() {
    const COUNT: u64 = 6_000;
    let (checkpoints, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let build = |env: &Environment, per_s: f64| {
        env.generate_at_rate(COUNT, per_s, |n| n)
            .uid("numbers")
            .rebalance()
            .sink(committed_ndjson_files(dir.path()))
            .uid("out");
    };
    // No _metadata ever gets its name, as if the process were killed before.
    let faults = FaultPlan::new();
    faults.fail_from(Operation::Rename, 1, libc::EIO);
    let env = environment_in(checkpoints.path(), 2);
    env.checkpoint_config(|options| options.tolerable_failed = u32::MAX);
    let setup = CheckpointingSetup { faults: Some(faults), ..CheckpointingSetup::default() };
    env.configure_runtime(|config| config.checkpointing = Some(setup));
    build(&env, 5_000.0);
    let job = env.execute_async().unwrap();
    wait_until("file pending", || pending(dir.path()) > 0);
    job.cancel();
    assert!(is_cancelled(job.wait()));
    assert!(pending(dir.path()) > 0, "there is nothing to be removed");

    let env = restored(checkpoints.path(), None, 3);
    build(&env, 30_000.0);
    env.execute().unwrap();
    assert_eq!(output(dir.path()), all(COUNT));
}

#[test]
fn when_a_job_starts_from_an_older_checkpoint_then_what_later_ones_committed_is_there_once() {
    const COUNT: u64 = 20_000;
    let (checkpoints, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let build = |env: &Environment, per_s: f64| {
        env.checkpoint_config(|options| {
            options.retention = CheckpointRetention::RetainOnCancellation;
            options.retained_count = 3;
        });
        env.generate_at_rate(COUNT, per_s, |n| n)
            .uid("numbers")
            .rebalance()
            .sink(committed_ndjson_files(dir.path()))
            .uid("out");
    };
    // Committed before, by a job that is over: nobody takes that back.
    let earlier = environment_in(checkpoints.path(), 2);
    build(&earlier, 1e6);
    earlier.execute().unwrap();
    assert_eq!(output(dir.path()).len() as u64, COUNT);
    for (attempt, parallelism) in [2, 3, 1].into_iter().enumerate() {
        let env = match attempt {
            0 => environment_in(checkpoints.path(), parallelism),
            _ => restored(checkpoints.path(), None, parallelism),
        };
        build(&env, 10_000.0);
        let job = env.execute_async().unwrap();
        wait_until("checkpoints", || completed(&job) > 3);
        job.cancel();
        assert!(is_cancelled(job.wait()));
        // The older two would do: the oldest that is kept is what the next one starts from.
        for newer in &checkpoints_in(checkpoints.path())[1..] {
            let metadata = job_dir(checkpoints.path()).join(format!("chk-{newer}/_metadata"));
            let bytes = fs::read(&metadata).unwrap();
            fs::write(&metadata, &bytes[..bytes.len() / 2]).unwrap();
        }
    }
    let env = restored(checkpoints.path(), None, 2);
    build(&env, 1e6);
    env.execute().unwrap();
    let twice: Vec<u64> = (0..COUNT).flat_map(|n| [n, n]).collect();
    assert_eq!(output(dir.path()), twice);
    assert_eq!(checkpoints_in(checkpoints.path()), [0; 0], "nothing of the damaged ones is left");
}
