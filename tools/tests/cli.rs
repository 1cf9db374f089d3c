//! The `thalweg` command as a user meets it: output, messages and exit codes.

use std::process::{Command, Output, Stdio};

fn thalweg(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_thalweg")).args(args).env_remove("RUST_LOG").output().expect("the command starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Runs a command that must fail with `code`; answers what it said.
fn failure(args: &[&str], code: i32) -> String {
    let output = thalweg(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output.stderr));
    assert!(output.stdout.is_empty(), "an error belongs on standard error");
    text(&output.stderr)
}

#[test]
fn when_help_is_asked_for_then_every_subcommand_explains_itself() {
    for (args, expected) in [
        (&["--help"][..], "nexmark"),
        (&["nexmark", "--help"], "generate"),
        (&["nexmark", "generate", "--help"], "Examples:"),
        (&["nexmark", "list", "--help"], "queries"),
        (&["bench", "checkpoint", "--help"], "--what"),
        (&["bench", "crash", "--help"], "--restore"),
        (&["state", "verify", "--help"], "damaged"),
        (&["savepoint", "dispose", "--help"], "Example:"),
        (&["savepoint", "trigger", "--help"], "--target"),
        (&["stop", "--help"], "--drain"),
        (&["cancel", "--help"], "--rest"),
        (&["list", "--help"], "--rest-port"),
    ] {
        let output = thalweg(args);
        assert!(output.status.success(), "{args:?}");
        assert!(text(&output.stdout).contains(expected), "{args:?}: {}", text(&output.stdout));
    }
}

#[test]
fn when_listed_then_every_query_is_there_with_its_fields() {
    let output = thalweg(&["nexmark", "list"]);
    let listed = text(&output.stdout);
    for expected in ["q0", "q1", "q2", "q5", "q7", "q8", "auction, num", "id, name, starttime"] {
        assert!(listed.contains(expected), "{expected}: {listed}");
    }
}

#[test]
fn when_events_are_generated_then_each_line_is_one_object_and_the_seed_decides() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str| dir.path().join(name).display().to_string();
    for (name, events, seed) in [("a", "1k", "7"), ("b", "1_000", "7"), ("c", "500", "7"), ("d", "500", "8")] {
        let output = thalweg(&["nexmark", "generate", "--events", events, "--seed", seed, "--out", &file(name)]);
        assert!(output.status.success() && output.stdout.is_empty(), "{}", text(&output.stderr));
    }
    let read = |name: &str| std::fs::read_to_string(file(name)).expect("a file");
    let (a, b, c, d) = (read("a"), read("b"), read("c"), read("d"));
    assert_eq!(a, b);
    assert!(a.starts_with(&c), "event n depends on the seed and n alone");
    assert_ne!(c, d);
    assert_eq!(a.lines().count(), 1_000);
    for line in a.lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let object = value.as_object().expect("an object");
        assert!(
            object.len() == 1 && ["Person", "Auction", "Bid"].iter().any(|kind| object.contains_key(*kind)),
            "{line}"
        );
    }
}

#[test]
fn when_events_go_to_standard_output_then_nothing_else_does() {
    let output = thalweg(&["nexmark", "generate", "--events", "20", "--out", "-"]);
    assert_eq!(text(&output.stdout).lines().filter(|line| line.starts_with('{')).count(), 20);
    assert_eq!(text(&output.stdout).lines().count(), 20);
}

#[test]
fn when_the_reader_goes_away_then_that_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(["nexmark", "generate", "--events", "100k", "--out", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the command ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
}

#[test]
fn when_the_file_cannot_be_written_then_the_message_names_it_and_says_what_to_do() {
    let said = failure(&["nexmark", "generate", "--events", "1", "--out", "no/such/dir/e.ndjson"], 1);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].starts_with("error: cannot write no/such/dir/e.ndjson: "), "{said}");
    assert!(lines[1].starts_with("hint: create the directory"), "{said}");
}

#[test]
fn when_a_flag_is_wrong_then_the_message_names_it_and_the_exit_code_is_2() {
    let said = failure(&["nexmark", "generate", "--events", "many", "--out", "x"], 2);
    assert!(said.starts_with("error: ") && said.contains("--events") && said.contains("1_000_000"), "{said}");
    let said = failure(&["nexmark", "generate", "--evnts", "1"], 2);
    assert!(said.contains("--evnts") && said.contains("--events"), "{said}");
    let said = failure(&["nexmark", "run", "-D", "paralelism.default=2"], 2);
    assert!(said.starts_with("error: ") && said.contains("did you mean parallelism.default?"), "{said}");
    let said = failure(&["bench", "pipeline", "--config", "no/such.yaml"], 2);
    assert!(said.contains("no/such.yaml"), "{said}");
    let said = failure(&["nexmrk"], 2);
    assert!(said.contains("nexmark"), "{said}");
}

#[test]
fn when_numbers_make_no_sense_then_the_message_names_their_flag_and_the_exit_code_is_2() {
    for (args, expected) in [
        (&["bench", "pipeline", "--records", "0"][..], "--records"),
        (&["bench", "exchange", "--records", "0"], "--records"),
        (&["bench", "keyed-count", "--keys", "0"], "--keys"),
        (&["bench", "keyed-count", "--records", "0"], "--records"),
        (&["bench", "keyed-count", "--rate", "0"], "--rate"),
        (&["bench", "keyed-count", "--seconds", "1"], "--rate"),
        (&["bench", "keyed-count", "--rate", "1k", "--seconds", "1", "--records", "5"], "cannot be used with"),
        (&["bench", "keyed-count", "--rate", "1k", "--seconds", "0"], "--seconds"),
        (&["nexmark", "slide", "--runs", "0"], "--runs"),
        (&["nexmark", "run", "--rate", "inf"], "--rate"),
    ] {
        let said = failure(args, 2);
        assert!(said.starts_with("error: ") && said.contains(expected), "{args:?}: {said}");
    }
}

#[test]
fn when_the_machine_or_the_configuration_has_not_what_is_asked_for_then_the_exit_code_is_2() {
    for (args, expected) in [
        (&["bench", "pipeline", "-p", "4096"][..], "4096 cores"),
        (&["bench", "pipeline", "--cores", "4095", "--records", "1k", "--runs", "1"], "core 4095"),
        (&["bench", "exchange", "--cores", "0"], "2 cores are needed"),
        (&["nexmark", "run", "--cores", "4095"], "core 4095"),
        (&["nexmark", "run", "-D", "pipeline.max-parallelism=40000"], "pipeline.max-parallelism"),
        (&["nexmark", "run", "-D", "pipeline.max-parallelism=0"], "pipeline.max-parallelism"),
        (&["nexmark", "run", "-p", "1", "-D", "state.backend.type=rocksdb"], "rocksdb"),
        (&["nexmark", "run", "-p", "1", "-D", "execution.checkpointing.dir=s3://bucket/c"], "s3://bucket/c"),
    ] {
        let said = failure(args, 2);
        assert!(
            said.starts_with("error: ") && said.contains(expected) && !said.contains("panicked"),
            "{args:?}: {said}"
        );
    }
}

#[test]
fn when_memory_for_the_keys_cannot_be_had_then_the_message_says_what_to_lower() {
    // So much address space that the process runs, and not that of a billion rows.
    let script = format!(
        "ulimit -v 8000000; exec {} bench keyed-count --keys 1G --records 1k -p 1 --runs 1",
        env!("CARGO_BIN_EXE_thalweg")
    );
    let output = Command::new("sh").args(["-c", &script]).env_remove("RUST_LOG").output().expect("a shell");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("32.0 GiB for 1,000,000,000 keys") && said.contains("lower --keys"), "{said}");
}

#[test]
fn when_a_steady_load_has_so_many_records_then_its_object_counts_them_beside_its_rate() {
    let output = thalweg(&[
        "bench",
        "keyed-count",
        "--keys",
        "10",
        "--records",
        "500",
        "--rate",
        "1k",
        "-p",
        "1",
        "--runs",
        "1",
        "--spin",
        "0",
        "--format",
        "json",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let object: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
    assert_eq!((&object["records"], &object["limit_records_per_s"]), (&500.into(), &1_000.0.into()), "{object}");
    assert!(object["ratio"].as_f64().is_some_and(|ratio| ratio > 0.0 && ratio < 1.1), "{object}");
}

#[test]
fn when_a_savepoint_is_disposed_of_that_is_none_then_nothing_is_removed_and_the_message_names_it() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("precious"), "kept").expect("written");
    let path = dir.path().display().to_string();
    let said = failure(&["savepoint", "dispose", &path], 1);
    assert!(said.contains(&path), "{said}");
    assert!(dir.path().join("precious").exists());
}
