//! Where and how a workload's job runs.

use thalweg::{
    Environment,
    model::metrics::MetricRegistry,
    runtime::{JobError, ReactorError},
};

use crate::{limits::pinned::available_cores, options::EngineOptions};

/// Why a workload could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The job failed.
    #[error(transparent)]
    Job(#[from] thalweg::Error),
    /// A checkpoint that was not taken.
    #[error(transparent)]
    Checkpoint(#[from] thalweg::cluster::SnapshotError),
    /// A directory or file that cannot be used.
    #[error("the disk refuses: {0}; --checkpoint-dir names another place")]
    Disk(#[from] std::io::Error),
    /// More threads than cores.
    #[error("{wanted} cores are needed and this process may use {available}: lower -p, or allow it more cores")]
    TooFewCores {
        /// Cores needed.
        wanted: usize,
        /// Cores there are.
        available: usize,
    },
    /// Numbers or paths that make no sense together.
    #[error("{0}")]
    Setting(String),
    /// Files of a workload's own that cannot be used.
    #[error("{0}")]
    Files(String),
    /// A result that is not the reference's.
    #[error("{0}: please report this with the command line")]
    Wrong(String),
}

impl BenchError {
    /// Whether the command line or the configuration is wrong, and not what was run.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Job(error) => error.is_configuration(),
            Self::TooFewCores { .. } | Self::Setting(_) => true,
            Self::Checkpoint(_) | Self::Disk(_) | Self::Files(_) | Self::Wrong(_) => false,
        }
    }
}

/// Where and how jobs run, and the limits beside them.
#[derive(Clone, Debug)]
pub struct JobSettings {
    /// Subtasks per operator, and threads of the limit.
    pub parallelism: u32,
    /// The cores, in the order of the slots.
    pub cores: Vec<usize>,
    /// What else the engine is told.
    pub engine: EngineOptions,
    /// Where the jobs' metrics are: one registry for all runs, whose counters begin anew with each.
    pub metrics: MetricRegistry,
}

impl JobSettings {
    /// Settings from what the engine is told.
    ///
    /// # Errors
    /// There are fewer cores than subtasks, a core that is not available to this process, or no subtasks.
    pub fn new(engine: EngineOptions) -> Result<Self, BenchError> {
        let available = available_cores();
        // The engine would say so itself, but the limits are measured first, on the same cores.
        if let Some(&core) = engine.cores.iter().find(|core| !available.contains(core)) {
            let error = JobError::Reactor(ReactorError::CoreNotAvailable { core, available });
            return Err(thalweg::Error::from(error).into());
        }
        let cores = if engine.cores.is_empty() { available } else { engine.cores.clone() };
        let parallelism = engine.parallelism.unwrap_or(cores.len() as u32);
        if parallelism == 0 {
            return Err(BenchError::Setting("a job has at least one subtask: give -p 1 or more".into()));
        }
        if cores.is_empty() || cores.len() < parallelism as usize && !engine.oversubscribe {
            return Err(BenchError::TooFewCores { wanted: parallelism as usize, available: cores.len() });
        }
        Ok(Self { parallelism, cores, engine, metrics: MetricRegistry::default() })
    }

    /// An environment with these settings.
    pub fn environment(&self, job_name: &str) -> Environment {
        self.environment_over(job_name, |_| {})
    }

    /// As [`environment`](Self::environment), with settings of the workload beneath those that are configured.
    pub fn environment_over(&self, job_name: &str, defaults: impl FnOnce(&Environment)) -> Environment {
        let env = Environment::new();
        env.job_name(job_name);
        defaults(&env);
        self.engine.apply(&env);
        env.parallelism(self.parallelism).metric_registry(&self.metrics);
        env.configure_runtime(|config| config.cores.clone_from(&self.cores));
        env
    }

    /// The cores that the job's slots are on.
    pub fn used_cores(&self) -> &[usize] {
        &self.cores[..self.cores.len().min(self.parallelism as usize)]
    }
}

/// Whether there are records to measure with.
///
/// # Errors
/// There are none.
pub(super) fn check_records(records: u64) -> Result<(), BenchError> {
    match records {
        0 => Err(BenchError::Setting("there has to be a record to measure with: see --records".into())),
        _ => Ok(()),
    }
}
