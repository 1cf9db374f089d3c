//! The job: from a file of departures to one row per carrier and window of three hours.

use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use thalweg::{
    checkpoint::{OperatorRestore, OperatorSnapshot},
    clap,
    files::input_files,
    prelude::*,
    runtime::TaskError,
};

use super::model::{Airline, AirlineView, Flight, FlightView, NULLS, WINDOW_MS, scheduled_ms};

/// Counts and delays of the departures from New York, per carrier and three hours.
#[derive(clap::Args, Debug, Clone)]
pub struct FlightsArgs {
    /// The departures, as CSV
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/flights.csv"))]
    pub input: PathBuf,
    /// Carrier codes and names, as CSV
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/airlines.csv"))]
    pub airlines: PathBuf,
    /// Where the rows go, as NDJSON
    #[arg(long, value_name = "OUT.ndjson", default_value = "flights.ndjson")]
    pub output: PathBuf,
    /// How far behind the latest one a departure may come without being late: 24h, 90m, 0
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
    pub out_of_orderness: Duration,
    /// How many bytes of the input one subtask reads at a time
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 10)]
    pub split_bytes: u64,
}

/// Builds the job. Reads nothing yet, but the files have to be there.
///
/// # Errors
/// An input file is missing, or the output is one of them.
pub fn build(env: &Environment, args: &FlightsArgs) -> Result<(), Error> {
    // The output is emptied before anything is read.
    if let Some(path) = input_files([&args.input, &args.airlines])?.iter().find(|path| is_same(path, &args.output)) {
        let text = format!("{} is input and cannot be the output too: name another file with --output", path.display());
        return Err(Error::Other(text));
    }
    // The file is read within milliseconds: with the usual 200 ms between watermarks no window would fire before its end.
    env.auto_watermark_interval(Duration::from_millis(1));
    let csv = CsvOptions { nulls: NULLS.map(String::from).to_vec(), ..CsvOptions::default() };

    // Departures, with the time of the schedule. Each split of the file keeps a watermark of its own.
    let by_schedule = WatermarkStrategy::bounded_out_of_orderness(args.out_of_orderness)
        .with_timestamp(|f: FlightView<'_>| scheduled_ms(f.year, f.month, f.day, f.sched_dep_time));
    let flights = FileSource::new(CsvFormat::<Flight>::new(csv.clone()), [&args.input])
        .split_bytes(args.split_bytes)
        .watermarks(by_schedule);
    let flights = env.from_files(flights)?.name("Source: Flights");

    // Names: a small table that every subtask of the join gets a copy of.
    let airlines = FileSource::new(CsvFormat::<Airline>::new(csv), [&args.airlines]);
    let airlines = env.from_files(airlines)?.name("Source: Airlines").broadcast();

    // One tally per carrier and window; departures that come after their window was closed go to the side.
    let late_tag = OutputTag::<Flight>::new("late");
    let windows = flights
        .key_by_view::<String, _>(|flight| flight.carrier)
        .window(TumblingEventTimeWindows::of(Duration::from_millis(WINDOW_MS.unsigned_abs())))
        .side_output_late_data(&late_tag)
        .aggregate(Delays, |carrier, window, tally: Tally| CarrierWindow {
            carrier: carrier.to_owned(),
            name: None,
            window_start: window.start_ms,
            flights: tally.flights,
            cancelled: tally.cancelled,
            mean_dep_delay: (tally.delayed > 0).then(|| tally.delay_sum as f64 / tally.delayed as f64),
            max_dep_delay: tally.delay_max,
        })
        .name("Three hours");
    let (late, late_count) = discard();
    windows.side_output(&late_tag).sink(late).name("Late flights");

    // The carrier's name joins its rows. One writer, however many subtasks: the output is one file.
    windows
        .connect(airlines)
        .process(JoinNames::default())
        .name("Join names")
        .sink(ndjson_file(&args.output))
        .parallelism(1);

    let output = args.output.display().to_string();
    env.on_finished(move |_| {
        // That nobody reads it is no failure of the job.
        let late = late_count.get();
        let _ = writeln!(std::io::stdout(), "rows are in {output}; {late} flights came too late for theirs");
    });
    Ok(())
}

/// Whether two paths lead to one file, by whatever names.
fn is_same(one: &Path, other: &Path) -> bool {
    let file = |path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    file(one).is_some() && file(one) == file(other)
}

/// A result: one carrier in one window.
#[derive(Record, Debug, Clone, PartialEq, Serialize)]
pub struct CarrierWindow {
    /// The airline's code.
    pub carrier: String,
    /// The airline's name, if it is known.
    pub name: Option<String>,
    /// The start of the window, in milliseconds since the epoch.
    pub window_start: i64,
    /// Scheduled departures, cancelled ones included.
    pub flights: u64,
    /// Departures that did not happen.
    pub cancelled: u64,
    /// The mean delay in minutes of those that did, if any.
    pub mean_dep_delay: Option<f64>,
    /// The largest delay in minutes, if any.
    pub max_dep_delay: Option<i32>,
}

/// What a window knows of its departures.
#[derive(Record, Debug, Clone, Default)]
struct Tally {
    flights: u64,
    cancelled: u64,
    delayed: u64,
    delay_sum: i64,
    delay_max: Option<i32>,
}

/// Adds departures to a [`Tally`].
#[derive(Clone)]
struct Delays;

impl AggregateFunction<Flight> for Delays {
    type Acc = Tally;
    type Out = Tally;

    fn create(&self) -> Tally {
        Tally::default()
    }

    fn add(&self, tally: &mut Tally, flight: FlightView<'_>) {
        tally.flights += 1;
        match (flight.dep_time, flight.dep_delay) {
            (None, _) => tally.cancelled += 1,
            (Some(_), None) => {}
            (Some(_), Some(minutes)) => {
                tally.delayed += 1;
                tally.delay_sum += i64::from(minutes);
                tally.delay_max = tally.delay_max.max(Some(minutes));
            }
        }
    }

    fn merge(&self, tally: &mut Tally, other: &Tally) {
        tally.flights += other.flights;
        tally.cancelled += other.cancelled;
        tally.delayed += other.delayed;
        tally.delay_sum += other.delay_sum;
        tally.delay_max = tally.delay_max.max(other.delay_max);
    }

    fn result(&self, tally: &Tally) -> Tally {
        tally.clone()
    }
}

/// Gives rows their carrier's name. The two inputs run side by side, so a row whose name is not known yet waits for it;
/// after the last name there is nothing to wait for, and the row goes on without.
#[derive(Clone, Default)]
struct JoinNames {
    names: HashMap<String, String>,
    waiting: Vec<CarrierWindow>,
    has_all_names: bool,
}

impl CoProcessFunction<CarrierWindow, Airline> for JoinNames {
    type Out = CarrierWindow;

    fn process1<E: Emit<CarrierWindow>>(
        &mut self,
        row: CarrierWindowView<'_>,
        out: &mut Collector<'_, CarrierWindow, E>,
    ) {
        match self.names.get(row.carrier) {
            Some(name) => out.collect(CarrierWindowView { name: Some(name), ..row }),
            None if self.has_all_names => out.collect(row),
            None => self.waiting.push(row.to_record()),
        }
    }

    fn process2<E: Emit<CarrierWindow>>(
        &mut self,
        airline: AirlineView<'_>,
        out: &mut Collector<'_, CarrierWindow, E>,
    ) {
        self.names.insert(airline.carrier.to_owned(), airline.name.to_owned());
        for row in self.waiting.extract_if(.., |row| row.carrier == airline.carrier) {
            out.collect(CarrierWindowView { name: Some(airline.name), ..row.view() });
        }
    }

    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), TaskError> {
        snapshot.broadcast("names", self.names.iter().map(|(carrier, name)| (carrier.clone(), name.clone())));
        snapshot.list("waiting", self.waiting.iter().cloned());
        Ok(())
    }

    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), TaskError> {
        self.names.extend(restored.broadcast::<(String, String)>("names")?);
        self.waiting = restored.list("waiting")?;
        Ok(())
    }

    fn end_input<E: Emit<CarrierWindow>>(&mut self, input: usize, out: &mut Collector<'_, CarrierWindow, E>) {
        if input == 2 {
            self.has_all_names = true;
            for row in self.waiting.drain(..) {
                out.collect(row.view());
            }
        }
    }
}

/// Reads `24h`, `90m`, `10s`, `500ms`, `2d`; a number alone means hours.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit_ms = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "" | "h" => 3_600_000,
        "d" => 86_400_000,
        unit => return Err(format!("{unit:?} is no unit of time: write 24h, 90m, 10s, 500ms or 2d")),
    };
    let number: u64 = text[..digits].parse().map_err(|_| "write a number and a unit, such as 24h".to_owned())?;
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(|| "longer than can be counted".to_owned())
}
