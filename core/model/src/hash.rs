//! The key hash: 64 bits, folded to 32, the same in every build and on every machine.
//!
//! Owns the numbers that decide which key group a key lives in. They are part of the format of every
//! checkpoint: changing them strands existing state.

/// Multiplier of one mixing step: an odd constant with well spread bits (the fractional part of the golden ratio).
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
/// Start value, so that a key of zero does not hash to zero.
const SEED: u64 = 0xa076_1d64_78bd_642f;

/// The 32-bit hash of a key, as it travels in a record's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct KeyHash(pub u32);

/// Hashes a key's fields in order.
///
/// Every integer is widened to 64 bits first, so a key keeps its hash when its type is widened.
#[derive(Clone, Debug)]
pub struct KeyHasher(u64);

impl Default for KeyHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl KeyHasher {
    /// A hasher that has seen nothing.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(SEED)
    }

    /// Mixes in one 64-bit word.
    #[inline(always)]
    pub const fn word(&mut self, word: u64) {
        let wide = (self.0 ^ word) as u128 * MIX as u128;
        self.0 = (wide as u64) ^ ((wide >> 64) as u64);
    }

    /// Mixes in a byte string: its length, then eight bytes at a time, little-endian, the rest zero-padded.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        let rest = chunks.remainder();
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            self.word(u64::from_le_bytes(word));
        }
    }

    /// All 64 bits.
    #[inline(always)]
    pub const fn finish64(&self) -> u64 {
        self.0
    }

    /// The hash folded to the 32 bits that route a record.
    #[inline(always)]
    pub const fn finish(&self) -> KeyHash {
        KeyHash((self.0 ^ (self.0 >> 32)) as u32)
    }
}

#[cfg(test)]
mod tests {
    use crate::Record;

    fn hash<T: Record>(value: T) -> u32 {
        crate::record::key_hash::<T>(value.view()).0
    }

    /// Fixed vectors: a change here strands every checkpoint ever written.
    #[test]
    fn when_the_code_changes_then_the_hashes_do_not() {
        let seen = [
            hash(0u64),
            hash(1u64),
            hash(u64::MAX),
            hash(-1i32),
            hash(String::new()),
            hash("a".to_string()),
            hash("hello, world".to_string()),
            hash((1u64, "x".to_string())),
        ];
        assert_eq!(seen, GOLDEN, "seen {seen:#x?}");
    }

    const GOLDEN: [u32; 8] =
        [0xe1830b9b, 0x01a411ce, 0xe3bb1bb8, 0xe3bb1bb8, 0xe1830b9b, 0xfe1f4658, 0xfb3aa8ce, 0x4ff7f9c6];

    #[test]
    fn when_an_integer_is_widened_then_its_hash_stays() {
        assert_eq!(hash(7u8), hash(7u64));
        assert_eq!(hash(-7i16), hash(-7i64));
    }

    #[test]
    fn when_keys_follow_a_pattern_then_their_groups_are_even() {
        let strides = [1, 2, 8, 64, 100, 128, 1000, 4096, 1 << 20, 1 << 32, (1 << 32) + 1, 1 << 40, u64::MAX];
        for (groups, stride) in [100, 128].into_iter().flat_map(|groups| strides.map(|stride| (groups, stride))) {
            let m = crate::MaxParallelism::new(groups).unwrap();
            let mut counts = vec![0u32; groups as usize];
            for n in 0..1000 * u64::from(groups) {
                counts[m.key_group(crate::record::key_hash::<u64>(n.wrapping_mul(stride))).0 as usize] += 1;
            }
            let (min, max) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(*min > 700 && *max < 1400, "{groups} groups, stride {stride}: {min}..{max}");
        }
    }

    #[test]
    fn when_keys_are_words_then_their_groups_are_even() {
        let m = crate::MaxParallelism::new(128).unwrap();
        let mut counts = [0u32; 128];
        for n in 0..128_000 {
            counts[m.key_group(crate::record::key_hash::<String>(&format!("user-{n}"))).0 as usize] += 1;
        }
        let (min, max) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(*min > 800 && *max < 1200, "{min}..{max}");
    }
}
