//! The events of the crash job: event `n` is a pure function of the seed and `n`.

use thalweg::prelude::*;

use super::super::event::mixed;

/// How many keys there are.
pub(super) const KEYS: u64 = 2_000;
/// Most that an event's time is behind that of one with a lower number, ms.
pub(super) const DISORDER_MS: u64 = 64;
/// How many tags there are, of different lengths.
const TAGS: u64 = 37;

/// Somebody does something.
#[derive(Record, Clone, Debug, PartialEq, Eq)]
pub(super) struct Visit {
    /// Its number.
    pub n: u64,
    /// Who.
    pub key: u64,
    /// How much.
    pub value: i64,
    /// When, ms.
    pub at_ms: i64,
    /// A word of 0 to 36 letters.
    pub tag: String,
}

/// A sequence of events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Events {
    /// Which.
    pub seed: u64,
    /// How many.
    pub count: u64,
}

impl Events {
    /// Hands event `n` to a function.
    pub fn with<R>(self, n: u64, then: impl FnOnce(VisitView<'_>) -> R) -> R {
        const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";
        let random = mixed(n ^ mixed(self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15)));
        // A fifth of the events is of a hundredth of the keys.
        let keys = if random.is_multiple_of(5) { KEYS / 100 } else { KEYS };
        let (from, letters) = (random >> 48 & 15, (random >> 52) % TAGS);
        then(VisitView {
            n,
            key: (random >> 8) % keys,
            value: (random >> 20 & 0xffff) as i64 - 0x8000,
            // One event a millisecond: sources make ascending numbers.
            at_ms: (n + (random >> 40) % (DISORDER_MS + 1)) as i64,
            tag: &LETTERS[from as usize..(from + letters) as usize],
        })
    }
}

/// The period of a key's buckets, ms.
const BUCKET_MS: i64 = 10_000;
/// By how much the buckets of a key begin later than those of the key before, ms: timers fire all the time.
const STAGGER_MS: i64 = 37;

/// The last millisecond of the bucket in which a time is for a key.
pub(super) fn bucket_of(key: u64, at_ms: i64) -> i64 {
    let shift = (key as i64 * STAGGER_MS) % BUCKET_MS;
    (at_ms - shift).div_euclid(BUCKET_MS) * BUCKET_MS + shift + BUCKET_MS - 1
}

/// What a visit adds to the digest of its bucket, whatever the order.
pub(super) fn digest(n: u64, tag: &str) -> u64 {
    mixed(tag.bytes().fold(n, |digest, byte| digest.wrapping_mul(257).wrapping_add(u64::from(byte))))
}

/// Windows over buckets: so many groups of keys,
pub(super) const GROUPS: u64 = 50;
/// the size of a window, ms,
pub(super) const WINDOW_MS: i64 = 6_000;
/// and the distance of two, ms.
pub(super) const SLIDE_MS: i64 = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_events_follow_each_other_then_their_times_are_within_the_bound_and_their_buckets_hold_them() {
        let events = Events { seed: 3, count: 10_000 };
        let mut latest = 0;
        for n in 0..events.count {
            events.with(n, |visit| {
                assert!(visit.at_ms + DISORDER_MS as i64 >= latest, "{visit:?}");
                latest = latest.max(visit.at_ms);
                let end = bucket_of(visit.key, visit.at_ms);
                assert!(visit.at_ms <= end && end < visit.at_ms + BUCKET_MS, "{visit:?} {end}");
            });
        }
        let tag = |seed, n| Events { seed, count: 0 }.with(n, |visit| visit.tag.to_owned());
        assert_ne!((0..9).map(|n| tag(1, n)).collect::<String>(), (0..9).map(|n| tag(2, n)).collect::<String>());
    }
}
