//! The image of a table: what a snapshot writes, byte by byte.
//!
//! Numbers are little-endian. An image is a header, extents of rows, a table of the extents and a trailer:
//!
//! | header: 80 bytes | |
//! |---|---|
//! | 0: 8 | `TWSTATE` and a newline |
//! | 8: 2, 10: 2 | version of the format: 1; version of key hash and key groups: 2 |
//! | 12: 1 | structure: 1 rows, 2 lists, 3 maps, 4 timers |
//! | 13: 1 | 0 for a full image, 1 for an increment |
//! | 14: 2, 16: 2 | epoch; the epoch of the image that an increment goes on from, else 0 |
//! | 18: 2, 20: 2, 22: 2 | first and last key group of the table; 0 |
//! | 24: 4 | maximum parallelism |
//! | 28: 20 | length of a row, where key and value lie in it, lengths of their cells: 4 bytes each |
//! | 48: 20 | the same of the entries of a map; of lists: length and alignment of an element, three times 0; else 0 |
//! | 68: 4 | bits 0 to 3: whether key, value, entry key, entry value (of lists: element) are of fixed size |
//! | 72: 8 | 0 |
//!
//! | extent: a number of rows, one after another | |
//! |---|---|
//! | row length | the row: 4 bytes hash, 2 bytes epoch (meaningless), 2 bytes key group with the top bit set if the row is occupied; cells, archived, or a handle of the slab: 4 arbitrary bytes, 4 bytes length |
//! | key's length | the key's bytes, if of variable length |
//! | | if the row is occupied: what the value refers to, as below; a row that is not occupied says that its key was removed |
//!
//! After the key of an occupied row: in rows and timers, the value's bytes, if of variable length. In lists, pieces of
//! a length (4 bytes) and so many bytes of elements as a chunk has them, and at the end a length of 0; the last piece may
//! go on beyond the elements that the row counts. In maps, so many entries as the row counts: the entry's row, then the
//! bytes of its user key and value, where of variable length. Rows and entries begin at any byte.
//!
//! | table of extents: 32 bytes each, in order and without gaps | |
//! |---|---|
//! | 0: 8, 8: 8, 16: 8 | offset from the begin of the image, length, number of rows |
//! | 24: 2, 26: 2, 28: 4 | the lowest and the highest key group of its rows; 0 |
//!
//! | trailer: 32 bytes, the image's last | |
//! |---|---|
//! | 0: 8, 8: 8, 16: 8 | offset of the table, number of extents, number of rows |
//! | 24: 8 | `TWENDED` and a newline |
//!
//! In an increment removals come first. Otherwise rows come by key group, but for the rows of segments that hold several
//! groups; within one in any order, which is another from release to release. No key comes twice. Whoever wants a range of key groups reads the extents that
//! overlap it. There is no checksum in it: blocks of files have them.

use std::ops::Range;

use thalweg_model::{KeyGroupRange, MaxParallelism, key_group::UPPER_BOUND_MAX_PARALLELISM};

const MAGIC: [u8; 8] = *b"TWSTATE\n";
const END_MAGIC: [u8; 8] = *b"TWENDED\n";
const VERSION: u16 = 1;
/// Changes with the key hash, the function from hashes to key groups, and what a row's hash is.
const HASH_VERSION: u16 = 2;
/// Length of the header.
pub(crate) const HEADER_BYTES: usize = 80;
/// Length of an extent's entry in the table.
pub(crate) const EXTENT_BYTES: usize = 32;
/// Length of the trailer.
pub(crate) const TRAILER_BYTES: usize = 32;

/// Why an image cannot be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageError {
    /// It is not an image of a state table, or is cut off.
    NotAnImage,
    /// It was written by another version of the format or of the key hash.
    Version {
        /// Version of the format that it has.
        format: u16,
        /// Version of the hash that it has.
        hash: u16,
    },
    /// It is of a state with other types, or of another kind of state.
    OtherType,
    /// The number of key groups is not the table's.
    OtherMaxParallelism {
        /// The number of key groups that it was written with.
        written: u32,
    },
    /// An increment does not go on from the image before it.
    OtherBase {
        /// Epoch of the image that it goes on from.
        base: u16,
    },
    /// Its bytes contradict each other, or are not valid values.
    Damaged,
}

impl ImageError {
    /// Whether the image itself is at fault, not what is to be restored from it: then another checkpoint may do.
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::NotAnImage | Self::OtherBase { .. } | Self::Damaged)
    }
}

impl std::fmt::Display for ImageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotAnImage => f.write_str("these bytes are no image of a state table, or are cut off: use an older checkpoint"),
            Self::Version { format, hash } => write!(
                f,
                "the state was written in format {format} with hash {hash}, and this version reads format {VERSION} with hash \
                 {HASH_VERSION}: restore it with the version that wrote it"
            ),
            Self::OtherType => f.write_str(
                "the state was written for another type or kind of state: give the state the type it had, or a new name",
            ),
            Self::OtherMaxParallelism { written } => {
                write!(f, "the state was written with a maximum parallelism of {written}: set it to that, it cannot change")
            }
            Self::OtherBase { base } => {
                write!(f, "the image that an increment goes on from (epoch {base}) is not the one before it")
            }
            Self::Damaged => f.write_str("the image of a state table is damaged: use an older checkpoint"),
        }
    }
}

impl std::error::Error for ImageError {}

/// The kind of table that an image is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Structure {
    /// A [`RowTable`](crate::RowTable).
    Rows = 1,
    /// A [`ListTable`](crate::ListTable).
    Lists = 2,
    /// A [`MapTable`](crate::MapTable).
    Maps = 3,
    /// A [`TimerQueue`](crate::TimerQueue).
    Timers = 4,
}

/// How the rows of an image are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) structure: Structure,
    /// Length, offsets of key and value, lengths of their cells.
    pub(crate) row: [u32; 5],
    pub(crate) inner: [u32; 5],
    pub(crate) fixed: u32,
}

/// An image's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) shape: Shape,
    pub(crate) epoch: u16,
    /// The epoch that an increment goes on from.
    pub(crate) base: Option<u16>,
    pub(crate) range: KeyGroupRange,
    pub(crate) max_parallelism: MaxParallelism,
}

impl Header {
    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
        put(0, &MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(10, &HASH_VERSION.to_le_bytes());
        put(12, &[self.shape.structure as u8, self.base.is_some() as u8]);
        put(14, &self.epoch.to_le_bytes());
        put(16, &self.base.unwrap_or(0).to_le_bytes());
        put(18, &self.range.start.to_le_bytes());
        put(20, &self.range.end.to_le_bytes());
        put(24, &self.max_parallelism.get().to_le_bytes());
        for n in 0..5 {
            put(28 + n * 4, &self.shape.row[n].to_le_bytes());
            put(48 + n * 4, &self.shape.inner[n].to_le_bytes());
        }
        put(68, &self.shape.fixed.to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, ImageError> {
        if bytes[..8] != MAGIC {
            return Err(ImageError::NotAnImage);
        }
        let (format, hash) = (u16_at(bytes, 8), u16_at(bytes, 10));
        if (format, hash) != (VERSION, HASH_VERSION) {
            return Err(ImageError::Version { format, hash });
        }
        let structure = match bytes[12] {
            1 => Structure::Rows,
            2 => Structure::Lists,
            3 => Structure::Maps,
            4 => Structure::Timers,
            _ => return Err(ImageError::Damaged),
        };
        let range = KeyGroupRange { start: u16_at(bytes, 18), end: u16_at(bytes, 20) };
        let max_parallelism = MaxParallelism::new(u32_at(bytes, 24)).ok_or(ImageError::Damaged)?;
        if bytes[13] > 1 || range.start > range.end || range.end as u32 >= max_parallelism.get() {
            return Err(ImageError::Damaged);
        }
        let shape = Shape {
            structure,
            row: [28, 32, 36, 40, 44].map(|at| u32_at(bytes, at)),
            inner: [48, 52, 56, 60, 64].map(|at| u32_at(bytes, at)),
            fixed: u32_at(bytes, 68),
        };
        let base = (bytes[13] == 1).then(|| u16_at(bytes, 16));
        Ok(Self { shape, epoch: u16_at(bytes, 14), base, range, max_parallelism })
    }
}

/// A stretch of an image: rows of some key groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset in the image, in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// How many rows it holds.
    pub rows: u64,
    /// The lowest and the highest key group of its rows.
    pub groups: KeyGroupRange,
}

impl Extent {
    pub(crate) fn to_bytes(self) -> [u8; EXTENT_BYTES] {
        let mut bytes = [0; EXTENT_BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.bytes.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.rows.to_le_bytes());
        bytes[24..26].copy_from_slice(&self.groups.start.to_le_bytes());
        bytes[26..28].copy_from_slice(&self.groups.end.to_le_bytes());
        bytes
    }

    /// Whether rows of these key groups may be in it.
    pub const fn overlaps(&self, range: KeyGroupRange) -> bool {
        self.groups.start <= range.end && range.start <= self.groups.end
    }
}

/// The trailer of an image whose table of so many extents begins there.
pub(crate) fn trailer(table_offset: u64, extents: u64, rows: u64) -> [u8; TRAILER_BYTES] {
    let mut bytes = [0; TRAILER_BYTES];
    for (n, part) in
        [table_offset.to_le_bytes(), extents.to_le_bytes(), rows.to_le_bytes(), END_MAGIC].iter().enumerate()
    {
        bytes[n * 8..n * 8 + 8].copy_from_slice(part);
    }
    bytes
}

/// What an image holds and where: its header and its table of extents, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageIndex {
    pub(crate) header: Header,
    extents: Vec<Extent>,
    rows: u64,
}

impl ImageIndex {
    /// The index of an image in memory.
    ///
    /// # Errors
    /// Where the bytes are no image, or contradict each other.
    pub fn of(image: &[u8]) -> Result<Self, ImageError> {
        Self::read(image.len() as u64, |offset, out| {
            let from =
                image.get(offset as usize..).and_then(|rest| rest.get(..out.len())).ok_or(ImageError::NotAnImage)?;
            out.copy_from_slice(from);
            Ok(())
        })
    }

    /// The index of an image of that many bytes, which `read` reads: it fills the slice from an offset on.
    ///
    /// # Errors
    /// Those of `read`, and where the bytes are no image, or contradict each other.
    pub fn read<E: From<ImageError>>(
        image_bytes: u64,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let Some(end) = image_bytes.checked_sub(TRAILER_BYTES as u64).filter(|&end| end >= HEADER_BYTES as u64) else {
            return Err(ImageError::NotAnImage.into());
        };
        let mut head = [0; HEADER_BYTES];
        read(0, &mut head)?;
        let header = Header::parse(&head)?;
        let mut tail = [0; TRAILER_BYTES];
        read(end, &mut tail)?;
        let [table_at, count, rows] = [0, 8, 16].map(|at| u64_at(&tail, at));
        if tail[24..] != END_MAGIC {
            return Err(ImageError::NotAnImage.into());
        }
        let fits = table_at >= HEADER_BYTES as u64
            && table_at <= end
            && (end - table_at).is_multiple_of(EXTENT_BYTES as u64)
            && (end - table_at) / EXTENT_BYTES as u64 == count;
        if !fits {
            return Err(ImageError::Damaged.into());
        }
        let mut table = vec![0; (end - table_at) as usize];
        read(table_at, &mut table)?;
        let index = Self { header, extents: extents_of(&header, &table, table_at)?, rows };
        if index.extents.iter().map(|extent| extent.rows).sum::<u64>() != rows {
            return Err(ImageError::Damaged.into());
        }
        Ok(index)
    }

    /// The extents, in order.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The parts of the image that have rows of a range of key groups, adjacent extents together.
    pub fn parts_for(&self, range: KeyGroupRange) -> Vec<Range<u64>> {
        let mut parts: Vec<Range<u64>> = Vec::new();
        for extent in self.extents.iter().filter(|extent| extent.overlaps(range)) {
            match parts.last_mut() {
                Some(last) if last.end == extent.offset => last.end += extent.bytes,
                _ => parts.push(extent.offset..extent.offset + extent.bytes),
            }
        }
        parts
    }

    /// How many rows it holds, removals included.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// The epoch it was taken at: what [`confirm`](crate::Snapshots::confirm_snapshot) and increments name it by.
    pub const fn epoch(&self) -> u16 {
        self.header.epoch
    }

    /// The epoch of the image that it goes on from, if it is an increment.
    pub const fn base(&self) -> Option<u16> {
        self.header.base
    }

    /// The key groups of the table that it is of.
    pub const fn range(&self) -> KeyGroupRange {
        self.header.range
    }

    /// The kind of table that it is of.
    pub const fn structure(&self) -> Structure {
        self.header.shape.structure
    }

    /// The number of key groups that it was written with.
    pub const fn max_parallelism(&self) -> MaxParallelism {
        self.header.max_parallelism
    }
}

/// Reads the table of extents, which must cover the image from header to table and hold as many rows as can be.
fn extents_of(header: &Header, table: &[u8], table_at: u64) -> Result<Vec<Extent>, ImageError> {
    let row_bytes = header.shape.row[0].max(1) as u64;
    let mut next = HEADER_BYTES as u64;
    let mut extents = Vec::with_capacity(table.len() / EXTENT_BYTES);
    for entry in table.chunks_exact(EXTENT_BYTES) {
        let groups = KeyGroupRange { start: u16_at(entry, 24), end: u16_at(entry, 26) };
        let [offset, bytes, rows] = [0, 8, 16].map(|at| u64_at(entry, at));
        let sound = offset == next
            && bytes <= table_at - next
            && rows > 0
            && rows <= bytes / row_bytes
            && groups.start <= groups.end
            && (groups.end as u32) < header.max_parallelism.get().min(UPPER_BOUND_MAX_PARALLELISM);
        if !sound {
            return Err(ImageError::Damaged);
        }
        extents.push(Extent { offset, bytes, rows, groups });
        next += bytes;
    }
    if next != table_at {
        return Err(ImageError::Damaged);
    }
    Ok(extents)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u32_at(bytes, at) as u64 | (u32_at(bytes, at + 4) as u64) << 32
}
