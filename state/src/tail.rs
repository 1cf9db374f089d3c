//! What an image has after a row and its key: the value's bytes, or the elements or entries that the value refers to.

use std::marker::PhantomData;

use thalweg_model::Record;

use crate::{
    ahead::prefetch_block,
    cell::Cells,
    slab::{Handle, Slab},
};

/// How to read what the values of a table refer to. Unsafe code here trusts that the cells are those of the image.
pub(crate) trait Tail {
    /// Whether anything follows a row at all.
    const FOLLOWS: bool;

    /// The slab that blocks are of, unless it is the table's own.
    fn slab(&self) -> Option<&Slab>;

    /// The begin of what follows a row with this value.
    ///
    /// # Safety
    /// `value` must be the value's cell of a row of the image.
    unsafe fn begin(&self, value: *const u8) -> TailState;

    /// The block that is all that follows a row with this value, if it is just one.
    ///
    /// # Safety
    /// As for [`Self::begin`].
    unsafe fn only_block(&self, _: *const u8) -> Option<Handle> {
        None
    }

    /// The next piece; what answers `Carry` has been appended to `carry`.
    fn next(&self, state: &mut TailState, own: &Slab, carry: &mut Vec<u8>) -> Piece;

    /// Fetches what will be read first.
    ///
    /// # Safety
    /// As for [`Self::begin`].
    unsafe fn prefetch(&self, own: &Slab, value: *const u8);
}

/// Where in a row's tail the reading stands; what the numbers mean is the tail's matter.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TailState {
    pub(crate) unit: u32,
    pub(crate) last: u32,
    pub(crate) index: u32,
    pub(crate) left: u32,
    pub(crate) rows_log2: u8,
    pub(crate) blocks: [Option<Handle>; 2],
}

/// What comes next.
pub(crate) enum Piece {
    /// The bytes that have been appended to the carry, of so many rows that were looked at.
    Carry(u32),
    /// The bytes of a block, from there on.
    Block(Handle, usize),
    /// Nothing.
    End,
}

/// The values of a `RowTable`.
pub(crate) struct Values<V>(PhantomData<fn() -> V>);

impl<V> Values<V> {
    pub(crate) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<V: Record> Tail for Values<V> {
    const FOLLOWS: bool = !V::FIXED;

    fn slab(&self) -> Option<&Slab> {
        None
    }

    unsafe fn begin(&self, value: *const u8) -> TailState {
        // SAFETY: as promised by the caller.
        TailState { blocks: [unsafe { Cells::handle::<V>(value) }, None], ..TailState::default() }
    }

    #[inline(always)]
    unsafe fn only_block(&self, value: *const u8) -> Option<Handle> {
        // SAFETY: as promised by the caller.
        unsafe { Cells::handle::<V>(value) }
    }

    fn next(&self, state: &mut TailState, _: &Slab, _: &mut Vec<u8>) -> Piece {
        state.blocks[0].take().map_or(Piece::End, |block| Piece::Block(block, 0))
    }

    #[inline(always)]
    unsafe fn prefetch(&self, own: &Slab, value: *const u8) {
        // SAFETY: as promised by the caller; the handle of a row of the image is of a live block.
        unsafe {
            if let Some(handle) = Cells::handle::<V>(value) {
                prefetch_block(own.pointer(handle.unit), handle.len as usize);
            }
        }
    }
}
