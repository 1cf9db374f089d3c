//! Every query on the simulated machine, at several parallelisms and seeds, with tiny buffers and random flushes, against
//! the reference evaluation.

use std::{fs::File, io::BufWriter, num::NonZeroU32, path::Path, time::Duration};

use thalweg::{
    Environment, Record, file_source::FileSource, files::NdjsonFormat, placed::Extend, prelude::collect,
    runtime::SeededReactor, stream::Stream, watermark::WatermarkStrategy,
};
use thalweg_benches::nexmark::{
    Event, EventScratch, EventView, Generator, InputOrder, Query, Reference, WriteJson, generate_ndjson, queries,
    run_state::RunState,
    source::{Due, GeneratorSource, Paced, Turns},
    windows::Windows,
};

const GENERATOR_SEED: u64 = 3;

/// A query with its windows, where it can have others than its own.
#[derive(Clone, Copy, Debug)]
enum Job {
    Query(Query),
    HotItems { size_ms: u32, slide_ms: u32 },
}

fn millis(ms: u32) -> NonZeroU32 {
    NonZeroU32::new(ms).unwrap()
}

impl Job {
    fn reference(self, order: InputOrder) -> Reference {
        match self {
            Self::Query(query) => Reference::new(query, order),
            Self::HotItems { size_ms, slide_ms } => {
                Reference::hot_items(Windows::hop(millis(size_ms), millis(slide_ms)), order)
            }
        }
    }

    /// The rows by the reference, as sorted JSON.
    fn expected(self, events: &[Event]) -> Vec<String> {
        let mut reference = self.reference(InputOrder::Any);
        let mut rows = Vec::new();
        events.iter().for_each(|event| reference.push(event.view(), |row| rows.push(json(&row))));
        reference.finish(|row| rows.push(json(&row)));
        rows.sort();
        rows
    }

    /// The rows by the engine, as sorted JSON.
    fn run<P: Extend<Out = Due<Event>>>(
        self,
        env: &Environment,
        events: Stream<Due<Event>, P>,
        simulation_seed: u64,
    ) -> Vec<String> {
        macro_rules! rows_of {
            ($query:ident($($argument:expr),*)) => {{
                let (sink, rows) = collect();
                queries::$query(events, $($argument,)* sink);
                env.execute_on(&SeededReactor::new(simulation_seed)).unwrap();
                rows.take().iter().map(|(_, row)| json(row)).collect::<Vec<_>>()
            }};
        }
        let mut rows = match self {
            Self::Query(Query::Q0) => rows_of!(q0()),
            Self::Query(Query::Q1) => rows_of!(q1()),
            Self::Query(Query::Q2) => rows_of!(q2()),
            Self::Query(Query::Q5) => rows_of!(q5(millis(10_000), millis(2_000))),
            Self::Query(Query::Q7) => rows_of!(q7()),
            Self::Query(Query::Q8) => rows_of!(q8()),
            Self::Query(other) => panic!("give {other} a test"),
            Self::HotItems { size_ms, slide_ms } => rows_of!(q5(millis(size_ms), millis(slide_ms))),
        };
        rows.sort();
        rows
    }
}

fn json(row: &impl WriteJson) -> String {
    let mut text = Vec::new();
    row.write_json(&mut text);
    String::from_utf8(text).unwrap()
}

fn environment(parallelism: u32, page_bytes: usize) -> Environment {
    let env = Environment::new();
    env.parallelism(parallelism).configure_runtime(|runtime| {
        runtime.page_bytes = page_bytes;
        runtime.batch_records = 37;
    });
    env
}

fn events(count: u64) -> Vec<Event> {
    let generator = Generator::new(GENERATOR_SEED);
    let mut scratch = EventScratch::new();
    (0..count).map(|n| Event::from_view(generator.event(n, &mut scratch))).collect()
}

fn check(job: Job, count: u64, simulation_seeds: std::ops::Range<u64>) {
    let expected = job.expected(&events(count));
    assert!(!expected.is_empty(), "{job:?} has to have rows to be a test");
    for parallelism in [1, 2, 4] {
        for seed in simulation_seeds.clone() {
            let page_bytes = [256, 512, 1024][seed as usize % 3];
            let env = environment(parallelism, page_bytes);
            let source = GeneratorSource::new(Generator::new(GENERATOR_SEED), count);
            let source = Paced::new(source, None, Turns::Strided, u64::MAX, RunState::new());
            let rows = job.run(&env, env.from_timed_source("Nexmark", source), seed);
            assert!(
                rows == expected,
                "{job:?}, parallelism {parallelism}, simulation seed {seed}, pages of {page_bytes} bytes: {} rows of {}",
                rows.len(),
                expected.len()
            );
        }
    }
}

#[test]
fn when_bids_are_passed_converted_or_selected_then_rows_are_those_of_the_reference() {
    for query in [Query::Q0, Query::Q1, Query::Q2] {
        check(Job::Query(query), 5_000, 0..6);
    }
}

#[test]
fn when_hot_items_are_asked_for_then_rows_are_those_of_the_reference() {
    check(Job::Query(Query::Q5), 45_000, 0..4);
}

#[test]
fn when_highest_bids_are_asked_for_then_rows_are_those_of_the_reference() {
    check(Job::Query(Query::Q7), 210_000, 0..1);
    // Within one window, which the end of the input closes.
    check(Job::Query(Query::Q7), 5_000, 0..6);
}

#[test]
fn when_new_sellers_are_asked_for_then_rows_are_those_of_the_reference() {
    check(Job::Query(Query::Q8), 210_000, 0..1);
    check(Job::Query(Query::Q8), 5_000, 0..6);
}

#[test]
fn when_windows_slide_by_half_or_a_hundredth_then_rows_are_those_of_the_reference() {
    check(Job::HotItems { size_ms: 1_000, slide_ms: 500 }, 25_000, 0..3);
    check(Job::HotItems { size_ms: 1_000, slide_ms: 10 }, 25_000, 0..3);
    // The size is no multiple of the slide.
    check(Job::HotItems { size_ms: 1_000, slide_ms: 300 }, 25_000, 0..3);
    check(Job::HotItems { size_ms: 200, slide_ms: 500 }, 25_000, 0..3);
}

fn read(env: &Environment, path: &Path, split_bytes: u64) -> Stream<Due<Event>, impl Extend<Out = Due<Event>> + use<>> {
    let strategy = WatermarkStrategy::bounded_out_of_orderness(Duration::from_secs(4))
        .with_timestamp(|event: EventView<'_>| event.timestamp_ms());
    let source = FileSource::new(NdjsonFormat::<Event>::new(), [path]).split_bytes(split_bytes).watermarks(strategy);
    let (source, _) = source.into_source().unwrap();
    env.from_timed_source("Nexmark", Paced::new(source, None, Turns::Shared, u64::MAX, RunState::new()))
}

#[test]
fn when_events_come_from_a_file_then_rows_are_those_of_the_reference() {
    const EVENTS: u64 = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.ndjson");
    let mut file = BufWriter::new(File::create(&path).unwrap());
    generate_ndjson(&Generator::new(GENERATOR_SEED), EVENTS, &mut file).unwrap();
    let events = events(EVENTS);
    for query in Query::ALL {
        let job = Job::Query(query);
        let expected = job.expected(&events);
        for (parallelism, split_bytes, seed) in [(1, 1 << 20, 1), (2, 100_000, 2), (4, 30_000, 3)] {
            let env = environment(parallelism, 512);
            let rows = job.run(&env, read(&env, &path, split_bytes), seed);
            assert!(rows == expected, "{query}, parallelism {parallelism}: {} rows of {}", rows.len(), expected.len());
        }
    }
}

#[test]
fn when_events_of_a_file_are_out_of_order_within_the_bound_then_no_row_is_missing() {
    const EVENTS: u64 = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.ndjson");
    let in_order = events(EVENTS);
    // Shuffled within 2 s of event time, as a hash of the place says.
    let place = |n: usize| n + (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17) as usize % 20_000;
    let mut order: Vec<usize> = (0..in_order.len()).collect();
    order.sort_by_key(|&n| place(n));
    let events: Vec<Event> = order.iter().map(|&n| in_order[n].clone()).collect();
    let text: String = events.iter().map(|event| json(&event.view()) + "\n").collect();
    std::fs::write(&path, text).unwrap();
    for query in [Query::Q5, Query::Q7, Query::Q8] {
        let job = Job::Query(query);
        let env = environment(2, 1024);
        assert_eq!(job.run(&env, read(&env, &path, 1 << 20), 7), job.expected(&events), "{query}");
    }
}
