//! `thalweg bench`: workloads beside what the machine does without an engine.

use std::io::Write as _;
use std::time::Duration;

use thalweg_benches::checkpoint::{self as checkpoint_bench, CheckpointBench, What};
use thalweg_benches::limits::pinned::available_cores;
use thalweg_benches::report::{Format, WorkloadReport, render};
use thalweg_benches::workloads::buffer_timeout::{self, BufferTimeouts};
use thalweg_benches::workloads::crash::{Crash, CrashReport};
use thalweg_benches::workloads::exchange::{self, Exchange};
use thalweg_benches::workloads::job::JobSettings;
use thalweg_benches::workloads::keyed_count::{self, KeyedCount};
use thalweg_benches::workloads::open_loop::{self, Length, OpenLoop};
use thalweg_benches::workloads::pipeline::{self, Pipeline};

use crate::bench_cli::{
    BenchCommand, BufferTimeoutArgs, CheckpointArgs, CheckpointWhat, CommonArgs, CrashArgs, KeyedCountArgs, PlainArgs,
};
use crate::error::CliError;

/// Records of a run at full speed unless told otherwise.
const DEFAULT_RECORDS: u64 = 50_000_000;
/// How long a run at a steady rate is recorded unless told otherwise.
const DEFAULT_TIME: Duration = Duration::from_secs(10);

/// Runs a bench and prints what came of it.
pub fn run(command: &BenchCommand) -> Result<(), CliError> {
    let (name, common) = match command {
        BenchCommand::KeyedCount(args) => ("bench keyed-count", &args.common),
        BenchCommand::BufferTimeout(args) => ("bench buffer-timeout", &args.common),
        BenchCommand::Pipeline(args) => ("bench pipeline", &args.common),
        BenchCommand::Exchange(args) => ("bench exchange", &args.common),
        BenchCommand::Crash(args) => return crash(args),
        BenchCommand::Checkpoint(args) => ("bench checkpoint", &args.common),
    };
    let settings = JobSettings::new(common.engine.unserved_options(name)?)?;
    let _server = common.engine.serve_metrics(&settings.metrics).map_err(CliError::Metrics)?;
    match command {
        BenchCommand::KeyedCount(args) => match args.rate {
            Some(rate) => steady(args, rate, settings),
            None => keyed_count(args, settings),
        },
        BenchCommand::Pipeline(args) => pipeline(args, settings),
        BenchCommand::Exchange(args) => exchange(args, settings),
        BenchCommand::BufferTimeout(args) => buffer_timeout(args, settings),
        BenchCommand::Crash(_) => unreachable!("it has no runs to be repeated, and was run above"),
        BenchCommand::Checkpoint(args) => checkpoint(args, settings),
    }
}

fn crash(args: &CrashArgs) -> Result<(), CliError> {
    let mut engine = args.engine.options()?;
    let cores = if engine.cores.is_empty() { available_cores().len() } else { engine.cores.len() };
    // It is started at any parallelism on any machine, and measures nothing.
    engine.oversubscribe |= engine.parallelism.is_some_and(|parallelism| parallelism as usize > cores);
    let settings = JobSettings::new(engine)?;
    let _server = args.engine.serve_metrics(&settings.metrics).map_err(CliError::Metrics)?;
    let crash = Crash {
        events: args.events,
        seed: args.seed,
        records_per_s: args.rate,
        work: Duration::from_micros(args.work),
        checkpoint_dir: args.checkpoint_dir.clone(),
        output: args.output.clone(),
        roll_bytes: args.roll_bytes,
        interval: args.interval.map(|ms| Duration::from_millis(ms.into())),
        unaligned: args.unaligned,
        restore: args.restore.clone(),
        settings,
    };
    let text = match crash.run()? {
        CrashReport::Finished { rows, files, had_finished } => {
            let again = if had_finished { "; it had finished before, and was not run again" } else { "" };
            format!("crash: {rows} rows in {files} files, as expected{again}\n")
        }
        CrashReport::Stopped { savepoint } => {
            let path = savepoint.display();
            format!("crash: stopped with a savepoint: go on from it with --restore {path}\n")
        }
    };
    std::io::stdout().write_all(text.as_bytes()).map_err(CliError::Output)
}

fn keyed_count(args: &KeyedCountArgs, settings: JobSettings) -> Result<(), CliError> {
    let bench = KeyedCount { keys: args.keys, records: args.records.unwrap_or(DEFAULT_RECORDS), settings };
    let done = bench.measure(args.common.runs.into(), say)?;
    print(&args.common, keyed_count::MEASURED, &done.pairs.table(), &[done.report])
}

fn steady(args: &KeyedCountArgs, rate: f64, settings: JobSettings) -> Result<(), CliError> {
    let time = Length::Time(args.seconds.unwrap_or(DEFAULT_TIME));
    let length = args.records.map_or(time, Length::Records);
    let load = OpenLoop { keys: args.keys, records_per_s: rate, length };
    // Unless one way of waiting was asked for, both are shown.
    let ways: &[(&str, Option<u64>)] = match settings.engine.spin_us {
        Some(_) => &[("keyed-count", None)],
        None => &[("keyed-count", Some(open_loop::ALWAYS_SPIN_US)), ("keyed-count no spin", Some(0))],
    };
    let (mut runs, mut reports) = (String::new(), Vec::new());
    for &(name, spin_us) in ways {
        let mut settings = settings.clone();
        settings.engine.spin_us = spin_us.or(settings.engine.spin_us);
        let done = load.measure(name, &settings, args.common.runs.into(), say)?;
        runs += &format!("{name}\n{}", done.table());
        reports.push(done.report);
    }
    print(&args.common, open_loop::MEASURED, &runs, &reports)
}

fn buffer_timeout(args: &BufferTimeoutArgs, settings: JobSettings) -> Result<(), CliError> {
    let full = KeyedCount { keys: args.keys, records: args.records, settings };
    let steady = OpenLoop { keys: args.keys, records_per_s: args.rate, length: Length::Time(args.seconds) };
    let reports = BufferTimeouts { full, steady }.measure(args.common.runs.into(), say)?;
    print(&args.common, buffer_timeout::MEASURED, "", &reports)
}

fn pipeline(args: &PlainArgs, settings: JobSettings) -> Result<(), CliError> {
    let bench = Pipeline { records: args.records, settings };
    let done = bench.measure(args.common.runs.into(), say)?;
    print(&args.common, pipeline::MEASURED, &done.pairs.table(), &[done.report])
}

fn exchange(args: &PlainArgs, settings: JobSettings) -> Result<(), CliError> {
    let bench = Exchange { records: args.records, settings };
    let done = bench.measure(args.common.runs.into(), say)?;
    print(&args.common, exchange::MEASURED, &done.table(), std::slice::from_ref(&done.report))
}

fn checkpoint(args: &CheckpointArgs, settings: JobSettings) -> Result<(), CliError> {
    let bench = CheckpointBench {
        settings,
        state_bytes: args.state,
        count_keys: args.keys,
        records: args.records,
        records_per_s: args.rate,
        duration: args.seconds,
        interval: args.interval,
        runs: args.common.runs.into(),
        dir: args.checkpoint_dir.clone(),
    };
    let what: Vec<What> = match args.what.is_empty() {
        true => What::ALL.to_vec(),
        false => args.what.iter().map(|&what| of_what(what)).collect(),
    };
    let reports = bench.measure(&what, say)?;
    let text = |report: &WorkloadReport| {
        let text = report
            .checkpoint
            .as_ref()
            .map(|checkpoint| checkpoint.text(report.latency_us.as_ref(), report.probe_latency_us.as_ref()));
        format!("{}\n{}\n", report.workload, text.unwrap_or_default())
    };
    let runs: String = reports.iter().map(text).collect();
    print(&args.common, checkpoint_bench::MEASURED, &runs, &reports)
}

fn of_what(what: CheckpointWhat) -> What {
    match what {
        CheckpointWhat::Latency => What::Latency,
        CheckpointWhat::Throughput => What::Throughput,
        CheckpointWhat::Writer => What::Writer,
        CheckpointWhat::Incremental => What::Incremental,
        CheckpointWhat::Unaligned => What::Unaligned,
        CheckpointWhat::Restore => What::Restore,
    }
}

/// Progress.
fn say(line: &str) {
    eprintln!("{line}");
}

/// Prints the reports, and tells of those whose result is not that of the limit.
fn print(common: &CommonArgs, measured: &str, runs: &str, reports: &[WorkloadReport]) -> Result<(), CliError> {
    let format = common.format;
    let mut text = render(reports, format);
    if format == Format::Table {
        text = format!("{measured}\n\n{runs}\n{text}");
    }
    std::io::stdout().write_all(text.as_bytes()).map_err(CliError::Output)?;
    let wrong = reports.iter().filter(|report| report.verified == Some(false));
    let wrong: Vec<String> = wrong.map(|report| report.workload.clone()).collect();
    if wrong.is_empty() { Ok(()) } else { Err(CliError::Wrong(wrong)) }
}
