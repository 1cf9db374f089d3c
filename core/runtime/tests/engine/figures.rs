//! What a job says about itself.

use thalweg_model::metrics::{MetricRegistry, MetricValue};
use thalweg_runtime::*;

use crate::common::*;

#[test]
fn when_it_runs_then_its_metrics_say_what_it_did() {
    let registry = MetricRegistry::default();
    let log = Log::default();
    let mut config = small_config(1024);
    config.latency_interval_ms = 1;
    let mut job = Job::new(config);
    let source = job.task("numbers", 2, 0, boxed(|| Numbers::new(5000, 50)));
    let pass = job.task("pass", 2, 1, boxed(|| Pass));
    let sink = job.task("sink", 1, 1, log.sink());
    job.edge(source, pass, hash());
    job.edge(pass, sink, Partitioner::Global);
    job.run_with(&SeededReactor::new(1), JobControl::new(), &registry).unwrap();
    assert_eq!(metric(&registry, "numRecordsOut", "numbers"), 5000.0);
    assert_eq!(metric(&registry, "numRecordsOut", "pass"), 5000.0);
    assert!(metric(&registry, "numBytesIn", "pass") >= 5000.0 * 32.0);
    assert!(metric(&registry, "numBytesOut", "numbers") >= metric(&registry, "numBytesIn", "pass"));
    assert!(metric(&registry, "numBuffersOut", "numbers") > 100.0);
    assert_eq!(metric(&registry, "currentInputWatermark", "sink"), i64::MAX as f64);
    let mut latencies = Vec::new();
    registry.visit(0, |sample| {
        if sample.full_name().contains("latency_source_id_operator_id_operator_subtask_index_latency")
            && let MetricValue::Histogram(histogram) = &sample.value
        {
            latencies.push((sample.labels.to_vec(), histogram.count()));
        }
    });
    assert_eq!(latencies.len(), 3, "pass 0, pass 1, sink: {latencies:?}");
    assert!(latencies.iter().all(|(_, count)| *count > 0));
}
