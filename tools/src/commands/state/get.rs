//! `thalweg state get`: what a state holds for a key, or a map for a key and a user key.

use std::{collections::BTreeSet, ops::ControlFlow};

use serde::Serialize;
use thalweg::model::{
    KeyGroupRange, MaxParallelism, Schema, Value,
    schema::{Kind, key_hash, read},
};
use thalweg_io::checkpoint::StateKind;

use super::{
    checkpoint::{Checkpoint, State},
    entries::{ALL_GROUPS, Found, for_each},
    error::StateError,
    json::{EntryJson, OfMap, entry_json, entry_of_map, typed},
    json_line,
    text::spelled,
};
use crate::{commands::print, error::CliError, state_cli::GetArgs};

/// Prints what was found.
pub fn run(args: &GetArgs) -> Result<(), CliError> {
    let checkpoint = Checkpoint::open(&args.path)?;
    let operators = checkpoint.operators(Some(&args.operator))?;
    let states = checkpoint.states(&operators, Some(&args.state))?;
    let (mut found, mut has_key) = (Vec::new(), false);
    let mut no_key = None;
    for state in &states {
        match wanted(state, args) {
            Ok((keys, user_key)) => {
                let looked = look_up(&checkpoint, state, &keys, user_key.as_ref())?;
                has_key |= looked.has_key;
                found.extend(looked.found);
            }
            Err(error) => no_key = Some(error),
        }
    }
    // States of one name may be of several kinds: the key must be one of any of them.
    if let Some(error) = no_key.filter(|_| found.is_empty()) {
        return Err(error.into());
    }
    if found.is_empty() {
        let (key, state) = (args.key.clone(), args.state.clone());
        let user_key = args.user_key.clone().filter(|_| has_key);
        return Err(match user_key {
            Some(user_key) => StateError::NoUserKey { user_key, key, state },
            None => StateError::NoEntry { key, state },
        }
        .into());
    }
    if args.json {
        return print(&json_line(&found)?);
    }
    let lines: Result<String, StateError> = found.iter().map(json_line).collect();
    print(&lines?)
}

/// What a key may be.
struct Keys<'s> {
    schema: &'s Schema,
    /// The key as it is stored.
    whole: Option<Value>,
    /// The first part of it: the stream's key, where the state's has more.
    first: Option<Value>,
}

/// The key and the user key that are asked for, as values of the state's types.
fn wanted<'s>(state: &'s State<'_>, args: &GetArgs) -> Result<(Keys<'s>, Option<Value>), StateError> {
    let keys = keys(state, &args.key)?;
    let Some(text) = &args.user_key else { return Ok((keys, None)) };
    let schema = state.types().and_then(|types| types.user_key.as_ref());
    let Some(schema) = schema.filter(|_| state.kind == StateKind::KeyedMap) else {
        return Err(StateError::NoMap { state: state.name.to_owned(), kind: state.kind_name() });
    };
    let user_key = serde_json::from_str(text).ok().and_then(|json| typed(&json, schema));
    let given = || StateError::Key { what: "user key", given: text.clone(), wanted: spelled(schema) };
    Ok((keys, Some(user_key.ok_or_else(given)?)))
}

fn keys<'s>(state: &'s State<'_>, text: &str) -> Result<Keys<'s>, StateError> {
    let Some(schema) = state.types().and_then(|types| types.key.as_ref()) else {
        let what = match state.schema.as_ref().err() {
            Some(error) => error.to_string(),
            None => format!("state {} has no keys, or was stored without its types", state.name),
        };
        return Err(StateError::Value(what));
    };
    let given = || StateError::Key { what: "key", given: text.to_owned(), wanted: spelled(schema) };
    let json: serde_json::Value = serde_json::from_str(text).map_err(|_| given())?;
    let first = match &schema.kind {
        Kind::Tuple(fields) => typed(&json, &fields[0].schema),
        _ => None,
    };
    let keys = Keys { schema, whole: typed(&json, schema), first };
    if keys.whole.is_none() && keys.first.is_none() { Err(given()) } else { Ok(keys) }
}

impl Keys<'_> {
    /// The key groups where such keys can be: that of the whole key's hash, and that of its first part's.
    fn groups(&self, max_parallelism: MaxParallelism) -> BTreeSet<u16> {
        let first_type = match &self.schema.kind {
            Kind::Tuple(fields) => Some(&fields[0].schema),
            _ => None,
        };
        let first_of_whole = match &self.whole {
            Some(Value::Array(values)) => values.first(),
            _ => None,
        };
        let whole = self.whole.as_ref().and_then(|value| key_hash(self.schema, value));
        let firsts = [first_of_whole, self.first.as_ref()].into_iter().flatten();
        let firsts = firsts.filter_map(|value| key_hash(first_type?, value));
        whole.into_iter().chain(firsts).map(|hash| max_parallelism.key_group(hash).0).collect()
    }

    fn is_one(&self, key: &Value) -> bool {
        let first = match key {
            Value::Array(values) => values.first(),
            _ => None,
        };
        self.whole.as_ref().is_some_and(|whole| same(whole, key))
            || self.first.as_ref().zip(first).is_some_and(|(wanted, first)| same(wanted, first))
    }
}

/// Whether two values are the same key: floats by their bits, as in state.
fn same(a: &Value, b: &Value) -> bool {
    a == b || format!("{a:?}") == format!("{b:?}")
}

/// What was asked for.
#[derive(Serialize)]
#[serde(untagged)]
enum Answer {
    /// All that belongs to a key.
    Whole(EntryJson),
    /// What belongs to a user key.
    OfMap(OfMap),
}

/// What a state has of it.
#[derive(Default)]
struct Looked {
    found: Vec<Answer>,
    /// Whether there is something for the key, if not for the user key.
    has_key: bool,
}

fn look_up(
    checkpoint: &Checkpoint,
    state: &State<'_>,
    keys: &Keys<'_>,
    user_key: Option<&Value>,
) -> Result<Looked, StateError> {
    let mut looked = Looked::default();
    let Some(max_parallelism) = MaxParallelism::new(state.operator.max_parallelism) else { return Ok(looked) };
    let mut look_in = |range: KeyGroupRange| {
        for_each(checkpoint, state, range, |entry| {
            if let Found::Entry(row) = &entry {
                let key = read(keys.schema, &row.key).map_err(|error| StateError::Value(error.to_string()))?;
                if keys.is_one(&key) {
                    looked.has_key = true;
                    looked.found.extend(match user_key {
                        None => Some(Answer::Whole(entry_json(state, &entry)?)),
                        Some(wanted) => {
                            entry_of_map(state, &entry, |user_key| same(wanted, user_key))?.map(Answer::OfMap)
                        }
                    });
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok::<_, StateError>(looked.has_key)
    };
    let mut is_found = false;
    for group in keys.groups(max_parallelism) {
        is_found |= look_in(KeyGroupRange { start: group, end: group })?;
    }
    // The stream may be keyed by something that the state's key does not begin with.
    if !is_found {
        look_in(ALL_GROUPS)?;
    }
    Ok(looked)
}
