//! Windows of event time, aligned to zero.

use std::num::NonZeroU32;

/// A window of `size_ms` every `slide_ms`; a tumbling one where the two are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    size_ms: i64,
    slide_ms: i64,
}

impl Windows {
    /// Windows of ten seconds, one after the other (q7, q8).
    pub const TUMBLE_10S: Self = Self { size_ms: 10_000, slide_ms: 10_000 };
    /// Windows of ten seconds, every two (q5).
    pub const HOP_10S_2S: Self = Self { size_ms: 10_000, slide_ms: 2_000 };

    /// Windows of that size, every `slide_ms`. A slide above the size leaves gaps.
    pub fn hop(size_ms: NonZeroU32, slide_ms: NonZeroU32) -> Self {
        Self { size_ms: size_ms.get().into(), slide_ms: slide_ms.get().into() }
    }

    /// Length in milliseconds.
    pub const fn size_ms(self) -> i64 {
        self.size_ms
    }

    /// Distance of two starts in milliseconds.
    pub const fn slide_ms(self) -> i64 {
        self.slide_ms
    }

    /// The starts of all windows with `start <= timestamp < start + size`, the last first.
    pub fn starts(self, timestamp_ms: i64) -> impl Iterator<Item = i64> {
        let last = timestamp_ms.div_euclid(self.slide_ms) * self.slide_ms;
        std::iter::successors(Some(last), move |start| Some(start - self.slide_ms))
            .take_while(move |start| timestamp_ms - start < self.size_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_time_is_on_an_edge_then_it_is_in_the_window_that_starts_there() {
        let starts = |windows: Windows, at| windows.starts(at).collect::<Vec<_>>();
        assert_eq!(starts(Windows::TUMBLE_10S, 9_999), [0]);
        assert_eq!(starts(Windows::TUMBLE_10S, 10_000), [10_000]);
        assert_eq!(starts(Windows::TUMBLE_10S, -1), [-10_000]);
        assert_eq!(starts(Windows::HOP_10S_2S, 9_999), [8_000, 6_000, 4_000, 2_000, 0]);
        assert_eq!(starts(Windows::HOP_10S_2S, 10_000), [10_000, 8_000, 6_000, 4_000, 2_000]);
        let millis = |ms| NonZeroU32::new(ms).unwrap();
        assert_eq!(starts(Windows::hop(millis(5), millis(2)), 4), [4, 2, 0]);
        assert_eq!(starts(Windows::hop(millis(5), millis(2)), 5), [4, 2]);
        assert_eq!(starts(Windows::hop(millis(2), millis(5)), 3), [0i64; 0]);
    }
}
