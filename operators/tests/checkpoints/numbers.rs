//! What the tests share: a source of numbers that knows where it is, jobs that count them, and looks at directories.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use thalweg::{
    checkpoint::{OperatorRestore, OperatorSnapshot},
    model::{
        Elem,
        config::{CheckpointStorage, RestoreFrom},
        time::MIN_WATERMARK,
    },
    prelude::*,
    runtime::{Clock, JobError, SegmentContext, SourceStatus},
    sink::Collected,
    source::SourceError,
};

/// Numbers in each split of [`Numbers`] begin at multiples of this.
pub const SPLIT: u64 = 1_000_000;
/// How long tests wait for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Two splits of numbers at a pace, endless until told to end; knows where it is in each.
#[derive(Clone)]
pub struct Numbers {
    /// Numbers of each split once it is to end.
    until: Arc<AtomicU64>,
    /// Split and the next number in it.
    positions: Vec<(u64, u64)>,
    clock: Option<Arc<dyn Clock>>,
    began_ns: u64,
    emitted: u64,
}

/// Between two numbers of a subtask.
const PACE_NS: u64 = 100_000;

impl Numbers {
    pub fn new(until: &Arc<AtomicU64>) -> Self {
        Self { until: until.clone(), positions: Vec::new(), clock: None, began_ns: 0, emitted: 0 }
    }

    pub fn endless() -> (Self, Arc<AtomicU64>) {
        let until = Arc::new(AtomicU64::new(u64::MAX));
        (Self::new(&until), until)
    }
}

impl Source for Numbers {
    type Out = u64;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), SourceError> {
        self.positions =
            (0..2).filter(|n| n % u64::from(ctx.parallelism) == u64::from(ctx.subtask)).map(|n| (n, 0)).collect();
        self.began_ns = ctx.clock.now_ns();
        self.clock = Some(ctx.clock.clone());
        Ok(())
    }
    fn poll<E: Emit<u64>>(&mut self, _: usize, emit: &mut E) -> Result<SourceStatus, SourceError> {
        let due_ns = self.began_ns + self.emitted * PACE_NS;
        if self.clock.as_ref().is_some_and(|clock| clock.now_ns() < due_ns) {
            return Ok(SourceStatus::Wait { until_ns: Some(due_ns) });
        }
        let until = self.until.load(Relaxed);
        let mut open = 0;
        for (split, next) in self.positions.iter_mut().filter(|(_, next)| *next < until) {
            open += 1;
            if emit.room() {
                emit.emit(Elem::new(*split * SPLIT + *next, MIN_WATERMARK));
                self.emitted += 1;
                *next += 1;
            }
        }
        Ok(if open == 0 { SourceStatus::Ended } else { SourceStatus::More })
    }
    fn emitted(&self) -> u64 {
        self.emitted
    }
    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), SourceError> {
        for (split, next) in restored.positions::<(u64, u64)>("splits")? {
            self.positions.iter_mut().filter(|own| own.0 == split).for_each(|own| own.1 = next);
        }
        Ok(())
    }
    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), SourceError> {
        snapshot.positions("splits", self.positions.iter().copied());
        Ok(())
    }
}

pub fn environment(parallelism: u32) -> Environment {
    log();
    let env = Environment::new();
    env.job_name("numbers").parallelism(parallelism).configure_runtime(|config| config.oversubscribe = true);
    env.enable_checkpointing(Duration::from_millis(50));
    env
}

/// Checkpoints go into files below `dir`.
pub fn environment_in(dir: &Path, parallelism: u32) -> Environment {
    let env = environment(parallelism);
    env.checkpoint_storage(CheckpointStorage::Directory(dir.display().to_string()));
    env
}

pub fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < PATIENCE, "no {what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn completed(job: &JobHandle) -> u64 {
    job.control().checkpoints().map_or(0, |statistics| statistics.counts().completed)
}

/// The checkpoints that lie in the only job's directory below `dir`, by number.
pub fn checkpoints_in(dir: &Path) -> Vec<u64> {
    let Some(job) = fs::read_dir(dir).unwrap().next() else { return Vec::new() };
    let names = fs::read_dir(job.unwrap().path()).unwrap().map(|entry| entry.unwrap());
    let whole = names.filter(|entry| entry.path().join("_metadata").exists());
    let mut ids: Vec<u64> =
        whole.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("chk-")?.parse().ok()).collect();
    ids.sort_unstable();
    ids
}

/// Counts the numbers by their last digit: the job's keyed state. Answers the counts as they went by.
pub fn counting(env: &Environment, numbers: Numbers) -> Collected<(u64, u64)> {
    let (sink, counts) = collect();
    env.from_source("Numbers", numbers)
        .uid("numbers")
        .key_by(|n| n % 10)
        .aggregate(Count, |key, count| (key, count))
        .uid("count")
        .sink(sink);
    counts
}

/// The last count of each digit.
pub fn last_counts(counts: Vec<(u64, u64)>) -> BTreeMap<u64, u64> {
    let mut last = BTreeMap::new();
    for (digit, count) in counts {
        let most = last.entry(digit).or_insert(0);
        *most = count.max(*most);
    }
    last
}

/// What the engine logs, on standard error where `RUST_LOG` asks for it.
fn log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}

/// Restarts of a failed job, soon.
pub fn restarts(attempts: u32) -> RestartStrategyOptions {
    RestartStrategyOptions::FixedDelay(FixedDelay { attempts, delay: Duration::from_millis(10) })
}

/// What each digit's count must be once both splits have so many numbers.
pub fn exact(numbers: u64) -> BTreeMap<u64, u64> {
    (0..10).map(|digit| (digit, numbers / 5)).collect()
}

pub fn is_cancelled(result: Result<thalweg::runtime::JobReport, Error>) -> bool {
    matches!(result, Err(Error::Job(JobError::Cancelled)))
}

/// Runs the counting job until so many checkpoints are kept in `dir`, and cancels it. Answers their numbers.
pub fn leave_checkpoints(dir: &Path, retained: u32, change: impl FnOnce(&Environment)) -> Vec<u64> {
    let env = environment_in(dir, 2);
    env.checkpoint_config(|options| {
        options.retained_count = retained;
        options.retention = CheckpointRetention::RetainOnCancellation;
    });
    change(&env);
    let (numbers, _) = Numbers::endless();
    counting(&env, numbers);
    let job = env.execute_async().unwrap();
    wait_until("enough checkpoints", || completed(&job) > u64::from(retained));
    job.cancel();
    assert!(is_cancelled(job.wait()));
    let kept = checkpoints_in(dir);
    assert_eq!(kept.len(), retained as usize);
    kept
}

/// How many numbers each split has in jobs that run to their end.
pub const ALL: u64 = 8_000;

/// An environment that starts from the latest checkpoint in `dir`, or from what `path` names.
pub fn restored(dir: &Path, path: Option<&Path>, parallelism: u32) -> Environment {
    let env = environment_in(dir, parallelism);
    let from = path.map_or(RestoreFrom::Latest, |path| RestoreFrom::Path(path.display().to_string()));
    env.recovery(|options| options.restore_from = Some(from));
    env
}

/// Runs the counting job to its end; answers the checkpoint that it was restored from.
pub fn finish(env: &Environment) -> Option<u64> {
    let (numbers, until) = Numbers::endless();
    let counts = counting(env, numbers);
    let job = env.execute_async().unwrap();
    wait_until("checkpoint", || completed(&job) > 0);
    let restored = job.control().checkpoints().and_then(|statistics| Some(statistics.restored()?.id.0));
    until.store(ALL, Relaxed);
    job.wait().unwrap();
    let counts = counts.take();
    let first = counts.iter().map(|count| count.1).min();
    assert_eq!(first > Some(1), restored.is_some(), "counts go on where they were, and only where there was something");
    assert_eq!(last_counts(counts), exact(ALL));
    restored
}

/// The only directory of a job below `dir`.
pub fn job_dir(dir: &Path) -> std::path::PathBuf {
    fs::read_dir(dir).unwrap().next().unwrap().unwrap().path()
}
