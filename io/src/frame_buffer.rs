//! The frame buffer: frames in memory of their own.
//!
//! For records that came in pieces, and for feeding a segment without an exchange (tests, benches).

use thalweg_model::{Elem, EncodeScratch, KeyHash, Record, record, rkyv::util::AlignedVec};

use crate::{
    cursor::FrameCursor,
    frame::{FrameLayout, LEN_MASK, PAGE_ALIGN},
};

/// Frames of one layout, end to end, in growing memory.
pub struct FrameBuffer {
    layout: FrameLayout,
    bytes: AlignedVec<PAGE_ALIGN>,
    /// Where the frame begins that is being put together, if one is.
    open: Option<usize>,
}

impl FrameBuffer {
    /// An empty one.
    pub fn new(layout: FrameLayout) -> Self {
        Self { layout, bytes: AlignedVec::new(), open: None }
    }

    /// Appends a record.
    ///
    /// # Panics
    /// Where the type needs more alignment than the layout gives, or the record more than 256 MiB.
    pub fn push<T: Record>(&mut self, elem: &Elem<'_, T>, hash: KeyHash) {
        assert!(T::ALIGN <= self.layout.align(), "the buffer was laid out for another record type");
        let encoded = record::encode_large::<T>(elem.view, LEN_MASK as usize, &mut EncodeScratch::default());
        let encoded = encoded.expect("a record is below 256 MiB");
        self.extend_open_frame(&encoded);
        self.close_frame(hash, elem.timestamp);
    }

    /// Appends a record by its archived bytes.
    ///
    /// # Panics
    /// Where they are 256 MiB or more.
    pub fn push_encoded(&mut self, payload: &[u8], hash: KeyHash, timestamp: i64) {
        self.extend_open_frame(payload);
        self.close_frame(hash, timestamp);
    }

    /// A cursor over the frames from a position on, which another cursor has come to.
    ///
    /// # Panics
    /// Where that is beyond the end.
    pub fn cursor_from(&self, position: usize) -> FrameCursor<'_> {
        let whole = self.open.unwrap_or(self.bytes.len());
        // SAFETY: up to `whole` there are frames of this layout; a cursor stops between two of them.
        unsafe { FrameCursor::new(&self.bytes[position..whole], self.layout) }
    }

    /// Bytes of all frames.
    pub fn len(&self) -> usize {
        self.open.unwrap_or(self.bytes.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frames.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len()]
    }

    /// The payload so far of the frame that is being put together.
    pub(crate) fn open_payload(&self) -> &[u8] {
        self.open.map_or(&[], |start| &self.bytes[start + self.layout.header_bytes()..])
    }

    /// Removes all frames and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.open = None;
    }

    /// A cursor over all frames.
    pub fn cursor(&self) -> FrameCursor<'_> {
        let whole = self.open.unwrap_or(self.bytes.len());
        // SAFETY: up to `whole` there are frames of this layout, the first aligned to 64 bytes.
        unsafe { FrameCursor::new(&self.bytes[..whole], self.layout) }
    }

    /// Appends payload to the frame being put together.
    pub(crate) fn extend_open_frame(&mut self, payload: &[u8]) {
        if self.open.is_none() {
            self.open = Some(self.bytes.len());
            self.bytes.resize(self.bytes.len() + self.layout.header_bytes(), 0);
        }
        self.bytes.extend_from_slice(payload);
    }

    /// The frame being put together is whole.
    pub(crate) fn close_frame(&mut self, hash: KeyHash, timestamp: i64) {
        let Some(start) = self.open.take() else { return };
        let len = self.bytes.len() - start - self.layout.header_bytes();
        assert!(len <= LEN_MASK as usize, "a record is below 256 MiB");
        let header = &mut self.bytes[start..];
        header[..4].copy_from_slice(&(len as u32).to_ne_bytes());
        header[4..8].copy_from_slice(&hash.0.to_ne_bytes());
        if self.layout.carries_time() {
            header[8..16].copy_from_slice(&timestamp.to_ne_bytes());
        }
        self.bytes.resize(start + self.layout.stride_bytes(len), 0);
    }
}
