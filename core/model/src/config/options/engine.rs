//! `EngineOptions`: what slots, buffers and operators are told; and where a job starts from.

use std::time::Duration;

use crate::config::{
    Configuration, keys,
    value::{MemorySize, enumeration},
};

/// Who owns the checkpoint or savepoint that a job starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClaimMode {
    /// The engine, which deletes it in time.
    Claim,
    /// The user: the first checkpoint is full, then nothing depends on it.
    #[default]
    NoClaim,
    /// Nobody; deprecated.
    Legacy,
}

enumeration!(ClaimMode,
    ClaimMode::Claim => "CLAIM",
    ClaimMode::NoClaim => "NO_CLAIM",
    ClaimMode::Legacy => "LEGACY",
);

/// Execution of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Parallelism where nothing else is said.
    pub parallelism: u32,
    /// Number of key groups; `None`: derived.
    pub max_parallelism: Option<u32>,
    /// Name of the job.
    pub name: Option<String>,
    /// Period of watermarks; zero: none by time.
    pub auto_watermark_interval: Duration,
    /// Whether operators are fused.
    pub chaining: bool,
    /// Whether operators of different maximum parallelism may be.
    pub chain_different_max_parallelism: bool,
    /// When buffers that are not full are sent; `None`: never; zero: after each record.
    pub buffer_timeout: Option<Duration>,
    /// Period of latency markers; `None`: none.
    pub latency_interval: Option<Duration>,
}

impl From<&Configuration> for EngineOptions {
    fn from(config: &Configuration) -> Self {
        let latency = config.value(&keys::LATENCY_INTERVAL);
        let timeout = config.value(&keys::BUFFER_TIMEOUT);
        Self {
            parallelism: config.value(&keys::PARALLELISM).get(),
            max_parallelism: u32::try_from(config.value(&keys::MAX_PARALLELISM)).ok().filter(|&max| max > 0),
            name: config.get(&keys::NAME),
            auto_watermark_interval: config.value(&keys::AUTO_WATERMARK_INTERVAL),
            chaining: config.value(&keys::CHAINING),
            chain_different_max_parallelism: config.value(&keys::CHAIN_DIFFERENT_MAX_PARALLELISM),
            buffer_timeout: config.value(&keys::BUFFER_TIMEOUT_ENABLED).then_some(timeout),
            latency_interval: (!latency.is_zero()).then_some(latency),
        }
    }
}

/// What a job starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryOptions {
    /// Savepoint or checkpoint; `None`: nothing.
    pub path: Option<String>,
    /// Whether state that no operator claims is left out instead of refused.
    pub ignore_unclaimed_state: bool,
    /// Who owns it then.
    pub claim_mode: ClaimMode,
}

impl From<&Configuration> for RecoveryOptions {
    fn from(config: &Configuration) -> Self {
        Self {
            path: config.get(&keys::RESTORE_PATH),
            ignore_unclaimed_state: config.value(&keys::IGNORE_UNCLAIMED_STATE),
            claim_mode: config.value(&keys::CLAIM_MODE),
        }
    }
}

/// Slots and memory of a process. Sizes in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryOptions {
    /// Slots.
    pub slots: u32,
    /// Memory as configured; `None`: not limited by configuration.
    pub total_bytes: Option<u64>,
    /// Memory for state as configured; see [`Self::managed_bytes`].
    pub managed_size_bytes: Option<u64>,
    /// Share for state where no size is given.
    pub managed_fraction: f64,
    /// Share for network buffers.
    pub network_fraction: f64,
    /// Least and most for network buffers.
    pub network_min_bytes: u64,
    /// See `network_min_bytes`.
    pub network_max_bytes: u64,
    /// Size of a network buffer.
    pub segment_bytes: u64,
    /// Buffers of a channel.
    pub buffers_per_channel: u32,
    /// Buffers that the channels of a gate share.
    pub floating_buffers_per_gate: u32,
    /// Buffers beyond, to finish the record in hand.
    pub overdraft_buffers_per_gate: u32,
}

impl MemoryOptions {
    /// Memory for state of all slots together: the size, else the share of `memory_bytes`; the caller passes what the
    /// machine has where `total_bytes` is not given.
    pub fn managed_bytes(&self, memory_bytes: u64) -> u64 {
        self.managed_size_bytes.unwrap_or_else(|| share(self.managed_fraction, memory_bytes))
    }

    /// Memory for network buffers of all slots together: the share, between least and most.
    pub fn network_bytes(&self, memory_bytes: u64) -> u64 {
        let most = self.network_max_bytes.max(self.network_min_bytes);
        share(self.network_fraction, memory_bytes).clamp(self.network_min_bytes, most)
    }
}

fn share(fraction: f64, of: u64) -> u64 {
    (fraction * of as f64) as u64
}

impl From<&Configuration> for MemoryOptions {
    fn from(config: &Configuration) -> Self {
        let bytes = |size: Option<MemorySize>| size.map(|size| size.0);
        Self {
            slots: config.value(&keys::TASK_SLOTS).get(),
            total_bytes: bytes(config.get(&keys::FLINK_MEMORY).or(config.get(&keys::PROCESS_MEMORY))),
            managed_size_bytes: bytes(config.get(&keys::MANAGED_MEMORY)),
            managed_fraction: config.value(&keys::MANAGED_FRACTION).0,
            network_fraction: config.value(&keys::NETWORK_FRACTION).0,
            network_min_bytes: config.value(&keys::NETWORK_MIN).0,
            network_max_bytes: config.value(&keys::NETWORK_MAX).0,
            segment_bytes: config.value(&keys::SEGMENT_SIZE).0,
            buffers_per_channel: config.value(&keys::BUFFERS_PER_CHANNEL),
            floating_buffers_per_gate: config.value(&keys::FLOATING_BUFFERS_PER_GATE),
            overdraft_buffers_per_gate: config.value(&keys::OVERDRAFT_BUFFERS_PER_GATE),
        }
    }
}
