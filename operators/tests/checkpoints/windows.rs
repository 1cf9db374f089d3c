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

/// Counts by key, in windows of the place that a number has in its split; splits may be far apart.
fn counting_windows(env: &Environment, numbers: Numbers, invertible: bool) -> Collected<Row> {
    let (sink, rows) = collect();
    let apart = Duration::from_millis(3_000);
    let windows = env
        .from_source("Numbers", numbers)
        .uid("numbers")
        .assign_timestamps_and_watermarks(
            WatermarkStrategy::bounded_out_of_orderness(apart).with_timestamp(|n| (n % SPLIT) as i64),
        )
        .key_by(|n| n % KEYS)
        .window(SlidingEventTimeWindows::of(
            Duration::from_millis(SIZE_MS as u64),
            Duration::from_millis(SLIDE_MS as u64),
        ));
    if invertible {
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

/// The same without the engine.
fn expected() -> BTreeMap<(u64, i64), u64> {
    let mut counts = BTreeMap::new();
    for at in 0..EACH as i64 {
        let last = at.div_euclid(SLIDE_MS) * SLIDE_MS;
        for start_ms in (0..SIZE_MS / SLIDE_MS).map(|n| last - n * SLIDE_MS) {
            for split in [0, SPLIT] {
                *counts.entry(((split + at as u64) % KEYS, start_ms)).or_default() += 1;
            }
        }
    }
    counts
}

#[test]
fn when_parallelism_changes_then_no_window_is_lost_and_none_fires_twice() {
    for invertible in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = dir.path().join("checkpoints");
        let (mut all, mut savepoint) = (Vec::new(), None::<PathBuf>);
        for parallelism in [1, 3] {
            let env = match &savepoint {
                None => environment_in(&checkpoints, parallelism),
                Some(path) => restored(&checkpoints, Some(path), parallelism),
            };
            let rows = counting_windows(&env, Numbers::endless().0, invertible);
            let job = env.execute_async().unwrap();
            let before = all.len();
            wait_until("windows that fire", || {
                all.extend(rows.take());
                all.len() > before && completed(&job) > 0
            });
            let taken =
                job.stop_with_savepoint(Some(&dir.path().join("savepoints")), StopMode::Suspend).wait().unwrap();
            job.wait().unwrap();
            all.extend(rows.take());
            savepoint = Some(taken.location.into());
        }
        let env = restored(&checkpoints, savepoint.as_deref(), 2);
        let (numbers, until) = Numbers::endless();
        until.store(EACH, Relaxed);
        let rows = counting_windows(&env, numbers, invertible);
        env.execute().unwrap();
        let stopped = all.len();
        all.extend(rows.take());
        assert!(0 < stopped && stopped < all.len());

        let mut fired = BTreeMap::new();
        for (key, start_ms, count) in all {
            let twice = fired.insert((key, start_ms), count);
            assert_eq!(twice, None, "window {start_ms} of key {key} has fired twice, the second time with {count}");
        }
        assert!(fired == expected(), "a window is missing, or has other records than it should");
    }
}
