//! A cell: a key or a value within a row.
//!
//! A record of fixed size lies in its cell in archived form. Any other lies in the slab, and the cell holds the handle.

use std::mem::MaybeUninit;

use rkyv::util::AlignedVec;
use thalweg_model::{EncodeScratch, Record, record};

use crate::slab::{Handle, Slab};

/// Bytes of a cell for `T`.
pub(crate) const fn cell_bytes<T: Record>() -> usize {
    if T::FIXED { size_of::<T::Archived>() } else { size_of::<u64>() }
}

/// Alignment of a cell for `T`.
pub(crate) const fn cell_align<T: Record>() -> usize {
    if T::FIXED { align_of::<T::Archived>() } else { align_of::<u64>() }
}

/// The slab that a table's cells refer to, and what writing to it needs.
pub(crate) struct Cells {
    pub(crate) slab: Slab,
    encoder: Encoder,
}

impl Cells {
    pub(crate) const fn new() -> Self {
        Self { slab: Slab::new(), encoder: Encoder::new() }
    }

    /// Memory held, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.slab.held_bytes() + self.encoder.held_bytes()
    }

    /// What a cell holds.
    ///
    /// # Safety
    /// `cell` must have been written by this value for the same `T`, and not been freed.
    #[inline(always)]
    pub(crate) unsafe fn view<T: Record>(&self, cell: *const u8) -> T::View<'_> {
        // SAFETY: as promised by the caller. A fixed cell holds the archived value; any other the handle of bytes that
        // `encode` wrote, in a block aligned to 16, which is at least `T::ALIGN`.
        unsafe {
            if T::FIXED {
                T::view_archived(&*cell.cast::<T::Archived>())
            } else {
                record::decode_unchecked::<T>(self.slab.read(Handle::from_bits(cell.cast::<u64>().read())))
            }
        }
    }

    /// Writes a cell that holds nothing.
    ///
    /// # Safety
    /// `cell` must be a cell for `T`, valid for writing, that nobody is reading.
    #[inline(always)]
    pub(crate) unsafe fn init<T: Record>(&mut self, cell: *mut u8, view: T::View<'_>) {
        // SAFETY: as promised by the caller.
        unsafe {
            if T::FIXED {
                write_fixed::<T>(cell, view);
            } else {
                let Self { slab, encoder } = self;
                let handle = slab.store(encoder.encode::<T>(view));
                cell.cast::<u64>().write(handle.to_bits());
            }
        }
    }

    /// Writes a cell that holds something of the same type.
    ///
    /// # Safety
    /// As for [`Self::view`] and [`Self::init`].
    #[inline(always)]
    pub(crate) unsafe fn replace<T: Record>(&mut self, cell: *mut u8, view: T::View<'_>) {
        // SAFETY: as promised by the caller.
        unsafe {
            if T::FIXED {
                write_fixed::<T>(cell, view);
            } else {
                let Self { slab, encoder } = self;
                let old = Handle::from_bits(cell.cast::<u64>().read());
                let handle = slab.replace(old, encoder.encode::<T>(view));
                cell.cast::<u64>().write(handle.to_bits());
            }
        }
    }

    /// Writes a cell that holds something of the same type, whose block is kept. Answers that.
    ///
    /// # Safety
    /// As for [`Self::replace`].
    pub(crate) unsafe fn replace_keeping<T: Record>(&mut self, cell: *mut u8, view: T::View<'_>) -> Option<Handle> {
        // SAFETY: as promised by the caller.
        unsafe {
            let old = Self::handle::<T>(cell);
            self.init::<T>(cell, view);
            old
        }
    }

    /// The block that a cell refers to, if its type is of variable length.
    ///
    /// # Safety
    /// `cell` must be one for `T` that holds something.
    #[inline(always)]
    pub(crate) unsafe fn handle<T: Record>(cell: *const u8) -> Option<Handle> {
        // SAFETY: as promised by the caller.
        (!T::FIXED).then(|| Handle::from_bits(unsafe { cell.cast::<u64>().read() }))
    }

    /// Frees what a cell refers to.
    ///
    /// # Safety
    /// As for [`Self::view`]; the cell holds nothing afterwards.
    #[inline(always)]
    pub(crate) unsafe fn free<T: Record>(&mut self, cell: *mut u8) {
        if !T::FIXED {
            // SAFETY: as promised by the caller.
            unsafe { self.slab.free(Handle::from_bits(cell.cast::<u64>().read())) };
        }
    }
}

/// Writes the archived value of a fixed record, padding zeroed.
///
/// # Safety
/// `cell` must be valid for writing and aligned for `T::Archived`.
#[inline(always)]
pub(crate) unsafe fn write_fixed<T: Record>(cell: *mut u8, view: T::View<'_>) {
    // SAFETY: as promised by the caller.
    unsafe { record::encode_fixed::<T>(view, cell.cast()) };
}

/// Where records of variable length are encoded before they are copied to a slab. Takes no memory until it is used.
pub(crate) struct Encoder(Option<Box<EncoderRoom>>);

struct EncoderRoom {
    room: AlignedVec<16>,
    scratch: EncodeScratch,
}

/// What a record has out of line.
#[derive(Clone, Copy)]
pub(crate) enum Encoded<'a> {
    /// Nothing: it is of fixed size.
    Fixed,
    /// All of it.
    Variable(&'a [u8]),
}

impl Default for EncoderRoom {
    fn default() -> Self {
        let mut room = AlignedVec::new();
        room.resize(256, 0);
        Self { room, scratch: EncodeScratch::default() }
    }
}

impl Encoder {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// Memory held, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |room| room.room.capacity())
    }

    /// The bytes of a record unless it is of fixed size, valid until the next call.
    #[inline(always)]
    pub(crate) fn encode_if_variable<T: Record>(&mut self, view: T::View<'_>) -> Encoded<'_> {
        if T::FIXED { Encoded::Fixed } else { Encoded::Variable(self.encode::<T>(view)) }
    }

    /// The bytes of a record, valid until the next call.
    pub(crate) fn encode<T: Record>(&mut self, view: T::View<'_>) -> &[u8] {
        let EncoderRoom { room, scratch } = &mut **self.0.get_or_insert_default();
        loop {
            // SAFETY: initialised bytes may be seen as uninitialised ones, and `encode` writes only initialised ones.
            let bytes = unsafe { &mut *(std::ptr::from_mut(&mut room[..]) as *mut [MaybeUninit<u8>]) };
            if let Some(len) = record::encode::<T>(view, bytes, scratch) {
                return &room[..len];
            }
            let wanted = room.len() * 2;
            assert!(wanted <= 8 << 30, "a single value of keyed state must be smaller than 4 GiB");
            room.resize(wanted, 0);
        }
    }
}
