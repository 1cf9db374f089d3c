//! Event time: milliseconds since the epoch, and the two marks at its ends.

/// Event time in milliseconds since 1970-01-01T00:00:00Z.
pub type TimestampMs = i64;

/// The watermark before the first one: nothing is known yet. Also the timestamp of a record that has none.
pub const MIN_WATERMARK: TimestampMs = i64::MIN;

/// The watermark at the end of a bounded input: nothing will come any more.
pub const MAX_WATERMARK: TimestampMs = i64::MAX;

/// The start of the tumbling window of `size_ms`, shifted by `offset_ms`, that holds `timestamp`.
///
/// As Flink's `TimeWindow.getWindowStartWithOffset`, right for negative timestamps too. Saturates at the ends of time.
///
/// # Panics
/// Where `size_ms` is not positive.
#[inline]
pub const fn window_start(timestamp: TimestampMs, offset_ms: i64, size_ms: i64) -> TimestampMs {
    assert!(size_ms > 0);
    timestamp.saturating_sub(timestamp.wrapping_sub(offset_ms).rem_euclid(size_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_negative_then_the_window_still_holds_the_timestamp() {
        for timestamp in -25..25 {
            for offset in -3..=3 {
                let start = window_start(timestamp, offset, 10);
                assert!(start <= timestamp && timestamp < start + 10);
                assert_eq!((start - offset).rem_euclid(10), 0);
            }
        }
    }
}
