//! The command line: every subcommand and flag with its explanation.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use thalweg_benches::nexmark::Query;
use thalweg_benches::report::Format;

use crate::bench_cli::BenchCommand;
use crate::engine_args::EngineArgs;
use crate::job_cli::{CancelArgs, ListArgs, StopArgs, TriggerArgs};
use crate::numbers::{count, rate};
use crate::state_cli::StateCommand;

/// Seed that `run` and `generate` share, so that both show the same events unless told otherwise.
pub const DEFAULT_SEED: &str = "1";

/// Thalweg: a stateful stream-processing engine, one pinned slot per core.
#[derive(Debug, Parser)]
#[command(
    name = "thalweg",
    version,
    about,
    after_help = "Examples:\n  \
                  thalweg nexmark run\n  \
                  thalweg nexmark run --query q5 -p 2 --format json\n  \
                  thalweg nexmark generate --events 1M --seed 7 --out events.ndjson\n  \
                  thalweg bench keyed-count --keys 1M -p 2\n  \
                  thalweg state ls /var/lib/checkpoints\n  \
                  thalweg stop JOB_ID --target /var/lib/savepoints\n\n\
                  Results go to standard output, progress and messages to standard error.\n\
                  Exit codes: 0 done, 1 failed, 2 wrong command line or configuration, 130 cancelled by a signal."
)]
pub struct Cli {
    /// Say more on standard error: -v what happens, -vv details.
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Nexmark: queries over the events of an auction house.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Nexmark {
        /// What to do with it.
        #[command(subcommand)]
        command: NexmarkCommand,
    },
    /// Workloads beside what the machine does without an engine.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Bench {
        /// What to measure.
        #[command(subcommand)]
        command: BenchCommand,
    },
    /// Look into checkpoints and savepoints, without the code of their job.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    State {
        /// What to do with them.
        #[command(subcommand)]
        command: StateCommand,
    },
    /// Savepoints: take them of running jobs, remove those that are not needed any more.
    #[command(subcommand_required = true, arg_required_else_help = true)]
    Savepoint {
        /// What to do with it.
        #[command(subcommand)]
        command: SavepointCommand,
    },
    /// List the jobs that run in a process.
    #[command(after_help = "The process must have been started with --rest-port (or rest.port).\n\n\
                      Examples:\n  \
                      thalweg list\n  \
                      thalweg list --rest 127.0.0.1:8082")]
    List(ListArgs),
    /// Stop a job with a savepoint, from which it can go on; prints where that lies.
    #[command(
        after_help = "Waits until the savepoint is complete and all tasks have ended. If it fails the job goes on.\n\n\
                      Examples:\n  \
                      thalweg stop 63ab12c0ffee00000000000000000001\n  \
                      thalweg stop 63ab12c0ffee00000000000000000001 --target savepoints --drain"
    )]
    Stop(StopArgs),
    /// Cancel a job: its tasks end without finishing their input, and nothing is saved.
    #[command(after_help = "Example:\n  thalweg cancel 63ab12c0ffee00000000000000000001 --rest 127.0.0.1:8082")]
    Cancel(CancelArgs),
}

/// What to do with a savepoint.
#[derive(Debug, Subcommand)]
pub enum SavepointCommand {
    /// Take a savepoint of a running job, which goes on; prints where it lies.
    #[command(
        after_help = "Waits until the savepoint is complete. The job's process must have been started with --rest-port (or \
                      rest.port).\n\n\
                      Examples:\n  \
                      thalweg savepoint trigger 63ab12c0ffee00000000000000000001 --target savepoints\n  \
                      thalweg savepoint trigger 63ab12c0ffee00000000000000000001 --rest 127.0.0.1:8082"
    )]
    Trigger(TriggerArgs),
    /// Remove a savepoint. Checkpoints belong to their jobs and are refused, and so is a savepoint that a running job may
    /// yet restore from.
    #[command(after_help = "Example:\n  thalweg savepoint dispose savepoint-63ab12-0123456789ab")]
    Dispose {
        /// Its directory, or the `_metadata` in it.
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
}

/// What to do with Nexmark.
#[derive(Debug, Subcommand)]
pub enum NexmarkCommand {
    /// Run queries and check their results against a reference evaluation.
    #[command(
        after_help = "Per query: events a second, in all and per core; latency percentiles with --rate; memory; \
                            whether the result is that of the reference evaluation in this program.\n\n\
                            Examples:\n  \
                            thalweg nexmark run\n  \
                            thalweg nexmark run --query q5 --query q7 --events 10M -p 2\n  \
                            thalweg nexmark run --query q0 --rate 500k --format json\n  \
                            thalweg nexmark run -D taskmanager.memory.segment-size=16kb\n  \
                            thalweg nexmark run --query q8 --input events.ndjson --output results"
    )]
    Run(RunArgs),
    /// Measure what a shorter slide costs: q5 with a slide of a half and of a hundredth of its window.
    #[command(after_help = "Both run by turns; the medians count. Example:\n  thalweg nexmark slide -p 1")]
    Slide(SlideArgs),
    /// Write the events to a file, one JSON object a line, to check results with a tool of your own.
    #[command(after_help = "Event n depends on the seed and n alone: a longer file begins with a shorter one.\n\n\
                            Examples:\n  \
                            thalweg nexmark generate --events 100k --out events.ndjson\n  \
                            thalweg nexmark generate --events 10 --seed 7 --out -")]
    Generate(GenerateArgs),
    /// List the queries, what they ask and the fields of their results.
    List,
}

/// Flags of `thalweg nexmark generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// How many events: 1000000, 1_000_000, 1M.
    #[arg(long, value_name = "N", value_parser = count)]
    pub events: u64,
    /// Which sequence of events.
    #[arg(long, value_name = "S", default_value = DEFAULT_SEED)]
    pub seed: u64,
    /// Where to write them; - for standard output.
    #[arg(long, value_name = "EVENTS.ndjson")]
    pub out: PathBuf,
}

/// Flags of `thalweg nexmark run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A query, such as q5; repeat for several. Without it, all there are.
    #[arg(long = "query", value_name = "Q")]
    pub queries: Vec<Query>,
    /// How many events: 10000000, 10_000_000, 10M [default: 2M, with --rate ten seconds' worth; with --input, all].
    #[arg(long, value_name = "N", value_parser = count)]
    pub events: Option<u64>,
    /// Which sequence of events.
    #[arg(long, value_name = "S", default_value = DEFAULT_SEED)]
    pub seed: u64,
    /// Events a second in all, on schedule, and their latency; without it, as fast as it goes.
    #[arg(long, value_name = "R", value_parser = rate)]
    pub rate: Option<f64>,
    /// Read the events from a file in place of generating them.
    #[arg(long, value_name = "EVENTS.ndjson")]
    pub input: Option<PathBuf>,
    /// Write each query's rows to DIR/qN.ndjson or DIR/qN/*.ndjson, emptied first.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// How to print the results.
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = format)]
    pub format: Format,
    /// How the engine runs.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Flags of `thalweg nexmark slide`.
#[derive(Debug, Args)]
pub struct SlideArgs {
    /// How many events: 10000000, 10_000_000, 10M.
    #[arg(long, value_name = "N", default_value = "3M", value_parser = count)]
    pub events: u64,
    /// Runs of each.
    #[arg(long, value_name = "N", default_value = "5")]
    pub runs: u8,
    /// How to print the results.
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = format)]
    pub format: Format,
    /// How the engine runs.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Reads a format.
pub fn format(text: &str) -> Result<Format, String> {
    match text {
        "table" => Ok(Format::Table),
        "json" => Ok(Format::Json),
        _ => Err("write table or json".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn when_built_then_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
