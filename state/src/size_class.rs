//! Size classes of a slab's blocks: steps of 16 bytes up to 128, then four to a doubling up to 1 MiB.

use crate::memory::HUGE_PAGE_BYTES;

/// Largest block that is cut out of a chunk; larger ones are mapped by themselves.
pub(crate) const LARGEST_CLASS_BYTES: usize = 1 << 20;
/// How many classes there are.
pub(crate) const CLASSES: usize = 8 + 13 * 4;

/// Class and size of the block for `len` bytes.
#[inline]
pub(crate) const fn class_of(len: usize) -> (usize, usize) {
    let last = len.saturating_sub(1);
    if last < 128 {
        let class = last / 16;
        return (class, (class + 1) * 16);
    }
    let doubling = last.ilog2();
    let base = 1usize << doubling;
    let quarter = (last - base) / (base / 4);
    (8 + (doubling as usize - 7) * 4 + quarter, base + (quarter + 1) * (base / 4))
}

/// Size of the blocks of a class.
pub(crate) const fn class_bytes(class: usize) -> usize {
    if class < 8 {
        return (class + 1) * 16;
    }
    let (doubling, quarter) = ((class - 8) / 4 + 7, (class - 8) % 4);
    (1 << doubling) + (quarter + 1) * (1 << (doubling - 2))
}

/// Bytes that a block for `len` bytes can hold.
pub(crate) const fn block_bytes(len: usize) -> usize {
    if len > LARGEST_CLASS_BYTES { len.next_multiple_of(HUGE_PAGE_BYTES) } else { class_of(len).1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_classes_are_listed_then_each_holds_its_own_size_and_no_more() {
        for class in 0..CLASSES {
            let bytes = class_bytes(class);
            assert_eq!(class_of(bytes), (class, bytes));
            if class + 1 < CLASSES {
                assert_eq!(class_of(bytes + 1), (class + 1, class_bytes(class + 1)));
            }
            assert_eq!(bytes % 16, 0);
        }
        assert_eq!(class_bytes(CLASSES - 1), LARGEST_CLASS_BYTES);
        assert_eq!(class_of(0), (0, 16));
    }
}
