//! `EngineOptions`: what operators and buffers are told.

use std::time::Duration;

use crate::{
    config::{ConfigError, Configuration, keys},
    key_group::UPPER_BOUND_MAX_PARALLELISM,
};

/// Network buffers are of a multiple of so many bytes.
const SEGMENT_GRAIN_BYTES: u64 = 64;
/// How `pipeline.max-parallelism` says that it follows from the parallelism.
const DERIVED_MAX_PARALLELISM: i32 = -1;

/// Execution of a job, as far as somebody set it; `None`: nobody did, and the engine has its own default, which is Flink's
/// but for the parallelism (a subtask per core).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineOptions {
    /// Parallelism where nothing else is said.
    pub parallelism: Option<u32>,
    /// Number of key groups; `Some(None)`: derived.
    pub max_parallelism: Option<Option<u32>>,
    /// Name of the job.
    pub name: Option<String>,
    /// Period of watermarks; zero: none by time.
    pub auto_watermark_interval: Option<Duration>,
    /// Whether operators are fused.
    pub chaining: Option<bool>,
    /// Whether operators of different maximum parallelism may be.
    pub chain_different_max_parallelism: Option<bool>,
    /// Whether buffers that are not full are sent after a while.
    pub buffer_timeout_enabled: Option<bool>,
    /// After how long; zero: after each record.
    pub buffer_timeout: Option<Duration>,
    /// Period of latency markers; zero: none.
    pub latency_interval: Option<Duration>,
    /// Size of a network buffer in bytes.
    pub segment_bytes: Option<u64>,
    /// Buffers that a channel has for itself.
    pub buffers_per_channel: Option<u32>,
    /// Buffers that the channels of a gate share.
    pub floating_buffers_per_gate: Option<u32>,
    /// Buffers that one channel may hold at most.
    pub max_buffers_per_channel: Option<u32>,
}

impl EngineOptions {
    /// Whether the settings can be used.
    pub(crate) fn check(config: &Configuration) -> Result<(), ConfigError> {
        if let (Some(max), Some(place)) =
            (config.explicit(&keys::MAX_PARALLELISM), config.source(&keys::MAX_PARALLELISM))
            && max != DERIVED_MAX_PARALLELISM
            && !u32::try_from(max).is_ok_and(|max| (1..=UPPER_BOUND_MAX_PARALLELISM).contains(&max))
        {
            let allowed = format!(
                "a whole number from 1 to {UPPER_BOUND_MAX_PARALLELISM}, or {DERIVED_MAX_PARALLELISM} to derive it from \
                 the parallelism"
            );
            let (place, key, value) = (place.clone(), keys::MAX_PARALLELISM.name, max.to_string());
            return Err(ConfigError::Value { place, key, value, allowed });
        }
        match config.explicit(&keys::SEGMENT_SIZE) {
            Some(size) if size.0 == 0 || !size.0.is_multiple_of(SEGMENT_GRAIN_BYTES) => {
                let (key, bytes) = (keys::SEGMENT_SIZE.name, size.0);
                let problem = format!("{key} cannot be {bytes} bytes: use a multiple of {SEGMENT_GRAIN_BYTES}");
                Err(ConfigError::Conflict { problem })
            }
            _ => Ok(()),
        }
    }
}

impl From<&Configuration> for EngineOptions {
    fn from(config: &Configuration) -> Self {
        let max_parallelism = config.explicit(&keys::MAX_PARALLELISM);
        Self {
            parallelism: config.explicit(&keys::PARALLELISM).map(|parallelism| parallelism.get()),
            max_parallelism: max_parallelism.map(|max| u32::try_from(max).ok().filter(|&max| max > 0)),
            name: config.explicit(&keys::NAME),
            auto_watermark_interval: config.explicit(&keys::AUTO_WATERMARK_INTERVAL),
            chaining: config.explicit(&keys::CHAINING),
            chain_different_max_parallelism: config.explicit(&keys::CHAIN_DIFFERENT_MAX_PARALLELISM),
            buffer_timeout_enabled: config.explicit(&keys::BUFFER_TIMEOUT_ENABLED),
            buffer_timeout: config.explicit(&keys::BUFFER_TIMEOUT),
            latency_interval: config.explicit(&keys::LATENCY_INTERVAL),
            segment_bytes: config.explicit(&keys::SEGMENT_SIZE).map(|size| size.0),
            buffers_per_channel: config.explicit(&keys::BUFFERS_PER_CHANNEL),
            floating_buffers_per_gate: config.explicit(&keys::FLOATING_BUFFERS_PER_GATE),
            max_buffers_per_channel: config.explicit(&keys::MAX_BUFFERS_PER_CHANNEL),
        }
    }
}
