//! The record of the workloads: 24 bytes, a pure function of its number.

use thalweg::Record;

/// A record of 24 bytes.
#[derive(Record, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// What it is keyed by.
    pub key: u64,
    /// What it says.
    pub value: u64,
    /// When it was due, or its number.
    pub ts: u64,
}

/// 64 well-mixed bits of a number.
#[inline(always)]
pub fn mixed(n: u64) -> u64 {
    let word = n.wrapping_mul(0xa076_1d64_78bd_642f);
    let wide = u128::from(word) * u128::from(word ^ 0xe703_7ed1_a0b4_28db);
    wide as u64 ^ (wide >> 64) as u64
}

/// Record `n` of those that name every key once: key `n`.
#[inline(always)]
pub fn enumerated(n: u64) -> Event {
    Event { key: n, value: n, ts: n }
}

/// Record `n` of those whose keys are uniform over `0..keys`.
#[inline(always)]
pub fn random(n: u64, keys: u64) -> Event {
    let key = ((u128::from(mixed(n)) * u128::from(keys)) >> 64) as u64;
    Event { key, value: n, ts: n }
}

/// Record `n` where the key does not matter.
#[inline(always)]
pub fn plain(n: u64) -> Event {
    Event { key: n.wrapping_mul(0x9e37_79b9_7f4a_7c15), value: n, ts: n }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_keys_are_random_then_they_are_uniform() {
        let mut counts = [0u32; 100];
        (0..100_000).for_each(|n| counts[random(n, 100).key as usize] += 1);
        assert!(counts.iter().all(|&count| (850..1150).contains(&count)), "{counts:?}");
    }
}
