//! Processes that are killed, and new ones that go on where those were: this test binary, started again as a child.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::AtomicU64},
};

use thalweg::{Error, cluster::RestoreError, entry::main_with_args};
use thalweg_io::checkpoint::StoreError;

use crate::numbers::{
    ALL, Numbers, checkpoints_in, completed, counting, environment_in, exact, finish, is_cancelled, last_counts,
    restored, wait_until,
};

/// The directory of a child; without it this process is none.
const CHILD_DIR: &str = "THALWEG_TEST_CHECKPOINT_DIR";
/// Its parallelism.
const CHILD_PARALLELISM: &str = "THALWEG_TEST_PARALLELISM";
/// How many numbers it counts in each split, if not all.
const CHILD_UNTIL: &str = "THALWEG_TEST_UNTIL";
/// Kills before the job may end.
const KILLS: usize = 4;

/// Does nothing unless this process is a child: then it counts, from the latest checkpoint on, and writes the counts.
#[test]
fn when_started_as_a_child_then_the_job_runs() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let parallelism = std::env::var(CHILD_PARALLELISM).unwrap();
    let until = std::env::var(CHILD_UNTIL).map_or(ALL, |until| until.parse().unwrap());
    let checkpoints = format!("{dir}/checkpoints");
    let args = ["numbers", "--checkpoint-dir", &checkpoints, "--checkpoint-interval", "20", "--restore", "latest"];
    let args = args.into_iter().chain(["--oversubscribe", "-p", &parallelism]);
    let status = main_with_args(args, |env, _: thalweg::NoArgs| {
        let counts = counting(env, Numbers::new(&Arc::new(AtomicU64::new(until))));
        env.on_finished(move |_| {
            let lines: Vec<String> = counts.take().iter().map(|(digit, count)| format!("{digit} {count}")).collect();
            fs::write(format!("{dir}/counts"), lines.join("\n")).unwrap();
        });
        Ok(())
    });
    std::process::exit(status.into());
}

fn start(dir: &Path, parallelism: u32) -> Child {
    command(dir, parallelism).spawn().unwrap()
}

fn command(dir: &Path, parallelism: u32) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "crash::when_started_as_a_child_then_the_job_runs", "--nocapture"])
        .env(CHILD_DIR, dir)
        .env(CHILD_PARALLELISM, parallelism.to_string())
        .stdout(Stdio::null());
    command
}

#[test]
fn when_the_process_is_killed_then_a_new_one_goes_on_from_the_latest_at_any_parallelism() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = dir.path().join("checkpoints");
    fs::create_dir(&checkpoints).unwrap();
    for kill in 0..KILLS {
        let before = checkpoints_in(&checkpoints).last().copied();
        let mut child = start(dir.path(), 1 + kill as u32 % 2);
        wait_until("checkpoint", || checkpoints_in(&checkpoints).last().copied() > before);
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL), "it was too fast to be killed");
    }
    assert!(start(dir.path(), 2).wait().unwrap().success());
    let counts = fs::read_to_string(dir.path().join("counts")).unwrap();
    let counts = counts.lines().map(|line| {
        let (digit, count) = line.split_once(' ').unwrap();
        (digit.parse().unwrap(), count.parse().unwrap())
    });
    let counts: Vec<(u64, u64)> = counts.collect();
    assert!(counts.iter().all(|count| count.1 > 1), "the last process went on, and did not start from nothing");
    assert_eq!(last_counts(counts), exact(ALL));
    assert_eq!(checkpoints_in(&checkpoints), [0; 0]);
}

fn is_in_use(error: &Error) -> bool {
    matches!(error, Error::Restore(RestoreError::Store(StoreError::InUse { .. })))
}

#[test]
fn when_a_job_runs_in_a_process_then_others_are_refused_until_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = dir.path().join("checkpoints");
    fs::create_dir(&checkpoints).unwrap();
    let mut child = command(dir.path(), 1).env(CHILD_UNTIL, u64::MAX.to_string()).spawn().unwrap();
    wait_until("checkpoint", || !checkpoints_in(&checkpoints).is_empty());
    let env = restored(&checkpoints, None, 1);
    counting(&env, Numbers::endless().0);
    let error = env.execute().unwrap_err();
    assert!(is_in_use(&error), "{error}");
    assert!(error.to_string().contains(checkpoints.to_str().unwrap()), "{error}");
    // Another process is told so too, and nothing else happens.
    let second = command(dir.path(), 1).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.code() == Some(1) && said.contains("is in use by a job that is running"), "{said}");
    let seen = checkpoints_in(&checkpoints).last().copied();
    wait_until("checkpoint of the first", || checkpoints_in(&checkpoints).last().copied() > seen);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    assert!(finish(&restored(&checkpoints, None, 1)).is_some());
}

#[test]
fn when_a_job_has_ended_then_its_directory_is_free_in_the_same_process() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let env = environment_in(dir.path(), 1);
        counting(&env, Numbers::endless().0);
        let job = env.execute_async().unwrap();
        wait_until("checkpoint", || completed(&job) > 0);
        let error = env.execute_async().err().unwrap();
        assert!(is_in_use(&error), "{error}");
        job.cancel();
        assert!(is_cancelled(job.wait()));
    }
}
