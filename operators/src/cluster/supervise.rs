//! What runs a job: the thread of its master beside the one that runs its attempts.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
};

use thalweg_cluster::{
    checkpoint::{CheckpointId, Coordinator},
    job::{Job, RestartPolicy},
};
use thalweg_io::checkpoint::Disk;
use thalweg_model::{
    config::{CheckpointingOptions, RestartStrategyOptions},
    metrics::{JobLabels, MetricRegistry},
};
use thalweg_runtime::{GlommioReactor, JobError, JobLife, JobReport, PhysicalPlan, Reactor};

use super::{
    attempt::{Order, Runner},
    client::{JobClient, JobHandle},
    clock::MasterClock,
    fit::{RestoreError, check_fit},
    inbox::Message,
    master::{JobMaster, MasterParts},
    overview::{Facts, Shared},
    shape::Shape,
    start::Start,
    status::JobStatus,
    storage::Storage,
    topology::topology,
};
use crate::Error;

/// A job that is to be run, and how.
pub(crate) struct JobSpec {
    /// What runs. Its configuration says whether there are checkpoints.
    pub(crate) plan: PhysicalPlan,
    pub(crate) checkpointing: CheckpointingOptions,
    pub(crate) restart: RestartStrategyOptions,
    pub(crate) start: Start,
    pub(crate) savepoint_dir: Option<PathBuf>,
    /// Whether state that no operator claims is left out.
    pub(crate) allow_unclaimed: bool,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) metrics: MetricRegistry,
}

impl JobSpec {
    /// Whether anything may have to be decided while it runs.
    pub(crate) fn needs_master(&self) -> bool {
        let restarts = self.restart != RestartStrategyOptions::None;
        self.plan.config.checkpointing.is_some() || self.start.newest().is_some() || restarts
    }

    /// Whether it can start from what it is to start from.
    ///
    /// # Errors
    /// State that no operator claims, or another maximum parallelism.
    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        match self.start.newest() {
            Some(metadata) => check_fit(&Shape::of(&self.plan), metadata, self.allow_unclaimed),
            None => Ok(()),
        }
    }
}

/// The parts of a job that is about to run.
struct Prepared {
    master: JobMaster,
    orders: Receiver<Order>,
    inbox: Sender<Message>,
    shape: Shape,
    disk: Arc<dyn Disk>,
    metrics: MetricRegistry,
    allow_unclaimed: bool,
    life: JobLife,
    client: JobClient,
}

/// Runs a job on threads of its own.
pub(crate) fn spawn(spec: JobSpec) -> Result<JobHandle, Error> {
    let config = spec.plan.config.clone();
    let prepared = prepare(spec)?;
    let client = prepared.client.clone();
    let thread = std::thread::Builder::new()
        .name("job".into())
        .spawn(move || prepared.run(&GlommioReactor::new(&config)))
        .map_err(|error| Error::Other(format!("cannot start the thread that watches the job: {error}")))?;
    Ok(JobHandle::new(client, thread))
}

/// Runs a job to its end, its attempts on the calling thread.
pub(crate) fn run_on(spec: JobSpec, reactor: &dyn Reactor) -> Result<JobReport, Error> {
    Ok(prepare(spec)?.run(reactor)?)
}

fn prepare(spec: JobSpec) -> Result<Prepared, Error> {
    let JobSpec { mut plan, checkpointing, restart, mut start, savepoint_dir, allow_unclaimed, disk, metrics } = spec;
    let life = JobLife::default();
    plan.config.life = life.clone();
    let shape = Shape::of(&plan);
    let (own, inbox) = mpsc::channel();
    let (order, orders) = mpsc::channel();
    let incremental = checkpointing.incremental;
    let mut coordinator = Coordinator::new(checkpointing, topology(&plan), CheckpointId(start.next_id.0));
    start.note_finished();
    start.hand_over(&mut coordinator);
    let id_of = |adopted: &super::start::Adopted| CheckpointId(adopted.metadata.checkpoint.0);
    let locations = start.adopted.iter().map(|adopted| (id_of(adopted), adopted.dir.clone())).collect();
    let claimed = start.adopted.iter().find(|adopted| adopted.claimed).map(id_of);
    let in_use = start.adopted.iter_mut().find_map(|adopted| Some((id_of(adopted), adopted.in_use.take()?)));
    let superseded = std::mem::take(&mut start.superseded);
    let store = start.store.take();
    let in_memory = store.is_none();
    let storage = match plan.config.checkpointing {
        Some(_) => Some(Storage::start(disk.clone(), shape.job(), store, own.clone()).map_err(no_thread)?),
        None => None,
    };
    let clock = MasterClock::start();
    let labels = JobLabels { job_id: plan.job_id.clone(), job_name: plan.job_name.clone() };
    let tasks = topology(&plan).subtasks().count();
    let has_savepoint_dir = savepoint_dir.is_some();
    let facts = Facts { id: shape.job(), name: plan.job_name.clone(), tasks, has_savepoint_dir };
    let shared = Arc::new(Shared::new(facts, clock.now()));
    let client = JobClient::new(own.clone(), shared.clone());
    let master = JobMaster::new(MasterParts {
        job: Job::new(coordinator, RestartPolicy::new(restart)),
        shape: shape.clone(),
        plan,
        incremental,
        before_first: thalweg_model::CheckpointId(start.next_id.0.saturating_sub(1)),
        storage,
        in_memory,
        savepoint_dir,
        locations,
        claimed,
        in_use,
        superseded,
        clock,
        status: JobStatus::new(&metrics, &labels, clock),
        shared,
        inbox,
        own: own.clone(),
        orders: order,
        metrics: metrics.clone(),
    });
    Ok(Prepared { master, orders, inbox: own, shape, disk, metrics, allow_unclaimed, life, client })
}

fn no_thread(error: std::io::Error) -> Error {
    Error::Other(format!("cannot start a thread for checkpoints: {error}"))
}

impl Prepared {
    /// Runs attempts on this thread, as the master on its own orders them, until the job has ended.
    fn run(self, reactor: &dyn Reactor) -> Result<JobReport, JobError> {
        let Self { master, orders, inbox, shape, disk, metrics, allow_unclaimed, life, client: _ } = self;
        let thread = std::thread::Builder::new().name("job-master".into()).spawn(move || master.run());
        let thread = thread.map_err(|error| JobError::Failed(format!("cannot start the job master: {error}")))?;
        life.hold();
        Runner { reactor, metrics, disk, shape, allow_unclaimed, inbox }.run(&orders);
        life.end();
        let panicked = || JobError::Failed("the job master panicked; please report this".to_owned());
        thread.join().unwrap_or_else(|_| Err(panicked()))
    }
}
