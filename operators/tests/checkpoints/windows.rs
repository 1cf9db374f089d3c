//! Windows over changes of parallelism: each fires once, with all of its records.

use std::{collections::BTreeMap, path::PathBuf, sync::atomic::Ordering::Relaxed, time::Duration};

use thalweg::{prelude::*, runtime::StopMode, sink::Collected};

use crate::numbers::*;

const SIZE_MS: i64 = 50;
const SLIDE_MS: i64 = 10;
const KEYS: u64 = 17;
/// Numbers of each split in all: more than the stopped jobs come to.
const EACH: u64 = 20_000;

/// Key, begin of a window, and how many records it has.
type Row = (u64, i64, u64);

/// What has windows.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Aggregate,
    List,
    /// Over all records, as if they had one key.
    All,
}

const KINDS: [Kind; 3] = [Kind::Aggregate, Kind::List, Kind::All];

/// When numbers are, by the place that they have in their split.
#[derive(Clone, Copy)]
struct Times {
    at_ms: fn(i64) -> i64,
    /// How far they may be apart without being late.
    apart_ms: u64,
}

/// Counts by key in windows.
fn counting_windows(env: &Environment, numbers: Numbers, kind: Kind, times: Times) -> Collected<Row> {
    let (sink, rows) = collect();
    let Times { at_ms, apart_ms } = times;
    let strategy = WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(apart_ms));
    let timed = env
        .from_source("Numbers", numbers)
        .uid("numbers")
        .assign_timestamps_and_watermarks(strategy.with_timestamp(move |n: u64| at_ms((n % SPLIT) as i64)));
    let [size, slide] = [SIZE_MS, SLIDE_MS].map(|ms| Duration::from_millis(ms as u64));
    let windows = SlidingEventTimeWindows::of(size, slide);
    if kind == Kind::All {
        timed
            .window_all(windows)
            .aggregate(Count, |window, count| (0, window.start_ms, count))
            .uid("windows")
            .sink(sink);
        return rows;
    }
    let windows = timed.key_by(|n| n % KEYS).window(windows);
    if kind == Kind::Aggregate {
        windows.aggregate(Count, |key, window, count| (key, window.start_ms, count)).uid("windows").sink(sink);
    } else {
        windows
            .process(|key: u64, window: TimeWindow, all: WindowElements<'_, u64>, out: &mut Out<'_, Row>| {
                out.push((key, window.start_ms, all.len() as u64));
            })
            .uid("windows")
            .sink(sink);
    }
    rows
}

/// Runs the job at these parallelisms, each after the first from the savepoint of the one before, the last one to its end.
fn rows_of(kind: Kind, times: Times, parallelisms: [u32; 3]) -> BTreeMap<(u64, i64), u64> {
    let dir = tempfile::tempdir().unwrap();
    let checkpoints = dir.path().join("checkpoints");
    let (mut fired, mut savepoint) = (BTreeMap::new(), None::<PathBuf>);
    for (n, parallelism) in parallelisms.into_iter().enumerate() {
        let env = match &savepoint {
            None => environment_in(&checkpoints, parallelism),
            Some(path) => restored(&checkpoints, Some(path), parallelism),
        };
        let (numbers, until) = Numbers::endless();
        let rows = counting_windows(&env, numbers, kind, times);
        let mut all = Vec::new();
        if n + 1 == parallelisms.len() {
            until.store(EACH, Relaxed);
            env.execute().unwrap();
        } else {
            let job = env.execute_async().unwrap();
            wait_until("windows that fire", || {
                all.extend(rows.take());
                !all.is_empty() && completed(&job) > 0
            });
            let taken =
                job.stop_with_savepoint(Some(&dir.path().join("savepoints")), StopMode::Suspend).wait().unwrap();
            job.wait().unwrap();
            savepoint = Some(taken.location.into());
        }
        all.extend(rows.take());
        assert!(!all.is_empty());
        for (key, start_ms, count) in all {
            let before = fired.insert((key, start_ms), count);
            assert_eq!(
                before, None,
                "{kind:?}, run {n}: window {start_ms} of key {key} has fired before, now with {count}"
            );
        }
    }
    fired
}

/// The same without the engine.
fn expected(keys: u64) -> BTreeMap<(u64, i64), u64> {
    let mut counts = BTreeMap::new();
    for at in 0..EACH as i64 {
        let last = at.div_euclid(SLIDE_MS) * SLIDE_MS;
        for start_ms in (0..SIZE_MS / SLIDE_MS).map(|n| last - n * SLIDE_MS) {
            for split in [0, SPLIT] {
                *counts.entry(((split + at as u64) % keys, start_ms)).or_default() += 1;
            }
        }
    }
    counts
}

#[test]
fn when_parallelism_changes_then_no_window_is_lost_and_none_fires_twice() {
    for kind in KINDS {
        let fired = rows_of(kind, Times { at_ms: |place| place, apart_ms: 3_000 }, [1, 3, 2]);
        let expected = expected(if kind == Kind::All { 1 } else { KEYS });
        assert!(fired == expected, "{kind:?}: a window is missing, or has other records than it should");
    }
}

#[test]
fn when_records_for_windows_that_have_fired_come_after_a_restore_then_these_do_not_fire_again() {
    for kind in KINDS {
        // One in fifty is of the first windows. Behind a restore they come before any watermark.
        let at_ms = |place| if place % 50 == 49 { 10 } else { place };
        rows_of(kind, Times { at_ms, apart_ms: 0 }, [1, 1, 2]);
    }
}
