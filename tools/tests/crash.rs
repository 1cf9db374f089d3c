//! The crash harness: `thalweg bench crash` is killed with SIGKILL again and again, started again each time at another
//! parallelism, and must commit what an undisturbed run commits.
//!
//! Some kills come after a random time; most wait for something to be seen on the disk, so that they hit the moments that
//! matter however slow the machine is: a checkpoint that has begun, one that is complete, files pending, files committed,
//! the end of the job. `THALWEG_CRASH_KILLS` says how many kills there are, `THALWEG_CRASH_SEED` reruns a seed: the same
//! choices, if not the same instants. Now and then the newest checkpoint is damaged between two runs: then the one before it
//! is used, and what the damaged one had committed is there once all the same.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    env,
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Kills in the test command.
const KILLS: u32 = 50;
/// Bytes of an output file, some forty rows: a subtask rolls several between two checkpoints.
const ROLL_BYTES: &str = "4K";
/// Events of a run: a few hundred milliseconds without kills where the machine is fast.
const EVENTS: &str = "60k";
/// Kills of a run after which it is left alone; most come to their end before.
const KILLS_OF_RUN: u32 = 12;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at the disk.
const LOOK: Duration = Duration::from_micros(500);

/// Random numbers that depend on the seed alone.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// What is waited for before a kill.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// So long after the start.
    After(Duration),
    /// So long after a checkpoint of this incarnation is complete.
    Completed(Duration),
    /// A checkpoint of this incarnation has begun, and is not complete.
    Begun,
    /// An output file waits for its checkpoint.
    Pending,
    /// An output file of this incarnation is committed.
    Committed,
    /// A checkpoint that was there is deleted.
    Deleted,
}

impl Moment {
    fn choose(random: &mut Random) -> Self {
        match random.below(10) {
            0 | 1 => Self::After(Duration::from_millis(random.below(150))),
            2..=4 => Self::Completed(Duration::from_millis(random.below(60))),
            5 => Self::Begun,
            6 => Self::Pending,
            7 => Self::Committed,
            8 => Self::Deleted,
            _ => Self::Completed(Duration::ZERO),
        }
    }
}

/// How barriers travel in an incarnation, and how much is in flight then.
fn mode(random: &mut Random) -> &'static [&'static str] {
    const TIMEOUT: &str = "execution.checkpointing.aligned-checkpoint-timeout=5 ms";
    match random.below(4) {
        0 => &["--rate", "200k"],
        1 => &["--rate", "10M", "--work", "10"],
        2 => &["--rate", "10M", "--work", "10", "--unaligned"],
        _ => &["--rate", "10M", "--work", "10", "--unaligned", "-D", TIMEOUT],
    }
}

/// What lies in the two directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    begun: BTreeSet<u64>,
    completed: BTreeSet<u64>,
    committed: BTreeSet<String>,
    /// Names with a dot.
    hidden: BTreeSet<String>,
}

/// Directories of a run.
struct Run {
    dir: tempfile::TempDir,
    seed: u64,
    /// The checkpoints that have been damaged.
    damaged: RefCell<BTreeSet<u64>>,
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect()
}

impl Run {
    fn new(seed: u64) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), seed, damaged: RefCell::default() }
    }

    fn output(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn checkpoints(&self) -> PathBuf {
        self.dir.path().join("checkpoints")
    }

    /// The job's own directory of checkpoints.
    fn job_dir(&self) -> Option<PathBuf> {
        names(&self.checkpoints()).pop().map(|name| self.checkpoints().join(name))
    }

    fn look(&self) -> Seen {
        let mut seen = Seen::default();
        if let Some(job) = self.job_dir() {
            for name in names(&job) {
                let Some(id) = name.strip_prefix("chk-").and_then(|id| id.parse().ok()) else { continue };
                seen.begun.insert(id);
                if job.join(&name).join("_metadata").exists() {
                    seen.completed.insert(id);
                }
            }
        }
        for name in names(&self.output()) {
            if name.starts_with('.') {
                seen.hidden.insert(name)
            } else {
                seen.committed.insert(name)
            };
        }
        seen
    }

    fn start(&self, parallelism: u64, arguments: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg"));
        command.args(["bench", "crash", "--oversubscribe", "--restore", "latest", "--events", EVENTS]).args(arguments);
        command.arg("--checkpoint-dir").arg(self.checkpoints()).arg("--output").arg(self.output());
        command.args(["--seed", &self.seed.to_string(), "-p", &parallelism.to_string()]);
        command.args(["--roll-bytes", ROLL_BYTES]);
        // Small state goes to files too.
        command.args(["-D", "execution.checkpointing.data-inline-threshold=1 kb"]).env_remove("RUST_LOG");
        let log = self.open_log();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    /// Waits for a moment; false where the job has ended before.
    fn wait_for(&self, moment: Moment, child: &mut Child, before: &Seen) -> bool {
        let began = Instant::now();
        let mut since = None;
        let mut last = before.clone();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "{status}: {}", self.log());
                return false;
            }
            assert!(began.elapsed() < PATIENCE, "{moment:?} does not come: {}", self.log());
            let now = self.look();
            let newest = now.completed.last() > before.completed.last();
            let reached = match moment {
                Moment::After(delay) => began.elapsed() >= delay,
                Moment::Completed(delay) => newest && since.get_or_insert_with(Instant::now).elapsed() >= delay,
                Moment::Begun => now.begun.last() > before.begun.last() && now.completed.last() < now.begun.last(),
                Moment::Pending => now.hidden.difference(&before.hidden).any(|name| name.ends_with(".pending")),
                Moment::Committed => !now.committed.is_subset(&before.committed),
                Moment::Deleted => !last.completed.is_subset(&now.completed),
            };
            if reached {
                return true;
            }
            last = now;
            std::thread::sleep(LOOK);
        }
    }

    fn open_log(&self) -> File {
        let path = self.dir.path().join("log");
        OpenOptions::new().create(true).append(true).open(path).unwrap()
    }

    fn note(&self, line: &str) {
        writeln!(self.open_log(), "{line}").unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// How many subtasks have committed something with some checkpoint, and how many files.
    fn transactions_and_files(&self) -> (usize, usize) {
        let names = names(&self.output());
        // part-<subtask>-<checkpoint>-<run>-<number>.ndjson
        let transactions: BTreeSet<Vec<&str>> = names.iter().map(|name| name.split('-').take(3).collect()).collect();
        (transactions.len(), names.len())
    }

    /// All committed lines, ordered.
    fn rows(&self) -> Vec<String> {
        let mut rows = Vec::new();
        for name in names(&self.output()) {
            assert!(name.starts_with("part-") && name.ends_with(".ndjson"), "{name} is left: {}", self.log());
            let text = fs::read_to_string(self.output().join(name)).unwrap();
            rows.extend(text.lines().map(str::to_owned));
        }
        rows.sort_unstable();
        rows
    }

    /// The newest checkpoint that was not damaged is sound, if there is one.
    fn verify(&self) -> bool {
        let completed = self.look().completed;
        let Some(newest) = completed.difference(&self.damaged.borrow()).last().copied() else { return false };
        let path = self.job_dir().unwrap().join(format!("chk-{newest}"));
        let output = Command::new(env!("CARGO_BIN_EXE_thalweg")).args(["state", "verify"]).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}: {said}\n{}", path.display(), self.log());
        true
    }

    /// Damages the newest checkpoint, if there is a sound one before it. Answers whether there is.
    fn damage(&self, random: &mut Random) -> bool {
        let mut completed = self.look().completed;
        let Some(newest) = completed.pop_last() else { return false };
        if completed.is_subset(&self.damaged.borrow()) || !self.damaged.borrow_mut().insert(newest) {
            return false;
        }
        let dir = self.job_dir().unwrap().join(format!("chk-{newest}"));
        let mut files = names(&dir);
        files.sort_unstable();
        let path = dir.join(&files[random.below(files.len() as u64) as usize]);
        let mut bytes = fs::read(&path).unwrap();
        if random.below(2) == 0 {
            bytes.truncate(bytes.len() / 2);
        } else {
            // The first bytes of a state, or the middle of _metadata: all of these are read.
            let at = if path.ends_with("_metadata") { bytes.len() / 2 } else { 140 };
            bytes[at] ^= 0x10;
        }
        fs::write(&path, bytes).unwrap();
        self.note(&format!("damaged {}", path.display()));
        true
    }

    /// Lets it come to its end.
    fn finish(&self, parallelism: u64) {
        let mut child = self.start(parallelism, &["--rate", "1M"]);
        let began = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if began.elapsed() > PATIENCE => {
                    child.kill().unwrap();
                    panic!("the job does not end: {}", self.log());
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// Nothing is left but the output, and nothing went wrong that a restart within the process would hide.
    fn check_end(&self) {
        let mut left = Vec::new();
        let mut open = vec![self.checkpoints()];
        while let Some(dir) = open.pop() {
            for path in names(&dir).into_iter().map(|name| dir.join(name)) {
                let is_checkpoint = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("chk-"));
                if is_checkpoint || !path.is_dir() { left.push(path) } else { open.push(path) }
            }
        }
        assert!(left.is_empty(), "left behind: {left:?}\n{}", self.log());
        let log = self.log();
        for line in
            log.lines().filter(|line| ["WARN", "ERROR", "panicked", "error:"].iter().any(|bad| line.contains(bad)))
        {
            // A checkpoint that was being taken, or that has been damaged.
            let is_expected = |of: &&str| line.contains(of);
            let of_damage = ["is not used: ", "cannot be read: ", "that checkpoints after"];
            let expected = line.contains("_metadata is missing")
                || (!self.damaged.borrow().is_empty() && of_damage.iter().any(is_expected));
            assert!(expected, "{line}\n{log}");
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

#[test]
fn when_killed_at_any_instant_and_restarted_at_any_parallelism_then_the_output_is_that_of_an_undisturbed_run() {
    let kills = number("THALWEG_CRASH_KILLS", KILLS.into());
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as u64;
    let seed = number("THALWEG_CRASH_SEED", clock % 1_000_000);
    println!(
        "to rerun: THALWEG_CRASH_SEED={seed} THALWEG_CRASH_KILLS={kills} cargo test -p thalweg-tools --test crash"
    );
    let mut random = Random::new(seed);
    let undisturbed = Run::new(seed);
    undisturbed.finish(2);
    let expected = undisturbed.rows();
    assert!(expected.len() > 5_000, "{} rows", expected.len());
    undisturbed.check_end();
    let (transactions, files) = undisturbed.transactions_and_files();
    assert!(files > 2 * transactions, "{files} files in {transactions} transactions: too few were rolled");

    let (mut killed, mut runs, mut verified) = (0, 0, 0);
    let (mut transactions, mut files) = (0, 0);
    let (mut restored, mut damaged) = (0, 0);
    while killed < kills {
        let run = Run::new(seed);
        runs += 1;
        let mut ended = false;
        for _ in 0..KILLS_OF_RUN {
            let (moment, parallelism) = (Moment::choose(&mut random), 1 + random.below(4));
            let mode = mode(&mut random);
            let before = run.look();
            let mut child = run.start(parallelism, mode);
            if !run.wait_for(moment, &mut child, &before) {
                ended = true;
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
            restored += u64::from(!before.completed.is_empty());
            run.note(&format!("killed at {moment:?}, -p {parallelism} {mode:?}"));
            if random.below(4) == 0 {
                verified += u64::from(run.verify());
            } else if random.below(4) == 0 {
                damaged += u64::from(run.damage(&mut random));
            }
        }
        if !ended {
            run.finish(1 + random.below(4));
        }
        run.check_end();
        let rows = run.rows();
        assert!(
            rows == expected,
            "run {runs} of seed {seed}: {} rows, not {}: {}",
            rows.len(),
            expected.len(),
            run.log()
        );
        let (run_transactions, run_files) = run.transactions_and_files();
        transactions += run_transactions;
        files += run_files;
    }
    println!("{files} files were committed in {transactions} transactions");
    assert!(files > 2 * transactions, "too few files were rolled");
    println!(
        "{killed} kills in {runs} runs; {restored} incarnations were restored; {verified} checkpoints verified, {damaged} \
         damaged"
    );
    assert!(restored > 0 && verified > 0, "kills have come too early for any checkpoint");
}
