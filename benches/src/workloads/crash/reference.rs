//! What the crash job must commit: a plain evaluation of its events, without the engine.

use std::collections::BTreeMap;

use super::events::{Events, GROUPS, SLIDE_MS, WINDOW_MS, bucket_of, digest};
use super::files::Row;

/// All rows, in no particular order.
pub(super) fn rows(events: Events) -> Vec<Row> {
    let mut rows = buckets(events);
    let windows = windows(&rows);
    rows.extend(windows);
    rows
}

/// A row for each key and bucket with a visit.
fn buckets(events: Events) -> Vec<Row> {
    // By key, then by time: totals run along.
    let mut buckets: BTreeMap<(u64, i64), Row> = BTreeMap::new();
    for n in 0..events.count {
        events.with(n, |visit| {
            let (key, end_ms) = (visit.key, bucket_of(visit.key, visit.at_ms));
            let new = || Row { kind: "bucket".into(), key, end_ms, count: 0, sum: 0, total: 0, digest: 0 };
            let bucket = buckets.entry((key, end_ms)).or_insert_with(new);
            bucket.count += 1;
            bucket.sum += visit.value;
            bucket.digest ^= digest(visit.n, visit.tag);
        });
    }
    let (mut last, mut total) = (None, 0);
    for (&(key, _), bucket) in &mut buckets {
        if last != Some(key) {
            (last, total) = (Some(key), 0);
        }
        total += bucket.count;
        bucket.total = total;
    }
    buckets.into_values().collect()
}

/// A row for each group of keys and window with the end of a bucket.
fn windows(buckets: &[Row]) -> Vec<Row> {
    let mut windows: BTreeMap<(u64, i64), Row> = BTreeMap::new();
    for bucket in buckets {
        let key = bucket.key % GROUPS;
        let last = bucket.end_ms.div_euclid(SLIDE_MS) * SLIDE_MS;
        let starts = (0..WINDOW_MS / SLIDE_MS).map(|back| last - back * SLIDE_MS);
        for end_ms in starts.map(|start| start + WINDOW_MS - 1) {
            let new = || Row { kind: "window".into(), key, end_ms, count: 0, sum: 0, total: 0, digest: 0 };
            let window = windows.entry((key, end_ms)).or_insert_with(new);
            window.count += 1;
            window.sum += bucket.sum;
            window.total += bucket.count;
            window.digest ^= bucket.digest;
        }
    }
    windows.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_events_are_evaluated_then_each_visit_is_in_one_bucket_and_each_bucket_in_three_windows() {
        let rows = rows(Events { seed: 1, count: 30_000 });
        let of = |kind: &str| rows.iter().filter(|row| row.kind == kind).cloned().collect::<Vec<_>>();
        let (buckets, windows) = (of("bucket"), of("window"));
        assert_eq!(buckets.iter().map(|row| row.count).sum::<u64>(), 30_000);
        assert_eq!(windows.iter().map(|row| row.count).sum::<u64>(), 3 * buckets.len() as u64);
        assert_eq!(windows.iter().map(|row| row.total).sum::<u64>(), 3 * 30_000);
        let last = buckets.iter().rev().find(|row| row.key == 7).unwrap();
        let all = buckets.iter().filter(|row| row.key == 7).map(|row| row.count).sum::<u64>();
        assert_eq!(last.total, all, "totals run along");
    }
}
