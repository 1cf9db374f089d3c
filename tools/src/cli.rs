//! The command line: every subcommand and flag with its explanation.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::numbers::count;

/// Seed that `run` and `generate` share, so that both show the same events unless told otherwise.
pub const DEFAULT_SEED: &str = "1";

/// Thalweg: a stateful stream-processing engine, one pinned slot per core.
#[derive(Debug, Parser)]
#[command(
    name = "thalweg",
    version,
    about,
    after_help = "Examples:\n  \
                  thalweg nexmark list\n  \
                  thalweg nexmark generate --events 1M --seed 7 --out events.ndjson\n\n\
                  Results go to standard output, progress and messages to standard error.\n\
                  Exit codes: 0 done, 1 failed, 2 wrong command line."
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
}

/// What to do with Nexmark.
#[derive(Debug, Subcommand)]
pub enum NexmarkCommand {
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn when_built_then_the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
