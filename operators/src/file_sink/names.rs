//! Names of the files of a committed file sink, and which of them a new attempt removes.
//!
//! ```text
//! .part-<subtask>-<file>.<scope>.inprogress          being written
//! .part-<subtask>-<checkpoint>-<file>.<scope>.pending    complete and durable, waits for its checkpoint
//! part-<subtask>-<checkpoint>-<file>.<extension>      committed
//! ```
//! `<file>` is a random number of the run (a process, over all its attempts) and the number of the file in it, so that no two
//! attempts or runs ever mean the same file; `<scope>` stands for the job and the sink, so that sinks that share a directory
//! leave each other alone.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use thalweg_model::{CheckpointId, OperatorId};

const IN_PROGRESS: &str = ".inprogress";
const PENDING: &str = ".pending";

/// The files of a sink in one process, over all subtasks and attempts.
#[derive(Debug)]
pub(super) struct Run {
    token: u32,
    next: AtomicU64,
}

impl Run {
    pub(super) fn new() -> Arc<Self> {
        // Random keys are all there is to this hasher.
        let token = RandomState::new().build_hasher().finish() as u32;
        Arc::new(Self { token, next: AtomicU64::new(0) })
    }
}

/// Makes the names of one subtask.
#[derive(Clone, Debug)]
pub(super) struct Names {
    run: Arc<Run>,
    scope: String,
    extension: &'static str,
    subtask: u32,
    parallelism: u32,
}

/// A file of one subtask, by what never changes about its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartId(String);

/// A file that is not committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Leftover {
    subtask: u32,
    /// The checkpoint it waits for; none in progress.
    pending: Option<CheckpointId>,
    run: u32,
}

impl Names {
    /// For a subtask of a sink, by the ids of its job and its operator.
    pub(super) fn new(
        run: Arc<Run>,
        (job_id, operator_id): (&str, &str),
        extension: &'static str,
        subtask: u32,
        parallelism: u32,
    ) -> Self {
        let scope = OperatorId::from_name(&format!("{job_id}/{operator_id}")).to_string()[..16].to_owned();
        Self { run, scope, extension, subtask, parallelism }
    }

    /// A new file.
    pub(super) fn next(&self) -> PartId {
        PartId(format!("{:08x}-{}", self.run.token, self.run.next.fetch_add(1, Relaxed)))
    }

    pub(super) fn in_progress(&self, id: &PartId) -> String {
        format!(".part-{}-{}.{}{IN_PROGRESS}", self.subtask, id.0, self.scope)
    }

    pub(super) fn pending(&self, id: &PartId, checkpoint: CheckpointId) -> String {
        format!(".part-{}-{checkpoint}-{}.{}{PENDING}", self.subtask, id.0, self.scope)
    }

    pub(super) fn committed(&self, id: &PartId, checkpoint: CheckpointId) -> String {
        format!("part-{}-{checkpoint}-{}.{}", self.subtask, id.0, self.extension)
    }

    /// Whether this subtask removes a file that it finds before it has begun one of its own: one that an earlier attempt of
    /// this very sink left in progress, or pending for a checkpoint after `known`. Those of which the subtask is congruent
    /// to this one, so that nobody removes what another one has just begun. Without a known checkpoint, none has been
    /// completed in this run, but what other runs have pending may belong to one that somebody keeps.
    pub(super) fn is_garbage(&self, name: &str, known: Option<CheckpointId>) -> bool {
        self.parse(name).is_some_and(|leftover| {
            leftover.subtask % self.parallelism == self.subtask
                && match (leftover.pending, known) {
                    (None, _) => true,
                    (Some(checkpoint), Some(known)) => checkpoint > known,
                    (Some(_), None) => leftover.run == self.run.token,
                }
        })
    }

    fn parse(&self, name: &str) -> Option<Leftover> {
        let name = name.strip_prefix(".part-")?;
        let (name, is_pending) = match name.strip_suffix(IN_PROGRESS) {
            Some(name) => (name, false),
            None => (name.strip_suffix(PENDING)?, true),
        };
        let mut numbers = name.strip_suffix(&self.scope)?.strip_suffix('.')?.split('-');
        let subtask = numbers.next()?.parse().ok()?;
        let pending = if is_pending { Some(CheckpointId(numbers.next()?.parse().ok()?)) } else { None };
        let run = u32::from_str_radix(numbers.next()?, 16).ok()?;
        numbers.next()?.parse::<u64>().ok()?;
        numbers.next().is_none().then_some(Leftover { subtask, pending, run })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_names_are_made_then_only_own_leftovers_after_the_checkpoint_are_garbage() {
        let names = |ids, subtask, parallelism| Names::new(Run::new(), ids, "ndjson", subtask, parallelism);
        let old = names(("job", "sink"), 3, 4);
        let id = old.next();
        let (in_progress, pending) = (old.in_progress(&id), old.pending(&id, CheckpointId(7)));
        let committed = old.committed(&id, CheckpointId(7));
        assert!(in_progress.starts_with(".part-3-") && pending.starts_with(".part-3-7-"), "{in_progress} {pending}");
        assert!(committed.starts_with("part-3-7-") && committed.ends_with("-0.ndjson"), "{committed}");

        let new = names(("job", "sink"), 1, 2);
        assert!(new.is_garbage(&in_progress, None) && new.is_garbage(&in_progress, Some(CheckpointId(9))));
        assert!(new.is_garbage(&pending, Some(CheckpointId(6))));
        for known in [None, Some(CheckpointId(7)), Some(CheckpointId(8))] {
            assert!(!new.is_garbage(&pending, known), "{known:?}");
        }
        assert!(!new.is_garbage(&committed, Some(CheckpointId(1))));
        let again = Names::new(old.run.clone(), ("job", "sink"), "ndjson", 1, 2);
        assert!(again.is_garbage(&pending, None), "no checkpoint was completed in this run");
        assert!(!again.is_garbage(&pending, Some(CheckpointId(7))));
        let others = [names(("job", "sink"), 0, 2), names(("job", "other"), 1, 2), names(("other", "sink"), 1, 2)];
        assert!(others.iter().all(|other| !other.is_garbage(&in_progress, Some(CheckpointId(1)))));
        for foreign in [".part-1-x.inprogress", ".part-1.pending", "part-1-2-3-4.ndjson", ".hidden", ""] {
            assert!(!new.is_garbage(foreign, Some(CheckpointId(1))), "{foreign}");
        }
    }
}
