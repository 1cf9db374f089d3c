//! `JobStatus`: what metrics show of a job as a whole.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use thalweg_cluster::{
    checkpoint::{Statistics, Status},
    job::JobState,
};
use thalweg_model::metrics::{JobLabels, JobMetrics, MetricRegistry};

use super::clock::MasterClock;

/// Since when the job runs, or has not run, in milliseconds since the epoch; 0 for neither. Written by the job master,
/// read by whoever shows metrics.
#[derive(Debug, Default)]
struct Since {
    up: AtomicU64,
    down: AtomicU64,
    finished: AtomicU64,
}

/// See the module.
pub(super) struct JobStatus {
    metrics: JobMetrics,
    since: Arc<Since>,
    clock: MasterClock,
}

impl JobStatus {
    pub(super) fn new(registry: &MetricRegistry, labels: &JobLabels, clock: MasterClock) -> Self {
        let since = Arc::<Since>::default();
        let passed = move |at: &AtomicU64| match at.load(Ordering::Relaxed) {
            0 => 0.0,
            at => clock.now().0.saturating_sub(at) as f64,
        };
        let group = registry.job(labels);
        let of = since.clone();
        group.function_gauge("uptime", move || match of.finished.load(Ordering::Relaxed) {
            0 => passed(&of.up),
            _ => -1.0,
        });
        let of = since.clone();
        group.function_gauge("downtime", move || passed(&of.down));
        Self { metrics: JobMetrics::new(registry, labels), since, clock }
    }

    /// The job has changed its state.
    pub(super) fn state(&self, state: JobState) {
        let now = self.clock.now().0;
        let (up, down) = match state {
            JobState::Running => (now, 0),
            JobState::Failing | JobState::Restarting => match self.since.down.load(Ordering::Relaxed) {
                0 => (0, now),
                since => (0, since),
            },
            _ => (0, 0),
        };
        self.since.up.store(up, Ordering::Relaxed);
        self.since.down.store(down, Ordering::Relaxed);
        self.since.finished.store(u64::from(state == JobState::Finished), Ordering::Relaxed);
    }

    /// Shows the figures as they are now.
    pub(super) fn show(&self, restarts: u64, statistics: &Statistics) {
        let set =
            |gauge: &thalweg_model::metrics::Gauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        let metrics = &self.metrics;
        set(&metrics.num_restarts, restarts);
        set(&metrics.full_restarts, restarts);
        let counts = statistics.counts();
        set(&metrics.total_checkpoints, counts.total);
        set(&metrics.in_progress_checkpoints, counts.in_progress);
        set(&metrics.completed_checkpoints, counts.completed);
        set(&metrics.failed_checkpoints, counts.failed);
        if let Some(restored) = statistics.restored() {
            set(&metrics.last_restore_timestamp_ms, restored.at.0);
        }
        let Some(last) = statistics.latest_completed() else { return };
        let Status::Completed { at, metadata_bytes, .. } = &last.status else { return };
        set(&metrics.last_duration_ms, last.duration_ms(*at));
        set(&metrics.last_size_bytes, last.totals.checkpointed_bytes);
        set(&metrics.last_full_size_bytes, last.totals.state_bytes);
        set(&metrics.last_metadata_bytes, *metadata_bytes);
        set(&metrics.last_processed_bytes, last.totals.processed_bytes);
        set(&metrics.last_persisted_bytes, last.totals.persisted_bytes);
        set(&metrics.last_completed_timestamp_ms, at.0);
        set(&metrics.last_completed_id, last.id.0);
    }
}
