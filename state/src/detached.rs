//! What is left of a table that was emptied while a snapshot read it: its segments and its slab.

use std::marker::PhantomData;

use thalweg_model::Record;

use crate::{arena::SegmentArena, segment::SegmentRef, slab::Slab};

/// Segments that are released in one step, and how many of these may be the allocator's own.
const SEGMENTS_AT_ONCE: usize = 64;
const HEAP_SEGMENTS_AT_ONCE: usize = 2;

/// Segments and slab of a table that has been emptied since the barrier.
pub(crate) struct Detached<K: Record, V: Record> {
    pub(crate) directory: Vec<SegmentRef>,
    pub(crate) shift: u32,
    arena: SegmentArena,
    pub(crate) slab: Slab,
    types: PhantomData<fn() -> (K, V)>,
}

// SAFETY: the segments are plain memory that this value alone owns, of records, which are `Send`.
unsafe impl<K: Record, V: Record> Send for Detached<K, V> {}

impl<K: Record, V: Record> Detached<K, V> {
    /// # Safety
    /// The segments must be of these types and of the arena, and be used by nobody else.
    pub(crate) const unsafe fn new(directory: Vec<SegmentRef>, shift: u32, arena: SegmentArena, slab: Slab) -> Self {
        Self { directory, shift, arena, slab, types: PhantomData }
    }

    /// Memory held, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.directory.capacity() * size_of::<SegmentRef>() + self.arena.held_bytes() + self.slab.held_bytes()
    }

    /// Gives some of the memory back, the snapshot being done with it. False once there is none left.
    pub(crate) fn release_some(&mut self) -> bool {
        let mut from_heap = 0;
        for _ in 0..SEGMENTS_AT_ONCE {
            let Some(segment) = self.directory.pop() else { break };
            if self.directory.last() == Some(&segment) {
                // The entries of a segment are adjacent: it goes with the last one.
                continue;
            }
            // SAFETY: the segment is of this arena, and its entries are gone.
            from_heap += unsafe { segment.dissolve::<K, V>(&mut self.arena) } as usize;
            if from_heap == HEAP_SEGMENTS_AT_ONCE {
                return true;
            }
        }
        // SAFETY: all segments are gone once the directory is empty.
        !self.directory.is_empty() || unsafe { self.arena.release_some() } || self.slab.release_some()
    }
}

impl<K: Record, V: Record> Drop for Detached<K, V> {
    fn drop(&mut self) {
        while self.release_some() {}
    }
}
