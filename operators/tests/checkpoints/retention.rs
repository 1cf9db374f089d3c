//! What is kept of checkpoints when a job ends, by how it ends.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use thalweg::prelude::*;

use crate::numbers::{
    Numbers, checkpoints_in, completed, environment_in, finish, is_cancelled, leave_checkpoints, restored, wait_until,
};

#[derive(Clone, Copy, Debug)]
enum End {
    Finished,
    Cancelled,
    Failed,
}

#[test]
fn when_a_job_ends_then_retention_decides_what_is_kept() {
    use CheckpointRetention::*;
    use End::*;
    for (retention, end, kept) in [
        (RetainOnCancellation, Finished, false),
        (RetainOnCancellation, Cancelled, true),
        (RetainOnCancellation, Failed, true),
        (DeleteOnCancellation, Cancelled, false),
        (DeleteOnCancellation, Failed, true),
        (NoExternalizedCheckpoints, Cancelled, false),
        (NoExternalizedCheckpoints, Failed, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let env = environment_in(dir.path(), 2);
        env.checkpoint_config(|options| options.retention = retention).restart_strategy(RestartStrategyOptions::None);
        let (numbers, until) = Numbers::endless();
        let fail = Arc::new(AtomicBool::new(false));
        let now = fail.clone();
        env.from_source("Numbers", numbers)
            .map(move |n| if now.load(Relaxed) { panic!("as wanted") } else { n })
            .sink(discard().0);
        let job = env.execute_async().unwrap();
        wait_until("two checkpoints", || completed(&job) >= 2);
        match end {
            Finished => until.store(0, Relaxed),
            Cancelled => job.cancel(),
            Failed => fail.store(true, Relaxed),
        }
        let result = job.wait();
        match end {
            Finished => drop(result.unwrap()),
            Cancelled => assert!(is_cancelled(result)),
            Failed => assert!(result.unwrap_err().to_string().contains("panicked: as wanted")),
        }
        assert_eq!(checkpoints_in(dir.path()).len(), usize::from(kept), "{retention:?}, {end:?}");
    }
}

/// As does one that is refused what it asked for, such as a state of another type.
#[test]
fn when_a_job_fails_before_a_checkpoint_of_its_own_then_what_it_went_on_from_stays() {
    let dir = tempfile::tempdir().unwrap();
    let kept = leave_checkpoints(dir.path(), 1, |_| {});
    let env = restored(dir.path(), None, 2);
    env.checkpoint_config(|options| options.retention = CheckpointRetention::NoExternalizedCheckpoints)
        .restart_strategy(RestartStrategyOptions::None)
        .recovery(|options| options.ignore_unclaimed_state = true);
    let (numbers, _) = Numbers::endless();
    env.from_source("Numbers", numbers)
        .uid("numbers")
        .map(|n| if n < u64::MAX { panic!("at once") } else { n })
        .sink(discard().0);
    assert!(env.execute().unwrap_err().to_string().contains("panicked: at once"));
    assert_eq!(checkpoints_in(dir.path()), kept);
    assert_eq!(finish(&restored(dir.path(), None, 2)), kept.last().copied());
}
