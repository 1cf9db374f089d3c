//! The line on standard error that shows how far a run has come.

use std::io::{IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::report::{grouped, rate, resident_mib};

/// On a terminal the line is redrawn this often; memory is looked at as often everywhere.
const REDRAW: Duration = Duration::from_millis(200);
/// Elsewhere a line is written this often, so that a log shows life and stays short.
const LOG_EVERY: Duration = Duration::from_secs(2);

/// Shows progress from a thread of its own until it is finished or dropped.
#[derive(Debug)]
pub struct Progress {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<f64>>,
}

struct Line<F> {
    label: String,
    total: Option<u64>,
    done: F,
    started: Instant,
}

impl Progress {
    /// Begins to show `label` with how much of `total` is done, as `done` tells; without `total`, the count alone.
    ///
    /// `done` is called on the progress thread, five times a second.
    pub fn start(label: impl Into<String>, total: Option<u64>, done: impl Fn() -> u64 + Send + 'static) -> Self {
        let line = Line { label: label.into(), total, done, started: Instant::now() };
        let (stop, stopped) = mpsc::channel();
        let terminal = std::io::stderr().is_terminal();
        // Without a thread the run goes on unseen, which is better than not at all.
        let thread = std::thread::Builder::new().name("progress".into()).spawn(move || {
            let mut peak_mib = resident_mib();
            let mut logged = Instant::now();
            while stopped.recv_timeout(REDRAW) == Err(RecvTimeoutError::Timeout) {
                peak_mib = peak_mib.max(resident_mib());
                if terminal {
                    show(&format!("\r\x1b[2K{}", line.text()));
                } else if logged.elapsed() >= LOG_EVERY {
                    logged = Instant::now();
                    show(&format!("{}\n", line.text()));
                }
            }
            show(if terminal { "\r\x1b[2K" } else { "" });
            peak_mib.max(resident_mib())
        });
        Self { stop: Some(stop), thread: thread.ok() }
    }

    /// Takes the line away and answers the largest resident memory that was seen, MiB.
    pub fn finish(mut self) -> f64 {
        self.end().unwrap_or_else(resident_mib)
    }

    fn end(&mut self) -> Option<f64> {
        drop(self.stop.take());
        self.thread.take()?.join().ok()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

impl<F: Fn() -> u64> Line<F> {
    fn text(&self) -> String {
        text(&self.label, (self.done)(), self.total, self.started.elapsed())
    }
}

fn show(text: &str) {
    // Nobody to show it to is no reason to stop the run.
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

fn text(label: &str, done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let per_second = if seconds > 0.0 { done as f64 / seconds } else { 0.0 };
    let count = match total {
        Some(total) => {
            let share = if total == 0 { 1.0 } else { (done as f64 / total as f64).min(1.0) };
            format!("{:3.0} % of {}", (share * 100.0).floor(), grouped(total))
        }
        None => grouped(done),
    };
    let left = match total {
        Some(total) if per_second > 0.0 && done < total => {
            format!(", {:.0} s left", ((total - done) as f64 / per_second).ceil())
        }
        _ => String::new(),
    };
    format!("{label}: {count}, {}/s, {seconds:.0} s{left}", rate(per_second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_the_total_is_known_then_the_line_says_what_is_left() {
        let line = text("q5", 2_500_000, Some(10_000_000), Duration::from_secs(5));
        assert_eq!(line, "q5:  25 % of 10,000,000, 500 k/s, 5 s, 15 s left");
        assert!(!text("q5", 10, Some(10), Duration::from_secs(1)).contains("left"));
    }

    #[test]
    fn when_the_total_is_not_known_then_the_line_counts() {
        assert_eq!(text("flights", 1_234, None, Duration::from_secs(1)), "flights: 1,234, 1.23 k/s, 1 s");
    }

    #[test]
    fn when_finished_then_the_memory_that_was_seen_is_answered() {
        assert!(Progress::start("test", Some(1), || 1).finish() > 0.0);
    }
}
