//! Every workload, small, with the hash of its result.

use std::time::Duration;

use thalweg_benches::limits::{exchange, pipeline as hand_written, shuffle_count::CountSums};
use thalweg_benches::options::EngineOptions;
use thalweg_benches::workloads::{
    buffer_timeout::BufferTimeouts,
    exchange::Exchange,
    job::JobSettings,
    keyed_count::KeyedCount,
    open_loop::{Length, OpenLoop},
    pipeline::Pipeline,
};

/// Of 50,000 random records and one of each of 1,000 keys, computed elsewhere.
const COUNTED: CountSums = CountSums { records: 51_000, running: 1_351_954, keys: 25_489_562 };
/// Of 100,000 records, computed elsewhere.
const PIPELINE_CHECKSUM: u64 = 0xa6e4_f3c9_a5e1_697f;
const EXCHANGE_CHECKSUM: u64 = 0x0ccf_354b_c3b6_49c0;

fn settings(parallelism: u32) -> JobSettings {
    let engine = EngineOptions { parallelism: Some(parallelism), oversubscribe: true, ..EngineOptions::default() };
    JobSettings::new(engine).expect("any machine has a core")
}

#[test]
fn when_keys_are_counted_then_job_and_limit_have_the_known_result() {
    for parallelism in [1, 2, 3] {
        let bench = KeyedCount { keys: 1_000, records: 50_000, settings: settings(parallelism) };
        assert_eq!(bench.limit().expect("runs").sums, COUNTED, "limit, -p {parallelism}");
        assert_eq!(bench.job().expect("runs").sums, COUNTED, "job, -p {parallelism}");
    }
}

#[test]
fn when_pairs_are_measured_then_all_are_shown_and_verified() {
    let bench = KeyedCount { keys: 100, records: 20_000, settings: settings(2) };
    let mut told = 0;
    let done = bench.measure(3, |_| told += 1).expect("runs");
    assert_eq!((done.pairs.0.len(), told, done.report.verified), (3, 3, Some(true)));
    let json: serde_json::Value = serde_json::from_str(&done.report.to_json()).expect("JSON");
    assert!(json["limit_records_per_s"].as_f64() > Some(0.0) && json["ratio"].as_f64() > Some(0.0), "{json}");
    assert_eq!((&json["workload"], &json["records"]), (&"keyed-count".into(), &20_000.into()));
}

#[test]
fn when_the_pipeline_runs_then_job_and_loop_have_the_known_checksum() {
    for parallelism in [1, 2] {
        let bench = Pipeline { records: 100_000, settings: settings(parallelism) };
        let cores = bench.settings.cores.clone();
        assert_eq!(hand_written::run(parallelism as usize, &cores, bench.records).1, PIPELINE_CHECKSUM);
        assert_eq!(bench.job().expect("runs").1, PIPELINE_CHECKSUM);
    }
}

#[test]
fn when_records_are_exchanged_then_all_arrive_and_the_time_at_work_is_known() {
    let bench = Exchange { records: 100_000, settings: settings(1) };
    assert_eq!(exchange::run(&bench.settings.cores, bench.records).checksum, EXCHANGE_CHECKSUM);
    let job = bench.job().expect("runs");
    assert_eq!(job.checksum, EXCHANGE_CHECKSUM);
    // In whole milliseconds: the receiver of so few may have had less.
    assert!(job.sender_busy_s + job.receiver_busy_s > 0.0 && job.seconds > 0.0, "{job:?}");
}

#[test]
fn when_an_exchange_is_measured_then_the_object_has_the_cost_of_each_side() {
    let bench = Exchange { records: 100_000, settings: settings(2) };
    let json: serde_json::Value =
        serde_json::from_str(&bench.measure(1, |_| ()).expect("runs").report.to_json()).expect("JSON");
    let cost = |side: &str| json["ns_per_record"][side].as_f64().unwrap_or_else(|| panic!("{side}: {json}"));
    assert!(cost("limit_sender") > 0.0 && cost("limit_receiver") > 0.0, "{json}");
    // The job's are in whole milliseconds.
    assert!(cost("sender") + cost("receiver") > 0.0, "{json}");
}

#[test]
fn when_the_load_is_steady_then_latency_is_recorded_beside_the_probes() {
    let load = OpenLoop { keys: 1_000, records_per_s: 20_000.0, length: Length::Time(Duration::from_millis(300)) };
    let done = load.measure("keyed-count", &settings(2), 1, |_| ()).expect("runs");
    assert_eq!(done.report.verified, Some(true));
    let job = done.report.latency_us.expect("recorded");
    assert!(job.p50 > 0.0 && job.p50 <= job.p99_99 && job.p99_99 <= job.max, "{job:?}");
    assert!(done.report.probe_latency_us.is_some() && done.report.cores_used > Some(0.0));
    assert!(done.table().contains("above it"), "{}", done.table());
}

#[test]
fn when_a_steady_load_is_of_so_many_records_then_so_many_are_sent_and_half_a_short_run_is_recorded() {
    let load = OpenLoop { keys: 10, records_per_s: 1_000.0, length: Length::Records(200) };
    let report = load.measure("keyed-count", &settings(1), 1, |_| ()).expect("runs").report;
    assert_eq!((report.records, report.verified), (200, Some(true)));
    // The scheduled rate is the limit: what arrived comes near it.
    assert_eq!(report.limit_records_per_s, Some(1_000.0));
    assert!(report.ratio.is_some_and(|ratio| ratio > 0.3 && ratio < 1.1), "{report:?}");
    let run = load.job(&settings(1)).expect("runs");
    assert_eq!(run.latency.len(), 100);
}

#[test]
fn when_buffer_timeouts_are_compared_then_each_has_throughput_and_latency() {
    let full = KeyedCount { keys: 100, records: 20_000, settings: settings(2) };
    let steady = OpenLoop { keys: 100, records_per_s: 10_000.0, length: Length::Time(Duration::from_millis(100)) };
    let reports = BufferTimeouts { full, steady }.measure(1, |_| ()).expect("runs");
    assert_eq!(reports.len(), 3);
    assert!(reports.iter().all(|report| report.verified == Some(true) && report.latency_us.is_some()), "{reports:?}");
}

#[test]
fn when_settings_make_no_sense_then_the_message_says_what_to_do() {
    let engine = EngineOptions { parallelism: Some(5_000), ..EngineOptions::default() };
    let message = JobSettings::new(engine).expect_err("too many").to_string();
    assert!(message.contains("5000") && message.contains("-p"), "{message}");
    let engine = EngineOptions { cores: vec![4_095], ..EngineOptions::default() };
    let error = JobSettings::new(engine).expect_err("no such core");
    assert!(error.is_configuration() && error.to_string().contains("core 4095"), "{error}");
    let none = Pipeline { records: 0, settings: settings(1) }.measure(1, |_| ()).expect_err("no records");
    assert!(none.is_configuration() && none.to_string().contains("--records"), "{none}");
    let none = Exchange { records: 0, settings: settings(1) }.measure(1, |_| ()).expect_err("no records");
    assert!(none.is_configuration() && none.to_string().contains("--records"), "{none}");
    let bench = KeyedCount { keys: 0, records: 1, settings: settings(1) };
    assert!(bench.measure(1, |_| ()).expect_err("no keys").to_string().contains("--keys"));
}
