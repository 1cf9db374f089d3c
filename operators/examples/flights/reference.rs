//! The plain evaluation of the flights job, which the engine's rows are checked against.
//!
//! It shares no code with the engine, its connectors or the job: one pass over the rows into a map, with its own
//! reading of the columns and of the calendar.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

/// A result: one carrier in one window of three hours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The airline's code.
    pub carrier: String,
    /// The airline's name; `None` if `airlines.csv` does not have it.
    pub name: Option<String>,
    /// The start of the window, in milliseconds since the epoch, local time read as if UTC.
    pub window_start: i64,
    /// Scheduled departures, cancelled ones included.
    pub flights: u64,
    /// Departures that did not happen.
    pub cancelled: u64,
    /// The mean delay in minutes of those that did; `None` if there were none.
    pub mean_dep_delay: Option<f64>,
    /// The largest delay in minutes; `None` if there were none.
    pub max_dep_delay: Option<i32>,
}

/// What the whole input amounts to.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// By window, then by carrier.
    pub rows: Vec<Row>,
    /// How far the furthest row is behind the latest one before it, in milliseconds. Bounded out-of-orderness of at least
    /// this much makes no row late, in however many splits the file is read: a split sees a part of these rows, in order.
    pub disorder_ms: i64,
}

#[derive(Default)]
struct Tally {
    flights: u64,
    cancelled: u64,
    delayed: u64,
    delay_sum: i64,
    delay_max: Option<i32>,
}

/// Evaluates the job over the text of `flights.csv` and `airlines.csv`.
///
/// # Panics
/// Where the text is not what those files hold.
pub fn evaluate(flights_csv: &str, airlines_csv: &str) -> Evaluation {
    let names: HashMap<String, String> =
        table(airlines_csv, ["carrier", "name"]).map(|[carrier, name]| (carrier, name)).collect();
    let mut tallies: BTreeMap<(i64, String), Tally> = BTreeMap::new();
    let (mut latest_ms, mut disorder_ms) = (i64::MIN, 0);
    let columns = ["year", "month", "day", "sched_dep_time", "dep_time", "dep_delay", "carrier"];
    for [year, month, day, scheduled, departed, delay, carrier] in table(flights_csv, columns) {
        let number = |field: &str| field.parse::<i64>().expect("a number");
        let hhmm = number(&scheduled);
        let hours = days_since_epoch(number(&year), number(&month), number(&day)) * 24 + hhmm / 100;
        let time_ms = (hours * 60 + hhmm % 100) * 60_000;
        latest_ms = latest_ms.max(time_ms);
        disorder_ms = disorder_ms.max(latest_ms - time_ms);

        let window_start = time_ms.div_euclid(10_800_000) * 10_800_000;
        let tally = tallies.entry((window_start, carrier)).or_default();
        tally.flights += 1;
        if is_missing(&departed) {
            tally.cancelled += 1;
        } else if !is_missing(&delay) {
            let delay = delay.parse().expect("minutes");
            tally.delayed += 1;
            tally.delay_sum += i64::from(delay);
            tally.delay_max = tally.delay_max.max(Some(delay));
        }
    }
    let rows = tallies.into_iter().map(|((window_start, carrier), tally)| Row {
        name: names.get(&carrier).cloned(),
        carrier,
        window_start,
        flights: tally.flights,
        cancelled: tally.cancelled,
        mean_dep_delay: (tally.delayed > 0).then(|| tally.delay_sum as f64 / tally.delayed as f64),
        max_dep_delay: tally.delay_max,
    });
    Evaluation { rows: rows.collect(), disorder_ms }
}

fn is_missing(field: &str) -> bool {
    matches!(field, "" | "NA")
}

/// The named columns of a CSV text.
fn table<const N: usize>(text: &str, columns: [&'static str; N]) -> impl Iterator<Item = [String; N]> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().expect("a header").clone();
    let places = columns.map(|column| header.iter().position(|name| name == column).expect(column));
    reader.into_records().map(move |row| {
        let row = row.expect("a row");
        places.map(|place| row[place].to_string())
    })
}

/// Days from 1970-01-01, counted year by year and month by month.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    assert!(year >= 1970 && (1..=12).contains(&month));
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of_month = |month: i64| match month {
        2 => 28 + i64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let years: i64 = (1970..year).map(|year| 365 + i64::from(is_leap(year))).sum();
    let months: i64 = (1..month).map(days_of_month).sum();
    years + months + day - 1
}
