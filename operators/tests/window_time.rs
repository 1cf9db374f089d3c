//! Windows at the edges of time: subtasks that become idle, and timestamps that no window has room for.

#[allow(dead_code, reason = "shared with the other tests")]
mod common;

use std::{sync::Arc, time::Duration};

use common::{metric, run, tiny};
use thalweg::{
    model::{Elem, time::MIN_WATERMARK},
    prelude::*,
    runtime::{Clock, SeededReactor, SegmentContext, SourceStatus},
    source::SourceError,
};

/// What a subtask of [`Scripted`] does.
#[derive(Clone, Copy)]
enum Act {
    Record(i64),
    Watermark(i64),
    Idle(bool),
}
use Act::*;

/// A source whose subtasks each do as they are told, at so many milliseconds from the start.
#[derive(Clone)]
struct Scripted {
    scripts: Vec<Vec<(u64, Act)>>,
    own: Vec<(u64, Act)>,
    done: usize,
    emitted: u64,
    clock: Option<Arc<dyn Clock>>,
    started_ns: u64,
}

impl Scripted {
    fn new(scripts: &[&[(u64, Act)]]) -> Self {
        let scripts = scripts.iter().map(|script| script.to_vec()).collect();
        Self { scripts, own: Vec::new(), done: 0, emitted: 0, clock: None, started_ns: 0 }
    }
}

impl Source for Scripted {
    type Out = i64;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), SourceError> {
        self.own = self.scripts[ctx.subtask as usize].clone();
        self.started_ns = ctx.clock.now_ns();
        self.clock = Some(ctx.clock.clone());
        Ok(())
    }

    fn poll<E: Emit<i64>>(&mut self, _budget: usize, emit: &mut E) -> Result<SourceStatus, SourceError> {
        let Some(&(at_ms, act)) = self.own.get(self.done) else { return Ok(SourceStatus::Ended) };
        let due_ns = self.started_ns + at_ms * 1_000_000;
        if self.clock.as_ref().is_some_and(|clock| clock.now_ns() < due_ns) {
            return Ok(SourceStatus::Wait { until_ns: Some(due_ns) });
        }
        self.done += 1;
        match act {
            Record(timestamp) => {
                self.emitted += 1;
                emit.emit(Elem::new(timestamp, timestamp));
            }
            Watermark(watermark) => emit.watermark(watermark),
            Idle(idle) => emit.idle(idle),
        }
        Ok(SourceStatus::More)
    }

    fn emitted(&self) -> u64 {
        self.emitted
    }
}

#[test]
fn when_a_subtask_becomes_idle_then_windows_over_all_have_its_records_and_later_ones_are_counted() {
    let script = Scripted::new(&[
        &[
            (1_000, Record(5)),
            (1_001, Record(17)),
            (1_002, Idle(true)),
            // It is back in time for more of the same slice, and idle again.
            (2_000, Idle(false)),
            (2_001, Record(7)),
            (2_002, Idle(true)),
            // Now the window has fired.
            (4_000, Idle(false)),
            (4_001, Record(8)),
            (4_002, Record(28)),
        ],
        &[(1_500, Record(6)), (3_000, Watermark(12)), (5_000, Record(18))],
    ]);
    for seed in 0..10 {
        let env = tiny(2);
        let (sink, out) = collect();
        env.from_timed_source("scripted", script.clone())
            .window_all(TumblingEventTimeWindows::of(Duration::from_millis(10)))
            .aggregate(Count, |window, count| (window.start_ms, count))
            .sink(sink);
        run(&env, seed);
        let mut rows = out.take();
        rows.sort_unstable();
        assert_eq!(rows, [(0, 3), (10, 2), (20, 1)], "seed {seed}");
        // What is dropped there is the accumulator of a slice; nobody has counted the records in it.
        assert_eq!(metric(&env, "GlobalWindow", "numLateRecordsDropped"), Some(1.0), "seed {seed}");
        assert_eq!(metric(&env, "LocalWindow", "numLateRecordsDropped"), Some(0.0), "seed {seed}");
    }
}

#[test]
fn when_a_record_is_late_in_a_gap_between_windows_over_all_then_it_is_counted() {
    let env = tiny(1);
    let (sink, out) = collect();
    env.from_timed_source(
        "scripted",
        Scripted::new(&[&[(0, Record(3)), (1, Watermark(8)), (2, Record(7)), (3, Record(9))]]),
    )
    .window_all(SlidingEventTimeWindows::of(Duration::from_millis(5), Duration::from_millis(10)))
    .aggregate(Count, |window, count| (window.start_ms, count))
    .sink(sink);
    run(&env, 1);
    assert_eq!(out.take(), [(0, 1)]);
    assert_eq!(metric(&env, "LocalWindow", "numLateRecordsDropped"), Some(1.0));
}

#[test]
fn when_a_window_has_no_place_in_time_then_the_job_fails_and_says_which_timestamp() {
    let window = TumblingEventTimeWindows::of(Duration::from_millis(10));
    for timestamp in [i64::MAX - 1, i64::MIN + 1, MIN_WATERMARK] {
        for kind in 0..3 {
            let env = tiny(1);
            let records =
                env.from_timed_source("scripted", Scripted::new(&[&[(0, Record(5)), (1, Record(timestamp))]]));
            let operator = match kind {
                0 => {
                    records.window_all(window).aggregate(Count, |_, count| count).sink(discard().0);
                    "LocalWindow"
                }
                1 => {
                    let windows = records.key_by(|_| 0u64).window(window);
                    windows.aggregate(Count, |_, _, count| count).sink(discard().0);
                    "Window"
                }
                _ => {
                    let windows = records.key_by(|_| 0u64).window(window);
                    windows.process(|_, _, all, out: &mut Out<'_, u64>| out.push(all.len() as u64)).sink(discard().0);
                    "Window"
                }
            };
            let error = env.execute_on(&SeededReactor::new(1)).unwrap_err().to_string();
            let cause = if timestamp == MIN_WATERMARK { "without a timestamp" } else { "check that timestamps are" };
            assert!(
                error.contains(&timestamp.to_string()) && error.contains(cause) && error.contains(operator),
                "{error}"
            );
        }
    }
}

#[test]
fn when_a_record_is_as_far_back_or_ahead_as_windows_fit_then_it_is_counted() {
    let env = tiny(1);
    let (sink, out) = collect();
    let (first, last) = (i64::MIN + 30, i64::MAX - 30);
    env.from_timed_source("scripted", Scripted::new(&[&[(0, Record(first)), (1, Record(0)), (2, Record(last))]]))
        .key_by(|_| 0u64)
        .window(SlidingEventTimeWindows::of(Duration::from_millis(10), Duration::from_millis(5)))
        .aggregate(Count, |_, window, count| (window.start_ms, count))
        .sink(sink);
    run(&env, 1);
    let rows = out.take();
    assert_eq!(rows.len(), 6, "{rows:?}");
    assert!(rows.iter().all(|(start_ms, count)| {
        *count == 1 && [first, 0, last].iter().any(|at| start_ms <= at && at - start_ms < 10)
    }));
}
