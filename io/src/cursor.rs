//! The cursor: reading the frames of a published slice of a page.
//!
//! Stops at the first frame that is not a plain record; what that means is the gate's matter.

use std::marker::PhantomData;

use thalweg_model::{KeyHash, Record, time::MIN_WATERMARK};

use crate::{
    frame::{CONTROL, FrameLayout},
    typed_cursor::TypedCursor,
};

/// One record, as it lies in its page.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The hash of the key that routed it.
    pub hash: KeyHash,
    /// Event time in milliseconds, [`MIN_WATERMARK`] if the edge carries none.
    pub timestamp: i64,
    /// The encoded record, aligned as its type needs: what `record::decode_unchecked` takes.
    pub payload: &'a [u8],
}

/// Reads frames one after another. A clone goes on by itself: a loop that reads many had best work on one of its own, which
/// need not be in memory, and put it back.
#[derive(Clone)]
pub struct FrameCursor<'a> {
    at: *const u8,
    end: *const u8,
    start: *const u8,
    layout: FrameLayout,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> FrameCursor<'a> {
    /// A cursor over whole frames.
    ///
    /// # Safety
    /// `bytes` must be whole frames of this layout, end to end, beginning at an address aligned as the layout says.
    #[inline]
    pub unsafe fn new(bytes: &'a [u8], layout: FrameLayout) -> Self {
        let range = bytes.as_ptr_range();
        debug_assert!(range.start.addr().is_multiple_of(layout.align()));
        Self { at: range.start, end: range.end, start: range.start, layout, bytes: PhantomData }
    }

    /// The next record, which must be of the type that was written. `None` at the end, or at a frame that is not a record.
    ///
    /// # Panics
    /// Where `T` has a fixed size and the record another one, or `T` another alignment than the edge's type.
    #[expect(clippy::should_implement_trait, reason = "it is told the type of record at each call")]
    #[inline(always)]
    pub fn next<T: Record>(&mut self) -> Option<Frame<'a>> {
        if self.at == self.end {
            return None;
        }
        // SAFETY: `at` is before the end, so a whole frame lies there (`new`).
        let (frame, next) = unsafe { record_at::<T>(self.at, self.layout.known::<T>()) }?;
        debug_assert!(next <= self.end);
        self.at = next;
        Some(frame)
    }

    /// The key hashes of the next records, up to `max` and to the length of `out`, without taking them: for prefetching what the
    /// records will touch. Answers how many there are.
    #[inline]
    pub fn hashes(&self, max: usize, out: &mut [KeyHash]) -> usize {
        let mut at = self.at;
        let mut count = 0;
        let (mut same, mut stride) = (CONTROL, 0);
        for hash in out.iter_mut().take(max) {
            if at == self.end {
                break;
            }
            // SAFETY: `at` is the start of a frame before the end (`new`).
            unsafe {
                let word = at.cast::<u32>().read();
                // Mostly frames are equally long: the next address then need not wait for this frame's first word.
                if word != same {
                    if word >= CONTROL {
                        break;
                    }
                    (same, stride) = (word, self.layout.stride_bytes(word as usize));
                }
                *hash = KeyHash(at.add(4).cast::<u32>().read());
                at = at.add(stride);
            }
            count += 1;
        }
        count
    }

    /// Ends the cursor after `frames` more records at most, as if no more had come.
    pub fn limit(&mut self, frames: usize) {
        if self.remaining() <= frames.saturating_mul(self.layout.stride_bytes(0)) {
            return;
        }
        let mut at = self.at;
        let (mut same, mut stride) = (CONTROL, 0);
        for _ in 0..frames {
            if at == self.end {
                return;
            }
            // SAFETY: `at` is the start of a frame before the end (`new`), and so is what follows it, or the end.
            unsafe {
                let word = at.cast::<u32>().read();
                // As in `hashes`.
                if word != same {
                    if word >= CONTROL {
                        return;
                    }
                    (same, stride) = (word, self.layout.stride_bytes(word as usize));
                }
                at = at.add(stride);
            }
        }
        self.end = at;
    }

    /// Whether frames hold a timestamp.
    #[inline(always)]
    pub fn carries_time(&self) -> bool {
        self.layout.carries_time()
    }

    /// A cursor over records of type `T` that goes on from here.
    ///
    /// # Panics
    /// Where frames are laid out for another alignment than `T`'s, or hold a timestamp and should not, or the reverse.
    #[inline(always)]
    pub fn typed<T: Record, const TIMED: bool>(&self) -> TypedCursor<'a, T, TIMED> {
        assert!(self.layout == FrameLayout::of::<T>(TIMED), "the edge was laid out for another record type");
        // SAFETY: what is left are whole frames of this layout.
        unsafe { TypedCursor::new(self.at, self.end) }
    }

    /// Goes on where a cursor came to that was made of this one.
    ///
    /// # Panics
    /// Where it was made of another one, or before what has been read.
    #[inline(always)]
    pub fn resume<T: Record, const TIMED: bool>(&mut self, cursor: &TypedCursor<'a, T, TIMED>) {
        let (at, end) = cursor.span();
        assert!(self.at <= at && end == self.end, "a cursor goes on with one that was made of it");
        self.at = at;
    }

    /// Bytes read so far: what [`Gate::consume`](crate::Gate::consume) takes.
    #[inline]
    pub fn position(&self) -> usize {
        self.at.addr() - self.start.addr()
    }

    /// Bytes not yet read.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.end.addr() - self.at.addr()
    }

    /// Whether the next frame is there but no plain record.
    #[inline]
    pub fn is_at_special(&self) -> bool {
        // SAFETY: before the end, a whole frame lies at `at` (`new`).
        self.at != self.end && unsafe { self.at.cast::<u32>().read() } >= CONTROL
    }
}

/// The record whose frame begins at `at`, and where the next frame begins; `None` if it is not a record.
///
/// # Panics
/// Where `T` has a fixed size and the record another one.
///
/// # Safety
/// A whole frame of this layout must lie there, as long as `'a` lasts.
#[inline(always)]
pub(crate) unsafe fn record_at<'a, T: Record>(at: *const u8, layout: FrameLayout) -> Option<(Frame<'a>, *const u8)> {
    // SAFETY: as promised by the caller.
    unsafe {
        let word = at.cast::<u32>().read();
        let len = if T::FIXED {
            let len = size_of::<T::Archived>();
            if word != len as u32 {
                return odd_frame(word);
            }
            len
        } else {
            if word >= CONTROL {
                return None;
            }
            word as usize
        };
        let hash = KeyHash(at.add(4).cast::<u32>().read());
        let timestamp = if layout.carries_time() { at.add(8).cast::<i64>().read() } else { MIN_WATERMARK };
        let payload = std::slice::from_raw_parts(at.add(layout.header_bytes()), len);
        Some((Frame { hash, timestamp, payload }, at.add(layout.stride_bytes(len))))
    }
}

/// What the fixed-size reader found is not a record of its size.
#[cold]
fn odd_frame<'a>(word: u32) -> Option<(Frame<'a>, *const u8)> {
    assert!(word >= CONTROL, "a record of {word} bytes is read as another type than it was written as");
    None
}
