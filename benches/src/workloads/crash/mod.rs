//! `crash`: a job to be killed at any instant and started again, whose output must be that of an undisturbed run.
//!
//! Everything in it follows event time alone, and no record is ever late, so that neither the parallelism nor the place of a
//! crash can be seen in what it commits. When it has run to its end it compares the committed files with a plain
//! evaluation of the same events.
//!
//! A job that has finished deletes its checkpoints, the newest last, and only after its sink has committed everything; and
//! the sink commits nothing before a checkpoint is complete. Committed files without any checkpoint therefore mean that the
//! job has finished. It is then not run again: to restore "the latest" would be to start from nothing, and to write
//! everything twice. No event is made, what a kill in the middle of the end has left is cleared, and the files are
//! compared again.

mod events;
mod files;
mod job;
mod reference;

use std::{path::PathBuf, time::Duration};

use thalweg::model::JobId;
use thalweg::model::config::{CheckpointStorage, RestoreFrom, keys};
use thalweg::prelude::*;

use self::events::Events;
pub use self::files::Row;
use super::job::{BenchError, JobSettings};

/// Between two checkpoints unless told otherwise.
pub const DEFAULT_INTERVAL: Duration = Duration::from_millis(50);
/// Checkpoints that are kept: one more than a restart needs.
const RETAINED: u32 = 2;
/// Between two watermarks: often, for timers and windows that fire all the time.
const WATERMARK_INTERVAL: Duration = Duration::from_millis(20);
/// By which checkpoints are found again.
const JOB_NAME: &str = "crash";

/// A job to be killed.
#[derive(Clone, Debug)]
pub struct Crash {
    /// How many events.
    pub events: u64,
    /// Which sequence of events.
    pub seed: u64,
    /// Events a second, all subtasks together.
    pub records_per_s: f64,
    /// Work behind the rebalance: what each record costs, so that buffers fill where the rate is above what is left.
    pub work: Duration,
    /// Where checkpoints lie.
    pub checkpoint_dir: PathBuf,
    /// Where committed files lie.
    pub output: PathBuf,
    /// Bytes of a file from which on another is begun: few of them for several files between two checkpoints.
    pub roll_bytes: u64,
    /// Between two checkpoints; as configured, else [`DEFAULT_INTERVAL`], where `None`.
    pub interval: Option<Duration>,
    /// Whether barriers overtake records; as configured otherwise.
    pub unaligned: bool,
    /// What to start from.
    pub restore: Option<RestoreFrom>,
    /// Where and how.
    pub settings: JobSettings,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashReport {
    /// Rows in committed files.
    pub rows: u64,
    /// Committed files.
    pub files: u64,
    /// Whether the job had finished before, and was not run again.
    pub had_finished: bool,
}

impl Crash {
    /// Runs the job to its end, or from where an earlier run was killed, and compares what is committed with the reference.
    ///
    /// # Errors
    /// The job fails, the directories do not belong to it, or the rows are not those of the reference.
    pub fn run(&self) -> Result<CrashReport, BenchError> {
        let committed = !files::committed(&self.output)?.is_empty();
        if committed && self.restore.is_none() {
            return Err(BenchError::Setting(format!(
                "{} holds committed files already: go on from the latest checkpoint with --restore latest, or name an \
                 empty directory",
                self.output.display()
            )));
        }
        let env = self.environment()?;
        let had_finished = committed && self.restore == Some(RestoreFrom::Latest) && !self.has_checkpoint()?;
        let events = Events { seed: self.seed, count: if had_finished { 0 } else { self.events } };
        let files = committed_ndjson_files::<Row>(&self.output).roll_bytes(self.roll_bytes);
        job::build(&env, events, self.records_per_s, self.work, files);
        env.execute()?;
        self.compare(had_finished)
    }

    fn environment(&self) -> Result<Environment, BenchError> {
        let Some(directory) = self.checkpoint_dir.to_str() else {
            let text = format!("the directory {} is not UTF-8: rename it", self.checkpoint_dir.display());
            return Err(BenchError::Setting(text));
        };
        let env = self.settings.environment(JOB_NAME);
        let configured = self.settings.engine.configuration.explicit(&keys::CHECKPOINTING_INTERVAL);
        env.enable_checkpointing(self.interval.or(configured).unwrap_or(DEFAULT_INTERVAL))
            .checkpoint_storage(CheckpointStorage::Directory(directory.to_owned()))
            .auto_watermark_interval(WATERMARK_INTERVAL)
            .checkpoint_config(|options| {
                options.incremental = true;
                options.retained_count = options.retained_count.max(RETAINED);
                options.retention = CheckpointRetention::RetainOnCancellation;
                options.unaligned |= self.unaligned;
                // Where `has_checkpoint` looks.
                options.create_subdir = true;
            })
            .recovery(|recovery| recovery.restore_from.clone_from(&self.restore));
        Ok(env)
    }

    /// Whether a checkpoint of the job lies in its directory, readable or not.
    fn has_checkpoint(&self) -> Result<bool, BenchError> {
        let dir = self.checkpoint_dir.join(JobId::from_name(JOB_NAME).to_string());
        let names = files::names_in(&dir)?;
        Ok(names.iter().any(|name| name.starts_with("chk-") && dir.join(name).join("_metadata").exists()))
    }

    fn compare(&self, had_finished: bool) -> Result<CrashReport, BenchError> {
        let files = files::committed(&self.output)?;
        let rows = files::read(&files)?;
        let expected = reference::rows(Events { seed: self.seed, count: self.events });
        let report = CrashReport { rows: rows.len() as u64, files: files.len() as u64, had_finished };
        match files::difference(rows, expected) {
            None => Ok(report),
            Some(difference) => Err(BenchError::Wrong(format!("the committed rows are wrong: {difference}"))),
        }
    }
}
