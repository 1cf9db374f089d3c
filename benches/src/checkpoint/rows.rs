//! What the jobs keep per key: a count, wide as a customer's record or narrow as a number.

use thalweg::prelude::*;

use crate::workloads::event::{Event, EventView};

/// Bytes of a wide row, key included.
pub(super) const WIDE_ROW_BYTES: u64 = 200;

/// The count of a key, and when the record was due that made it so.
#[derive(Record, Clone, Copy, Debug, Default)]
pub(super) struct Latest {
    pub(super) count: u64,
    pub(super) due_ns: u64,
}

/// Eleven words.
#[derive(Record, Clone, Copy, Debug, Default)]
struct Eleven {
    a: u64,
    b: u64,
    c: u64,
    d: u64,
    e: u64,
    f: u64,
    g: u64,
    h: u64,
    i: u64,
    j: u64,
    k: u64,
}

/// As [`Latest`], with as much beside it as makes 192 bytes.
#[derive(Record, Clone, Copy, Debug, Default)]
pub(super) struct Wide {
    latest: Latest,
    left: Eleven,
    right: Eleven,
}

/// Counts into narrow rows, of 24 bytes with the key.
#[derive(Clone, Copy)]
pub(super) struct CountNarrow;

/// Counts into wide rows, of 200 bytes with the key.
#[derive(Clone, Copy)]
pub(super) struct CountWide;

impl Latest {
    #[inline(always)]
    fn add(&mut self, event: EventView) {
        self.count += 1;
        self.due_ns = event.ts;
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.due_ns = self.due_ns.max(other.due_ns);
    }
}

impl AggregateFunction<Event> for CountNarrow {
    type Acc = Latest;
    type Out = Latest;

    #[inline(always)]
    fn create(&self) -> Latest {
        Latest::default()
    }
    #[inline(always)]
    fn add(&self, acc: &mut Latest, event: EventView) {
        acc.add(event);
    }
    fn merge(&self, acc: &mut Latest, other: &Latest) {
        acc.merge(other);
    }
    #[inline(always)]
    fn result(&self, acc: &Latest) -> Latest {
        *acc
    }
}

impl AggregateFunction<Event> for CountWide {
    type Acc = Wide;
    type Out = Latest;

    #[inline(always)]
    fn create(&self) -> Wide {
        Wide::default()
    }
    #[inline(always)]
    fn add(&self, acc: &mut Wide, event: EventView) {
        acc.latest.add(event);
        // Something at the far end of the row, so that it is there and not only its first line.
        acc.right.k = event.value;
    }
    fn merge(&self, acc: &mut Wide, other: &Wide) {
        acc.latest.merge(&other.latest);
        acc.right.k = acc.right.k.max(other.right.k);
    }
    #[inline(always)]
    fn result(&self, acc: &Wide) -> Latest {
        acc.latest
    }
}

const _: () = assert!(size_of::<Wide>() + size_of::<u64>() == WIDE_ROW_BYTES as usize);
