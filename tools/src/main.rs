//! The `thalweg` command: reads the command line, runs one subcommand, turns its outcome into messages and an exit code.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 failed, 2 wrong command line
//! or configuration, 130 a job that a signal has cancelled.

mod bench_cli;
mod cli;
mod commands;
mod engine_args;
mod error;
mod job_cli;
mod numbers;
mod rest_client;
mod state_cli;

use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command, NexmarkCommand};

fn main() -> ExitCode {
    let cli = Cli::parse();
    init_log(cli.verbose);
    let outcome = match cli.command {
        Command::Bench { command } => commands::bench::run(&command),
        Command::State { command } => commands::state::run(&command),
        Command::Savepoint { command } => commands::savepoint::run(&command),
        Command::List(args) => commands::job::list(&args),
        Command::Stop(args) => commands::job::stop(&args),
        Command::Cancel(args) => commands::job::cancel(&args),
        Command::Nexmark { command: NexmarkCommand::Run(args) } => commands::nexmark_run::run(args),
        Command::Nexmark { command: NexmarkCommand::Slide(args) } => commands::nexmark_slide::run(&args),
        Command::Nexmark { command: NexmarkCommand::Generate(args) } => commands::nexmark_generate::run(&args),
        Command::Nexmark { command: NexmarkCommand::List } => commands::nexmark_list::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough: `thalweg nexmark list | head -1`.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.code())
        }
    }
}

/// Log lines on standard error: warnings, with `-v` what happens, with `-vv` details; `RUST_LOG` overrides.
fn init_log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
