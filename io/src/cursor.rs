//! The cursor: reading the frames of a published slice of a page.
//!
//! Stops at the first frame that is not a plain record; what that means is the gate's matter.

use std::marker::PhantomData;

use thalweg_model::{KeyHash, Record, time::MIN_WATERMARK};

use crate::frame::{CONTROL, FrameLayout};

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
        let layout = self.layout.known::<T>();
        // SAFETY: `at` is before the end, so a whole frame lies there (`new`).
        unsafe {
            let word = self.at.cast::<u32>().read();
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
            let hash = KeyHash(self.at.add(4).cast::<u32>().read());
            let timestamp = if layout.carries_time() { self.at.add(8).cast::<i64>().read() } else { MIN_WATERMARK };
            let payload = std::slice::from_raw_parts(self.at.add(layout.header_bytes()), len);
            self.at = self.at.add(layout.stride_bytes(len));
            debug_assert!(self.at <= self.end);
            Some(Frame { hash, timestamp, payload })
        }
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

    /// The key hashes from here on, for prefetching what the records will touch while others are being read.
    #[inline(always)]
    pub fn ahead(&self) -> HashesAhead<'a> {
        HashesAhead { at: self.at, end: self.end, layout: self.layout, bytes: PhantomData }
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

/// Reads the key hashes of frames ahead of a [`FrameCursor`], up to the first frame that is not a plain record.
pub struct HashesAhead<'a> {
    at: *const u8,
    end: *const u8,
    layout: FrameLayout,
    bytes: PhantomData<&'a [u8]>,
}

impl HashesAhead<'_> {
    /// The hash of the next record, which must be of the type that was written.
    #[expect(clippy::should_implement_trait, reason = "it is told the type of record at each call")]
    #[inline(always)]
    pub fn next<T: Record>(&mut self) -> Option<KeyHash> {
        if self.at == self.end {
            return None;
        }
        // SAFETY: `at` is before the end, so a whole frame lies there (`FrameCursor::new`).
        unsafe {
            let word = self.at.cast::<u32>().read();
            if word >= CONTROL {
                return None;
            }
            let layout = self.layout.known::<T>();
            let hash = KeyHash(self.at.add(4).cast::<u32>().read());
            // All frames of a fixed type are equally long: the next address need not wait for this frame's first word.
            let len = if T::FIXED {
                debug_assert_eq!(word as usize, size_of::<T::Archived>());
                size_of::<T::Archived>()
            } else {
                word as usize
            };
            self.at = self.at.add(layout.stride_bytes(len));
            Some(hash)
        }
    }
}

/// What the fixed-size reader found is not a record of its size.
#[cold]
fn odd_frame<'a>(word: u32) -> Option<Frame<'a>> {
    assert!(word >= CONTROL, "a record of {word} bytes is read as another type than it was written as");
    None
}
