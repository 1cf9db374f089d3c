//! The frame: how one record or control element lies in a page.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | length of the payload; the top four bits are the kind (0 record, 1 control, 2 fragment, 3 last fragment) |
//! | 4..8 | key hash; of a control element its kind |
//! | 8..16 | timestamp in milliseconds, where the edge carries time |
//! | from `header_bytes` | the payload |
//!
//! Native byte order: frames between our own cores never leave the process. A frame begins at a multiple of
//! `align`, and so does its payload.

use thalweg_model::Record;

/// Bits of the first word that hold the payload's length.
pub(crate) const LEN_BITS: u32 = 28;
/// The first word of a control frame, of a fragment and of the last fragment of a record: the kind, without the length.
pub(crate) const CONTROL: u32 = 1 << LEN_BITS;
pub(crate) const FRAGMENT: u32 = 2 << LEN_BITS;
pub(crate) const LAST_FRAGMENT: u32 = 3 << LEN_BITS;
/// The length in the first word.
pub(crate) const LEN_MASK: u32 = (1 << LEN_BITS) - 1;
/// The alignment of a page: no frame can ask for more.
pub(crate) const PAGE_ALIGN: usize = 64;

/// What both ends of an edge must agree on about its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLayout {
    align: u32,
    header_bytes: u32,
    carries_time: bool,
}

impl FrameLayout {
    /// The layout for records of type `T`.
    ///
    /// # Panics
    /// Where `T` needs an alignment above 64 bytes.
    pub const fn of<T: Record>(carries_time: bool) -> Self {
        Self::new(T::ALIGN, carries_time)
    }

    /// The layout for records that need `record_align` bytes of alignment.
    ///
    /// # Panics
    /// Where `record_align` is not a power of two, or above 64.
    pub const fn new(record_align: usize, carries_time: bool) -> Self {
        assert!(record_align.is_power_of_two() && record_align <= PAGE_ALIGN, "pages are aligned to 64 bytes");
        let align = if record_align < 8 { 8 } else { record_align };
        let header: usize = if carries_time { 16 } else { 8 };
        Self { align: align as u32, header_bytes: header.next_multiple_of(align) as u32, carries_time }
    }

    /// The same layout, with what the record type decides known to the compiler.
    ///
    /// # Panics
    /// Where it was made for another type's alignment.
    #[inline(always)]
    pub(crate) const fn known<T: Record>(self) -> Self {
        let known = Self::of::<T>(self.carries_time);
        assert!(known.align == self.align, "the edge was laid out for another record type");
        known
    }

    /// # Panics
    /// Where it was made for another type's alignment.
    #[inline(always)]
    pub(crate) const fn assert_is_for<T: Record>(self) {
        let _ = self.known::<T>();
    }

    /// The alignment of frames and payloads, in bytes.
    #[inline(always)]
    pub const fn align(&self) -> usize {
        self.align as usize
    }

    /// From the start of a frame to its payload, in bytes.
    #[inline(always)]
    pub const fn header_bytes(&self) -> usize {
        self.header_bytes as usize
    }

    /// Whether frames hold a timestamp.
    #[inline(always)]
    pub const fn carries_time(&self) -> bool {
        self.carries_time
    }

    /// From the start of a frame to the start of the next, in bytes.
    #[inline(always)]
    pub const fn stride_bytes(&self, payload_bytes: usize) -> usize {
        let mask = self.align as usize - 1;
        (self.header_bytes as usize + payload_bytes + mask) & !mask
    }

    /// The smallest page that this layout can work with: one control frame.
    pub const fn min_page_bytes(&self) -> usize {
        self.stride_bytes(crate::control::CONTROL_BYTES)
    }
}
