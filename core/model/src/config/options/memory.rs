//! `MemoryOptions`: slots of a process, and how much memory their state and their network buffers may take.

use crate::config::{ConfigError, Configuration, keys};

/// Share of memory for state where none is configured.
const MANAGED_FRACTION: f64 = 0.4;
/// Share of memory for network buffers where none is configured.
const NETWORK_FRACTION: f64 = 0.1;
/// Least memory for network buffers where none is configured, in bytes.
const NETWORK_MIN_BYTES: u64 = 64 << 20;

/// Slots and memory of a process as configured; `None` everywhere: not configured. Sizes in bytes.
///
/// As long as nothing is configured that a limit follows from, there is none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MemoryOptions {
    /// Slots that the process has; `None`: as many as the job needs.
    pub slots: Option<u32>,
    /// Memory of the process; `None`: what the machine has.
    pub total_bytes: Option<u64>,
    /// Memory for state of all slots together.
    pub managed_size_bytes: Option<u64>,
    /// Its share of the memory of the process where no size is given; 0.4 unless configured.
    pub managed_fraction: Option<f64>,
    /// Share for network buffers; 0.1 unless configured.
    pub network_fraction: Option<f64>,
    /// Least for network buffers; 64 MiB unless configured, or the most where that is less.
    pub network_min_bytes: Option<u64>,
    /// Most for network buffers; no bound unless configured.
    pub network_max_bytes: Option<u64>,
}

impl MemoryOptions {
    /// Takes over what somebody set; the rest stays as it is.
    pub fn update(&mut self, config: &Configuration) {
        config.when_set(&keys::TASK_SLOTS, |value| self.slots = Some(value.get()));
        // The narrower one counts: nothing of the process is set aside here.
        config.when_set(&keys::PROCESS_MEMORY, |value| self.total_bytes = Some(value.0));
        config.when_set(&keys::FLINK_MEMORY, |value| self.total_bytes = Some(value.0));
        config.when_set(&keys::MANAGED_MEMORY, |value| self.managed_size_bytes = Some(value.0));
        config.when_set(&keys::MANAGED_FRACTION, |value| self.managed_fraction = Some(value.0));
        config.when_set(&keys::NETWORK_FRACTION, |value| self.network_fraction = Some(value.0));
        config.when_set(&keys::NETWORK_MIN, |value| self.network_min_bytes = Some(value.0));
        config.when_set(&keys::NETWORK_MAX, |value| self.network_max_bytes = Some(value.0));
    }

    /// Whether the settings go together.
    pub(crate) fn check(config: &Configuration) -> Result<(), ConfigError> {
        let (min, max) = (config.explicit(&keys::NETWORK_MIN), config.explicit(&keys::NETWORK_MAX));
        let (Some(min), Some(max)) = (min, max) else { return Ok(()) };
        if min <= max {
            return Ok(());
        }
        let (min_key, max_key) = (keys::NETWORK_MIN.name, keys::NETWORK_MAX.name);
        let problem = format!("{min_key} is {} bytes, more than {max_key}, {} bytes: lower the first", min.0, max.0);
        Err(ConfigError::Conflict { problem })
    }

    /// Whether memory for state is limited: something that a limit follows from is configured.
    pub fn limits_managed(&self) -> bool {
        self.managed_size_bytes.or(self.total_bytes).is_some() || self.managed_fraction.is_some()
    }

    /// Memory for state of all slots together: the size, else the share of the memory of the process, which is
    /// `machine_bytes` where it is not configured.
    pub fn managed_bytes(&self, machine_bytes: u64) -> u64 {
        let memory = self.total_bytes.unwrap_or(machine_bytes);
        self.managed_size_bytes.unwrap_or_else(|| share(self.managed_fraction.unwrap_or(MANAGED_FRACTION), memory))
    }

    /// Whether memory for network buffers is limited: something that a limit follows from is configured.
    pub fn limits_network(&self) -> bool {
        let sizes = [self.total_bytes, self.network_min_bytes, self.network_max_bytes];
        sizes.iter().any(Option::is_some) || self.network_fraction.is_some()
    }

    /// Memory for network buffers of all slots together: the share, between least and most.
    pub fn network_bytes(&self, machine_bytes: u64) -> u64 {
        let memory = self.total_bytes.unwrap_or(machine_bytes);
        let max = self.network_max_bytes.unwrap_or(u64::MAX);
        let min = self.network_min_bytes.unwrap_or(NETWORK_MIN_BYTES).min(max);
        share(self.network_fraction.unwrap_or(NETWORK_FRACTION), memory).clamp(min, max)
    }
}

fn share(fraction: f64, of: u64) -> u64 {
    (fraction * of as f64) as u64
}

impl From<&Configuration> for MemoryOptions {
    fn from(config: &Configuration) -> Self {
        let mut options = Self::default();
        options.update(config);
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_nothing_is_configured_then_shares_are_those_of_the_keys() {
        let config = Configuration::default();
        assert_eq!(config.value(&keys::MANAGED_FRACTION).0, MANAGED_FRACTION);
        assert_eq!(config.value(&keys::NETWORK_FRACTION).0, NETWORK_FRACTION);
        assert_eq!(config.value(&keys::NETWORK_MIN).0, NETWORK_MIN_BYTES);
        let options = MemoryOptions::from(&config);
        assert!(!options.limits_managed() && !options.limits_network());
        assert_eq!((options.managed_bytes(1000), options.network_bytes(10 << 30)), (400, 1 << 30));
    }

    #[test]
    fn when_only_the_most_is_configured_then_it_bounds_the_least_too() {
        let options = MemoryOptions { network_max_bytes: Some(1 << 20), ..Default::default() };
        assert!(options.limits_network() && !options.limits_managed());
        assert_eq!([options.network_bytes(0), options.network_bytes(1 << 40)], [1 << 20, 1 << 20]);
    }

    #[test]
    fn when_the_process_has_a_size_then_the_machines_does_not_matter() {
        let options = MemoryOptions { total_bytes: Some(1 << 30), ..Default::default() };
        assert!(options.limits_network() && options.limits_managed());
        assert_eq!(options.managed_bytes(7), share(0.4, 1 << 30));
        assert_eq!(options.network_bytes(7), share(0.1, 1 << 30));
    }
}
