//! What increments need to know beside the rows: which keys were removed, and which images they may go on from.

use std::{collections::VecDeque, sync::Arc};

use thalweg_model::{KeyGroupRange, Record};

use crate::{
    cell::Cells,
    row::{Layout, RowHeader},
    snapshot::SnapshotKind,
};

/// Bytes of removals that are kept in any case; beyond, half of what the rows take.
const FREE_BYTES: usize = 64 << 10;
/// Snapshots that wait to be confirmed: older ones are forgotten.
const MAX_CANDIDATES: usize = 64;
/// Age in epochs from which on no increment goes on from a snapshot.
pub(crate) const MAX_BASE_AGE: u16 = 1 << 13;

/// Bytes from which on a generation is full, so that none takes long to copy or to release.
const GENERATION_BYTES: usize = 64 << 10;
/// Generations that are released in one step.
const RELEASED_AT_ONCE: usize = 2;

/// Removals of one epoch, as an image has them.
#[derive(Clone)]
pub(crate) struct Generation {
    pub(crate) epoch: u16,
    pub(crate) bytes: Arc<Vec<u8>>,
    /// Their length, so that it can be told without going there.
    bytes_count: usize,
    pub(crate) rows: u64,
    pub(crate) groups: KeyGroupRange,
}

/// A snapshot that increments may go on from.
#[derive(Clone, Copy)]
struct Candidate {
    epoch: u16,
    is_increment: bool,
    /// Size of its image, once that is complete.
    bytes: Option<u64>,
}

/// Removals since the last confirmed snapshot, and the sizes of what was written.
#[derive(Default)]
pub(crate) struct Changes {
    generations: VecDeque<Generation>,
    bytes: usize,
    /// Generations that nobody needs any more, released by and by.
    gone: Vec<Generation>,
    candidates: VecDeque<Candidate>,
    base: Option<u16>,
    /// Bytes of the last confirmed full image, of the confirmed increments since, and of the last one of these.
    full_bytes: u64,
    increments_bytes: u64,
    last_increment_bytes: u64,
}

impl Changes {
    /// Memory held, in bytes.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes + self.gone.iter().map(|gone| gone.bytes_count).sum::<usize>()
    }

    /// The snapshot that an increment of this epoch goes on from.
    pub(crate) fn base(&self, epoch: u16) -> Option<u16> {
        self.base.filter(|&base| epoch.wrapping_sub(base) <= MAX_BASE_AGE)
    }

    /// Notes that a row is being removed.
    ///
    /// # Safety
    /// `row` must be an occupied row of a table of these types and cells.
    pub(crate) unsafe fn removed<K: Record, V: Record>(
        &mut self,
        row: *const u8,
        cells: &Cells,
        epoch: u16,
        rows_bytes: usize,
    ) {
        // SAFETY: as promised by the caller.
        let (header, bytes) = unsafe {
            (
                row.cast::<RowHeader>().read(),
                std::slice::from_raw_parts(row.add(Layout::<K, V>::KEY_AT), Layout::<K, V>::KEY_BYTES),
            )
        };
        let group = header.group() as u16;
        let is_full = |last: &Generation| last.epoch != epoch || last.bytes_count >= GENERATION_BYTES;
        if self.generations.back().is_none_or(is_full) {
            let groups = KeyGroupRange { start: group, end: group };
            self.generations.push_back(Generation { epoch, bytes: Arc::default(), bytes_count: 0, rows: 0, groups });
        }
        let last = self.generations.back_mut().expect("one has just been made");
        let to = Arc::get_mut(&mut last.bytes).expect("only those of past epochs are shared");
        let begin = to.len();
        to.extend_from_slice(&header.removed().to_bits().to_le_bytes());
        to.resize(begin + Layout::<K, V>::BYTES, 0);
        let key_at = begin + Layout::<K, V>::KEY_AT;
        to[key_at..key_at + bytes.len()].copy_from_slice(bytes);
        // SAFETY: as promised by the caller.
        if let Some(handle) = unsafe { Cells::handle::<K>(row.add(Layout::<K, V>::KEY_AT)) } {
            // SAFETY: as promised by the caller, the row's key is alive.
            to.extend_from_slice(unsafe { cells.slab.read(handle) });
        }
        last.bytes_count = to.len();
        last.rows += 1;
        last.groups = KeyGroupRange { start: last.groups.start.min(group), end: last.groups.end.max(group) };
        self.bytes += last.bytes_count - begin;
        if self.bytes > FREE_BYTES.max(rows_bytes / 2) {
            self.lose_base();
        }
    }

    /// From now on there is nothing that an increment could go on from.
    pub(crate) fn lose_base(&mut self) {
        self.gone.extend(self.generations.drain(..));
        self.bytes = 0;
        self.candidates.clear();
        self.base = None;
    }

    /// The removals since the barrier of a snapshot: nothing is added to them once another epoch has begun.
    pub(crate) fn since(&self, base: u16, now: u16) -> Vec<Generation> {
        let age = now.wrapping_sub(base);
        self.generations.iter().filter(|one| now.wrapping_sub(one.epoch) <= age).cloned().collect()
    }

    /// Notes that a snapshot has begun that increments may go on from.
    pub(crate) fn begun(&mut self, epoch: u16, is_increment: bool) {
        if self.candidates.len() == MAX_CANDIDATES {
            self.candidates.pop_front();
        }
        self.candidates.push_back(Candidate { epoch, is_increment, bytes: None });
    }

    /// Notes that the image of a snapshot is complete.
    pub(crate) fn taken(&mut self, epoch: u16, bytes: u64) {
        if let Some(candidate) = self.candidates.iter_mut().find(|candidate| candidate.epoch == epoch) {
            candidate.bytes = Some(bytes);
        }
    }

    /// Makes a snapshot the base of the next increment. Answers whether it is that now.
    pub(crate) fn confirm(&mut self, epoch: u16, now: u16) -> bool {
        let Some(at) = self.candidates.iter().position(|candidate| candidate.epoch == epoch) else {
            return self.base == Some(epoch);
        };
        let candidate = self.candidates[at];
        let Some(bytes) = candidate.bytes else { return false };
        self.candidates.drain(..=at);
        self.base = Some(epoch);
        if candidate.is_increment {
            self.increments_bytes += bytes;
            self.last_increment_bytes = bytes;
        } else {
            (self.full_bytes, self.increments_bytes, self.last_increment_bytes) = (bytes, 0, 0);
        }
        // What was removed before the barrier of the base is not in it.
        let age = now.wrapping_sub(epoch);
        while let Some(first) = self.generations.pop_front_if(|first| now.wrapping_sub(first.epoch) > age) {
            self.bytes -= first.bytes_count;
            self.gone.push(first);
        }
        true
    }

    /// Gives back a part of what nobody needs any more.
    pub(crate) fn release_some(&mut self) {
        self.gone.truncate(self.gone.len().saturating_sub(RELEASED_AT_ONCE));
    }

    /// Makes an image that a table was restored from the base of the next increment.
    pub(crate) fn restored(&mut self, epoch: u16, full_bytes: u64, increments_bytes: u64) {
        *self = Self { base: Some(epoch), full_bytes, increments_bytes, ..Self::default() };
    }

    /// A full image instead of an increment once all increments since the last one, with the next, come to half of it.
    pub(crate) fn suggested_kind(&self, epoch: u16) -> SnapshotKind {
        if self.base(epoch.wrapping_add(1)).is_none() {
            return SnapshotKind::Base;
        }
        let next = self.last_increment_bytes.max(self.bytes as u64);
        if (self.increments_bytes + next) * 2 > self.full_bytes { SnapshotKind::Base } else { SnapshotKind::Increment }
    }
}
