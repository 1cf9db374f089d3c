//! `crash`: a job to be killed at any instant and started again, whose output must be that of an undisturbed run.
//!
//! Everything in it follows event time alone, and no record is ever late, so that neither the parallelism nor the place of a
//! crash can be seen in what it commits. When it has run to its end it compares the committed files with a plain
//! evaluation of the same events.
//!
//! The job is not run again once it has finished: to restore "the latest" would be to start from nothing, and a path that
//! was named would write everything twice. It has finished where all rows are committed, and where no checkpoint is left
//! that may be its last: one as new as the newest committed file. Then no event is made, what a kill in the middle of the
//! end has left is cleared, and the files are compared again. Where that checkpoint is left, the job goes on from it, which
//! commits what is pending, clears up, and ends.
//!
//! The bench's settings are defaults: what is configured counts more. What would break its promise is refused.

mod events;
mod files;
mod job;
mod reference;
mod settings;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use thalweg::entry::{Interrupt, Progress, run_attended};
use thalweg::model::JobId;
use thalweg::model::config::{CheckpointStorage, ClaimMode, RestoreFrom, keys};
use thalweg::prelude::*;

use self::events::Events;
pub use self::files::Row;
use super::job::{BenchError, JobSettings};

/// Longer than anything here takes.
const NEVER: Duration = Duration::from_secs(1_000_000);
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
    /// Between two checkpoints; as configured, else 50 ms, where `None`.
    pub interval: Option<Duration>,
    /// Whether barriers overtake records; as configured otherwise.
    pub unaligned: bool,
    /// What to start from.
    pub restore: Option<RestoreFrom>,
    /// Where and how.
    pub settings: JobSettings,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrashReport {
    /// The job is at its end, and what is committed is what should be.
    Finished {
        /// Rows in committed files.
        rows: u64,
        /// Committed files.
        files: u64,
        /// Whether it had finished before, and was not run again.
        had_finished: bool,
    },
    /// Somebody has stopped it with a savepoint.
    Stopped {
        /// To go on from.
        savepoint: PathBuf,
    },
}

impl Crash {
    /// Runs the job to its end, or from where an earlier run was killed, and compares what is committed with the reference.
    /// It answers requests and signals meanwhile.
    ///
    /// # Errors
    /// The job fails or is cancelled, the directories do not belong to it, or the rows are not those of the reference.
    pub fn run(&self) -> Result<CrashReport, BenchError> {
        let env = self.environment()?;
        let mut restore = None;
        env.recovery(|recovery| restore.clone_from(&recovery.restore_from));
        let committed = files::committed(&self.output)?;
        let had_finished = match &restore {
            _ if committed.is_empty() => false,
            None => {
                return Err(BenchError::Setting(format!(
                    "{} holds committed files already: go on from the latest checkpoint with --restore latest, or name an \
                     empty directory",
                    self.output.display()
                )));
            }
            Some(restore) => self.has_finished(&env, restore, &committed)?,
        };
        let files = committed_ndjson_files::<Row>(&self.output).roll_bytes(self.roll_bytes);
        if !had_finished {
            let events = Events { seed: self.seed, count: self.events };
            job::build(&env, events, self.records_per_s, self.work, files);
            let report = run_attended(&env, Progress::Hidden, &Interrupt::listen()?)?;
            if let Some(savepoint) = report.stopped_with {
                return Ok(CrashReport::Stopped { savepoint });
            }
        } else if files::newest_checkpoint(&self.job_dir(&env))?.is_none() {
            // Not where one is left that is the user's: that would be restored.
            env.recovery(|recovery| recovery.restore_from = Some(RestoreFrom::Latest));
            // Nor does it take any, which a kill could leave.
            env.enable_checkpointing(NEVER).checkpoint_config(|options| options.after_tasks_finish = false);
            job::build(&env, Events { seed: self.seed, count: 0 }, self.records_per_s, self.work, files);
            env.execute()?;
        }
        let committed = files::committed(&self.output)?;
        let (rows, difference) = self.compare(&committed)?;
        match difference {
            None => Ok(CrashReport::Finished { rows, files: committed.len() as u64, had_finished }),
            Some(difference) => Err(BenchError::Wrong(format!("the committed rows are wrong: {difference}"))),
        }
    }

    fn environment(&self) -> Result<Environment, BenchError> {
        let Some(directory) = self.checkpoint_dir.to_str() else {
            let text = format!("the directory {} is not UTF-8: rename it", self.checkpoint_dir.display());
            return Err(BenchError::Setting(text));
        };
        settings::check(&self.settings.engine.configuration, self.interval)?;
        let env = self.settings.environment_over(JOB_NAME, settings::defaults);
        if let Some(interval) = self.interval {
            env.enable_checkpointing(interval);
        }
        env.checkpoint_storage(CheckpointStorage::Directory(directory.to_owned()))
            .checkpoint_config(|options| options.unaligned |= self.unaligned)
            .recovery(|recovery| {
                if let Some(restore) = &self.restore {
                    recovery.restore_from = Some(restore.clone());
                }
            });
        let job_dir = self.job_dir(&env);
        let nobody_says = self.settings.engine.configuration.explicit(&keys::CLAIM_MODE).is_none();
        env.recovery(|recovery| {
            if let Some(RestoreFrom::Path(path)) = &recovery.restore_from
                && nobody_says
                && files::is_within(Path::new(path), &job_dir)
            {
                // It is the job's own, which would stay for ever otherwise, and look as if the job had not finished.
                recovery.claim_mode = ClaimMode::Claim;
            }
        });
        Ok(env)
    }

    /// Where the job's checkpoints lie.
    fn job_dir(&self, env: &Environment) -> PathBuf {
        let mut create_subdir = true;
        env.checkpoint_config(|options| create_subdir = options.create_subdir);
        if !create_subdir {
            return self.checkpoint_dir.clone();
        }
        let name = self.settings.engine.configuration.explicit(&keys::NAME);
        self.checkpoint_dir.join(JobId::from_name(name.as_deref().unwrap_or(JOB_NAME)).to_string())
    }

    /// Whether the job has come to its end before; see the module.
    fn has_finished(
        &self,
        env: &Environment,
        restore: &RestoreFrom,
        committed: &[PathBuf],
    ) -> Result<bool, BenchError> {
        let dir = self.job_dir(env);
        let newest = files::newest_checkpoint(&dir)?;
        let latest = *restore == RestoreFrom::Latest;
        if latest && newest.is_some() && newest >= files::newest_commit(committed) {
            return Ok(false);
        }
        match self.compare(committed)?.1 {
            None => Ok(true),
            Some(difference) if latest && newest.is_none() => Err(BenchError::Setting(format!(
                "{} holds committed files that are not all ({difference}), and {} no checkpoint to go on from: name the \
                 checkpoint or savepoint with --restore PATH, or begin anew in empty directories; if the job had come to \
                 its end, please report this",
                self.output.display(),
                dir.display()
            ))),
            Some(_) => Ok(false),
        }
    }

    /// How many rows there are in files, and how they differ from those of the reference.
    fn compare(&self, committed: &[PathBuf]) -> Result<(u64, Option<String>), BenchError> {
        let rows = files::read(committed)?;
        let expected = reference::rows(Events { seed: self.seed, count: self.events });
        Ok((rows.len() as u64, files::difference(rows, expected)))
    }
}
