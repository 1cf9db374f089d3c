//! `Homes`: which rows a search may begin at.
//!
//! Owns the step from a row's hash to its home, the first row that a search for it looks at. Nothing on storage depends on it:
//! restored rows are put in place anew.

use crate::ahead::CACHE_LINE_BYTES;

/// Rows after which rows lie in their lines as the first ones do.
const PERIOD_ROWS: u32 = 8;

/// Which rows of a table are homes.
///
/// In a small table every row is one, since its rows are in the core's own cache and a search should be short. Where rows have
/// to be fetched, a search should stay in one line: there the homes are the rows that begin first in theirs, if several do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Homes {
    /// The bits that the number of rows before another one in its line may have, or none.
    mask: u32,
}

impl Homes {
    /// Every row.
    pub(crate) const EVERY_ROW: Self = Self { mask: 0 };
    /// The first row of every line.
    pub(crate) const EVERY_LINE: Self = Self { mask: 3 };

    /// The home of those whose hash says `index`, in rows of which [`rows_before_in_line`] answers `before`. It never goes down
    /// where the index goes up.
    #[inline(always)]
    pub(crate) const fn of(self, index: u32, before: u32) -> u32 {
        index - (before >> (index % PERIOD_ROWS * 4) & self.mask)
    }
}

/// Whether several rows of that many bytes begin in a line, at places that recur after [`PERIOD_ROWS`].
pub(crate) const fn share_lines(row_bytes: usize) -> bool {
    row_bytes >= CACHE_LINE_BYTES / 4 && row_bytes <= CACHE_LINE_BYTES / 2 && row_bytes.is_multiple_of(8)
}

/// For each of the first rows, four bits: how many rows begin before it in the same line.
pub(crate) const fn rows_before_in_line(row_bytes: usize) -> u32 {
    let (mut all, mut row) = (0, 0);
    while share_lines(row_bytes) && row < PERIOD_ROWS {
        let before = row as usize * row_bytes % CACHE_LINE_BYTES / row_bytes;
        all |= (before as u32) << (row * 4);
        row += 1;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(row_bytes: usize) {
        for index in 0..64u32 {
            assert_eq!(Homes::EVERY_ROW.of(index, rows_before_in_line(row_bytes)), index);
            let line = |row: u32| row as usize * row_bytes / CACHE_LINE_BYTES;
            let first = (0..=index).find(|&row| line(row) == line(index)).unwrap();
            let expected = if share_lines(row_bytes) { first } else { index };
            assert_eq!(
                Homes::EVERY_LINE.of(index, rows_before_in_line(row_bytes)),
                expected,
                "{row_bytes} bytes, row {index}"
            );
        }
    }

    #[test]
    fn when_lines_have_homes_then_they_are_the_first_rows_that_begin_in_them() {
        [8, 16, 20, 24, 32, 40, 64, 208].into_iter().for_each(check);
    }
}
