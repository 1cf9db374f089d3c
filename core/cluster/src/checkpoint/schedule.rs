//! When the next checkpoint is due by itself: the period, the first random delay, and the last one of a bounded job.

use std::time::Duration;

use thalweg_model::config::CheckpointingOptions;

use crate::{TimeMs, time::millis};

/// Pause before a last checkpoint that failed is tried again, unless the period is shorter. It doubles each time.
const LAST_RETRY: Duration = Duration::from_secs(1);
/// What it grows to, unless the period is longer: short enough for a job that waits for room on a disk, long enough for
/// whoever reads of each try in the log.
const LAST_RETRY_MOST: Duration = Duration::from_secs(10);

/// The checkpoint that a bounded job takes when everything is processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// There still is input.
    NotYet,
    /// It is to be asked for at this time.
    At(TimeMs),
    /// It was asked for.
    Asked,
}

#[derive(Clone, Debug)]
pub(super) struct Schedule {
    interval: Option<Duration>,
    backlog_interval: Option<Duration>,
    min_pause: Duration,
    running: bool,
    backlog: bool,
    next: Option<TimeMs>,
    last: Last,
    /// How long the last one pauses if it fails once more; none before it has failed.
    last_pause: Option<Duration>,
}

impl Schedule {
    pub fn new(options: &CheckpointingOptions) -> Self {
        // More often than the pause allows makes no sense.
        let at_least_the_pause = |interval: Duration| interval.max(options.min_pause).max(Duration::from_millis(1));
        Self {
            interval: options.interval.map(at_least_the_pause),
            backlog_interval: options
                .interval_during_backlog
                .map(|interval| if interval.is_zero() { interval } else { at_least_the_pause(interval) }),
            min_pause: options.min_pause,
            running: false,
            backlog: false,
            next: None,
            last: Last::NotYet,
            last_pause: None,
        }
    }

    /// The period now; `None`: no periodic checkpoints.
    fn period(&self) -> Option<Duration> {
        match (self.interval, self.backlog_interval) {
            (Some(_), Some(backlog)) if self.backlog => (!backlog.is_zero()).then_some(backlog),
            (interval, _) => interval,
        }
    }

    /// The first one comes after a random delay between the pause and the period, so that jobs do not march in step.
    pub fn start(&mut self, now: TimeMs, random: u64) {
        (self.running, self.backlog, self.last, self.last_pause) = (true, false, Last::NotYet, None);
        let delay = self.period().map(|period| {
            let (least, most) = (millis(self.min_pause), millis(period));
            least + random % (most - least + 1)
        });
        self.next = delay.map(|delay| TimeMs(now.0.saturating_add(delay)));
    }

    pub fn stop(&mut self) {
        (self.running, self.next, self.last, self.last_pause) = (false, None, Last::NotYet, None);
    }

    /// Goes on after a stop that came to nothing.
    pub fn resume(&mut self, now: TimeMs) {
        self.running = true;
        self.next = self.period().map(|period| now.plus(period));
    }

    /// A source began or ceased to work off backlog: the period changes.
    pub fn backlog(&mut self, now: TimeMs, active: bool) {
        if std::mem::replace(&mut self.backlog, active) == active || !self.running {
            return;
        }
        let next = self.period().map(|period| now.plus(period));
        // A shorter period begins at once; one that is already due stays so.
        self.next = match (self.next, next) {
            (Some(old), Some(new)) => Some(old.min(new)),
            (_, new) => new,
        };
    }

    /// The periodic one came within the pause.
    pub fn postpone(&mut self, until: TimeMs) {
        if self.running && self.period().is_some() {
            self.next = Some(until);
        }
    }

    /// Whether the periodic one is due; then the next one is a period later.
    pub fn periodic_due(&mut self, now: TimeMs) -> bool {
        let (Some(next), Some(period)) = (self.next, self.period()) else { return false };
        if next > now {
            return false;
        }
        // Fixed rate; periods that were slept through are left out.
        let missed = now.since_ms(next) / millis(period);
        self.next = Some(TimeMs(next.0.saturating_add((missed + 1).saturating_mul(millis(period)))));
        true
    }

    /// Everything is processed: one more is due now. Does nothing where there are no checkpoints or it was asked for.
    pub fn want_last(&mut self, now: TimeMs) {
        if self.running && self.interval.is_some() && self.last == Last::NotYet {
            self.last = Last::At(now);
        }
    }

    pub fn last_due(&mut self, now: TimeMs) -> bool {
        let due = matches!(self.last, Last::At(at) if at <= now);
        if due {
            self.last = Last::Asked;
        }
        due
    }

    pub fn last_failed(&mut self, now: TimeMs) {
        if self.running && self.last == Last::Asked {
            let period = self.interval.unwrap_or(LAST_RETRY);
            let pause = self.last_pause.unwrap_or(period.min(LAST_RETRY)).max(self.min_pause);
            self.last_pause = Some((pause * 2).min(period.max(LAST_RETRY_MOST)));
            let retry_at = now.plus(pause);
            self.last = Last::At(retry_at);
            // Periodic ones would fail of the same thing in between.
            let after = self.period().map(|period| retry_at.plus(period));
            self.next = self.next.max(after.filter(|_| self.next.is_some()));
        }
    }

    pub fn next_wakeup(&self) -> Option<TimeMs> {
        let last = match self.last {
            Last::At(at) => Some(at),
            Last::NotYet | Last::Asked => None,
        };
        self.next.into_iter().chain(last).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(interval_ms: u64, min_pause_ms: u64, backlog_ms: Option<u64>) -> Schedule {
        Schedule::new(&CheckpointingOptions {
            interval: Some(Duration::from_millis(interval_ms)),
            min_pause: Duration::from_millis(min_pause_ms),
            interval_during_backlog: backlog_ms.map(Duration::from_millis),
            ..Default::default()
        })
    }

    #[test]
    fn when_started_then_the_first_comes_between_pause_and_period() {
        let mut schedule = schedule(100, 40, None);
        let mut seen = std::collections::BTreeSet::new();
        for random in 0..1000 {
            schedule.start(TimeMs(1000), random);
            seen.insert(schedule.next_wakeup().unwrap().0);
        }
        assert_eq!((seen.first(), seen.last(), seen.len()), (Some(&1040), Some(&1100), 61));
    }

    #[test]
    fn when_the_pause_exceeds_the_period_then_it_is_the_period() {
        let mut schedule = schedule(10, 50, None);
        schedule.start(TimeMs(0), 7);
        assert_eq!(schedule.next_wakeup(), Some(TimeMs(50)));
        assert!(schedule.periodic_due(TimeMs(50)));
        assert_eq!(schedule.next_wakeup(), Some(TimeMs(100)));
    }

    #[test]
    fn when_periods_were_slept_through_then_one_is_due_and_the_rate_stays() {
        let mut schedule = schedule(100, 0, None);
        schedule.start(TimeMs(0), 100);
        assert!(!schedule.periodic_due(TimeMs(99)));
        assert!(schedule.periodic_due(TimeMs(350)));
        assert!(!schedule.periodic_due(TimeMs(350)));
        assert_eq!(schedule.next_wakeup(), Some(TimeMs(400)));
    }

    #[test]
    fn when_a_source_has_backlog_then_the_other_period_holds_or_none() {
        let mut slower = schedule(100, 0, Some(1000));
        slower.start(TimeMs(0), 100);
        slower.backlog(TimeMs(0), true);
        assert!(slower.periodic_due(TimeMs(100)), "what was due stays due");
        assert_eq!(slower.next_wakeup(), Some(TimeMs(1100)));
        slower.backlog(TimeMs(200), false);
        assert_eq!(slower.next_wakeup(), Some(TimeMs(300)));
        let mut none = schedule(100, 0, Some(0));
        none.start(TimeMs(0), 100);
        none.backlog(TimeMs(10), true);
        assert_eq!(none.next_wakeup(), None);
        none.backlog(TimeMs(500), false);
        assert_eq!(none.next_wakeup(), Some(TimeMs(600)));
    }

    #[test]
    fn when_everything_is_processed_then_one_more_is_due_until_it_succeeds() {
        let mut schedule = schedule(100_000, 0, None);
        schedule.start(TimeMs(0), 100_000);
        schedule.want_last(TimeMs(5));
        assert!(schedule.last_due(TimeMs(5)));
        schedule.want_last(TimeMs(6));
        assert!(!schedule.last_due(TimeMs(6)), "asked for once");
        schedule.last_failed(TimeMs(10));
        assert_eq!(schedule.next_wakeup(), Some(TimeMs(1010)));
        assert!(schedule.last_due(TimeMs(1010)));
    }

    /// When all checkpoints of a minute are asked for, if each fails at once.
    fn failing_at_the_end(schedule: &mut Schedule) -> Vec<u64> {
        schedule.start(TimeMs(0), 0);
        schedule.want_last(TimeMs(1000));
        let (mut tries, mut now) = (Vec::new(), TimeMs(1000));
        while now < TimeMs(61_000) {
            let periodic = schedule.periodic_due(now);
            if schedule.last_due(now) {
                tries.push(now.0);
                schedule.last_failed(now);
            } else if periodic {
                tries.push(now.0);
            }
            now = schedule.next_wakeup().unwrap().max(TimeMs(now.0 + 1));
        }
        tries
    }

    #[test]
    fn when_the_last_one_fails_again_and_again_then_the_pauses_grow_and_periodic_ones_keep_out_of_the_way() {
        let tries = failing_at_the_end(&mut schedule(50, 0, None));
        let pauses: Vec<u64> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000, 10_000], "{tries:?}");
        // The minimum pause holds from the first retry on, and a long period is never exceeded.
        let tries = failing_at_the_end(&mut schedule(50, 4000, None));
        assert!(tries.windows(2).all(|pair| pair[1] - pair[0] >= 4000), "{tries:?}");
        let tries = failing_at_the_end(&mut schedule(100_000, 0, None));
        assert_eq!(tries, [1000, 2000, 4000, 8000, 16_000, 32_000], "{tries:?}");
        // Another attempt of the job begins anew.
        let mut again = schedule(50, 0, None);
        failing_at_the_end(&mut again);
        assert_eq!(failing_at_the_end(&mut again)[..3], [1000, 1050, 1150]);
    }
}
