//! The memory that one event's strings are written into, and the random letters in them.
//!
//! Owns the only unsafe code of the generator: its bytes are always ASCII, so that any part of them is a string.

use super::rng::Rng;

/// Room for the strings of the largest event (an auction: 19 + 99 + 533 bytes) and the excess of one store.
const CAPACITY_BYTES: usize = 768;
/// Letters per random word in padding.
const PADDING_STEP: usize = 8;
/// Letters per random word in words.
const WORDS_STEP: usize = 4;
/// The shortest random string.
const MIN_WORDS_BYTES: u32 = 3;
/// One character of 13 is special; the other 12 parts are the 26 letters.
const OUTCOMES: usize = 13 * 26;

/// What stands between the words of a random string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Separator {
    /// A blank; cut off at both ends.
    Blank,
    /// An underscore, for addresses.
    Underscore,
}

const BLANKS: [u8; OUTCOMES] = outcomes(b' ');
const UNDERSCORES: [u8; OUTCOMES] = outcomes(b'_');

const fn outcomes(special: u8) -> [u8; OUTCOMES] {
    let mut table = [special; OUTCOMES];
    let mut at = 26;
    while at < OUTCOMES {
        table[at] = b'a' + ((at - 26) / 12) as u8;
        at += 1;
    }
    table
}

/// Reusable memory for the strings of one event at a time. Allocates once, when made.
#[derive(Debug)]
pub struct EventScratch {
    /// Invariant: every byte is ASCII.
    bytes: Box<[u8; CAPACITY_BYTES]>,
    used: usize,
}

/// Where a string lies in the scratch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    start: usize,
    end: usize,
}

impl Span {
    /// Length in bytes.
    pub(super) const fn len(self) -> usize {
        self.end - self.start
    }
}

impl Default for EventScratch {
    fn default() -> Self {
        Self::new()
    }
}

impl EventScratch {
    /// Empty scratch memory.
    pub fn new() -> Self {
        Self { bytes: Box::new([0; CAPACITY_BYTES]), used: 0 }
    }

    /// Forgets what was written.
    #[inline(always)]
    pub(super) const fn clear(&mut self) {
        self.used = 0;
    }

    /// The string at a place.
    #[inline(always)]
    pub(super) fn text(&self, span: Span) -> &str {
        let bytes = &self.bytes[span.start..span.end];
        // SAFETY: every byte is ASCII (invariant of `bytes`, kept by each of the functions that write), and any
        // sequence of ASCII is UTF-8.
        unsafe { std::str::from_utf8_unchecked(bytes) }
    }

    /// What was written since `start`, as one string.
    #[inline]
    pub(super) const fn since(&self, start: usize) -> Span {
        Span { start, end: self.used }
    }

    /// Where the next string will start.
    #[inline]
    pub(super) const fn position(&self) -> usize {
        self.used
    }

    /// Appends constant text.
    ///
    /// # Panics
    /// Where the text is not ASCII.
    #[inline]
    pub(super) fn push(&mut self, text: &str) {
        assert!(text.is_ascii(), "the scratch holds ASCII only");
        self.bytes[self.used..self.used + text.len()].copy_from_slice(text.as_bytes());
        self.used += text.len();
    }

    /// Appends `len` random letters.
    #[inline(always)]
    pub(super) fn push_letters(&mut self, rng: &mut Rng, len: usize) -> Span {
        let start = self.used;
        let room = &mut self.bytes[start..start + len.next_multiple_of(PADDING_STEP)];
        for chunk in room.chunks_exact_mut(PADDING_STEP) {
            chunk.copy_from_slice(&eight_letters(rng.word()));
        }
        self.used = start + len;
        self.since(start)
    }

    /// Appends a random string of 3 to `max_bytes - 1` characters, one in 13 of them the separator.
    #[inline]
    pub(super) fn push_words(&mut self, rng: &mut Rng, max_bytes: u32, separator: Separator) -> Span {
        let table = match separator {
            Separator::Blank => &BLANKS,
            Separator::Underscore => &UNDERSCORES,
        };
        let len = (MIN_WORDS_BYTES + rng.below(max_bytes - MIN_WORDS_BYTES)) as usize;
        let start = self.used;
        let room = &mut self.bytes[start..start + len.next_multiple_of(WORDS_STEP)];
        for chunk in room.chunks_exact_mut(WORDS_STEP) {
            let word = rng.word();
            for (lane, byte) in chunk.iter_mut().enumerate() {
                let outcome = ((word >> (16 * lane)) & 0xffff) as usize * OUTCOMES;
                *byte = table[outcome >> 16];
            }
        }
        // Blanks at the front are left out by moving the rest, so that strings follow each other without a gap.
        let written = &self.bytes[start..start + len];
        let blanks = len - written.trim_ascii_start().len();
        let kept = written.trim_ascii().len();
        if blanks > 0 {
            self.bytes.copy_within(start + blanks..start + blanks + kept, start);
        }
        self.used = start + kept;
        self.since(start)
    }

    /// Appends a number below 10,000 as four digits.
    pub(super) fn push_four_digits(&mut self, number: u32) {
        debug_assert!(number < 10_000);
        let digit = |unit: u32| b'0' + (number / unit % 10) as u8;
        self.bytes[self.used..self.used + 4].copy_from_slice(&[digit(1000), digit(100), digit(10), digit(1)]);
        self.used += 4;
    }
}

/// Eight letters from 64 random bits: each byte scaled to 26 values (every letter has 9 or 10 of 256).
#[inline(always)]
const fn eight_letters(word: u64) -> [u8; 8] {
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;
    let low = (((word & EVEN) * 26) >> 8) & EVEN;
    let high = (((word >> 8) & EVEN) * 26) & !EVEN;
    ((low | high) + u64::from_ne_bytes([b'a'; 8])).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nexmark::rng::Streams;

    #[test]
    fn when_letters_are_made_then_all_26_are_equally_likely() {
        let mut rng = Streams::new(3, 0).stream(0);
        let mut counts = [0u32; 26];
        for _ in 0..32_500 {
            for letter in eight_letters(rng.word()) {
                counts[(letter - b'a') as usize] += 1;
            }
        }
        assert!(counts.iter().all(|count| (9_000..10_600).contains(count)), "{counts:?}");
    }

    #[test]
    fn when_words_are_made_then_lengths_separators_and_letters_are_as_documented() {
        let mut rng = Streams::new(4, 0).stream(0);
        let mut scratch = EventScratch::new();
        let (mut total, mut special) = (0usize, 0usize);
        let mut seen = [false; 26];
        for _ in 0..10_000 {
            scratch.clear();
            let span = scratch.push_words(&mut rng, 20, Separator::Underscore);
            assert!((3..20).contains(&span.len()));
            for byte in scratch.text(span).bytes() {
                total += 1;
                match byte {
                    b'_' => special += 1,
                    b'a'..=b'z' => seen[(byte - b'a') as usize] = true,
                    other => panic!("{other}"),
                }
            }
        }
        let share = special as f64 / total as f64 * 13.0;
        assert!((0.97..1.03).contains(&share), "{share} of 1/13");
        assert!(seen.iter().all(|&seen| seen));
    }

    #[test]
    fn when_blanks_are_at_the_ends_then_they_are_cut_off() {
        let mut rng = Streams::new(5, 0).stream(0);
        let mut scratch = EventScratch::new();
        let mut shorter = 0;
        for _ in 0..10_000 {
            scratch.clear();
            let span = scratch.push_words(&mut rng, 4, Separator::Blank);
            let text = scratch.text(span);
            assert_eq!(text, text.trim());
            shorter += usize::from(text.len() < 3);
        }
        assert!((1000..2000).contains(&shorter), "{shorter}");
    }
}
