//! `thalweg state ls`: what checkpoints there are.

use serde::Serialize;

use super::{
    checkpoint::{Checkpoint, find},
    json_line,
    text::{bytes, columns},
};
use crate::{commands::print, error::CliError, state_cli::LsArgs};

#[derive(Serialize)]
struct Listed {
    path: String,
    #[serde(flatten)]
    what: What,
}

#[derive(Serialize)]
#[serde(untagged)]
enum What {
    Checkpoint {
        checkpoint: u64,
        kind: &'static str,
        timestamp_ms: i64,
        time: String,
        job: String,
        job_name: String,
        operators: usize,
        state_bytes: u64,
        files: usize,
        file_bytes: u64,
    },
    Damaged {
        error: String,
    },
}

/// Prints the list.
pub fn run(args: &LsArgs) -> Result<(), CliError> {
    let mut listed = Vec::new();
    for path in &args.paths {
        for dir in find(path)? {
            let what = match Checkpoint::read(&dir) {
                Ok(checkpoint) => describe(&checkpoint),
                Err(error) => What::Damaged { error: error.to_string() },
            };
            listed.push(Listed { path: dir.display().to_string(), what });
        }
    }
    print(&if args.json { json_line(&listed)? } else { table(&listed) })
}

fn describe(checkpoint: &Checkpoint) -> What {
    let metadata = &checkpoint.metadata;
    What::Checkpoint {
        checkpoint: metadata.checkpoint.0,
        kind: checkpoint.kind(),
        timestamp_ms: metadata.timestamp_ms,
        time: checkpoint.time(),
        job: metadata.job.to_string(),
        job_name: metadata.job_name.clone(),
        operators: metadata.operators.len(),
        state_bytes: checkpoint.state_bytes(),
        files: metadata.files.len(),
        file_bytes: checkpoint.file_bytes(),
    }
}

fn table(listed: &[Listed]) -> String {
    let titles = ["checkpoint", "kind", "time", "job", "operators", "state", "files", "path"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    let mut damaged = String::new();
    for Listed { path, what } in listed {
        match what {
            What::Checkpoint {
                checkpoint, kind, time, job_name, operators, state_bytes, files, file_bytes, ..
            } => {
                rows.push(vec![
                    checkpoint.to_string(),
                    (*kind).to_owned(),
                    time.clone(),
                    job_name.clone(),
                    operators.to_string(),
                    bytes(*state_bytes),
                    format!("{files} ({})", bytes(*file_bytes)),
                    path.clone(),
                ]);
            }
            What::Damaged { error } => damaged += &format!("not usable: {error}\n"),
        }
    }
    let table = if rows.len() > 1 { columns(&rows) } else { String::new() };
    table + &damaged
}
