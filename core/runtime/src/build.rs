//! Building a slot, on its own thread: the pool, the segments, their gates and edges.

use std::{rc::Rc, sync::Arc};

use thalweg_model::metrics::{
    JobLabels, MetricRegistry, OperatorLabels, OperatorMetrics, SlotMetrics, TaskLabels, TaskMetrics,
};

use crate::{
    Clock, JobControl, JobError, Outputs, PhysicalPlan, SegmentContext, SlotWaker, TaskPlan,
    exchange::{EdgeWriter, Gate, GateConfig, PagePool, PoolConfig},
    guard::Who,
    inputs::Inputs,
    latency::{LatencyProbe, SourceIds},
    outputs::OutputEdge,
    partition::{Router, XorShift},
    reactor::SlotEnv,
    segment_run::SegmentRun,
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
    pub(crate) sources: SourceIds,
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
    };
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
        let (mut segments, mut heads, mut records_in) = (Vec::new(), Vec::new(), Vec::new());
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
            let mut run = self.segment(task, index, blueprint.subtask, segment, operators);
            if !control.stopping() {
                let opened = run.check().and_then(|()| run.open(&mut context));
                opened.unwrap_or_else(|error| control.fail(error));
            }
            segments.push(run);
        }
        let now_ns = self.clock.now_ns();
        metrics.initialization_time_ms.set(((now_ns - created_ns) / 1_000_000) as i64);
        Task::new(segments, TaskMeter { metrics, records_in, heads }, now_ns)
    }

    fn context(&self, task: &TaskPlan, index: usize, subtask: u32, metrics: Vec<OperatorMetrics>) -> SegmentContext {
        let JobParts { plan, registry, wakers, .. } = self.job;
        let segment = &task.segments[index];
        SegmentContext {
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
            Inputs::new(gate, plan.inputs, &blueprint.input_of, blueprint.slot_of.into())
        });
        let mut ports: Vec<Vec<OutputEdge>> = (0..=plan.side_ports).map(|_| Vec::new()).collect();
        for edge in blueprint.edges {
            ports[edge.port].push(self.edge(edge, subtask));
        }
        SegmentRun::new((plan.factory)(), who, inputs, Outputs::new(ports), probe, config.batch_records)
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
        }
    }
}
