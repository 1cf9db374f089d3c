//! `thalweg state show`: what a checkpoint holds.

use std::{collections::BTreeMap, fmt::Write as _, ops::ControlFlow};

use serde::Serialize;
use thalweg_io::checkpoint::{FileRef, GroupSpan, OperatorState};

use super::{
    checkpoint::{Checkpoint, State, bytes_of, operator_bytes, title},
    entries::{ALL_GROUPS, Found, for_each},
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
    #[serde(skip_serializing_if = "Option::is_none")]
    key_groups: Option<Vec<Group>>,
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
    /// Key groups that are stored together, removals and replaced rows included.
    spans: Vec<Span>,
    /// What there is of each key group, increments applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_groups: Option<Vec<Group>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<Vec<EntryJson>>,
    #[serde(skip)]
    spelled: Vec<(&'static str, String)>,
}

/// Rows and bytes of key groups that are stored together.
#[derive(Serialize)]
struct Span {
    first: u16,
    last: u16,
    rows: u64,
    bytes: u64,
}

/// Keys of a key group, and bytes of them and of what belongs to them.
#[derive(Serialize)]
struct Group {
    group: u16,
    keys: u64,
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
                let key_groups = args.key_groups.then(|| groups(checkpoint, state)).transpose()?;
                Ok(StateShown { entries, key_groups, ..state_shown(state) })
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
    let groups: Vec<&[Group]> = states.iter().filter_map(|state| state.key_groups.as_deref()).collect();
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
        key_groups: (!groups.is_empty()).then(|| sum(groups.into_iter().flatten())),
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
        spans: spans(parts().flat_map(|part| &part.groups)),
        key_groups: None,
        entries: None,
        spelled: types.iter().map(|(name, schema)| (*name, spelled(schema))).collect(),
    }
}

/// Spans of key groups, those of the same groups together.
fn spans<'g>(spans: impl Iterator<Item = &'g GroupSpan>) -> Vec<Span> {
    let mut sums: BTreeMap<(u16, u16), Span> = BTreeMap::new();
    for span in spans {
        let (first, last) = (span.first, span.last);
        let sum = sums.entry((first, last)).or_insert(Span { first, last, rows: 0, bytes: 0 });
        sum.rows += span.rows;
        sum.bytes += span.bytes;
    }
    sums.into_values().collect()
}

/// What there is of each key group of a state: reads all of it.
fn groups(checkpoint: &Checkpoint, state: &State<'_>) -> Result<Vec<Group>, StateError> {
    let mut sums = BTreeMap::new();
    for_each(checkpoint, state, ALL_GROUPS, |found| {
        if let Found::Entry(entry) = found {
            let group = entry.group.0;
            let sum = sums.entry(group).or_insert(Group { group, keys: 0, bytes: 0 });
            sum.keys += 1;
            sum.bytes += entry.bytes();
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(sums.into_values().collect())
}

/// The same groups of several states together.
fn sum<'g>(groups: impl Iterator<Item = &'g Group>) -> Vec<Group> {
    let mut sums = BTreeMap::new();
    for Group { group, keys, bytes } in groups {
        let sum = sums.entry(*group).or_insert(Group { group: *group, keys: 0, bytes: 0 });
        sum.keys += keys;
        sum.bytes += bytes;
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
        print(&operator_written(&operator_shown(operator, Vec::new())))?;
        let mut all_groups = Vec::new();
        for state in own {
            print(&state_written(&state_shown(state)))?;
            if args.key_groups && state.is_keyed() {
                let groups = groups(checkpoint, state)?;
                print(&groups_written(&groups))?;
                all_groups.extend(groups);
            }
            if args.entries.entries {
                print_entries(checkpoint, state, &args.entries)?;
            }
        }
        if !all_groups.is_empty() {
            print(&format!("  all states\n{}", groups_written(&sum(all_groups.iter()))))?;
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

fn state_written(state: &StateShown) -> String {
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
    text
}

fn groups_written(groups: &[Group]) -> String {
    let row = |Group { group, keys, bytes: own }: &Group| {
        vec![format!("    key group {group}"), counted(*keys, "key"), bytes(*own)]
    };
    columns(&groups.iter().map(row).collect::<Vec<_>>())
}

/// What an operator is called where states of several are shown.
pub fn heading(operator: &OperatorState) -> String {
    let title = title(operator);
    if operator.name.is_empty() || operator.name == title { title } else { format!("{title} ({})", operator.name) }
}
