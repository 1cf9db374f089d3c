//! `Environment`: where a job is built, configured and run in this process.

use std::{
    cell::{Ref, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use thalweg_io::{
    checkpoint::{Disk, FaultyDisk, LocalDisk, Metadata},
    connect::FileFormat,
};
use thalweg_model::{
    JobId, Record,
    config::{
        CheckpointStorage, CheckpointingOptions, Configuration, MemoryOptions, RecoveryOptions, RestartStrategyOptions,
        StateBackend, keys,
    },
    metrics::MetricRegistry,
};
use thalweg_runtime::{
    BufferTimeout, CheckpointingSetup, GlommioReactor, JobControl, JobError, JobReport, PhysicalPlan, Reactor,
    RuntimeConfig, execute,
};

use crate::{
    cluster::{self, JobHandle, JobSpec, Start},
    error::{BuildError, Error},
    file_source::{FileProgress, FileSource, FileSplits},
    fuse::Out,
    graph::{Graph, SegmentId, buffer_timeout},
    handle::{HandleSource, InputHandle, input},
    placed::Placed,
    settings::Settings,
    source::{FromIter, Generate, Source, SourceHead},
    stream::Stream,
};

/// The job that is being built.
#[derive(Default)]
pub(crate) struct EnvironmentState {
    pub graph: RefCell<Graph>,
    settings: RefCell<Settings>,
    registry: RefCell<MetricRegistry>,
    progress: RefCell<Vec<Arc<FileProgress>>>,
    on_finished: RefCell<Vec<OnFinished>>,
}

/// What is to be done once the job has run to its end.
type OnFinished = Box<dyn FnOnce(&JobReport)>;

/// Builds a job and runs it in this process: one slot per core, pinned.
///
/// Settings apply to all operators that do not say otherwise. The parallelism is that of the machine (the cores this
/// process may use) until it is set.
#[derive(Clone, Default)]
pub struct Environment {
    state: Rc<EnvironmentState>,
}

impl Environment {
    /// An environment with the default settings.
    pub fn new() -> Self {
        Self::default()
    }

    fn set(&self, change: impl FnOnce(&mut Settings)) -> &Self {
        change(&mut self.state.settings.borrow_mut());
        self
    }

    /// All settings in force, in typed form.
    pub(crate) fn settings(&self) -> Ref<'_, Settings> {
        self.state.settings.borrow()
    }

    /// Takes over every setting that somebody made in `configuration`; what it does not set stays as it is. What is called
    /// later counts.
    pub fn configure(&self, configuration: &Configuration) -> &Self {
        if configuration.explicit(&keys::CHAINING) == Some(false) {
            let key = keys::CHAINING.name;
            tracing::warn!("{key}: false leaves operators together that were fused when the job was compiled");
        }
        self.set(|settings| settings.configure(configuration))
    }

    /// Names the job, in messages and metrics (`pipeline.name`).
    pub fn job_name(&self, name: &str) -> &Self {
        self.set(|settings| name.clone_into(&mut settings.job_name))
    }

    /// The job's name.
    pub(crate) fn name(&self) -> String {
        self.settings().job_name.clone()
    }

    /// Gives the job an id, by which its checkpoints are found; without one it is a hash of the job's name.
    pub fn job_id(&self, id: JobId) -> &Self {
        self.set(|settings| settings.given_job_id = Some(id))
    }

    /// Takes a checkpoint each `interval` (`execution.checkpointing.interval`); zero, the default, for never.
    pub fn enable_checkpointing(&self, interval: Duration) -> &Self {
        self.set(|settings| settings.checkpointing.interval = (!interval.is_zero()).then_some(interval))
    }

    /// Changes how checkpoints are taken and what is kept of them (`execution.checkpointing.*`).
    pub fn checkpoint_config(&self, change: impl FnOnce(&mut CheckpointingOptions)) -> &Self {
        self.set(|settings| change(&mut settings.checkpointing))
    }

    /// Where checkpoints lie (`execution.checkpointing.storage` and `.dir`); by default in the directory that
    /// [`checkpoint_config`](Self::checkpoint_config) or the configuration names, and in memory where there is none.
    pub fn checkpoint_storage(&self, storage: CheckpointStorage) -> &Self {
        self.set(|settings| settings.storage = Some(storage))
    }

    /// Where state lives (`state.backend.type`): on the heap unless it is set.
    pub fn state_backend(&self, backend: StateBackend) -> &Self {
        self.set(|settings| settings.backend = Some(backend))
    }

    /// Whether and how the job restarts after a failure (`restart-strategy.*`); by default after pauses that grow where
    /// there are periodic checkpoints, and not at all where there are none.
    pub fn restart_strategy(&self, strategy: RestartStrategyOptions) -> &Self {
        self.set(|settings| settings.restart = Some(strategy))
    }

    /// Changes what the job starts from (`execution.state-recovery.*`).
    pub fn recovery(&self, change: impl FnOnce(&mut RecoveryOptions)) -> &Self {
        self.set(|settings| change(&mut settings.recovery))
    }

    /// Changes slots and memory of the process (`taskmanager.numberOfTaskSlots`, `taskmanager.memory.*`).
    pub fn memory_options(&self, change: impl FnOnce(&mut MemoryOptions)) -> &Self {
        self.set(|settings| change(&mut settings.memory))
    }

    /// Calls a function, in this process, when the job has run to its end: the place to say what became of it. It is
    /// called by [`execute`](Self::execute), [`execute_on`](Self::execute_on) and [`thalweg::main`](crate::main()), once,
    /// and not when the job fails.
    pub fn on_finished(&self, function: impl FnOnce(&JobReport) + 'static) -> &Self {
        self.state.on_finished.borrow_mut().push(Box::new(function));
        self
    }

    /// Calls what [`on_finished`](Self::on_finished) was given.
    pub(crate) fn finished(&self, report: &JobReport) {
        let functions = self.state.on_finished.take();
        functions.into_iter().for_each(|function| function(report));
    }

    /// How many subtasks an operator has unless it says otherwise (`parallelism.default`).
    pub fn parallelism(&self, parallelism: u32) -> &Self {
        self.set(|settings| settings.parallelism = parallelism)
    }

    /// The parallelism in force.
    pub fn default_parallelism(&self) -> u32 {
        self.settings().parallelism
    }

    /// How many key groups an operator has unless it says otherwise (`pipeline.max-parallelism`).
    pub fn max_parallelism(&self, max_parallelism: u32) -> &Self {
        self.set(|settings| settings.max_parallelism = Some(max_parallelism))
    }

    /// Joins no operators into one task that could have tasks of their own (`pipeline.operator-chaining.enabled`). Those
    /// that the compiler has fused stay together; [`Stream::disable_chaining`] cuts them.
    pub fn disable_operator_chaining(&self) -> &Self {
        self.set(|settings| settings.chaining = false)
    }

    /// How long a record may wait in a buffer (`execution.buffer-timeout.interval`, 100 ms): zero sends each at once.
    pub fn buffer_timeout(&self, timeout: Duration) -> &Self {
        self.set(|settings| settings.buffer_timeout = buffer_timeout(timeout))
    }

    /// Sends buffers only when they are full (Flink's `-1`): the highest throughput, no bound on latency.
    pub fn disable_buffer_timeout(&self) -> &Self {
        self.set(|settings| settings.buffer_timeout = BufferTimeout::WhenFull)
    }

    /// How often periodic watermarks are made (`pipeline.auto-watermark-interval`, 200 ms).
    pub fn auto_watermark_interval(&self, interval: Duration) -> &Self {
        self.set(|settings| settings.runtime.auto_watermark_interval_ms = interval.as_millis() as u64)
    }

    /// How often sources send latency markers (`metrics.latency.interval`); zero, the default, for never.
    pub fn latency_tracking_interval(&self, interval: Duration) -> &Self {
        self.set(|settings| settings.runtime.latency_interval_ms = interval.as_millis() as u64)
    }

    /// Changes sizes and times of the runtime: buffers, cores, spinning.
    pub fn configure_runtime(&self, change: impl FnOnce(&mut RuntimeConfig)) -> &Self {
        self.set(|settings| change(&mut settings.runtime))
    }

    /// Keeps metrics in a registry that other jobs share, such as the one that a server shows.
    pub fn metric_registry(&self, registry: &MetricRegistry) -> &Self {
        self.state.registry.replace(registry.clone());
        self
    }

    /// The metrics of jobs that this environment runs.
    pub fn metrics(&self) -> MetricRegistry {
        self.state.registry.borrow().clone()
    }

    /// How far the file sources of the job are.
    pub fn file_progress(&self) -> Vec<Arc<FileProgress>> {
        self.state.progress.borrow().clone()
    }

    fn add_source<S: Source>(&self, name: &str, source: S, sequential: bool) -> Stream<S::Out, SourceHead<S>> {
        let mut graph = self.state.graph.borrow_mut();
        let segment: SegmentId = graph.add(0, Some(&format!("Source: {name}")));
        graph.nodes[segment.0].sequential = sequential;
        Stream { env: self.state.clone(), segment, pipe: SourceHead::new(source), timed: false }
    }

    /// Reads from a source.
    pub fn from_source<S: Source>(&self, name: &str, source: S) -> Stream<S::Out, SourceHead<S>> {
        self.add_source(name, source, false)
    }

    /// Reads from a source that makes timestamps and watermarks itself.
    pub fn from_timed_source<S: Source>(&self, name: &str, source: S) -> Stream<S::Out, SourceHead<S>> {
        Stream { timed: true, ..self.add_source(name, source, false) }
    }

    /// Reads an iterator, with one subtask. What is run is a clone, so that the job can restart within the process: it skips
    /// what was read before the checkpoint that it goes on from. Clones must therefore give the same records.
    /// [`from_iter_once`](Self::from_iter_once) reads what cannot be cloned.
    pub fn from_iter<I>(&self, records: I) -> Stream<I::Item, Placed<SourceHead<FromIter<I>>>>
    where
        I: IntoIterator + Clone + Send + 'static,
        I::Item: Record,
        I::IntoIter: Send,
    {
        self.add_iterator(FromIter::new(records))
    }

    /// Reads an iterator that cannot be cloned, or only at a cost, with one subtask. The job fails for good where another
    /// would restart within the process; another process can go on from a checkpoint, if it builds the job with the same
    /// records.
    pub fn from_iter_once<I>(&self, records: I) -> Stream<I::Item, Placed<SourceHead<FromIter<I>>>>
    where
        I: IntoIterator + Send + 'static,
        I::Item: Record,
        I::IntoIter: Send,
    {
        self.add_iterator(FromIter::once(records))
    }

    fn add_iterator<I>(&self, source: FromIter<I>) -> Stream<I::Item, Placed<SourceHead<FromIter<I>>>>
    where
        I: IntoIterator + Send + 'static,
        I::Item: Record,
        I::IntoIter: Send,
    {
        let Stream { env, segment, pipe, timed } = self.add_source("Iterator", source, true);
        Stream { env, segment, pipe: Placed(pipe), timed }
    }

    /// Makes records `0..count` with a function of their index; subtask `i` of `p` makes those with `n mod p = i`.
    pub fn generate<O, F>(
        &self,
        count: u64,
        mut function: F,
    ) -> Stream<O, SourceHead<Generate<O, impl for<'o> FnMut(u64, &mut Out<'o, O>) + Clone + Send + 'static>>>
    where
        O: Record,
        F: FnMut(u64) -> O + Clone + Send + 'static,
    {
        self.generate_to(count, None, move |index, out: &mut Out<'_, O>| out.push(function(index).view()))
    }

    /// As [`generate`](Self::generate), at most `records_per_s` records a second in all.
    ///
    /// # Panics
    /// Where the rate is no number above zero.
    pub fn generate_at_rate<O, F>(
        &self,
        count: u64,
        records_per_s: f64,
        mut function: F,
    ) -> Stream<O, SourceHead<Generate<O, impl for<'o> FnMut(u64, &mut Out<'o, O>) + Clone + Send + 'static>>>
    where
        O: Record,
        F: FnMut(u64) -> O + Clone + Send + 'static,
    {
        self.generate_to(count, Some(records_per_s), move |index, out: &mut Out<'_, O>| {
            out.push(function(index).view())
        })
    }

    /// Makes records with a function that pushes views, which may borrow from what it owns; with a rate or without.
    ///
    /// # Panics
    /// Where there is a rate that is no number above zero.
    pub fn generate_to<O, F>(
        &self,
        count: u64,
        records_per_s: Option<f64>,
        function: F,
    ) -> Stream<O, SourceHead<Generate<O, F>>>
    where
        O: Record,
        F: for<'o> FnMut(u64, &mut Out<'o, O>) + Clone + Send + 'static,
    {
        self.add_source("Generator", Generate::new(count, records_per_s, function), false)
    }

    /// Reads files.
    ///
    /// # Errors
    /// A path is missing, unreadable or of the wrong kind.
    pub fn from_files<Fmt, F>(
        &self,
        source: FileSource<Fmt, F>,
    ) -> Result<Stream<Fmt::Item, SourceHead<FileSplits<Fmt, F>>>, Error>
    where
        Fmt: FileFormat<Item: Record, Reader: Send>,
        F: for<'v> FnMut(<Fmt::Item as Record>::View<'v>) -> i64 + Clone + Send + 'static,
    {
        let timed = source.timed();
        let (splits, progress) = source.into_source()?;
        self.state.progress.borrow_mut().push(progress);
        Ok(Stream { timed, ..self.add_source("Files", splits, false) })
    }

    /// Takes events from other threads through a handle that holds at most `capacity` of them, then holds its callers back.
    pub fn from_handle<T: Record>(&self, capacity: usize) -> (InputHandle<T>, Stream<T, SourceHead<HandleSource<T>>>) {
        let (handle, source) = input(capacity);
        (handle, self.add_source("Handle", source, false))
    }

    /// The job graph in words: tasks, their operators, how they are joined.
    ///
    /// # Errors
    /// The job cannot be run as it was built.
    pub fn explain(&self) -> Result<String, BuildError> {
        let settings = self.settings();
        self.state.graph.borrow().explain(&settings.job_name, &settings.defaults())
    }

    /// The plan that would be run.
    ///
    /// # Errors
    /// The job cannot be run as it was built, or not with the memory, slots or storage that are configured.
    pub fn plan(&self) -> Result<PhysicalPlan, BuildError> {
        self.plan_from(None)
    }

    /// Whether the job can be run here, as far as that shows before anything is started or touched: its plan, and cores for
    /// its slots.
    ///
    /// # Errors
    /// As [`plan`](Self::plan), and where there are too few cores, or one is not available.
    pub fn check(&self) -> Result<(), Error> {
        let plan = self.plan()?;
        Ok(GlommioReactor::new(&plan.config).check_cores(plan.slots).map_err(JobError::from)?)
    }

    /// The plan of a job that starts from a checkpoint: operators that say nothing of their maximum parallelism keep that
    /// which they had.
    fn plan_from(&self, restored: Option<&Metadata>) -> Result<PhysicalPlan, BuildError> {
        let settings = self.settings();
        let mut defaults = settings.defaults();
        if let Some(metadata) = restored {
            let operators = metadata.operators.iter();
            defaults.restored_max = operators.map(|one| (one.id.to_string(), one.max_parallelism)).collect();
        }
        let (name, id) = (&settings.job_name, settings.job_id());
        let plan = self.state.graph.borrow().plan(name, id, &defaults, settings.runtime.clone())?;
        settings.check(&plan)?;
        Ok(plan)
    }

    /// Runs the job to its end.
    ///
    /// # Errors
    /// The job cannot be run, a task fails, or the machine refuses.
    pub fn execute(&self) -> Result<JobReport, Error> {
        let report = self.execute_async()?.wait()?;
        self.finished(&report);
        Ok(report)
    }

    /// Starts the job and returns at once.
    ///
    /// # Errors
    /// The job cannot be run as it was built, or cannot start from what it is to be restored from.
    pub fn execute_async(&self) -> Result<JobHandle, Error> {
        cluster::spawn(self.job_spec()?)
    }

    /// Runs the job on a reactor of the caller's choice, such as the seeded one in tests. A job without checkpoints and
    /// restarts runs without a job master.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub fn execute_on(&self, reactor: &dyn Reactor) -> Result<JobReport, Error> {
        let spec = self.job_spec()?;
        let report = match spec.needs_master() {
            true => cluster::run_on(spec, reactor)?,
            false => execute(spec.plan, reactor, JobControl::new(), &spec.metrics)?,
        };
        self.finished(&report);
        Ok(report)
    }

    /// All that is to be known of a job before it runs. Opens its directory of checkpoints.
    fn job_spec(&self) -> Result<JobSpec, Error> {
        let settings = self.settings();
        // Before anything is touched on a disk.
        self.plan()?;
        let setup = settings.checkpointing_setup()?;
        let disk: Arc<dyn Disk> = match settings.runtime.checkpointing.as_ref().and_then(|setup| setup.faults.clone()) {
            Some(faults) => Arc::new(FaultyDisk::new(LocalDisk, faults)),
            None => Arc::new(LocalDisk),
        };
        let recovery = settings.recovery()?;
        let storage = match setup {
            Some(_) => settings.state_options()?.storage,
            None => CheckpointStorage::Memory,
        };
        let start = match (&setup, &recovery.restore_from) {
            (None, None) => Start::nothing(),
            _ => Start::find(&disk, &storage, settings.job_id(), settings.checkpointing().create_subdir, &recovery)?,
        };
        let mut plan = self.plan_from(start.newest())?;
        plan.config.checkpointing = setup.map(|setup| CheckpointingSetup { known: start.newest_found, ..setup });
        plan.config.max_state_bytes_per_slot = settings.managed_bytes_per_slot(plan.slots);
        let spec = JobSpec {
            plan,
            checkpointing: settings.checkpointing().clone(),
            restart: settings.restart(),
            start,
            savepoint_dir: settings.savepoint_directory()?,
            allow_unclaimed: recovery.ignore_unclaimed_state,
            disk,
            metrics: self.metrics(),
        };
        spec.check()?;
        Ok(spec)
    }
}
