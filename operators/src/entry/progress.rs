//! The line on standard error that shows how far a job is; it also looks for Ctrl-C.

use std::{
    collections::HashSet,
    io::{IsTerminal as _, Write as _},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use thalweg_model::metrics::{MetricRegistry, MetricValue, Scope};
use thalweg_runtime::JobReport;

use super::signals::{Interrupt, LOOK};
use crate::{cluster::JobClient, file_source::FileProgress};

/// Where standard error is no terminal, a line is written this often, so that a log shows life and stays short.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// Back to the start of the line, which is emptied.
const CLEAR: &str = "\r\x1b[2K";

/// What there is to see of a job.
pub(super) struct Watch {
    pub job_name: String,
    pub metrics: MetricRegistry,
    /// Ids of the operators that are sources.
    pub sources: HashSet<String>,
    pub files: Vec<Arc<FileProgress>>,
    /// Whether it is shown, or only looked for signals.
    pub shown: bool,
}

/// Somebody watches.
pub(super) struct Watching {
    stop: mpsc::Sender<Option<Duration>>,
    thread: Option<JoinHandle<()>>,
}

impl Watching {
    /// Takes the line away; says how it went if there is a report.
    pub fn end(self, report: Option<&JobReport>) {
        // Without a thread there is nothing to stop; a thread that panicked has said so itself.
        let _ = self.stop.send(report.map(|report| report.duration));
        let _ = self.thread.map(JoinHandle::join);
    }
}

impl Watch {
    /// Begins to watch; cancels the job when a signal has come.
    pub fn start(self, control: JobClient, interrupt: Interrupt) -> Watching {
        let (stop, stopped) = mpsc::channel();
        let watch = move || self.run(&control, &interrupt, &stopped);
        // Without a thread the job runs unseen, which is better than not at all.
        let thread = std::thread::Builder::new().name("progress".into()).spawn(watch).ok();
        Watching { stop, thread }
    }

    fn run(&self, control: &JobClient, interrupt: &Interrupt, stopped: &mpsc::Receiver<Option<Duration>>) {
        let is_terminal = std::io::stderr().is_terminal();
        let (started, mut logged) = (Instant::now(), Instant::now());
        let mut is_shown = false;
        let report = loop {
            match stopped.recv_timeout(LOOK) {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break None,
                Ok(report) => break report,
            }
            if interrupt.is_set() && !control.is_cancelled() {
                control.cancel();
            }
            if !self.shown {
                continue;
            }
            if is_terminal {
                show(&format!("{CLEAR}{}", self.line(started.elapsed())));
                is_shown = true;
            } else if logged.elapsed() >= LOG_EVERY {
                logged = Instant::now();
                show(&format!("{}\n", self.line(started.elapsed())));
            }
        };
        if is_shown {
            show(CLEAR);
        }
        if let Some(duration) = report.filter(|_| self.shown) {
            show(&format!("{}\n", summary(&self.job_name, self.records(), duration)));
        }
    }

    /// Records that the sources have emitted.
    fn records(&self) -> u64 {
        let mut records = 0;
        self.metrics.visit(0, |sample| {
            let is_source =
                || sample.labels.iter().any(|(name, id)| name == "operator_id" && self.sources.contains(id));
            if let (Scope::Operator, "numRecordsOut", MetricValue::Counter(count)) =
                (sample.scope, sample.name, &sample.value)
                && is_source()
            {
                records += count;
            }
        });
        records
    }

    fn line(&self, elapsed: Duration) -> String {
        let sum = |of: fn(&FileProgress) -> u64| self.files.iter().map(|file| of(file)).sum();
        let bytes = (sum(FileProgress::done_bytes), sum(FileProgress::total_bytes));
        line(&self.job_name, self.records(), bytes, elapsed)
    }
}

fn show(text: &str) {
    // Nobody to show it to is no reason to stop the job.
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

fn line(name: &str, records: u64, (done_bytes, total_bytes): (u64, u64), elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let files = if total_bytes == 0 {
        String::new()
    } else {
        let percent = (done_bytes as f64 / total_bytes as f64 * 100.0).min(100.0).floor();
        format!("{percent:.0} % of {}B, ", short(total_bytes as f64))
    };
    let rate = short(records as f64 / seconds.max(1e-9));
    format!("{name}: {files}{} records, {rate}/s, {seconds:.0} s", grouped(records))
}

fn summary(name: &str, records: u64, duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    let rate = short(records as f64 / seconds.max(1e-9));
    format!("{name}: {} records in {seconds:.3} s ({rate}/s)", grouped(records))
}

/// Digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three digits and a prefix: `1.23 M`.
fn short(number: f64) -> String {
    let (scaled, prefix) = match number {
        1e9.. => (number / 1e9, "G"),
        1e6.. => (number / 1e6, "M"),
        1e3.. => (number / 1e3, "k"),
        _ => (number, ""),
    };
    match scaled {
        100.0.. => format!("{scaled:.0} {prefix}"),
        10.0.. => format!("{scaled:.1} {prefix}"),
        _ => format!("{scaled:.2} {prefix}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_files_are_read_then_the_line_shows_the_share_of_their_bytes() {
        let text = line("flights", 9_000, (250_000, 1_000_000), Duration::from_secs(3));
        assert_eq!(text, "flights: 25 % of 1.00 MB, 9,000 records, 3.00 k/s, 3 s");
    }

    #[test]
    fn when_there_are_no_files_then_the_line_counts() {
        assert_eq!(line("job", 1_234_567, (0, 0), Duration::from_secs(10)), "job: 1,234,567 records, 123 k/s, 10 s");
        assert_eq!(summary("job", 1000, Duration::from_millis(20)), "job: 1,000 records in 0.020 s (50.0 k/s)");
    }
}
