//! The channel: one way for pages from a sender to a receiver, with credits, and the way back.
//!
//! The data ring carries slices of pages; the page itself goes with its last slice, and comes home through the return
//! ring once that is read. The sender needs a credit to send the first slice of a page. Credits are a count that only grows:
//! the receiver allows so many pages in all, the sender has sent so many. The receiver allows one more when it has
//! read a page, and lends floating credits of its gate to a sender that announces a backlog.

use std::{mem::ManuallyDrop, sync::OnceLock};

use crate::{
    cursor::FrameCursor,
    frame::FrameLayout,
    in_flight::InFlight,
    pool::{Page, RawPage, Slab},
    ring::{Consumer, Producer, ring},
    sync::{Arc, AtomicU32, Ordering},
};

/// Bit of the sender's note that says that it will send nothing more; the rest is the backlog, in pages.
const CLOSED: u32 = 1 << 31;
/// Bit of a slice's end that says that the page goes with it.
const LAST: u32 = 1 << 31;

/// What a channel is made of.
#[derive(Clone, Copy, Debug)]
pub struct ChannelConfig {
    /// Pages that the sender may always have under way: at least one.
    pub exclusive_buffers: u32,
    /// Slices that may be queued: rounded up to a power of two. When they are used up, the sender accumulates.
    pub ring_slots: u32,
    /// Whether both ends are on one core, so that what is written into a page need not come over from another.
    pub same_core: bool,
}

/// The floating credits of a gate.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Floating {
    /// Credits not lent.
    pub(crate) free: u32,
    /// Credits that a channel keeps although it has no backlog, so that a steady stream does not lose them between two pages:
    /// its fair part of all.
    pub(crate) share: u32,
}

/// A published part of a page. With the mark it owns the page.
struct Slice {
    page: RawPage,
    start: u32,
    end: u32,
}

impl Slice {
    /// How long it is.
    const fn bytes(&self) -> usize {
        ((self.end & !LAST) - self.start) as usize
    }

    const fn is_last(&self) -> bool {
        self.end & LAST != 0
    }

    const fn end(&self) -> u32 {
        self.end & !LAST
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        if self.is_last() {
            // SAFETY: the last slice owns the page.
            drop(unsafe { Page::from_raw(self.page) });
        }
    }
}

/// A barrier that has overtaken what is queued: the priority lane beside the ring, of one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overtaking {
    /// The checkpoint.
    pub checkpoint: u64,
    /// How many bytes the sender had sent since the beginning: what is queued of them belongs to the checkpoint.
    pub sent_bytes: u64,
}

/// What both ends share beside the rings. Keeps the slab of the sender's pool mapped while either end lives.
struct Keep {
    slab: OnceLock<std::sync::Arc<Slab>>,
    /// Pages that the sender had to leave behind while the receiver could still read them.
    orphans: std::sync::Mutex<Vec<Page>>,
    /// Counts what was put into the priority lane. Written by the sender, read by the receiver.
    overtakings: AtomicU32,
    overtaking: std::sync::Mutex<Option<Overtaking>>,
}

impl Keep {
    fn new() -> Self {
        Self {
            slab: OnceLock::new(),
            orphans: std::sync::Mutex::default(),
            overtakings: AtomicU32::new(0),
            overtaking: std::sync::Mutex::default(),
        }
    }

    fn overtaking(&self) -> std::sync::MutexGuard<'_, Option<Overtaking>> {
        self.overtaking.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The sending end, for an [`EdgeWriter`](crate::EdgeWriter).
pub struct ChannelSender {
    data: Producer<Slice>,
    returns: Consumer<Page>,
    /// Pages whose first slice was sent, and pages allowed, since the beginning; both wrap.
    sent: u32,
    allowed: u32,
    /// Pages sent and not yet taken back: never more than the return ring holds, so that the receiver always finds a place.
    away: u32,
    note: u32,
    /// Bytes sent since the beginning.
    sent_bytes: u64,
    same_core: bool,
    keep: Arc<Keep>,
}

/// The receiving end, for a [`Gate`](crate::Gate).
pub struct ChannelReceiver {
    data: Consumer<Slice>,
    returns: Producer<Page>,
    /// What is being read: at most one slice.
    slice: Option<Slice>,
    allowed: u32,
    exclusive: u32,
    /// Credits lent by the gate, part of those allowed.
    lent: u32,
    /// Whether the sender was given something (a place, a page, a credit) since the gate last asked.
    gave: bool,
    /// Bytes read since the beginning, and how many barriers that overtook were seen.
    read_bytes: u64,
    overtakings: u32,
    keep: Arc<Keep>,
}

/// Makes a channel.
///
/// # Panics
/// Where there is no exclusive buffer, or more than 2^20 of anything.
pub fn channel(config: ChannelConfig) -> (ChannelSender, ChannelReceiver) {
    let ChannelConfig { exclusive_buffers, ring_slots, same_core } = config;
    assert!(exclusive_buffers >= 1, "a channel needs an exclusive buffer to make progress");
    assert!(exclusive_buffers <= 1 << 20 && ring_slots <= 1 << 20, "a channel of {config:?} is too large");
    let slots = ring_slots.max(1).next_power_of_two() as usize;
    let (data_in, data_out) = ring(slots);
    let (mut returns_in, returns_out) = ring(slots.max(2));
    returns_in.set_note(exclusive_buffers);
    let keep = Arc::new(Keep::new());
    let sender = ChannelSender {
        data: data_in,
        returns: returns_out,
        sent: 0,
        allowed: exclusive_buffers,
        away: 0,
        note: 0,
        sent_bytes: 0,
        same_core,
        keep: keep.clone(),
    };
    let receiver = ChannelReceiver {
        data: data_out,
        returns: returns_in,
        slice: None,
        allowed: exclusive_buffers,
        exclusive: exclusive_buffers,
        lent: 0,
        gave: false,
        read_bytes: 0,
        overtakings: 0,
        keep,
    };
    (sender, receiver)
}

impl ChannelSender {
    /// Keeps a slab mapped for as long as an end of the channel lives. Once, before anything is sent.
    pub(crate) fn keep(&mut self, slab: std::sync::Arc<Slab>) {
        assert!(self.keep.slab.set(slab).is_ok(), "a channel has one sender");
    }

    /// Whether the first slice of another page may be sent.
    fn has_credit(&mut self) -> bool {
        if self.sent == self.allowed {
            self.allowed = self.returns.note();
        }
        self.sent != self.allowed && (self.away as usize) < self.returns_slots()
    }

    fn returns_slots(&self) -> usize {
        self.data.slots().max(2)
    }

    /// Sends `start..end` of a page that stays open. Answers whether it could.
    ///
    /// # Safety
    /// The bytes are whole frames (of the layout that the receiver reads with), written and never written again; the page stays
    /// unreleased until [`send_last`](Self::send_last), from which the slices of a page follow each other without gaps.
    pub(crate) unsafe fn send_part(&mut self, page: &Page, start: u32, end: u32, first: bool) -> bool {
        if first && !self.has_credit() || !self.data.has_place() {
            return false;
        }
        let pushed = self.data.push(Slice { page: page.raw(), start, end });
        debug_assert!(pushed.is_ok());
        self.count(first, end - start);
        true
    }

    /// Sends the rest of a page, and the page with it.
    ///
    /// # Errors
    /// The page, if there is no credit or no place.
    ///
    /// # Safety
    /// As for [`send_part`](Self::send_part).
    pub(crate) unsafe fn send_last(&mut self, page: Page, start: u32, end: u32, first: bool) -> Result<(), Page> {
        if first && !self.has_credit() || !self.data.has_place() {
            return Err(page);
        }
        let pushed = self.data.push(Slice { page: page.into_raw(), start, end: end | LAST });
        debug_assert!(pushed.is_ok());
        self.count(first, end - start);
        Ok(())
    }

    fn count(&mut self, first: bool, bytes: u32) {
        self.sent_bytes += u64::from(bytes);
        if first {
            self.sent = self.sent.wrapping_add(1);
            self.away += 1;
        }
    }

    /// Whether the receiver is on the sender's core.
    pub(crate) const fn is_same_core(&self) -> bool {
        self.same_core
    }

    /// Bytes sent since the beginning.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Tells the receiver, past everything that is queued, that the barrier of a checkpoint belongs here.
    pub(crate) fn overtake(&mut self, checkpoint: u64) {
        *self.keep.overtaking() = Some(Overtaking { checkpoint, sent_bytes: self.sent_bytes });
        self.keep.overtakings.fetch_add(1, Ordering::Release);
    }

    /// A page that the receiver has read.
    pub(crate) fn take_returned(&mut self) -> Option<Page> {
        let page = self.returns.pop()?;
        self.away -= 1;
        Some(page)
    }

    /// Whether a page can be taken back this moment, or, for a sender that is `stalled`, something could be sent.
    pub(crate) fn has_news(&self, stalled: bool) -> bool {
        !self.returns.is_empty() || (stalled && self.data.has_place_now() && self.returns.note() != self.sent)
    }

    /// Tells the receiver how many pages wait for a credit.
    pub(crate) fn announce(&mut self, backlog: usize) {
        self.set_note(backlog.min(CLOSED as usize - 1) as u32 | (self.note & CLOSED));
    }

    /// Tells the receiver that nothing more will come.
    pub(crate) fn close(&mut self) {
        self.set_note(CLOSED);
    }

    fn set_note(&mut self, note: u32) {
        if self.note != note {
            self.note = note;
            self.data.set_note(note);
        }
    }

    /// Leaves behind a page that the receiver may still be reading.
    pub(crate) fn orphan(&mut self, page: Page) {
        self.keep.orphans.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(page);
    }
}

impl Drop for ChannelSender {
    fn drop(&mut self) {
        self.close();
    }
}

impl ChannelReceiver {
    /// What there is to read: the current slice, whole frames. Empty if there is none.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.slice {
            // SAFETY: the sender published these bytes and never writes them again; the page lives until the slice is
            // consumed, for which `self` must be borrowed mutably; the slab lives as long as `self` keeps it.
            Some(slice) => unsafe {
                std::slice::from_raw_parts(
                    slice.page.start().add(slice.start as usize),
                    (slice.end() - slice.start) as usize,
                )
            },
            None => &[],
        }
    }

    /// A cursor over what there is to read.
    #[inline]
    pub(crate) fn cursor(&self, layout: FrameLayout) -> FrameCursor<'_> {
        // SAFETY: slices are whole frames of the layout of the edge, which the receiver's gate was given too.
        unsafe { FrameCursor::new(self.bytes(), layout) }
    }

    /// Has something to read, if something has come. `floating` are the credits that the gate can lend.
    pub(crate) fn advance(&mut self, floating: &mut Floating) -> bool {
        loop {
            match &mut self.slice {
                Some(slice) if slice.start < slice.end() => return true,
                Some(slice) if slice.is_last() => self.give_back(floating),
                _ => {}
            }
            let Some(mut slice) = self.data.pop() else { return false };
            while !slice.is_last()
                && let Some(next) = self.data.peek()
                && next.page == slice.page
            {
                debug_assert_eq!(next.start, slice.end());
                if let Some(next) = self.data.pop() {
                    // The page goes with `slice` now.
                    slice.end = ManuallyDrop::new(next).end;
                }
            }
            self.slice = Some(slice);
            self.gave = true;
            self.lend(floating);
        }
    }

    /// Bytes from the start of what there was to read have been read.
    #[inline]
    pub(crate) fn consume(&mut self, bytes: usize, floating: &mut Floating) {
        let Some(slice) = &mut self.slice else {
            assert_eq!(bytes, 0, "more was consumed than there was");
            return;
        };
        assert!(bytes <= (slice.end() - slice.start) as usize, "more was consumed than there was");
        self.read_bytes += bytes as u64;
        slice.start += bytes as u32;
        if slice.start == slice.end() && slice.is_last() {
            self.give_back(floating);
        }
    }

    /// A barrier that has overtaken what is queued, once.
    #[inline]
    pub(crate) fn take_overtaking(&mut self) -> Option<Overtaking> {
        let count = self.keep.overtakings.load(Ordering::Acquire);
        if count == self.overtakings {
            return None;
        }
        self.overtakings = count;
        self.keep.overtaking().take()
    }

    /// Whether a barrier has overtaken what is queued that was not taken yet.
    pub(crate) fn is_overtaken(&self) -> bool {
        self.keep.overtakings.load(Ordering::Acquire) != self.overtakings
    }

    /// Copies what is queued up to a number of bytes since the beginning, which the sender has sent.
    pub(crate) fn copy_queued(&self, up_to_bytes: u64, layout: FrameLayout, into: &mut InFlight) {
        let mut left = up_to_bytes.saturating_sub(self.read_bytes) as usize;
        let here = self.bytes();
        let now = here.len().min(left);
        into.copy_frames(&here[..now], layout);
        left -= now;
        for slice in self.data.waiting() {
            if left == 0 {
                break;
            }
            // SAFETY: as in `bytes`: the slice is queued, so its page lives, and its bytes are published.
            let bytes =
                unsafe { std::slice::from_raw_parts(slice.page.start().add(slice.start as usize), slice.bytes()) };
            let now = bytes.len().min(left);
            into.copy_frames(&bytes[..now], layout);
            left -= now;
        }
        debug_assert_eq!(left, 0, "what was sent before the barrier is queued");
    }

    /// Sends the page of the current slice home, and the credit with it, unless the gate wants it back.
    fn give_back(&mut self, floating: &mut Floating) {
        let Some(slice) = self.slice.take() else { return };
        let slice = ManuallyDrop::new(slice);
        // SAFETY: this is the last slice, which owns the page, and it is not dropped.
        let page = unsafe { Page::from_raw(slice.page) };
        if self.lent > floating.share && self.backlog() == 0 {
            self.lent -= 1;
            floating.free += 1;
        } else {
            self.allowed = self.allowed.wrapping_add(1);
            self.returns.set_note(self.allowed);
        }
        let pushed = self.returns.push(page);
        assert!(pushed.is_ok(), "the sender keeps fewer pages under way than the return ring holds");
        self.gave = true;
        self.lend(floating);
    }

    /// Lends the sender floating credits for its backlog.
    fn lend(&mut self, floating: &mut Floating) {
        let lent = self.backlog().saturating_sub(self.lent).min(floating.free);
        if lent > 0 {
            floating.free -= lent;
            self.lent += lent;
            self.allowed = self.allowed.wrapping_add(lent);
            self.returns.set_note(self.allowed);
            self.gave = true;
        }
    }

    fn backlog(&self) -> u32 {
        self.data.note() & !CLOSED
    }

    /// Reads everything away.
    pub(crate) fn discard(&mut self, floating: &mut Floating) {
        while self.advance(floating) {
            let bytes = self.bytes().len();
            self.consume(bytes, floating);
        }
    }

    /// Whether the sender has closed and everything it sent has been read.
    pub(crate) fn is_drained(&self) -> bool {
        let closed = self.data.note() & CLOSED != 0;
        let page_held = self.slice.as_ref().is_some_and(|slice| slice.start < slice.end() || slice.is_last());
        closed && self.data.is_empty() && !page_held
    }

    /// Whether slices have come that are not read, this moment.
    pub(crate) fn has_more(&self) -> bool {
        !self.data.is_empty()
    }

    /// Slices queued, with the one being read.
    pub(crate) fn queued(&self) -> usize {
        self.data.len() + !self.bytes().is_empty() as usize
    }

    /// Bytes queued, with those being read.
    pub(crate) fn queued_bytes(&self) -> usize {
        let queued: usize = self.data.waiting().map(Slice::bytes).sum();
        queued + self.bytes().len()
    }

    /// Pages that the sender may have under way at any time, and those lent to it now.
    pub(crate) const fn capacity_buffers(&self) -> u32 {
        self.exclusive + self.lent
    }

    /// Whether the sender was given places, pages or credits since the last call.
    pub(crate) fn take_gave(&mut self) -> bool {
        std::mem::take(&mut self.gave)
    }
}

impl Drop for ChannelReceiver {
    fn drop(&mut self) {
        self.discard(&mut Floating::default());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pool::{PagePool, PoolConfig};

    proptest! {
        /// Whatever the two ends do, no more pages are under way than credits were given, nor more floating credits lent than
        /// the gate has; and the receiver sees the pages in order.
        #[test]
        fn when_both_ends_act_at_random_then_credits_are_never_exceeded(
            exclusive_buffers in 1u32..4, floating_count in 0u32..6, ops in prop::collection::vec((0u8..4, 0u32..9), 1..300),
        ) {
            let config = PoolConfig { page_bytes: 64, pages: 1, huge_pages: false, max_overdraft_pages: 100 };
            let pool = PagePool::new(config).expect("memory");
            let (mut sender, mut receiver) = channel(ChannelConfig { exclusive_buffers, ring_slots: 4, same_core: false });
            let mut floating = Floating { free: floating_count, share: 1 };
            let (mut sent, mut read, mut home) = (0u32, 0u32, 0u32);
            for (op, argument) in ops {
                match op {
                    0 => {
                        let page = pool.acquire_overdraft().expect("few are under way");
                        // SAFETY: the page is owned here, and has eight bytes.
                        unsafe { page.as_ptr().cast::<u64>().write(sent as u64) };
                        // SAFETY: the test reads bytes, not frames; they are not written any more.
                        match unsafe { sender.send_last(page, 0, 8, true) } {
                            Ok(()) => sent += 1,
                            Err(page) => pool.release(page),
                        }
                    }
                    1 => sender.announce(argument as usize),
                    2 => while let Some(page) = sender.take_returned() {
                        home += 1;
                        pool.release(page);
                    },
                    _ => if receiver.advance(&mut floating) {
                        prop_assert_eq!(receiver.bytes(), (read as u64).to_ne_bytes());
                        receiver.consume(8, &mut floating);
                        read += 1;
                    },
                }
                prop_assert!(sent - read <= exclusive_buffers + floating_count);
                prop_assert!(sent - home <= 4, "the return ring holds four");
                prop_assert_eq!(floating.free + receiver.lent, floating_count);
                prop_assert_eq!(pool.in_use() as u32, sent - home);
            }
        }
    }
}

/// Explored by loom: credits and pages between two cores.
#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{model::Builder, thread};

    use super::*;
    use crate::pool::{PagePool, PoolConfig};

    /// One exclusive credit and a floating one, two pages: the second needs either the floating credit or the first one's return.
    #[test]
    fn loom_when_pages_need_credits_then_all_arrive_and_come_home() {
        let mut bounded = Builder::new();
        bounded.preemption_bound = Some(3);
        bounded.check(|| {
            let (mut sender, mut receiver) =
                channel(ChannelConfig { exclusive_buffers: 1, ring_slots: 2, same_core: false });
            let sending = thread::spawn(move || {
                let config = PoolConfig { page_bytes: 64, pages: 2, huge_pages: false, max_overdraft_pages: 0 };
                let pool = PagePool::new(config).expect("memory");
                sender.keep(pool.slab());
                for n in 0..2u64 {
                    let mut page = pool.acquire().expect("a page for each");
                    // SAFETY: the page is owned here, and has eight bytes.
                    unsafe { page.as_ptr().cast::<u64>().write(n) };
                    // SAFETY: the test reads bytes, not frames; they are not written any more.
                    while let Err(back) = unsafe { sender.send_last(page, 0, 8, true) } {
                        page = back;
                        sender.announce(1);
                        thread::yield_now();
                    }
                }
                while pool.in_use() > 0 {
                    match sender.take_returned() {
                        Some(page) => pool.release(page),
                        None => thread::yield_now(),
                    }
                }
            });
            let mut floating = Floating { free: 1, share: 0 };
            for n in 0..2u64 {
                while !receiver.advance(&mut floating) {
                    thread::yield_now();
                }
                assert_eq!(receiver.bytes(), n.to_ne_bytes());
                receiver.consume(8, &mut floating);
            }
            assert!(floating.free <= 1);
            sending.join().unwrap();
            assert!(receiver.is_drained());
        });
    }
}
