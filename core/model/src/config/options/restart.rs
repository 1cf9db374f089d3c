//! `RestartStrategyOptions`: whether, how often and how soon a failed job is started again.

use std::time::Duration;

use crate::config::{Configuration, keys, value::enumeration};

/// Values of `restart-strategy.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartStrategyType {
    /// No restart.
    None,
    /// See [`FixedDelay`].
    FixedDelay,
    /// See [`FailureRate`].
    FailureRate,
    /// See [`ExponentialDelay`].
    ExponentialDelay,
}

enumeration!(RestartStrategyType,
    RestartStrategyType::None => "none" | "off" | "disable",
    RestartStrategyType::FixedDelay => "fixed-delay" | "fixeddelay",
    RestartStrategyType::FailureRate => "failure-rate" | "failurerate",
    RestartStrategyType::ExponentialDelay => "exponential-delay" | "exponentialdelay",
);

/// The strategies of `restart-strategy.type`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum RestartStrategyOptions {
    /// The job fails with its first failure. The default without checkpoints.
    #[default]
    None,
    /// A limited number of restarts, each after the same pause.
    FixedDelay(FixedDelay),
    /// Restarts as long as failures are rarer than a limit.
    FailureRate(FailureRate),
    /// Pauses that grow with each failure. The default with checkpoints.
    ExponentialDelay(ExponentialDelay),
}

/// `restart-strategy.fixed-delay.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedDelay {
    /// Restarts before the job fails.
    pub attempts: u32,
    /// Pause before each.
    pub delay: Duration,
}

/// `restart-strategy.failure-rate.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRate {
    /// Failures allowed within the interval.
    pub max_failures_per_interval: u32,
    /// The interval.
    pub interval: Duration,
    /// Pause before each restart.
    pub delay: Duration,
}

/// `restart-strategy.exponential-delay.*`.
#[derive(Clone, Debug, PartialEq)]
pub struct ExponentialDelay {
    /// First pause.
    pub initial_backoff: Duration,
    /// Longest pause.
    pub max_backoff: Duration,
    /// What a pause is multiplied by to give the next.
    pub multiplier: f64,
    /// Random share that is added or taken away, 0 to 1.
    pub jitter_factor: f64,
    /// After this long without failure the pause is the first one again.
    pub reset_threshold: Duration,
    /// Restarts without such a quiet time before the job fails.
    pub attempts: u32,
}

impl Default for FixedDelay {
    fn default() -> Self {
        Self { attempts: 1, delay: Duration::from_secs(1) }
    }
}

impl Default for FailureRate {
    fn default() -> Self {
        Self { max_failures_per_interval: 1, interval: Duration::from_secs(60), delay: Duration::from_secs(1) }
    }
}

impl Default for ExponentialDelay {
    fn default() -> Self {
        Self {
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(60),
            multiplier: 1.5,
            jitter_factor: 0.1,
            reset_threshold: Duration::from_secs(3600),
            attempts: i32::MAX as u32,
        }
    }
}

impl RestartStrategyOptions {
    /// The strategy where none is configured: exponential delay with checkpoints, none without (Flink since 1.20).
    pub fn default_for(checkpoints: bool) -> Self {
        if checkpoints { Self::ExponentialDelay(ExponentialDelay::default()) } else { Self::None }
    }
}

impl RestartStrategyOptions {
    /// The configured strategy. Where no type is set, it is the default, and the keys of that still say how it behaves.
    /// `checkpoints`: whether there are any.
    pub fn configured(config: &Configuration, checkpoints: bool) -> Self {
        let default = if checkpoints { RestartStrategyType::ExponentialDelay } else { RestartStrategyType::None };
        match config.get(&keys::RESTART_STRATEGY).unwrap_or(default) {
            RestartStrategyType::None => Self::None,
            RestartStrategyType::FixedDelay => Self::FixedDelay(FixedDelay {
                attempts: config.value(&keys::FIXED_DELAY_ATTEMPTS),
                delay: config.value(&keys::FIXED_DELAY_DELAY),
            }),
            RestartStrategyType::FailureRate => Self::FailureRate(FailureRate {
                max_failures_per_interval: config.value(&keys::FAILURE_RATE_MAX_FAILURES),
                interval: config.value(&keys::FAILURE_RATE_INTERVAL),
                delay: config.value(&keys::FAILURE_RATE_DELAY),
            }),
            RestartStrategyType::ExponentialDelay => Self::ExponentialDelay(ExponentialDelay {
                initial_backoff: config.value(&keys::EXPONENTIAL_INITIAL_BACKOFF),
                max_backoff: config.value(&keys::EXPONENTIAL_MAX_BACKOFF),
                multiplier: config.value(&keys::EXPONENTIAL_MULTIPLIER),
                jitter_factor: config.value(&keys::EXPONENTIAL_JITTER).0,
                reset_threshold: config.value(&keys::EXPONENTIAL_RESET_THRESHOLD),
                attempts: config.value(&keys::EXPONENTIAL_ATTEMPTS),
            }),
        }
    }
}

impl From<&Configuration> for RestartStrategyOptions {
    fn from(config: &Configuration) -> Self {
        let checkpoints = config.get(&keys::CHECKPOINTING_INTERVAL).is_some_and(|interval| !interval.is_zero());
        Self::configured(config, checkpoints)
    }
}
