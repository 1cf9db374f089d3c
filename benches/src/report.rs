//! What a workload reports: one JSON object a line for programs, a table for people.

use std::fmt::Write as _;
use std::fs;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::checkpoint::CheckpointReport;

/// How a workload went. Serialises to the contract of `--format json`; fields are only ever added.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkloadReport {
    /// Name of the workload: `q5`, `keyed-count`, ...
    pub workload: String,
    /// Subtasks per operator.
    pub parallelism: u32,
    /// Records that the sources emitted.
    pub records: u64,
    /// Time from the first record to the end of the job.
    pub seconds: f64,
    /// Records per second over all cores.
    pub records_per_s: f64,
    /// Latency from scheduled send time; `null` unless the load was open-loop.
    pub latency_us: Option<LatencyUs>,
    /// Largest resident memory of the process that was seen during the run, MiB.
    pub rss_mib: f64,
    /// Whether the result equals the reference; `null` where it was not checked.
    pub verified: Option<bool>,
    /// What the machine does without an engine, measured in the same run, records per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_records_per_s: Option<f64>,
    /// `records_per_s` as a share of the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// What a loop that only looks at the clock saw on the same cores, by turns with the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe_latency_us: Option<LatencyUs>,
    /// Cores that the process used while it ran, from its processor time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores_used: Option<f64>,
    /// What a record costs on both sides of an exchange, waiting left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns_per_record: Option<SideCostsNs>,
    /// Figures of checkpoints, beside their targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<CheckpointReport>,
    /// Cores that the job ran on, for the rate per core. Not part of the JSON object.
    #[serde(skip)]
    pub cores: u32,
}

/// Percentiles of a latency, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LatencyUs {
    /// Median.
    pub p50: f64,
    /// 90 %.
    pub p90: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p99_9: f64,
    /// 99.99 %.
    pub p99_99: f64,
    /// The largest.
    pub max: f64,
}

/// What a record costs on both sides of an exchange, in nanoseconds: medians of all runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SideCostsNs {
    /// At the job's sender.
    pub sender: f64,
    /// At its receiver.
    pub receiver: f64,
    /// At the sender of the bare ring.
    pub limit_sender: f64,
    /// At its receiver.
    pub limit_receiver: f64,
}

/// How reports are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    /// One JSON object a line.
    Json,
}

impl WorkloadReport {
    /// A report of a run without latency, limit or check; those are set on it where they exist.
    ///
    /// `cores` is the number of cores that the job had, which is the parallelism unless it was oversubscribed.
    ///
    /// # Panics
    /// Where `parallelism` or `cores` is 0 or `seconds` is no positive number.
    pub fn new(workload: impl Into<String>, parallelism: u32, cores: u32, records: u64, seconds: f64) -> Self {
        assert!(parallelism > 0 && cores > 0);
        assert!(seconds.is_finite() && seconds > 0.0, "a run takes time: {seconds} s");
        Self {
            workload: workload.into(),
            parallelism,
            records,
            seconds,
            records_per_s: records as f64 / seconds,
            latency_us: None,
            rss_mib: resident_mib(),
            verified: None,
            limit_records_per_s: None,
            ratio: None,
            probe_latency_us: None,
            cores_used: None,
            ns_per_record: None,
            checkpoint: None,
            cores,
        }
    }

    /// Sets the machine's limit, and the ratio with it.
    #[must_use]
    pub fn with_limit(mut self, limit_records_per_s: f64) -> Self {
        self.limit_records_per_s = Some(limit_records_per_s);
        self.ratio = (limit_records_per_s > 0.0).then(|| self.records_per_s / limit_records_per_s);
        self
    }

    /// Records per second and core.
    pub fn records_per_s_and_core(&self) -> f64 {
        self.records_per_s / f64::from(self.cores)
    }

    /// The object of `--format json`, without a line end.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and names always serialise")
    }
}

impl LatencyUs {
    /// Percentiles of a histogram of nanoseconds; `None` if it is empty.
    pub fn from_ns(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |percentile| histogram.value_at_percentile(percentile) as f64 / 1_000.0;
        (!histogram.is_empty()).then(|| Self {
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p99_9: at(99.9),
            p99_99: at(99.99),
            max: histogram.max() as f64 / 1_000.0,
        })
    }
}

/// Resident memory of this process now, MiB; 0 where the system does not say.
pub fn resident_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).map_or(0.0, |kib| kib / 1024.0)
}

/// The reports in `format`, ending in a line end.
pub fn render(reports: &[WorkloadReport], format: Format) -> String {
    match format {
        Format::Json => reports.iter().map(|report| report.to_json() + "\n").collect(),
        Format::Table => table(reports),
    }
}

/// The reports as a table; columns that no report has a value for are left out.
pub fn table(reports: &[WorkloadReport]) -> String {
    let latency = reports.iter().any(|report| report.latency_us.is_some());
    let limit = reports.iter().any(|report| report.limit_records_per_s.is_some());
    let mut rows = vec![header(latency, limit)];
    rows.extend(reports.iter().map(|report| row(report, latency, limit)));
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
        .collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            // Names to the left, numbers to the right.
            let result = if column == 0 { write!(text, "{cell:<width$}") } else { write!(text, "  {cell:>width$}") };
            result.expect("writing to a string");
        }
        text.push('\n');
        if number == 0 {
            let width = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
            text.push_str(&"-".repeat(width));
            text.push('\n');
        }
    }
    text
}

fn header(latency: bool, limit: bool) -> Vec<String> {
    let mut cells = vec!["workload", "p", "records", "seconds", "records/s", "per core"];
    if latency {
        cells.extend(["p50", "p90", "p99", "p99.9", "p99.99", "max"]);
    }
    cells.push("memory");
    if limit {
        cells.extend(["limit/s", "of limit"]);
    }
    cells.push("result");
    cells.into_iter().map(str::to_owned).collect()
}

fn row(report: &WorkloadReport, latency: bool, limit: bool) -> Vec<String> {
    let mut cells = vec![
        report.workload.clone(),
        report.parallelism.to_string(),
        grouped(report.records),
        format!("{:.3}", report.seconds),
        rate(report.records_per_s),
        rate(report.records_per_s_and_core()),
    ];
    if latency {
        match &report.latency_us {
            Some(l) => cells.extend([l.p50, l.p90, l.p99, l.p99_9, l.p99_99, l.max].map(micros)),
            None => cells.extend(std::iter::repeat_n("-".to_owned(), 6)),
        }
    }
    cells.push(format!("{:.0} MiB", report.rss_mib));
    if limit {
        cells.push(report.limit_records_per_s.map_or_else(|| "-".into(), rate));
        cells.push(report.ratio.map_or_else(|| "-".into(), |ratio| format!("{:.0} %", ratio * 100.0)));
    }
    let result = match report.verified {
        Some(true) => "correct",
        Some(false) => "WRONG",
        None => "not checked",
    };
    cells.push(result.to_owned());
    cells
}

/// A rate in three digits: `12.3 M`.
pub fn rate(per_second: f64) -> String {
    let (value, unit) = match per_second {
        rate if rate >= 1e9 => (rate / 1e9, " G"),
        rate if rate >= 1e6 => (rate / 1e6, " M"),
        rate if rate >= 1e3 => (rate / 1e3, " k"),
        rate => (rate, ""),
    };
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}{unit}")
}

/// A number with its digits in groups of three: `12,345,678`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn micros(us: f64) -> String {
    if us >= 1_000_000.0 {
        format!("{:.2} s", us / 1e6)
    } else if us >= 1_000.0 {
        format!("{:.2} ms", us / 1e3)
    } else {
        format!("{us:.1} µs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> WorkloadReport {
        let mut report = WorkloadReport::new("q5", 2, 2, 10_000_000, 0.5);
        report.rss_mib = 123.4;
        report
    }

    #[test]
    fn when_serialised_then_the_object_has_the_fields_of_the_contract_in_order() {
        let mut report = report();
        let expected = "{\"workload\":\"q5\",\"parallelism\":2,\"records\":10000000,\"seconds\":0.5,\
                        \"records_per_s\":20000000.0,\"latency_us\":null,\"rss_mib\":123.4,\"verified\":null}";
        assert_eq!(report.to_json(), expected);
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        (1..=10_000).for_each(|us| histogram.record(us * 1_000).unwrap());
        report.latency_us = LatencyUs::from_ns(&histogram);
        report.verified = Some(true);
        let value: serde_json::Value = serde_json::from_str(&report.with_limit(4e7).to_json()).unwrap();
        let latency = value["latency_us"].as_object().unwrap();
        let mut keys: Vec<&str> = latency.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["max", "p50", "p90", "p99", "p99_9", "p99_99"]);
        assert!((latency["p99"].as_f64().unwrap() - 9_900.0).abs() < 20.0);
        assert_eq!((&value["verified"], &value["ratio"]), (&true.into(), &0.5.into()));
        assert_eq!(value["limit_records_per_s"], 4e7);
    }

    #[test]
    fn when_nothing_was_measured_then_there_is_no_latency() {
        assert_eq!(LatencyUs::from_ns(&Histogram::new(3).unwrap()), None);
    }

    #[test]
    fn when_shown_as_a_table_then_columns_line_up_and_empty_ones_are_left_out() {
        let text = table(&[report(), report().with_limit(2.5e7)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| line.chars().count() == lines[0].chars().count()), "{text}");
        assert!(lines[0].contains("of limit") && !lines[0].contains("p99"), "{text}");
        assert!(lines[2].contains("10,000,000") && lines[2].contains("10.0 M") && lines[3].contains("80 %"), "{text}");
    }

    #[test]
    fn when_numbers_are_shown_then_they_keep_three_digits() {
        assert_eq!([rate(12_345_678.0), rate(999.0), rate(1_500.0)], ["12.3 M", "999", "1.50 k"]);
        assert_eq!(
            [grouped(0), grouped(999), grouped(1_000), grouped(12_345_678)],
            ["0", "999", "1,000", "12,345,678"]
        );
        assert_eq!([micros(3.25), micros(1_234.0), micros(2e6)], ["3.2 µs", "1.23 ms", "2.00 s"]);
    }

    #[test]
    fn when_json_is_asked_for_then_each_report_is_one_line() {
        let text = render(&[report(), report()], Format::Json);
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    }
}
