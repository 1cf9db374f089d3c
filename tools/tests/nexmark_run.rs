//! `thalweg nexmark run` as a user meets it, on the cores of this machine.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const EVENTS: &str = "20000";

fn thalweg(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_thalweg")).args(args).env_remove("RUST_LOG").output().expect("the command starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Runs and answers the JSON objects; standard output holds nothing else.
fn run(args: &[&str]) -> Vec<Value> {
    let output = thalweg(&[&["nexmark", "run", "--format", "json"], args].concat());
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect()
}

#[test]
fn when_run_then_each_query_reports_the_fields_of_the_contract_and_is_verified() {
    for parallelism in ["1", "2"] {
        let reports = run(&["--events", EVENTS, "-p", parallelism, "--oversubscribe"]);
        let names: Vec<&str> = reports.iter().map(|report| report["workload"].as_str().expect("a name")).collect();
        assert_eq!(names, ["q0", "q1", "q2", "q5", "q7", "q8"]);
        for report in &reports {
            assert_eq!(report["parallelism"].to_string(), parallelism);
            assert_eq!(report["records"], 20_000);
            assert!(report["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{report}");
            assert!(report["records_per_s"].as_f64().is_some_and(|rate| rate > 0.0), "{report}");
            assert!(report["rss_mib"].as_f64().is_some_and(|mib| mib > 0.0), "{report}");
            assert_eq!(report["latency_us"], Value::Null);
            assert_eq!(report["verified"], true, "{report}");
        }
    }
}

#[test]
fn when_run_at_a_rate_then_latency_is_reported() {
    let args = ["--query", "q0", "--query", "q5", "--events", EVENTS, "--rate", "100k", "-p", "2", "--oversubscribe"];
    for report in run(&args) {
        assert!(report["seconds"].as_f64().is_some_and(|seconds| seconds > 0.19), "{report}");
        let latency = report["latency_us"].as_object().expect("an object");
        let of = |name: &str| latency[name].as_f64().expect("a number");
        let percentiles = ["p50", "p90", "p99", "p99_9", "p99_99", "max"].map(of);
        assert!(percentiles[0] > 0.0 && percentiles.is_sorted(), "{report}");
        assert_eq!(report["verified"], true);
    }
}

#[test]
fn when_rows_are_written_then_they_have_the_fields_of_the_list_and_old_ones_are_gone() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    let out = dir.display().to_string();
    fs::create_dir(dir.join("q0")).expect("a directory");
    fs::write(dir.join("q0/part-7.ndjson"), "old\n").expect("a file");
    run(&["--events", EVENTS, "--output", &out, "-p", "2", "--oversubscribe"]);
    let two: Vec<Vec<String>> = QUERIES.iter().map(|(query, _)| rows(dir, query)).collect();
    for ((query, fields), rows) in QUERIES.iter().zip(&two) {
        assert!(!rows.is_empty(), "{query}");
        for row in rows {
            let row: Value = serde_json::from_str(row).expect("a JSON object a line");
            let mut expected: Vec<&str> = fields.split(' ').collect();
            expected.sort_unstable();
            assert!(row.as_object().expect("an object").keys().eq(expected), "{query}: {row}");
        }
    }
    // With one subtask there is one file, and the parts of two are gone.
    run(&["--events", EVENTS, "--output", &out, "-p", "1"]);
    for ((query, _), two) in QUERIES.iter().zip(&two) {
        assert!(dir.join(format!("{query}.ndjson")).is_file(), "{query}");
        assert_eq!(&rows(dir, query), two, "{query}");
    }
}

const QUERIES: [(&str, &str); 6] = [
    ("q0", "auction bidder price dateTime extra"),
    ("q1", "auction bidder price dateTime extra"),
    ("q2", "auction price"),
    ("q5", "auction num"),
    ("q7", "auction price bidder dateTime extra"),
    ("q8", "id name starttime"),
];

/// All rows of a query, sorted.
fn rows(dir: &Path, query: &str) -> Vec<String> {
    let parts = fs::read_dir(dir.join(query)).into_iter().flatten().map(|entry| entry.expect("readable").path());
    let one = Some(dir.join(format!("{query}.ndjson"))).filter(|path| path.exists());
    let files = parts.chain(one).map(|path| fs::read_to_string(path).expect("a file"));
    let mut rows: Vec<String> = files.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    rows.sort();
    rows
}

#[test]
fn when_events_come_from_a_file_then_results_are_those_of_the_generator() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("events.ndjson").display().to_string();
    let output = thalweg(&["nexmark", "generate", "--events", EVENTS, "--seed", "5", "--out", &file]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (one, two) = (dir.path().join("generated"), dir.path().join("read"));
    let paths = [one.display().to_string(), two.display().to_string()];
    run(&["--events", EVENTS, "--seed", "5", "--output", &paths[0], "-p", "1"]);
    for report in run(&["--input", &file, "--output", &paths[1], "-p", "2", "--oversubscribe"]) {
        assert_eq!((&report["records"], &report["verified"]), (&20_000.into(), &true.into()), "{report}");
    }
    for (query, _) in QUERIES {
        assert_eq!(rows(&one, query), rows(&two, query), "{query}");
    }
    let reports = run(&["--query", "q8", "--input", &file, "--events", "5000", "-p", "2", "--oversubscribe"]);
    assert_eq!((&reports[0]["records"], &reports[0]["verified"]), (&5_000.into(), &true.into()));
}

#[test]
fn when_a_run_cannot_be_then_one_line_says_why() {
    let cases: [(&[&str], &str); 4] = [
        (&["--query", "q3"], "q0, q1, q2, q5, q7, q8"),
        (&["--input", "no/such/file.ndjson"], "no/such/file.ndjson"),
        (&["--query", "q0", "--events", "10", "-p", "4096"], "oversubscri"),
        (&["--query", "q0", "--events", "10", "-p", "1", "--output", "/proc/nowhere"], "/proc/nowhere"),
    ];
    for (args, expected) in cases {
        let output = thalweg(&[&["nexmark", "run", "--format", "json"], args].concat());
        let said = text(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty(), "{args:?}");
        assert!(said.contains(expected) && said.contains("error: ") && !said.contains("panicked"), "{args:?}: {said}");
    }
}
