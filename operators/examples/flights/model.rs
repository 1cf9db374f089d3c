//! What the flights job reads: departures, and airlines.

use serde::{Deserialize, Deserializer, de::Error};
use thalweg::Record;

/// Milliseconds in a minute.
pub const MINUTE_MS: i64 = 60_000;
/// Milliseconds in an hour.
pub const HOUR_MS: i64 = 60 * MINUTE_MS;
/// Milliseconds in a day.
pub const DAY_MS: i64 = 24 * HOUR_MS;
/// The length of a window; windows start at midnight and every three hours after.
pub const WINDOW_MS: i64 = 3 * HOUR_MS;
/// What stands for a missing value in the files.
pub const NULLS: [&str; 2] = ["", "NA"];

/// A departure: the columns of `flights.csv` that the job uses. Date and times are local to New York.
#[derive(Record, Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Flight {
    /// The year, of four digits at most.
    #[serde(deserialize_with = "year")]
    pub year: i32,
    /// The month, from 1 to 12.
    #[serde(deserialize_with = "month")]
    pub month: u8,
    /// The day of the month, from 1 to 31.
    #[serde(deserialize_with = "day")]
    pub day: u8,
    /// When it left, as hhmm; missing if it was cancelled.
    pub dep_time: Option<u16>,
    /// When it was to leave, as hhmm from 0 to 2400.
    #[serde(deserialize_with = "hhmm")]
    pub sched_dep_time: u16,
    /// How late it left, in minutes; negative if early.
    pub dep_delay: Option<i32>,
    /// The airline's code.
    pub carrier: String,
}

/// A row of `airlines.csv`.
#[derive(Record, Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Airline {
    /// Its code.
    pub carrier: String,
    /// Its name.
    pub name: String,
}

/// The scheduled departure in milliseconds since the epoch, local time read as if it were UTC. `hhmm` 2400 is midnight at
/// the end of the day.
pub fn scheduled_ms(year: i32, month: u8, day: u8, hhmm: u16) -> i64 {
    let minutes = i64::from(hhmm / 100) * 60 + i64::from(hhmm % 100);
    days_from_civil(year, month, day) * DAY_MS + minutes * MINUTE_MS
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years start in March here, so that the leap day is the
/// last of its year, and repeat every 400 years (146,097 days).
fn days_from_civil(year: i32, month: u8, day: u8) -> i64 {
    let (month, day) = (i64::from(month), i64::from(day));
    let year = i64::from(year) - i64::from(month <= 2);
    let cycle = year.div_euclid(400);
    let year_of_cycle = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_cycle = year_of_cycle * 365 + year_of_cycle / 4 - year_of_cycle / 100 + day_of_year;
    cycle * 146_097 + day_of_cycle - 719_468
}

fn year<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    let value = i32::deserialize(deserializer)?;
    let rule = "a year is from 1 to 9999";
    if (1..=9999).contains(&value) { Ok(value) } else { Err(D::Error::custom(format_args!("{value}, but {rule}"))) }
}

fn month<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    within(deserializer, 1, 12, "a month is from 1 to 12")
}

fn day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    within(deserializer, 1, 31, "a day is from 1 to 31")
}

fn within<'de, D: Deserializer<'de>>(deserializer: D, low: u8, high: u8, rule: &str) -> Result<u8, D::Error> {
    let value = u8::deserialize(deserializer)?;
    if (low..=high).contains(&value) { Ok(value) } else { Err(D::Error::custom(format_args!("{value}, but {rule}"))) }
}

fn hhmm<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let value = u16::deserialize(deserializer)?;
    if value % 100 < 60 && value <= 2400 {
        Ok(value)
    } else {
        Err(D::Error::custom(format_args!("{value}, but a time is hhmm from 0 to 2400")))
    }
}
