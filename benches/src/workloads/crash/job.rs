//! The crash job: generator, rebalance, keyed state with timers, sliding windows, and files that appear with checkpoints.

use std::time::{Duration, Instant};

use thalweg::prelude::*;

use super::events::{DISORDER_MS, Events, GROUPS, SLIDE_MS, Visit, VisitView, WINDOW_MS, bucket_of, digest};
use super::files::{Row, RowView};

/// Builds the job.
pub(super) fn build<S: Sink<Row>>(env: &Environment, events: Events, records_per_s: f64, work: Duration, files: S) {
    let source = move |n: u64, out: &mut Out<'_, Visit>| events.with(n, |visit| out.push(visit));
    let disorder = Duration::from_millis(DISORDER_MS);
    let buckets = env
        .generate_to(events.count, Some(records_per_s), source)
        .uid("events")
        .assign_timestamps_and_watermarks(
            WatermarkStrategy::bounded_out_of_orderness(disorder).with_timestamp(|visit: VisitView| visit.at_ms),
        )
        .rebalance()
        .map_to(move |visit: VisitView, out: &mut Out<'_, Visit>| {
            spend(work);
            out.push(visit);
        })
        .name("Work")
        .key_by(|visit| visit.key)
        .process(Buckets::default())
        .name("Buckets")
        .uid("buckets")
        .shared();
    let windows = buckets
        .stream()
        .key_by(|row| row.key % GROUPS)
        .window(SlidingEventTimeWindows::of(millis(WINDOW_MS), millis(SLIDE_MS)))
        .aggregate(Totals, |key, window, total| Row {
            kind: "window".into(),
            key,
            end_ms: window.max_timestamp(),
            count: total.count,
            sum: total.sum,
            total: total.visits,
            digest: total.digest,
        })
        .name("Windows")
        .uid("windows");
    buckets.stream().union(windows).sink(files).uid("files");
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(ms.unsigned_abs())
}

/// Keeps the core busy.
fn spend(work: Duration) {
    if !work.is_zero() {
        let began = Instant::now();
        while began.elapsed() < work {
            std::hint::spin_loop();
        }
    }
}

/// A visit that waits for the end of its bucket.
#[derive(Record, Clone, Debug, PartialEq, Eq)]
struct Note {
    at_ms: i64,
    n: u64,
    tag: String,
}

/// What a key's open bucket holds.
#[derive(Record, Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    count: u64,
    sum: i64,
}

/// Gathers the visits of a key in buckets; a timer ends each.
#[derive(Clone, Default)]
struct Buckets {
    /// Visits of ended buckets.
    total: ValueState<u64>,
    /// Visits of open ones.
    notes: ListState<Note>,
    /// Open ones, by their last millisecond.
    open: MapState<i64, Sums>,
}

impl KeyedProcessFunction<u64, Visit> for Buckets {
    type Out = Row;

    fn open(&mut self, ctx: &mut StateContext<'_, u64>) {
        self.total = ctx.value_state("total");
        self.notes = ctx.list_state("notes");
        self.open = ctx.map_state("open");
    }

    fn process<E: Emit<Row>>(
        &mut self,
        visit: VisitView<'_>,
        ctx: &mut KeyContext<'_, u64>,
        _out: &mut Collector<'_, Row, E>,
    ) {
        let end_ms = bucket_of(visit.key, visit.at_ms);
        let sums = self.open.get(ctx, end_ms).map_or(Sums::default(), Sums::from_view);
        let sums = Sums { count: sums.count + 1, sum: sums.sum + visit.value };
        self.open.put(ctx, end_ms, sums.view());
        self.notes.add(ctx, NoteView { at_ms: visit.at_ms, n: visit.n, tag: visit.tag });
        ctx.register_event_time_timer(end_ms);
    }

    fn on_timer<E: Emit<Row>>(
        &mut self,
        end_ms: i64,
        _domain: TimeDomain,
        ctx: &mut KeyContext<'_, u64>,
        out: &mut Collector<'_, Row, E>,
    ) {
        let sums = self.open.get(ctx, end_ms).map_or(Sums::default(), Sums::from_view);
        self.open.remove(ctx, end_ms);
        let (mut digests, mut rest) = (0, Vec::new());
        for note in self.notes.get(ctx) {
            match note.at_ms <= end_ms {
                true => digests ^= digest(note.n, note.tag),
                false => rest.push(Note::from_view(note)),
            }
        }
        match rest.is_empty() {
            true => self.notes.clear(ctx),
            false => self.notes.replace(ctx, rest.iter().map(Note::view)),
        }
        let total = self.total.value(ctx).unwrap_or(0) + sums.count;
        self.total.set(ctx, total);
        out.collect(RowView {
            kind: "bucket",
            key: ctx.key(),
            end_ms,
            count: sums.count,
            sum: sums.sum,
            total,
            digest: digests,
        });
    }
}

/// What a window holds.
#[derive(Record, Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    count: u64,
    sum: i64,
    visits: u64,
    digest: u64,
}

/// Adds up buckets.
#[derive(Clone, Copy, Debug)]
struct Totals;

impl AggregateFunction<Row> for Totals {
    type Acc = Total;
    type Out = Total;
    const INVERTIBLE: bool = true;

    fn create(&self) -> Total {
        Total::default()
    }
    fn add(&self, acc: &mut Total, row: RowView<'_>) {
        acc.count += 1;
        acc.sum += row.sum;
        acc.visits += row.count;
        acc.digest ^= row.digest;
    }
    fn merge(&self, acc: &mut Total, other: &Total) {
        acc.count += other.count;
        acc.sum += other.sum;
        acc.visits += other.visits;
        acc.digest ^= other.digest;
    }
    fn retract(&self, acc: &mut Total, other: &Total) {
        acc.count -= other.count;
        acc.sum -= other.sum;
        acc.visits -= other.visits;
        acc.digest ^= other.digest;
    }
    fn result(&self, acc: &Total) -> Total {
        *acc
    }
}
