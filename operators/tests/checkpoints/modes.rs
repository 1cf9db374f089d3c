//! `execution.checkpointing.mode`: exactly-once holds back the input whose barrier has come until those of the others have;
//! at-least-once lets it go on, so that the state of a checkpoint is ahead of its positions and a restart counts twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use thalweg::{model::config::Configuration, prelude::*};

use crate::numbers::{PATIENCE, environment, last_counts, restarts, wait_until};

/// Records of the source that keeps its pace: some seconds.
const FAST: u64 = 60_000;
const FAST_PER_S: f64 = 20_000.0;
/// Records of the one that stands still in the middle until it is told to go on, and sends no barrier meanwhile.
const SLOW: u64 = 100;
/// If nothing comes for so long, nothing does.
const QUIET: Duration = Duration::from_millis(300);

/// Whether records of the fast source went on while the barrier of the slow one was missing, and how often those of either
/// were counted in the end, after a failure behind that checkpoint.
fn run(mode: &str) -> (bool, u64, u64) {
    let env = environment(1);
    let yaml = format!("execution.checkpointing: {{mode: {mode}, interval: 1 h}}");
    env.configure(&Configuration::builder().yaml("config.yaml", &yaml).unwrap().build().unwrap().0);
    env.restart_strategy(restarts(1));
    let (stands, may_go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (seen, fails) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (is_standing, goes_on) = (stands.clone(), may_go_on.clone());
    let slow = env
        .generate_at_rate(SLOW, 1_000.0, move |n| {
            is_standing.fetch_or(n == SLOW / 2, Relaxed);
            while n == SLOW / 2 && !goes_on.load(Relaxed) {
                sleep(Duration::from_millis(1));
            }
            2 * n + 1
        })
        .uid("slow")
        // A thread of its own, or the others would stand still with it.
        .slot_sharing_group("slow");
    let (sink, counts) = collect();
    let (counted, failing) = (seen.clone(), fails.clone());
    env.generate_at_rate(FAST, FAST_PER_S, |n| 2 * n)
        .uid("fast")
        .union(slow)
        .map(move |n| {
            counted.fetch_add(1, Relaxed);
            assert!(!failing.swap(false, Relaxed), "on purpose");
            n
        })
        .slot_sharing_group("count")
        .key_by(|n| n % 2)
        .aggregate(Count, |key, count| (key, count))
        .uid("count")
        .slot_sharing_group("count")
        .sink(sink);
    let job = env.execute_async().unwrap();
    wait_until("the slow one stands still", || stands.load(Relaxed));
    let checkpoint = job.trigger_checkpoint();
    let went_on = goes_on_for(&seen, FAST / 6);
    may_go_on.store(true, Relaxed);
    checkpoint.wait().unwrap();
    fails.store(true, Relaxed);
    job.wait().unwrap();
    assert!(!fails.load(Relaxed), "it was to fail");
    let last = last_counts(counts.take());
    (went_on, last[&0], last[&1])
}

/// Whether so many more are counted before there is a pause.
fn goes_on_for(seen: &AtomicU64, more: u64) -> bool {
    let (began, first) = (Instant::now(), seen.load(Relaxed));
    let (mut last, mut since) = (first, began);
    while last < first + more {
        assert!(began.elapsed() < PATIENCE, "neither goes on nor stands still");
        if since.elapsed() >= QUIET {
            return false;
        }
        sleep(Duration::from_millis(1));
        let now = seen.load(Relaxed);
        if now > last {
            (last, since) = (now, Instant::now());
        }
    }
    true
}

#[test]
fn when_exactly_once_then_inputs_wait_for_each_other_and_at_least_once_holds_nothing_back() {
    assert_eq!(run("EXACTLY_ONCE"), (false, FAST, SLOW));
    let (went_on, fast, slow) = run("AT_LEAST_ONCE");
    assert!(went_on && fast >= FAST + FAST / 12 && slow == SLOW, "{went_on}, {fast} and {slow}");
}
