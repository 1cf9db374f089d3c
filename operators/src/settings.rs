//! `Settings`: what an environment tells the job that it builds: typed options, from configuration and from calls.

use std::{collections::HashMap, path::PathBuf};

use thalweg_model::{
    JobId,
    config::{
        CheckpointStorage, CheckpointingOptions, Configuration, EngineOptions, MemoryOptions, RecoveryOptions,
        RestOptions, RestartStrategyOptions, RestoreFrom, StateBackend, StateOptions, keys,
    },
};
use thalweg_runtime::{BufferTimeout, CheckpointingSetup, PhysicalPlan, RuntimeConfig};

use crate::{
    error::BuildError,
    graph::{Defaults, buffer_timeout},
    memory,
};

/// Name of a job that has none.
const DEFAULT_NAME: &str = "Thalweg Job";
/// `execution.buffer-timeout.interval` where nothing else is said, in milliseconds.
const DEFAULT_BUFFER_TIMEOUT_MS: u32 = 100;

/// The settings of an environment. What is called later counts; of a configuration, only what somebody set in it.
pub(crate) struct Settings {
    pub job_name: String,
    /// Given by the user; else it follows from the name.
    pub given_job_id: Option<JobId>,
    pub parallelism: u32,
    pub max_parallelism: Option<u32>,
    pub chaining: bool,
    pub chain_different_max_parallelism: bool,
    pub buffer_timeout: BufferTimeout,
    pub runtime: RuntimeConfig,
    pub checkpointing: CheckpointingOptions,
    pub recovery: RecoveryOptions,
    pub memory: MemoryOptions,
    pub rest: RestOptions,
    /// By a call of the program; else it follows from the configuration and from whether there are checkpoints.
    pub restart: Option<RestartStrategyOptions>,
    /// By a call of the program; else it follows from the configuration.
    pub backend: Option<StateBackend>,
    /// By a call of the program; else it follows from the configuration and the directory of checkpoints.
    pub storage: Option<CheckpointStorage>,
    /// All that was configured: what defaults of restarts and storage follow from.
    configuration: Configuration,
}

impl Default for Settings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
        Self {
            job_name: DEFAULT_NAME.to_owned(),
            given_job_id: None,
            parallelism: cores,
            max_parallelism: None,
            chaining: true,
            chain_different_max_parallelism: true,
            buffer_timeout: BufferTimeout::Millis(DEFAULT_BUFFER_TIMEOUT_MS),
            runtime: RuntimeConfig::default(),
            checkpointing: CheckpointingOptions::default(),
            recovery: RecoveryOptions::default(),
            memory: MemoryOptions::default(),
            rest: RestOptions::default(),
            restart: None,
            backend: None,
            storage: None,
            configuration: Configuration::default(),
        }
    }
}

/// Puts a value where somebody set one.
fn put<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// A size for the runtime.
fn size(value: Option<u32>) -> Option<usize> {
    value.map(|value| value as usize)
}

impl Settings {
    /// Takes over all that somebody set in a configuration.
    pub fn configure(&mut self, configuration: &Configuration) {
        let engine = EngineOptions::from(configuration);
        put(&mut self.job_name, engine.name);
        put(&mut self.parallelism, engine.parallelism);
        put(&mut self.max_parallelism, engine.max_parallelism);
        put(&mut self.chaining, engine.chaining);
        put(&mut self.chain_different_max_parallelism, engine.chain_different_max_parallelism);
        let interval = engine.buffer_timeout.map(buffer_timeout);
        match (engine.buffer_timeout_enabled, self.buffer_timeout) {
            (Some(false), _) => self.buffer_timeout = BufferTimeout::WhenFull,
            (Some(true), BufferTimeout::WhenFull) => {
                self.buffer_timeout = interval.unwrap_or(BufferTimeout::Millis(DEFAULT_BUFFER_TIMEOUT_MS));
            }
            _ => put(&mut self.buffer_timeout, interval),
        }
        let millis = |interval: std::time::Duration| u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
        let runtime = &mut self.runtime;
        put(&mut runtime.auto_watermark_interval_ms, engine.auto_watermark_interval.map(millis));
        put(&mut runtime.latency_interval_ms, engine.latency_interval.map(millis));
        put(&mut runtime.page_bytes, engine.segment_bytes.and_then(|bytes| usize::try_from(bytes).ok()));
        put(&mut runtime.exclusive_buffers_per_channel, size(engine.buffers_per_channel));
        put(&mut runtime.floating_buffers_per_gate, size(engine.floating_buffers_per_gate));
        put(&mut runtime.max_buffers_per_channel, size(engine.max_buffers_per_channel));
        self.checkpointing.update(configuration);
        self.recovery.update(configuration);
        self.memory.update(configuration);
        self.rest.update(configuration);
        // What the configuration says of these now follows from it.
        if configuration.source(&keys::RESTART_STRATEGY).is_some() {
            self.restart = None;
        }
        if configuration.source(&keys::STATE_BACKEND).is_some() {
            (self.backend, self.storage) = (None, None);
        }
        if configuration.source(&keys::CHECKPOINT_STORAGE).or(configuration.source(&keys::CHECKPOINT_DIR)).is_some() {
            self.storage = None;
        }
        self.configuration.overlay(configuration);
    }

    /// Id of the job: given, or that of its name.
    pub fn job_id(&self) -> JobId {
        self.given_job_id.unwrap_or_else(|| JobId::from_name(&self.job_name))
    }

    /// When checkpoints are taken, how, and what is kept of them. Where they lie says [`Self::state_options`].
    pub fn checkpointing(&self) -> &CheckpointingOptions {
        &self.checkpointing
    }

    /// Whether and how a failed job restarts: as set; by default with growing pauses where there are periodic checkpoints,
    /// else not.
    pub fn restart(&self) -> RestartStrategyOptions {
        let configured =
            || RestartStrategyOptions::configured(&self.configuration, self.checkpointing.interval.is_some());
        self.restart.clone().unwrap_or_else(configured)
    }

    /// How slots take checkpoints; none where none can be asked for: neither an interval nor a place is set. What
    /// [`RuntimeConfig::checkpointing`] says of faults and of the page cache counts.
    pub fn checkpointing_setup(&self) -> Result<Option<CheckpointingSetup>, BuildError> {
        let options = self.checkpointing();
        let directory = matches!(self.state_options()?.storage, CheckpointStorage::Directory(_));
        if options.interval.is_none() && !directory && options.savepoint_dir.is_none() && self.storage.is_none() {
            return Ok(None);
        }
        let base = self.runtime.checkpointing.clone().unwrap_or_default();
        Ok(Some(CheckpointingSetup {
            inline_threshold_bytes: usize::try_from(options.data_inline_threshold_bytes).unwrap_or(usize::MAX),
            periodic: options.interval.is_some(),
            final_checkpoint: options.interval.is_some() && options.after_tasks_finish,
            unaligned: options.unaligned_enabled(),
            unaligned_forced: options.unaligned_forced,
            ..base
        }))
    }

    /// What the job starts from; a path is one of this machine.
    pub fn recovery(&self) -> Result<RecoveryOptions, BuildError> {
        let mut recovery = self.recovery.clone();
        if let Some(RestoreFrom::Path(path)) = &mut recovery.restore_from {
            *path = local_path(path)?;
        }
        Ok(recovery)
    }

    /// Where state lives and where its checkpoints lie; a directory is one of this machine.
    pub fn state_options(&self) -> Result<StateOptions, BuildError> {
        let mut options = match &self.storage {
            // What names of backends and keys imply of the place does not matter then.
            Some(storage) => {
                let backend = StateBackend::configured(&self.configuration);
                StateOptions { backend, storage: storage.clone() }
            }
            None => StateOptions::resolve(&self.configuration, self.checkpointing().checkpoint_dir.clone())?,
        };
        put(&mut options.backend, self.backend);
        if options.backend == StateBackend::RocksDb {
            return Err(BuildError::RocksDb);
        }
        if let CheckpointStorage::Directory(directory) = &mut options.storage {
            *directory = local_path(directory)?;
        }
        Ok(options)
    }

    /// Where savepoints go if the request does not say.
    pub fn savepoint_directory(&self) -> Result<Option<PathBuf>, BuildError> {
        self.checkpointing().savepoint_dir.as_deref().map(|path| local_path(path).map(PathBuf::from)).transpose()
    }

    /// Slots and memory of the process.
    pub fn memory(&self) -> &MemoryOptions {
        &self.memory
    }

    /// How much state, in bytes, the subtasks of one slot may keep on the heap together, in a job of so many slots:
    /// an equal share of the managed memory (`taskmanager.memory.managed.size`, else `.fraction` of the process's, else of
    /// the machine's) for each slot of the process, or of the job where `taskmanager.numberOfTaskSlots` is not set.
    /// `None`: no limit, since neither managed memory nor the memory of the process is configured.
    pub fn managed_bytes_per_slot(&self, slots: usize) -> Option<u64> {
        memory::managed_bytes_per_slot(&self.memory, memory::machine_bytes(), slots)
    }

    /// What the graph needs to answer its open questions.
    pub fn defaults(&self) -> Defaults {
        Defaults {
            parallelism: self.parallelism,
            max_parallelism: self.max_parallelism,
            chaining: self.chaining,
            chain_different_max_parallelism: self.chain_different_max_parallelism,
            buffer_timeout: self.buffer_timeout,
            restored_max: HashMap::new(),
        }
    }

    /// Whether a plan can be run with these settings.
    pub fn check(&self, plan: &PhysicalPlan) -> Result<(), BuildError> {
        let state = self.state_options()?;
        if self.recovery()?.restore_from == Some(RestoreFrom::Latest) && state.storage == CheckpointStorage::Memory {
            return Err(BuildError::NoCheckpointDirectory);
        }
        self.savepoint_directory()?;
        if let Some(slots) = self.memory().slots.filter(|&slots| plan.slots > slots as usize) {
            return Err(BuildError::Slots { needed: plan.slots, slots });
        }
        memory::check_network(plan, self.memory(), memory::machine_bytes())
    }
}

/// The path of this machine that a location means, which may be written as a URI of scheme `file`.
pub(crate) fn local_path(location: &str) -> Result<String, BuildError> {
    let Some((scheme, rest)) = location.split_once(':') else { return Ok(location.to_owned()) };
    let is_scheme = scheme.len() > 1 && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    match scheme.to_ascii_lowercase().as_str() {
        // file:/a, file:///a, file://localhost/a.
        "file" => {
            let path = rest.strip_prefix("//localhost/").map(|path| format!("/{path}"));
            let path = path.unwrap_or_else(|| rest.strip_prefix("//").unwrap_or(rest).to_owned());
            if path.starts_with('/') { Ok(path) } else { Err(BuildError::Location { location: location.to_owned() }) }
        }
        _ if is_scheme && rest.starts_with("//") => Err(BuildError::Location { location: location.to_owned() }),
        _ => Ok(location.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use thalweg_model::config::{ExponentialDelay, FixedDelay};

    use super::*;

    fn configuration(yaml: &str) -> Configuration {
        Configuration::builder().yaml("config.yaml", yaml).unwrap().build().unwrap().0
    }

    fn configured(yaml: &str) -> Settings {
        let mut settings = Settings::default();
        settings.configure(&configuration(yaml));
        settings
    }

    #[test]
    fn when_nothing_is_configured_then_nothing_changes() {
        let (configured, default) = (configured(""), Settings::default());
        assert_eq!(configured.parallelism, default.parallelism);
        assert_eq!(format!("{:?}", configured.runtime), format!("{:?}", default.runtime));
        assert_eq!(configured.buffer_timeout, default.buffer_timeout);
        assert_eq!(configured.checkpointing, CheckpointingOptions::default());
        assert_eq!(configured.managed_bytes_per_slot(1), None);
    }

    #[test]
    fn when_keys_of_the_runtime_are_set_then_it_has_them() {
        let settings = configured(
            "parallelism.default: 3\npipeline: {name: orders, max-parallelism: 64, auto-watermark-interval: 50 ms}\n\
             pipeline.operator-chaining.enabled: false\nmetrics.latency.interval: 2 s\n\
             pipeline.operator-chaining.chain-operators-with-different-max-parallelism: false\n\
             taskmanager.memory.segment-size: 4kb\ntaskmanager.network.memory: {buffers-per-channel: 3, \
             floating-buffers-per-gate: 5, max-buffers-per-channel: 7}\nexecution.buffer-timeout.interval: 7 ms\n",
        );
        assert_eq!((settings.parallelism, settings.max_parallelism), (3, Some(64)));
        assert_eq!((settings.chaining, settings.chain_different_max_parallelism), (false, false));
        assert_eq!(settings.job_id(), JobId::from_name("orders"));
        assert_eq!(settings.buffer_timeout, BufferTimeout::Millis(7));
        let runtime = &settings.runtime;
        assert_eq!((runtime.auto_watermark_interval_ms, runtime.latency_interval_ms), (50, 2000));
        assert_eq!((runtime.page_bytes, runtime.exclusive_buffers_per_channel), (4096, 3));
        assert_eq!((runtime.floating_buffers_per_gate, runtime.max_buffers_per_channel), (5, 7));
    }

    #[test]
    fn when_the_buffer_timeout_is_switched_then_the_interval_follows() {
        let timeout = |yaml| configured(yaml).buffer_timeout;
        assert_eq!(timeout("execution.buffer-timeout.enabled: false"), BufferTimeout::WhenFull);
        assert_eq!(timeout("execution.buffer-timeout: 0"), BufferTimeout::PerRecord);
        assert_eq!(timeout("execution.buffer-timeout: {enabled: false, interval: 1 s}"), BufferTimeout::WhenFull);
        let mut settings = configured("execution.buffer-timeout.enabled: false");
        settings.configure(&configuration("execution.buffer-timeout.enabled: true"));
        assert_eq!(settings.buffer_timeout, BufferTimeout::Millis(DEFAULT_BUFFER_TIMEOUT_MS));
    }

    #[test]
    fn when_the_program_says_something_then_later_configuration_changes_only_what_it_sets() {
        let mut settings = configured("execution.checkpointing: {interval: 1 s, num-retained: 2}");
        settings.checkpointing.retained_count = 5;
        settings.checkpointing.min_pause = Duration::from_secs(9);
        settings.configure(&configuration("execution.checkpointing.num-retained: 3"));
        let checkpointing = settings.checkpointing();
        assert_eq!(checkpointing.interval, Some(Duration::from_secs(1)));
        assert_eq!((checkpointing.retained_count, checkpointing.min_pause.as_secs()), (3, 9));
    }

    #[test]
    fn when_no_strategy_is_set_then_restarts_follow_from_checkpoints() {
        let mut settings = configured("restart-strategy.exponential-delay.initial-backoff: 3 s");
        assert_eq!(settings.restart(), RestartStrategyOptions::None);
        settings.checkpointing.interval = Some(Duration::from_secs(1));
        let expected = ExponentialDelay { initial_backoff: Duration::from_secs(3), ..Default::default() };
        assert_eq!(settings.restart(), RestartStrategyOptions::ExponentialDelay(expected));
        settings.restart = Some(RestartStrategyOptions::None);
        assert_eq!(settings.restart(), RestartStrategyOptions::None);
        settings.configure(&configuration("restart-strategy: fixed-delay"));
        assert_eq!(settings.restart(), RestartStrategyOptions::FixedDelay(FixedDelay::default()));
    }

    #[test]
    fn when_a_directory_is_set_then_checkpoints_lie_there() {
        let storage = |settings: &Settings| settings.state_options().unwrap().storage;
        let mut settings = Settings::default();
        assert_eq!(storage(&settings), CheckpointStorage::Memory);
        settings.checkpointing.checkpoint_dir = Some("file:///c".into());
        assert_eq!(storage(&settings), CheckpointStorage::Directory("/c".into()));
        settings.storage = Some(CheckpointStorage::Memory);
        assert_eq!(storage(&settings), CheckpointStorage::Memory);
        settings.configure(&configuration("execution.checkpointing.dir: /d"));
        assert_eq!(storage(&settings), CheckpointStorage::Directory("/d".into()));
        settings.configure(&configuration("state.backend: jobmanager"));
        assert_eq!(storage(&settings), CheckpointStorage::Memory);
    }

    #[test]
    fn when_what_is_set_is_not_built_then_it_is_refused() {
        let refused = |yaml| configured(yaml).state_options().unwrap_err();
        assert_eq!(refused("state.backend: rocksdb"), BuildError::RocksDb);
        let location = BuildError::Location { location: "s3://bucket/c".into() };
        assert_eq!(refused("execution.checkpointing.dir: s3://bucket/c"), location);
        let mut settings = configured("state.backend: filesystem\nexecution.checkpointing.dir: /c");
        settings.checkpointing.checkpoint_dir = None;
        assert!(settings.state_options().unwrap_err().to_string().contains("set execution.checkpointing.dir too"));
    }

    #[test]
    fn when_the_program_says_where_checkpoints_lie_then_an_older_name_of_a_backend_wants_no_directory() {
        for storage in [CheckpointStorage::Directory("/c".into()), CheckpointStorage::Memory] {
            let mut settings = configured("state.backend: filesystem");
            assert!(settings.state_options().is_err(), "nobody says where");
            settings.storage = Some(storage.clone());
            assert_eq!(settings.state_options(), Ok(StateOptions { backend: StateBackend::Heap, storage }));
        }
        let mut settings = configured("state.backend: rocksdb");
        settings.storage = Some(CheckpointStorage::Memory);
        assert_eq!(settings.state_options(), Err(BuildError::RocksDb));
    }

    #[test]
    fn when_a_location_is_a_uri_then_only_files_of_this_machine_have_a_path() {
        for (location, path) in [
            ("/a/b", "/a/b"),
            ("a/b", "a/b"),
            ("file:/a", "/a"),
            ("file:///a", "/a"),
            ("FILE://localhost/a", "/a"),
            ("odd:name", "odd:name"),
        ] {
            assert_eq!(local_path(location).as_deref(), Ok(path));
        }
        for location in ["hdfs://nn:8020/x", "s3a://b/c", "file://elsewhere/a", "file:a"] {
            assert!(local_path(location).is_err(), "{location}");
        }
    }
}
