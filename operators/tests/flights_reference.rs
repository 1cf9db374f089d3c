//! The plain evaluation of the flights example, against figures computed elsewhere; and the example's records.

use std::{collections::BTreeMap, path::PathBuf};

use thalweg_io::connect::{CsvFormat, CsvOptions, FileFormat, SplitReader, plan_splits};

#[path = "../examples/flights/model.rs"]
mod model;
#[path = "../examples/flights/reference.rs"]
mod reference;

use model::{Airline, DAY_MS, Flight, HOUR_MS, MINUTE_MS, NULLS, WINDOW_MS, scheduled_ms};
use reference::{Evaluation, Row, evaluate};

/// The start of the window that a time lies in.
fn window_start_ms(time_ms: i64) -> i64 {
    time_ms - time_ms.rem_euclid(WINDOW_MS)
}

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name)
}

fn evaluate_data() -> Evaluation {
    let text = |name| std::fs::read_to_string(data(name)).unwrap();
    evaluate(&text("flights.csv"), &text("airlines.csv"))
}

fn read<T: serde::de::DeserializeOwned + 'static>(name: &str, split_bytes: u64) -> Vec<T> {
    let nulls = NULLS.map(String::from).to_vec();
    let format = CsvFormat::new(CsvOptions { nulls, ..CsvOptions::default() });
    let mut records = Vec::new();
    for split in plan_splits([data(name)], split_bytes).unwrap() {
        let mut reader = format.open(&split).unwrap();
        while let Some(record) = reader.next_record().unwrap() {
            records.push(record);
        }
    }
    records
}

fn fields(row: &Row) -> (i64, &str, u64, u64, Option<f64>, Option<i32>) {
    (row.window_start, &row.carrier, row.flights, row.cancelled, row.mean_dep_delay, row.max_dep_delay)
}

/// Figures and checksum (FNV-1a over lines of window, carrier, name, flights, cancelled, sum and count of delays, largest) are those of a Python
/// program with the standard library's csv and datetime.
#[test]
fn when_the_data_is_evaluated_then_its_rows_are_those_computed_elsewhere() {
    let Evaluation { rows, .. } = evaluate_data();
    assert_eq!(rows.len(), 1010);
    assert_eq!(rows.iter().map(|row| row.flights).sum::<u64>(), 12_208);
    assert_eq!(rows.iter().map(|row| row.cancelled).sum::<u64>(), 82);
    assert_eq!(rows.iter().filter_map(|row| row.max_dep_delay).max(), Some(1301));
    assert_eq!(fields(&rows[0]), (1_357_009_200_000, "AA", 1, 0, Some(2.0), Some(2)));
    assert_eq!(rows[0].name.as_deref(), Some("American Airlines Inc."));
    assert_eq!(fields(&rows[1009]), (1_358_197_200_000, "WN", 1, 0, Some(-3.0), Some(-3)));
    let row = rows.iter().find(|row| row.cancelled == 1 && row.flights == 35).unwrap();
    assert_eq!(fields(row), (1_357_020_000_000, "B6", 35, 1, Some(-35.0 / 34.0), Some(8)));
    let none: Vec<_> = rows.iter().filter(|row| row.mean_dep_delay.is_none()).map(fields).collect();
    assert_eq!(none.len(), 2);
    assert_eq!(none[0], (1_357_905_600_000, "YV", 1, 1, None, None));

    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for row in &rows {
        let count = (row.flights - row.cancelled) as f64;
        let sum = row.mean_dep_delay.map_or(0, |mean| (mean * count).round() as i64);
        let max = row.max_dep_delay.map_or("-".to_string(), |max| max.to_string());
        let name = row.name.as_deref().unwrap();
        let (carrier, flights, cancelled) = (&row.carrier, row.flights, row.cancelled);
        let line = format!("{} {carrier} {name} {flights} {cancelled} {sum} {count} {max}\n", row.window_start);
        hash = line.bytes().fold(hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    }
    assert_eq!(hash, 0x745f_7d49_4158_d6cd);
}

#[test]
fn when_a_day_of_out_of_orderness_is_allowed_then_no_row_is_late() {
    let Evaluation { disorder_ms, .. } = evaluate_data();
    assert_eq!(disorder_ms, 18 * HOUR_MS + 59 * MINUTE_MS);
    assert!(disorder_ms <= DAY_MS);
}

#[test]
fn when_flights_are_read_through_splits_then_their_windows_are_those_of_the_reference() {
    let Evaluation { rows, .. } = evaluate_data();
    let expected: BTreeMap<_, _> =
        rows.iter().map(|row| ((row.window_start, row.carrier.clone()), (row.flights, row.cancelled))).collect();
    for split_bytes in [10_007, u64::MAX] {
        let mut counts = BTreeMap::new();
        for flight in read::<Flight>("flights.csv", split_bytes) {
            let time_ms = scheduled_ms(flight.year, flight.month, flight.day, flight.sched_dep_time);
            let (flights, cancelled) = counts.entry((window_start_ms(time_ms), flight.carrier)).or_insert((0, 0));
            *flights += 1;
            *cancelled += u64::from(flight.dep_time.is_none());
            assert_eq!(flight.dep_time.is_none(), flight.dep_delay.is_none());
        }
        assert_eq!(counts, expected);
    }
    let airlines: Vec<Airline> = read("airlines.csv", 100);
    assert_eq!(airlines.len(), 16);
    for row in &rows {
        assert!(airlines.iter().any(|line| line.carrier == row.carrier && Some(&line.name) == row.name.as_ref()));
    }
}

#[test]
fn when_a_scheduled_time_is_read_then_it_is_utc_milliseconds() {
    assert_eq!(scheduled_ms(1970, 1, 1, 0), 0);
    assert_eq!(scheduled_ms(1970, 1, 1, 5), 5 * MINUTE_MS);
    assert_eq!(scheduled_ms(1970, 1, 1, 2359), DAY_MS - MINUTE_MS);
    assert_eq!(scheduled_ms(1970, 1, 1, 2400), DAY_MS);
    assert_eq!(scheduled_ms(2013, 1, 1, 515), 1_357_017_300_000);
    assert_eq!(scheduled_ms(2000, 2, 29, 0), 951_782_400_000);
    assert_eq!(scheduled_ms(2000, 3, 1, 0), 951_868_800_000);
    assert_eq!(scheduled_ms(2100, 3, 1, 0), 4_107_542_400_000);
    assert_eq!(scheduled_ms(1969, 12, 31, 2300), -HOUR_MS);
    assert_eq!(window_start_ms(scheduled_ms(2013, 1, 1, 2359)), scheduled_ms(2013, 1, 1, 2100));
    assert_eq!(window_start_ms(scheduled_ms(2013, 1, 1, 2400)), scheduled_ms(2013, 1, 2, 0));
    assert_eq!(window_start_ms(-1), -3 * HOUR_MS);
}

#[test]
fn when_a_flight_has_no_such_time_then_the_row_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flights.csv");
    let header = "year,month,day,dep_time,sched_dep_time,dep_delay,carrier\n";
    for (row, message) in [
        ("2013,1,1,NA,2360,NA,UA", ":2:13: field \"sched_dep_time\": 2360, but a time is hhmm from 0 to 2400"),
        ("2147483647,1,1,NA,0,NA,UA", ":2:1: field \"year\": 2147483647, but a year is from 1 to 9999"),
        ("0,1,1,NA,0,NA,UA", ":2:1: field \"year\": 0, but a year is from 1 to 9999"),
        ("2013,13,1,NA,0,NA,UA", ":2:6: field \"month\": 13, but a month is from 1 to 12"),
        ("2013,1,0,NA,0,NA,UA", ":2:8: field \"day\": 0, but a day is from 1 to 31"),
    ] {
        std::fs::write(&path, format!("{header}{row}\n")).unwrap();
        let split = &plan_splits([&path], u64::MAX).unwrap()[0];
        let nulls = NULLS.map(String::from).to_vec();
        let format = CsvFormat::<Flight>::new(CsvOptions { nulls, ..CsvOptions::default() });
        let error = format.open(split).unwrap().next_record().unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}
