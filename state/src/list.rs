//! `ListTable`: a list of elements for each key, in chains of chunks.
//!
//! A key's row holds the first and last chunk and the count. A chunk is a block of a slab: a header of 16 bytes, then
//! elements in archived form. Those of variable length follow their length (`u32`), aligned as their type needs.

use std::marker::PhantomData;

use thalweg_model::{KeyHash, Record, record};

use crate::{
    cell::{Encoded, Encoder, write_fixed},
    limbo::Kept,
    place::TableConfig,
    scan::Cursor,
    size_class::block_bytes,
    slab::{Handle, Slab},
    table::RowTable,
};

/// First chunk, last chunk (0: none) and number of elements.
pub(crate) type Head = (u32, u32, u32);

/// A chunk's first 16 bytes; elements follow.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct Chunk {
    /// The next chunk, 0 for none.
    pub(crate) next: u32,
    pub(crate) used_bytes: u32,
    pub(crate) room_bytes: u32,
}

pub(crate) const HEADER_BYTES: usize = size_of::<Chunk>();
/// Size of a key's first chunk, unless its first element is larger, and up to which chunks double.
pub(crate) const CHUNK_BYTES: std::ops::RangeInclusive<usize> = 64..=4096;

/// Lists of elements by key.
///
/// As with [`RowTable`], every key comes with its hash. A list that is emptied does not exist.
pub struct ListTable<K: Record, E: Record> {
    pub(crate) rows: RowTable<K, Head>,
    pub(crate) chunks: Chunks,
    element: PhantomData<fn() -> E>,
}

/// The chunks of all keys.
pub(crate) struct Chunks {
    pub(crate) slab: Slab,
    encoder: Encoder,
    /// Chunks that a running snapshot may still need.
    pub(crate) kept: Kept,
}

impl<K: Record, E: Record> ListTable<K, E> {
    /// An empty table.
    pub fn new(config: TableConfig) -> Self {
        Self::with_rows(RowTable::new(config))
    }

    /// A table of these rows, which must be empty.
    pub(crate) fn with_rows(rows: RowTable<K, Head>) -> Self {
        let chunks = Chunks { slab: Slab::new(), encoder: Encoder::new(), kept: Kept::default() };
        Self { rows, chunks, element: PhantomData }
    }

    /// How many keys have a list.
    pub const fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no key has one.
    pub const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let chunks = &self.chunks;
        self.rows.memory_bytes() + chunks.slab.held_bytes() + chunks.encoder.held_bytes() + chunks.kept.held_bytes()
    }

    /// Fetches the row of a key of this hash into the cache.
    #[inline(always)]
    pub fn prefetch(&self, hash: KeyHash) {
        self.rows.prefetch(hash);
    }

    /// Adds an element to the end of a key's list.
    #[inline]
    pub fn append(&mut self, hash: KeyHash, key: K::View<'_>, element: E::View<'_>) {
        let Self { rows, chunks, .. } = self;
        rows.modify_or_insert(hash, key, Head::default, |head| chunks.append::<E>(head, element));
    }

    /// Adds elements to the end of a key's list.
    pub fn append_all<'e>(&mut self, hash: KeyHash, key: K::View<'_>, elements: impl IntoIterator<Item = E::View<'e>>) {
        for element in elements {
            self.append(hash, key, element);
        }
    }

    /// Makes these elements a key's list; none of them removes it.
    pub fn replace<'e>(&mut self, hash: KeyHash, key: K::View<'_>, elements: impl IntoIterator<Item = E::View<'e>>) {
        let mut head = Head::default();
        for element in elements {
            self.chunks.append::<E>(&mut head, element);
        }
        self.remove(hash, key);
        if head.2 > 0 {
            self.rows.insert(hash, key, head);
        }
    }

    /// The elements of a key, in the order in which they were added; none if it has no list.
    #[inline]
    pub fn list(&self, hash: KeyHash, key: K::View<'_>) -> ListIter<'_, E> {
        self.iter(self.rows.get(hash, key).unwrap_or_default())
    }

    /// How many elements a key has.
    #[inline]
    pub fn count(&self, hash: KeyHash, key: K::View<'_>) -> usize {
        self.rows.get(hash, key).map_or(0, |(_, _, count)| count as usize)
    }

    /// Whether a key has a list.
    #[inline]
    pub fn contains(&self, hash: KeyHash, key: K::View<'_>) -> bool {
        self.rows.contains(hash, key)
    }

    /// Removes a key's list. True if there was one.
    pub fn remove(&mut self, hash: KeyHash, key: K::View<'_>) -> bool {
        let Some((first, _, _)) = self.rows.get(hash, key) else { return false };
        self.rows.remove(hash, key);
        // A snapshot may have a copy of the row, and chunks of its time are followed by those of today.
        self.chunks.free_chain(first, self.rows.is_being_read());
        true
    }

    /// Removes all lists and gives the memory back.
    pub fn clear(&mut self) {
        self.chunks.kept.emptied(&mut self.chunks.slab, self.rows.is_being_read());
        self.rows.clear();
    }

    /// The next list of a scan: key, elements and key hash. As with [`RowTable::next`].
    pub fn next(&self, cursor: &mut Cursor) -> Option<(K::View<'_>, ListIter<'_, E>, KeyHash)> {
        let (key, head, hash) = self.rows.next(cursor)?;
        Some((key, self.iter(head), hash))
    }

    fn iter(&self, (first, _, count): Head) -> ListIter<'_, E> {
        ListIter { slab: &self.chunks.slab, chunk: first, at: 0, left: count, element: PhantomData }
    }
}

/// Where an element lies in a chunk that is used up to `used_bytes`, and where it ends, for an element of `len` bytes.
#[inline(always)]
pub(crate) const fn element_span<E: Record>(used_bytes: usize, len: usize) -> (usize, usize) {
    if E::FIXED {
        return (used_bytes, used_bytes + len);
    }
    assert!(E::ALIGN <= HEADER_BYTES);
    let at = (used_bytes + size_of::<u32>()).next_multiple_of(E::ALIGN);
    (at, (at + len).next_multiple_of(size_of::<u32>()))
}

impl Chunks {
    #[inline]
    fn append<E: Record>(&mut self, head: &mut Head, element: E::View<'_>) {
        let Self { slab, encoder, .. } = self;
        let encoded = encoder.encode_if_variable::<E>(element);
        let len = if let Encoded::Variable(bytes) = encoded { bytes.len() } else { size_of::<E::Archived>() };
        // SAFETY: the chunks of a head are live blocks that begin with a chunk's header; one of the last chunk and the
        // new one has room for the element up to `end`, and payloads are aligned to 16.
        unsafe {
            let room_of = |unit: u32| if unit == 0 { (0, 0) } else { header_sizes(slab, unit) };
            let (used_bytes, room_bytes) = room_of(head.1);
            let (mut at, mut end) = element_span::<E>(used_bytes, len);
            if head.1 == 0 || end > room_bytes {
                (at, end) = element_span::<E>(0, len);
                let wanted = ((room_bytes + HEADER_BYTES) * 2).clamp(*CHUNK_BYTES.start(), *CHUNK_BYTES.end());
                let bytes = block_bytes(wanted.max(end + HEADER_BYTES));
                let unit = slab.allocate(bytes).unit;
                let room_bytes = (bytes - HEADER_BYTES) as u32;
                slab.pointer(unit).cast::<Chunk>().write(Chunk { next: 0, used_bytes: 0, room_bytes });
                if head.1 == 0 {
                    head.0 = unit;
                } else {
                    (*slab.pointer(head.1).cast::<Chunk>()).next = unit;
                }
                head.1 = unit;
            }
            let chunk = slab.pointer(head.1);
            let payload = chunk.add(HEADER_BYTES);
            match encoded {
                Encoded::Variable(bytes) => {
                    // The length's place can be told from where the element before ended.
                    let len_at = (*chunk.cast::<Chunk>()).used_bytes as usize;
                    payload.add(len_at).cast::<u32>().write(len as u32);
                    payload.add(at).copy_from_nonoverlapping(bytes.as_ptr(), len);
                }
                Encoded::Fixed => write_fixed::<E>(payload.add(at), element),
            }
            (*chunk.cast::<Chunk>()).used_bytes = end as u32;
        }
        head.2 = head.2.checked_add(1).expect("a list of keyed state holds fewer than 2^32 elements");
    }

    pub(crate) fn free_chain(&mut self, mut unit: u32, keep: bool) {
        while unit != 0 {
            // SAFETY: the chain is of live chunks, each of which is freed with the length it was allocated with.
            unsafe {
                let chunk = self.slab.pointer(unit).cast::<Chunk>().read();
                let handle = Handle { unit, len: chunk.room_bytes + HEADER_BYTES as u32 };
                if keep {
                    self.kept.limbo.push(handle);
                } else {
                    self.slab.free(handle);
                }
                unit = chunk.next;
            }
        }
    }
}

/// Bytes used and bytes there are in a chunk.
///
/// # Safety
/// `unit` must be a live chunk.
#[inline(always)]
unsafe fn header_sizes(slab: &Slab, unit: u32) -> (usize, usize) {
    // SAFETY: a live chunk begins with its header.
    let chunk = unsafe { slab.pointer(unit).cast::<Chunk>().read() };
    (chunk.used_bytes as usize, chunk.room_bytes as usize)
}

/// The elements of one key in order.
pub struct ListIter<'a, E: Record> {
    slab: &'a Slab,
    chunk: u32,
    /// Bytes of the chunk's payload that have been passed.
    at: usize,
    left: u32,
    element: PhantomData<fn() -> E>,
}

impl<E: Record> Clone for ListIter<'_, E> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<'a, E: Record> Iterator for ListIter<'a, E> {
    type Item = E::View<'a>;

    #[inline]
    fn next(&mut self) -> Option<E::View<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        // SAFETY: with elements left, there are chunks that hold them, which stay as they are while the table is
        // borrowed; elements lie where `append` put them.
        unsafe {
            let mut chunk = self.slab.pointer(self.chunk);
            let header = chunk.cast::<Chunk>().read();
            if self.at >= header.used_bytes as usize && header.next != 0 {
                self.chunk = header.next;
                self.at = 0;
                chunk = self.slab.pointer(self.chunk);
            }
            let payload = chunk.add(HEADER_BYTES);
            if E::FIXED {
                let element = payload.add(self.at).cast::<E::Archived>();
                self.at += size_of::<E::Archived>();
                return Some(E::view_archived(&*element));
            }
            let len = payload.add(self.at).cast::<u32>().read() as usize;
            let (at, end) = element_span::<E>(self.at, len);
            self.at = end;
            Some(record::decode_unchecked::<E>(std::slice::from_raw_parts(payload.add(at), len)))
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl<E: Record> ExactSizeIterator for ListIter<'_, E> {}
