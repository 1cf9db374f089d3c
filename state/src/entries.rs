//! Reading images without the types of their tables: keys and values as archived bytes.
//!
//! An image says itself how its rows are laid out; a [`StateSchema`] says what the bytes mean. Nothing is believed: all
//! of this is safe code, and whatever the bytes are, it gives entries or an error.

use std::{borrow::Cow, collections::BTreeMap, ops::ControlFlow};

use thalweg_model::{KeyGroup, KeyGroupRange, Schema, StateSchema};

use crate::{
    image::{Extent, ImageError, ImageIndex, Shape, Structure},
    order::check_order,
    restore::Input,
    row::RowHeader,
};

/// Most elements without bytes, such as `()`, that one list may have.
const MAX_EMPTY_ELEMENTS: u32 = 1 << 20;
/// Length of a row's header.
const HEADER_BYTES: usize = size_of::<RowHeader>();
/// Bits of [`Shape::fixed`]: whether key, value, user key and entry value (or element) are of fixed size.
const KEY_FIXED: u32 = 1;
const VALUE_FIXED: u32 = 1 << 1;
const USER_KEY_FIXED: u32 = 1 << 2;
const INNER_FIXED: u32 = 1 << 3;
/// Length of the cell of a value of variable length, and where in it its length is.
const HANDLE_BYTES: u32 = 8;
const HANDLE_LEN_AT: usize = 4;
/// Where the value of a list's or a map's row has the number of elements or entries.
const LIST_COUNT_AT: usize = 8;
const MAP_COUNT_AT: usize = 4;

/// What an image says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry<'a> {
    /// The key group.
    pub group: KeyGroup,
    /// The row's hash: that of the key, salted.
    pub(crate) tag: u32,
    /// The key, archived.
    pub key: Cow<'a, [u8]>,
    /// What belongs to it.
    pub content: Content<'a>,
}

/// What belongs to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// The key was removed: only in increments.
    Removed,
    /// The value of a row or a timer, archived.
    Value(Cow<'a, [u8]>),
    /// The elements of a list, each archived, in order.
    List(Vec<Cow<'a, [u8]>>),
    /// User keys and values of a map, each archived.
    Map(Vec<(Cow<'a, [u8]>, Cow<'a, [u8]>)>),
}

impl Entry<'_> {
    /// The same with bytes of its own.
    pub fn into_owned(self) -> Entry<'static> {
        let own = |bytes: Cow<'_, [u8]>| Cow::Owned(bytes.into_owned());
        let content = match self.content {
            Content::Removed => Content::Removed,
            Content::Value(value) => Content::Value(own(value)),
            Content::List(elements) => Content::List(elements.into_iter().map(own).collect()),
            Content::Map(entries) => Content::Map(entries.into_iter().map(|(k, v)| (own(k), own(v))).collect()),
        };
        Entry { group: self.group, tag: self.tag, key: own(self.key), content }
    }

    /// Bytes of key and content, without what the image needs beside them.
    pub fn bytes(&self) -> u64 {
        let content = match &self.content {
            Content::Removed => 0,
            Content::Value(value) => value.len(),
            Content::List(elements) => elements.iter().map(|element| element.len()).sum(),
            Content::Map(entries) => entries.iter().map(|(key, value)| key.len() + value.len()).sum(),
        };
        (self.key.len() + content) as u64
    }
}

/// The entries of an extent, in the order of the image. Ends with the first error.
pub struct Entries<'a> {
    shape: Shape,
    groups: KeyGroupRange,
    is_increment: bool,
    input: Input<'a>,
    left: u64,
}

impl ImageIndex {
    /// The entries of an extent whose bytes these are.
    pub fn entries<'a>(&self, extent: &Extent, bytes: &'a [u8]) -> Entries<'a> {
        Entries {
            shape: self.header.shape,
            groups: extent.groups,
            is_increment: self.base().is_some(),
            input: Input::new(bytes),
            left: extent.rows,
        }
    }

    /// Checks that the image is of a table with these types.
    ///
    /// # Errors
    /// Where it is of others.
    pub fn check_schema(&self, schema: &StateSchema) -> Result<(), ImageError> {
        let Shape { structure, row, inner, fixed } = self.header.shape;
        let cell = |part: Option<&Schema>, bit: u32, cell_bytes: u32| {
            let Some(part) = part else { return false };
            let bytes = if part.is_fixed() { part.size } else { HANDLE_BYTES };
            part.is_fixed() == (fixed & bit != 0) && bytes == cell_bytes
        };
        let StateSchema { key, user_key, value } = schema;
        let same = cell(key.as_ref(), KEY_FIXED, row[3])
            && user_key.is_some() == (structure == Structure::Maps)
            && match structure {
                Structure::Rows | Structure::Timers => cell(value.as_ref(), VALUE_FIXED, row[4]),
                Structure::Lists => value.as_ref().is_some_and(|element| {
                    element.size == inner[0] && element.is_fixed() == (fixed & INNER_FIXED != 0)
                }),
                Structure::Maps => {
                    cell(user_key.as_ref(), USER_KEY_FIXED, inner[3]) && cell(value.as_ref(), INNER_FIXED, inner[4])
                }
            };
        if same { Ok(()) } else { Err(ImageError::OtherType) }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, ImageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            // What is left over belongs to nobody.
            let rest = std::mem::take(&mut self.input.bytes);
            return (!rest.is_empty()).then_some(Err(ImageError::Damaged));
        }
        self.left -= 1;
        let entry = self.entry();
        if entry.is_err() {
            (self.left, self.input) = (0, Input::new(&[]));
        }
        Some(entry)
    }
}

impl<'a> Entries<'a> {
    fn entry(&mut self) -> Result<Entry<'a>, ImageError> {
        let Shape { structure, row: [row_bytes, key_at, value_at, key_bytes, value_bytes], fixed, .. } = self.shape;
        let row = self.row(row_bytes)?;
        let (tag, flags) = (u32_at(row, 0)?, u16::from_le_bytes([row[6], row[7]]));
        let (group, is_occupied) = (KeyGroup(flags & 0x7fff), flags & 0x8000 != 0);
        if !self.groups.contains(group) || (!is_occupied && !self.is_increment) {
            return Err(ImageError::Damaged);
        }
        let key = self.cell(row, key_at, key_bytes, fixed & KEY_FIXED != 0)?;
        let content = if !is_occupied {
            Content::Removed
        } else {
            match structure {
                Structure::Rows | Structure::Timers => {
                    Content::Value(self.cell(row, value_at, value_bytes, fixed & VALUE_FIXED != 0)?)
                }
                Structure::Lists => Content::List(self.list(u32_at(row, value_at as usize + LIST_COUNT_AT)?)?),
                Structure::Maps => Content::Map(self.map(u32_at(row, value_at as usize + MAP_COUNT_AT)?)?),
            }
        };
        Ok(Entry { group, tag, key, content })
    }

    fn row(&mut self, bytes: u32) -> Result<&'a [u8], ImageError> {
        if (bytes as usize) < HEADER_BYTES {
            return Err(ImageError::Damaged);
        }
        self.input.take(bytes as usize)
    }

    /// The bytes of a cell: in the row, or next in the input.
    fn cell(&mut self, row: &'a [u8], at: u32, bytes: u32, is_fixed: bool) -> Result<Cow<'a, [u8]>, ImageError> {
        let at = at as usize;
        if is_fixed {
            let cell = row.get(at..at + bytes as usize).ok_or(ImageError::Damaged)?;
            return Ok(Cow::Borrowed(cell));
        }
        self.input.take(u32_at(row, at + HANDLE_LEN_AT)? as usize).map(Cow::Borrowed)
    }

    /// So many elements, in pieces.
    fn list(&mut self, count: u32) -> Result<Vec<Cow<'a, [u8]>>, ImageError> {
        let [element_bytes, align, ..] = self.shape.inner;
        let is_fixed = self.shape.fixed & INNER_FIXED != 0;
        if !is_fixed && !matches!(align, 1 | 2 | 4 | 8 | 16) {
            return Err(ImageError::Damaged);
        }
        let mut elements = Vec::new();
        loop {
            let piece_bytes = self.input.number()? as usize;
            if piece_bytes == 0 {
                break;
            }
            let (piece, mut at) = (self.input.take(piece_bytes)?, 0);
            while at < piece_bytes && elements.len() < count as usize {
                let (begin, len, end) = if is_fixed {
                    (at, element_bytes as usize, at + element_bytes as usize)
                } else {
                    let len = u32_at(piece, at)? as usize;
                    let begin = (at + size_of::<u32>()).next_multiple_of(align as usize);
                    (begin, len, (begin + len).next_multiple_of(size_of::<u32>()))
                };
                if end == at || end > piece_bytes {
                    return Err(ImageError::Damaged);
                }
                elements.push(Cow::Borrowed(&piece[begin..begin + len]));
                at = end;
            }
        }
        if is_fixed && element_bytes == 0 && count <= MAX_EMPTY_ELEMENTS {
            elements.resize(count as usize, Cow::Borrowed(&[]));
        }
        if elements.len() == count as usize { Ok(elements) } else { Err(ImageError::Damaged) }
    }

    fn map(&mut self, count: u32) -> Result<Vec<(Cow<'a, [u8]>, Cow<'a, [u8]>)>, ImageError> {
        let Shape { inner: [row_bytes, key_at, value_at, key_bytes, value_bytes], fixed, .. } = self.shape;
        let mut entries = Vec::new();
        for _ in 0..count {
            let row = self.row(row_bytes)?;
            let key = self.cell(row, key_at, key_bytes, fixed & USER_KEY_FIXED != 0)?;
            entries.push((key, self.cell(row, value_at, value_bytes, fixed & INNER_FIXED != 0)?));
        }
        Ok(entries)
    }
}

/// Hands every entry that the images hold together to `f`: increments are applied, what was removed is left out, and
/// so are deleted timers. Only key groups of `range`. `f` may stop it.
///
/// The images come in the order that [`Restorer`](crate::Restorer) wants; `read` answers the bytes of an extent of an
/// image. All entries of the increments on one full image are held in memory.
///
/// # Errors
/// Those of `read` and `f`, where an increment does not go on from the image before it, and where bytes are damaged.
pub fn live_entries<E: From<ImageError>>(
    images: &[ImageIndex],
    range: KeyGroupRange,
    mut read: impl FnMut(usize, &Extent) -> Result<Vec<u8>, E>,
    mut f: impl FnMut(&Entry<'_>) -> Result<ControlFlow<()>, E>,
) -> Result<(), E> {
    check_order(images)?;
    let starts = (0..images.len()).filter(|&n| images[n].base().is_none());
    for full in starts {
        let increments = images.iter().enumerate().skip(full + 1).take_while(|(_, image)| image.base().is_some());
        let mut changed: BTreeMap<(u16, Vec<u8>), Entry<'static>> = BTreeMap::new();
        for (n, image) in increments {
            for extent in image.extents().iter().filter(|extent| extent.overlaps(range)) {
                let bytes = read(n, extent)?;
                for entry in image.entries(extent, &bytes) {
                    let entry = entry?.into_owned();
                    changed.insert((entry.group.0, entry.key.to_vec()), entry);
                }
            }
        }
        let mut give = |entry: &Entry<'_>| {
            let is_deleted = match &entry.content {
                Content::Removed => true,
                Content::Value(value) => images[full].structure() == Structure::Timers && **value == [0],
                Content::List(_) | Content::Map(_) => false,
            };
            if is_deleted || !range.contains(entry.group) { Ok(ControlFlow::Continue(())) } else { f(entry) }
        };
        for extent in images[full].extents().iter().filter(|extent| extent.overlaps(range)) {
            let bytes = read(full, extent)?;
            for entry in images[full].entries(extent, &bytes) {
                let entry = entry?;
                let is_changed = !changed.is_empty() && changed.contains_key(&(entry.group.0, entry.key.to_vec()));
                if !is_changed && give(&entry)?.is_break() {
                    return Ok(());
                }
            }
        }
        for entry in changed.values() {
            if give(entry)?.is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, ImageError> {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(ImageError::Damaged)?;
    Ok(u32::from_le_bytes(*bytes))
}
