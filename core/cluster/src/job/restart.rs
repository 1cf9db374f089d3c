//! Restart strategies: whether and when a failed job starts again (Flink's `RestartBackoffTimeStrategy`).

use std::collections::VecDeque;

use thalweg_model::config::{ExponentialDelay, FailureRate, FixedDelay, RestartStrategyOptions};

use crate::{TimeMs, time::millis};

/// What a failure leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The job starts again, not before this time.
    Restart {
        /// The time.
        at: TimeMs,
    },
    /// The job fails.
    Fail {
        /// Why it may not restart, for people.
        why: String,
    },
}

/// A restart strategy and what it remembers of earlier failures.
#[derive(Clone, Debug)]
pub struct RestartPolicy(Strategy);

#[derive(Clone, Debug)]
enum Strategy {
    None,
    Fixed { options: FixedDelay, attempts: u32 },
    Rate { options: FailureRate, failures: VecDeque<TimeMs> },
    Exponential { options: ExponentialDelay, state: Option<Backoff> },
}

/// The exponential strategy between two failures.
#[derive(Clone, Copy, Debug)]
struct Backoff {
    /// Pause of the next failure, before jitter.
    next_ms: f64,
    attempts: u32,
    restart_at: TimeMs,
}

impl RestartPolicy {
    /// A policy that has seen no failure.
    pub fn new(options: RestartStrategyOptions) -> Self {
        Self(match options {
            RestartStrategyOptions::None => Strategy::None,
            RestartStrategyOptions::FixedDelay(options) => Strategy::Fixed { options, attempts: 0 },
            RestartStrategyOptions::FailureRate(options) => Strategy::Rate { options, failures: VecDeque::new() },
            RestartStrategyOptions::ExponentialDelay(options) => Strategy::Exponential { options, state: None },
        })
    }

    /// The job has failed now. `random` may be any number; it decides the jitter.
    pub fn failed(&mut self, now: TimeMs, random: u64) -> Verdict {
        match &mut self.0 {
            Strategy::None => Verdict::Fail { why: "no restart strategy; see restart-strategy.type".into() },
            Strategy::Fixed { options, attempts } => {
                *attempts = attempts.saturating_add(1);
                if *attempts > options.attempts {
                    let why = format!(
                        "it was restarted {} times, as often as restart-strategy.fixed-delay.attempts allows",
                        options.attempts
                    );
                    return Verdict::Fail { why };
                }
                Verdict::Restart { at: now.plus(options.delay) }
            }
            Strategy::Rate { options, failures } => rate(options, failures, now),
            Strategy::Exponential { options, state } => exponential(options, state, now, random),
        }
    }
}

fn rate(options: &FailureRate, failures: &mut VecDeque<TimeMs>, now: TimeMs) -> Verdict {
    let most = options.max_failures_per_interval as usize;
    failures.push_back(now);
    while failures.len() > most + 1 {
        failures.pop_front();
    }
    let too_many = failures.len() > most && now.since_ms(failures[0]) <= millis(options.interval);
    if too_many {
        let why = format!(
            "more than {most} failures within {:?}; see restart-strategy.failure-rate.max-failures-per-interval",
            options.interval
        );
        return Verdict::Fail { why };
    }
    Verdict::Restart { at: now.plus(options.delay) }
}

fn exponential(options: &ExponentialDelay, state: &mut Option<Backoff>, now: TimeMs, random: u64) -> Verdict {
    let (first_ms, max_ms) = (millis(options.initial_backoff) as f64, millis(options.max_backoff) as f64);
    let fresh = Backoff { next_ms: first_ms.min(max_ms), attempts: 0, restart_at: now };
    let mut backoff = match *state {
        // Several failures before the restart that one of them led to are one.
        Some(backoff) if now <= backoff.restart_at => return Verdict::Restart { at: backoff.restart_at },
        Some(backoff) if now.since_ms(backoff.restart_at) < millis(options.reset_threshold) => backoff,
        _ => fresh,
    };
    backoff.attempts = backoff.attempts.saturating_add(1);
    if backoff.attempts > options.attempts {
        let why = format!(
            "it was restarted {} times without a quiet time of {:?}; see \
             restart-strategy.exponential-delay.attempts-before-reset-backoff",
            options.attempts, options.reset_threshold
        );
        return Verdict::Fail { why };
    }
    // From -1 to 1.
    let swing = random as f64 / u64::MAX as f64 * 2.0 - 1.0;
    let pause_ms = (backoff.next_ms * (1.0 + swing * options.jitter_factor)).clamp(0.0, max_ms);
    backoff.restart_at = TimeMs(now.0.saturating_add(pause_ms as u64));
    backoff.next_ms = (backoff.next_ms * options.multiplier).min(max_ms);
    *state = Some(backoff);
    Verdict::Restart { at: backoff.restart_at }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn restart(at: u64) -> Verdict {
        Verdict::Restart { at: TimeMs(at) }
    }

    fn fails(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Fail { .. })
    }

    /// In the middle of the jitter.
    const MIDDLE: u64 = u64::MAX / 2;

    #[test]
    fn when_there_is_no_strategy_then_the_first_failure_is_the_last() {
        assert!(fails(&RestartPolicy::new(RestartStrategyOptions::None).failed(TimeMs(0), 0)));
    }

    #[test]
    fn when_the_delay_is_fixed_then_so_is_the_number_of_restarts() {
        let options = FixedDelay { attempts: 2, delay: Duration::from_millis(10) };
        let mut policy = RestartPolicy::new(RestartStrategyOptions::FixedDelay(options));
        assert_eq!(policy.failed(TimeMs(5), 0), restart(15));
        assert_eq!(policy.failed(TimeMs(1_000_000), 0), restart(1_000_010));
        assert!(fails(&policy.failed(TimeMs(2_000_000), 0)));
    }

    #[test]
    fn when_failures_are_rarer_than_the_limit_then_restarts_never_end() {
        let interval = Duration::from_millis(100);
        let options = FailureRate { max_failures_per_interval: 2, interval, delay: Duration::from_millis(1) };
        let mut policy = RestartPolicy::new(RestartStrategyOptions::FailureRate(options));
        for n in 0..50 {
            assert_eq!(policy.failed(TimeMs(n * 51), 0), restart(n * 51 + 1), "two in 100 ms are allowed");
        }
        assert!(fails(&policy.failed(TimeMs(49 * 51 + 10), 0)), "a third is not");
    }

    #[test]
    fn when_failures_go_on_then_the_pause_grows_to_its_limit_and_quiet_resets_it() {
        let options = ExponentialDelay {
            initial_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_millis(400),
            multiplier: 2.0,
            jitter_factor: 0.0,
            reset_threshold: Duration::from_millis(1000),
            attempts: 5,
        };
        let mut policy = RestartPolicy::new(RestartStrategyOptions::ExponentialDelay(options));
        assert_eq!(policy.failed(TimeMs(0), MIDDLE), restart(100));
        assert_eq!(policy.failed(TimeMs(50), MIDDLE), restart(100), "failures before the restart are one");
        assert_eq!(policy.failed(TimeMs(101), MIDDLE), restart(301));
        assert_eq!(policy.failed(TimeMs(302), MIDDLE), restart(702));
        assert_eq!(policy.failed(TimeMs(703), MIDDLE), restart(1103));
        assert_eq!(policy.failed(TimeMs(2103), MIDDLE), restart(2203), "1,000 ms without failure");
        for n in 0..4 {
            assert!(!fails(&policy.failed(TimeMs(3000 + n * 500), MIDDLE)));
        }
        assert!(fails(&policy.failed(TimeMs(5001), MIDDLE)));
    }

    #[test]
    fn when_there_is_jitter_then_the_pause_stays_within_it() {
        let of = |random| {
            let options = ExponentialDelay::default();
            match RestartPolicy::new(RestartStrategyOptions::ExponentialDelay(options)).failed(TimeMs(0), random) {
                Verdict::Restart { at } => at.0,
                Verdict::Fail { why } => panic!("{why}"),
            }
        };
        assert_eq!((of(0), of(u64::MAX)), (900, 1100));
        assert!((999..=1001).contains(&of(MIDDLE)));
    }
}
