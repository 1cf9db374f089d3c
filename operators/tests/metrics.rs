//! What operators show of themselves while a job runs, and when it has ended.

#[allow(dead_code, reason = "shared with the other tests")]
mod common;

use std::{fs, sync::Arc};

use common::{metric, run, tiny};
use thalweg::{
    model::Elem,
    prelude::*,
    runtime::{Clock, SegmentContext, SourceStatus},
    source::SourceError,
};

/// Counts from 1: a record each second, and half a second later its number as watermark. Lets its slot look at the clock in
/// between.
#[derive(Clone, Default)]
struct EachSecond {
    clock: Option<Arc<dyn Clock>>,
    ticks: u64,
    emitted: u64,
}

const RECORDS: u64 = 5;
const TICK_NS: u64 = 100_000_000;

impl Source for EachSecond {
    type Out = u64;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), SourceError> {
        self.clock = Some(ctx.clock.clone());
        Ok(())
    }

    fn poll<E: Emit<u64>>(&mut self, _budget: usize, emit: &mut E) -> Result<SourceStatus, SourceError> {
        if self.ticks == 10 * RECORDS + 9 {
            return Ok(SourceStatus::Ended);
        }
        let due_ns = (self.ticks + 1) * TICK_NS;
        if self.clock.as_ref().is_some_and(|clock| clock.now_ns() < due_ns) {
            return Ok(SourceStatus::Wait { until_ns: Some(due_ns) });
        }
        self.ticks += 1;
        match self.ticks % 10 {
            0 => {
                self.emitted += 1;
                emit.emit(Elem::new(self.emitted, self.emitted as i64));
            }
            5 => emit.watermark(self.emitted as i64),
            _ => {}
        }
        Ok(SourceStatus::More)
    }

    fn emitted(&self) -> u64 {
        self.emitted
    }
}

#[test]
fn when_a_watermark_passes_then_each_operator_shows_it_at_either_end() {
    let env = tiny(1);
    let (registry, (seen, marks)) = (env.metrics(), collect());
    let names = ["source", "same", "apart", "times"];
    let ends = ["currentInputWatermark", "currentOutputWatermark"];
    // The last record finds the watermark of the one before it, which came half a second ago.
    let look = move |n: u64| {
        let watched = Environment::new();
        watched.metric_registry(&registry);
        let marks = names.iter().flat_map(|name| ends.map(|end| metric(&watched, name, end).unwrap_or(f64::NAN)));
        if n == RECORDS { marks.map(|mark| mark.to_string()).collect() } else { Vec::new() }
    };
    env.from_timed_source("source", EachSecond::default())
        .name("source")
        .map(|n| n)
        .name("same")
        .map(|n| n)
        .name("apart")
        .disable_chaining()
        // Takes none but the last from before it, and makes one of its own for each record.
        .assign_timestamps_and_watermarks(WatermarkStrategy::monotonous().with_timestamp(|n: u64| 1_000 * n as i64))
        .name("times")
        .flat_map(look)
        .sink(seen);
    run(&env, 1);
    // A source has no input; what comes to "times" is not what it sends.
    let before = (RECORDS - 1).to_string();
    let own = (1_000 * (RECORDS - 1) - 1).to_string();
    let (before, own) = (before.as_str(), own.as_str());
    assert_eq!(marks.take(), ["NaN", before, before, before, before, before, before, own]);
    for name in names {
        let wanted = if name == "source" { None } else { Some(i64::MAX as f64) };
        assert_eq!(metric(&env, name, ends[0]), wanted, "{name}");
        assert_eq!(metric(&env, name, ends[1]), Some(i64::MAX as f64), "{name}");
    }
}

/// Passes the first input on.
#[derive(Clone)]
struct First;

impl CoProcessFunction<u64, u64> for First {
    type Out = u64;

    fn process1<E: Emit<u64>>(&mut self, value: u64, out: &mut Collector<'_, u64, E>) {
        out.collect(value);
    }
    fn process2<E: Emit<u64>>(&mut self, _: u64, _: &mut Collector<'_, u64, E>) {}
}

#[test]
fn when_an_operator_has_two_inputs_then_it_shows_the_watermark_of_each() {
    let env = tiny(1);
    let (registry, (seen, marks)) = (env.metrics(), collect());
    let names = ["currentInput1Watermark", "currentInput2Watermark", "currentInputWatermark"];
    let look = move |n: u64| {
        let watched = Environment::new();
        watched.metric_registry(&registry);
        let marks = names.iter().map(|name| metric(&watched, "both", name).unwrap_or(f64::NAN));
        if n == RECORDS { marks.map(|mark| mark.to_string()).collect() } else { Vec::new() }
    };
    env.from_timed_source("source", EachSecond::default())
        .connect(env.from_iter([1u64]))
        .process(First)
        .name("both")
        .flat_map(look)
        .name("looks")
        .sink(seen);
    run(&env, 1);
    // The second input ends at once, and the first one's time is the operator's from then on.
    let first = (RECORDS - 1).to_string();
    assert_eq!(marks.take(), [first.clone(), (i64::MAX as f64).to_string(), first]);
    for name in &names[..2] {
        assert_eq!(metric(&env, "both", name), Some(i64::MAX as f64));
        assert_eq!(metric(&env, "looks", name), None, "one input only");
    }
}

#[test]
fn when_bytes_pass_between_tasks_then_the_operators_at_either_end_show_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("in.ndjson");
    let text: String = (0..1_000u64).map(|n| format!("{n}\n")).collect();
    fs::write(&path, &text).unwrap();
    let env = tiny(2);
    let (sink, counts) = collect();
    env.from_files(FileSource::new(NdjsonFormat::<u64>::new(), [&path]).split_bytes(100))
        .unwrap()
        .name("source")
        .map(|n| n % 7)
        .name("chained")
        .key_by(|n| n)
        .aggregate(Count, |_, count| count)
        .name("count")
        .sink(sink)
        .name("end");
    run(&env, 1);
    assert_eq!(counts.take().len(), 1_000);
    let bytes = |name| ["numBytesIn", "numBytesOut"].map(|metric_name| metric(&env, name, metric_name));
    // Of the file, and of what the task sends: the chain's last operator does.
    assert_eq!(bytes("source"), [Some(text.len() as f64), None]);
    let [none, sent] = bytes("chained");
    assert_eq!(none, None);
    assert!(sent.unwrap() >= 8_000.0, "{sent:?}");
    let [received, none] = bytes("count");
    // Watermarks and the end have been sent beside the records.
    assert!(received >= Some(8_000.0) && received <= sent, "{received:?} of {sent:?}");
    assert_eq!(none, None);
    assert_eq!(bytes("end"), [None, None]);
}
