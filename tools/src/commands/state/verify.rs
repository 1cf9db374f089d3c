//! `thalweg state verify`: whether a checkpoint is sound, to the last byte.

use std::{ops::ControlFlow, path::Path};

use serde::Serialize;
use thalweg_io::checkpoint::{BadFile, Depth, LocalDisk, METADATA_NAME, verify};

use super::{
    checkpoint::{Checkpoint, places},
    entries::{ALL_GROUPS, for_each_of},
    error::StateError,
    json::entry_json,
    json_line,
    text::{bytes, counted},
};
use crate::{commands::print, error::CliError, state_cli::VerifyArgs};

#[derive(Serialize)]
struct Verified {
    path: String,
    /// Without `_metadata` it is no checkpoint, and neither sound nor damaged.
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    sound: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    files: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<Damage>,
}

#[derive(Serialize)]
struct Damage {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    what: String,
}

/// Checks the checkpoints, and says of each whether it is sound.
pub fn run(args: &VerifyArgs) -> Result<(), CliError> {
    let mut damaged = 0;
    let places = places(&args.path)?;
    if places.whole.is_empty() && places.incomplete.is_empty() {
        return Err(StateError::NoCheckpoint(args.path.clone()).into());
    }
    for dir in places.whole {
        let path = dir.display().to_string();
        let outcome = check(&dir);
        damaged += usize::from(outcome.is_err());
        if args.json {
            print(&json_line(&report(path, outcome))?)?;
            continue;
        }
        match outcome {
            Ok(checkpoint) => {
                let files = counted(checkpoint.metadata.files.len() as u64, "file");
                print(&format!("{path}: sound, {files}, {}\n", bytes(checkpoint.file_bytes())))?;
            }
            Err(error) => print(&format!("{path}: damaged: {error}\n"))?,
        }
    }
    for dir in places.incomplete {
        let path = dir.display().to_string();
        let line = match args.json {
            true => json_line(&Verified {
                path,
                complete: false,
                sound: None,
                files: None,
                file_bytes: None,
                damage: None,
            })?,
            false => format!("{path}: not complete: no checkpoint\n"),
        };
        print(&line)?;
    }
    if damaged > 0 { Err(StateError::Damaged(damaged).into()) } else { Ok(()) }
}

/// Reads everything: files with all their checksums, and what they hold as the states say.
fn check(dir: &Path) -> Result<Checkpoint, StateError> {
    verify(&LocalDisk, dir, Depth::Checksums)?;
    let checkpoint = Checkpoint::read(dir)?;
    let operators = checkpoint.operators(None)?;
    for state in checkpoint.states(&operators, None)? {
        let place = || checkpoint.place(&state, state.subtasks[0].0, None);
        if let Err(error) = &state.schema {
            return Err(StateError::Value(error.to_string()).at(place));
        }
        // Every subtask's, as all must be restored.
        for (_, named) in &state.subtasks {
            if named.schema != state.subtasks[0].1.schema {
                return Err(StateError::Value("its subtasks were stored with different types".to_owned()).at(place));
            }
        }
        for_each_of(&checkpoint, &state, &state.subtasks, ALL_GROUPS, |found| {
            entry_json(&state, &found)?;
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(checkpoint)
}

fn report(path: String, outcome: Result<Checkpoint, StateError>) -> Verified {
    let damage = match &outcome {
        Ok(_) => None,
        Err(StateError::Bad(bad)) => Some(damage_of(bad)),
        Err(error) => {
            let file = Path::new(&path).join(METADATA_NAME).display().to_string();
            Some(Damage { file, offset: None, what: error.to_string() })
        }
    };
    let checkpoint = outcome.ok();
    let files = checkpoint.as_ref().map(|checkpoint| checkpoint.metadata.files.len());
    let file_bytes = checkpoint.as_ref().map(Checkpoint::file_bytes);
    Verified { path, complete: true, sound: Some(damage.is_none()), files, file_bytes, damage }
}

fn damage_of(bad: &BadFile) -> Damage {
    Damage { file: bad.path.display().to_string(), offset: Some(bad.offset), what: bad.to_string() }
}
