//! `thalweg state`: looks into checkpoints and savepoints, without the code of the job that took them.
//!
//! Reads only: nothing here ever writes to storage.

mod checkpoint;
mod diff;
mod entries;
pub mod error;
mod get;
mod json;
mod ls;
mod show;
mod text;
mod verify;

use serde::Serialize;

use crate::{error::CliError, state_cli::StateCommand};

use error::StateError;

/// Runs a subcommand.
pub fn run(command: &StateCommand) -> Result<(), CliError> {
    match command {
        StateCommand::Ls(args) => ls::run(args),
        StateCommand::Show(args) => show::run(args),
        StateCommand::Get(args) => get::run(args),
        StateCommand::Diff(args) => diff::run(args),
        StateCommand::Verify(args) => verify::run(args),
    }
}

/// One line of JSON.
fn json_line(value: &impl Serialize) -> Result<String, StateError> {
    let text = serde_json::to_string(value);
    text.map(|text| text + "\n").map_err(|error| StateError::Value(error.to_string()))
}
