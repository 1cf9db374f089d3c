//! `thalweg savepoint`: what is done with savepoints besides looking into them.

use crate::{cli::SavepointCommand, commands::print, error::CliError};

/// Runs a subcommand.
pub fn run(command: &SavepointCommand) -> Result<(), CliError> {
    let SavepointCommand::Dispose { path } = command;
    thalweg::checkpoint::dispose_savepoint(path).map_err(CliError::Dispose)?;
    print(&format!("{}: disposed of\n", path.display()))
}
