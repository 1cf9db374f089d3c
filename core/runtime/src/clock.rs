//! `Clock`: the time a slot goes by, real or simulated.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// Where a slot and its segments read the time. Asked once per batch, not per record.
pub trait Clock: std::fmt::Debug + Send + Sync {
    /// Nanoseconds since some fixed moment; never goes back.
    fn now_ns(&self) -> u64;
    /// Milliseconds since 1970-01-01T00:00:00Z: processing time.
    fn now_ms(&self) -> i64 {
        self.ms_at(self.now_ns())
    }
    /// The wall time, in milliseconds, at `now_ns` of this clock.
    fn ms_at(&self, now_ns: u64) -> i64;
    /// When, in nanoseconds of this clock, the wall time reaches `ms`; zero if that is past its beginning.
    fn ns_at(&self, ms: i64) -> u64;
}

/// The machine's clock. Its wall time is read once and advanced by the monotonic clock, so processing time never goes
/// back.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    /// The monotonic clock when this one was made, and the wall time then.
    started_ns: u64,
    started_wall_ns: i64,
}

impl SystemClock {
    /// A clock whose `now_ns` is zero now.
    pub fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started_ns: monotonic_ns(), started_wall_ns: since_epoch.as_nanos() as i64 }
    }
}

/// The system's monotonic clock, as a number.
#[inline]
fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes `time`; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[inline]
    fn now_ns(&self) -> u64 {
        monotonic_ns() - self.started_ns
    }

    #[inline]
    fn ms_at(&self, now_ns: u64) -> i64 {
        (self.started_wall_ns + now_ns as i64) / 1_000_000
    }

    #[inline]
    fn ns_at(&self, ms: i64) -> u64 {
        ms.saturating_mul(1_000_000).saturating_sub(self.started_wall_ns).max(0) as u64
    }
}

/// A clock that stands still until it is told to move; clones share the time.
#[derive(Clone, Debug, Default)]
pub struct VirtualClock(Arc<AtomicU64>);

/// Where virtual processing time starts: 2020-01-01T00:00:00Z.
const VIRTUAL_EPOCH_MS: i64 = 1_577_836_800_000;

impl VirtualClock {
    /// Moves the clock forward to `now_ns`; does nothing if that has passed.
    pub fn advance_to(&self, now_ns: u64) {
        self.0.fetch_max(now_ns, Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now_ns(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn ms_at(&self, now_ns: u64) -> i64 {
        VIRTUAL_EPOCH_MS + (now_ns / 1_000_000) as i64
    }

    fn ns_at(&self, ms: i64) -> u64 {
        ms.saturating_sub(VIRTUAL_EPOCH_MS).saturating_mul(1_000_000).max(0) as u64
    }
}
