//! Jobs with checkpoints: taken, kept, deleted, restored from, in one process and across environments.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use thalweg::{
    checkpoint::{OperatorRestore, OperatorSnapshot},
    cluster::JobState,
    model::{Elem, config::CheckpointStorage, time::MIN_WATERMARK},
    prelude::*,
    runtime::{Clock, SegmentContext, SourceStatus},
    source::SourceError,
};

/// Numbers in each split of [`Numbers`] begin at multiples of this.
const SPLIT: u64 = 1_000_000;
/// How long tests wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two splits of numbers at a pace, endless until told to end; knows where it is in each.
#[derive(Clone)]
struct Numbers {
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
    fn new(until: &Arc<AtomicU64>) -> Self {
        Self { until: until.clone(), positions: Vec::new(), clock: None, began_ns: 0, emitted: 0 }
    }

    fn endless() -> (Self, Arc<AtomicU64>) {
        let until = Arc::new(AtomicU64::new(u64::MAX));
        (Self::new(&until), until)
    }
}

impl Source for Numbers {
    type Out = u64;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), SourceError> {
        self.positions = (0..2).filter(|n| n % u64::from(ctx.parallelism) == u64::from(ctx.subtask)).map(|n| (n, 0)).collect();
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

fn environment(parallelism: u32) -> Environment {
    log();
    let env = Environment::new();
    env.job_name("numbers").parallelism(parallelism).configure_runtime(|config| config.oversubscribe = true);
    env.enable_checkpointing(Duration::from_millis(50));
    env
}

/// Checkpoints go into files below `dir`.
fn environment_in(dir: &Path, parallelism: u32) -> Environment {
    let env = environment(parallelism);
    env.checkpoint_storage(CheckpointStorage::Directory(dir.display().to_string()));
    env
}

fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let began = Instant::now();
    while !reached() {
        assert!(began.elapsed() < PATIENCE, "no {what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn completed(job: &JobHandle) -> u64 {
    job.control().checkpoints().map_or(0, |statistics| statistics.counts().completed)
}

/// The checkpoints that lie in the only job's directory below `dir`, by number.
fn checkpoints_in(dir: &Path) -> Vec<u64> {
    let Some(job) = fs::read_dir(dir).unwrap().next() else { return Vec::new() };
    let names = fs::read_dir(job.unwrap().path()).unwrap().map(|entry| entry.unwrap());
    let whole = names.filter(|entry| entry.path().join("_metadata").exists());
    let mut ids: Vec<u64> = whole.filter_map(|entry| entry.file_name().to_str()?.strip_prefix("chk-")?.parse().ok()).collect();
    ids.sort_unstable();
    ids
}

/// Counts the numbers by their last digit: the job's keyed state. Answers the counts as they went by.
fn counting(env: &Environment, numbers: Numbers) -> thalweg::sink::Collected<(u64, u64)> {
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
fn last_counts(counts: Vec<(u64, u64)>) -> BTreeMap<u64, u64> {
    let mut last = BTreeMap::new();
    for (digit, count) in counts {
        let most = last.entry(digit).or_insert(0);
        *most = count.max(*most);
    }
    last
}

#[test]
fn when_checkpoints_are_periodic_then_they_complete_and_the_newest_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let env = environment_in(dir.path(), 2);
    env.checkpoint_config(|options| {
        options.retained_count = 2;
        options.retention = CheckpointRetention::RetainOnCancellation;
    });
    let (numbers, _until) = Numbers::endless();
    counting(&env, numbers);
    let job = env.execute_async().unwrap();
    wait_until("four checkpoints", || completed(&job) >= 4);
    assert_eq!(job.control().state(), JobState::Running);
    job.cancel();
    assert!(matches!(job.wait(), Err(Error::Job(thalweg::runtime::JobError::Cancelled))));
    let kept = checkpoints_in(dir.path());
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert_eq!(kept[1], kept[0] + 1);
}

#[test]
fn when_a_task_panics_once_then_the_job_goes_on_from_the_checkpoint_and_counts_are_exact() {
    for in_files in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let env = if in_files { environment_in(dir.path(), 2) } else { environment(2) };
        env.restart_strategy(RestartStrategyOptions::FixedDelay(FixedDelay { attempts: 3, delay: Duration::from_millis(10) }));
        let (numbers, until) = Numbers::endless();
        let panic_now = Arc::new(AtomicBool::new(false));
        let (sink, counts) = collect();
        let now = panic_now.clone();
        env.from_source("Numbers", numbers)
            .map(move |n| if now.swap(false, Relaxed) { panic!("once") } else { n })
            .key_by(|n| n % 10)
            .aggregate(Count, |key, count| (key, count))
            .sink(sink);
        let job = env.execute_async().unwrap();
        wait_until("two checkpoints", || completed(&job) >= 2);
        panic_now.store(true, Relaxed);
        let before = completed(&job);
        wait_until("checkpoints after the restart", || completed(&job) >= before + 2 && !panic_now.load(Relaxed));
        until.store(20_000, Relaxed);
        job.wait().unwrap();
        let last = last_counts(counts.take());
        assert_eq!(last, (0..10).map(|digit| (digit, 4_000)).collect(), "in files: {in_files}");
        if in_files {
            assert_eq!(checkpoints_in(dir.path()), [0; 0], "a job that has finished needs none");
        }
    }
}

/// What the engine logs, on standard error where `RUST_LOG` asks for it.
fn log() {
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
