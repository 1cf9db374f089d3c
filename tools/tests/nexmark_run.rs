//! `thalweg nexmark run` as a user meets it, on the cores of this machine.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

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

const BID: &str = r#"{"Bid":{"auction":1,"bidder":2,"price":PRICE,"channel":"","url":"","dateTime":5,"extra":""}}"#;

/// Bids with these prices, one a line.
fn bids(prices: &[u64]) -> String {
    prices.iter().map(|price| BID.replace("PRICE", &price.to_string()) + "\n").collect()
}

#[test]
fn when_a_price_is_the_largest_there_is_then_q1_has_all_its_digits() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, out) = (dir.path().join("bids.ndjson"), dir.path().join("out"));
    fs::write(&file, bids(&[u64::MAX, u64::MAX / 908 + 1])).expect("a file");
    let (file, out_path) = (file.display().to_string(), out.display().to_string());
    let reports = run(&["--query", "q1", "--input", &file, "--output", &out_path, "-p", "1"]);
    assert_eq!(reports[0]["verified"], true);
    let rows = rows(&out, "q1");
    let price = |price: &str| rows.iter().any(|row| row.contains(&format!("\"price\":{price},")));
    assert!(price("16749643618928272866.420") && price("18446744073709552.420"), "{rows:?}");
}

#[test]
fn when_the_input_is_a_directory_or_begins_with_a_mark_then_what_is_read_is_checked() {
    let dir = tempfile::tempdir().expect("a directory");
    let input = dir.path().join("in");
    fs::create_dir_all(input.join("below")).expect("a directory");
    for (name, text) in [
        ("a.ndjson", format!("\u{feff}{}", bids(&[1, 2]))),
        ("b.ndjson", bids(&[3])),
        (".hidden", "no event".to_owned()),
        ("_left-out", "no event".to_owned()),
        ("below/c.ndjson", "no event".to_owned()),
    ] {
        fs::write(input.join(name), text).expect("a file");
    }
    let path = input.display().to_string();
    for report in run(&["--input", &path, "-p", "2", "--oversubscribe"]) {
        assert_eq!((&report["records"], &report["verified"]), (&3.into(), &true.into()), "{report}");
    }
    let said = refused(&["--query", "q0", "--input", &path, "--events", "1", "-p", "1"], 2);
    assert!(said.contains("--events") && said.contains("2 files"), "{said}");
}

/// Runs what must be refused with this exit code; answers what it said.
fn refused(args: &[&str], code: i32) -> String {
    let output = thalweg(&[&["nexmark", "run", "--format", "json"], args].concat());
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(code) && output.stdout.is_empty(), "{args:?}: {said}");
    said
}

#[test]
fn when_a_run_is_refused_then_earlier_results_and_the_input_stay() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().display().to_string();
    fs::create_dir(dir.path().join("q0")).expect("a directory");
    let (result, part) = (dir.path().join("q0.ndjson"), dir.path().join("q0/part-0.ndjson"));
    for path in [&result, &part] {
        fs::write(path, bids(&[1])).expect("a file");
    }
    let (as_result, as_part) = (result.display().to_string(), part.display().to_string());
    for (args, code, expected) in [
        (&["-p", "4096"][..], 2, "oversubscri"),
        (&["--cores", "4095"], 2, "core 4095"),
        (&["-p", "1", "--input", "no/such/file.ndjson"], 1, "no/such/file.ndjson"),
        (&["-p", "1", "-D", "state.backend.type=rocksdb"], 2, "rocksdb"),
        (&["-p", "1", "--input", &as_result], 2, "q0.ndjson is input"),
        (&["-p", "1", "--input", &as_part], 2, "part-0.ndjson is input"),
        (&["-p", "1", "--input", &format!("{out}/q0")], 2, "part-0.ndjson is input"),
    ] {
        let said = refused(&[&["--query", "q0", "--output", &out], args].concat(), code);
        assert!(said.contains(expected), "{args:?}: {said}");
        assert!([&result, &part].iter().all(|path| fs::read_to_string(path).expect("kept") == bids(&[1])), "{args:?}");
    }
    let said = refused(&["--query", "q0", "--output", &as_result, "--events", "10", "-p", "1"], 2);
    assert!(said.contains("is a file") && said.contains("directory"), "{said}");
    // Of another query, it is not in the way.
    fs::write(dir.path().join("q1.ndjson"), bids(&[7])).expect("a file");
    let other = dir.path().join("q1.ndjson").display().to_string();
    run(&["--query", "q0", "--output", &out, "--input", &other, "-p", "1"]);
    assert!(rows(dir.path(), "q0")[0].contains("\"price\":7,") && !part.exists());
}

#[test]
fn when_a_line_is_no_event_then_the_advice_is_what_this_command_can_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("bad.ndjson");
    let path = file.display().to_string();
    for (line, expected) in
        [("{}".to_owned(), ":2:"), (format!("\"{}\"", "x".repeat(2 << 20)), "longer than the 1048576 bytes")]
    {
        fs::write(&file, bids(&[1]) + &line + "\n").expect("a file");
        let said = refused(&["--query", "q0", "--input", &path, "-p", "1"], 1);
        assert!(said.contains(expected) && said.contains("take it out"), "{said}");
        assert!(!said.contains("skipped") && !said.contains("maximum line length"), "{said}");
    }
}

#[test]
fn when_a_run_is_interrupted_then_the_job_is_cancelled_and_says_so() {
    for signal in ["-INT", "-TERM"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_thalweg"))
            .args([
                "nexmark",
                "run",
                "--query",
                "q0",
                "--rate",
                "1k",
                "--events",
                "1M",
                "-p",
                "1",
                "--metrics-port",
                "0",
            ])
            .env_remove("RUST_LOG")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let mut said = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("a line");
        // Signals are taken care of before this is said.
        assert!(line.starts_with("metrics: "), "{line}");
        let kill = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(kill.expect("kill runs").success());
        let mut rest = String::new();
        said.read_to_string(&mut rest).expect("UTF-8");
        assert_eq!(child.wait().expect("it ends").code(), Some(130), "{signal}: {rest}");
        assert!(rest.contains("error: job was cancelled"), "{signal}: {rest}");
    }
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
