//! Order-independent comparison of large results: the number of rows and the sum of their hashes.

use std::fmt;

use serde::{Deserialize, Serialize};

const SEED: u64 = 0xe703_7ed1_a0b4_28db;
const FACTOR: u64 = 0xa076_1d64_78bd_642f;

/// Hashes the fields of a row in order, to 64 well mixed bits. The same in every build and on every machine.
#[derive(Clone, Debug)]
pub struct RowHasher(u64);

impl Default for RowHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl RowHasher {
    /// A hasher that has seen nothing.
    #[inline(always)]
    pub const fn new() -> Self {
        Self(SEED)
    }

    /// Mixes in a number.
    #[inline(always)]
    pub const fn word(self, word: u64) -> Self {
        self.pair(word, 0)
    }

    /// Mixes in a number of 128 bits: one of 64 as [`word`](Self::word) does.
    #[inline(always)]
    pub const fn wide(self, wide: u128) -> Self {
        self.pair(wide as u64, (wide >> 64) as u64)
    }

    /// Mixes in a number that may be negative.
    #[inline(always)]
    pub const fn signed(self, word: i64) -> Self {
        self.pair(word as u64, 0)
    }

    /// Mixes in a string: its length, then 16 bytes at a time, the rest padded with zeros.
    #[inline]
    pub fn text(self, text: &str) -> Self {
        let mut hasher = self.word(text.len() as u64);
        let (chunks, rest) = text.as_bytes().as_chunks::<16>();
        for chunk in chunks {
            hasher = hasher.chunk(*chunk);
        }
        if !rest.is_empty() {
            let mut chunk = [0; 16];
            chunk[..rest.len()].copy_from_slice(rest);
            hasher = hasher.chunk(chunk);
        }
        hasher
    }

    /// All 64 bits.
    #[inline(always)]
    pub const fn finish(self) -> u64 {
        self.pair(FACTOR, SEED).0
    }

    #[inline(always)]
    const fn chunk(self, chunk: [u8; 16]) -> Self {
        let both = u128::from_le_bytes(chunk);
        self.pair(both as u64, (both >> 64) as u64)
    }

    #[inline(always)]
    const fn pair(self, first: u64, second: u64) -> Self {
        let wide = (first ^ self.0) as u128 * (second ^ FACTOR) as u128;
        // The state is added once more, so that a product of zero does not forget it.
        Self((wide as u64 ^ (wide >> 64) as u64).wrapping_add(self.0.rotate_left(23)))
    }
}

/// A row that can be part of a digest.
pub trait DigestRow {
    /// The hash of all fields. Equal for the owned row and its view, different for different kinds of rows.
    fn row_hash(&self) -> u64;
}

/// What is left of a multiset of rows: equal if the rows are, in whatever order, and hardly ever otherwise.
///
/// Digests of parts are merged into the digest of the whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowDigest {
    /// Number of rows.
    pub count: u64,
    /// Sum of their hashes, modulo 2^64.
    pub sum: u64,
}

impl RowDigest {
    /// Adds a row.
    #[inline(always)]
    pub fn add(&mut self, row: &impl DigestRow) {
        self.merge(Self { count: 1, sum: row.row_hash() });
    }

    /// Adds all rows of another digest.
    #[inline(always)]
    pub const fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

impl<R: DigestRow> FromIterator<R> for RowDigest {
    fn from_iter<I: IntoIterator<Item = R>>(rows: I) -> Self {
        let mut digest = Self::default();
        rows.into_iter().for_each(|row| digest.add(&row));
        digest
    }
}

impl fmt::Display for RowDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows, digest {:016x}", self.count, self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Text(&'static str);

    impl DigestRow for Text {
        fn row_hash(&self) -> u64 {
            RowHasher::new().text(self.0).finish()
        }
    }

    fn digest(rows: &[&'static str]) -> RowDigest {
        rows.iter().map(|row| Text(row)).collect()
    }

    #[test]
    fn when_rows_come_in_another_order_or_in_parts_then_the_digest_is_the_same() {
        let mut merged = digest(&["c", "a"]);
        merged.merge(digest(&["b"]));
        assert_eq!(merged, digest(&["a", "b", "c"]));
    }

    #[test]
    fn when_rows_differ_then_the_digest_differs() {
        let rows = ["", "\0", "\0\0", "a", "ab", "ba", "0123456789abcdef", "0123456789abcdef\0", "0123456789abcdeg"];
        for (at, row) in rows.iter().enumerate() {
            for other in &rows[at + 1..] {
                assert_ne!(digest(&[row]), digest(&[other]), "{row:?} {other:?}");
            }
        }
        assert_ne!(digest(&["a", "a"]), digest(&["a"]));
        assert_ne!(digest(&["a", "a", "b"]), digest(&["a", "b", "b"]));
    }

    #[test]
    fn when_numbers_follow_each_other_then_hashes_are_unrelated() {
        let mut flips = 0;
        for number in 0..1000 {
            flips += (RowHasher::new().word(number).finish() ^ RowHasher::new().word(number + 1).finish()).count_ones();
        }
        assert!((31_000..33_000).contains(&flips), "{flips} of 64,000 bits differ");
        assert_ne!(RowHasher::new().word(1).word(2).finish(), RowHasher::new().word(2).word(1).finish());
        assert_eq!(RowHasher::new().word(1).text("hello").finish(), GOLDEN);
    }

    const GOLDEN: u64 = 0xda3c_22d8_48d3_628d;
}
