//! Building a slot, on its own thread: the pool, the segments, their gates and edges.

use std::{collections::VecDeque, rc::Rc, sync::Arc};

use thalweg_model::OperatorId;
use thalweg_model::metrics::{
    JobLabels, MetricRegistry, OperatorLabels, OperatorMetrics, SlotMetrics, TaskLabels, TaskMetrics,
};

use crate::{
    CheckpointingSetup, Clock, JobControl, JobError, JobHooks, OperatorInfo, Outputs, PhysicalPlan, SegmentContext,
    SegmentPlan, SlotWaker, TaskError, TaskPlan, TaskSubtask,
    checkpoint::{Mailbox, RestoredFrames, SegmentSnapshots, SlotSnapshots, restored_frames},
    exchange::{EdgeWriter, Gate, GateConfig, PagePool, PoolConfig},
    guard::Who,
    inputs::{Inputs, InputsSettings},
    latency::{LatencyProbe, SourceIds},
    outputs::OutputEdge,
    partition::{Router, XorShift},
    reactor::SlotEnv,
    segment_run::{SegmentRun, SegmentSettings},
    slot::{Slot, SlotParts},
    task::{Task, TaskMeter},
    wake_set::WakeSet,
    wiring::{EdgeBlueprint, SegmentBlueprint, SlotBlueprint, TaskBlueprint},
};

/// What all slots of a job share.
pub(crate) struct JobParts {
    pub(crate) plan: PhysicalPlan,
    pub(crate) control: JobControl,
    pub(crate) registry: MetricRegistry,
    pub(crate) wakers: Vec<SlotWaker>,
    pub(crate) mailboxes: Vec<Arc<Mailbox>>,
    pub(crate) sources: SourceIds,
    pub(crate) hooks: JobHooks,
}

/// Pages beyond the pool that may be out at once, besides those of the largest record: what one call of a segment may
/// write without looking for room.
const OVERDRAFT_PAGES: usize = 4096;

/// Builds a slot and opens its segments. What fails stops the job: the slot then ends by itself.
pub(crate) fn build_slot(job: &Arc<JobParts>, slot: usize, blueprint: SlotBlueprint, env: SlotEnv) -> Slot {
    let config = &job.plan.config;
    let mut parts = SlotParts {
        slot,
        slots: job.plan.slots,
        tasks: Vec::with_capacity(blueprint.tasks.len()),
        pool: None,
        metrics: None,
        clock: env.clock.clone(),
        waker: job.wakers[slot].clone(),
        wakes: WakeSet::new(slot, job.wakers.clone()),
        control: job.control.clone(),
        chaos: env.chaos_seed.map(XorShift::new),
        report_interval_ns: config.report_interval.as_nanos() as u64,
        settle_timeout_ns: config.teardown_timeout.as_nanos() as u64,
        mailbox: job.mailboxes[slot].clone(),
        snapshots: None,
        max_state_bytes: config.max_state_bytes_per_slot,
    };
    if let Some(setup) = &config.checkpointing {
        match snapshots(job, slot, setup) {
            Ok(snapshots) => parts.snapshots = Some(snapshots),
            Err(message) => job.control.fail_otherwise(JobError::Buffers { slot, message }),
        }
    }
    let pool = PagePool::new(PoolConfig {
        page_bytes: config.page_bytes,
        pages: blueprint.pages.max(1),
        huge_pages: config.huge_pages,
        max_overdraft_pages: config.max_record_bytes / config.page_bytes + OVERDRAFT_PAGES,
    });
    match pool {
        Ok(pool) => {
            parts.metrics = Some(SlotMetrics::new(&job.registry, pool.total(), config.page_bytes));
            let builder = SlotBuilder { job, slot, clock: env.clock, pool: pool.clone() };
            parts.pool = Some(pool);
            for task in blueprint.tasks {
                parts.tasks.push(builder.task(task));
            }
        }
        Err(error) => job.control.fail_otherwise(JobError::Buffers { slot, message: error.to_string() }),
    }
    Slot::new(parts)
}

/// The writing of a slot's snapshots.
fn snapshots(job: &JobParts, slot: usize, setup: &CheckpointingSetup) -> Result<SlotSnapshots, String> {
    let wake = job.wakers[slot].event_fd().map_err(|error| format!("no event descriptor: {error}"))?;
    SlotSnapshots::new(setup.clone(), Some(wake), setup.files).map_err(|error| error.to_string())
}

/// What a segment's operators are called in checkpoints; itself, where it has none.
fn operator_ids(segment: &SegmentPlan) -> Vec<OperatorId> {
    let ids: Vec<OperatorId> = segment.operators.iter().filter_map(|one| one.id.parse().ok()).collect();
    if ids.is_empty() { segment.state_id.parse().into_iter().collect() } else { ids }
}

struct SlotBuilder<'a> {
    job: &'a JobParts,
    slot: usize,
    clock: Arc<dyn Clock>,
    pool: Rc<PagePool>,
}

impl SlotBuilder<'_> {
    fn task(&self, blueprint: TaskBlueprint) -> Task {
        let JobParts { plan, control, registry, .. } = self.job;
        let created_ns = self.clock.now_ns();
        let task = &plan.tasks[blueprint.task];
        let job_labels = JobLabels { job_id: plan.job_id.clone(), job_name: plan.job_name.clone() };
        let attempt = plan.config.attempt;
        let labels = TaskLabels {
            attempt_id: format!("{}_{}_{}_{attempt}", plan.job_id, task.id, blueprint.subtask),
            attempt_num: attempt,
            ..TaskLabels::new(job_labels, &task.id, &task.name, blueprint.subtask)
        };
        let metrics = TaskMetrics::new(registry, &labels);
        let (mut segments, mut heads, mut records_in, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (index, segment) in blueprint.segments.into_iter().enumerate() {
            let plan = &task.segments[index];
            let operator_labels = plan.operators.iter().map(|operator| OperatorLabels {
                task: labels.clone(),
                operator_id: operator.id.clone(),
                operator_name: operator.name.clone(),
            });
            let operators: Vec<_> = operator_labels.map(|labels| OperatorMetrics::new(registry, &labels)).collect();
            heads.push(segment.from_other_tasks);
            if segment.from_other_tasks {
                records_in.extend(operators.first().map(|operator| operator.num_records_in.clone()));
            }
            let mut context = self.context(task, index, blueprint.subtask, operators.clone());
            let bytes_in = operators.first().filter(|_| segment.from_other_tasks).map(OperatorMetrics::num_bytes_in);
            let last = operators.last().cloned();
            let mut run = self.segment(task, index, blueprint.subtask, segment, operators);
            let last = last.filter(|_| run.outputs().edges().any(|edge| !edge.is_within_task()));
            bytes.push((bytes_in, last.as_ref().map(OperatorMetrics::num_bytes_out)));
            if !control.stopping() {
                let opened =
                    run.check().and_then(|()| run.open(&mut context)).and_then(|()| self.check_claims(plan, &run));
                opened.unwrap_or_else(|error| control.fail(error));
            }
            segments.push(run);
        }
        let now_ns = self.clock.now_ns();
        metrics.initialization_time_ms.set(((now_ns - created_ns) / 1_000_000) as i64);
        let id = TaskSubtask { task: blueprint.task, subtask: blueprint.subtask };
        let meter = TaskMeter { metrics, records_in, heads, bytes };
        Task::new(id, self.job.hooks.listener.clone(), segments, meter, now_ns)
    }

    fn context(&self, task: &TaskPlan, index: usize, subtask: u32, metrics: Vec<OperatorMetrics>) -> SegmentContext {
        let JobParts { plan, registry, wakers, .. } = self.job;
        let segment = &task.segments[index];
        SegmentContext {
            job_id: plan.job_id.as_str().into(),
            job_name: plan.job_name.as_str().into(),
            task_name: task.name.as_str().into(),
            segment: segment.id,
            segment_name: segment.name.as_str().into(),
            operators: segment.operators.as_slice().into(),
            subtask,
            parallelism: task.parallelism,
            max_parallelism: segment.max_parallelism,
            key_groups: segment.max_parallelism.range_of(subtask, task.parallelism),
            slot: self.slot,
            attempt: plan.config.attempt,
            metrics,
            registry: registry.clone(),
            auto_watermark_interval_ms: plan.config.auto_watermark_interval_ms,
            waker: wakers[self.slot].clone(),
            clock: self.clock.clone(),
            restored: self.job.hooks.restored.clone(),
            known_checkpoint: plan.config.checkpointing.as_ref().and_then(|setup| setup.known),
            checkpointing: plan.config.checkpointing.as_ref().is_some_and(|setup| setup.periodic),
            life: plan.config.life.clone(),
        }
    }

    fn segment(
        &self,
        task: &TaskPlan,
        index: usize,
        subtask: u32,
        blueprint: SegmentBlueprint,
        metrics: Vec<OperatorMetrics>,
    ) -> SegmentRun {
        let config = &self.job.plan.config;
        let plan = &task.segments[index];
        let head = plan.operators.first();
        let who = Who {
            operator: head.map_or_else(|| plan.name.clone(), |operator| operator.name.clone()),
            subtask,
            parallelism: task.parallelism,
        };
        let probe = LatencyProbe::new(
            config.latency_interval_ms,
            head.map_or("", |operator| &operator.id),
            subtask,
            self.job.sources.clone(),
            metrics,
        );
        let inputs = (plan.inputs > 0).then(|| {
            let gate_config = GateConfig { floating_buffers: config.floating_buffers_per_gate as u32 };
            let gate = Gate::new(gate_config, blueprint.receivers);
            let control = self.job.control.clone();
            let settings = InputsSettings {
                inputs: plan.inputs,
                input_of: &blueprint.input_of,
                slot_of: blueprint.slot_of.into(),
                control,
                overtakes: blueprint.overtakes,
            };
            Inputs::new(gate, settings)
        });
        let mut ports: Vec<Vec<OutputEdge>> = (0..=plan.side_ports).map(|_| Vec::new()).collect();
        for edge in blueprint.edges {
            ports[edge.port].push(self.edge(edge, subtask));
        }
        let channels = blueprint.names.into_iter().zip(blueprint.schemas).collect();
        let settings = SegmentSettings {
            probe,
            batch_records: config.batch_records,
            snapshots: SegmentSnapshots::new(operator_ids(plan)),
            final_checkpoint: config.checkpointing.as_ref().is_some_and(|setup| setup.final_checkpoint),
            skipped: self.has_finished(plan),
            channels,
            restored: self.restored_frames(task, plan, subtask),
            waker: self.job.wakers[self.slot].clone(),
        };
        SegmentRun::new((plan.factory)(), who, inputs, Outputs::new(ports), settings)
    }

    /// The records in flight that a segment reads first. What is wrong with them fails the job.
    fn restored_frames(&self, task: &TaskPlan, segment: &SegmentPlan, subtask: u32) -> VecDeque<RestoredFrames> {
        let Some(restored) = &self.job.hooks.restored else { return VecDeque::new() };
        match restored_frames(&self.job.plan, restored, task, segment.id, subtask) {
            Ok(frames) => frames,
            Err(message) => {
                let checkpoint = restored.metadata().checkpoint;
                let message = format!("cannot restore from checkpoint {checkpoint}: {message}");
                self.job.control.fail(TaskError::new(segment.name.as_str(), message).permanent());
                VecDeque::new()
            }
        }
    }

    /// Finds state of the segment's operators that none of them has asked for.
    fn check_claims(&self, segment: &SegmentPlan, run: &SegmentRun) -> Result<(), TaskError> {
        let Some(restored) = &self.job.hooks.restored else { return Ok(()) };
        for operator in &segment.operators {
            if let Ok(id) = operator.id.parse()
                && let Some(name) = restored.unclaimed(id)
            {
                let message = format!(
                    "checkpoint {} holds state {name:?} of {}, which the job does not have any more: restore it with \
                     --allow-non-restored-state to leave it out, or give the state back",
                    restored.metadata().checkpoint,
                    operator.name
                );
                return Err(run.error(message).permanent());
            }
        }
        Ok(())
    }

    /// Whether all of a segment had finished before the checkpoint that the job starts from.
    fn has_finished(&self, segment: &SegmentPlan) -> bool {
        let Some(restored) = &self.job.hooks.restored else { return false };
        let finished = |operator: &OperatorInfo| {
            operator.id.parse().is_ok_and(|id| restored.operator(id).is_some_and(|state| state.finished))
        };
        !segment.operators.is_empty() && segment.operators.iter().all(finished)
    }

    fn edge(&self, edge: EdgeBlueprint, subtask: u32) -> OutputEdge {
        let channels = edge.senders.len();
        OutputEdge {
            router: Router::new(edge.partitioner, subtask, channels),
            max_pages: edge.config.max_pages(channels),
            writer: EdgeWriter::new(edge.config, edge.senders, self.pool.clone()),
            flush: edge.flush,
            waiting_since_ns: 0,
            slot_of: edge.slot_of.into(),
            names: edge.names.into(),
            schema: edge.schema,
            overtakes: edge.overtakes,
        }
    }
}
