//! Runs queries on the engine, one after the other: events in, progress shown, rows checked, figures out.

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use thalweg::{
    Environment, Error,
    entry::{self, Interrupt},
    file_source::FileSource,
    files::{NdjsonFormat, input_files},
    model::metrics::MetricRegistry,
    placed::Extend,
    stream::Stream,
    watermark::WatermarkStrategy,
};

use super::{
    Event, EventView, Generator, Query, check, outputs, queries,
    run_state::RunState,
    sink::{LatencyOf, RowSink, Rows},
    source::{Due, GeneratorSource, Paced, Turns},
};
use crate::{
    memory::PeakMemory,
    options::{EngineOptions, NexmarkOptions},
    progress::Progress,
    report::{LatencyUs, WorkloadReport},
    workloads::job::BenchError,
};

/// Events of a run that does not say how many.
pub const DEFAULT_EVENTS: u64 = 2_000_000;
/// With a rate, a run that does not say how many events takes this long at most.
const DEFAULT_SECONDS: f64 = 10.0;
/// How far events of a file may be out of order: the delay of the watermark in Nexmark's own table.
pub const OUT_OF_ORDERNESS: Duration = Duration::from_secs(4);
/// How often a file source makes watermarks.
const WATERMARK_INTERVAL: Duration = Duration::from_millis(10);
/// The windows of q5.
const Q5_WINDOWS_MS: (u32, u32) = (10_000, 2_000);

/// Runs the queries; hands each report to `done` as soon as its result has been checked. A signal cancels the job that is
/// running.
///
/// Latency, with a rate, ends when a row reaches the sink. It is counted, for q0 to q2, from the time that the row's event
/// was scheduled for; for queries with windows, from the time that the event was scheduled for which let the watermark
/// close the window. `seconds` runs from the first event to the end of the job; the check comes after that.
///
/// # Errors
/// Input or output that cannot be used, and whatever fails a job. What can be refused is refused before results of earlier
/// runs are removed. A wrong result is no error here but `verified: Some(false)`. It is `None` where events of a file were so
/// late that the engine had to drop them.
pub fn run(
    options: &NexmarkOptions,
    engine: &EngineOptions,
    metrics: &MetricRegistry,
    interrupt: &Interrupt,
    done: &mut dyn FnMut(WorkloadReport),
) -> Result<(), BenchError> {
    let input = input_of(options)?;
    let jobs = options.queries.iter().map(|&query| Job::build(query, options, engine, metrics));
    let jobs = jobs.collect::<Result<Vec<_>, _>>()?;
    if let Some(dir) = &options.output {
        outputs::empty(dir, &options.queries, &input)?;
    }
    for job in jobs {
        done(job.run(options, &input, interrupt)?);
    }
    Ok(())
}

/// All files that are read; none where events are generated.
fn input_of(options: &NexmarkOptions) -> Result<Vec<PathBuf>, BenchError> {
    let Some(path) = &options.input else { return Ok(Vec::new()) };
    let files = input_files([path]).map_err(Error::from)?;
    if options.events.is_some() && files.len() > 1 {
        let text = format!(
            "which events of {} come first is not defined, as its {} files are read side by side: leave out --events, or \
             name one of them with --input",
            path.display(),
            files.len()
        );
        return Err(BenchError::Setting(text));
    }
    Ok(files)
}

/// How many events are generated.
pub(super) fn events_of(options: &NexmarkOptions) -> u64 {
    let default =
        options.rate.map_or(DEFAULT_EVENTS, |rate| DEFAULT_EVENTS.min((rate * DEFAULT_SECONDS) as u64).max(1));
    options.events.unwrap_or(default)
}

/// A query that is ready to run.
struct Job {
    query: Query,
    env: Environment,
    run: RunState,
    rows: Arc<Mutex<Rows>>,
}

impl Job {
    /// Builds the job, and makes sure that it can be run here.
    fn build(
        query: Query,
        options: &NexmarkOptions,
        engine: &EngineOptions,
        metrics: &MetricRegistry,
    ) -> Result<Self, Error> {
        let env = Environment::new();
        engine.apply(&env);
        env.job_name(&format!("nexmark {query}")).metric_registry(metrics);
        let run = RunState::new();
        let rows = match &options.input {
            Some(path) => read(&env, path, options, &run, query)?,
            None => generate(&env, options, &run, query),
        };
        env.check()?;
        Ok(Self { query, env, run, rows })
    }

    fn run(self, options: &NexmarkOptions, input: &[PathBuf], interrupt: &Interrupt) -> Result<WorkloadReport, Error> {
        let Self { query, env, run, rows } = self;
        let total = options.input.is_none().then(|| events_of(options));
        let memory = PeakMemory::reset();
        let counting = run.clone();
        let progress = Progress::start(query.name(), total, move || counting.emitted());
        let result = entry::run_attended(&env, entry::Progress::Hidden, interrupt);
        let elapsed = run.elapsed();
        let sampled_mib = progress.finish();
        let rss_mib = memory.mib().unwrap_or(sampled_mib);
        let stopped = result?.stopped_with;
        log_first_row(query, &run);
        let parallelism = env.default_parallelism();
        let cores =
            std::thread::available_parallelism().map_or(parallelism, |cores| parallelism.min(cores.get() as u32));
        let seconds = elapsed.map_or(0.0, |elapsed| elapsed.as_secs_f64()).max(1e-9);
        let mut report = WorkloadReport::new(query.name(), parallelism, cores, run.emitted(), seconds);
        report.rss_mib = rss_mib;
        let rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
        report.latency_us = LatencyUs::from_ns(&rows.latency_ns);
        // One that was stopped before its end has not all rows.
        if stopped.is_none() {
            report.verified = check::verify(query, options, input, rows.digest, interrupt)?;
        }
        Ok(report)
    }
}

fn log_first_row(query: Query, run: &RunState) {
    if let Some(first) = run.first_row() {
        let after_first_event = first.duration_since(run.start());
        match crate::memory::process_age().and_then(|age| age.checked_sub(first.elapsed())) {
            Some(age) => tracing::info!(
                "{query}: first row {after_first_event:?} after the first event, about {age:?} after the start of the process"
            ),
            None => tracing::info!("{query}: first row {after_first_event:?} after the first event"),
        }
    }
}

fn generate(env: &Environment, options: &NexmarkOptions, run: &RunState, query: Query) -> Arc<Mutex<Rows>> {
    let source = GeneratorSource::new(Generator::new(options.seed), events_of(options));
    let source = Paced::new(source, options.rate, Turns::Strided, u64::MAX, run.clone());
    let events = env.from_timed_source("Nexmark", source);
    attach(query, events, run, options, 0)
}

fn read(
    env: &Environment,
    path: &Path,
    options: &NexmarkOptions,
    run: &RunState,
    query: Query,
) -> Result<Arc<Mutex<Rows>>, Error> {
    let strategy = WatermarkStrategy::bounded_out_of_orderness(OUT_OF_ORDERNESS)
        .with_timestamp(|event: EventView<'_>| event.timestamp_ms());
    let (source, _) = FileSource::new(NdjsonFormat::<Event>::new(), [path]).watermarks(strategy).into_source()?;
    env.auto_watermark_interval(WATERMARK_INTERVAL);
    let limit = options.events.unwrap_or(u64::MAX);
    let source = Paced::new(source, options.rate, Turns::Shared, limit, run.clone());
    // The first events of a file are those of one reader; all of it is read by all.
    let readers = if options.events.is_some() { 1 } else { env.default_parallelism() };
    let events = env.from_timed_source("Nexmark", source).parallelism(readers);
    Ok(attach(query, events, run, options, OUT_OF_ORDERNESS.as_millis() as i64))
}

/// Ends a stream of events in a query and a sink; answers where the rows will be.
fn attach<P: Extend<Out = Due<Event>>>(
    query: Query,
    events: Stream<Due<Event>, P>,
    run: &RunState,
    options: &NexmarkOptions,
    delay_ms: i64,
) -> Arc<Mutex<Rows>> {
    let (of_event, of_window) = match options.rate {
        Some(_) => (LatencyOf::Event, LatencyOf::Window { delay_ms }),
        None => (LatencyOf::Nothing, LatencyOf::Nothing),
    };
    macro_rules! end_in {
        ($query:ident($($argument:expr),*), $latency_of:expr) => {{
            let output = options.output.as_ref().map(|dir| outputs::output_of(dir, query));
            let sink = RowSink::new(run.clone(), $latency_of, output);
            let rows = sink.rows();
            queries::$query(events, $($argument,)* sink);
            rows
        }};
    }
    match query {
        Query::Q0 => end_in!(q0(), of_event),
        Query::Q1 => end_in!(q1(), of_event),
        Query::Q2 => end_in!(q2(), of_event),
        Query::Q5 => end_in!(q5(millis(Q5_WINDOWS_MS.0), millis(Q5_WINDOWS_MS.1)), of_window),
        Query::Q7 => end_in!(q7(), of_window),
        Query::Q8 => end_in!(q8(), of_window),
    }
}

fn millis(ms: u32) -> NonZeroU32 {
    NonZeroU32::new(ms).expect("a window has a length")
}
