//! `Slab`: byte blocks of any length, addressed by offset.
//!
//! A handle is a block's offset in 16-byte units and its length: it stays true wherever the memory is mapped. Blocks
//! come in size classes (steps of 16 bytes up to 128, then four to a doubling) and are reused within their class.
//! Blocks over 1 MiB are mapped by themselves. Unsafe code here trusts that handles are this slab's own and live.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ptr::NonNull,
};

use crate::{
    memory::{HUGE_PAGE_BYTES, Mapping},
    size_class::{CLASSES, LARGEST_CLASS_BYTES, block_bytes, class_bytes, class_of},
};

/// Bytes in one unit of a block's offset: the alignment of every block.
pub(crate) const UNIT_BYTES: usize = 16;
/// Units that one chunk spans in offsets, whatever it holds: 2 MiB.
const CHUNK_UNITS_LOG2: u32 = 17;
const CHUNK_UNITS: u32 = 1 << CHUNK_UNITS_LOG2;
/// The first chunks are small and come from the allocator, so that a small table stays small.
const SMALL_CHUNK_BYTES: [usize; 3] = [4 << 10, 64 << 10, 512 << 10];
/// Chunks there can be: 64 GiB of offsets.
const MAX_CHUNKS: usize = 1 << (32 - CHUNK_UNITS_LOG2);

/// Address of a block in a slab, and how many of its bytes are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    /// Offset in units; 0 is no block.
    pub(crate) unit: u32,
    /// Length in bytes.
    pub(crate) len: u32,
}

impl Handle {
    /// Both parts in one word, as rows keep it.
    #[inline(always)]
    pub(crate) const fn to_bits(self) -> u64 {
        self.unit as u64 | (self.len as u64) << 32
    }

    /// The handle that [`Handle::to_bits`] was made of.
    #[inline(always)]
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self { unit: bits as u32, len: (bits >> 32) as u32 }
    }
}

/// What a stretch of 2 MiB of offsets is.
enum Owner {
    /// A small chunk from the allocator that blocks are cut from.
    Heap,
    /// A chunk that blocks are cut from.
    Chunk { _mapping: Mapping },
    /// The begin of a large block.
    Large { mapping: Mapping },
    /// What follows in a large block.
    Span,
    /// Left by a large block that is gone.
    Gone,
}

struct Chunk {
    start: NonNull<u8>,
    bytes: usize,
    owner: Owner,
}

impl Chunk {
    /// Gives back what is the allocator's; mappings go with their owners.
    fn release(&mut self) {
        if matches!(std::mem::replace(&mut self.owner, Owner::Gone), Owner::Heap) {
            // SAFETY: the chunk was allocated with this layout, and is used by nobody once the slab releases it.
            unsafe { dealloc(self.start.as_ptr(), heap_layout(self.bytes)) };
        }
    }

    /// Whether blocks are cut from it.
    const fn is_cut(&self) -> bool {
        matches!(self.owner, Owner::Heap | Owner::Chunk { .. })
    }
}

/// Blocks of bytes.
pub(crate) struct Slab {
    chunks: Vec<Chunk>,
    /// Chunk that blocks are cut from, and where in it.
    current: usize,
    next_byte: usize,
    /// First free block of each class, 0 if there is none; a free block begins with the next one's unit.
    free: [u32; CLASSES],
    held_bytes: usize,
    live_bytes: usize,
}

// SAFETY: chunks are plain memory that this value alone owns.
unsafe impl Send for Slab {}

const fn heap_layout(bytes: usize) -> Layout {
    match Layout::from_size_align(bytes, 64) {
        Ok(layout) => layout,
        Err(_) => panic!("chunk sizes are small"),
    }
}

impl Slab {
    /// A slab that holds no memory yet.
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), current: 0, next_byte: 0, free: [0; CLASSES], held_bytes: 0, live_bytes: 0 }
    }

    /// Memory taken from the system.
    pub(crate) const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Bytes of the blocks in use.
    #[cfg(test)]
    pub(crate) const fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    /// Address of a block.
    ///
    /// # Safety
    /// `unit` must be of a block of this slab that has not been freed.
    #[inline(always)]
    pub(crate) unsafe fn pointer(&self, unit: u32) -> *mut u8 {
        // SAFETY: a live block's chunk exists, and its offset lies within it.
        unsafe {
            let chunk = self.chunks.get_unchecked((unit >> CHUNK_UNITS_LOG2) as usize);
            chunk.start.as_ptr().add((unit & (CHUNK_UNITS - 1)) as usize * UNIT_BYTES)
        }
    }

    /// The bytes of a block.
    ///
    /// # Safety
    /// `handle` must be a block of this slab that has not been freed.
    #[inline(always)]
    pub(crate) unsafe fn read(&self, handle: Handle) -> &[u8] {
        // SAFETY: the block is live and `len` bytes of it are initialised: so is all of a chunk when it is made.
        unsafe { std::slice::from_raw_parts(self.pointer(handle.unit), handle.len as usize) }
    }

    /// A block with these bytes.
    pub(crate) fn store(&mut self, bytes: &[u8]) -> Handle {
        let handle = self.allocate(bytes.len());
        // SAFETY: the block is fresh and at least as long as `bytes`.
        unsafe { self.pointer(handle.unit).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        handle
    }

    /// Puts other bytes into a block, in place where they fit, and answers where they are.
    ///
    /// # Safety
    /// `handle` must be a live block of this slab; it is gone unless it is what is answered.
    pub(crate) unsafe fn replace(&mut self, handle: Handle, bytes: &[u8]) -> Handle {
        if block_bytes(handle.len as usize) != block_bytes(bytes.len()) {
            let fresh = self.store(bytes);
            // SAFETY: as promised by the caller.
            unsafe { self.free(handle) };
            return fresh;
        }
        // SAFETY: the block is live and of the size that `bytes` needs.
        unsafe { self.pointer(handle.unit).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Handle { unit: handle.unit, len: bytes.len() as u32 }
    }

    /// A block of `len` bytes, aligned to 16, whose content is initialised but arbitrary.
    ///
    /// # Panics
    /// Where `len` is 4 GiB or more, the slab is full (64 GiB) or the system has no memory.
    pub(crate) fn allocate(&mut self, len: usize) -> Handle {
        let len_stored = u32::try_from(len).expect("a single value of keyed state must be smaller than 4 GiB");
        self.live_bytes += block_bytes(len);
        if len > LARGEST_CLASS_BYTES {
            return Handle { unit: self.allocate_large(len), len: len_stored };
        }
        let (class, bytes) = class_of(len);
        let unit = self.free[class];
        if unit != 0 {
            // SAFETY: a block on the free list begins with the unit of the next one.
            self.free[class] = unsafe { self.pointer(unit).cast::<u32>().read() };
            return Handle { unit, len: len_stored };
        }
        if self.chunks.get(self.current).is_none_or(|chunk| chunk.bytes - self.next_byte < bytes) {
            self.next_chunk(bytes);
        }
        let unit = ((self.current as u32) << CHUNK_UNITS_LOG2) + (self.next_byte / UNIT_BYTES) as u32;
        self.next_byte += bytes;
        Handle { unit, len: len_stored }
    }

    /// Gives a block back.
    ///
    /// # Safety
    /// `handle` must be a live block of this slab, and nothing may use it afterwards.
    pub(crate) unsafe fn free(&mut self, handle: Handle) {
        let len = handle.len as usize;
        self.live_bytes -= block_bytes(len);
        if len > LARGEST_CLASS_BYTES {
            self.free_large((handle.unit >> CHUNK_UNITS_LOG2) as usize, len);
            return;
        }
        // SAFETY: the block is live until here and at least 16 bytes long.
        unsafe { self.push_free(handle.unit, class_of(len).0) };
    }

    /// Frees every block and keeps the memory of all but the large ones.
    pub(crate) fn reset(&mut self) {
        for chunk in &mut self.chunks {
            if !chunk.is_cut() {
                self.held_bytes -= chunk.bytes;
                chunk.owner = Owner::Gone;
                chunk.bytes = 0;
            }
        }
        self.free = [0; CLASSES];
        self.live_bytes = 0;
        self.current = 0;
        // Offset 0 of chunk 0 is no block.
        self.next_byte = UNIT_BYTES;
    }

    /// Gives some of the memory back of a slab that nobody uses any more. False once there is none left.
    pub(crate) fn release_some(&mut self) -> bool {
        let Some(chunk) = self.chunks.last_mut() else { return false };
        if let Owner::Large { mapping } = &mut chunk.owner
            // SAFETY: the slab's blocks are all unused, and the mapping is released from its end.
            && unsafe { mapping.shrink() }
        {
            self.held_bytes -= HUGE_PAGE_BYTES;
            chunk.bytes -= HUGE_PAGE_BYTES;
            return true;
        }
        self.held_bytes -= chunk.bytes;
        chunk.release();
        self.chunks.pop();
        true
    }

    /// # Safety
    /// The block must be of that class and unused.
    unsafe fn push_free(&mut self, unit: u32, class: usize) {
        // SAFETY: as promised by the caller; blocks are at least 16 bytes long and aligned to 16.
        unsafe { self.pointer(unit).cast::<u32>().write(self.free[class]) };
        self.free[class] = unit;
    }

    /// Moves on to a chunk with room for `bytes`, handing what is left of the current one to the free lists.
    #[cold]
    fn next_chunk(&mut self, bytes: usize) {
        loop {
            self.give_rest_to_free_lists();
            let mut next = if self.chunks.is_empty() { 0 } else { self.current + 1 };
            // Chunks of large blocks, present or gone, lie between; after a reset there are empty ones ahead.
            while self.chunks.get(next).is_some_and(|chunk| !chunk.is_cut()) {
                next += 1;
            }
            if next == self.chunks.len() {
                self.add_chunk(next);
            }
            self.current = next;
            self.next_byte = if next == 0 { UNIT_BYTES } else { 0 };
            if self.chunks[next].bytes - self.next_byte >= bytes {
                return;
            }
        }
    }

    fn give_rest_to_free_lists(&mut self) {
        let Some(chunk) = self.chunks.get(self.current) else { return };
        let mut rest = chunk.bytes - self.next_byte;
        while rest >= UNIT_BYTES {
            let (mut class, mut bytes) = class_of(rest.min(LARGEST_CLASS_BYTES));
            while bytes > rest {
                class -= 1;
                bytes = class_bytes(class);
            }
            let unit = ((self.current as u32) << CHUNK_UNITS_LOG2) + (self.next_byte / UNIT_BYTES) as u32;
            // SAFETY: these bytes have not been handed out.
            unsafe { self.push_free(unit, class) };
            self.next_byte += bytes;
            rest -= bytes;
        }
    }

    fn add_chunk(&mut self, index: usize) {
        assert!(
            index < MAX_CHUNKS,
            "a state table holds at most 64 GiB of variable-length data per subtask: raise the parallelism"
        );
        let chunk = if let Some(&bytes) = SMALL_CHUNK_BYTES.get(index) {
            let layout = heap_layout(bytes);
            // SAFETY: the layout is not of size zero.
            let start = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
            Chunk { start, bytes, owner: Owner::Heap }
        } else {
            let mapping = Mapping::new(HUGE_PAGE_BYTES);
            Chunk { start: mapping.start(), bytes: mapping.bytes(), owner: Owner::Chunk { _mapping: mapping } }
        };
        self.held_bytes += chunk.bytes;
        self.chunks.push(chunk);
    }

    fn allocate_large(&mut self, len: usize) -> u32 {
        let mapping = Mapping::new(len);
        let spans = mapping.bytes() / HUGE_PAGE_BYTES;
        self.held_bytes += mapping.bytes();
        if self.chunks.is_empty() {
            // The first chunk is where offset 0 is, and small.
            self.next_chunk(UNIT_BYTES);
        }
        let (start, bytes) = (mapping.start(), mapping.bytes());
        let index = self.gone_run(spans).unwrap_or(self.chunks.len());
        assert!(
            index + spans <= MAX_CHUNKS,
            "a state table holds at most 64 GiB of variable-length data per subtask: raise the parallelism"
        );
        while self.chunks.len() < index + spans {
            self.chunks.push(Chunk { start, bytes: 0, owner: Owner::Gone });
        }
        for chunk in &mut self.chunks[index..index + spans] {
            *chunk = Chunk { start, bytes: 0, owner: Owner::Span };
        }
        self.chunks[index] = Chunk { start, bytes, owner: Owner::Large { mapping } };
        (index as u32) << CHUNK_UNITS_LOG2
    }

    /// First run of `spans` chunks whose large blocks are gone.
    fn gone_run(&self, spans: usize) -> Option<usize> {
        let mut run = 0;
        for (index, chunk) in self.chunks.iter().enumerate() {
            run = if matches!(chunk.owner, Owner::Gone) { run + 1 } else { 0 };
            if run == spans {
                return Some(index + 1 - spans);
            }
        }
        None
    }

    fn free_large(&mut self, index: usize, len: usize) {
        let spans = block_bytes(len) / HUGE_PAGE_BYTES;
        self.held_bytes -= self.chunks[index].bytes;
        for chunk in &mut self.chunks[index..index + spans] {
            chunk.owner = Owner::Gone;
            chunk.bytes = 0;
        }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        self.chunks.iter_mut().for_each(Chunk::release);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn length() -> impl Strategy<Value = usize> {
        prop_oneof![8 => 0usize..300, 4 => 300usize..40_000, 1 => 500_000usize..5_000_000]
    }

    #[derive(Clone, Debug)]
    enum Op {
        Store(usize),
        Replace(usize, usize),
        Free(usize),
        Reset,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => length().prop_map(Op::Store),
            4 => (any::<usize>(), length()).prop_map(|(at, len)| Op::Replace(at, len)),
            4 => any::<usize>().prop_map(Op::Free),
            1 => Just(Op::Reset),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn when_blocks_come_and_go_then_each_keeps_its_bytes(ops in prop::collection::vec(op(), 0..120)) {
            let mut slab = Slab::new();
            let mut live: Vec<(Handle, Vec<u8>)> = Vec::new();
            for (step, op) in ops.into_iter().enumerate() {
                let fill = |len: usize| (0..len).map(|i| (i * 7 + step) as u8).collect::<Vec<_>>();
                match op {
                    Op::Store(len) => live.push((slab.store(&fill(len)), fill(len))),
                    Op::Replace(at, len) if !live.is_empty() => {
                        let at = at % live.len();
                        // SAFETY: the handle is in the list of live ones.
                        live[at] = (unsafe { slab.replace(live[at].0, &fill(len)) }, fill(len));
                    }
                    Op::Free(at) if !live.is_empty() => {
                        let (handle, _) = live.swap_remove(at % live.len());
                        // SAFETY: the handle was live and has left the list.
                        unsafe { slab.free(handle) };
                    }
                    Op::Reset => {
                        slab.reset();
                        live.clear();
                    }
                    _ => {}
                }
                for (handle, bytes) in &live {
                    prop_assert_eq!(*handle, Handle::from_bits(handle.to_bits()));
                    // SAFETY: the handle is in the list of live ones.
                    prop_assert_eq!(unsafe { slab.read(*handle) }, &bytes[..]);
                    // SAFETY: as above.
                    prop_assert_eq!(unsafe { slab.pointer(handle.unit) } as usize % UNIT_BYTES, 0);
                }
                prop_assert_eq!(slab.live_bytes(), live.iter().map(|(h, _)| block_bytes(h.len as usize)).sum::<usize>());
                prop_assert!(slab.held_bytes() >= slab.live_bytes());
            }
        }
    }
}
