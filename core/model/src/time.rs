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
    let behind_ms = match timestamp.checked_sub(offset_ms) {
        Some(shifted_ms) => shifted_ms.rem_euclid(size_ms),
        // Less than the size, which is a 64-bit number.
        None => (timestamp as i128 - offset_ms as i128).rem_euclid(size_ms as i128) as i64,
    };
    timestamp.saturating_sub(behind_ms)
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

    #[test]
    fn when_the_offset_leads_beyond_the_end_of_time_then_the_start_is_still_right() {
        let start = window_start(i64::MIN + 20, 7, 10);
        assert_eq!((i128::from(start) - 7).rem_euclid(10), 0);
        assert!(start <= i64::MIN + 20 && i64::MIN + 20 < start + 10);
    }
}
