//! `thalweg state show`: what a checkpoint holds.

use std::{collections::BTreeMap, fmt::Write as _, ops::ControlFlow};

use serde::Serialize;
use thalweg_io::checkpoint::{FileRef, GroupSpan, OperatorState};

use super::{
    checkpoint::{Checkpoint, State, bytes_of, operator_bytes, title},
    entries::{ALL_GROUPS, for_each},
    error::StateError,
    json::{EntryJson, entry_json},
    json_line,
    text::{TypeJson, bytes, columns, counted, spelled},
};
use crate::{
    commands::print,
    error::CliError,
    state_cli::{EntryArgs, ShowArgs},
};

/// Text that is printed at once.
const PRINT_BYTES: usize = 64 << 10;

#[derive(Serialize)]
struct Shown {
    path: String,
    checkpoint: u64,
    kind: &'static str,
    timestamp_ms: i64,
    time: String,
    job: String,
    job_name: String,
    max_parallelism: u32,
    properties: Vec<String>,
    files: Vec<File>,
    operators: Vec<Operator>,
}

#[derive(Serialize)]
struct File {
    path: String,
    payload_bytes: u64,
    file_bytes: u64,
}

#[derive(Serialize)]
struct Operator {
    id: String,
    uid: String,
    name: String,
    parallelism: u32,
    max_parallelism: u32,
    finished: bool,
    bytes: u64,
    coordinator_bytes: usize,
    subtasks: Vec<Subtask>,
    states: Vec<StateShown>,
    key_groups: Vec<Group>,
}

#[derive(Serialize)]
struct Subtask {
    index: u32,
    finished: bool,
    bytes: u64,
}

#[derive(Serialize)]
struct StateShown {
    name: String,
    kind: &'static str,
    /// Of key, user key and value or element.
    types: BTreeMap<&'static str, TypeJson>,
    fingerprint: Option<String>,
    schema_error: Option<String>,
    rows: u64,
    bytes: u64,
    increments: u32,
    key_groups: Vec<Group>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<Vec<EntryJson>>,
    #[serde(skip)]
    spelled: Vec<(&'static str, String)>,
}

/// Rows and bytes of key groups that are stored together.
#[derive(Clone, Serialize)]
struct Group {
    first: u16,
    last: u16,
    rows: u64,
    bytes: u64,
}

/// Prints what the checkpoints hold.
pub fn run(args: &ShowArgs) -> Result<(), CliError> {
    let checkpoints = args.paths.iter().map(|path| Checkpoint::open(path)).collect::<Result<Vec<_>, _>>()?;
    if !args.json {
        for (n, checkpoint) in checkpoints.iter().enumerate() {
            print(if n > 0 { "\n" } else { "" })?;
            write_text(checkpoint, args)?;
        }
        return Ok(());
    }
    let mut all = Vec::new();
    for checkpoint in &checkpoints {
        let operators = checkpoint.operators(args.selection.operator.as_deref())?;
        // Checked for all operators together; each of them need not have it.
        let states = checkpoint.states(&operators, args.selection.state.as_deref())?;
        let mut shown = shown(checkpoint);
        for operator in operators {
            let own = states.iter().filter(|state| std::ptr::eq(state.operator, operator));
            let own = own.map(|state| {
                let entries = args.entries.entries.then(|| entries(checkpoint, state, &args.entries)).transpose()?;
                Ok(StateShown { entries, ..state_shown(state) })
            });
            shown.operators.push(operator_shown(operator, own.collect::<Result<_, StateError>>()?));
        }
        all.push(shown);
    }
    print(&match &all[..] {
        [one] => json_line(one)?,
        all => json_line(&all)?,
    })
}

/// What a checkpoint says of itself, without its operators.
fn shown(checkpoint: &Checkpoint) -> Shown {
    let metadata = &checkpoint.metadata;
    let file = |file: &FileRef| File {
        path: file.path.clone(),
        payload_bytes: file.written.payload_bytes,
        file_bytes: file.written.file_bytes,
    };
    Shown {
        path: checkpoint.dir.display().to_string(),
        checkpoint: metadata.checkpoint.0,
        kind: checkpoint.kind(),
        timestamp_ms: metadata.timestamp_ms,
        time: checkpoint.time(),
        job: metadata.job.to_string(),
        job_name: metadata.job_name.clone(),
        max_parallelism: metadata.max_parallelism,
        properties: metadata.properties.iter().map(|(name, _)| name.clone()).collect(),
        files: metadata.files.iter().map(file).collect(),
        operators: Vec::new(),
    }
}

fn operator_shown(operator: &OperatorState, states: Vec<StateShown>) -> Operator {
    let spans = operator.subtasks.iter().flat_map(|subtask| &subtask.states).flat_map(|state| &state.parts);
    Operator {
        id: operator.id.to_string(),
        uid: operator.uid.clone(),
        name: operator.name.clone(),
        parallelism: operator.parallelism,
        max_parallelism: operator.max_parallelism,
        finished: operator.finished,
        bytes: operator_bytes(operator),
        coordinator_bytes: operator.coordinator.len(),
        subtasks: operator
            .subtasks
            .iter()
            .map(|subtask| Subtask {
                index: subtask.index,
                finished: subtask.finished,
                bytes: subtask.states.iter().map(bytes_of).sum(),
            })
            .collect(),
        key_groups: groups(spans.flat_map(|part| &part.groups)),
        states,
    }
}

fn state_shown(state: &State<'_>) -> StateShown {
    let parts = || state.subtasks.iter().flat_map(|(_, named)| &named.parts);
    let types = state.named_types();
    StateShown {
        name: state.name.to_owned(),
        kind: state.kind_name(),
        types: types.iter().map(|(name, schema)| (*name, TypeJson::of(schema))).collect(),
        fingerprint: state.types().map(|types| format!("{:016x}", types.fingerprint())),
        schema_error: state.schema.as_ref().err().map(ToString::to_string),
        rows: state.rows(),
        bytes: state.bytes(),
        increments: parts().map(|part| part.increment).max().unwrap_or(0),
        key_groups: groups(parts().flat_map(|part| &part.groups)),
        entries: None,
        spelled: types.iter().map(|(name, schema)| (*name, spelled(schema))).collect(),
    }
}

/// Spans of key groups, those of the same groups together.
fn groups<'g>(spans: impl Iterator<Item = &'g GroupSpan>) -> Vec<Group> {
    let mut sums: BTreeMap<(u16, u16), Group> = BTreeMap::new();
    for span in spans {
        let (first, last) = (span.first, span.last);
        let sum = sums.entry((first, last)).or_insert(Group { first, last, rows: 0, bytes: 0 });
        sum.rows += span.rows;
        sum.bytes += span.bytes;
    }
    sums.into_values().collect()
}

/// Hands up to as many entries of a state to `f` as were asked for.
fn each_entry(
    checkpoint: &Checkpoint,
    state: &State<'_>,
    args: &EntryArgs,
    mut f: impl FnMut(EntryJson) -> Result<ControlFlow<()>, StateError>,
) -> Result<(), StateError> {
    let mut count = 0;
    for_each(checkpoint, state, ALL_GROUPS, |found| {
        let flow = f(entry_json(state, &found)?)?;
        count += 1;
        Ok(if count == args.limit { ControlFlow::Break(()) } else { flow })
    })
}

fn entries(checkpoint: &Checkpoint, state: &State<'_>, args: &EntryArgs) -> Result<Vec<EntryJson>, StateError> {
    let mut entries = Vec::new();
    each_entry(checkpoint, state, args, |entry| {
        entries.push(entry);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(entries)
}

/// Prints a checkpoint for people. Entries are printed as they are read, however many there are.
fn write_text(checkpoint: &Checkpoint, args: &ShowArgs) -> Result<(), CliError> {
    let operators = checkpoint.operators(args.selection.operator.as_deref())?;
    let states = checkpoint.states(&operators, args.selection.state.as_deref())?;
    print(&head(&shown(checkpoint)))?;
    for operator in operators {
        let own: Vec<_> = states.iter().filter(|state| std::ptr::eq(state.operator, operator)).collect();
        let described = operator_shown(operator, Vec::new());
        print(&operator_written(&described))?;
        for state in own {
            print(&state_written(&state_shown(state), args.key_groups))?;
            if args.entries.entries {
                print_entries(checkpoint, state, &args.entries)?;
            }
        }
        if args.key_groups && !described.key_groups.is_empty() {
            print(&format!("  all key groups\n{}", groups_written(&described.key_groups)))?;
        }
    }
    Ok(())
}

/// Prints entries, one a line.
fn print_entries(checkpoint: &Checkpoint, state: &State<'_>, args: &EntryArgs) -> Result<(), CliError> {
    let mut out = String::new();
    let mut printed = Ok(());
    each_entry(checkpoint, state, args, |entry| {
        write!(out, "    {}", json_line(&entry)?).expect("writing to a string");
        if out.len() >= PRINT_BYTES {
            printed = print(&out);
            out.clear();
        }
        // Whoever read our output may have seen enough.
        Ok(if printed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    printed?;
    print(&out)
}

fn head(shown: &Shown) -> String {
    let Shown { kind, checkpoint, job_name, job, time, path, max_parallelism, files, .. } = shown;
    let file_bytes = bytes(files.iter().map(|file| file.file_bytes).sum());
    let files = counted(files.len() as u64, "file");
    format!(
        "{kind} {checkpoint} of job {job_name} (id {job}), {time}\n{path}\n\
         maximum parallelism {max_parallelism}, {files} ({file_bytes})\n"
    )
}

fn operator_written(operator: &Operator) -> String {
    let name = if operator.name.is_empty() { &operator.uid } else { &operator.name };
    let uid = if operator.uid.is_empty() { "no uid".to_owned() } else { format!("uid {}", operator.uid) };
    let end = |finished: bool| if finished { ", finished" } else { "" };
    let Operator { id, parallelism, max_parallelism, bytes: all, .. } = operator;
    let mut text = format!(
        "\noperator {name}: {}{}\n  {uid}, id {id}, parallelism {parallelism} of {max_parallelism}\n",
        bytes(*all),
        end(operator.finished)
    );
    if operator.coordinator_bytes > 0 {
        text += &format!("  coordinator: {}\n", bytes(operator.coordinator_bytes as u64));
    }
    for Subtask { index, finished, bytes: own } in &operator.subtasks {
        text += &format!("  subtask {index}: {}{}\n", bytes(*own), end(*finished));
    }
    text
}

fn state_written(state: &StateShown, with_groups: bool) -> String {
    let increments = match state.increments {
        0 => String::new(),
        count => format!(", {}", counted(count.into(), "increment")),
    };
    let (rows, size) = (counted(state.rows, "row"), bytes(state.bytes));
    let mut text = format!("  state {}: {}, {rows}, {size}{increments}\n", state.name, state.kind);
    for (name, spelled) in &state.spelled {
        text += &format!("    {name} {spelled}\n");
    }
    match &state.schema_error {
        Some(error) => text += &format!("    types unknown: {error}\n"),
        None if state.spelled.is_empty() => text += "    types unknown: stored without them\n",
        None => {}
    }
    if with_groups {
        text += &groups_written(&state.key_groups);
    }
    text
}

fn groups_written(groups: &[Group]) -> String {
    let row = |group: &Group| {
        let span = match (group.first, group.last) {
            (first, last) if first == last => format!("    key group {first}"),
            (first, last) => format!("    key groups {first} to {last}"),
        };
        vec![span, counted(group.rows, "row"), bytes(group.bytes)]
    };
    columns(&groups.iter().map(row).collect::<Vec<_>>())
}

/// What an operator is called where states of several are shown.
pub fn heading(operator: &OperatorState) -> String {
    let title = title(operator);
    if operator.name.is_empty() || operator.name == title { title } else { format!("{title} ({})", operator.name) }
}
