//! Whether a checkpoint fits the job that is to start from it, as far as operators go.

use std::path::PathBuf;

use thalweg_io::checkpoint::{BadFile, Metadata, OperatorState, StateKind, StoreError};

use super::shape::Shape;

/// Why a job cannot start from a checkpoint or savepoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The checkpoint that was asked for is damaged, or is none.
    #[error("cannot restore from {}: {bad}", dir.display())]
    Unreadable {
        /// Where it was looked for.
        dir: PathBuf,
        /// The first thing wrong with it.
        bad: BadFile,
    },
    /// There are checkpoints, and all of them are damaged.
    #[error(
        "no checkpoint in {} can be read: put back what is missing, or, to start from nothing, use an empty checkpoint \
         directory", dir.display()
    )]
    NoneReadable {
        /// The job's directory.
        dir: PathBuf,
    },
    /// Somebody removes it.
    #[error("cannot restore from {}: it is being disposed of", dir.display())]
    Disposed {
        /// Where it lies, for now.
        dir: PathBuf,
    },
    /// It has state of operators that the job does not have.
    #[error(
        "checkpoint {checkpoint} holds state of operators that the job does not have: {operators}; give each operator the \
         uid that it had, or restore with --allow-non-restored-state to leave the state out"
    )]
    Unclaimed {
        /// Its number.
        checkpoint: u64,
        /// The operators, by name and uid.
        operators: String,
    },
    /// An operator with keyed state has another maximum parallelism now.
    #[error(
        "checkpoint {checkpoint} was written with maximum parallelism {written} of operator {operator}, which now has {now}: \
         keyed state cannot move between them, so set it to {written} again"
    )]
    MaxParallelism {
        /// Its number.
        checkpoint: u64,
        /// The operator.
        operator: String,
        /// Then.
        written: u32,
        /// Now.
        now: u32,
    },
    /// The directory of checkpoints cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether a state is of keys: it lies by key group.
fn is_keyed(kind: StateKind) -> bool {
    matches!(kind, StateKind::KeyedTable | StateKind::KeyedList | StateKind::KeyedMap | StateKind::Timers)
}

fn has(operator: &OperatorState, which: impl Fn(StateKind) -> bool) -> bool {
    operator.subtasks.iter().flat_map(|subtask| &subtask.states).any(|state| which(state.kind))
}

/// Checks that each operator with state is there, with the key groups that it had.
pub(super) fn check_fit(shape: &Shape, metadata: &Metadata, allow_unclaimed: bool) -> Result<(), RestoreError> {
    let checkpoint = metadata.checkpoint.0;
    let mut unclaimed = Vec::new();
    for old in &metadata.operators {
        match shape.operator(old.id) {
            Some(now) if has(old, is_keyed) && now.max_parallelism != old.max_parallelism => {
                return Err(RestoreError::MaxParallelism {
                    checkpoint,
                    operator: named(&old.name, &old.uid),
                    written: old.max_parallelism,
                    now: now.max_parallelism,
                });
            }
            Some(_) => {}
            // Buffers in flight belong to nobody: they are lost with whoever would have read them.
            None if has(old, |kind| kind != StateKind::ChannelState) || !old.coordinator.is_empty() => {
                unclaimed.push(named(&old.name, &old.uid));
            }
            None => {}
        }
    }
    if unclaimed.is_empty() || allow_unclaimed {
        return Ok(());
    }
    Err(RestoreError::Unclaimed { checkpoint, operators: unclaimed.join(", ") })
}

fn named(name: &str, uid: &str) -> String {
    if uid.is_empty() { format!("{name:?} (no uid)") } else { format!("{name:?} (uid {uid:?})") }
}
