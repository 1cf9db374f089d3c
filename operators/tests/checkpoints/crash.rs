//! Processes that are killed, and new ones that go on where those were: this test binary, started again as a child.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::AtomicU64},
};

use thalweg::entry::main_with_args;

use crate::numbers::{ALL, Numbers, checkpoints_in, counting, exact, last_counts, wait_until};

/// The directory of a child; without it this process is none.
const CHILD_DIR: &str = "THALWEG_TEST_CHECKPOINT_DIR";
/// Its parallelism.
const CHILD_PARALLELISM: &str = "THALWEG_TEST_PARALLELISM";
/// Kills before the job may end.
const KILLS: usize = 4;

/// Does nothing unless this process is a child: then it counts, from the latest checkpoint on, and writes the counts.
#[test]
fn when_started_as_a_child_then_the_job_runs() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let parallelism = std::env::var(CHILD_PARALLELISM).unwrap();
    let checkpoints = format!("{dir}/checkpoints");
    let args = ["numbers", "--checkpoint-dir", &checkpoints, "--checkpoint-interval", "20", "--restore", "latest"];
    let args = args.into_iter().chain(["--oversubscribe", "-p", &parallelism]);
    let status = main_with_args(args, |env, _: thalweg::NoArgs| {
        let counts = counting(env, Numbers::new(&Arc::new(AtomicU64::new(ALL))));
        env.on_finished(move |_| {
            let lines: Vec<String> = counts.take().iter().map(|(digit, count)| format!("{digit} {count}")).collect();
            fs::write(format!("{dir}/counts"), lines.join("\n")).unwrap();
        });
        Ok(())
    });
    std::process::exit(status.into());
}

fn start(dir: &Path, parallelism: u32) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::when_started_as_a_child_then_the_job_runs", "--nocapture"])
        .env(CHILD_DIR, dir)
        .env(CHILD_PARALLELISM, parallelism.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
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
