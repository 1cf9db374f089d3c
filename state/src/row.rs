//! The layout of a row: a header of eight bytes, then key and value in place.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | the hash of the row |
//! | 2 | epoch in which the row was last written |
//! | 2 | key group, and in the top bit whether the row is occupied |
//! | | key and value: archived if of fixed size, else the handle of their bytes in the slab; the order needs least padding |
//!
//! The eight bytes are all zero in a row that was never used, where a search ends, and one in a deleted row, where it
//! goes on. Numbers are little-endian, as in archived values.

use std::marker::PhantomData;

use thalweg_model::Record;

use crate::{
    ahead::CACHE_LINE_BYTES,
    cell::{cell_align, cell_bytes},
    home::{Homes, rows_before_in_line, share_lines},
};

/// Multiplier that spreads tags over the rows of a segment by its top bits: odd, and not that of positions.
const MIX_INDEX: u32 = 0x85eb_ca77;

/// Header of a row that was never used: a search ends here.
const EMPTY: u64 = 0;
/// Header of a row that was removed: a search goes on.
const DELETED: u64 = 1;
/// Flag of a row that holds something.
const OCCUPIED: u16 = 1 << 15;

/// The first eight bytes of a row.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(4))]
pub(crate) struct RowHeader {
    /// The hash of the row.
    pub(crate) tag: u32,
    pub(crate) epoch: u16,
    flags: u16,
}

impl RowHeader {
    /// The header of an occupied row.
    #[inline(always)]
    pub(crate) const fn new(tag: u32, epoch: u16, group: u32) -> Self {
        Self { tag, epoch, flags: group as u16 | OCCUPIED }
    }

    /// The key group of an occupied row.
    #[inline(always)]
    pub(crate) const fn group(self) -> u32 {
        (self.flags & !OCCUPIED) as u32
    }

    /// Whether the row holds something.
    #[inline(always)]
    pub(crate) const fn is_occupied(self) -> bool {
        self.flags & OCCUPIED != 0
    }

    /// All bits if the row holds something, else none.
    #[inline(always)]
    pub(crate) const fn occupied_bits(self) -> usize {
        (self.flags as i16 >> 15) as isize as usize
    }

    /// The header that an image gives a row that has been removed.
    pub(crate) const fn removed(self) -> Self {
        Self { tag: self.tag, epoch: 0, flags: self.flags & !OCCUPIED }
    }

    #[inline(always)]
    pub(crate) const fn to_bits(self) -> u64 {
        self.tag as u64 | (self.epoch as u64) << 32 | (self.flags as u64) << 48
    }
}

/// Offsets within the rows of keys `K` and values `V`.
pub(crate) struct Layout<K, V>(PhantomData<fn() -> (K, V)>);

const HEADER_BYTES: usize = size_of::<RowHeader>();

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

/// A number of rows, at least one.
const fn clamp(rows: usize, at_most: u32) -> u32 {
    match rows as u32 {
        0 => 1,
        rows if rows > at_most => at_most,
        rows => rows,
    }
}

impl<K: Record, V: Record> Layout<K, V> {
    const ALIGN: usize = {
        let align = max(align_of::<RowHeader>(), max(cell_align::<K>(), cell_align::<V>()));
        assert!(align <= 16, "records are aligned to at most 16");
        align
    };
    const KEY_FIRST: bool = Self::end(cell_bytes::<K>(), cell_align::<K>(), cell_bytes::<V>(), cell_align::<V>())
        <= Self::end(cell_bytes::<V>(), cell_align::<V>(), cell_bytes::<K>(), cell_align::<K>());
    /// Offset of the key.
    pub(crate) const KEY_AT: usize = if Self::KEY_FIRST {
        HEADER_BYTES.next_multiple_of(cell_align::<K>())
    } else {
        (Self::VALUE_AT + cell_bytes::<V>()).next_multiple_of(cell_align::<K>())
    };
    /// Offset of the value.
    pub(crate) const VALUE_AT: usize = if Self::KEY_FIRST {
        (HEADER_BYTES.next_multiple_of(cell_align::<K>()) + cell_bytes::<K>()).next_multiple_of(cell_align::<V>())
    } else {
        HEADER_BYTES.next_multiple_of(cell_align::<V>())
    };
    /// Length of the key's cell.
    pub(crate) const KEY_BYTES: usize = cell_bytes::<K>();
    /// Length of the value's cell.
    pub(crate) const VALUE_BYTES: usize = cell_bytes::<V>();
    /// Distance from row to row.
    pub(crate) const BYTES: usize = {
        let end = max(Self::KEY_AT + cell_bytes::<K>(), Self::VALUE_AT + cell_bytes::<V>());
        end.next_multiple_of(Self::ALIGN)
    };

    /// Rows that a search looks at before it branches: hardly more than lie in the lines that were asked for ahead, since
    /// looking at others waits for memory each time.
    pub(crate) const UNBRANCHED_ROWS: u32 = clamp(96 / Self::BYTES, 3);
    /// As [`Self::UNBRANCHED_ROWS`], where the rows are in the core's own cache.
    pub(crate) const UNBRANCHED_ROWS_NEAR: u32 = clamp(128 / Self::BYTES, 4);
    /// Whether several rows begin in a cache line.
    pub(crate) const SHARES_LINES: bool = share_lines(Self::BYTES);
    /// What [`Homes`] need to know of the rows.
    const BEFORE_IN_LINE: u32 = rows_before_in_line(Self::BYTES);
    /// Bytes from the home's begin that are asked for ahead, of rows that do not share lines: all that are looked at.
    pub(crate) const AHEAD_BYTES: usize = Self::BYTES * Self::UNBRANCHED_ROWS as usize;

    /// Length of a row, where its cells lie, and their lengths, as images have it.
    pub(crate) const SHAPE: [u32; 5] = [
        Self::BYTES as u32,
        Self::KEY_AT as u32,
        Self::VALUE_AT as u32,
        Self::KEY_BYTES as u32,
        Self::VALUE_BYTES as u32,
    ];

    const fn end(first: usize, first_align: usize, second: usize, second_align: usize) -> usize {
        (HEADER_BYTES.next_multiple_of(first_align) + first).next_multiple_of(second_align) + second
    }
}

/// A power of two of rows in a row: where to look for a row, and where to put one.
///
/// It knows neither keys nor memory: whoever makes one answers for both.
pub(crate) struct Rows<K, V> {
    first: *mut u8,
    /// 32 less the logarithm of the count.
    shift: u32,
    layout: PhantomData<Layout<K, V>>,
}

impl<K, V> Clone for Rows<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K, V> Copy for Rows<K, V> {}

impl<K: Record, V: Record> Rows<K, V> {
    /// Rows from `first` on.
    ///
    /// # Safety
    /// As long as the value is used there must be `1 << (32 - shift)` rows at `first`, zeroed or made by it, aligned
    /// as rows are, at least one of them empty; `shift` must be 1 to 32.
    #[inline(always)]
    pub(crate) const unsafe fn new(first: *mut u8, shift: u32) -> Self {
        Self { first, shift, layout: PhantomData }
    }

    /// How many there are.
    #[inline(always)]
    pub(crate) const fn count(self) -> u32 {
        (1u64 << (32 - self.shift)) as u32
    }

    #[inline(always)]
    const fn mask(self) -> u32 {
        (u32::MAX as u64 >> self.shift) as u32
    }

    /// Address of the row at `index`, below the count.
    #[inline(always)]
    pub(crate) const fn row(self, index: u32) -> *mut u8 {
        debug_assert!(index < self.count());
        // SAFETY: there is a row at every index below the count, as `new` was promised.
        unsafe { self.first.add(index as usize * Layout::<K, V>::BYTES) }
    }

    /// Header of the row at `index`.
    #[inline(always)]
    pub(crate) const fn header(self, index: u32) -> RowHeader {
        // SAFETY: every row begins with a header, all zeros included.
        unsafe { self.row(index).cast::<RowHeader>().read() }
    }

    /// Whether the row at `index` holds something.
    #[inline(always)]
    pub(crate) const fn is_occupied(self, index: u32) -> bool {
        self.header(index).is_occupied()
    }

    /// Index of the first row that a search looks at.
    #[inline(always)]
    fn home_index(self, homes: Homes, tag: u32) -> u32 {
        // One row needs a shift by 32.
        homes.of((tag.wrapping_mul(MIX_INDEX) as u64 >> self.shift) as u32, Layout::<K, V>::BEFORE_IN_LINE)
    }

    /// Address of the first row that a search looks at.
    #[inline(always)]
    pub(crate) fn home(self, homes: Homes, tag: u32) -> *mut u8 {
        self.row(self.home_index(homes, tag))
    }

    /// The row of this tag among those of the home's line; if there is none, the one that follows them.
    ///
    /// # Safety
    /// `home` must be a row of a segment whose rows share lines.
    #[inline(always)]
    pub(crate) unsafe fn in_line(home: *mut u8, tag: u32) -> *mut u8 {
        let rows = CACHE_LINE_BYTES / Layout::<K, V>::BYTES;
        // SAFETY: rows lie there, or the line of zeros that follows the segment's last.
        unsafe {
            let mut row = home.add(rows * Layout::<K, V>::BYTES);
            // Which row it is cannot be predicted: selections, and no branch.
            for number in (0..rows).rev() {
                let at = home.add(number * Layout::<K, V>::BYTES);
                row = if (*at.cast::<RowHeader>()).tag == tag { at } else { row };
            }
            row
        }
    }

    /// Looks for the row with this tag that `is_it`; else the empty row where the search ended.
    ///
    /// Which of the first rows it is cannot be predicted, so that is a selection and not a branch.
    #[inline(always)]
    pub(crate) fn find(self, homes: Homes, tag: u32, is_it: impl Fn(*mut u8) -> bool) -> Found {
        self.lookup::<false>(homes, tag, is_it)
    }

    /// As [`Self::find`]; `NEAR` says whether the rows are in the core's own cache.
    #[inline(always)]
    pub(crate) fn lookup<const NEAR: bool>(self, homes: Homes, tag: u32, is_it: impl Fn(*mut u8) -> bool) -> Found {
        let unbranched = if NEAR { Layout::<K, V>::UNBRANCHED_ROWS_NEAR } else { Layout::<K, V>::UNBRANCHED_ROWS };
        // A branch that is always the same costs less than the step that it spares near tables.
        let first = if NEAR && homes == Homes::EVERY_ROW {
            self.home_index(Homes::EVERY_ROW, tag)
        } else {
            self.home_index(homes, tag)
        };
        let mut index = first;
        // A row is never empty before one that was put behind it, so looking at the later ones finds nothing that a
        // search would not.
        for distance in (0..unbranched).rev() {
            let at = (first + distance) & self.mask();
            index = if self.header(at).tag == tag { at } else { index };
        }
        let row = self.row(index);
        let header = self.header(index);
        if header.tag == tag && header.is_occupied() && is_it(row) {
            return Found { row, index, exists: true };
        }
        let (index, exists) = self.search(first, tag, is_it);
        Found { row: self.row(index), index, exists }
    }

    /// As [`Self::find`], row by row. Answers the index of the row, and whether it was found: in registers, so that nothing
    /// of a search need be in memory.
    #[inline(never)]
    fn search(self, mut index: u32, tag: u32, is_it: impl Fn(*mut u8) -> bool) -> (u32, bool) {
        loop {
            let (header, row) = (self.header(index), self.row(index));
            if header.tag == tag && header.is_occupied() && is_it(row) {
                return (index, true);
            }
            if header.to_bits() == EMPTY {
                return (index, false);
            }
            index = (index + 1) & self.mask();
        }
    }

    /// The first empty row for a row that is known not to be there.
    #[inline(always)]
    pub(crate) fn vacant(self, homes: Homes, tag: u32) -> *mut u8 {
        let mut index = self.home_index(homes, tag);
        while self.header(index).to_bits() != EMPTY {
            index = (index + 1) & self.mask();
        }
        self.row(index)
    }

    /// As [`Self::vacant`], where rows come about in the order in which a search passes them. All rows from the first
    /// index of `run` up to the second, without that, must be occupied, and will be with the row that is answered.
    #[inline(always)]
    pub(crate) fn vacant_in_order(self, homes: Homes, tag: u32, run: &mut (u32, u32)) -> *mut u8 {
        let first = self.home_index(homes, tag);
        let (begin, end) = *run;
        // A row goes to the end of the rows that its search would pass; a choice that nobody could predict.
        let goes_on = first.wrapping_sub(begin) <= end.wrapping_sub(begin);
        let index = if goes_on { end } else { first } & self.mask();
        if self.header(index).to_bits() != EMPTY {
            return self.vacant_after(first, run);
        }
        *run = (if goes_on & (index == end) { begin } else { index }, index + 1);
        self.row(index)
    }

    /// As [`Self::vacant_in_order`], where the row is not the next one.
    #[cold]
    #[inline(never)]
    fn vacant_after(self, first: u32, run: &mut (u32, u32)) -> *mut u8 {
        let mut index = first;
        while self.header(index).to_bits() != EMPTY {
            index = (index + 1) & self.mask();
        }
        *run = (if index >= first { first } else { 0 }, index + 1);
        self.row(index)
    }

    /// Marks the row at `index` as unused. Answers how many rows became empty, deleted ones before it included.
    ///
    /// # Safety
    /// The row must be occupied, and what its cells refer to be freed.
    pub(crate) unsafe fn vacate(self, index: u32) -> u32 {
        let write = |index: u32, bits: u64| {
            let header = RowHeader { tag: bits as u32, epoch: 0, flags: 0 };
            // SAFETY: the index is below the count, and the header is all that makes a row used or unused.
            unsafe { self.row(index).cast::<RowHeader>().write(header) }
        };
        if self.header((index + 1) & self.mask()).to_bits() != EMPTY {
            write(index, DELETED);
            return 0;
        }
        let (mut index, mut emptied) = (index, 0);
        loop {
            write(index, EMPTY);
            emptied += 1;
            index = index.wrapping_sub(1) & self.mask();
            if self.header(index).to_bits() != DELETED {
                return emptied;
            }
        }
    }

    /// Zeroes all rows.
    pub(crate) fn wipe(self) {
        // SAFETY: there are that many rows, and zeroed ones are empty ones.
        unsafe { self.first.write_bytes(0, self.count() as usize * Layout::<K, V>::BYTES) };
    }
}

/// What a search came to.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    /// The row, or the empty one at the end of the search.
    pub(crate) row: *mut u8,
    /// Its index.
    pub(crate) index: u32,
    /// Whether it is the row that was looked for.
    pub(crate) exists: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn when_rows_are_put_in_any_order_then_searches_find_each(
            mut tags in prop::collection::vec(prop_oneof![any::<u32>(), 0u32..4], 0..48),
            in_order in any::<bool>(),
            homes in prop_oneof![Just(Homes::EVERY_ROW), Just(Homes::EVERY_LINE)],
        ) {
            let mut memory = vec![0u128; 64 * Layout::<u64, u64>::BYTES / 16];
            // SAFETY: 64 zeroed rows, of which at most 48 will be used.
            let rows = unsafe { Rows::<u64, u64>::new(memory.as_mut_ptr().cast(), 32 - 6) };
            if in_order {
                tags.sort_by_key(|tag| tag.wrapping_mul(MIX_INDEX));
            }
            let mut run = (0, 0);
            for (n, &tag) in tags.iter().enumerate() {
                let row = rows.vacant_in_order(homes, tag, &mut run);
                // SAFETY: the row is empty and of a header, a key and a value.
                unsafe {
                    row.cast::<RowHeader>().write(RowHeader::new(tag, 0, 0));
                    row.add(Layout::<u64, u64>::KEY_AT).cast::<u64>().write(n as u64);
                }
                prop_assert!((run.0..run.1).all(|index| rows.is_occupied(index)));
            }
            for (n, &tag) in tags.iter().enumerate() {
                // SAFETY: the rows asked about hold a key.
                let is_it = |row: *mut u8| unsafe { row.add(Layout::<u64, u64>::KEY_AT).cast::<u64>().read() == n as u64 };
                prop_assert!(rows.find(homes, tag, is_it).exists);
            }
        }
    }

    #[test]
    fn when_rows_are_laid_out_then_they_are_as_small_as_their_parts_allow() {
        assert_eq!(Layout::<u64, u64>::BYTES, 24);
        assert_eq!((Layout::<u64, u64>::KEY_AT, Layout::<u64, u64>::VALUE_AT), (8, 16));
        assert_eq!(Layout::<u32, u32>::BYTES, 16);
        assert_eq!(Layout::<u128, u64>::BYTES, 32);
        assert_eq!((Layout::<u128, u64>::KEY_AT, Layout::<u128, u64>::VALUE_AT), (16, 8));
        assert_eq!(Layout::<String, String>::BYTES, 24);
        assert_eq!(Layout::<u64, ()>::BYTES, 16);
        assert_eq!(Layout::<(), ()>::BYTES, 8);
        assert_eq!(Layout::<(u64, i64, i64), bool>::BYTES, 40);
        assert_eq!(Layout::<u8, (u64, u64)>::BYTES, 32);
    }
}
