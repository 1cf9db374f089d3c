//! `StateJob`: source, `key_by`, count per key, sink, with as much state as is wanted, run by a script of the harness.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use thalweg::cluster::{Record as CheckpointRecord, Status as CheckpointStatus};
use thalweg::model::config::RestoreFrom;
use thalweg::prelude::*;

use super::load::{LoadPlan, Stage, UNTIMED};
use super::rows::{CountNarrow, CountWide, Latest};
use super::sink::{StateSink, Taken};
use super::throttle::Permits;
use crate::workloads::event::EventView;
use crate::workloads::job::{BenchError, JobSettings};

/// How often the harness looks how far the job is.
const LOOK: Duration = Duration::from_micros(500);
/// How often while a stage runs: each look takes one of the slots' cores for a moment.
const SELDOM: Duration = Duration::from_millis(10);
/// Checkpoints of a run that are remembered.
const HISTORY_COUNT: u32 = 10_000;

/// How wide the rows of the state are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rows {
    /// 200 bytes with the key.
    Wide,
    /// 24 bytes with the key: the count, and when its last record was due.
    Narrow,
    /// 16 bytes with the key: the count alone, as the keyed count of the harness has it. For what is not timed.
    Count,
}

/// How the job takes checkpoints.
#[derive(Clone, Debug)]
pub(super) struct Checkpoints {
    pub(super) dir: PathBuf,
    /// Only when the harness asks for one where `None`.
    pub(super) interval: Option<Duration>,
    pub(super) incremental: bool,
    pub(super) unaligned: bool,
    pub(super) timeout: Duration,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct StateJob {
    pub(super) keys: u64,
    pub(super) rows: Rows,
    pub(super) stages: Vec<Stage>,
    pub(super) checkpoints: Option<Checkpoints>,
    pub(super) restore: Option<String>,
    pub(super) permits: Option<Permits>,
}

/// A checkpoint that was taken, or not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Taking {
    pub(super) triggered_ms: u64,
    pub(super) completed: bool,
    pub(super) failed: bool,
    pub(super) duration_ms: u64,
    pub(super) state_bytes: u64,
    pub(super) written_bytes: u64,
    /// Bytes of buffers in flight.
    pub(super) persisted_bytes: u64,
    /// Of the subtask with the longest.
    pub(super) sync_ms: u64,
    pub(super) async_ms: u64,
    pub(super) alignment_ms: u64,
    pub(super) start_delay_ms: u64,
}

/// A job at work.
pub(super) struct Running {
    plan: Arc<LoadPlan>,
    handle: JobHandle,
    total: Arc<Mutex<Taken>>,
    began: Instant,
    permits: Option<Permits>,
}

/// A stage that is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ran {
    pub(super) seconds: f64,
    /// In milliseconds since the epoch.
    pub(super) began_ms: u64,
}

impl StateJob {
    pub(super) fn start(&self, settings: &JobSettings) -> Result<Running, BenchError> {
        let plan = Arc::new(LoadPlan::new(self.keys, self.stages.clone()));
        let total = Arc::<Mutex<Taken>>::default();
        let env = settings.environment("checkpoint-bench");
        if let Some(checkpoints) = &self.checkpoints {
            configure(&env, checkpoints);
        }
        if let Some(path) = &self.restore {
            env.recovery(|recovery| recovery.restore_from = Some(RestoreFrom::Path(path.clone())));
        }
        let sink = StateSink::new(plan.clone(), total.clone(), self.permits.clone());
        let keyed = env.from_source("Load", plan.source()).uid("load").key_by(|event: EventView| event.key);
        let row = |key, latest: Latest| (key, latest.count, latest.due_ns);
        match self.rows {
            Rows::Wide => drop(keyed.aggregate(CountWide, row).uid("count").sink(sink)),
            Rows::Narrow => drop(keyed.aggregate(CountNarrow, row).uid("count").sink(sink)),
            Rows::Count => {
                let untimed = |key, count| (key, count, UNTIMED);
                drop(keyed.aggregate(Count, untimed).uid("count").sink(sink));
            }
        }
        let began = Instant::now();
        Ok(Running { plan, handle: env.execute_async()?, total, began, permits: self.permits.clone() })
    }
}

fn configure(env: &Environment, checkpoints: &Checkpoints) {
    env.checkpoint_config(|options| {
        options.interval = checkpoints.interval;
        options.incremental = checkpoints.incremental;
        options.unaligned = checkpoints.unaligned;
        options.timeout = checkpoints.timeout;
        options.checkpoint_dir = Some(checkpoints.dir.display().to_string());
        options.retention = CheckpointRetention::RetainOnCancellation;
        options.history_count = HISTORY_COUNT;
        // One that fails is counted and shown.
        options.tolerable_failed = u32::MAX;
        // The end of the job is not what is measured.
        options.after_tasks_finish = false;
    });
}

impl Running {
    /// Waits until something holds; the error where the job ends before.
    fn until(&self, look: Duration, holds: impl Fn(&LoadPlan) -> bool) -> Result<(), BenchError> {
        while !holds(&self.plan) {
            if self.handle.is_finished() {
                return Err(BenchError::Wrong("the job ended before its load".into()));
            }
            std::thread::sleep(look);
        }
        Ok(())
    }

    /// Waits until all subtasks run; answers how long that took from the job's start.
    pub(super) fn opened(&self, parallelism: u32) -> Result<Duration, BenchError> {
        self.until(LOOK, |plan| plan.polled() >= u64::from(parallelism))?;
        Ok(self.began.elapsed())
    }

    /// Begins a stage.
    pub(super) fn begin(&self, stage: usize) -> Instant {
        self.plan.start(stage)
    }

    /// Runs a stage to its end.
    pub(super) fn run(&self, stage: usize) -> Result<Ran, BenchError> {
        let began_ms = now_ms();
        let started = self.begin(stage);
        let records = self.plan.records_until(stage);
        self.until(SELDOM, |plan| plan.arrived() >= records)?;
        Ok(Ran { seconds: started.elapsed().as_secs_f64(), began_ms })
    }

    /// Records that have arrived.
    pub(super) fn arrived(&self) -> u64 {
        self.plan.arrived()
    }

    /// Takes a checkpoint.
    pub(super) fn checkpoint(&self) -> Result<(Taking, String), BenchError> {
        let snapshot = self.handle.trigger_checkpoint().wait()?;
        let statistics = self.handle.control().checkpoints();
        let record =
            statistics.as_ref().and_then(|all| all.history().into_iter().find(|one| one.id.0 == snapshot.id.0));
        let taking = record.map(Taking::of);
        let taking = taking.ok_or_else(|| BenchError::Wrong("the job forgot its checkpoint".into()))?;
        Ok((taking, snapshot.location))
    }

    /// Checkpoints that were triggered since, oldest first.
    pub(super) fn checkpoints_since(&self, ms: u64) -> Vec<Taking> {
        let Some(statistics) = self.handle.control().checkpoints() else { return Vec::new() };
        let mut all: Vec<Taking> = statistics.history().into_iter().map(Taking::of).collect();
        all.reverse();
        all.retain(|taking| taking.triggered_ms >= ms);
        all
    }

    /// Lets the job end; what the sinks took.
    pub(super) fn finish(self) -> Result<Taken, BenchError> {
        self.permits.iter().for_each(Permits::open);
        self.plan.end();
        self.handle.wait()?;
        Ok(std::mem::take(&mut *self.total.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Ends the job within a stage; whether the sinks took what a count of the same records without the engine adds up to,
    /// and how many they were.
    pub(super) fn finish_within(self, stage: usize) -> Result<(bool, u64), BenchError> {
        let plan = self.plan.clone();
        let counted = self.finish()?.counted();
        Ok((plan.counted(stage) == counted, counted.records))
    }

    /// Cancels the job, which keeps its checkpoints.
    pub(super) fn cancel(self) {
        self.permits.iter().for_each(Permits::open);
        self.handle.cancel();
        // That it was cancelled is what it answers.
        let _ = self.handle.wait();
    }
}

impl Taking {
    fn of(record: &CheckpointRecord) -> Self {
        let most = |of: fn(&Self) -> u64| {
            let all = record.subtasks.iter().flatten().flatten();
            all.map(|subtask| {
                let figures = &subtask.figures;
                of(&Self {
                    sync_ms: figures.sync_ms,
                    async_ms: figures.async_ms,
                    alignment_ms: figures.alignment_ms,
                    start_delay_ms: figures.start_delay_ms,
                    ..Self::default()
                })
            })
            .max()
            .unwrap_or(0)
        };
        Self {
            triggered_ms: record.triggered_at.0,
            completed: matches!(record.status, CheckpointStatus::Completed { .. }),
            failed: matches!(record.status, CheckpointStatus::Failed { .. }),
            duration_ms: record.duration_ms(record.triggered_at),
            state_bytes: record.totals.state_bytes,
            written_bytes: record.totals.checkpointed_bytes,
            persisted_bytes: record.totals.persisted_bytes,
            sync_ms: most(|one| one.sync_ms),
            async_ms: most(|one| one.async_ms),
            alignment_ms: most(|one| one.alignment_ms),
            start_delay_ms: most(|one| one.start_delay_ms),
        }
    }
}

/// Milliseconds since the epoch.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The files below a directory, `_metadata` included.
pub(super) fn files_below(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}
