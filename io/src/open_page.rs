//! The open page: where a writer puts its next frame.
//!
//! The hot end of an edge: one compact struct per channel. Owns no page; the edge does, and points this at it. It must
//! never write below `published` in the page: those bytes belong to the reader.

use std::{mem::MaybeUninit, ptr};

use thalweg_model::{Elem, EncodeScratch, KeyHash, Record, record::encode};

use crate::{
    control::Control,
    frame::{CONTROL, FrameLayout, PAGE_ALIGN},
    pool::Page,
};

/// Bytes of a stage: few enough for all of an edge's to stay in the core's nearest cache, enough for a copy to be worth it.
const STAGE_BYTES: usize = 2 << 10;
/// Alignment of a stage, as that of pages: a byte is as aligned in one as in the other.
const STAGE_ALIGN: u32 = PAGE_ALIGN as u32;

/// Bytes that come over from another core together.
const LINE_BYTES: u32 = 64;

/// Where frames are written first.
#[repr(align(64))]
struct Stage([u8; STAGE_BYTES]);

/// The writing position in a page. Without a page it has no room for anything.
///
/// The lines of a page were last read by another core, and come over one by one when they are written, while stores wait for
/// each other in order. Frames are put together in a stage of this core's own, and go to the page in long copies, which need
/// few stores for a line, and whose lines were asked for when the copy before was made.
pub(crate) struct OpenPage {
    /// Where the page's first byte would be, if the byte at the writing position is where it is: in the stage.
    base: *mut u8,
    /// The writing position, and the records put into this page in the upper half: one word, so that a record costs one store
    /// beside its frame.
    pos_records: u64,
    /// Up to where there is room at `base`.
    end: u32,
    /// What was written before this position is in the page itself.
    spilled: u32,
    published: u32,
    /// Up to where lines of the page were asked for.
    fetched: u32,
    page_bytes: u32,
    page: *mut u8,
    stage: Box<Stage>,
    /// Whether the reader is on this core, so that its pages are in this core's cache.
    same_core: bool,
    /// Records in the pages before this one.
    records: u64,
}

/// One record, as counted in `pos_records`.
const ONE_RECORD: u64 = 1 << 32;

impl OpenPage {
    pub(crate) fn none(same_core: bool) -> Self {
        Self {
            base: ptr::null_mut(),
            pos_records: 0,
            end: 0,
            spilled: 0,
            published: 0,
            fetched: 0,
            page_bytes: 0,
            page: ptr::null_mut(),
            // As pages are: whatever lies between two frames is initialised.
            stage: Box::new(Stage([0; STAGE_BYTES])),
            same_core,
            records: 0,
        }
    }

    /// Starts at the beginning of a page.
    ///
    /// # Safety
    /// The page has `page_bytes` bytes, a multiple of 64, and is not read, written or given away but as [`publish`](Self::publish)
    /// and [`close`](Self::close) allow.
    pub(crate) unsafe fn open(&mut self, page: &Page, page_bytes: usize) {
        self.page = page.as_ptr();
        self.page_bytes = page_bytes as u32;
        (self.pos_records, self.spilled, self.published, self.fetched) = (0, 0, 0, 0);
        self.restage();
    }

    /// Lets go of the page. Answers the bytes written and not published: the caller may give them away with the page.
    pub(crate) fn close(&mut self) -> (u32, u32) {
        self.spill();
        let unpublished = self.unpublished();
        self.records = self.records();
        (self.page, self.base) = (ptr::null_mut(), ptr::null_mut());
        (self.pos_records, self.end, self.spilled, self.published, self.page_bytes) = (0, 0, 0, 0, 0);
        unpublished
    }

    /// Copies what is in the stage to the page.
    #[inline]
    pub(crate) fn spill(&mut self) {
        let (from, to) = (self.spilled as usize, self.pos() as usize);
        if from == to {
            return;
        }
        // SAFETY: these bytes were written at `base`, which is in the stage; in the page they lie before its end and after what
        // is published.
        unsafe { ptr::copy_nonoverlapping(self.base.wrapping_add(from), self.page.add(from), to - from) };
        self.spilled = to as u32;
        self.restage();
    }

    /// Has the lines come over that the next copy will write, while the stage fills up.
    fn fetch_ahead(&mut self) {
        // The line at the writing position may be the reader's: it was written by the last copy, and is in this cache anyhow.
        let from = self.fetched.max(self.spilled).next_multiple_of(LINE_BYTES);
        let until = self.page_bytes.min(self.spilled + STAGE_BYTES as u32);
        for at in (from..until).step_by(LINE_BYTES as usize) {
            fetch_to_write(self.page.wrapping_add(at as usize));
        }
        self.fetched = until;
    }

    /// Goes on in an empty stage.
    fn restage(&mut self) {
        let begin = self.spilled & !(STAGE_ALIGN - 1);
        self.base = self.stage.0.as_mut_ptr().wrapping_sub(begin as usize);
        self.end = self.page_bytes.min(begin + STAGE_BYTES as u32);
        if !self.same_core {
            self.fetch_ahead();
        }
    }

    /// Writes into the page itself, as long as the call takes; what is in the stage must have been spilled.
    fn in_page<R>(&mut self, write: impl FnOnce(&mut Self) -> R) -> R {
        (self.base, self.end) = (self.page, self.page_bytes);
        let answer = write(self);
        self.spilled = self.pos();
        self.restage();
        answer
    }

    #[inline(always)]
    const fn pos(&self) -> u32 {
        self.pos_records as u32
    }

    /// The bytes written and not published; in the page once they are [spilled](Self::spill).
    #[inline]
    pub(crate) const fn unpublished(&self) -> (u32, u32) {
        (self.published, self.pos())
    }

    /// From now on everything that has been spilled is the reader's.
    pub(crate) const fn publish(&mut self) {
        debug_assert!(self.spilled == self.pos());
        self.published = self.spilled;
    }

    #[inline]
    pub(crate) const fn has_unpublished(&self) -> bool {
        self.pos() != self.published
    }

    /// Bytes that a frame with its header may still take.
    pub(crate) const fn room_bytes(&self) -> usize {
        (self.page_bytes - self.pos()) as usize
    }

    /// Records written in all.
    pub(crate) const fn records(&self) -> u64 {
        self.records + (self.pos_records >> 32)
    }

    /// Puts a record, if it fits into the stage.
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
        layout.assert_is_for::<T>();
        // Once for each, so that all lengths are known to the compiler.
        if layout.carries_time() {
            self.put_laid_out(elem, hash, const { FrameLayout::of::<T>(true) }, scratch)
        } else {
            self.put_laid_out(elem, hash, const { FrameLayout::of::<T>(false) }, scratch)
        }
    }

    /// As [`put`](Self::put), with the layout that the edge has.
    #[inline(always)]
    fn put_laid_out<T: Record>(
        &mut self,
        elem: &Elem<'_, T>,
        hash: KeyHash,
        layout: FrameLayout,
        scratch: &mut EncodeScratch,
    ) -> bool {
        let header = layout.header_bytes();
        let room = (self.end - self.pos()) as usize;
        let at_least = if T::FIXED { size_of::<T::Archived>() } else { elem.raw.len() };
        if room < header + at_least {
            return false;
        }
        // SAFETY: `pos + header + at_least <= end`, within the stage, or within the page in the part that is not published;
        // `pos` is aligned to the layout's alignment and so is the payload; the header has 8 bytes, or 16 with time.
        unsafe {
            let frame = self.base.wrapping_add(self.pos() as usize);
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

    /// Puts a record, if it fits into the page.
    ///
    /// # Panics
    /// As [`put`](Self::put).
    pub(crate) fn put_in_page<T: Record>(
        &mut self,
        elem: &Elem<'_, T>,
        hash: KeyHash,
        layout: FrameLayout,
        scratch: &mut EncodeScratch,
    ) -> bool {
        self.spill();
        // Most fit into the stage now that it is empty.
        self.put(elem, hash, layout, scratch) || self.in_page(|page| page.put(elem, hash, layout, scratch))
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
        self.spill();
        self.in_page(|open| {
            // SAFETY: as in `put`.
            unsafe {
                let frame = open.base.add(open.pos() as usize);
                ptr::copy_nonoverlapping(bytes.as_ptr(), frame.add(layout.header_bytes()), bytes.len());
                open.head(frame, kind | bytes.len() as u32, hash.0, timestamp, layout);
            }
            open.pos_records += layout.stride_bytes(bytes.len()) as u64;
        });
        true
    }

    /// Puts a control element, if it fits: a frame whose hash says which it is.
    pub(crate) fn put_control(&mut self, control: Control, layout: FrameLayout) -> bool {
        let (kind, words) = control.encode();
        let bytes = words.map(u64::to_ne_bytes);
        self.put_fragment(CONTROL, bytes.as_flattened(), KeyHash(kind), 0, layout)
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

/// Asks for a line that is about to be written: whoever else has it lets go of it.
#[inline(always)]
fn fetch_to_write(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch changes nothing that the program sees, at any address. Processors that do not know it do nothing.
    unsafe {
        std::arch::asm!("prefetchw byte ptr [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
