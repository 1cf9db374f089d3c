//! The engine's own flags, the same for every job.

use std::{num::NonZeroU32, str::FromStr, time::Duration};

use clap::{ArgAction, builder::NonEmptyStringValueParser, value_parser};
use thalweg_model::{
    JobId,
    config::{ConfigValue as _, Configuration, RestoreFrom, StorageName, keys},
    cores::{CoreListError, parse_core_list},
};

use super::{
    configuration::{ConfigurationArgs, ConfigurationError},
    log,
};
use crate::Environment;

/// For jobs without flags of their own.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct NoArgs {}

/// A list of cores as people write it: `0,2-3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreList(
    /// The cores in the order given, each once.
    pub Vec<usize>,
);

impl FromStr for CoreList {
    type Err = CoreListError;

    fn from_str(list: &str) -> Result<Self, CoreListError> {
        parse_core_list(list).map(Self)
    }
}

/// How many subtasks an operator is to have by flags and configuration: as `-p` says, else as configured, else one for each
/// core of a list. `None`: nobody says.
pub fn parallelism(flag: Option<u32>, cores: Option<&CoreList>, configuration: &Configuration) -> Option<u32> {
    let configured = || configuration.explicit(&keys::PARALLELISM).map(NonZeroU32::get);
    let of_cores = || cores.and_then(|cores| u32::try_from(cores.0.len()).ok());
    flag.or_else(configured).or_else(of_cores)
}

/// What `--restore` may be.
fn restore_from(text: &str) -> Result<RestoreFrom, String> {
    match text {
        "" => Err("write latest, or the path of a checkpoint or savepoint".to_owned()),
        "latest" => Ok(RestoreFrom::Latest),
        path => Ok(RestoreFrom::Path(path.to_owned())),
    }
}

/// How the engine runs a job: the flags that every job's binary has. Flatten it into a command line of your own, or let
/// [`thalweg::main`](crate::main()) do so.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Engine")]
pub struct EngineArgs {
    /// Subtasks of each operator, each on a core of its own [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub parallelism: Option<u32>,
    /// Key groups: the most subtasks that keyed state can ever be spread over [default: from the parallelism]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=32_768))]
    pub max_parallelism: Option<u32>,
    /// Cores to use, such as 0,2-3 [default: those this process may use]
    #[arg(long, value_name = "LIST")]
    pub cores: Option<CoreList>,
    /// Let slots share cores where there are more slots than cores; they then sleep instead of spinning
    #[arg(long)]
    pub oversubscribe: bool,
    /// How long an idle slot looks for work before it sleeps, in microseconds
    #[arg(long, value_name = "US")]
    pub spin: Option<u64>,
    /// How long a record may wait in a buffer, in milliseconds: 0 sends each at once, -1 only full buffers
    #[arg(long, value_name = "MS", allow_negative_numbers = true, value_parser = value_parser!(i64).range(-1..))]
    pub buffer_timeout: Option<i64>,
    /// Serve metrics to Prometheus on this port of 127.0.0.1; 0 for a free one, which is printed
    #[arg(long, value_name = "PORT")]
    pub metrics_port: Option<u16>,
    /// Answer Flink's REST requests on this port, for `thalweg savepoint`, `stop`, `cancel` and `list` and for Flink's own
    /// tools; 0 for a free one, which is printed (rest.port; 127.0.0.1 unless rest.bind-address says otherwise)
    #[arg(long, value_name = "PORT")]
    pub rest_port: Option<u16>,
    /// Name of the job in messages and metrics [default: that of the program]
    #[arg(long, value_name = "NAME")]
    pub job_name: Option<String>,
    /// Id of the job, by which its checkpoints are found: 32 hexadecimal digits [default: a hash of its name]
    #[arg(long, value_name = "HEX")]
    pub job_id: Option<JobId>,
    /// Where settings come from.
    #[command(flatten)]
    pub configuration: ConfigurationArgs,
    /// Directory for checkpoints, which lie below it in one named after the job's id (execution.checkpointing.dir)
    #[arg(long, value_name = "DIR", value_parser = NonEmptyStringValueParser::new())]
    pub checkpoint_dir: Option<String>,
    /// Take a checkpoint each so many milliseconds; 0 for never (execution.checkpointing.interval)
    #[arg(long, value_name = "MS")]
    pub checkpoint_interval: Option<u32>,
    /// Directory for savepoints that do not say where to (execution.checkpointing.savepoint-dir)
    #[arg(long, value_name = "DIR", value_parser = NonEmptyStringValueParser::new())]
    pub savepoint_dir: Option<String>,
    /// Start from the latest checkpoint of the job, or from the checkpoint or savepoint at this path
    #[arg(long, value_name = "latest|PATH", value_parser = restore_from)]
    pub restore: Option<RestoreFrom>,
    /// Leave out state that no operator of the job claims, where it would be refused
    #[arg(long)]
    pub allow_non_restored_state: bool,
    /// Print the job graph and exit
    #[arg(long)]
    pub explain: bool,
    /// Say more on standard error: -v what happens, -vv details
    #[arg(short, long, action = ArgAction::Count)]
    pub verbose: u8,
}

impl EngineArgs {
    /// Reads the configuration that these flags name.
    ///
    /// # Errors
    /// As [`ConfigurationArgs::load`].
    pub fn configuration(&self) -> Result<Configuration, ConfigurationError> {
        let directory = self.checkpoint_dir.as_ref().map(|dir| (keys::CHECKPOINT_DIR.name, dir.clone()));
        let storage = directory.is_some().then(|| (keys::CHECKPOINT_STORAGE.name, StorageName::FileSystem.render()));
        let interval = self.checkpoint_interval.map(|ms| (keys::CHECKPOINTING_INTERVAL.name, format!("{ms} ms")));
        let savepoints = self.savepoint_dir.as_ref().map(|dir| (keys::SAVEPOINT_DIR.name, dir.clone()));
        let rest = self.rest_port.map(|port| (keys::REST_PORT.name, port.to_string()));
        let flags = [directory, storage, interval, savepoints, rest].into_iter().flatten();
        let definitions: Vec<String> = flags.map(|(key, value)| format!("{key}={value}")).collect();
        self.configuration.load_with(&definitions)
    }

    /// Reads the configuration, sets what it sets, then what the flags say; what neither does keeps its value. With a list
    /// of cores and no parallelism, there is one subtask per core of the list.
    ///
    /// # Errors
    /// As [`ConfigurationArgs::load`].
    pub fn apply(&self, env: &Environment) -> Result<(), ConfigurationError> {
        let configuration = self.configuration()?;
        env.configure(&configuration);
        self.apply_flags(env, &configuration);
        self.apply_last(env);
        Ok(())
    }

    /// Sets what counts more than what the job sets itself: its name, its id, what it starts from.
    pub fn apply_last(&self, env: &Environment) {
        if let Some(name) = &self.job_name {
            env.job_name(name);
        }
        if let Some(id) = self.job_id {
            env.job_id(id);
        }
        env.recovery(|recovery| {
            if let Some(restore_from) = &self.restore {
                recovery.restore_from = Some(restore_from.clone());
            }
            recovery.ignore_unclaimed_state |= self.allow_non_restored_state;
        });
    }

    fn apply_flags(&self, env: &Environment, configuration: &Configuration) {
        if let Some(parallelism) = parallelism(self.parallelism, self.cores.as_ref(), configuration) {
            env.parallelism(parallelism);
        }
        if let Some(max_parallelism) = self.max_parallelism {
            env.max_parallelism(max_parallelism);
        }
        env.configure_runtime(|config| {
            if let Some(cores) = &self.cores {
                config.cores.clone_from(&cores.0);
            }
            config.oversubscribe |= self.oversubscribe;
            config.spin_us = self.spin.unwrap_or(config.spin_us);
        });
        match self.buffer_timeout {
            Some(..0) => env.disable_buffer_timeout(),
            Some(timeout_ms) => env.buffer_timeout(Duration::from_millis(timeout_ms.unsigned_abs())),
            None => env,
        };
    }

    /// Starts the log on standard error: warnings, more with `-v`; `RUST_LOG` says otherwise. Does nothing where the
    /// process has a log already.
    pub fn start_log(&self) {
        log::start_log(self.verbose);
    }
}
