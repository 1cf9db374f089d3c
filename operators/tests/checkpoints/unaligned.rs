//! Barriers that overtake: behind a slow sink checkpoints complete all the same, and no record in flight is lost.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use thalweg::{prelude::*, sink::for_each};

use crate::numbers::*;

type Rows = Arc<Mutex<Vec<(u64, u64)>>>;

/// Counts by the last digit, in front of a sink that is slow as long as it is told to be.
fn slow_job(env: &Environment, numbers: Numbers) -> (Rows, Arc<AtomicBool>) {
    let (rows, slow) = (Rows::default(), Arc::new(AtomicBool::new(true)));
    let (taken, is_slow) = (rows.clone(), slow.clone());
    env.from_source("Numbers", numbers)
        .uid("numbers")
        .rebalance()
        .map(|n| n)
        .uid("map")
        .key_by(|n| n % 10)
        .aggregate(Count, |key, count| (key, count))
        .uid("count")
        .sink(for_each(move |row: (u64, u64)| {
            if is_slow.load(Relaxed) {
                std::thread::sleep(Duration::from_millis(2));
            }
            taken.lock().unwrap().push(row);
        }))
        .uid("sink")
        .parallelism(1)
        .slot_sharing_group("sink");
    (rows, slow)
}

pub fn unaligned(env: &Environment, aligned_timeout: Duration) {
    env.checkpoint_config(|options| {
        options.unaligned = true;
        options.aligned_timeout = aligned_timeout;
        options.retention = CheckpointRetention::RetainOnCancellation;
        options.timeout = Duration::from_secs(30);
    });
    env.configure_runtime(|config| {
        // Few and small, so that the way to the sink is full soon.
        (config.page_bytes, config.floating_buffers_per_gate) = (1024, 2);
    });
}

/// Runs the job until so many bytes were in flight in a checkpoint, and cancels it; answers the rows that were written.
fn run_into_backpressure(dir: &Path, parallelism: u32, aligned_timeout: Duration) -> Vec<(u64, u64)> {
    let env = environment_in(dir, parallelism);
    unaligned(&env, aligned_timeout);
    let (rows, _) = slow_job(&env, Numbers::endless().0);
    let job = env.execute_async().unwrap();
    wait_until("checkpoint with many records in flight", || {
        job.control().checkpoints().is_some_and(|statistics| {
            let newest = statistics.latest_completed();
            newest.is_some_and(|newest| newest.totals.persisted_bytes > 8_000)
        })
    });
    job.cancel();
    assert!(is_cancelled(job.wait()));
    let rows = rows.lock().unwrap();
    rows.clone()
}

/// Starts again at another parallelism, and runs to the end.
fn run_to_the_end(dir: &Path, parallelism: u32) -> Vec<(u64, u64)> {
    let env = restored(dir, None, parallelism);
    unaligned(&env, Duration::ZERO);
    let (numbers, until) = Numbers::endless();
    until.store(ALL, Relaxed);
    let (rows, slow) = slow_job(&env, numbers);
    slow.store(false, Relaxed);
    env.execute().unwrap();
    let rows = rows.lock().unwrap();
    rows.clone()
}

#[test]
fn when_barriers_overtake_then_records_in_flight_survive_a_change_of_parallelism() {
    for (before, after, aligned_timeout_ms) in [(2, 2, 0), (2, 3, 0), (3, 1, 0), (2, 1, 20)] {
        let dir = tempfile::tempdir().unwrap();
        let first = run_into_backpressure(dir.path(), before, Duration::from_millis(aligned_timeout_ms));
        let second = run_to_the_end(dir.path(), after);
        let case = format!("{before} to {after}, {aligned_timeout_ms} ms");
        assert_eq!(last_counts(second.clone()), exact(ALL), "{case}: each number is counted once");
        let all: BTreeSet<(u64, u64)> = first.into_iter().chain(second).collect();
        let expected: BTreeSet<(u64, u64)> =
            (0..10).flat_map(|digit| (1..=ALL / 5).map(move |count| (digit, count))).collect();
        assert!(all == expected, "{case}: a row that was in flight is missing");
    }
}
