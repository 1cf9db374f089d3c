//! `flights`: its rows against the plain evaluation.

#[path = "../../examples/flights/job.rs"]
mod job;
#[path = "../../examples/flights/model.rs"]
mod model;
#[path = "../../examples/flights/reference.rs"]
mod reference;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use job::FlightsArgs;
use reference::{Evaluation, Row, evaluate};

use crate::{PARALLELISMS, environment};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name)
}

static EXPECTED: LazyLock<Evaluation> = LazyLock::new(|| {
    let text = |name| fs::read_to_string(data(name)).unwrap();
    evaluate(&text("flights.csv"), &text("airlines.csv"))
});

fn lines(rows: &[Row]) -> Vec<String> {
    let mut lines: Vec<String> = rows.iter().map(|row| serde_json::to_string(row).unwrap()).collect();
    lines.sort();
    lines
}

/// Runs the job; answers the lines of its output in order.
fn run(parallelism: u32, change: impl FnOnce(&mut FlightsArgs)) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("rows.ndjson");
    let mut args = FlightsArgs {
        input: data("flights.csv"),
        airlines: data("airlines.csv"),
        output: output.clone(),
        out_of_orderness: Duration::from_secs(24 * 3600),
        split_bytes: 256 << 10,
    };
    change(&mut args);
    let env = environment(parallelism);
    job::build(&env, &args).unwrap();
    env.execute().unwrap();
    let mut lines: Vec<String> = fs::read_to_string(output).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn when_run_with_any_parallelism_and_splits_then_the_rows_are_those_of_the_plain_evaluation() {
    let expected = lines(&EXPECTED.rows);
    for parallelism in PARALLELISMS {
        for split_bytes in [1_009, 100_003, u64::MAX] {
            let rows = run(parallelism, |args| args.split_bytes = split_bytes);
            assert!(rows == expected, "-p {parallelism}, splits of {split_bytes} bytes: {} rows", rows.len());
        }
    }
}

#[test]
fn when_the_bound_is_the_disorder_of_the_file_then_no_row_is_late() {
    let bound = Duration::from_millis(EXPECTED.disorder_ms.unsigned_abs());
    assert_eq!(run(2, |args| args.out_of_orderness = bound), lines(&EXPECTED.rows));
}

#[test]
fn when_the_output_is_an_input_by_whatever_name_then_it_is_refused_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (input, link) = (directory.path().join("flights.csv"), directory.path().join("rows.ndjson"));
    let text = fs::read(data("flights.csv")).unwrap();
    fs::write(&input, &text).unwrap();
    std::os::unix::fs::symlink(&input, &link).unwrap();
    let refused = |input: PathBuf, airlines: PathBuf, output: PathBuf| {
        let out_of_orderness = Duration::ZERO;
        let args = FlightsArgs { input, airlines, output, out_of_orderness, split_bytes: 1 << 20 };
        let error = job::build(&environment(1), &args).unwrap_err().to_string();
        assert!(error.contains("flights.csv is input") && error.contains("--output"), "{error}");
    };
    refused(input.clone(), data("airlines.csv"), input.clone());
    refused(input.clone(), data("airlines.csv"), link.clone());
    refused(data("airlines.csv"), input.clone(), link);
    assert_eq!(fs::read(input).unwrap(), text);
}

#[test]
fn when_a_carrier_has_no_name_then_its_rows_say_null() {
    let directory = tempfile::tempdir().unwrap();
    let airlines = directory.path().join("airlines.csv");
    fs::write(&airlines, "carrier,name\nUA,United\n").unwrap();
    let rows = run(2, |args| args.airlines = airlines);
    assert_eq!(rows.len(), EXPECTED.rows.len());
    for row in rows.iter().map(|row| serde_json::from_str::<Row>(row).unwrap()) {
        assert_eq!(row.name.as_deref(), (row.carrier == "UA").then_some("United"), "{row:?}");
    }
}
