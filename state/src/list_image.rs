//! Snapshots of `ListTable`: lists are read and restored chunk by chunk.
//!
//! A row of the barrier says where its list began and ended and how many elements it had. Appending changes nothing of
//! that: chunks only get longer, and more follow, so that only chunks of lists that are removed need to be kept.

use std::marker::PhantomData;

use thalweg_model::{Record, record::decode_checked};

use crate::{
    ahead::prefetch_block,
    cell::write_fixed,
    image::{Extent, ImageError, ImageIndex, Shape, Structure},
    list::{CHUNK_BYTES, Chunk, Chunks, HEADER_BYTES, Head, ListTable, element_span},
    place::TableConfig,
    restore::{Fill, Input, Restore},
    size_class::block_bytes,
    slab::{Handle, Slab},
    snapshot::{Begun, ImageSink, Progress, SnapshotKind, SnapshotRunning, Snapshots},
    table::RowTable,
    tail::{Piece, Tail, TailState},
};

/// The chunks that the rows of a list table refer to.
struct Lists<'a>(&'a Slab);

/// What [`TailState::index`] says: the length of the piece is next, its bytes, or the end has been marked.
const LENGTH: u32 = 0;
const BYTES: u32 = 1;
const ENDED: u32 = 2;

/// The value of a list table's row.
///
/// # Safety
/// `cell` must be one of a list table, or any bytes aligned as such.
unsafe fn head_of(cell: *const u8) -> Head {
    // SAFETY: as promised by the caller; any bytes are good for numbers.
    Head::view_archived(unsafe { &*cell.cast::<<Head as Record>::Archived>() })
}

impl Tail for Lists<'_> {
    const FOLLOWS: bool = true;

    fn slab(&self) -> Option<&Slab> {
        Some(self.0)
    }

    unsafe fn begin(&self, value: *const u8) -> TailState {
        // SAFETY: as promised by the caller.
        let (unit, last, _) = unsafe { head_of(value) };
        TailState { unit, last, index: LENGTH, ..TailState::default() }
    }

    fn next(&self, state: &mut TailState, _: &Slab, carry: &mut Vec<u8>) -> Piece {
        if state.unit == 0 {
            if state.index == ENDED {
                return Piece::End;
            }
            state.index = ENDED;
            carry.extend_from_slice(&0u32.to_le_bytes());
            return Piece::Carry(1);
        }
        // SAFETY: chunks of lists of the barrier are kept until they have been read.
        let chunk = unsafe { self.0.pointer(state.unit).cast::<Chunk>().read() };
        if state.index == LENGTH {
            // More may be appended before the bytes are read: the length is that of now.
            state.left = chunk.used_bytes;
            state.index = BYTES;
            if state.left > 0 {
                carry.extend_from_slice(&state.left.to_le_bytes());
                return Piece::Carry(1);
            }
        }
        let handle = Handle { unit: state.unit, len: HEADER_BYTES as u32 + state.left };
        state.unit = if state.unit == state.last { 0 } else { chunk.next };
        state.index = LENGTH;
        Piece::Block(handle, HEADER_BYTES)
    }

    #[inline(always)]
    unsafe fn prefetch(&self, _: &Slab, value: *const u8) {
        // SAFETY: as promised by the caller; the chunks of a list of the image are live blocks.
        unsafe {
            let (first, last, _) = head_of(value);
            prefetch_block(self.0.pointer(first), *CHUNK_BYTES.start());
            if last != first {
                // Where a list has more than two, those between are longer than a cache miss takes to read.
                prefetch_block(self.0.pointer(last), *CHUNK_BYTES.start() * 2);
            }
        }
    }
}

impl<K: Record, E: Record> ListTable<K, E> {
    fn shape() -> Shape {
        let mut shape = RowTable::<K, Head>::shape(Structure::Lists);
        shape.inner = [size_of::<E::Archived>() as u32, E::ALIGN as u32, 0, 0, 0];
        shape.fixed |= (E::FIXED as u32) << 3;
        shape
    }
}

impl<K: Record, E: Record> Snapshots for ListTable<K, E> {
    fn begin_snapshot(&mut self, kind: SnapshotKind) -> Result<Begun, SnapshotRunning> {
        let begun = self.rows.begin(kind, Self::shape())?;
        self.chunks.kept.done();
        Ok(begun)
    }

    fn snapshot_step(&mut self, budget_ns: u32, sink: &mut dyn ImageSink) -> Progress {
        let Chunks { kept, slab, .. } = &mut self.chunks;
        if self.rows.is_snapshot_running() {
            let progress = self.rows.step(&Lists(kept.detached.as_ref().unwrap_or(slab)), budget_ns, sink);
            return kept.after_rows(progress);
        }
        kept.release(slab, budget_ns)
    }

    fn abort_snapshot(&mut self) {
        self.rows.abort();
    }

    fn confirm_snapshot(&mut self, epoch: u16) -> bool {
        self.rows.confirm(epoch)
    }

    fn suggested_kind(&self) -> SnapshotKind {
        self.rows.suggested()
    }

    fn is_snapshot_running(&self) -> bool {
        self.rows.is_snapshot_running() || !self.chunks.kept.is_empty()
    }
}

/// Makes lists of what follows rows.
struct FillList<'a, E>(&'a mut Chunks, PhantomData<fn() -> E>);

impl<E: Record> Fill for FillList<'_, E> {
    unsafe fn fill(&mut self, _: &mut Slab, cell: *mut u8, input: &mut Input<'_>) -> Result<(), ImageError> {
        // SAFETY: as promised by the caller.
        let (_, _, count) = unsafe { head_of(cell) };
        let (mut head, mut left) = ((0, 0, count), count);
        loop {
            let len = input.number()? as usize;
            if len == 0 {
                break;
            }
            let bytes = input.take(len)?;
            self.add_chunk(&mut head, bytes, &mut left, input)?;
        }
        if size_of::<E::Archived>() == 0 && E::FIXED && count > 0 {
            // Elements without bytes have a chunk all the same.
            self.add_chunk(&mut head, &[], &mut 0, input)?;
        } else if left > 0 || count == 0 {
            return Err(ImageError::Damaged);
        }
        // SAFETY: as promised by the caller.
        unsafe { write_fixed::<Head>(cell, head) };
        Ok(())
    }

    unsafe fn skip(&mut self, _: *const u8, input: &mut Input<'_>) -> Result<(), ImageError> {
        loop {
            match input.number()? {
                0 => return Ok(()),
                len => input.take(len as usize)?,
            };
        }
    }

    unsafe fn free(&mut self, cell: *const u8) {
        // SAFETY: as promised by the caller, the cell has been filled.
        self.0.free_chain(unsafe { head_of(cell) }.0, false);
    }
}

impl<E: Record> FillList<'_, E> {
    /// Adds a chunk of these bytes to the end of a list, as far as elements are left.
    fn add_chunk(
        &mut self,
        head: &mut Head,
        bytes: &[u8],
        left: &mut u32,
        input: &mut Input<'_>,
    ) -> Result<(), ImageError> {
        let slab = &mut self.0.slab;
        let block = block_bytes(bytes.len() + HEADER_BYTES);
        let room_bytes = u32::try_from(block - HEADER_BYTES).map_err(|_| ImageError::Damaged)?;
        let unit = slab.allocate(block).unit;
        // SAFETY: the block is fresh and has room for a header and the bytes; the last chunk of the list is alive.
        let payload = unsafe {
            let chunk = slab.pointer(unit);
            chunk.cast::<Chunk>().write(Chunk { next: 0, used_bytes: 0, room_bytes });
            chunk.add(HEADER_BYTES).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            if head.1 != 0 {
                (*slab.pointer(head.1).cast::<Chunk>()).next = unit;
            }
            std::slice::from_raw_parts(chunk.add(HEADER_BYTES), bytes.len())
        };
        *head = (if head.0 == 0 { unit } else { head.0 }, unit, head.2);
        let used_bytes = checked_elements::<E>(payload, left, input).ok_or(ImageError::Damaged)? as u32;
        // SAFETY: the chunk is alive, and nobody reads it.
        unsafe { (*slab.pointer(unit).cast::<Chunk>()).used_bytes = used_bytes };
        Ok(())
    }
}

/// Checks the elements of a chunk, up to `left` of them, and answers where the last one ends. `None` if one is not
/// valid, or there is none in bytes that there are.
fn checked_elements<E: Record>(payload: &[u8], left: &mut u32, input: &mut Input<'_>) -> Option<usize> {
    let mut at = 0;
    while at < payload.len() && *left > 0 {
        let len = if E::FIXED {
            size_of::<E::Archived>()
        } else {
            u32::from_le_bytes(payload.get(at..at + size_of::<u32>())?.try_into().ok()?) as usize
        };
        let (begin, end) = element_span::<E>(at, len);
        if end > payload.len() || end == at {
            return None;
        }
        if E::FIXED {
            // SAFETY: elements of a chunk of the slab are aligned, and this one lies in the payload.
            unsafe { input.check_fixed::<E>(payload[begin..].as_ptr()) }.ok()?;
        } else {
            decode_checked::<E>(&payload[begin..begin + len])?;
        }
        at = end;
        *left -= 1;
    }
    (at > 0 || payload.is_empty()).then_some(at)
}

impl<K: Record, E: Record> Restore for ListTable<K, E> {
    fn with_room_for(config: TableConfig, images: &[ImageIndex]) -> Result<Self, ImageError> {
        RowTable::roomy(config, Self::shape(), images).map(Self::with_rows)
    }

    fn take_in(&mut self, image: &ImageIndex, extent: &Extent, bytes: &[u8]) -> Result<(), ImageError> {
        self.rows.take_rows(&mut FillList::<E>(&mut self.chunks, PhantomData), image, extent, bytes)
    }

    fn restored(&mut self, base: Option<u16>, images: &[ImageIndex]) -> Result<(), ImageError> {
        self.rows.take_base(base, images);
        Ok(())
    }
}
