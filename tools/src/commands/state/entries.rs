//! Going through the entries of a state, over all its subtasks and increments.

use std::ops::ControlFlow;

use thalweg::model::KeyGroupRange;
use thalweg_io::checkpoint::{NamedState, StateKind, StatePart};
use thalweg_state::{Entry, ImageIndex, element_bytes, live_entries};

use super::{
    checkpoint::{Checkpoint, State},
    error::StateError,
};

/// Every key group that there can be.
pub const ALL_GROUPS: KeyGroupRange = KeyGroupRange { start: 0, end: u16::MAX };

/// An entry that was found.
pub enum Found<'a> {
    /// What an image says of a key.
    Entry(&'a Entry<'a>),
    /// An element without key.
    Element(&'a [u8]),
}

/// Hands every entry of a state to `f`, which may stop it. Of keyed state only those of the key groups of `range`; what
/// all subtasks have alike comes once.
pub fn for_each(
    checkpoint: &Checkpoint,
    state: &State<'_>,
    range: KeyGroupRange,
    f: impl FnMut(Found<'_>) -> Result<ControlFlow<()>, StateError>,
) -> Result<(), StateError> {
    let subtasks = if state.kind == StateKind::Broadcast { 1 } else { state.subtasks.len() };
    for_each_of(checkpoint, state, &state.subtasks[..subtasks], range, f)
}

/// As [`for_each`], of these subtasks.
pub fn for_each_of(
    checkpoint: &Checkpoint,
    state: &State<'_>,
    subtasks: &[(u32, &NamedState)],
    range: KeyGroupRange,
    mut f: impl FnMut(Found<'_>) -> Result<ControlFlow<()>, StateError>,
) -> Result<(), StateError> {
    for (subtask, named) in subtasks {
        let mut is_stopped = false;
        let mut f = |found: Found<'_>| {
            let flow = f(found)?;
            is_stopped |= flow.is_break();
            Ok(flow)
        };
        let outcome = if state.is_keyed() {
            keyed(checkpoint, state, *subtask, named, range, &mut f)
        } else if state.kind == StateKind::ChannelState {
            Ok(())
        } else {
            elements(checkpoint, state, *subtask, named, &mut f)
        };
        outcome?;
        if is_stopped {
            break;
        }
    }
    Ok(())
}

type Visit<'f> = dyn FnMut(Found<'_>) -> Result<ControlFlow<()>, StateError> + 'f;

fn keyed(
    checkpoint: &Checkpoint,
    state: &State<'_>,
    subtask: u32,
    named: &NamedState,
    range: KeyGroupRange,
    f: &mut Visit<'_>,
) -> Result<(), StateError> {
    let place = |part: &StatePart| checkpoint.place(state, subtask, Some(part));
    let index = |part: &StatePart| {
        let read = |offset, out: &mut [u8]| checkpoint.read_part(part, offset, out);
        let index = ImageIndex::read(part.place.bytes(), read).map_err(|error: StateError| error.at(|| place(part)))?;
        if let Some(types) = state.types() {
            index.check_schema(types).map_err(|error| StateError::from(error).at(|| place(part)))?;
        }
        Ok(index)
    };
    let indexes: Vec<ImageIndex> = named.parts.iter().map(index).collect::<Result<_, StateError>>()?;
    // Where in the parts it is, for messages.
    let reading = std::cell::Cell::new(0);
    let outcome = live_entries(
        &indexes,
        range,
        |n, extent| {
            reading.set(n);
            let mut bytes = vec![0; extent.bytes as usize];
            checkpoint.read_part(&named.parts[n], extent.offset, &mut bytes)?;
            Ok(bytes)
        },
        |entry| f(Found::Entry(entry)),
    );
    outcome.map_err(|error: StateError| error.at(|| place(&named.parts[reading.get()])))
}

fn elements(
    checkpoint: &Checkpoint,
    state: &State<'_>,
    subtask: u32,
    named: &NamedState,
    f: &mut Visit<'_>,
) -> Result<(), StateError> {
    for part in &named.parts {
        let outcome = checkpoint.whole_part(part).and_then(|bytes| {
            for element in element_bytes(&bytes) {
                if f(Found::Element(element?))?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        });
        if outcome.map_err(|error| error.at(|| checkpoint.place(state, subtask, Some(part))))?.is_break() {
            break;
        }
    }
    Ok(())
}
