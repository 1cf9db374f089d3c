//! `TimeMs`: the time as coordination is told it.

use std::time::Duration;

/// Milliseconds since 1970, on a clock that never goes back.
///
/// The caller anchors a monotonic clock to the wall clock once, when it starts: deadlines then survive a clock that is
/// set, and statistics still show times that people can read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeMs(pub u64);

impl TimeMs {
    /// The time so much later, at most the end of time.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// Milliseconds since an earlier time, 0 if that lies ahead.
    pub fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A duration in whole milliseconds, at most `u64::MAX`.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
