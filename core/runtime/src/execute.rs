//! `execute`: runs a job from its plan to its end.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use thalweg_io::checkpoint::RestoredCheckpoint;
use thalweg_model::metrics::MetricRegistry;

use crate::{
    JobControl, JobError, PhysicalPlan, Reactor, ReactorError, SlotOutcome, SlotWaker, TaskListener,
    build::{JobParts, build_slot},
    checkpoint::check_restored,
    latency::fold_id,
    reactor::SlotProgram,
    wiring::wire,
};

/// How a job went that ran to its end.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JobReport {
    /// From the start of the slots to the end of the last one.
    pub duration: Duration,
    /// What became of the slots.
    pub slots: Vec<SlotOutcome>,
    /// Network buffers that were not given back: always 0, or the job has failed.
    pub pages_outstanding: usize,
    /// The savepoint that somebody has stopped the job with; none where it has run to its end by itself.
    pub stopped_with: Option<PathBuf>,
}

/// What a job is run with besides its plan.
#[derive(Clone, Default)]
pub struct JobHooks {
    /// Who hears of its tasks.
    pub listener: Option<Arc<dyn TaskListener>>,
    /// What it starts from.
    pub restored: Option<Arc<RestoredCheckpoint>>,
}

/// Runs a job on the calling thread's behalf and waits for its end.
///
/// # Errors
/// The first failure of a task, cancellation through `control`, an impossible plan, or a machine that cannot run it. In
/// each case all tasks have been closed before it returns.
pub fn execute(
    plan: PhysicalPlan,
    reactor: &dyn Reactor,
    control: JobControl,
    metrics: &MetricRegistry,
) -> Result<JobReport, JobError> {
    execute_with(plan, reactor, control, metrics, JobHooks::default())
}

/// As [`execute`], from a checkpoint, or with somebody who listens.
///
/// # Errors
/// As [`execute`], and where the state cannot be restored.
pub fn execute_with(
    plan: PhysicalPlan,
    reactor: &dyn Reactor,
    control: JobControl,
    metrics: &MetricRegistry,
    hooks: JobHooks,
) -> Result<JobReport, JobError> {
    if let Some(restored) = &hooks.restored {
        check_restored(&plan, restored).map_err(JobError::Restore)?;
    }
    let blueprints = wire(&plan)?;
    let wakers = (0..plan.slots).map(|slot| {
        SlotWaker::new().map_err(|error| ReactorError::Slot { slot, message: format!("no event descriptor: {error}") })
    });
    let wakers = wakers.collect::<Result<Vec<_>, _>>()?;
    let slot_of = plan.tasks.iter().map(|task| task.slot_of.clone()).collect();
    let mailboxes = control.attach(wakers.clone(), slot_of);
    let sources = plan.tasks.iter().flat_map(|task| &task.segments).filter(|segment| segment.inputs == 0);
    let sources = sources.filter_map(|segment| segment.operators.first());
    let sources = Arc::new(sources.map(|operator| (fold_id(&operator.id), operator.id.clone())).collect());
    let job = Arc::new(JobParts {
        plan,
        control: control.clone(),
        registry: metrics.clone(),
        wakers,
        mailboxes,
        sources,
        hooks,
    });
    let programs = blueprints.into_iter().enumerate().map(|(slot, blueprint)| {
        let (control, job) = (control.clone(), job.clone());
        SlotProgram::new(control, Box::new(move |env| build_slot(&job, slot, blueprint, env)))
    });
    let started = Instant::now();
    let outcome = reactor.run(programs.collect());
    let duration = started.elapsed();
    control.detach();
    let failure = control.take_failure();
    let slots = outcome?;
    let pages_outstanding = slots.iter().map(|slot| slot.pages_outstanding).sum();
    debug_assert_eq!(pages_outstanding, 0, "network buffers are out at the end of the job: {slots:?}, {failure:?}");
    if pages_outstanding > 0 {
        tracing::error!(pages_outstanding, "network buffers are out at the end of the job");
    }
    match failure {
        Some(error) => Err(error),
        None if control.is_cancelled() => Err(JobError::Cancelled),
        None if pages_outstanding > 0 => Err(JobError::PagesOutstanding { pages: pages_outstanding }),
        None => Ok(JobReport { duration, slots, pages_outstanding, stopped_with: None }),
    }
}
