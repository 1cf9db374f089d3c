//! Random numbers that depend on a seed and a stream number only, so that any event can be made by itself.

/// Step from one stream to the next: the golden ratio, as in splitmix64.
const STREAM_STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// Step within a stream (wyrand).
const STEP: u64 = 0xa076_1d64_78bd_642f;
/// What the state is multiplied with, after exclusive or (wyrand).
const FACTOR: u64 = 0xe703_7ed1_a0b4_28db;

/// Spreads every bit of `word` over all of them (the last step of splitmix64).
const fn spread(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// A family of streams of random numbers.
#[derive(Clone, Copy, Debug)]
pub struct Streams(u64);

impl Streams {
    /// The family of a seed. Families of one seed and different purposes are independent.
    pub const fn new(seed: u64, purpose: u64) -> Self {
        Self(spread(spread(seed).wrapping_add(purpose.wrapping_mul(STREAM_STEP))))
    }

    /// The stream with that number, at its start.
    #[inline(always)]
    pub const fn stream(self, number: u64) -> Rng {
        Rng(spread(self.0.wrapping_add(number.wrapping_mul(STREAM_STEP))))
    }
}

/// One stream of random numbers (wyrand).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// 64 random bits.
    #[inline(always)]
    pub const fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let wide = self.0 as u128 * (self.0 ^ FACTOR) as u128;
        (wide >> 64) as u64 ^ wide as u64
    }

    /// A number in `[0, bound)`; off from uniform by less than `bound / 2^32`. Zero for a bound of zero.
    #[inline(always)]
    pub const fn below(&mut self, bound: u32) -> u32 {
        (((self.word() >> 32) * bound as u64) >> 32) as u32
    }

    /// A number in `[0, 1)`, with 53 random bits.
    #[inline(always)]
    pub const fn unit(&mut self) -> f64 {
        (self.word() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_streams_are_adjacent_then_their_numbers_are_unrelated() {
        let streams = Streams::new(1, 0);
        let mut flips = 0;
        for number in 0..1000 {
            flips += (streams.stream(number).word() ^ streams.stream(number + 1).word()).count_ones();
        }
        assert!((31_000..33_000).contains(&flips), "{flips} of 64,000 bits differ");
    }

    #[test]
    fn when_a_bound_is_given_then_numbers_are_even_below_it() {
        let mut counts = [0u32; 10];
        let mut rng = Streams::new(2, 0).stream(0);
        for _ in 0..100_000 {
            counts[rng.below(10) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (9_600..10_400).contains(count)), "{counts:?}");
        let mean = (0..100_000).map(|_| rng.unit()).sum::<f64>() / 100_000.0;
        assert!((0.49..0.51).contains(&mean), "{mean}");
    }
}
