//! `thalweg savepoint`: what is done with savepoints besides looking into them.

use std::path::Path;

use crate::{
    cli::SavepointCommand,
    commands::{job, print},
    error::CliError,
};

/// Runs a subcommand.
pub fn run(command: &SavepointCommand) -> Result<(), CliError> {
    match command {
        SavepointCommand::Trigger(args) => job::trigger_savepoint(args),
        SavepointCommand::Dispose { path } => dispose(path),
    }
}

fn dispose(path: &Path) -> Result<(), CliError> {
    thalweg::checkpoint::dispose_savepoint(path).map_err(CliError::Dispose)?;
    print(&format!("{}: disposed of\n", path.display()))
}
