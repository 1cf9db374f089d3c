//! What `thalweg bench crash` makes of its command line: configuration, restoring by path, requests, signals. The kills at
//! any instant are in `crash.rs`.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// So slow that a run does not come to its end before something is done to it.
const SLOW: &str = "20k";
/// So fast that it does at once.
const FAST: &str = "10M";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The directories of a run.
struct Run(tempfile::TempDir);

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn thalweg(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_thalweg")).args(args).env_remove("RUST_LOG").output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Run {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, rate: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg"));
        command.args(["bench", "crash", "--oversubscribe", "-p", "2", "--events", "60k", "--seed", "7"]);
        command.arg("--checkpoint-dir").arg(self.path("checkpoints")).arg("--output").arg(self.path("out"));
        command.args(["--rate", rate]).args(more).env_remove("RUST_LOG");
        command
    }

    /// Runs to the end.
    fn run(&self, rate: &str, more: &[&str]) -> Output {
        self.command(rate, more).output().unwrap()
    }

    /// As [`run`](Self::run); answers what was printed.
    fn good(&self, more: &[&str]) -> String {
        let output = self.run(FAST, more);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// As [`run`](Self::run), for what is refused; answers why.
    fn refused(&self, more: &[&str]) -> String {
        let output = self.run(FAST, more);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(2), ""));
        text(&output.stderr)
    }

    fn start(&self, more: &[&str]) -> Child {
        self.command(SLOW, more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Starts it, and kills it when a checkpoint above `after` is complete and rows are committed; answers the newest.
    fn start_and_kill(&self, after: u64, more: &[&str]) -> u64 {
        let mut child = self.start(more);
        self.wait_for_commit(after, &mut child);
        child.kill().unwrap();
        child.wait().unwrap();
        *self.completed().last().unwrap()
    }

    fn wait_for_commit(&self, after: u64, child: &mut Child) {
        let began = Instant::now();
        let before = self.committed().len();
        while self.completed().last() <= Some(&after) || self.committed().len() <= before {
            assert!(began.elapsed() < PATIENCE && child.try_wait().unwrap().is_none(), "no checkpoint in time");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The job's own directory.
    fn job_dir(&self) -> PathBuf {
        let checkpoints = self.path("checkpoints");
        names(&checkpoints).first().map(|name| checkpoints.join(name)).unwrap_or(checkpoints)
    }

    fn checkpoint(&self, id: u64) -> String {
        self.job_dir().join(format!("chk-{id}")).display().to_string()
    }

    fn completed(&self) -> Vec<u64> {
        let dir = self.job_dir();
        let whole = names(&dir).into_iter().filter(|name| dir.join(name).join("_metadata").exists());
        let mut ids: Vec<u64> = whole.filter_map(|name| name.strip_prefix("chk-")?.parse().ok()).collect();
        ids.sort_unstable();
        ids
    }

    fn committed(&self) -> Vec<String> {
        names(&self.path("out")).into_iter().filter(|name| name.starts_with("part-")).collect()
    }

    /// Nothing is left but committed files.
    fn check_end(&self) {
        let dir = self.job_dir();
        for place in [&dir, &dir.join("shared")] {
            let left: Vec<_> =
                names(place).into_iter().filter(|name| !["shared", "taskowned"].contains(&&**name)).collect();
            assert!(left.is_empty(), "left in {}: {left:?}", place.display());
        }
        assert_eq!(names(&self.path("out")), self.committed());
    }
}

/// Where it answers, from the line that says so.
fn address(stderr: &mut BufReader<ChildStderr>) -> String {
    let found = stderr.by_ref().lines().find_map(|line| Some(line.unwrap().strip_prefix("rest: http://")?.to_owned()));
    found.expect("the line that says where it answers")
}

#[test]
fn when_restored_by_path_to_the_end_then_nothing_is_left_and_the_latest_only_compares() {
    let run = Run::new();
    let mut newest = run.start_and_kill(0, &[]);
    for _ in 0..3 {
        newest = run.start_and_kill(newest, &["--restore", &run.checkpoint(newest)]);
    }
    let path = run.checkpoint(newest);
    assert!(run.good(&["--restore", &path]).contains("as expected\n"));
    run.check_end();
    let committed = run.committed();
    for restore in ["latest", &path] {
        let said = run.good(&["--restore", restore]);
        assert!(said.contains("it had finished before, and was not run again"), "{said}");
        assert_eq!(run.committed(), committed);
        run.check_end();
    }
}

#[test]
fn when_a_path_is_the_users_then_it_stays_and_the_latest_only_compares_all_the_same() {
    let run = Run::new();
    let newest = run.start_and_kill(0, &[]);
    let path = run.checkpoint(newest);
    run.good(&["--restore", &path, "-D", "execution.state-recovery.claim-mode=NO_CLAIM"]);
    let committed = run.committed();
    assert!(run.completed().contains(&newest), "it is the user's");
    for restore in ["latest", &path] {
        assert!(run.good(&["--restore", restore]).contains("was not run again"));
        assert_eq!(run.committed(), committed);
    }
}

#[test]
fn when_something_is_configured_then_it_counts_or_is_refused_by_name() {
    let run = Run::new();
    for key in
        ["checkpoints-after-tasks-finish.enabled=false", "interval=0", "mode=AT_LEAST_ONCE", "storage=jobmanager"]
    {
        let said = run.refused(&["-D", &format!("execution.checkpointing.{key}")]);
        let name = key.split_once(['=', '.']).map_or(key, |(name, _)| name);
        assert!(said.contains(&format!("bench crash cannot run with execution.checkpointing.{name}")), "{said}");
    }
    assert_eq!(run.committed(), [""; 0]);
    // Checkpoints where the user wants them, as many as he wants, and a path from the configuration.
    let keys = ["-D", "execution.checkpointing.create-subdir=false", "-D", "execution.checkpointing.num-retained=5"];
    let mut child = run.start(&keys);
    let checkpoints = run.path("checkpoints");
    let there = || names(&checkpoints).into_iter().filter(|name| checkpoints.join(name).join("_metadata").exists());
    let began = Instant::now();
    while there().count() < 5 {
        assert!(began.elapsed() < PATIENCE && child.try_wait().unwrap().is_none(), "{:?}", names(&checkpoints));
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let newest = there().max_by_key(|name| name["chk-".len()..].parse::<u64>().unwrap()).unwrap();
    let path = format!("execution.state-recovery.path={}", checkpoints.join(newest).display());
    run.good(&[&keys[..], &["-D", &path]].concat());
    assert_eq!(there().count(), 0);
    assert!(run.good(&[&keys[..], &["--restore", "latest"]].concat()).contains("was not run again"));
    // An older name of a backend whose checkpoints lie in files: --checkpoint-dir says where.
    Run::new().good(&["-D", "state.backend=filesystem"]);
}

#[test]
fn when_a_port_is_set_then_requests_are_answered_and_the_job_goes_on_from_where_it_was_stopped() {
    let run = Run::new();
    let mut child = run.start(&["-D", "rest.port=0"]);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let rest = address(&mut stderr);
    run.wait_for_commit(0, &mut child);
    let listed = text(&thalweg(&["list", "--rest", &rest]).stdout);
    let line = listed.lines().find(|line| line.ends_with("crash")).unwrap_or_else(|| panic!("{listed}"));
    let id = line.split_whitespace().next().unwrap();
    let target = run.path("savepoints").display().to_string();
    let stopped = thalweg(&["stop", id, "--target", &target, "--rest", &rest]);
    assert!(stopped.status.success(), "{}", text(&stopped.stderr));
    let savepoint = text(&stopped.stdout).trim_end().to_owned();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stdout);
    assert!(output.status.success() && said.contains(&format!("--restore {savepoint}")), "{said}");
    // There is no checkpoint any more.
    let said = run.refused(&["--restore", "latest"]);
    assert!(said.contains("no checkpoint to go on from") && said.contains("--restore PATH"), "{said}");
    assert!(run.good(&["--restore", &savepoint, "--rest-port", "0"]).contains("as expected\n"));
    assert!(run.good(&["--restore", &savepoint]).contains("was not run again"));
    assert!(Path::new(&savepoint).join("_metadata").exists(), "it is the user's");
}

#[test]
fn when_a_signal_comes_then_the_job_is_cancelled_in_order_and_goes_on_later() {
    let run = Run::new();
    for (signal, more) in [("-TERM", &[][..]), ("-INT", &["--restore", "latest"])] {
        let mut child = run.start(more);
        run.wait_for_commit(run.completed().last().copied().unwrap_or(0), &mut child);
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let output = child.wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{said}");
        assert!(said.contains("cancelled"), "{said}");
        let in_progress = names(&run.path("out")).into_iter().filter(|name| name.ends_with(".inprogress"));
        assert_eq!(in_progress.count(), 0, "{:?}", names(&run.path("out")));
    }
    assert!(run.good(&["--restore", "latest"]).contains("as expected\n"));
    run.check_end();
}

#[test]
fn when_a_command_answers_no_requests_then_it_says_so_by_the_key() {
    let args = ["bench", "pipeline", "--records", "1k", "--runs", "1", "-p", "1", "--rest-port", "0"];
    let output = thalweg(&args);
    let said = text(&output.stderr);
    assert!(
        output.status.success() && said.contains("rest.port has no effect: bench pipeline answers no requests"),
        "{said}"
    );
}
