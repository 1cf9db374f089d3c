//! `TimerQueue`: timers by key, namespace and time, each at most once, popped in the order of their times.
//!
//! The timers are rows of a table; a heap of their times is an index beside it, with exactly one entry for each row.
//! Deleting only marks the row, so that its entry stays valid; it goes when its time comes, when the timer is
//! registered again (which unmarks it) or when the sweep that deletions drive meets it.

use thalweg_model::{KeyHash, Record};

use crate::{
    heap::{Entry, TimerHeap},
    image::{Extent, ImageError, ImageIndex, Structure},
    place::{Salt, TableConfig, mix64},
    restore::Restore,
    row::Found,
    scan::Cursor,
    snapshot::{Begun, ImageSink, Progress, SnapshotKind, SnapshotRunning, Snapshots},
    table::RowTable,
};

/// Entries that each deletion examines once there are many deleted timers.
const SWEEP_ENTRIES: usize = 4;
/// Deleted timers that are left where they are in any case.
const SWEEP_AT_DELETED: usize = 64;

/// The rows of timers: false once deleted.
type TimerRows<K> = RowTable<(K, i64, i64), bool, TimerSalt>;

/// Timers of one operator in one time domain.
///
/// As with the tables, every key comes with its hash.
pub struct TimerQueue<K: Record> {
    /// The timers; the value is false once deleted.
    rows: TimerRows<K>,
    heap: TimerHeap,
    deleted: usize,
    /// Where in the heap the sweep goes on.
    sweep_at: usize,
}

/// A timer with its own copy of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timer<K> {
    /// When it is due, in milliseconds.
    pub timestamp: i64,
    /// What else than the key it belongs to: the window, say.
    pub namespace: i64,
    /// Hash of the key.
    pub hash: KeyHash,
    /// The key.
    pub key: K,
}

/// A timer as it lies in the queue.
#[non_exhaustive]
pub struct TimerView<'a, K: Record> {
    /// When it is due, in milliseconds.
    pub timestamp: i64,
    /// What else than the key it belongs to: the window, say.
    pub namespace: i64,
    /// Hash of the key.
    pub hash: KeyHash,
    /// The key.
    pub key: K::View<'a>,
}

/// Keeps the timers of one key apart.
struct TimerSalt;

impl<K: Record> Salt<(K, i64, i64)> for TimerSalt {
    #[inline(always)]
    fn salt((_, namespace, timestamp): (K::View<'_>, i64, i64)) -> u32 {
        salt_of(namespace, timestamp)
    }
}

#[inline(always)]
const fn salt_of(namespace: i64, timestamp: i64) -> u32 {
    mix64(namespace as u64 ^ (timestamp as u64).rotate_left(32))
}

impl<K: Record> TimerQueue<K> {
    /// A queue without timers.
    pub fn new(config: TableConfig) -> Self {
        Self { rows: RowTable::new(config), heap: TimerHeap::default(), deleted: 0, sweep_at: 0 }
    }

    /// How many timers there are.
    pub const fn len(&self) -> usize {
        self.rows.len() - self.deleted
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory held, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.rows.memory_bytes() + self.heap.held_bytes()
    }

    /// Registers a timer. False if there is one of this key, namespace and time already.
    pub fn register(&mut self, hash: KeyHash, key: K::View<'_>, namespace: i64, timestamp: i64) -> bool {
        let (mut is_new, mut was_live) = (false, false);
        let init = || {
            is_new = true;
            false
        };
        self.rows.modify_or_insert(hash, (key, namespace, timestamp), init, |live| {
            was_live = std::mem::replace(live, true);
        });
        if is_new {
            self.heap.push(Entry { timestamp, hash: hash.0, salt: salt_of(namespace, timestamp) });
        } else if !was_live {
            self.deleted -= 1;
        }
        !was_live
    }

    /// Deletes a timer. True if there was one.
    pub fn delete(&mut self, hash: KeyHash, key: K::View<'_>, namespace: i64, timestamp: i64) -> bool {
        let identity = (key, namespace, timestamp);
        if self.rows.get(hash, identity) != Some(true) {
            return false;
        }
        self.rows.insert(hash, identity, false);
        self.deleted += 1;
        self.sweep();
        true
    }

    /// When the earliest timer is due, in milliseconds. A deleted timer may still be the one that is named.
    pub fn next(&self) -> Option<i64> {
        self.heap.first().map(|entry| entry.timestamp)
    }

    /// Takes the earliest timer out, if it is due at `up_to` or before. Order among equal times is arbitrary.
    pub fn pop_due(&mut self, up_to: i64) -> Option<Timer<K>> {
        self.pop_due_with(up_to, |timer| Timer {
            timestamp: timer.timestamp,
            namespace: timer.namespace,
            hash: timer.hash,
            key: K::from_view(timer.key),
        })
    }

    /// As [`Self::pop_due`], but `f` gets to see the timer in place. If `f` panics, the timer stays.
    pub fn pop_due_with<R>(&mut self, up_to: i64, f: impl FnOnce(TimerView<'_, K>) -> R) -> Option<R> {
        loop {
            let entry = self.heap.first().filter(|entry| entry.timestamp <= up_to)?;
            let found = self.find(entry);
            // SAFETY: the row exists and stays as it is until it is removed below.
            let live = unsafe { self.rows.value_of(found.row) };
            if live {
                // SAFETY: as above. The hash is the row's: its entry may be that of another such row.
                let (key, hash) = unsafe { (self.rows.key_of(found.row), self.rows.hash_of(found.row)) };
                let (key, namespace, timestamp) = key;
                let answer = f(TimerView { timestamp, namespace, hash, key });
                self.remove(0, entry, found);
                return Some(answer);
            }
            self.remove(0, entry, found);
            self.deleted -= 1;
        }
    }

    /// The next timer of a scan in arbitrary order, as with [`RowTable::next`].
    pub fn next_timer(&self, cursor: &mut Cursor) -> Option<TimerView<'_, K>> {
        loop {
            let ((key, namespace, timestamp), live, hash) = self.rows.next(cursor)?;
            if live {
                return Some(TimerView { timestamp, namespace, hash, key });
            }
        }
    }

    /// Calls `f` with every timer, in arbitrary order.
    pub fn for_each(&self, mut f: impl FnMut(TimerView<'_, K>)) {
        let mut cursor = Cursor::default();
        while let Some(timer) = self.next_timer(&mut cursor) {
            f(timer);
        }
    }

    /// Removes all timers and gives the memory back.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.heap.clear();
        self.deleted = 0;
        self.sweep_at = 0;
    }

    /// A row that the entry may stand for.
    ///
    /// Rows that agree in key group, tag and time are indistinguishable to their entries, and there are as many of the
    /// one as of the other; whichever row is found, each is found once.
    fn find(&self, entry: Entry) -> Found {
        self.rows
            .find_where(KeyHash(entry.hash), entry.salt, |(_, _, timestamp)| timestamp == entry.timestamp)
            .expect("every entry of the heap has its row")
    }

    fn remove(&mut self, at: usize, entry: Entry, found: Found) {
        // SAFETY: the row was found with this hash and salt and is still there.
        unsafe { self.rows.remove_row(KeyHash(entry.hash), entry.salt, found) };
        self.heap.remove(at);
    }

    /// Looks at a few entries for deleted timers, once these are more than half as many as the others.
    fn sweep(&mut self) {
        if self.deleted <= SWEEP_AT_DELETED + self.len() / 2 {
            return;
        }
        for _ in 0..SWEEP_ENTRIES {
            let Some(entry) = self.heap.get(self.sweep_at) else {
                self.sweep_at = 0;
                continue;
            };
            let found = self.find(entry);
            // SAFETY: the row exists.
            if unsafe { self.rows.value_of(found.row) } {
                self.sweep_at += 1;
            } else {
                self.remove(self.sweep_at, entry, found);
                self.deleted -= 1;
            }
        }
    }
}

impl<K: Record> Snapshots for TimerQueue<K> {
    fn begin_snapshot(&mut self, kind: SnapshotKind) -> Result<Begun, SnapshotRunning> {
        self.rows.begin(kind, TimerRows::<K>::shape(Structure::Timers))
    }

    fn snapshot_step(&mut self, budget_ns: u32, sink: &mut dyn ImageSink) -> Progress {
        self.rows.snapshot_step(budget_ns, sink)
    }

    fn abort_snapshot(&mut self) {
        self.rows.abort_snapshot();
    }

    fn confirm_snapshot(&mut self, epoch: u16) -> bool {
        self.rows.confirm_snapshot(epoch)
    }

    fn suggested_kind(&self) -> SnapshotKind {
        self.rows.suggested_kind()
    }

    fn is_snapshot_running(&self) -> bool {
        self.rows.is_snapshot_running()
    }
}

impl<K: Record> Restore for TimerQueue<K> {
    fn with_room_for(config: TableConfig, images: &[ImageIndex]) -> Result<Self, ImageError> {
        let rows = TimerRows::<K>::roomy(config, TimerRows::<K>::shape(Structure::Timers), images)?;
        Ok(Self { rows, heap: TimerHeap::default(), deleted: 0, sweep_at: 0 })
    }

    fn take_in(&mut self, image: &ImageIndex, extent: &Extent, bytes: &[u8]) -> Result<(), ImageError> {
        self.rows.take_in(image, extent, bytes)
    }

    fn restored(&mut self, base: Option<u16>, images: &[ImageIndex]) -> Result<(), ImageError> {
        // The heap is not part of the image: it is made of the rows.
        let Self { rows, heap, deleted, .. } = self;
        rows.for_each(|(_, namespace, timestamp), live, hash| {
            heap.push(Entry { timestamp, hash: hash.0, salt: salt_of(namespace, timestamp) });
            *deleted += !live as usize;
        });
        rows.take_base(base, images);
        Ok(())
    }
}
