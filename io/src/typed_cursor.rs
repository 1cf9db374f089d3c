//! `TypedCursor`: a `FrameCursor` over records of one type, where the compiler knows how frames lie.
//!
//! For loops that read many records: lengths and strides are constants, and of records of fixed size those ahead can be looked
//! at without reading the ones between.

use std::marker::PhantomData;

use thalweg_model::{KeyHash, Record};

use crate::{
    cursor::{Frame, record_at},
    frame::FrameLayout,
};

/// Reads frames of records of type `T` one after another; `TIMED` says whether they hold a timestamp.
///
/// Made by [`FrameCursor::typed`](crate::FrameCursor::typed), which [goes on](crate::FrameCursor::resume) where this one ends.
pub struct TypedCursor<'a, T, const TIMED: bool> {
    at: *const u8,
    end: *const u8,
    types: PhantomData<(&'a [u8], fn() -> T)>,
}

impl<T, const TIMED: bool> Clone for TypedCursor<'_, T, TIMED> {
    fn clone(&self) -> Self {
        Self { at: self.at, end: self.end, types: PhantomData }
    }
}

impl<'a, T: Record, const TIMED: bool> TypedCursor<'a, T, TIMED> {
    const LAYOUT: FrameLayout = FrameLayout::of::<T>(TIMED);

    /// A cursor from one address up to another.
    ///
    /// # Safety
    /// Between them must be whole frames of the layout for `T` and `TIMED`, end to end, as long as `'a` lasts.
    #[inline(always)]
    pub(crate) const unsafe fn new(at: *const u8, end: *const u8) -> Self {
        Self { at, end, types: PhantomData }
    }

    /// What is left, from one address up to another.
    #[inline(always)]
    pub(crate) const fn span(&self) -> (*const u8, *const u8) {
        (self.at, self.end)
    }

    /// The next record. `None` at the end, or at a frame that is not a record.
    ///
    /// # Panics
    /// Where `T` has a fixed size and the record another one.
    #[expect(
        clippy::should_implement_trait,
        reason = "as `FrameCursor::next`, and no iterator: it may go on after `None`"
    )]
    #[inline(always)]
    pub fn next(&mut self) -> Option<Frame<'a>> {
        if self.at == self.end {
            return None;
        }
        // SAFETY: `at` is before the end, so a whole frame lies there (`new`).
        let (frame, next) = unsafe { record_at::<T>(self.at, Self::LAYOUT) }?;
        debug_assert!(next <= self.end);
        self.at = next;
        Some(frame)
    }

    /// The key hash of the record that comes after that many others, for records of fixed size.
    ///
    /// `None` if there is none before the end. Where a frame comes first that is no record the answer is any number: whoever
    /// reads the records will not come to that one.
    #[inline(always)]
    pub fn hash_after(&self, records: usize) -> Option<KeyHash> {
        debug_assert!(T::FIXED, "only records of fixed size are equally far from each other");
        let distance = records * Self::LAYOUT.stride_bytes(size_of::<T::Archived>());
        if self.end.addr() - self.at.addr() <= distance {
            return None;
        }
        // SAFETY: before the end. Frames, and so what is left, are multiples of eight bytes.
        Some(KeyHash(unsafe { self.at.add(distance + 4).cast::<u32>().read() }))
    }
}

#[cfg(test)]
mod tests {
    use thalweg_model::{Elem, time::MIN_WATERMARK};

    use super::*;
    use crate::{FrameBuffer, FrameCursor};

    fn buffer<T: Record, const TIMED: bool>(records: &[T]) -> FrameBuffer {
        let mut frames = FrameBuffer::new(FrameLayout::of::<T>(TIMED));
        for (n, record) in records.iter().enumerate() {
            frames.push(&Elem::<T>::new(record.view(), n as i64), KeyHash(n as u32 * 7));
        }
        frames
    }

    fn check<T: Record, const TIMED: bool>(records: &[T]) {
        let frames = buffer::<T, TIMED>(records);
        let mut typed = frames.cursor().typed::<T, TIMED>();
        let mut plain = frames.cursor();
        for n in 0..records.len() {
            if T::FIXED {
                for after in 0..records.len() + 2 {
                    let expected = (n + after < records.len()).then_some(KeyHash((n + after) as u32 * 7));
                    assert_eq!(typed.hash_after(after), expected, "{after} after {n}");
                }
            }
            let (frame, expected) = (typed.next().unwrap(), plain.next::<T>().unwrap());
            assert_eq!((frame.hash, frame.payload), (expected.hash, expected.payload));
            assert_eq!(frame.timestamp, if TIMED { n as i64 } else { MIN_WATERMARK });
            let mut resumed = frames.cursor();
            resumed.resume(&typed);
            assert_eq!(resumed.position(), plain.position());
        }
        assert!(typed.next().is_none());
    }

    #[test]
    fn when_records_are_read_by_type_then_they_are_those_that_any_cursor_reads() {
        check::<u64, false>(&[1, 2, 3, 4]);
        check::<u64, true>(&[1, 2, 3, 4]);
        check::<(u64, u128), true>(&[(1, 2), (3, 4)]);
        check::<String, false>(&["".into(), "a".into(), "a longer one than the others".into()]);
        check::<String, true>(&["b".into(), "".into()]);
        check::<u8, false>(&[5]);
    }

    #[test]
    #[should_panic(expected = "laid out for another record type")]
    fn when_the_edge_carries_time_and_the_cursor_expects_none_then_it_panics() {
        let frames = buffer::<u64, true>(&[1]);
        let _ = frames.cursor().typed::<u64, false>();
    }

    #[test]
    #[should_panic(expected = "goes on with one that was made of it")]
    fn when_a_cursor_resumes_another_ones_then_it_panics() {
        let (frames, others) = (buffer::<u64, false>(&[1]), buffer::<u64, false>(&[1, 2]));
        let mut cursor: FrameCursor<'_> = frames.cursor();
        cursor.resume(&others.cursor().typed::<u64, false>());
    }
}
