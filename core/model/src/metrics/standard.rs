//! The metrics that every job, task, operator and slot has, registered under their names in one go.

use super::{Counter, FloatGauge, Gauge, Histogram, JobLabels, MetricRegistry, OperatorLabels, TaskLabels};
use crate::time::MIN_WATERMARK;

const MS_PER_NS: f64 = 1e-6;

/// Metrics of one subtask. Written by the thread of its slot only.
#[derive(Clone, Debug)]
pub struct TaskMetrics {
    /// Records that entered the head operator.
    pub num_records_in: Counter,
    /// Records that left the tail operators.
    pub num_records_out: Counter,
    /// Bytes read from gates.
    pub num_bytes_in: Counter,
    /// Bytes written to edges.
    pub num_bytes_out: Counter,
    /// Bytes read that came from this process.
    pub num_bytes_in_local: Counter,
    /// Bytes read that came from other processes.
    pub num_bytes_in_remote: Counter,
    /// Buffers read that came from this process.
    pub num_buffers_in_local: Counter,
    /// Buffers read that came from other processes.
    pub num_buffers_in_remote: Counter,
    /// Buffers written.
    pub num_buffers_out: Counter,
    /// Time with something done, ns; shown in ms as a total and as ms per second.
    pub busy_ns: Counter,
    /// Time without anything to do, ns.
    pub idle_ns: Counter,
    /// Time in which outputs had no room, ns.
    pub back_pressured_ns: Counter,
    /// 1 while outputs have no room.
    pub is_back_pressured: Gauge,
    /// Minimum over the inputs, ms; [`MIN_WATERMARK`] before the first.
    pub current_input_watermark: Gauge,
    /// Timers fired.
    pub num_fired_timers: Counter,
    /// Time from creation to running, ms.
    pub initialization_time_ms: Gauge,
    /// Buffers that wait in the gates.
    pub input_queue_length: Gauge,
    /// Bytes that wait in the gates.
    pub input_queue_bytes: Gauge,
    /// Share of the gates' buffers that is in use, 0 to 1.
    pub in_pool_usage: FloatGauge,
    /// Buffers that wait in the edges.
    pub output_queue_length: Gauge,
    /// Bytes that wait in the edges.
    pub output_queue_bytes: Gauge,
    /// Share of the edges' buffers that is in use, 0 to 1.
    pub out_pool_usage: FloatGauge,
}

impl TaskMetrics {
    /// Registers the metrics of a subtask.
    pub fn new(registry: &MetricRegistry, labels: &TaskLabels) -> Self {
        let group = registry.task(labels);
        let input = group.group("Shuffle").group("Netty").group("Input");
        let (inputs, outputs) =
            (input.group("Buffers"), group.group("Shuffle").group("Netty").group("Output").group("Buffers"));
        // Flink shows what came in by way under two names each.
        let twice = |name: &'static str| {
            let counter = group.counter_with_rate(name);
            input.same_counter(name, &counter);
            input.meter(format!("{name}PerSecond"), &counter);
            counter
        };
        let time = |total: &'static str, rate: &'static str| {
            let counter = group.scaled_counter(total, MS_PER_NS);
            group.scaled_meter(rate, &counter, MS_PER_NS);
            counter
        };
        let current_input_watermark = group.gauge("currentInputWatermark");
        current_input_watermark.set(MIN_WATERMARK);
        let back_pressured_ns = time("accumulateBackPressuredTimeMs", "backPressuredTimeMsPerSecond");
        // A task waits for room between records and never inside the emission of one.
        group.scaled_meter("softBackPressuredTimeMsPerSecond", &back_pressured_ns, MS_PER_NS);
        group.gauge("hardBackPressuredTimeMsPerSecond").set(0);
        Self {
            num_records_in: group.counter_with_rate("numRecordsIn"),
            num_records_out: group.counter_with_rate("numRecordsOut"),
            num_bytes_in: group.counter_with_rate("numBytesIn"),
            num_bytes_out: group.counter_with_rate("numBytesOut"),
            num_bytes_in_local: twice("numBytesInLocal"),
            num_bytes_in_remote: twice("numBytesInRemote"),
            num_buffers_in_local: twice("numBuffersInLocal"),
            num_buffers_in_remote: twice("numBuffersInRemote"),
            num_buffers_out: group.counter_with_rate("numBuffersOut"),
            busy_ns: time("accumulateBusyTimeMs", "busyTimeMsPerSecond"),
            idle_ns: time("accumulateIdleTimeMs", "idleTimeMsPerSecond"),
            back_pressured_ns,
            is_back_pressured: group.gauge("isBackPressured"),
            current_input_watermark,
            num_fired_timers: group.counter_with_rate("numFiredTimers"),
            initialization_time_ms: group.gauge("initializationTime"),
            input_queue_length: inputs.gauge("inputQueueLength"),
            input_queue_bytes: inputs.gauge("inputQueueSize"),
            in_pool_usage: inputs.float_gauge("inPoolUsage"),
            output_queue_length: outputs.gauge("outputQueueLength"),
            output_queue_bytes: outputs.gauge("outputQueueSize"),
            out_pool_usage: outputs.float_gauge("outPoolUsage"),
        }
    }
}

/// Metrics of one subtask of an operator. Written by the thread of its slot only.
#[derive(Clone, Debug)]
pub struct OperatorMetrics {
    registry: MetricRegistry,
    labels: OperatorLabels,
    /// Records that entered.
    pub num_records_in: Counter,
    /// Records that left.
    pub num_records_out: Counter,
    /// The last one sent, ms; [`MIN_WATERMARK`] before the first.
    pub current_output_watermark: Gauge,
}

impl OperatorMetrics {
    /// Registers what every operator has.
    pub fn new(registry: &MetricRegistry, labels: &OperatorLabels) -> Self {
        let group = registry.operator(labels);
        let current_output_watermark = group.gauge("currentOutputWatermark");
        current_output_watermark.set(MIN_WATERMARK);
        Self {
            registry: registry.clone(),
            labels: labels.clone(),
            num_records_in: group.counter_with_rate("numRecordsIn"),
            num_records_out: group.counter_with_rate("numRecordsOut"),
            current_output_watermark,
        }
    }

    /// The operator's group, for metrics of its own.
    pub fn group(&self) -> super::MetricGroup {
        self.registry.operator(&self.labels)
    }

    /// The operator's labels.
    pub fn labels(&self) -> &OperatorLabels {
        &self.labels
    }

    /// Bytes that entered, where the operator is the head of its task or a source that counts them.
    pub fn num_bytes_in(&self) -> Counter {
        self.group().counter_with_rate("numBytesIn")
    }

    /// Bytes that left, where the operator is a tail of its task.
    pub fn num_bytes_out(&self) -> Counter {
        self.group().counter_with_rate("numBytesOut")
    }

    /// Minimum over the inputs, ms; [`MIN_WATERMARK`] before the first. Sources have none.
    pub fn current_input_watermark(&self) -> Gauge {
        let gauge = self.group().gauge("currentInputWatermark");
        gauge.set(MIN_WATERMARK);
        gauge
    }

    /// Records that came after their window was gone. Where windows over all records are merged, what is counted is what
    /// that operator takes: the accumulator of one subtask and slice.
    pub fn num_late_records_dropped(&self) -> Counter {
        self.group().counter("numLateRecordsDropped")
    }

    /// Watermark of one of two inputs (from 1), ms.
    pub fn current_input_n_watermark(&self, input: usize) -> Gauge {
        let gauge = self.group().gauge(format!("currentInput{input}Watermark"));
        gauge.set(MIN_WATERMARK);
        gauge
    }

    /// Milliseconds from a source to this operator, from latency markers.
    pub fn latency_ms(&self, source_id: &str) -> Histogram {
        self.registry.latency(&self.labels, source_id)
    }
}

/// Network buffers of one slot; the process shows the sum over its slots. Held as long as the slot lives.
#[derive(Clone, Debug)]
pub struct SlotMetrics {
    /// Buffers of the slot's pool.
    pub total_segments: Gauge,
    /// Those in use.
    pub used_segments: Gauge,
    /// Those free.
    pub available_segments: Gauge,
    /// Bytes of the slot's pool.
    pub total_bytes: Gauge,
    /// Bytes in use.
    pub used_bytes: Gauge,
    /// Bytes free.
    pub available_bytes: Gauge,
    segment_bytes: i64,
}

impl SlotMetrics {
    /// Registers a slot whose pool has `segments` buffers of `segment_bytes`.
    pub fn new(registry: &MetricRegistry, segments: usize, segment_bytes: usize) -> Self {
        let group = registry.task_manager().group("Status").group("Shuffle").group("Netty");
        let metrics = Self {
            total_segments: group.summed_gauge("TotalMemorySegments"),
            used_segments: group.summed_gauge("UsedMemorySegments"),
            available_segments: group.summed_gauge("AvailableMemorySegments"),
            total_bytes: group.summed_gauge("TotalMemory"),
            used_bytes: group.summed_gauge("UsedMemory"),
            available_bytes: group.summed_gauge("AvailableMemory"),
            segment_bytes: segment_bytes as i64,
        };
        metrics.total_segments.set(segments as i64);
        metrics.total_bytes.set(segments as i64 * metrics.segment_bytes);
        metrics.set_used(0);
        metrics
    }

    /// Says how many buffers are in use; more than there are while the pool is overdrawn.
    pub fn set_used(&self, segments: usize) {
        let used = segments as i64;
        let available = (self.total_segments.get() - used).max(0);
        self.used_segments.set(used);
        self.available_segments.set(available);
        self.used_bytes.set(used * self.segment_bytes);
        self.available_bytes.set(available * self.segment_bytes);
    }
}

/// Metrics of a job as a whole, besides its times, for which a clock is needed. Those of the last checkpoint are -1 before
/// the first.
#[derive(Clone, Debug)]
pub struct JobMetrics {
    /// Restarts so far.
    pub num_restarts: Gauge,
    /// The same under its older name.
    pub full_restarts: Gauge,
    /// Checkpoints and savepoints begun.
    pub total_checkpoints: Gauge,
    /// Of these, still on their way.
    pub in_progress_checkpoints: Gauge,
    /// Completed.
    pub completed_checkpoints: Gauge,
    /// Failed.
    pub failed_checkpoints: Gauge,
    /// Milliseconds from trigger to completion of the last completed checkpoint.
    pub last_duration_ms: Gauge,
    /// Bytes that it newly wrote.
    pub last_size_bytes: Gauge,
    /// Bytes of the whole state in it.
    pub last_full_size_bytes: Gauge,
    /// Bytes of its metadata.
    pub last_metadata_bytes: Gauge,
    /// Bytes processed during its alignment.
    pub last_processed_bytes: Gauge,
    /// Bytes of buffers in flight in it.
    pub last_persisted_bytes: Gauge,
    /// When it was completed, in milliseconds since the epoch.
    pub last_completed_timestamp_ms: Gauge,
    /// Its number.
    pub last_completed_id: Gauge,
    /// When the job was last restored from one, in milliseconds since the epoch.
    pub last_restore_timestamp_ms: Gauge,
}

impl JobMetrics {
    /// Registers the metrics of a job.
    pub fn new(registry: &MetricRegistry, labels: &JobLabels) -> Self {
        let group = registry.job(labels);
        let last = |name: &'static str| {
            let gauge = group.gauge(name);
            gauge.set(-1);
            gauge
        };
        // A text, which is shown as 0.
        group.gauge("lastCheckpointExternalPath");
        Self {
            num_restarts: group.gauge("numRestarts"),
            full_restarts: group.gauge("fullRestarts"),
            total_checkpoints: group.gauge("totalNumberOfCheckpoints"),
            in_progress_checkpoints: group.gauge("numberOfInProgressCheckpoints"),
            completed_checkpoints: group.gauge("numberOfCompletedCheckpoints"),
            failed_checkpoints: group.gauge("numberOfFailedCheckpoints"),
            last_duration_ms: last("lastCheckpointDuration"),
            last_size_bytes: last("lastCheckpointSize"),
            last_full_size_bytes: last("lastCheckpointFullSize"),
            last_metadata_bytes: last("lastCheckpointMetadataSize"),
            last_processed_bytes: last("lastCheckpointProcessedData"),
            last_persisted_bytes: last("lastCheckpointPersistedData"),
            last_completed_timestamp_ms: last("lastCheckpointCompletedTimestamp"),
            last_completed_id: last("lastCompletedCheckpointId"),
            last_restore_timestamp_ms: last("lastCheckpointRestoreTimestamp"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::MetricValue;

    fn labels() -> OperatorLabels {
        let job = JobLabels { job_id: "j".into(), job_name: "n".into() };
        OperatorLabels {
            task: TaskLabels::new(job, "t", "Map", 0),
            operator_id: "o".into(),
            operator_name: "Map".into(),
        }
    }

    fn value(registry: &MetricRegistry, now_ms: u64, wanted: &str) -> Option<f64> {
        let mut found = None;
        registry.visit(now_ms, |sample| {
            if sample.full_name() == wanted {
                found = Some(match &sample.value {
                    MetricValue::Counter(value) => *value as f64,
                    MetricValue::Gauge(value) => *value as f64,
                    MetricValue::Float(value) | MetricValue::Meter(value) => *value,
                    MetricValue::Histogram(snapshot) => snapshot.count() as f64,
                });
            }
        });
        found
    }

    #[test]
    fn when_time_is_counted_in_ns_then_it_shows_in_ms_and_ms_per_second() {
        let registry = MetricRegistry::default();
        let task = TaskMetrics::new(&registry, &labels().task);
        registry.tick(0);
        task.busy_ns.add(1_500_000_000);
        let prefix = "flink_taskmanager_job_task";
        assert_eq!(value(&registry, 2_000, &format!("{prefix}_busyTimeMsPerSecond")), Some(750.0));
        assert_eq!(value(&registry, 2_000, &format!("{prefix}_accumulateBusyTimeMs")), Some(1_500.0));
    }

    #[test]
    fn when_bytes_come_in_then_both_of_flinks_names_show_them() {
        let registry = MetricRegistry::default();
        let task = TaskMetrics::new(&registry, &labels().task);
        task.num_bytes_in_local.set(64);
        for name in ["numBytesInLocal", "Shuffle_Netty_Input_numBytesInLocal"] {
            assert_eq!(value(&registry, 0, &format!("flink_taskmanager_job_task_{name}")), Some(64.0));
        }
    }

    #[test]
    fn when_there_was_no_watermark_then_the_gauge_is_at_its_minimum() {
        let registry = MetricRegistry::default();
        let operator = OperatorMetrics::new(&registry, &labels());
        operator.current_input_watermark();
        operator.num_late_records_dropped().inc();
        let prefix = "flink_taskmanager_job_task_operator";
        assert_eq!(value(&registry, 0, &format!("{prefix}_currentInputWatermark")), Some(i64::MIN as f64));
        assert_eq!(value(&registry, 0, &format!("{prefix}_numLateRecordsDropped")), Some(1.0));
    }

    #[test]
    fn when_two_slots_report_then_the_process_shows_their_sum() {
        let registry = MetricRegistry::default();
        let (one, two) = (SlotMetrics::new(&registry, 10, 32_768), SlotMetrics::new(&registry, 20, 32_768));
        one.set_used(4);
        two.set_used(21);
        let prefix = "flink_taskmanager_Status_Shuffle_Netty";
        assert_eq!(value(&registry, 0, &format!("{prefix}_TotalMemorySegments")), Some(30.0));
        assert_eq!(value(&registry, 0, &format!("{prefix}_UsedMemorySegments")), Some(25.0));
        assert_eq!(value(&registry, 0, &format!("{prefix}_AvailableMemorySegments")), Some(6.0));
    }
}
