//! `WakeSet`: the slots that must hear of what a task has just done.

use std::sync::atomic::{Ordering, fence};

use crate::SlotWaker;

/// Collects slots during a task's step and wakes the sleeping ones after it: one fence per step, none per channel.
pub(crate) struct WakeSet {
    own: usize,
    slots: Vec<SlotWaker>,
    marked: Vec<bool>,
    list: Vec<usize>,
}

impl WakeSet {
    /// An empty set, on slot `own` of `slots`.
    pub(crate) fn new(own: usize, slots: Vec<SlotWaker>) -> Self {
        let marked = vec![false; slots.len()];
        let list = Vec::with_capacity(slots.len());
        Self { own, slots, marked, list }
    }

    /// Notes a slot. The own one is awake.
    #[inline]
    pub(crate) fn insert(&mut self, slot: usize) {
        if slot != self.own && !std::mem::replace(&mut self.marked[slot], true) {
            self.list.push(slot);
        }
    }

    /// Wakes those that sleep, and forgets all.
    #[inline]
    pub(crate) fn wake(&mut self) {
        if self.list.is_empty() {
            return;
        }
        // Orders what was published before the look at the slots' states; its counterpart is in `prepare_park`.
        fence(Ordering::SeqCst);
        for slot in self.list.drain(..) {
            self.marked[slot] = false;
            self.slots[slot].wake_if_parked();
        }
    }
}
