//! `bench checkpoint`, small: all figures are there, the results are right, and nothing is left behind.

use std::time::Duration;

use thalweg_benches::checkpoint::{CheckpointBench, What};
use thalweg_benches::options::EngineOptions;
use thalweg_benches::report::WorkloadReport;
use thalweg_benches::workloads::job::JobSettings;

const STATE_BYTES: u64 = 2 << 20;

fn measure(what: What) -> Vec<WorkloadReport> {
    let engine = EngineOptions { parallelism: Some(2), oversubscribe: true, ..EngineOptions::default() };
    let dir = tempfile::tempdir().expect("a directory");
    let bench = CheckpointBench {
        settings: JobSettings::new(engine).expect("any machine has a core"),
        state_bytes: STATE_BYTES,
        count_keys: 10_000,
        records: 400_000,
        records_per_s: 10_000.0,
        duration: Duration::from_millis(400),
        interval: Duration::from_millis(100),
        runs: 1,
        dir: Some(dir.path().to_path_buf()),
    };
    let reports = bench.measure(&[what], |_| ()).expect("runs");
    assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 0, "nothing is left behind");
    for report in &reports {
        let checkpoint = report.checkpoint.as_ref().expect("figures");
        assert!(checkpoint.text(report.latency_us.as_ref(), None).lines().count() > 0);
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).expect("JSON");
        assert!(json["checkpoint"]["figures"].is_array(), "{json}");
    }
    reports
}

fn one(what: What) -> WorkloadReport {
    let mut reports = measure(what);
    assert_eq!((reports.len(), reports[0].verified), (1, Some(true)), "{reports:?}");
    reports.remove(0)
}

#[test]
fn when_latency_is_measured_then_both_ways_and_the_stalls_are_there() {
    let report = one(What::Latency);
    let checkpoint = report.checkpoint.as_ref().unwrap();
    let summary = checkpoint.checkpoints.unwrap();
    assert!(summary.completed >= 2 && summary.failed == 0, "{summary:?}");
    assert!(report.latency_us.is_some() && report.probe_latency_us.is_some());
    assert!(checkpoint.without_latency_us.is_some() && checkpoint.stalls.len() == 12);
    assert!(summary.state_bytes >= STATE_BYTES as f64, "{summary:?}");
    // 1,000 records a checkpoint over 10,000 keys.
    assert!(summary.written_bytes > 0.0 && summary.written_bytes < summary.state_bytes / 2.0, "{summary:?}");
}

#[test]
fn when_throughput_is_measured_then_it_stands_beside_that_without() {
    let report = one(What::Throughput);
    assert!(report.ratio > Some(0.0));
    let figures = &report.checkpoint.as_ref().unwrap().figures;
    assert!(figures[0].name.starts_with("throughput") && figures[0].runs.len() == 1, "{figures:?}");
}

#[test]
fn when_the_writer_is_measured_then_it_has_written_the_state() {
    let checkpoint = one(What::Writer).checkpoint.unwrap();
    let summary = checkpoint.checkpoints.unwrap();
    assert!(summary.completed == 1 && summary.written_bytes >= STATE_BYTES as f64, "{summary:?}");
    assert!(checkpoint.bytes_per_s > Some(0.0) && checkpoint.disk_bytes_per_s > Some(0.0));
}

#[test]
fn when_one_key_in_a_hundred_has_changed_then_the_increment_is_small() {
    let checkpoint = one(What::Incremental).checkpoint.unwrap();
    let (figure, summary) = (&checkpoint.figures[0], checkpoint.checkpoints.unwrap());
    assert!(figure.holds && figure.value >= 0.01 && summary.written_bytes > 0.0, "{checkpoint:?}");
}

#[test]
fn when_the_sink_is_throttled_then_unaligned_checkpoints_complete_all_the_same() {
    let reports = measure(What::Unaligned);
    assert_eq!(reports.len(), 6);
    for report in reports {
        let checkpoint = report.checkpoint.unwrap();
        let summary = checkpoint.checkpoints.unwrap();
        assert_eq!(report.verified, Some(true), "{}", report.workload);
        let unaligned = report.workload.starts_with("checkpoint-unaligned");
        assert!(!unaligned || summary.completed == 1, "{}: {summary:?}", report.workload);
        assert!(unaligned || summary.persisted_bytes == 0.0, "{}: {summary:?}", report.workload);
    }
}

#[test]
fn when_state_is_restored_then_every_count_goes_on() {
    let checkpoint = one(What::Restore).checkpoint.unwrap();
    assert!(checkpoint.bytes_per_s > Some(0.0) && checkpoint.disk_bytes_per_s > Some(0.0));
}
