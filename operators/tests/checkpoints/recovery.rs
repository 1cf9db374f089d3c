//! Jobs that start from what an earlier one has left: the latest, one that is named, and what is refused.

use std::{
    fs::{self, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use thalweg::{
    cluster::RestoreError,
    model::config::{ClaimMode, RestoreFrom},
    prelude::*,
};

use crate::numbers::{
    Numbers, checkpoints_in, completed, counting, environment, environment_in, finish, job_dir, leave_checkpoints,
    restored, wait_until,
};

#[test]
fn when_the_latest_is_asked_for_then_the_job_goes_on_at_any_parallelism() {
    let dir = tempfile::tempdir().unwrap();
    let kept = leave_checkpoints(dir.path(), 2, |_| {});
    assert_eq!(finish(&restored(dir.path(), None, 1)), Some(kept[1]));
    assert_eq!(checkpoints_in(dir.path()), [0; 0], "what was adopted goes with the job's own");
}

#[test]
fn when_there_is_nothing_to_restore_then_latest_starts_from_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(finish(&restored(dir.path(), None, 2)), None);
}

#[test]
fn when_a_path_is_named_then_it_is_used_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let kept = leave_checkpoints(dir.path(), 2, |_| {});
    let older = job_dir(dir.path()).join(format!("chk-{}", kept[0]));
    for path in [older.clone(), older.join("_metadata")] {
        let own = tempfile::tempdir().unwrap();
        assert_eq!(finish(&restored(own.path(), Some(&path), 2)), Some(kept[0]));
        assert_eq!(checkpoints_in(dir.path()), kept);
    }
    for explicit in [false, true] {
        let env = restored(dir.path(), Some(&older), 2);
        if explicit {
            env.recovery(|options| options.claim_mode = ClaimMode::NoClaim);
        }
        assert_eq!(finish(&env), Some(kept[0]), "from its own directory");
        assert_eq!(checkpoints_in(dir.path()), kept, "NO_CLAIM: it is the user's");
    }
}

#[test]
fn when_a_path_in_the_jobs_own_directory_is_claimed_then_nothing_is_left_of_it_nor_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let kept = leave_checkpoints(dir.path(), 3, |_| {});
    // As a kill in the middle of another checkpoint leaves it.
    let path = job_dir(dir.path()).join(format!("chk-{}", kept[1]));
    let env = restored(dir.path(), Some(&path), 2);
    env.recovery(|options| options.claim_mode = ClaimMode::Claim);
    let (numbers, until) = Numbers::endless();
    counting(&env, numbers);
    let job = env.execute_async().unwrap();
    wait_until("two checkpoints", || completed(&job) > 1);
    wait_until("the others go", || checkpoints_in(dir.path()).iter().all(|id| !kept.contains(id)));
    until.store(0, std::sync::atomic::Ordering::Relaxed);
    job.wait().unwrap();
    assert_eq!(checkpoints_in(dir.path()), [0u64; 0], "it has run to its end");
}

#[test]
fn when_a_named_path_turns_out_to_be_damaged_then_the_others_of_the_job_stay() {
    let dir = tempfile::tempdir().unwrap();
    let change = |env: &Environment| {
        env.checkpoint_config(|options| options.data_inline_threshold_bytes = 0);
    };
    let kept = leave_checkpoints(dir.path(), 2, change);
    let path = job_dir(dir.path()).join(format!("chk-{}", kept[1]));
    // In the payload: nobody looks at it before it is read.
    flip(&block_file(&path), 140);
    let env = restored(dir.path(), Some(&path), 2);
    env.recovery(|options| options.claim_mode = ClaimMode::Claim);
    counting(&env, Numbers::endless().0);
    let error = env.execute().unwrap_err().to_string();
    assert!(error.contains("no checkpoint is left that can be read"), "{error}");
    assert_eq!(checkpoints_in(dir.path()), kept);
}

#[test]
fn when_a_path_is_claimed_then_it_is_deleted_once_it_is_of_no_use() {
    for own_dir in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let kept = leave_checkpoints(dir.path(), 1, |env| {
            env.checkpoint_config(|options| (options.incremental, options.data_inline_threshold_bytes) = (true, 0));
        });
        let other = tempfile::tempdir().unwrap();
        let path = job_dir(dir.path()).join(format!("chk-{}", kept[0]));
        let env = restored(if own_dir { dir.path() } else { other.path() }, Some(&path), 2);
        env.recovery(|options| options.claim_mode = ClaimMode::Claim);
        env.checkpoint_config(|options| (options.incremental, options.data_inline_threshold_bytes) = (true, 0));
        assert_eq!(finish(&env), Some(kept[0]));
        assert!(!path.exists());
        let shared = fs::read_dir(job_dir(dir.path()).join("shared")).unwrap();
        assert_eq!(shared.count(), 0, "shared files go with it; own directory: {own_dir}");
    }
}

#[test]
fn when_a_path_is_restored_then_the_mode_says_whether_the_next_checkpoint_may_build_on_it() {
    use ClaimMode::{Claim, Legacy, NoClaim};
    for (mode, builds_on, stays) in [(NoClaim, false, true), (Legacy, true, true), (Claim, true, false)] {
        let change = |env: &Environment| {
            env.checkpoint_config(|options| (options.incremental, options.data_inline_threshold_bytes) = (true, 0));
        };
        let dir = tempfile::tempdir().unwrap();
        let kept = leave_checkpoints(dir.path(), 1, change)[0];
        let path = job_dir(dir.path()).join(format!("chk-{kept}"));
        let env = restored(dir.path(), Some(&path), 2);
        env.recovery(|options| options.claim_mode = mode);
        change(&env);
        let (numbers, until) = Numbers::endless();
        counting(&env, numbers);
        let job = env.execute_async().unwrap();
        wait_until("two checkpoints", || completed(&job) > 1);
        let statistics = job.control().checkpoints().unwrap();
        let first = statistics.history().into_iter().rev().find(|record| record.barrier.is_some()).unwrap();
        let base = first.barrier.unwrap().base.map(|base| base.0);
        assert_eq!(base, builds_on.then_some(kept), "{mode:?}");
        assert_eq!(path.exists(), stays, "{mode:?}");
        until.store(0, std::sync::atomic::Ordering::Relaxed);
        job.wait().unwrap();
        assert_eq!(path.exists(), stays, "{mode:?}");
        if stays {
            let own = tempfile::tempdir().unwrap();
            assert_eq!(finish(&restored(own.path(), Some(&path), 1)), Some(kept), "{mode:?}: it is whole");
        }
    }
}

#[test]
fn when_a_path_is_no_checkpoint_then_the_job_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let env = restored(dir.path(), Some(&dir.path().join("nothing")), 1);
    counting(&env, Numbers::endless().0);
    let error = env.execute().unwrap_err();
    assert!(matches!(error, Error::Restore(RestoreError::Unreadable { .. })), "{error}");
    assert!(error.to_string().contains("nothing/_metadata is missing"), "{error}");
}

fn flip(path: &Path, at: u64) {
    let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 0x10]).unwrap();
}

/// Puts a named pipe where a file is.
fn pipe(path: &Path) {
    fs::remove_file(path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// A block file of a checkpoint, with a payload.
fn block_file(checkpoint: &Path) -> PathBuf {
    let files = fs::read_dir(checkpoint).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.filter(|path| !path.ends_with("_metadata")).collect();
    files.sort_unstable_by_key(|path| fs::metadata(path).unwrap().len());
    files.pop().expect("state in files")
}

#[test]
fn when_the_newest_is_damaged_then_the_one_before_is_used() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 8] = [
        ("metadata flipped", |dir| flip(&dir.join("_metadata"), 100)),
        ("metadata truncated", |dir| {
            let file = OpenOptions::new().write(true).open(dir.join("_metadata")).unwrap();
            file.set_len(50).unwrap();
        }),
        ("metadata missing", |dir| fs::remove_file(dir.join("_metadata")).unwrap()),
        ("file missing", |dir| fs::remove_file(block_file(dir)).unwrap()),
        ("file truncated", |dir| {
            let file = OpenOptions::new().write(true).open(block_file(dir)).unwrap();
            file.set_len(4096 - 8).unwrap();
        }),
        // In the payload: nobody looks at it before it is read.
        ("file flipped", |dir| flip(&block_file(dir), 140)),
        // Nobody waits for a writer at its other end.
        ("metadata a pipe", |dir| pipe(&dir.join("_metadata"))),
        ("file a pipe", |dir| pipe(&block_file(dir))),
    ];
    for (what, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        let kept = leave_checkpoints(dir.path(), 2, |env| {
            env.checkpoint_config(|options| options.data_inline_threshold_bytes = 0);
        });
        damage(&job_dir(dir.path()).join(format!("chk-{}", kept[1])));
        let env = restored(dir.path(), None, 2);
        env.restart_strategy(RestartStrategyOptions::None);
        assert_eq!(finish(&env), Some(kept[0]), "{what}");
    }
}

#[test]
fn when_all_are_damaged_inside_then_the_job_fails_instead_of_starting_from_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let kept = leave_checkpoints(dir.path(), 1, |env| {
        env.checkpoint_config(|options| options.data_inline_threshold_bytes = 0);
    });
    flip(&block_file(&job_dir(dir.path()).join(format!("chk-{}", kept[0]))), 140);
    let env = restored(dir.path(), None, 2);
    counting(&env, Numbers::endless().0);
    let error = env.execute().unwrap_err().to_string();
    assert!(error.contains("no checkpoint is left that can be read"), "{error}");
}

#[test]
fn when_the_metadata_of_all_is_damaged_then_the_job_does_not_start_from_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let kept = leave_checkpoints(dir.path(), 2, |_| {});
    for id in kept {
        flip(&job_dir(dir.path()).join(format!("chk-{id}/_metadata")), 100);
    }
    let env = restored(dir.path(), None, 2);
    counting(&env, Numbers::endless().0);
    let error = env.execute().unwrap_err();
    assert!(matches!(error, Error::Restore(RestoreError::NoneReadable { .. })), "{error}");
    assert!(error.to_string().contains("use an empty checkpoint directory"), "{error}");
}

/// A job without the operator that counts.
fn without_count(env: &Environment) {
    let (numbers, until) = Numbers::endless();
    until.store(10, std::sync::atomic::Ordering::Relaxed);
    env.from_source("Numbers", numbers).uid("numbers").sink(discard().0);
}

#[test]
fn when_nobody_claims_a_state_then_the_job_is_refused_unless_that_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let kept = leave_checkpoints(dir.path(), 1, |_| {});
    let env = restored(dir.path(), None, 2);
    without_count(&env);
    let error = env.execute().unwrap_err();
    assert!(matches!(error, Error::Restore(RestoreError::Unclaimed { .. })), "{error}");
    assert!(error.to_string().contains("uid \"count\""), "{error}");
    assert_eq!(checkpoints_in(dir.path()), kept);
    let env = restored(dir.path(), None, 2);
    env.recovery(|options| options.ignore_unclaimed_state = true);
    without_count(&env);
    env.execute().unwrap();
}

#[test]
fn when_the_maximum_parallelism_is_derived_then_it_is_the_checkpoints_and_another_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    leave_checkpoints(dir.path(), 1, |env| {
        let _ = env.max_parallelism(40);
    });
    let env = restored(dir.path(), None, 2);
    env.max_parallelism(50);
    counting(&env, Numbers::endless().0);
    let error = env.execute().unwrap_err();
    assert!(matches!(error, Error::Restore(RestoreError::MaxParallelism { written: 40, now: 50, .. })), "{error}");
    finish(&restored(dir.path(), None, 2)).expect("the checkpoint that was left");
}

#[test]
fn when_two_operators_have_one_uid_then_the_job_is_refused() {
    let env = environment(1);
    env.generate(10, |n| n).uid("same").rebalance().map(|n| n).uid("same").sink(discard().0);
    let error = env.execute().unwrap_err().to_string();
    assert!(error.contains("the same uid \"same\""), "{error}");
}

#[test]
fn when_latest_is_asked_for_without_a_directory_then_the_job_is_refused() {
    let env = environment(1);
    env.recovery(|options| options.restore_from = Some(RestoreFrom::Latest));
    counting(&env, Numbers::endless().0);
    assert!(matches!(env.execute(), Err(Error::Build(_))));
    let dir = tempfile::tempdir().unwrap();
    let env = environment_in(dir.path(), 1);
    counting(&env, Numbers::endless().0);
    env.explain().unwrap();
}
