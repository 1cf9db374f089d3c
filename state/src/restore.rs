//! Restoring tables from images: any number of them, any range of key groups.
//!
//! The directory is made to measure from what the images say of their key groups. Rows come by position, so that each
//! is put in its place in a segment that is in the cache; no key is hashed again or compared, but in increments.
//! Everything is checked that could make the table unsound or that says to which group a row belongs.

use rkyv::{
    bytecheck::CheckBytes,
    rancor::{Failure, Strategy},
    validation::{Validator, archive::ArchiveValidator, shared::SharedValidator},
};
use thalweg_model::{KeyGroup, KeyGroupRange, KeyHash, Record, record::decode_checked};

use crate::{
    cell::Cells,
    image::{Extent, ImageError, ImageIndex, Shape, Structure},
    order::Order,
    place::{Salt, TableConfig},
    room::Estimate,
    row::{Layout, RowHeader},
    segment::MIN_ROWS_LOG2,
    slab::{Handle, Slab},
    table::RowTable,
};

/// A table that can be restored from images.
pub trait Restore: Sized {
    /// An empty table with room for what the images hold, which must be of such a table.
    #[doc(hidden)]
    fn with_room_for(config: TableConfig, images: &[ImageIndex]) -> Result<Self, ImageError>;
    /// Takes the rows of an extent in that are of the table's range.
    #[doc(hidden)]
    fn take_in(&mut self, image: &ImageIndex, extent: &Extent, bytes: &[u8]) -> Result<(), ImageError>;
    /// Ends the restoring. With `base`, these images are all of the table, and a next increment may go on from them.
    #[doc(hidden)]
    fn restored(&mut self, base: Option<u16>, images: &[ImageIndex]) -> Result<(), ImageError>;
}

/// A table that is being restored, extent by extent.
///
/// The images must come in this order: a full one, the increments that go on from it, the next full one, and so on; as
/// many full ones as there were subtasks whose key groups overlap the range.
pub struct Restorer<T> {
    table: T,
    range: KeyGroupRange,
    order: Order,
}

impl<T: Restore> Restorer<T> {
    /// Begins to restore a table.
    ///
    /// # Errors
    /// Where the images are of other types or of another number of key groups, or an increment does not go on from the
    /// image before it.
    pub fn new(config: TableConfig, images: Vec<ImageIndex>) -> Result<Self, ImageError> {
        let order = Order::new(&config, images)?;
        let table = T::with_room_for(config, &order.images)?;
        Ok(Self { table, range: config.range, order })
    }

    /// The image and the extent whose bytes are wanted next, `None` when all have been given. Extents without rows of
    /// the table's range are left out.
    pub fn wanted(&mut self) -> Option<(usize, Extent)> {
        self.order.wanted()
    }

    /// Takes the bytes of the extent in that is wanted.
    ///
    /// # Errors
    /// Where they are damaged.
    ///
    /// # Panics
    /// Where nothing is wanted.
    pub fn give(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        let (image, extent) = self.order.pass(bytes)?;
        self.table.take_in(image, &extent, bytes)
    }

    /// The table.
    ///
    /// # Errors
    /// Where what was taken in does not fit together.
    ///
    /// # Panics
    /// Where an extent is still wanted.
    pub fn finish(mut self) -> Result<T, ImageError> {
        assert!(self.wanted().is_none(), "every extent that is wanted must be given first");
        let images = &self.order.images;
        let full = images.iter().filter(|image| image.base().is_none()).count();
        let same = full == 1 && images.iter().all(|image| image.range() == self.range);
        let base = images.last().filter(|_| same).map(ImageIndex::epoch);
        self.table.restored(base, images)?;
        Ok(self.table)
    }
}

/// Restores a table from images in memory, in the order that [`Restorer`] wants.
///
/// # Errors
/// Those of [`ImageIndex::of`] and of [`Restorer`].
pub fn restore<T: Restore>(config: TableConfig, images: &[&[u8]]) -> Result<T, ImageError> {
    let indexes = images.iter().map(|image| ImageIndex::of(image)).collect::<Result<_, _>>()?;
    let mut restorer = Restorer::<T>::new(config, indexes)?;
    while let Some((image, extent)) = restorer.wanted() {
        let begin = extent.offset as usize;
        restorer.give(&images[image][begin..begin + extent.bytes as usize])?;
    }
    restorer.finish()
}

/// Bytes of an extent that have not been read yet.
pub(crate) struct Input<'a> {
    pub(crate) bytes: &'a [u8],
    /// For records of fixed size, which refer to nothing: made once, since making it costs more than most checks.
    validator: Validator<ArchiveValidator<'static>, SharedValidator>,
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, validator: Validator::new(ArchiveValidator::new(&[]), SharedValidator::new()) }
    }

    /// Checks a record of fixed size.
    ///
    /// # Safety
    /// `archived` must be aligned and valid for reading, its bytes initialised.
    #[inline(always)]
    pub(crate) unsafe fn check_fixed<T: Record>(&mut self, archived: *const u8) -> Result<(), ImageError> {
        // SAFETY: as promised by the caller.
        let checked =
            unsafe { T::Archived::check_bytes(archived.cast(), Strategy::<_, Failure>::wrap(&mut self.validator)) };
        checked.map_err(|_| ImageError::Damaged)
    }

    /// The next bytes.
    #[inline(always)]
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], ImageError> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(ImageError::Damaged)?;
        self.bytes = rest;
        Ok(taken)
    }

    /// The next four bytes as a number.
    pub(crate) fn number(&mut self) -> Result<u32, ImageError> {
        self.take(4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

/// Reads what follows a row.
pub(crate) trait Fill {
    /// Reads what follows a row whose value's cell has the bytes of the image, and makes the cell refer to it.
    ///
    /// # Safety
    /// `cell` must be aligned for the value and valid for reading and writing it. After an error it holds nothing.
    unsafe fn fill(&mut self, own: &mut Slab, cell: *mut u8, input: &mut Input<'_>) -> Result<(), ImageError>;

    /// As [`Self::fill`], for a row that is not wanted.
    ///
    /// # Safety
    /// As for [`Self::fill`].
    unsafe fn skip(&mut self, cell: *const u8, input: &mut Input<'_>) -> Result<(), ImageError>;

    /// Frees what the value of a row refers to outside of its table.
    ///
    /// # Safety
    /// `cell` must have been filled, and its row be removed next.
    unsafe fn free(&mut self, cell: *const u8);
}

/// Reads a cell of an image: checks it if it is of fixed size, else reads its bytes and makes it refer to them.
///
/// # Safety
/// `cell` must be aligned for the cell of a `T` and valid for reading and writing it.
#[inline(always)]
pub(crate) unsafe fn fill_cell<T: Record>(
    slab: &mut Slab,
    cell: *mut u8,
    input: &mut Input<'_>,
) -> Result<(), ImageError> {
    // SAFETY: as promised by the caller.
    unsafe {
        if T::FIXED {
            return input.check_fixed::<T>(cell);
        }
        let len = Handle::from_bits(cell.cast::<u64>().read()).len as usize;
        let handle = slab.store(input.take(len)?);
        cell.cast::<u64>().write(handle.to_bits());
        decode_checked::<T>(slab.read(handle)).map(drop).ok_or(ImageError::Damaged)
    }
}

/// As [`fill_cell`], for a row that is not wanted.
///
/// # Safety
/// As for [`fill_cell`], reading only.
pub(crate) unsafe fn skip_cell<T: Record>(cell: *const u8, input: &mut Input<'_>) -> Result<(), ImageError> {
    // SAFETY: as promised by the caller.
    if let Some(handle) = unsafe { Cells::handle::<T>(cell) } {
        input.take(handle.len as usize)?;
    }
    Ok(())
}

/// One row, aligned, outside of any table.
pub(crate) struct Scratch(Vec<u128>);

impl Scratch {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(vec![0; bytes.div_ceil(size_of::<u128>()).max(1)])
    }

    /// Copies a row's bytes here, and answers where they are.
    #[inline(always)]
    pub(crate) fn hold(&mut self, bytes: &[u8]) -> *mut u8 {
        assert!(bytes.len() <= self.0.len() * size_of::<u128>());
        let to = self.0.as_mut_ptr().cast::<u8>();
        // SAFETY: there is room for the bytes, and plain bytes make a number.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        to
    }
}

impl<K: Record, V: Record, S: Salt<K>> RowTable<K, V, S> {
    /// How the rows of such a table are laid out.
    pub(crate) fn shape(structure: Structure) -> Shape {
        Shape { structure, row: Layout::<K, V>::SHAPE, inner: [0; 5], fixed: K::FIXED as u32 | (V::FIXED as u32) << 1 }
    }

    /// An empty table with room for the rows of the images, which must have that shape.
    pub(crate) fn roomy(config: TableConfig, shape: Shape, images: &[ImageIndex]) -> Result<Self, ImageError> {
        if images.iter().any(|image| image.header.shape != shape) {
            return Err(ImageError::OtherType);
        }
        let mut table = Self::new(config);
        // What is restored was written in the epoch before that of the last image, see `take_base`.
        table.epoch = images.last().map_or(0, |last| last.epoch().wrapping_sub(1));
        let groups = Estimate::of(config.range, images);
        if groups.total() * 2.0 > f64::from(1 << MIN_ROWS_LOG2) {
            table.make_directory(&groups);
        }
        Ok(table)
    }

    /// Ends the restoring: the next epoch begins.
    pub(crate) fn take_base(&mut self, base: Option<u16>, images: &[ImageIndex]) {
        self.epoch = self.epoch.wrapping_add(1);
        let bytes_of = |image: &ImageIndex| image.extents().iter().map(|extent| extent.bytes).sum::<u64>();
        let bytes =
            |increments: bool| images.iter().filter(|one| one.base().is_some() == increments).map(bytes_of).sum();
        self.watch_restored(base, bytes(false), bytes(true));
    }

    /// Takes the rows of an extent in that are of the table's range.
    pub(crate) fn take_rows<F: Fill>(
        &mut self,
        fill: &mut F,
        image: &ImageIndex,
        extent: &Extent,
        bytes: &[u8],
    ) -> Result<(), ImageError> {
        let mut input = Input::new(bytes);
        let mut scratch = Scratch::new(Layout::<K, V>::BYTES);
        for _ in 0..extent.rows {
            let row = scratch.hold(input.take(Layout::<K, V>::BYTES)?);
            // SAFETY: the scratch holds a row's bytes, aligned.
            unsafe { self.take_row(fill, row, image, extent, &mut input)? };
        }
        if input.bytes.is_empty() { Ok(()) } else { Err(ImageError::Damaged) }
    }

    /// # Safety
    /// `row` must be the bytes of a row of an image, aligned, valid for reading and writing.
    #[inline(always)]
    unsafe fn take_row<F: Fill>(
        &mut self,
        fill: &mut F,
        row: *mut u8,
        image: &ImageIndex,
        extent: &Extent,
        input: &mut Input<'_>,
    ) -> Result<(), ImageError> {
        // SAFETY: as promised by the caller; a header is good with any bytes. Cells are used after they were filled.
        unsafe {
            let (header, key_cell, cell) =
                (row.cast::<RowHeader>().read(), row.add(Layout::<K, V>::KEY_AT), row.add(Layout::<K, V>::VALUE_AT));
            let group = KeyGroup(header.group() as u16);
            if !extent.groups.contains(group) || (!header.is_occupied() && image.base().is_none()) {
                return Err(ImageError::Damaged);
            }
            if !self.watch.config.range.contains(group) {
                skip_cell::<K>(key_cell, input)?;
                return if header.is_occupied() { fill.skip(cell, input) } else { Ok(()) };
            }
            fill_cell::<K>(&mut self.cells.slab, key_cell, input)?;
            let key = self.cells.view::<K>(key_cell);
            let hash = KeyHash(header.tag ^ S::salt(key));
            if self.placer.group(hash) != group.0 as u32 {
                return Err(ImageError::Damaged);
            }
            if image.base().is_some() {
                self.take_out(fill, hash, key_cell);
            }
            if header.is_occupied() {
                fill.fill(&mut self.cells.slab, cell, input)?;
                self.put_row(row, header);
            } else {
                self.cells.free::<K>(key_cell);
            }
        }
        Ok(())
    }

    /// Removes the row of a key, if there is one.
    ///
    /// # Safety
    /// `key_cell` must hold a key that the table's cells made.
    unsafe fn take_out<F: Fill>(&mut self, fill: &mut F, hash: KeyHash, key_cell: *const u8) {
        // SAFETY: as promised by the caller; the row exists and is removed next.
        unsafe {
            let spot = self.placer.spot(hash, S::salt(self.cells.view::<K>(key_cell)));
            let segment = self.segment(&spot);
            let found = self.find(segment, spot.tag, self.cells.view::<K>(key_cell));
            if found.exists {
                fill.free(found.row.add(Layout::<K, V>::VALUE_AT));
                self.remove_found(segment, found);
                // There may be an empty row in the run now.
                (*segment.header()).run = (0, 0);
            }
        }
    }

    /// Puts a row in its place.
    ///
    /// # Safety
    /// `row` must be a row whose cells this table's cells have made.
    #[inline(always)]
    unsafe fn put_row(&mut self, row: *const u8, header: RowHeader) {
        let position = self.placer.position(header.tag, header.group());
        // SAFETY: the directory's segments are alive; the row is empty and in the segment of its position.
        unsafe {
            let index = (position >> self.shift) as usize;
            let mut segment = self.directory[index];
            if (*segment.header()).used >= segment.limit() {
                segment = self.make_room(position);
            }
            let to = segment.rows::<K, V>().vacant_in_order(self.homes, header.tag, &mut (*segment.header()).run);
            to.copy_from_nonoverlapping(row, Layout::<K, V>::BYTES);
            to.cast::<RowHeader>().write(RowHeader::new(header.tag, self.epoch, header.group()));
            (*segment.header()).used += 1;
            (*segment.header()).live += 1;
        }
        self.live += 1;
    }
}

/// Fills the values of a `RowTable`.
pub(crate) struct FillValue<V>(pub(crate) std::marker::PhantomData<fn() -> V>);

impl<V: Record> Fill for FillValue<V> {
    #[inline(always)]
    unsafe fn fill(&mut self, own: &mut Slab, cell: *mut u8, input: &mut Input<'_>) -> Result<(), ImageError> {
        // SAFETY: as promised by the caller.
        unsafe { fill_cell::<V>(own, cell, input) }
    }

    unsafe fn skip(&mut self, cell: *const u8, input: &mut Input<'_>) -> Result<(), ImageError> {
        // SAFETY: as promised by the caller.
        unsafe { skip_cell::<V>(cell, input) }
    }

    unsafe fn free(&mut self, _: *const u8) {}
}
