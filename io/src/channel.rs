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
    pool::{Page, RawPage, Slab},
    ring::{Consumer, Producer, ring},
    sync::Arc,
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
}

/// A published part of a page. With the mark it owns the page.
struct Slice {
    page: RawPage,
    start: u32,
    end: u32,
}

impl Slice {
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

/// Keeps the slab of the sender's pool mapped while either end lives.
#[derive(Default)]
struct Keep {
    slab: OnceLock<std::sync::Arc<Slab>>,
    /// Pages that the sender had to leave behind while the receiver could still read them.
    orphans: std::sync::Mutex<Vec<Page>>,
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
    keep: Arc<Keep>,
}

/// The receiving end, for a [`Gate`](crate::Gate).
pub struct ChannelReceiver {
    data: Consumer<Slice>,
    returns: Producer<Page>,
    /// What is being read: at most one slice.
    slice: Option<Slice>,
    allowed: u32,
    /// Credits lent by the gate, part of those in use.
    floating: u32,
    /// Whether the sender was given something (a place, a page, a credit) since the gate last asked.
    gave: bool,
    _keep: Arc<Keep>,
}

/// Makes a channel.
///
/// # Panics
/// Where there is no exclusive buffer, or more than 2^20 of anything.
pub fn channel(config: ChannelConfig) -> (ChannelSender, ChannelReceiver) {
    let ChannelConfig { exclusive_buffers, ring_slots } = config;
    assert!(exclusive_buffers >= 1, "a channel needs an exclusive buffer to make progress");
    assert!(exclusive_buffers <= 1 << 20 && ring_slots <= 1 << 20, "a channel of {config:?} is too large");
    let slots = ring_slots.max(1).next_power_of_two() as usize;
    let (data_in, data_out) = ring(slots);
    let (mut returns_in, returns_out) = ring(slots.max(2));
    returns_in.set_note(exclusive_buffers);
    let keep = Arc::new(Keep::default());
    let sender = ChannelSender {
        data: data_in,
        returns: returns_out,
        sent: 0,
        allowed: exclusive_buffers,
        away: 0,
        note: 0,
        keep: keep.clone(),
    };
    let receiver = ChannelReceiver {
        data: data_out,
        returns: returns_in,
        slice: None,
        allowed: exclusive_buffers,
        floating: 0,
        gave: false,
        _keep: keep,
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
        self.count(first);
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
        self.count(first);
        Ok(())
    }

    fn count(&mut self, first: bool) {
        if first {
            self.sent = self.sent.wrapping_add(1);
            self.away += 1;
        }
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

    /// Has something to read, if something has come. `free_floating` are the credits that the gate can lend.
    pub(crate) fn advance(&mut self, free_floating: &mut u32) -> bool {
        loop {
            match &mut self.slice {
                Some(slice) if slice.start < slice.end() => return true,
                Some(slice) if slice.is_last() => self.give_back(free_floating),
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
            self.lend(free_floating);
        }
    }

    /// Bytes from the start of what there was to read have been read.
    #[inline]
    pub(crate) fn consume(&mut self, bytes: usize, free_floating: &mut u32) {
        let Some(slice) = &mut self.slice else {
            assert_eq!(bytes, 0, "more was consumed than there was");
            return;
        };
        assert!(bytes <= (slice.end() - slice.start) as usize, "more was consumed than there was");
        slice.start += bytes as u32;
        if slice.start == slice.end() && slice.is_last() {
            self.give_back(free_floating);
        }
    }

    /// Sends the page of the current slice home, and the credit with it, unless the gate wants it back.
    fn give_back(&mut self, free_floating: &mut u32) {
        let Some(slice) = self.slice.take() else { return };
        let slice = ManuallyDrop::new(slice);
        // SAFETY: this is the last slice, which owns the page, and it is not dropped.
        let page = unsafe { Page::from_raw(slice.page) };
        if self.floating > 0 && self.backlog() == 0 {
            self.floating -= 1;
            *free_floating += 1;
        } else {
            self.allowed = self.allowed.wrapping_add(1);
            self.returns.set_note(self.allowed);
        }
        let pushed = self.returns.push(page);
        assert!(pushed.is_ok(), "the sender keeps fewer pages under way than the return ring holds");
        self.gave = true;
        self.lend(free_floating);
    }

    /// Lends the sender floating credits for its backlog.
    fn lend(&mut self, free_floating: &mut u32) {
        let lent = self.backlog().saturating_sub(self.floating).min(*free_floating);
        if lent > 0 {
            *free_floating -= lent;
            self.floating += lent;
            self.allowed = self.allowed.wrapping_add(lent);
            self.returns.set_note(self.allowed);
            self.gave = true;
        }
    }

    fn backlog(&self) -> u32 {
        self.data.note() & !CLOSED
    }

    /// Reads everything away.
    pub(crate) fn discard(&mut self, free_floating: &mut u32) {
        while self.advance(free_floating) {
            let bytes = self.bytes().len();
            self.consume(bytes, free_floating);
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

    /// Whether the sender was given places, pages or credits since the last call.
    pub(crate) fn take_gave(&mut self) -> bool {
        std::mem::take(&mut self.gave)
    }
}

impl Drop for ChannelReceiver {
    fn drop(&mut self) {
        self.discard(&mut 0);
    }
}
