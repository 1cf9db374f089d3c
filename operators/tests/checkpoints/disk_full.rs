//! A disk that is really full: by a limit of the process on the size of files, and by a small file system.
//!
//! Each is a matter of a whole process, so that the job runs in one of its own: this very program, with one test.

use std::{
    env, fs,
    io::Write as _,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::Ordering::Relaxed,
};

use thalweg::prelude::*;

use crate::numbers::{ALL, Numbers, completed, counting, environment_in, exact, last_counts, wait_until};

/// Names the directory of checkpoints to the process that runs the job,
const DIR: &str = "THALWEG_TEST_FULL_DIR";
/// and how its disk becomes full.
const WAY: &str = "THALWEG_TEST_FULL_WAY";
const LIMIT: &str = "limit";
const TMPFS: &str = "tmpfs";
/// The test that it runs.
const JOB: &str = "disk_full::in_a_process_of_its_own";

/// This program with that test alone, behind what comes before it on a command line.
fn run(before: &[&str], dir: &Path, way: &str) -> Output {
    let program = env::current_exe().unwrap();
    let mut line: Vec<_> = before.iter().map(|word| PathBuf::from(*word)).collect();
    line.push(program);
    let mut command = Command::new(&line[0]);
    command.args(&line[1..]).args(["--exact", "--ignored", "--nocapture", JOB]);
    command.env(DIR, dir).env(WAY, way).output().unwrap()
}

fn assert_passed(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "signal {:?}: {text}", output.status.signal());
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
fn when_no_file_may_grow_then_checkpoints_fail_until_they_may_again() {
    let dir = tempfile::tempdir().unwrap();
    assert_passed(&run(&[], dir.path(), LIMIT));
}

#[test]
fn when_a_small_file_system_is_full_then_checkpoints_fail_until_there_is_room_again() {
    const MOUNTED: &str = r#"mount -t tmpfs -o size=1m tmpfs "$THALWEG_TEST_FULL_DIR" && exec "$@""#;
    let dir = tempfile::tempdir().unwrap();
    // In namespaces of its own, which need no privilege where the system has them for everybody.
    let namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNTED, "sh"];
    let probe = Command::new(namespace[0]).args(&namespace[1..]).arg("true").env(DIR, dir.path()).output();
    match probe {
        Ok(probe) if probe.status.success() => assert_passed(&run(&namespace, dir.path(), TMPFS)),
        other => {
            // Past the capture of the test harness: whoever reads the output is to see it.
            let _ = writeln!(std::io::stderr(), "SKIPPED: no file system can be mounted in a namespace: {other:?}");
        }
    }
}

/// Takes all room away, or gives it back.
fn set_full(way: &str, dir: &Path, full: bool) {
    match (way, full) {
        (LIMIT, _) => {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: plain system calls on a structure of ours. What would end the process when a file may not grow is
            // ignored: an error is what is wanted.
            unsafe {
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                assert_eq!(libc::getrlimit(libc::RLIMIT_FSIZE, &mut limit), 0);
                limit.rlim_cur = if full { 0 } else { limit.rlim_max };
                assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
            }
        }
        (TMPFS, true) => {
            let mut ballast = fs::File::create(dir.join("ballast")).unwrap();
            let full = loop {
                if let Err(error) = ballast.write_all(&[0; 4096]) {
                    break error;
                }
            };
            assert_eq!(full.raw_os_error(), Some(libc::ENOSPC), "{full}");
        }
        (TMPFS, false) => fs::remove_file(dir.join("ballast")).unwrap(),
        _ => panic!("no way {way}"),
    }
}

#[test]
#[ignore = "run by the tests beside it, in a process of its own"]
fn in_a_process_of_its_own() {
    let (Some(dir), Ok(way)) = (env::var_os(DIR), env::var(WAY)) else { panic!("run the tests beside this one") };
    let dir = PathBuf::from(dir);
    for inline in [0, 1 << 20] {
        let checkpoints = dir.join(format!("inline-{inline}"));
        fs::create_dir(&checkpoints).unwrap();
        let env = environment_in(&checkpoints, 2);
        env.restart_strategy(RestartStrategyOptions::None);
        env.checkpoint_config(|options| {
            (options.tolerable_failed, options.data_inline_threshold_bytes) = (u32::MAX, inline);
        });
        let (numbers, until) = Numbers::endless();
        let counts = counting(&env, numbers);
        let job = env.execute_async().unwrap();
        let failed = || job.control().checkpoints().map_or(0, |statistics| statistics.counts().failed);
        wait_until("checkpoint", || completed(&job) > 0);
        let before = failed();
        set_full(&way, &dir, true);
        wait_until("failures", || failed() >= before + 3);
        assert!(!job.is_finished());
        set_full(&way, &dir, false);
        let before = completed(&job);
        wait_until("checkpoints again", || completed(&job) > before);
        until.store(ALL, Relaxed);
        job.wait().unwrap();
        assert_eq!(last_counts(counts.take()), exact(ALL));
        let left: Vec<_> =
            fs::read_dir(&checkpoints).unwrap().flat_map(|job| fs::read_dir(job.unwrap().path())).collect();
        let left: Vec<_> = left.into_iter().flatten().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_str().unwrap().starts_with("chk-")), "{left:?}");
    }
}
