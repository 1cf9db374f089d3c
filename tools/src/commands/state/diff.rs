//! `thalweg state diff`: what has changed from one checkpoint to another.
//!
//! Entries are compared key group by key group, as many at once as [`PASS_BYTES`] allow, so that states of any size can
//! be. Where the types are the same, bytes are compared; else the values, as JSON.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use serde::Serialize;
use thalweg::model::{KeyGroupRange, OperatorId};
use thalweg_io::checkpoint::{OperatorState, StateKind};
use thalweg_state::Content;

use super::{
    checkpoint::{Checkpoint, State},
    entries::{ALL_GROUPS, Found, for_each},
    error::StateError,
    json::{EntryJson, entry_json},
    json_line,
    show::heading,
    text::bytes,
};
use crate::{commands::print, error::CliError, state_cli::DiffArgs};

/// Bytes of one state that are held at once, roughly.
const PASS_BYTES: u64 = 256 << 20;

#[derive(Serialize)]
struct Diff {
    first: String,
    second: String,
    operators: Vec<OperatorDiff>,
}

#[derive(Serialize)]
struct OperatorDiff {
    id: String,
    uid: String,
    name: String,
    only_in: Option<Side>,
    states: Vec<StateDiff>,
    #[serde(skip)]
    heading: String,
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    First,
    Second,
}

#[derive(Serialize)]
struct StateDiff {
    name: String,
    kind: &'static str,
    only_in: Option<Side>,
    /// The first difference of the types, if there is one.
    types_changed: Option<String>,
    first_bytes: u64,
    second_bytes: u64,
    added: u64,
    removed: u64,
    changed: u64,
    unchanged: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    entries: Vec<Change>,
}

#[derive(Serialize)]
#[serde(tag = "change", rename_all = "lowercase")]
enum Change {
    Added { entry: EntryJson },
    Removed { entry: EntryJson },
    Changed { before: EntryJson, after: EntryJson },
}

/// Prints the difference.
pub fn run(args: &DiffArgs) -> Result<(), CliError> {
    let (first, second) = (Checkpoint::open(&args.first)?, Checkpoint::open(&args.second)?);
    let wanted = args.selection.operator.as_deref();
    let (a, b) = match (first.operators(wanted), second.operators(wanted)) {
        (Ok(a), Ok(b)) => (a, b),
        // It may be in one of them only.
        (Ok(a), Err(StateError::NotThere { .. })) => (a, Vec::new()),
        (Err(StateError::NotThere { .. }), Ok(b)) => (Vec::new(), b),
        (Err(error), _) | (_, Err(error)) => return Err(error.into()),
    };
    // In the order of the first, then what only the second has.
    let mut order = a.clone();
    order.extend(b.iter().filter(|operator| a.iter().all(|one| one.id != operator.id)));
    if let Some(missing) = missing_state((&first, &a), (&second, &b), args.selection.state.as_deref()) {
        return Err(missing.into());
    }
    let mut operators = Vec::new();
    for operator in order {
        let of = |all: &[&OperatorState]| all.iter().any(|one| one.id == operator.id);
        let by_id = |checkpoint| states_by_id(checkpoint, operator.id, args.selection.state.as_deref());
        let states = states(&first, by_id(&first), &second, by_id(&second), args)?;
        operators.push(OperatorDiff {
            id: operator.id.to_string(),
            uid: operator.uid.clone(),
            name: operator.name.clone(),
            only_in: match (of(&a), of(&b)) {
                (true, false) => Some(Side::First),
                (false, true) => Some(Side::Second),
                _ => None,
            },
            states,
            heading: heading(operator),
        });
    }
    let path = |checkpoint: &Checkpoint| checkpoint.dir.display().to_string();
    let diff = Diff { first: path(&first), second: path(&second), operators };
    print(&if args.json { json_line(&diff)? } else { written(&diff)? })
}

/// The error where there is no state of the wanted name in either: one may be in one of them only.
fn missing_state(
    (first, a): (&Checkpoint, &[&OperatorState]),
    (second, b): (&Checkpoint, &[&OperatorState]),
    wanted: Option<&str>,
) -> Option<StateError> {
    let (a, b) = (first.states(a, wanted).err()?, second.states(b, wanted).err()?);
    // Whichever names some that there are.
    Some(if matches!(&a, StateError::NotThere { there, .. } if there.is_empty()) { b } else { a })
}

fn states_by_id<'c>(checkpoint: &'c Checkpoint, id: OperatorId, wanted: Option<&str>) -> Vec<State<'c>> {
    let operators: Vec<_> = checkpoint.metadata.operators.iter().filter(|operator| operator.id == id).collect();
    // An operator without such a state has nothing to compare.
    checkpoint.states(&operators, wanted).unwrap_or_default()
}

fn states(
    first: &Checkpoint,
    a: Vec<State<'_>>,
    second: &Checkpoint,
    b: Vec<State<'_>>,
    args: &DiffArgs,
) -> Result<Vec<StateDiff>, StateError> {
    let names: BTreeSet<(&str, StateKind)> = a.iter().chain(&b).map(|state| (state.name, state.kind)).collect();
    let mut diffs = Vec::new();
    for (name, kind) in names {
        let of = |all: &[State<'_>]| all.iter().position(|state| state.name == name && state.kind == kind);
        let (a, b) = (of(&a).map(|n| &a[n]), of(&b).map(|n| &b[n]));
        let bytes = |state: Option<&State<'_>>| state.map_or(0, State::bytes);
        let mut diff = StateDiff {
            name: name.to_owned(),
            kind: a.or(b).map_or("", State::kind_name),
            only_in: match (a, b) {
                (Some(_), None) => Some(Side::First),
                (None, Some(_)) => Some(Side::Second),
                _ => None,
            },
            types_changed: types_changed(a, b),
            first_bytes: bytes(a),
            second_bytes: bytes(b),
            added: 0,
            removed: 0,
            changed: 0,
            unchanged: 0,
            entries: Vec::new(),
        };
        let limit = if args.entries.entries { Some(args.entries.limit) } else { None };
        for range in ranges(a, b) {
            compare(&mut diff, (first, a), (second, b), range, limit)?;
        }
        diffs.push(diff);
    }
    Ok(diffs)
}

fn types_changed(a: Option<&State<'_>>, b: Option<&State<'_>>) -> Option<String> {
    let (a, b) = (a?.types()?, b?.types()?);
    let mismatch = a.compare(b).err()?;
    let side = |text: Option<String>| text.unwrap_or_else(|| "nothing".to_owned());
    Some(format!("{} {} became {}", mismatch.part, side(mismatch.stored), side(mismatch.current)))
}

/// Ranges of key groups that can be held at once.
fn ranges(a: Option<&State<'_>>, b: Option<&State<'_>>) -> Vec<KeyGroupRange> {
    let groups = |state: Option<&State<'_>>| state.map(|state| state.operator.max_parallelism);
    let all = a.map_or(0, State::bytes) + b.map_or(0, State::bytes);
    let is_keyed = a.or(b).is_some_and(State::is_keyed);
    // With other numbers of groups, the same key is in another group.
    let same = a.is_none() || b.is_none() || groups(a) == groups(b);
    let Some(groups) = groups(a.or(b)).filter(|_| is_keyed && same) else { return vec![ALL_GROUPS] };
    let passes = (all / PASS_BYTES + 1).min(groups.into()) as u32;
    let begin = |n: u32| (u64::from(n) * u64::from(groups) / u64::from(passes)) as u16;
    (0..passes).map(|n| KeyGroupRange { start: begin(n), end: begin(n + 1).saturating_sub(1).max(begin(n)) }).collect()
}

/// What entries are told apart and compared by, and the entry itself where it is to be shown.
struct Held {
    content: Vec<u8>,
    entry: Option<EntryJson>,
    count: u64,
}

fn compare(
    diff: &mut StateDiff,
    (first, a): (&Checkpoint, Option<&State<'_>>),
    (second, b): (&Checkpoint, Option<&State<'_>>),
    range: KeyGroupRange,
    limit: Option<u64>,
) -> Result<(), StateError> {
    let as_bytes = diff.types_changed.is_none();
    let mut before = match a {
        Some(state) => held(first, state, range, as_bytes, limit.is_some())?,
        None => BTreeMap::new(),
    };
    let after = match b {
        Some(state) => held(second, state, range, as_bytes, limit.is_some())?,
        None => BTreeMap::new(),
    };
    let StateDiff { added, removed, changed, unchanged, entries, .. } = diff;
    let mut note = |change: Option<Change>| {
        if limit.is_some_and(|limit| limit == 0 || (entries.len() as u64) < limit) {
            entries.extend(change);
        }
    };
    for (key, now) in after {
        let Some(then) = before.remove(&key) else {
            *added += now.count;
            note(now.entry.map(|entry| Change::Added { entry }));
            continue;
        };
        if then.content != now.content {
            *changed += 1;
            note(then.entry.zip(now.entry).map(|(before, after)| Change::Changed { before, after }));
            continue;
        }
        // Elements without key are told apart by what they are; there may be several of one.
        *unchanged += then.count.min(now.count);
        *added += now.count.saturating_sub(then.count);
        *removed += then.count.saturating_sub(now.count);
        if now.count > then.count {
            note(now.entry.map(|entry| Change::Added { entry }));
        } else if now.count < then.count {
            note(then.entry.map(|entry| Change::Removed { entry }));
        }
    }
    for then in before.into_values() {
        *removed += then.count;
        note(then.entry.map(|entry| Change::Removed { entry }));
    }
    Ok(())
}

/// The entries of a state by key; elements without key by what they are.
fn held(
    checkpoint: &Checkpoint,
    state: &State<'_>,
    range: KeyGroupRange,
    as_bytes: bool,
    is_shown: bool,
) -> Result<BTreeMap<Vec<u8>, Held>, StateError> {
    let mut all = BTreeMap::new();
    for_each(checkpoint, state, range, |found| {
        let entry = if is_shown || !as_bytes { Some(entry_json(state, &found)?) } else { None };
        let (key, content) = match entry.as_ref().filter(|_| !as_bytes) {
            Some(entry) => json_parts(entry)?,
            None => byte_parts(&found),
        };
        let entry = entry.filter(|_| is_shown);
        all.entry(key).and_modify(|held: &mut Held| held.count += 1).or_insert(Held { content, entry, count: 1 });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(all)
}

/// Key and content as bytes; entries of maps in the order of their keys.
fn byte_parts(found: &Found<'_>) -> (Vec<u8>, Vec<u8>) {
    let entry = match found {
        Found::Element(bytes) => return (bytes.to_vec(), Vec::new()),
        Found::Entry(entry) => entry,
    };
    let mut content = Vec::new();
    let mut put = |bytes: &[u8]| {
        content.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        content.extend_from_slice(bytes);
    };
    match &entry.content {
        Content::Removed => {}
        Content::Value(value) => put(value),
        Content::List(elements) => elements.iter().for_each(|element| put(element)),
        Content::Map(entries) => {
            let sorted: BTreeMap<_, _> = entries.iter().map(|(key, value)| (key, value)).collect();
            for (key, value) in sorted {
                put(key);
                put(value);
            }
        }
    }
    (entry.key.to_vec(), content)
}

/// Key and content as JSON.
fn json_parts(entry: &EntryJson) -> Result<(Vec<u8>, Vec<u8>), StateError> {
    let line = |text: Result<String, StateError>| text.map(String::into_bytes);
    Ok(match entry {
        EntryJson::Row { key, value } => (line(json_line(key))?, line(json_line(value))?),
        EntryJson::List { key, values } => (line(json_line(key))?, line(json_line(values))?),
        EntryJson::Map { key, entries } => {
            let mut lines = entries.iter().map(|pair| line(json_line(pair))).collect::<Result<Vec<_>, _>>()?;
            lines.sort();
            (line(json_line(key))?, lines.concat())
        }
        EntryJson::Timer { .. } | EntryJson::Element { .. } => (line(json_line(entry))?, Vec::new()),
    })
}

fn written(diff: &Diff) -> Result<String, StateError> {
    let mut text = format!("- {}\n+ {}\n", diff.first, diff.second);
    let only = |side: Side| if side == Side::First { "only in the first" } else { "only in the second" };
    for operator in &diff.operators {
        let side = operator.only_in.map_or_else(String::new, |side| format!(": {}", only(side)));
        text += &format!("\noperator {}{side}\n", operator.heading);
        for state in &operator.states {
            let StateDiff { name, kind, added, removed, changed, unchanged, .. } = state;
            let side = state.only_in.map_or_else(String::new, |side| format!(", {}", only(side)));
            let sizes = match (state.first_bytes, state.second_bytes) {
                (first, second) if first == second => bytes(first),
                (first, second) => format!("{} -> {}", bytes(first), bytes(second)),
            };
            text += &format!("  state {name}: {kind}{side}, {sizes}\n");
            if let Some(types) = &state.types_changed {
                text += &format!("    types changed: {types}\n");
            }
            text += &format!("    {added} added, {removed} removed, {changed} changed, {unchanged} unchanged\n");
            for change in &state.entries {
                text += &match change {
                    Change::Added { entry } => format!("    + {}", json_line(entry)?),
                    Change::Removed { entry } => format!("    - {}", json_line(entry)?),
                    Change::Changed { before, after } => {
                        format!("    - {}    + {}", json_line(before)?, json_line(after)?)
                    }
                };
            }
        }
    }
    Ok(text)
}
