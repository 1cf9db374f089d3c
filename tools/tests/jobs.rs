//! Jobs that run in processes of their own, and the commands that ask them over HTTP: this test binary, started again as a
//! child, is the job.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use thalweg::{entry::main_with_args, model::JobId, prelude::*};

/// Where a child writes its last counts; without it this process is none.
const CHILD_OUTPUT: &str = "THALWEG_TEST_OUTPUT";
/// How many numbers it makes a second.
const CHILD_RATE: &str = "THALWEG_TEST_RATE";
/// Its command line.
const CHILD_ARGS: &str = "THALWEG_TEST_ARGS";
/// So slow that a job does not come to its end before it is stopped.
const SLOW: &str = "2000";
/// So fast that one does at once.
const FAST: &str = "1e9";
/// All numbers.
const NUMBERS: u64 = 200_000;
/// Keys that they are counted by.
const KEYS: u64 = 10;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does nothing unless this process is a child: then it counts numbers by their last digit.
#[test]
fn when_started_as_a_child_then_the_job_runs() {
    let Ok(output) = env::var(CHILD_OUTPUT) else { return };
    let rate: f64 = env::var(CHILD_RATE).unwrap().parse().unwrap();
    let args = env::var(CHILD_ARGS).unwrap();
    let args = ["counting", "--oversubscribe", "-p", "2"].into_iter().chain(args.lines());
    let status = main_with_args(args, |env, _: thalweg::NoArgs| {
        let (sink, counts) = collect();
        env.generate_at_rate(NUMBERS, rate, |n| n)
            .uid("numbers")
            .key_by(|n| n % KEYS)
            .aggregate(Count, |key, count| (key, count))
            .uid("count")
            .sink(sink);
        env.on_finished(move |_| fs::write(output, serde_json::to_string(&counts.take()).unwrap()).unwrap());
        Ok(())
    });
    std::process::exit(status.into());
}

/// A job in a process of its own, which is killed with the test.
struct Job {
    child: Child,
    /// Where it answers.
    rest: String,
    output: PathBuf,
    /// What it has said up to there.
    said: Vec<String>,
}

impl Job {
    fn start(dir: &Path, rate: &str, more: &[&str]) -> Self {
        let output = dir.join("counts");
        let checkpoints = dir.join("checkpoints").display().to_string();
        let args = [&["--rest-port", "0", "--checkpoint-dir", &checkpoints], more].concat().join("\n");
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "when_started_as_a_child_then_the_job_runs", "--nocapture"])
            .env(CHILD_OUTPUT, &output)
            .env(CHILD_RATE, rate)
            .env(CHILD_ARGS, args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let rest = lines.by_ref().find_map(|line| {
            said.push(line.unwrap());
            Some(said.last()?.strip_prefix("rest: http://")?.to_owned())
        });
        // What else it says is read to its end, or it would block.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, rest: rest.expect("the line that says where it answers"), output, said }
    }

    fn id() -> String {
        JobId::from_name("counting").to_string()
    }

    /// Runs a subcommand that asks this job.
    fn ask(&self, args: &[&str]) -> Output {
        thalweg(&[args, &["--rest", &self.rest]].concat())
    }

    /// Waits for the end; answers the exit status and the counts as they went by.
    fn wait(mut self) -> (Option<i32>, Vec<(u64, u64)>) {
        let status = self.child.wait().unwrap();
        let counts = fs::read_to_string(&self.output).map(|text| serde_json::from_str(&text).unwrap());
        (status.code(), counts.unwrap_or_default())
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn thalweg(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_thalweg")).args(args).env_remove("RUST_LOG").output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Tries until it works: until all tasks run no checkpoint can be taken. Answers the path that was printed.
fn path_of(mut attempt: impl FnMut() -> Output) -> PathBuf {
    let began = Instant::now();
    loop {
        let output = attempt();
        if output.status.success() {
            let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end());
            assert!(path.is_absolute() && path.join("_metadata").exists(), "{}", path.display());
            return path;
        }
        assert!(began.elapsed() < PATIENCE, "{}", said(&output));
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn when_a_job_runs_then_commands_take_savepoints_stop_it_and_it_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let (id, savepoints) = (Job::id(), dir.path().join("savepoints").display().to_string());
    let job = Job::start(dir.path(), SLOW, &[]);
    let listed = said(&job.ask(&["list"]));
    assert!(listed.lines().any(|line| line.starts_with(&id) && line.ends_with("counting")), "{listed}");

    let first = path_of(|| job.ask(&["savepoint", "trigger", &id, "--target", &savepoints]));
    assert!(said(&job.ask(&["list"])).contains("RUNNING"), "a savepoint does not end the job");
    let last = path_of(|| job.ask(&["stop", &id, "--target", &savepoints]));
    let (status, counts) = job.wait();
    assert!(status == Some(0) && (counts.len() as u64) < NUMBERS, "stopped in order, before the end");

    for (savepoint, before) in [(first, None), (last, Some(counts))] {
        let job = Job::start(dir.path(), FAST, &["--restore", savepoint.to_str().unwrap()]);
        let (status, after) = job.wait();
        assert!(status == Some(0) && (after.len() as u64) < NUMBERS, "it goes on, and does not start anew");
        if let Some(before) = before {
            assert_eq!(before.len() + after.len(), NUMBERS as usize, "each number is counted once");
        }
        let highest = after.into_iter().fold(BTreeMap::new(), |mut highest, (key, count)| {
            let most = highest.entry(key).or_insert(0);
            *most = count.max(*most);
            highest
        });
        assert_eq!(highest, (0..KEYS).map(|key| (key, NUMBERS / KEYS)).collect());
    }
}

#[test]
fn when_a_job_is_restored_from_a_savepoint_that_was_taken_with_drain_then_it_says_that_nothing_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let (id, savepoints) = (Job::id(), dir.path().join("savepoints").display().to_string());
    let job = Job::start(dir.path(), SLOW, &[]);
    let drained = path_of(|| job.ask(&["stop", &id, "--drain", "--target", &savepoints]));
    assert_eq!(job.wait().0, Some(0));
    let job = Job::start(dir.path(), FAST, &["--restore", drained.to_str().unwrap()]);
    let said = job.said.join("\n");
    assert!(said.contains("WARN") && said.contains("nothing is left to be done"), "{said}");
    assert!(said.contains("with drain") && said.contains(drained.to_str().unwrap()), "{said}");
    assert_eq!(job.wait(), (Some(0), Vec::new()));
}

#[test]
fn when_something_cannot_be_done_then_the_command_fails_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let job = Job::start(dir.path(), SLOW, &[]);
    let failure = |args: &[&str], reason: &str| {
        let output = job.ask(args);
        let said = said(&output);
        assert!(
            output.status.code() == Some(1) && output.stdout.is_empty() && said.contains(reason),
            "{args:?}: {said}"
        );
    };
    failure(&["savepoint", "trigger", &Job::id()], "execution.checkpointing.savepoint-dir");
    failure(&["stop", &"0".repeat(32)], "there is no job 0000");
    failure(&["stop", &Job::id(), "--target", "hdfs://nn/savepoints"], "not a place on this machine");
    // A directory that cannot be made: the operation is begun, and fails.
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let began = Instant::now();
    loop {
        let said = said(&job.ask(&["savepoint", "trigger", &Job::id(), "--target", file.to_str().unwrap()]));
        assert!(said.contains("error: ") && began.elapsed() < PATIENCE, "{said}");
        if said.contains(&format!("cannot make {}", file.display())) {
            assert!(said.contains("name another target") && !said.contains("execution.checkpointing.dir"), "{said}");
            break;
        }
    }
    assert!(thalweg(&["list", "--rest", &job.rest]).status.success(), "it goes on");

    let output = job.ask(&["cancel", &Job::id()]);
    assert!(output.status.success() && said(&output).contains("CANCELED"), "{}", said(&output));
    let rest = job.rest.clone();
    assert_eq!(job.wait(), (Some(130), Vec::new()));
    let output = thalweg(&["list", "--rest", &rest]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("nobody answers") && said(&output).contains("--rest-port"), "{}", said(&output));
}

#[test]
fn when_an_id_is_none_then_the_command_line_is_wrong() {
    for args in [&["stop", "7"][..], &["cancel", "x"], &["savepoint", "trigger", "-"], &["stop"]] {
        assert_eq!(thalweg(args).status.code(), Some(2), "{args:?}");
    }
}
