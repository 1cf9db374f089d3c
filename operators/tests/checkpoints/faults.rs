//! The Nth open, write, sync, rename, removal of a checkpoint fails, for every N: the job goes on or restarts, loses
//! nothing, and leaves nothing behind that no retained `_metadata` names.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use thalweg::{prelude::*, runtime::CheckpointingSetup};
use thalweg_io::checkpoint::{Depth, FaultPlan, LocalDisk, Operation, discover};

use crate::numbers::{
    ALL, Numbers, checkpoints_in, counting, environment_in, exact, job_dir, last_counts, restarts, wait_until,
};

/// Operations that fail by turns.
const FAILING: [Operation; 8] = [
    Operation::Open,
    Operation::Write,
    Operation::Allocate,
    Operation::Truncate,
    Operation::Sync,
    Operation::Rename,
    Operation::Unlink,
    Operation::MakeDir,
];
/// Says how many failures there are at least, in place of one for each place: a long version runs 1000.
const FAILURES: &str = "THALWEG_FAULTS";

/// Names of all files below a directory.
fn files_below(dir: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        match entry.path().is_dir() {
            true => files_below(&entry.path(), names),
            false => drop(names.insert(entry.file_name().into_string().unwrap())),
        }
    }
}

/// Whether what lies there are sound checkpoints, and no file that they do not name.
fn all_is_named(dir: &Path) -> bool {
    let (mut named, mut there) = (BTreeSet::from(["_metadata".to_owned()]), BTreeSet::new());
    for found in discover(&LocalDisk, &job_dir(dir), Depth::Checksums).unwrap() {
        let Ok(metadata) = found.metadata else { return false };
        named.extend(metadata.files.iter().map(|file| file.path.rsplit('/').next().unwrap().to_owned()));
    }
    files_below(&job_dir(dir), &mut there);
    named == there
}

/// Takes checkpoints until one is complete.
fn checkpoint(job: &JobHandle) {
    wait_until("checkpoint", || job.trigger_checkpoint().wait().is_ok());
}

#[test]
fn when_any_operation_of_a_checkpoint_fails_then_the_job_loses_nothing_and_leaves_nothing() {
    let failures = std::env::var(FAILURES).map_or(1, |number| number.parse().expect("a number of failures"));
    let (dir, faults) = (tempfile::tempdir().unwrap(), FaultPlan::new());
    let env = environment_in(dir.path(), 2);
    env.enable_checkpointing(Duration::ZERO).restart_strategy(restarts(u32::MAX));
    env.checkpoint_config(|options| {
        (options.incremental, options.retained_count, options.tolerable_failed) = (true, 2, u32::MAX);
        options.data_inline_threshold_bytes = 0;
    });
    let setup = CheckpointingSetup { faults: Some(Arc::clone(&faults)), ..CheckpointingSetup::default() };
    env.configure_runtime(|config| config.checkpointing = Some(setup));
    let (numbers, until) = Numbers::endless();
    let counts = counting(&env, numbers);
    let job = env.execute_async().unwrap();
    checkpoint(&job);
    checkpoint(&job);
    let mut places = 0;
    while faults.injected() < failures {
        for operation in FAILING {
            for nth in 1.. {
                let before = faults.injected();
                faults.fail_nth(operation, nth, libc::EIO);
                // Whether it is taken, fails, or the job restarts, is a matter of where it fails.
                let outcome = job.trigger_checkpoint().wait();
                // What is cleared up in passing comes after the answer, and before the next one.
                checkpoint(&job);
                let was_hit = faults.injected() > before;
                faults.heal();
                if !was_hit {
                    outcome.unwrap();
                    break;
                }
                places += 1;
                assert!(nth < 1_000, "{operation:?} never ends");
            }
            // Sweeps what could not be removed.
            checkpoint(&job);
            checkpoint(&job);
        }
    }
    assert!(places >= 20, "only {places} places have failed");
    wait_until("two checkpoints", || checkpoints_in(dir.path()).len() == 2);
    wait_until("end of clearing up", || all_is_named(dir.path()));
    let most = last_counts(counts.take()).into_values().max().unwrap_or(0);
    // Exact for each digit only in tens.
    let all = (most * 5 + ALL).next_multiple_of(10);
    until.store(all, Relaxed);
    job.wait().unwrap();
    assert_eq!(last_counts(counts.take()), exact(all));
    let mut left = BTreeSet::new();
    files_below(&job_dir(dir.path()), &mut left);
    assert_eq!(left, BTreeSet::new(), "nothing is left of a job that has finished");
}
