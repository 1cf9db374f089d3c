//! Names of the files of a committed file sink, and which of them a new attempt removes.
//!
//! ```text
//! .part-<subtask>-<file>.<scope>.inprogress          being written
//! .part-<subtask>-<checkpoint>-<file>.<scope>.pending    complete and durable, waits for its checkpoint
//! part-<subtask>-<checkpoint>-<file>-<stream>.<extension>      committed
//! ```
//! `<file>` is a random number of the run (a process, over all its attempts) and the number of the file in it, so that no two
//! attempts or runs ever mean the same file; `<scope>` stands for the job and the sink, so that sinks that share a directory
//! leave each other alone; `<stream>` for these two and where the stream comes from, so that a job that starts from nothing
//! leaves alone what others have committed before it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use thalweg_model::{CheckpointId, OperatorId};

use crate::cluster::random;

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
        Arc::new(Self { token: random() as u32, next: AtomicU64::new(0) })
    }
}

/// Makes the names of one subtask.
#[derive(Clone, Debug)]
pub(super) struct Names {
    run: Arc<Run>,
    scope: String,
    /// Of the streams that this one goes on from, the first of which files are named after.
    streams: Vec<String>,
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
        Self { run, scope, streams: Vec::new(), extension, subtask, parallelism }
    }

    /// Which stream this is, by numbers of its origins, the first of which files are named after.
    pub(super) fn set_stream(&mut self, origins: &[u64]) {
        let of = |origin: &u64| OperatorId::from_name(&format!("{}/{origin}", self.scope)).to_string()[..8].to_owned();
        self.streams = origins.iter().map(of).collect();
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
        let stream = self.streams.first().map_or("0", String::as_str);
        format!("part-{}-{checkpoint}-{}-{stream}.{}", self.subtask, id.0, self.extension)
    }

    /// Whether this subtask answers for what one of an earlier attempt has left, which may have had more of them. Those of
    /// which the number is congruent to this one's, so that nobody removes what another one has just begun.
    fn is_mine(&self, subtask: u32) -> bool {
        subtask % self.parallelism == self.subtask
    }

    /// Whether this subtask removes a file that it finds before it has begun one of its own: one that an earlier attempt of
    /// this very sink left in progress, or pending for a checkpoint after `known`. Without a known checkpoint, none has been
    /// completed in this run, but what other runs have pending may belong to one that somebody keeps.
    pub(super) fn is_garbage(&self, name: &str, known: Option<CheckpointId>) -> bool {
        self.parse(name).is_some_and(|leftover| {
            self.is_mine(leftover.subtask)
                && match (leftover.pending, known) {
                    (None, _) => true,
                    (Some(checkpoint), Some(known)) => checkpoint > known,
                    (Some(_), None) => leftover.run == self.run.token,
                }
        })
    }

    /// Whether this subtask takes a file back that it finds before it has begun one of its own: one that this stream has
    /// committed with a checkpoint after `known`, from which it starts. Its records come again.
    pub(super) fn is_taken_back(&self, name: &str, known: CheckpointId) -> bool {
        let parse = || {
            let name = name.strip_prefix("part-")?.strip_suffix(self.extension)?.strip_suffix('.')?;
            let numbers: Vec<&str> = name.split('-').collect();
            let [subtask, checkpoint, _, _, stream] = numbers[..] else { return None };
            let is_own = self.streams.iter().any(|own| own == stream);
            is_own.then_some((subtask.parse::<u32>().ok()?, CheckpointId(checkpoint.parse().ok()?)))
        };
        parse().is_some_and(|(subtask, checkpoint)| self.is_mine(subtask) && checkpoint > known)
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
        assert!(committed.starts_with("part-3-7-") && committed.ends_with("-0-0.ndjson"), "{committed}");

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

    #[test]
    fn when_a_stream_starts_from_a_checkpoint_then_only_its_own_files_of_later_ones_are_taken_back() {
        let names = |ids, subtask, parallelism, origins: &[u64]| {
            let mut names = Names::new(Run::new(), ids, "ndjson", subtask, parallelism);
            names.set_stream(origins);
            names
        };
        let old = names(("job", "sink"), 3, 4, &[5, 6]);
        let file = old.committed(&old.next(), CheckpointId(7));
        for origins in [&[5][..], &[5, 6], &[4, 5]] {
            let new = names(("job", "sink"), 1, 2, origins);
            let taken_back = |known| new.is_taken_back(&file, CheckpointId(known));
            assert!(taken_back(6) && taken_back(0) && !taken_back(7) && !taken_back(8), "{origins:?}");
        }
        for (ids, subtask, origins) in [
            (("job", "sink"), 1, &[6][..]),
            (("job", "sink"), 1, &[]),
            (("job", "sink"), 0, &[5]),
            (("job", "other"), 1, &[5]),
            (("other", "sink"), 1, &[5]),
        ] {
            assert!(!names(ids, subtask, 2, origins).is_taken_back(&file, CheckpointId(1)), "{ids:?} {origins:?}");
        }
        let new = names(("job", "sink"), 1, 2, &[5]);
        for foreign in
            ["part-3-7-00000000-0.ndjson", "part-3-7-0-0-0.ndjson", &format!("{file}x"), &format!(".{file}"), ""]
        {
            assert!(!new.is_taken_back(foreign, CheckpointId(1)), "{foreign}");
        }
    }
}
