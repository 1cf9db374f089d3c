//! Snapshots of `MapTable`: maps are read and restored entry by entry.

use thalweg_model::Record;

use crate::{
    ahead::prefetch_block,
    cell::{Cells, write_fixed},
    home::Homes,
    image::{Extent, ImageError, ImageIndex, Shape, Structure},
    map::{Entries, Head, MIN_ROWS_LOG2, MapTable, tag_of},
    place::TableConfig,
    restore::{Fill, Input, Restore, Scratch, fill_cell, skip_cell},
    row::{Layout, RowHeader, Rows},
    slab::Slab,
    snapshot::{Begun, ImageSink, Progress, SnapshotKind, SnapshotRunning, Snapshots},
    table::RowTable,
    tail::{Piece, Tail, TailState},
};

/// Rows that are looked at in one go for the next entries.
const ROWS_AT_ONCE: u32 = 64;

/// The entries that the rows of a map table refer to.
struct Maps<'a, UK, UV>(&'a Slab, std::marker::PhantomData<fn() -> (UK, UV)>);

/// The value of a map table's row.
///
/// # Safety
/// `cell` must be one of a map table, or any bytes aligned as such.
unsafe fn head_of(cell: *const u8) -> Head {
    // SAFETY: as promised by the caller; any bytes are good for numbers.
    Head::view_archived(unsafe { &*cell.cast::<<Head as Record>::Archived>() })
}

impl<UK: Record, UV: Record> Tail for Maps<'_, UK, UV> {
    const FOLLOWS: bool = true;

    fn slab(&self) -> Option<&Slab> {
        Some(self.0)
    }

    unsafe fn begin(&self, value: *const u8) -> TailState {
        // SAFETY: as promised by the caller.
        let (unit, left, _, rows_log2) = unsafe { head_of(value) };
        TailState { unit, left, rows_log2, ..TailState::default() }
    }

    fn next(&self, state: &mut TailState, _: &Slab, carry: &mut Vec<u8>) -> Piece {
        if let Some(block) = state.blocks.iter_mut().find_map(Option::take) {
            return Piece::Block(block, 0);
        }
        if state.left == 0 {
            return Piece::End;
        }
        let begin = state.index;
        // SAFETY: blocks of maps of the barrier are kept as they were until they have been read.
        unsafe {
            let rows = Rows::<UK, UV>::new(self.0.pointer(state.unit), 32 - state.rows_log2 as u32);
            let end = (begin + ROWS_AT_ONCE).min(rows.count());
            while state.index < end {
                let index = state.index;
                state.index += 1;
                if rows.is_occupied(index) {
                    let row = rows.row(index);
                    carry.extend_from_slice(std::slice::from_raw_parts(row, Layout::<UK, UV>::BYTES));
                    state.left -= 1;
                    if UK::FIXED && UV::FIXED {
                        continue;
                    }
                    state.blocks = [
                        Cells::handle::<UK>(row.add(Layout::<UK, UV>::KEY_AT)),
                        Cells::handle::<UV>(row.add(Layout::<UK, UV>::VALUE_AT)),
                    ];
                    break;
                }
            }
        }
        Piece::Carry(state.index - begin)
    }

    #[inline(always)]
    unsafe fn prefetch(&self, _: &Slab, value: *const u8) {
        // SAFETY: as promised by the caller; the block of a map of the image is a live one.
        unsafe {
            let (unit, _, _, rows_log2) = head_of(value);
            prefetch_block(self.0.pointer(unit), Layout::<UK, UV>::BYTES << rows_log2);
        }
    }
}

impl<K: Record, UK: Record, UV: Record> MapTable<K, UK, UV> {
    fn shape() -> Shape {
        let mut shape = RowTable::<K, Head>::shape(Structure::Maps);
        shape.inner = Layout::<UK, UV>::SHAPE;
        shape.fixed |= (UK::FIXED as u32) << 2 | (UV::FIXED as u32) << 3;
        shape
    }
}

impl<K: Record, UK: Record, UV: Record> Snapshots for MapTable<K, UK, UV> {
    fn begin_snapshot(&mut self, kind: SnapshotKind) -> Result<Begun, SnapshotRunning> {
        let begun = self.rows.begin(kind, Self::shape())?;
        self.entries.kept.done();
        Ok(begun)
    }

    fn snapshot_step(&mut self, budget_ns: u32, sink: &mut dyn ImageSink) -> Progress {
        let Entries { kept, cells, .. } = &mut self.entries;
        if self.rows.is_snapshot_running() {
            let slab = kept.detached.as_ref().unwrap_or(&cells.slab);
            let progress = self.rows.step(&Maps::<UK, UV>(slab, std::marker::PhantomData), budget_ns, sink);
            return kept.after_rows(progress);
        }
        kept.release(&mut cells.slab, budget_ns)
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
        self.rows.is_snapshot_running() || !self.entries.kept.is_empty()
    }
}

/// Makes maps of what follows rows.
struct FillMap<'a, UK, UV> {
    entries: &'a mut Entries<UK, UV>,
    scratch: Scratch,
}

impl<UK: Record, UV: Record> FillMap<'_, UK, UV> {
    fn entry<'i>(&mut self, input: &mut Input<'i>) -> Result<(*mut u8, RowHeader), ImageError> {
        let row = self.scratch.hold(input.take(Layout::<UK, UV>::BYTES)?);
        // SAFETY: a row begins with a header, which is good with any bytes.
        Ok((row, unsafe { row.cast::<RowHeader>().read() }))
    }
}

impl<UK: Record, UV: Record> Fill for FillMap<'_, UK, UV> {
    unsafe fn fill(&mut self, _: &mut Slab, cell: *mut u8, input: &mut Input<'_>) -> Result<(), ImageError> {
        // SAFETY: as promised by the caller.
        let (_, count, _, _) = unsafe { head_of(cell) };
        if count == 0 || count as usize > input.bytes.len() / Layout::<UK, UV>::BYTES {
            return Err(ImageError::Damaged);
        }
        let mut rows_log2 = MIN_ROWS_LOG2;
        while count as u64 * 4 > 3 << rows_log2 {
            rows_log2 += 1;
        }
        let head = (self.entries.new_block(rows_log2), count, count, rows_log2);
        for _ in 0..count {
            let (row, header) = self.entry(input)?;
            let cells = &mut self.entries.cells;
            // SAFETY: the scratch holds a row's bytes, aligned; there is room for it in the block.
            unsafe {
                let key = row.add(Layout::<UK, UV>::KEY_AT);
                fill_cell::<UK>(&mut cells.slab, key, input)?;
                fill_cell::<UV>(&mut cells.slab, row.add(Layout::<UK, UV>::VALUE_AT), input)?;
                let tag = tag_of::<UK>(cells.view::<UK>(key));
                if tag != header.tag {
                    return Err(ImageError::Damaged);
                }
                let to = self.entries.rows(&head).vacant(Homes::EVERY_ROW, tag);
                to.copy_from_nonoverlapping(row, Layout::<UK, UV>::BYTES);
                to.cast::<RowHeader>().write(RowHeader::new(tag, 1, 0));
            }
        }
        // SAFETY: as promised by the caller.
        unsafe { write_fixed::<Head>(cell, head) };
        Ok(())
    }

    unsafe fn skip(&mut self, cell: *const u8, input: &mut Input<'_>) -> Result<(), ImageError> {
        // SAFETY: as promised by the caller.
        let (_, count, _, _) = unsafe { head_of(cell) };
        for _ in 0..count {
            let (row, _) = self.entry(input)?;
            // SAFETY: the scratch holds a row's bytes, aligned.
            unsafe {
                skip_cell::<UK>(row.add(Layout::<UK, UV>::KEY_AT), input)?;
                skip_cell::<UV>(row.add(Layout::<UK, UV>::VALUE_AT), input)?;
            }
        }
        Ok(())
    }

    unsafe fn free(&mut self, cell: *const u8) {
        // SAFETY: as promised by the caller, the cell has been filled.
        self.entries.free_map(unsafe { head_of(cell) }, false);
    }
}

impl<K: Record, UK: Record, UV: Record> Restore for MapTable<K, UK, UV> {
    fn with_room_for(config: TableConfig, images: &[ImageIndex]) -> Result<Self, ImageError> {
        RowTable::roomy(config, Self::shape(), images).map(Self::with_rows)
    }

    fn take_in(&mut self, image: &ImageIndex, extent: &Extent, bytes: &[u8]) -> Result<(), ImageError> {
        let scratch = Scratch::new(Layout::<UK, UV>::BYTES);
        let mut fill = FillMap { entries: &mut self.entries, scratch };
        self.rows.take_rows(&mut fill, image, extent, bytes)
    }

    fn restored(&mut self, base: Option<u16>, images: &[ImageIndex]) -> Result<(), ImageError> {
        self.rows.take_base(base, images);
        Ok(())
    }
}
