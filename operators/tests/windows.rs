//! Windows against a plain evaluation: shapes, aggregates, parallelisms, seeds; and lateness, record by record.

mod common;

use std::{collections::BTreeMap, time::Duration};

use common::{Random, run, tiny};
use thalweg::prelude::*;

/// Key, value, timestamp.
type Event = (u64, i64, i64);

fn events(seed: u64, count: usize, disorder_ms: u64) -> Vec<Event> {
    let mut random = Random::new(seed);
    let mut now_ms = -500i64;
    (0..count)
        .map(|_| {
            now_ms += random.below(7) as i64;
            (random.below(9), random.below(1000) as i64 - 500, now_ms - random.below(disorder_ms + 1) as i64)
        })
        .collect()
}

/// Per window start and key: the values in it, sorted.
fn expected(events: &[Event], size_ms: i64, slide_ms: i64) -> BTreeMap<(i64, u64), Vec<i64>> {
    let mut windows: BTreeMap<(i64, u64), Vec<i64>> = BTreeMap::new();
    for &(key, value, timestamp) in events {
        let mut start = timestamp.div_euclid(slide_ms) * slide_ms;
        while start > timestamp - size_ms {
            windows.entry((start, key)).or_default().push(value);
            start -= slide_ms;
        }
    }
    windows.values_mut().for_each(|values| values.sort());
    windows
}

/// A maximum: mergeable, not invertible.
#[derive(Clone)]
struct Max;

impl AggregateFunction<Event> for Max {
    type Acc = Option<i64>;
    type Out = i64;

    fn create(&self) -> Option<i64> {
        None
    }
    fn add(&self, acc: &mut Option<i64>, value: Event) {
        *acc = (*acc).max(Some(value.1));
    }
    fn merge(&self, acc: &mut Option<i64>, other: &Option<i64>) {
        *acc = (*acc).max(*other);
    }
    fn result(&self, acc: &Option<i64>) -> i64 {
        acc.expect("a window that fires has a record")
    }
}

fn strategy() -> WatermarkStrategy<impl for<'v> FnMut(Event) -> i64 + Clone + Send + 'static> {
    WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(40)).with_timestamp(|event: Event| event.2)
}

fn windows(size_ms: i64, slide_ms: i64) -> SlidingEventTimeWindows {
    SlidingEventTimeWindows::of(Duration::from_millis(size_ms as u64), Duration::from_millis(slide_ms as u64))
}

#[test]
fn when_windows_overlap_or_not_then_all_aggregates_match_a_plain_evaluation() {
    for seed in 0..12 {
        for (size_ms, slide_ms) in [(100, 100), (100, 50), (100, 10), (70, 30), (30, 100)] {
            let parallelism = 1 + (seed % 3) as u32;
            let input = events(seed, 600, 40);
            let expected = expected(&input, size_ms, slide_ms);

            let env = tiny(parallelism);
            let timed = env.from_iter(input).assign_timestamps_and_watermarks(strategy()).shared();
            let (sums, sums_out) = collect();
            timed
                .stream()
                .key_by(|event| event.0)
                .window(windows(size_ms, slide_ms))
                .aggregate(Sum(|event: Event| event.1), |key, window, sum| (window.start_ms, key, sum))
                .sink(sums);
            let (counts, counts_out) = collect();
            timed
                .stream()
                .key_by(|event| event.0)
                .window(windows(size_ms, slide_ms))
                .aggregate(Count, |key, window, count| (window.start_ms, key, count as i64))
                .sink(counts);
            let (maxima, maxima_out) = collect();
            timed
                .stream()
                .key_by(|event| event.0)
                .window(windows(size_ms, slide_ms))
                .aggregate(Max, |key, window, max| (window.start_ms, key, max))
                .sink(maxima);
            let (minima, minima_out) = collect();
            timed
                .stream()
                .key_by(|event| event.0)
                .window(windows(size_ms, slide_ms))
                .reduce(|a, b| if a.1 <= b.1 { a } else { b }, |key, window, min| (window.start_ms, key, min.1))
                .sink(minima);
            let (lists, lists_out) = collect();
            timed
                .stream()
                .key_by(|event| event.0)
                .window(windows(size_ms, slide_ms))
                .process(|key, window, elements, out: &mut Out<'_, (i64, u64, Vec<i64>)>| {
                    let mut values: Vec<i64> = elements.iter().map(|event| event.1).collect();
                    values.sort();
                    out.push((window.start_ms, key, Seq::from_slice(&values)));
                })
                .sink(lists);
            let (all, all_out) = collect();
            timed
                .stream()
                .window_all(windows(size_ms, slide_ms))
                .aggregate(Max, |window, max| (window.start_ms, max))
                .sink(all);
            run(&env, seed);

            let case = format!("seed {seed}, size {size_ms}, slide {slide_ms}, parallelism {parallelism}");
            let check = |mut rows: Vec<(i64, u64, i64)>, of: &dyn Fn(&[i64]) -> i64| {
                rows.sort();
                let wanted: Vec<_> = expected.iter().map(|(&(start, key), values)| (start, key, of(values))).collect();
                assert_eq!(rows, wanted, "{case}");
            };
            check(sums_out.take(), &|values| values.iter().sum());
            check(counts_out.take(), &|values| values.len() as i64);
            check(maxima_out.take(), &|values| values[values.len() - 1]);
            check(minima_out.take(), &|values| values[0]);
            let mut rows = lists_out.take();
            rows.sort();
            let wanted: Vec<_> = expected.iter().map(|(&(start, key), values)| (start, key, values.clone())).collect();
            assert_eq!(rows, wanted, "{case}");
            let mut over_all: BTreeMap<i64, i64> = BTreeMap::new();
            for (&(start, _), values) in &expected {
                let max = over_all.entry(start).or_insert(i64::MIN);
                *max = (*max).max(values[values.len() - 1]);
            }
            let mut rows = all_out.take();
            rows.sort();
            assert_eq!(rows, over_all.into_iter().collect::<Vec<_>>(), "{case}");
        }
    }
}

/// A watermark after every record, `delay` behind the largest timestamp.
struct Punctuated {
    largest: i64,
    delay_ms: i64,
}

impl WatermarkGenerator for Punctuated {
    fn on_event(&mut self, timestamp: i64) -> Option<i64> {
        self.largest = self.largest.max(timestamp);
        Some(self.largest - self.delay_ms)
    }
    fn on_periodic(&mut self) -> Option<i64> {
        None
    }
}

/// What Flink's window operator does with one record after the other: (start, key, count) rows, and the late records.
fn flink(
    events: &[Event],
    size_ms: i64,
    slide_ms: i64,
    delay_ms: i64,
    lateness_ms: i64,
) -> (Vec<(i64, u64, i64)>, Vec<Event>) {
    let (mut rows, mut late) = (Vec::new(), Vec::new());
    let mut counts: BTreeMap<(i64, u64), i64> = BTreeMap::new();
    let (mut watermark, mut largest) = (i64::MIN, i64::MIN);
    for &event in events {
        let (key, _, timestamp) = event;
        let mut start = timestamp.div_euclid(slide_ms) * slide_ms;
        let mut taken = false;
        while start > timestamp - size_ms {
            let max_timestamp = start + size_ms - 1;
            if max_timestamp.saturating_add(lateness_ms) > watermark {
                taken = true;
                let count = counts.entry((start, key)).or_default();
                *count += 1;
                if max_timestamp <= watermark {
                    rows.push((start, key, *count));
                }
            }
            start -= slide_ms;
        }
        // One in a gap between windows has none that could take it.
        if !taken && timestamp.saturating_add(lateness_ms) <= watermark {
            late.push(event);
        }
        largest = largest.max(timestamp);
        let next = largest - delay_ms;
        for (&(start, key), &count) in &counts {
            let max_timestamp = start + size_ms - 1;
            if max_timestamp > watermark && max_timestamp <= next {
                rows.push((start, key, count));
            }
        }
        watermark = watermark.max(next);
        counts.retain(|&(start, _), _| (start + size_ms - 1).saturating_add(lateness_ms) > watermark);
    }
    rows.extend(
        counts
            .iter()
            .filter(|((start, _), _)| start + size_ms - 1 > watermark)
            .map(|(&(start, key), &count)| (start, key, count)),
    );
    (rows, late)
}

#[test]
fn when_records_are_late_then_windows_refire_or_the_side_output_gets_them() {
    for seed in 0..20 {
        let shapes = [(50, 50, 0), (50, 50, 30), (60, 20, 0), (60, 20, 25), (30, 70, 0), (30, 70, 15)];
        for (size_ms, slide_ms, lateness_ms) in shapes {
            let input = events(seed, 300, 120);
            let (mut wanted, mut wanted_late) = flink(&input, size_ms, slide_ms, 10, lateness_ms);
            let env = tiny(1);
            let tag = OutputTag::<Event>::new("late");
            let generator = || Punctuated { largest: i64::MIN, delay_ms: 10 };
            let counts = env
                .from_iter(input)
                .assign_timestamps_and_watermarks(
                    WatermarkStrategy::generator(generator).with_timestamp(|event: Event| event.2),
                )
                .key_by(|event| event.0)
                .window(windows(size_ms, slide_ms))
                .allowed_lateness(Duration::from_millis(lateness_ms as u64))
                .side_output_late_data(&tag)
                .aggregate(Count, |key, window, count| (window.start_ms, key, count as i64));
            let (late, late_out) = collect();
            counts.side_output(&tag).sink(late);
            let (sink, out) = collect();
            counts.sink(sink);
            run(&env, seed);
            let case = format!("seed {seed}, size {size_ms}, slide {slide_ms}, lateness {lateness_ms}");
            let (mut rows, mut late_rows) = (out.take(), late_out.take());
            rows.sort();
            wanted.sort();
            assert_eq!(rows, wanted, "{case}");
            late_rows.sort();
            wanted_late.sort();
            assert_eq!(late_rows, wanted_late, "{case}");
        }
    }
}

#[test]
fn when_records_are_late_for_some_windows_over_all_then_only_the_others_take_them_and_each_fires_once() {
    for seed in 0..20 {
        for (size_ms, slide_ms) in [(50, 50), (60, 20), (30, 70)] {
            let input: Vec<Event> = events(seed, 300, 120).into_iter().map(|(_, value, at)| (0, value, at)).collect();
            let (mut wanted, _) = flink(&input, size_ms, slide_ms, 10, 0);
            let env = tiny(1);
            let generator = || Punctuated { largest: i64::MIN, delay_ms: 10 };
            let (sink, out) = collect();
            env.from_iter(input)
                .assign_timestamps_and_watermarks(
                    WatermarkStrategy::generator(generator).with_timestamp(|event: Event| event.2),
                )
                .window_all(windows(size_ms, slide_ms))
                .aggregate(Count, |window, count| (window.start_ms, 0, count as i64))
                .sink(sink);
            run(&env, seed);
            let mut rows = out.take();
            rows.sort();
            wanted.sort();
            assert_eq!(rows, wanted, "seed {seed}, size {size_ms}, slide {slide_ms}");
        }
    }
}
