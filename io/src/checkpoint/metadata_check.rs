//! What a `_metadata` must satisfy beyond its bytes: the same rules when it is written and when it is read.

use std::collections::HashSet;

use thalweg_model::MaxParallelism;

use super::{
    damage::Damage,
    limits::{
        MAX_FILES, MAX_INLINE_BYTES, MAX_NAME_BYTES, MAX_OPERATORS, MAX_PARTS, MAX_PATH_BYTES, MAX_PATH_UPS,
        MAX_PROPERTIES, MAX_SCHEMA_BYTES, MAX_STATES,
    },
    metadata::{Metadata, NamedState, OperatorState, Place, StatePart},
};

fn at_most(what: &'static str, found: usize, limit: usize) -> Result<(), Damage> {
    let (found, limit) = (found as u64, limit as u64);
    if found <= limit { Ok(()) } else { Err(Damage::TooMany { what, found, limit }) }
}

fn ensure(holds: bool, what: &'static str) -> Result<(), Damage> {
    if holds { Ok(()) } else { Err(Damage::Malformed { what }) }
}

/// Whether a path is relative, stays near its checkpoint, and is not `_metadata` itself.
pub(crate) fn is_path_allowed(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    let ups = parts.iter().take_while(|part| **part == "..").count();
    let plain = |part: &&str| !part.is_empty() && *part != "." && *part != ".." && !part.contains('\0');
    ups <= MAX_PATH_UPS
        && parts.len() > ups
        && path.len() <= MAX_PATH_BYTES
        && path != super::metadata::METADATA_NAME
        && parts[ups..].iter().all(plain)
}

/// Checks everything that the types cannot say.
pub(crate) fn check(metadata: &Metadata) -> Result<(), Damage> {
    at_most("bytes of the job's name", metadata.job_name.len(), MAX_NAME_BYTES)?;
    ensure(MaxParallelism::new(metadata.max_parallelism).is_some(), "maximum parallelism of the job")?;
    at_most("properties", metadata.properties.len(), MAX_PROPERTIES)?;
    for (name, value) in &metadata.properties {
        at_most("bytes of a property's name", name.len(), MAX_NAME_BYTES)?;
        at_most("bytes of a property", value.len(), MAX_INLINE_BYTES)?;
    }
    at_most("files", metadata.files.len(), MAX_FILES)?;
    let mut paths = HashSet::new();
    for file in &metadata.files {
        ensure(is_path_allowed(&file.path), "path of a file")?;
        ensure(paths.insert(file.path.as_str()), "a file named twice")?;
    }
    at_most("operators", metadata.operators.len(), MAX_OPERATORS)?;
    let mut ids = HashSet::new();
    for operator in &metadata.operators {
        ensure(ids.insert(operator.id), "an operator named twice")?;
        check_operator(metadata, operator)?;
    }
    Ok(())
}

fn check_operator(metadata: &Metadata, operator: &OperatorState) -> Result<(), Damage> {
    at_most("bytes of an operator's name", operator.name.len().max(operator.uid.len()), MAX_NAME_BYTES)?;
    at_most("bytes of a coordinator's state", operator.coordinator.len(), MAX_INLINE_BYTES)?;
    ensure(MaxParallelism::new(operator.max_parallelism).is_some(), "maximum parallelism of an operator")?;
    let parallel = (1..=operator.max_parallelism).contains(&operator.parallelism);
    ensure(parallel, "parallelism of an operator")?;
    let mut next = 0;
    for subtask in &operator.subtasks {
        let in_order = (next..operator.parallelism).contains(&subtask.index);
        ensure(in_order, "index of a subtask")?;
        next = subtask.index + 1;
        at_most("states of a subtask", subtask.states.len(), MAX_STATES)?;
        let mut names = HashSet::new();
        for state in &subtask.states {
            ensure(names.insert((state.kind, state.name.as_str())), "a state named twice")?;
            check_state(metadata, operator, state)?;
        }
    }
    Ok(())
}

fn check_state(metadata: &Metadata, operator: &OperatorState, state: &NamedState) -> Result<(), Damage> {
    at_most("bytes of a state's name", state.name.len(), MAX_NAME_BYTES)?;
    at_most("bytes of a schema", state.schema.len(), MAX_SCHEMA_BYTES)?;
    at_most("parts of a state", state.parts.len(), MAX_PARTS)?;
    let mut increment = 0;
    for part in &state.parts {
        ensure(part.increment >= increment, "order of increments")?;
        increment = part.increment;
        check_part(metadata, operator, part)?;
    }
    Ok(())
}

fn check_part(metadata: &Metadata, operator: &OperatorState, part: &StatePart) -> Result<(), Damage> {
    match &part.place {
        Place::Inline(bytes) => at_most("bytes of inline state", bytes.len(), MAX_INLINE_BYTES)?,
        Place::File { file, offset, bytes } => {
            let file = metadata.files.get(*file as usize).ok_or(Damage::Malformed { what: "index of a file" })?;
            let end = offset.checked_add(*bytes);
            ensure(end.is_some_and(|end| end <= file.written.payload_bytes), "a part beyond its file")?;
        }
    }
    let mut next = 0;
    for span in &part.groups {
        let (first, last) = (u32::from(span.first), u32::from(span.last));
        ensure(next <= first && first <= last && last < operator.max_parallelism, "key groups of a part")?;
        next = last + 1;
        let end = span.offset.checked_add(span.bytes);
        ensure(end.is_some_and(|end| end <= part.place.bytes()), "key groups beyond their part")?;
    }
    Ok(())
}
