//! `thalweg state show`: what a checkpoint holds.

use std::{collections::BTreeMap, fmt::Write as _, ops::ControlFlow};

use serde::Serialize;
use thalweg_io::checkpoint::{GroupSpan, OperatorState};

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
    let mut all = Vec::new();
    for path in &args.paths {
        all.push(shown(&Checkpoint::open(path)?, args)?);
    }
    if !args.json {
        let mut text: Vec<String> = Vec::new();
        for one in &all {
            text.push(written(one, args)?);
        }
        return print(&text.join("\n"));
    }
    print(&match &all[..] {
        [one] => json_line(one)?,
        all => json_line(&all)?,
    })
}

fn shown(checkpoint: &Checkpoint, args: &ShowArgs) -> Result<Shown, StateError> {
    let metadata = &checkpoint.metadata;
    let operators = checkpoint.operators(args.selection.operator.as_deref())?;
    let wanted = args.selection.state.as_deref();
    // Checked for all operators together; each of them need not have it.
    let states = checkpoint.states(&operators, wanted)?;
    let operators = operators.into_iter().map(|operator| {
        let own = states.iter().filter(|state| std::ptr::eq(state.operator, operator));
        let states = own.map(|state| state_shown(checkpoint, state, &args.entries)).collect::<Result<Vec<_>, _>>()?;
        Ok(operator_shown(operator, states))
    });
    Ok(Shown {
        path: checkpoint.dir.display().to_string(),
        checkpoint: metadata.checkpoint.0,
        kind: checkpoint.kind(),
        timestamp_ms: metadata.timestamp_ms,
        time: checkpoint.time(),
        job: metadata.job.to_string(),
        job_name: metadata.job_name.clone(),
        max_parallelism: metadata.max_parallelism,
        properties: metadata.properties.iter().map(|(name, _)| name.clone()).collect(),
        files: metadata
            .files
            .iter()
            .map(|file| File {
                path: file.path.clone(),
                payload_bytes: file.written.payload_bytes,
                file_bytes: file.written.file_bytes,
            })
            .collect(),
        operators: operators.collect::<Result<_, StateError>>()?,
    })
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

fn state_shown(checkpoint: &Checkpoint, state: &State<'_>, args: &EntryArgs) -> Result<StateShown, StateError> {
    let parts = || state.subtasks.iter().flat_map(|(_, named)| &named.parts);
    let types = state.named_types();
    Ok(StateShown {
        name: state.name.to_owned(),
        kind: state.kind_name(),
        types: types.iter().map(|(name, schema)| (*name, TypeJson::of(schema))).collect(),
        fingerprint: state.types().map(|types| format!("{:016x}", types.fingerprint())),
        schema_error: state.schema.as_ref().err().map(ToString::to_string),
        rows: state.rows(),
        bytes: state.bytes(),
        increments: parts().map(|part| part.increment).max().unwrap_or(0),
        key_groups: groups(parts().flat_map(|part| &part.groups)),
        entries: if args.entries { Some(entries(checkpoint, state, args.limit)?) } else { None },
        spelled: types.iter().map(|(name, schema)| (*name, spelled(schema))).collect(),
    })
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

/// Up to so many entries of a state; all, if `limit` is 0.
fn entries(checkpoint: &Checkpoint, state: &State<'_>, limit: u64) -> Result<Vec<EntryJson>, StateError> {
    let mut entries = Vec::new();
    for_each(checkpoint, state, ALL_GROUPS, |found| {
        entries.push(entry_json(state, &found)?);
        let is_full = limit > 0 && entries.len() as u64 >= limit;
        Ok(if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(entries)
}

fn written(shown: &Shown, args: &ShowArgs) -> Result<String, StateError> {
    let file_bytes = shown.files.iter().map(|file| file.file_bytes).sum();
    let mut text = format!(
        "{} {} of job {} (id {}), {}\n{}\nmaximum parallelism {}, {} ({})\n",
        shown.kind,
        shown.checkpoint,
        shown.job_name,
        shown.job,
        shown.time,
        shown.path,
        shown.max_parallelism,
        counted(shown.files.len() as u64, "file"),
        bytes(file_bytes),
    );
    for operator in &shown.operators {
        text.push('\n');
        operator_written(&mut text, operator, args)?;
    }
    Ok(text)
}

fn operator_written(text: &mut String, operator: &Operator, args: &ShowArgs) -> Result<(), StateError> {
    let name = if operator.name.is_empty() { &operator.uid } else { &operator.name };
    let uid = if operator.uid.is_empty() { "no uid".to_owned() } else { format!("uid {}", operator.uid) };
    let finished = if operator.finished { ", finished" } else { "" };
    let Operator { id, parallelism, max_parallelism, bytes: all, .. } = operator;
    writeln!(text, "operator {name}: {}{finished}", bytes(*all)).expect("writing to a string");
    writeln!(text, "  {uid}, id {id}, parallelism {parallelism} of {max_parallelism}").expect("writing to a string");
    if operator.coordinator_bytes > 0 {
        writeln!(text, "  coordinator: {}", bytes(operator.coordinator_bytes as u64)).expect("writing to a string");
    }
    for Subtask { index, finished, bytes: own } in &operator.subtasks {
        let finished = if *finished { ", finished" } else { "" };
        writeln!(text, "  subtask {index}: {}{finished}", bytes(*own)).expect("writing to a string");
    }
    for state in &operator.states {
        state_written(text, state, args)?;
    }
    if args.key_groups && !operator.key_groups.is_empty() {
        text.push_str("  all key groups\n");
        groups_written(text, &operator.key_groups);
    }
    Ok(())
}

fn state_written(text: &mut String, state: &StateShown, args: &ShowArgs) -> Result<(), StateError> {
    let increments = match state.increments {
        0 => String::new(),
        count => format!(", {}", counted(count.into(), "increment")),
    };
    let (rows, size) = (counted(state.rows, "row"), bytes(state.bytes));
    writeln!(text, "  state {}: {}, {rows}, {size}{increments}", state.name, state.kind).expect("writing to a string");
    for (name, spelled) in &state.spelled {
        writeln!(text, "    {name} {spelled}").expect("writing to a string");
    }
    match &state.schema_error {
        Some(error) => writeln!(text, "    types unknown: {error}").expect("writing to a string"),
        None if state.spelled.is_empty() => text.push_str("    types unknown: stored without them\n"),
        None => {}
    }
    if args.key_groups {
        groups_written(text, &state.key_groups);
    }
    for entry in state.entries.iter().flatten() {
        write!(text, "    {}", json_line(entry)?).expect("writing to a string");
    }
    Ok(())
}

fn groups_written(text: &mut String, groups: &[Group]) {
    let row = |group: &Group| {
        let span = match (group.first, group.last) {
            (first, last) if first == last => format!("    key group {first}"),
            (first, last) => format!("    key groups {first} to {last}"),
        };
        vec![span, counted(group.rows, "row"), bytes(group.bytes)]
    };
    *text += &columns(&groups.iter().map(row).collect::<Vec<_>>());
}

/// What an operator is called where states of several are shown.
pub fn heading(operator: &OperatorState) -> String {
    let title = title(operator);
    if operator.name.is_empty() || operator.name == title { title } else { format!("{title} ({})", operator.name) }
}
