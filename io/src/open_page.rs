//! The open page: where a writer puts its next frame.
//!
//! The hot end of an edge: one compact struct per channel. Owns no page; the edge does, and points this at it. It must
//! never write below `published`: those bytes belong to the reader.

use std::{mem::MaybeUninit, ptr};

use thalweg_model::{Elem, EncodeScratch, KeyHash, Record, record::encode};

use crate::{
    control::{CONTROL_BYTES, Control},
    frame::{CONTROL, FrameLayout},
    pool::Page,
};

/// The writing position in a page. Without a page it has no room for anything.
pub(crate) struct OpenPage {
    page: *mut u8,
    /// The writing position, and the records put into this page in the upper half: one word, so that a record costs one store
    /// beside its frame. (Stores to two places by turns are what limits a writer whose lines come from another core.)
    pos_records: u64,
    end: u32,
    published: u32,
    /// Records in the pages before this one.
    records: u64,
}

/// One record, as counted in `pos_records`.
const ONE_RECORD: u64 = 1 << 32;

impl OpenPage {
    pub(crate) const fn none() -> Self {
        Self { page: ptr::null_mut(), pos_records: 0, end: 0, published: 0, records: 0 }
    }

    /// Starts at the beginning of a page.
    ///
    /// # Safety
    /// The page has `page_bytes` bytes, a multiple of 64, and is not read, written or given away but as [`publish`](Self::publish)
    /// and [`close`](Self::close) allow.
    pub(crate) unsafe fn open(&mut self, page: &Page, page_bytes: usize) {
        self.page = page.as_ptr();
        self.pos_records = 0;
        self.end = page_bytes as u32;
        self.published = 0;
    }

    /// Lets go of the page. Answers the bytes written and not published: the caller may give them away with the page.
    pub(crate) fn close(&mut self) -> (u32, u32) {
        let unpublished = self.unpublished();
        self.records = self.records();
        self.page = ptr::null_mut();
        (self.pos_records, self.end, self.published) = (0, 0, 0);
        unpublished
    }

    #[inline(always)]
    const fn pos(&self) -> u32 {
        self.pos_records as u32
    }

    /// The bytes written and not published.
    #[inline]
    pub(crate) const fn unpublished(&self) -> (u32, u32) {
        (self.published, self.pos())
    }

    /// From now on everything written so far is the reader's.
    pub(crate) const fn publish(&mut self) {
        self.published = self.pos();
    }

    #[inline]
    pub(crate) const fn has_unpublished(&self) -> bool {
        self.pos() != self.published
    }

    /// Bytes that a frame with its header may still take.
    pub(crate) const fn room_bytes(&self) -> usize {
        (self.end - self.pos()) as usize
    }

    /// Records written in all.
    pub(crate) const fn records(&self) -> u64 {
        self.records + (self.pos_records >> 32)
    }

    /// Puts a record, if it fits.
    ///
    /// # Panics
    /// Where the layout is for another alignment than the type's.
    #[inline(always)]
    pub(crate) fn put<T: Record>(
        &mut self,
        elem: &Elem<'_, T>,
        hash: KeyHash,
        layout: FrameLayout,
        scratch: &mut EncodeScratch,
    ) -> bool {
        let layout = layout.known::<T>();
        let header = layout.header_bytes();
        let room = (self.end - self.pos()) as usize;
        let at_least = if T::FIXED { size_of::<T::Archived>() } else { elem.raw.len() };
        if room < header + at_least {
            return false;
        }
        // SAFETY: `pos + header + at_least <= end`, within the page, in the part that is not published; `pos` is
        // aligned to the layout's alignment and so is the payload; the header has 8 bytes, or 16 with time.
        unsafe {
            let frame = self.page.add(self.pos() as usize);
            let payload = frame.add(header);
            let len = if !T::FIXED && !elem.raw.is_empty() {
                ptr::copy_nonoverlapping(elem.raw.as_ptr(), payload, at_least);
                at_least
            } else {
                let room = if T::FIXED { at_least } else { room - header };
                let out = std::slice::from_raw_parts_mut(payload.cast::<MaybeUninit<u8>>(), room);
                match encode::<T>(elem.view, out, scratch) {
                    Some(len) => len,
                    None => return false,
                }
            };
            self.head(frame, len as u32, hash.0, elem.timestamp, layout);
            self.pos_records += layout.stride_bytes(len) as u64 + ONE_RECORD;
        }
        true
    }

    /// Puts a piece of a record, if it fits.
    pub(crate) fn put_fragment(
        &mut self,
        kind: u32,
        bytes: &[u8],
        hash: KeyHash,
        timestamp: i64,
        layout: FrameLayout,
    ) -> bool {
        if self.room_bytes() < layout.header_bytes() + bytes.len() {
            return false;
        }
        // SAFETY: as in `put`.
        unsafe {
            let frame = self.page.add(self.pos() as usize);
            ptr::copy_nonoverlapping(bytes.as_ptr(), frame.add(layout.header_bytes()), bytes.len());
            self.head(frame, kind | bytes.len() as u32, hash.0, timestamp, layout);
        }
        self.pos_records += layout.stride_bytes(bytes.len()) as u64;
        true
    }

    /// Puts a control element, if it fits.
    pub(crate) fn put_control(&mut self, control: Control, layout: FrameLayout) -> bool {
        if self.room_bytes() < layout.header_bytes() + CONTROL_BYTES {
            return false;
        }
        let (kind, words) = control.encode();
        // SAFETY: as in `put`; the payload is aligned to 8.
        unsafe {
            let frame = self.page.add(self.pos() as usize);
            frame.add(layout.header_bytes()).cast::<[u64; 3]>().write(words);
            self.head(frame, CONTROL | CONTROL_BYTES as u32, kind, 0, layout);
        }
        self.pos_records += layout.stride_bytes(CONTROL_BYTES) as u64;
        true
    }

    /// Counts a record that went out in pieces.
    pub(crate) const fn count_record(&mut self) {
        self.pos_records += ONE_RECORD;
    }

    /// Writes a header.
    ///
    /// # Safety
    /// `frame` is aligned to 8 and has room for a header of this layout.
    #[inline(always)]
    unsafe fn head(&self, frame: *mut u8, word: u32, hash: u32, timestamp: i64, layout: FrameLayout) {
        // SAFETY: promised by the caller.
        unsafe {
            // One store: the number of stores in flight bounds how fast a page comes over from the other core.
            let words = if cfg!(target_endian = "little") {
                word as u64 | (hash as u64) << 32
            } else {
                (word as u64) << 32 | hash as u64
            };
            frame.cast::<u64>().write(words);
            if layout.carries_time() {
                frame.add(8).cast::<i64>().write(timestamp);
            }
        }
    }
}
