//! The clock of a job master: wall-clock milliseconds that never go back.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use thalweg_cluster::TimeMs;

/// A monotonic clock, anchored to the wall clock once.
#[derive(Clone, Copy, Debug)]
pub(super) struct MasterClock {
    anchor: Instant,
    anchor_ms: u64,
}

impl MasterClock {
    pub(super) fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { anchor: Instant::now(), anchor_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX) }
    }

    pub(super) fn now(&self) -> TimeMs {
        TimeMs(self.anchor_ms).plus(self.anchor.elapsed())
    }

    /// How long until then.
    pub(super) fn until(&self, at: TimeMs) -> Duration {
        let now = self.now();
        if at <= now { Duration::ZERO } else { Duration::from_millis(at.since_ms(now)) }
    }
}

/// Any number, a new one each time: each state of the standard library's hash maps has keys of its own.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
