//! Savepoints: taken in passing, to stop with, moved, restored from, disposed of. And checkpoints on request.

use std::{fs, path::Path, time::Duration};

use thalweg::{
    checkpoint::{DisposeError, dispose_savepoint},
    cluster::SnapshotError,
    model::config::CheckpointStorage,
    prelude::*,
    runtime::StopMode,
};

use crate::numbers::{
    Numbers, checkpoints_in, completed, counting, environment, environment_in, finish, is_cancelled, restored,
    wait_until,
};

#[test]
fn when_a_savepoint_is_taken_then_it_can_be_moved_restored_from_and_disposed_of() {
    for in_files in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let env = if in_files { environment_in(&dir.path().join("checkpoints"), 2) } else { environment(2) };
        env.checkpoint_config(|options| options.data_inline_threshold_bytes = 0);
        counting(&env, Numbers::endless().0);
        let job = env.execute_async().unwrap();
        wait_until("checkpoint", || completed(&job) > 0);
        let savepoint = job.trigger_savepoint(Some(&dir.path().join("savepoints"))).wait().unwrap();
        let before = completed(&job);
        wait_until("checkpoint after the savepoint", || completed(&job) > before);
        job.cancel();
        assert!(is_cancelled(job.wait()));
        let moved = dir.path().join("moved");
        fs::rename(&savepoint.location, &moved).unwrap();
        let other = tempfile::tempdir().unwrap();
        assert_eq!(finish(&restored(other.path(), Some(&moved), 1)), Some(savepoint.id.0));
        dispose_savepoint(&moved).unwrap();
        assert!(!moved.exists());
        assert!(matches!(dispose_savepoint(&moved), Err(DisposeError::Unreadable(_))));
    }
}

#[test]
fn when_a_job_may_yet_restore_from_a_savepoint_then_it_is_not_disposed_of() {
    let dir = tempfile::tempdir().unwrap();
    let env = environment_in(&dir.path().join("first"), 1);
    counting(&env, Numbers::endless().0);
    let job = env.execute_async().unwrap();
    wait_until("checkpoint", || completed(&job) > 0);
    let savepoint = job.stop_with_savepoint(Some(dir.path()), StopMode::Suspend).wait().unwrap();
    job.wait().unwrap();

    let env = restored(&dir.path().join("second"), Some(Path::new(&savepoint.location)), 1);
    env.enable_checkpointing(Duration::ZERO);
    counting(&env, Numbers::endless().0);
    let job = env.execute_async().unwrap();
    let error = dispose_savepoint(&savepoint.location).unwrap_err();
    assert!(matches!(error, DisposeError::InUse { .. }), "{error}");
    assert!(Path::new(&savepoint.location).join("_metadata").exists());
    wait_until("checkpoint of its own", || job.trigger_checkpoint().wait().is_ok());
    wait_until("end of its use", || dispose_savepoint(&savepoint.location).is_ok());
    job.cancel();
    assert!(is_cancelled(job.wait()));
}

#[test]
fn when_a_checkpoint_is_asked_for_then_it_comes_without_an_interval() {
    let dir = tempfile::tempdir().unwrap();
    let env = environment_in(dir.path(), 2);
    env.enable_checkpointing(Duration::ZERO);
    counting(&env, Numbers::endless().0);
    let job = env.execute_async().unwrap();
    wait_until("answer other than that tasks do not run yet", || job.trigger_checkpoint().wait().is_ok());
    let checkpoint = job.trigger_checkpoint().wait().unwrap();
    assert_eq!(checkpoints_in(dir.path()).last(), Some(&checkpoint.id.0));
    assert!(Path::new(&checkpoint.location).join("_metadata").exists());
    assert!(matches!(dispose_savepoint(&checkpoint.location), Err(DisposeError::Checkpoint { .. })));
    job.cancel();
    assert!(is_cancelled(job.wait()));
}

/// Counts in windows that no watermark but the last one closes.
fn windowed(env: &Environment, numbers: Numbers) -> thalweg::sink::Collected<u64> {
    let (sink, counts) = collect();
    env.from_source("Numbers", numbers)
        .uid("numbers")
        .assign_timestamps_and_watermarks(WatermarkStrategy::monotonous().with_timestamp(|_| 0))
        .key_by(|_| 0u64)
        .window(TumblingEventTimeWindows::of(Duration::from_secs(3600)))
        .aggregate(Count, |_, _, count| count)
        .uid("windows")
        .sink(sink);
    counts
}

#[test]
fn when_stopped_with_a_savepoint_then_windows_fire_only_when_drained() {
    // Also where no checkpoints come by themselves, and tasks wait for none at their end.
    let cases = [(StopMode::Suspend, false), (StopMode::Drain, true)];
    for ((mode, fired), periodic) in cases.into_iter().flat_map(|case| [(case, true), (case, false)]) {
        let dir = tempfile::tempdir().unwrap();
        let env = environment_in(&dir.path().join("checkpoints"), 2);
        env.checkpoint_config(|options| {
            options.savepoint_dir = Some(dir.path().join("savepoints").display().to_string());
        });
        if !periodic {
            env.enable_checkpointing(Duration::ZERO);
        }
        let counts = windowed(&env, Numbers::endless().0);
        let job = env.execute_async().unwrap();
        wait_until("checkpoint", || completed(&job) > 0 || (!periodic && job.trigger_checkpoint().wait().is_ok()));
        let savepoint = job.stop_with_savepoint(None, mode).wait().unwrap();
        job.wait().unwrap();
        assert!(Path::new(&savepoint.location).starts_with(dir.path().join("savepoints")));
        let counts = counts.take();
        assert_eq!(!counts.is_empty(), fired, "{mode:?}: {counts:?}");
        if fired {
            continue;
        }
        let env = restored(&dir.path().join("checkpoints"), Some(Path::new(&savepoint.location)), 1);
        let (numbers, until) = Numbers::endless();
        until.store(3_000, std::sync::atomic::Ordering::Relaxed);
        let counts = windowed(&env, numbers);
        env.execute().unwrap();
        assert_eq!(counts.take(), [6_000], "what the window held before the stop is in it");
    }
}

#[test]
fn when_a_savepoint_cannot_be_taken_then_the_answer_says_why() {
    let env = environment(1);
    counting(&env, Numbers::endless().0);
    let job = env.execute_async().unwrap();
    assert_eq!(job.trigger_savepoint(None).wait(), Err(SnapshotError::NoTarget));
    let client = job.control();
    job.cancel();
    assert!(is_cancelled(job.wait()));
    assert_eq!(client.trigger_checkpoint().wait(), Err(SnapshotError::JobEnded));
    assert!(client.checkpoints().is_none());

    let env = environment(1);
    env.enable_checkpointing(Duration::ZERO);
    counting(&env, Numbers::endless().0);
    let job = env.execute_async().unwrap();
    assert_eq!(job.trigger_checkpoint().wait(), Err(SnapshotError::NotEnabled));
    job.cancel();
    assert!(is_cancelled(job.wait()));
}

#[test]
fn when_storage_is_memory_then_savepoints_go_to_files_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let env = environment(1);
    env.enable_checkpointing(Duration::ZERO).checkpoint_storage(CheckpointStorage::Memory);
    counting(&env, Numbers::endless().0);
    let job = env.execute_async().unwrap();
    wait_until("savepoint", || job.trigger_savepoint(Some(dir.path())).wait().is_ok());
    job.cancel();
    assert!(is_cancelled(job.wait()));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
