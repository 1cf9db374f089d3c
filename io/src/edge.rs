//! The edge writer: one output edge with its channels, the sending side.
//!
//! Owns the open page of each channel and what waits for credits behind it. Never waits and never fails for lack of
//! room: a caller that minds [`EdgeWriter::room`] between records keeps memory within
//! [`EdgeConfig::max_pages`]; one that does not is carried by overdraft pages up to the pool's limit.

use std::{collections::VecDeque, rc::Rc};

use thalweg_model::{Elem, EncodeScratch, KeyHash, Record, record::encode_large};

use crate::{
    channel::ChannelSender,
    control::Control,
    edge_config::{EdgeConfig, EdgeCounters, EdgeError},
    frame::{FRAGMENT, FrameLayout, LAST_FRAGMENT, LEN_MASK},
    in_flight::InFlight,
    open_page::OpenPage,
    pool::{Page, PagePool},
};

/// A page that waits for a credit or a place, with what of it is still to be sent.
struct Waiting {
    page: Page,
    start: u32,
    end: u32,
    /// Whether the receiver has slices of it already.
    started: bool,
}

/// The colder half of a channel.
struct Lane {
    sender: ChannelSender,
    /// The open page.
    page: Option<Page>,
    /// Whether the receiver has slices of the open page.
    started: bool,
    /// Whether what is in the open page was to be published and could not be yet.
    flush_wanted: bool,
    waiting: VecDeque<Waiting>,
    /// Pages closed and not yet back.
    away: usize,
    /// Whether something was sent since the runtime last asked whom to wake.
    touched: bool,
    /// The checkpoint whose barrier was written last, and where it begins: bytes since the beginning.
    barrier: Option<(u64, u64)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Writing,
    Finished,
    /// Whatever is written is dropped.
    Discarding,
}

/// The sending side of an edge.
pub struct EdgeWriter {
    room: bool,
    layout: FrameLayout,
    open: Box<[OpenPage]>,
    scratch: EncodeScratch,
    lanes: Vec<Lane>,
    pool: Rc<PagePool>,
    config: EdgeConfig,
    /// Pages that this edge has out of the pool, and those of them that are closed.
    held: usize,
    closed: usize,
    phase: Phase,
    error: Option<EdgeError>,
    bytes: u64,
    buffers: u64,
}

impl EdgeWriter {
    /// The writer of an edge whose channels lead to the senders' receivers.
    ///
    /// # Panics
    /// Where the configuration breaks a rule stated at its field, the pool's pages are smaller than
    /// [`FrameLayout::min_page_bytes`], or a sender was used before.
    pub fn new(config: EdgeConfig, senders: Vec<ChannelSender>, pool: Rc<PagePool>) -> Self {
        assert!(
            config.buffers_per_channel >= 1 && config.extra_buffers >= 1 && config.max_buffers_per_channel >= 1,
            "an edge needs a page for each channel and one more: {config:?}"
        );
        assert!(config.max_record_bytes <= LEN_MASK as usize, "a record is below 256 MiB: {config:?}");
        assert!(pool.page_bytes() >= config.layout.min_page_bytes(), "pages are too small for {:?}", config.layout);
        let lane = |mut sender: ChannelSender| {
            sender.keep(pool.slab());
            let waiting = VecDeque::with_capacity(config.max_buffers_per_channel + 1);
            Lane {
                sender,
                page: None,
                started: false,
                flush_wanted: false,
                waiting,
                away: 0,
                touched: false,
                barrier: None,
            }
        };
        let lanes: Vec<_> = senders.into_iter().map(lane).collect();
        Self {
            room: true,
            layout: config.layout,
            open: lanes.iter().map(|lane| OpenPage::none(lane.sender.is_same_core())).collect(),
            scratch: EncodeScratch::default(),
            lanes,
            pool,
            config,
            held: 0,
            closed: 0,
            phase: Phase::Writing,
            error: None,
            bytes: 0,
            buffers: 0,
        }
    }

    /// Writes a record to a channel. Never fails for lack of room; see [`room`](Self::room) and [`take_error`](Self::take_error).
    /// Answers whether [`room`](Self::room) may have changed.
    ///
    /// # Panics
    /// Where there is no such channel, the type needs another alignment than the layout's, or the edge is finished.
    #[inline(always)]
    pub fn write<T: Record>(&mut self, channel: usize, elem: &Elem<'_, T>, hash: KeyHash) -> bool {
        let put = self.open[channel].put(elem, hash, self.layout, &mut self.scratch);
        if !put {
            // A copy, so that the caller's element need not be in memory on the fast path.
            let elem = *elem;
            self.write_slow(channel, &elem, hash);
        }
        !put
    }

    /// Whether the next record can be written without an overdraft. Callers stop between records when it is false.
    #[inline(always)]
    pub fn room(&self) -> bool {
        self.room
    }

    /// The number of channels.
    #[inline]
    pub fn channels(&self) -> usize {
        self.open.len()
    }

    /// Writes a control element to a channel, behind everything written to it. Needs no room.
    ///
    /// # Panics
    /// Where there is no such channel, or the edge is finished.
    pub fn write_control(&mut self, channel: usize, control: Control) {
        if self.open[channel].put_control(control, self.layout) {
            return;
        }
        if self.fresh_page(channel) {
            let put = self.open[channel].put_control(control, self.layout);
            assert!(put, "a page holds a control element");
        }
    }

    /// Writes a control element to all channels.
    pub fn broadcast_control(&mut self, control: Control) {
        (0..self.open.len()).for_each(|channel| self.write_control(channel, control));
    }

    /// Writes the barrier of a checkpoint to all channels, in line.
    pub fn write_barrier(&mut self, control: Control) {
        let Control::Barrier { checkpoint, .. } = control else { return };
        for channel in 0..self.open.len() {
            let at = self.lanes[channel].sender.sent_bytes() + self.unsent_bytes(channel);
            self.lanes[channel].barrier = Some((checkpoint, at));
            self.write_control(channel, control);
        }
    }

    /// Whether the barrier of a checkpoint that was written in line has not been sent on some channel.
    pub fn has_unsent_barrier(&self, checkpoint: u64) -> bool {
        (0..self.lanes.len()).any(|channel| self.unsent_barrier(channel, checkpoint).is_some())
    }

    fn unsent_barrier(&self, channel: usize, checkpoint: u64) -> Option<u64> {
        let lane = &self.lanes[channel];
        let (written, at) = lane.barrier?;
        (written == checkpoint && lane.sender.sent_bytes() <= at).then_some(at)
    }

    /// Lets the barrier of a checkpoint overtake what has not been sent; where it was written in line before, only where it
    /// has not been sent either. Answers, for each channel on which it did, what it overtook.
    pub fn overtake(&mut self, checkpoint: u64) -> Vec<(usize, InFlight)> {
        let mut overtaken = Vec::new();
        if self.phase != Phase::Writing {
            return overtaken;
        }
        for channel in 0..self.lanes.len() {
            self.open[channel].spill();
            let sent = self.lanes[channel].sender.sent_bytes();
            let up_to = match self.lanes[channel].barrier {
                Some((written, at)) if written == checkpoint => {
                    if sent > at {
                        continue;
                    }
                    at
                }
                _ => sent + self.unsent_bytes(channel),
            };
            let mut unsent = InFlight::default();
            self.copy_unsent(channel, (up_to - sent) as usize, &mut unsent);
            let lane = &mut self.lanes[channel];
            lane.sender.overtake(checkpoint);
            lane.touched = true;
            // From here on the barrier is where it belongs.
            lane.barrier = None;
            overtaken.push((channel, unsent));
        }
        overtaken
    }

    fn unsent_bytes(&self, channel: usize) -> u64 {
        let (start, end) = self.open[channel].unpublished();
        let closed = self.lanes[channel].waiting.iter().map(|waiting| u64::from(waiting.end - waiting.start));
        closed.sum::<u64>() + u64::from(end - start)
    }

    /// Copies so many of the bytes that have not been sent: whole frames. The open page must have been spilled.
    fn copy_unsent(&self, channel: usize, mut left: usize, into: &mut InFlight) {
        let lane = &self.lanes[channel];
        let closed = lane.waiting.iter().map(|waiting| (&waiting.page, waiting.start, waiting.end));
        let (start, end) = self.open[channel].unpublished();
        for (page, start, end) in closed.chain(lane.page.as_ref().map(|page| (page, start, end))) {
            let now = ((end - start) as usize).min(left);
            // SAFETY: the page is owned here and was written up to `end`, with whole frames, which have been spilled; nobody
            // writes it now.
            let bytes = unsafe { std::slice::from_raw_parts(page.as_ptr().add(start as usize), now) };
            into.copy_frames(bytes, self.layout);
            left -= now;
        }
    }

    /// Hands everything written to the channels, as far as credits go; the rest follows by [`poll`](Self::poll).
    #[inline]
    pub fn publish(&mut self) {
        for channel in 0..self.open.len() {
            if self.open[channel].has_unpublished() {
                self.flush(channel);
            }
        }
    }

    /// Whether something was written that [`publish`](Self::publish) was not called for.
    #[inline]
    pub fn pending(&self) -> bool {
        self.open.iter().zip(&self.lanes).any(|(open, lane)| open.has_unpublished() && !lane.flush_wanted)
    }

    /// Takes back pages and credits, sends what waited for them, and looks for room anew. Answers whether anything
    /// changed. Call it once per turn.
    pub fn poll(&mut self) -> bool {
        let mut changed = false;
        for channel in 0..self.lanes.len() {
            changed |= self.reclaim(channel);
            if self.is_stalled(channel) {
                changed |= self.send_waiting(channel);
                if self.lanes[channel].flush_wanted {
                    changed |= self.flush(channel);
                }
                self.close_if_done(channel);
            }
        }
        let room = self.has_room();
        changed |= room != self.room;
        self.room = room;
        changed
    }

    /// Whether [`poll`](Self::poll) would change something, read afresh: to be asked between announcing that a slot parks and
    /// parking it.
    pub fn has_news(&self) -> bool {
        (0..self.lanes.len()).any(|channel| self.lanes[channel].sender.has_news(self.is_stalled(channel)))
    }

    /// Whether something waits for a credit or a place.
    pub fn stalled(&self) -> bool {
        (0..self.lanes.len()).any(|channel| self.is_stalled(channel))
    }

    /// Gives up all open pages, with what is in them. Nothing may be written afterwards; [`poll`](Self::poll) until
    /// [`quiescent`](Self::quiescent).
    pub fn finish(&mut self) {
        if self.phase == Phase::Writing {
            self.phase = Phase::Finished;
            for channel in 0..self.lanes.len() {
                self.close_page(channel);
                self.close_if_done(channel);
            }
        }
    }

    /// Drops everything that was not sent, and whatever is written from now on: the job was cancelled, or has failed. The
    /// receiving gates must discard too. [`poll`](Self::poll) until [`quiescent`](Self::quiescent).
    pub fn discard(&mut self) {
        if self.phase == Phase::Discarding {
            return;
        }
        self.phase = Phase::Discarding;
        for channel in 0..self.lanes.len() {
            self.close_page(channel);
            // What the receiver has begun must reach its last slice, or the page would not come home.
            for _ in 0..self.lanes[channel].waiting.len() {
                let Some(mut waiting) = self.lanes[channel].waiting.pop_front() else { break };
                if waiting.started {
                    waiting.end = waiting.start;
                    self.lanes[channel].waiting.push_back(waiting);
                } else {
                    self.take_home(channel, waiting.page);
                }
            }
            self.send_waiting(channel);
            self.close_if_done(channel);
        }
        self.room = self.has_room();
    }

    /// Whether all pages are back in the pool.
    pub fn quiescent(&self) -> bool {
        self.held == 0
    }

    /// Pages that this edge holds: open, waiting, under way.
    pub fn buffers_in_use(&self) -> usize {
        self.held
    }

    /// Pages that wait for a credit or a place.
    pub fn buffers_waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.len()).sum()
    }

    /// Bytes that were written and not sent.
    pub fn bytes_waiting(&self) -> usize {
        let open = self.open.iter().map(|open| open.unpublished());
        let closed = self.lanes.iter().flat_map(|lane| &lane.waiting).map(|waiting| (waiting.start, waiting.end));
        open.chain(closed).map(|(start, end)| (end - start) as usize).sum()
    }

    /// Calls back for each channel that something was sent on since the last call: the runtime wakes those slots.
    #[inline]
    pub fn targets_to_wake(&mut self, mut wake: impl FnMut(usize)) {
        for (channel, lane) in self.lanes.iter_mut().enumerate() {
            if std::mem::take(&mut lane.touched) {
                wake(channel);
            }
        }
    }

    /// The error that stopped this edge, once. While there is one, there is no room.
    pub fn take_error(&mut self) -> Option<EdgeError> {
        self.error.take()
    }

    /// What was written and sent so far.
    pub fn counters(&self) -> EdgeCounters {
        let records = self.open.iter().map(OpenPage::records).sum();
        EdgeCounters { records, bytes: self.bytes, buffers: self.buffers }
    }

    #[cold]
    #[inline(never)]
    fn write_slow<T: Record>(&mut self, channel: usize, elem: &Elem<'_, T>, hash: KeyHash) {
        if self.open[channel].put_in_page(elem, hash, self.layout, &mut self.scratch)
            || !self.fresh_page(channel)
            || self.open[channel].put_in_page(elem, hash, self.layout, &mut self.scratch)
        {
            return;
        }
        let max_record_bytes = self.config.max_record_bytes;
        if !elem.raw.is_empty() && elem.raw.len() <= max_record_bytes {
            return self.write_large(channel, elem.raw, hash, elem.timestamp);
        }
        match encode_large::<T>(elem.view, max_record_bytes, &mut self.scratch) {
            Some(bytes) => self.write_large(channel, &bytes, hash, elem.timestamp),
            None => self.fail(EdgeError::RecordTooLarge { max_record_bytes }),
        }
    }

    /// Writes an encoded record as fragments.
    fn write_large(&mut self, channel: usize, mut rest: &[u8], hash: KeyHash, timestamp: i64) {
        let header = self.layout.header_bytes();
        loop {
            let room = self.open[channel].room_bytes().saturating_sub(header);
            if room == 0 {
                if !self.fresh_page(channel) {
                    return;
                }
                continue;
            }
            let (piece, after) = rest.split_at(room.min(rest.len()));
            let kind = if after.is_empty() { LAST_FRAGMENT } else { FRAGMENT };
            let put = self.open[channel].put_fragment(kind, piece, hash, timestamp, self.layout);
            assert!(put, "a fragment is cut to the room there is");
            if after.is_empty() {
                return self.open[channel].count_record();
            }
            rest = after;
        }
    }

    /// Closes the open page of a channel and opens a fresh one. Answers whether there is one.
    fn fresh_page(&mut self, channel: usize) -> bool {
        match self.phase {
            Phase::Writing => {}
            Phase::Discarding => return false,
            Phase::Finished => panic!("something is written to an edge that is finished"),
        }
        if self.closed >= self.max_closed() || self.lanes[channel].away + 1 >= self.config.max_buffers_per_channel {
            (0..self.lanes.len()).for_each(|channel| {
                self.reclaim(channel);
            });
        }
        self.close_page(channel);
        let within = self.held < self.config.max_pages(self.lanes.len());
        let page = match within.then(|| self.pool.acquire()).flatten() {
            Some(page) => page,
            None => match self.pool.acquire_overdraft() {
                Ok(page) => page,
                Err(error) => {
                    self.fail(error.into());
                    return false;
                }
            },
        };
        self.held += 1;
        // SAFETY: the page is of the pool's size; the lane keeps it until `close_page`, and sends slices of it only as
        // `OpenPage` publishes them.
        unsafe { self.open[channel].open(&page, self.pool.page_bytes()) };
        self.lanes[channel].page = Some(page);
        self.lanes[channel].started = false;
        self.room &= within && self.channel_has_room(channel) && self.closed < self.max_closed();
        true
    }

    fn close_page(&mut self, channel: usize) {
        let lane = &mut self.lanes[channel];
        let Some(page) = lane.page.take() else { return };
        let (start, end) = self.open[channel].close();
        lane.flush_wanted = false;
        self.closed += 1;
        lane.away += 1;
        if start == end && !lane.started {
            return self.take_home(channel, page);
        }
        lane.waiting.push_back(Waiting { page, start, end, started: lane.started });
        self.send_waiting(channel);
    }

    /// Sends closed pages as far as credits go. Answers whether any went.
    fn send_waiting(&mut self, channel: usize) -> bool {
        let lane = &mut self.lanes[channel];
        let mut sent = false;
        while let Some(Waiting { page, start, end, started }) = lane.waiting.pop_front() {
            // SAFETY: `OpenPage` has written whole frames up to `end`, and the page is closed. What was sent of it before
            // ended at `start`.
            match unsafe { lane.sender.send_last(page, start, end, !started) } {
                Ok(()) => {
                    self.bytes += (end - start) as u64;
                    self.buffers += !started as u64;
                    sent = true;
                }
                Err(page) => {
                    lane.waiting.push_front(Waiting { page, start, end, started });
                    break;
                }
            }
        }
        lane.touched |= sent;
        lane.announce();
        sent
    }

    /// Publishes what is in the open page, if it can. Answers whether it did.
    fn flush(&mut self, channel: usize) -> bool {
        self.open[channel].spill();
        let (start, end) = self.open[channel].unpublished();
        let lane = &mut self.lanes[channel];
        let Some(page) = lane.page.as_ref().filter(|_| start != end) else { return false };
        // SAFETY: `OpenPage` has written whole frames up to `end`, and once published never writes them again; what was
        // published before ended at `start`. The page goes with `send_last` only, after which it is open no more.
        let sent = lane.waiting.is_empty() && unsafe { lane.sender.send_part(page, start, end, !lane.started) };
        if sent {
            self.open[channel].publish();
            self.bytes += (end - start) as u64;
            self.buffers += !lane.started as u64;
            lane.started = true;
            lane.touched = true;
        }
        lane.flush_wanted = !sent;
        lane.announce();
        sent
    }

    /// Takes back the pages that the receiver has read. Answers whether there were any.
    fn reclaim(&mut self, channel: usize) -> bool {
        let mut any = false;
        while let Some(page) = self.lanes[channel].sender.take_returned() {
            self.take_home(channel, page);
            any = true;
        }
        any
    }

    fn take_home(&mut self, channel: usize, page: Page) {
        self.pool.release(page);
        self.lanes[channel].away -= 1;
        self.closed -= 1;
        self.held -= 1;
    }

    fn close_if_done(&mut self, channel: usize) {
        let lane = &mut self.lanes[channel];
        if self.phase != Phase::Writing && lane.waiting.is_empty() {
            lane.sender.close();
            lane.touched = true;
        }
    }

    #[cold]
    fn fail(&mut self, error: EdgeError) {
        self.discard();
        self.error.get_or_insert(error);
        self.room = false;
    }

    /// Closed pages that leave one page for each channel to open.
    fn max_closed(&self) -> usize {
        self.config.max_pages(self.lanes.len()) - self.lanes.len()
    }

    fn channel_has_room(&self, channel: usize) -> bool {
        self.lanes[channel].away < self.config.max_buffers_per_channel
    }

    fn has_room(&self) -> bool {
        self.error.is_none()
            && self.closed < self.max_closed()
            && (0..self.lanes.len()).all(|channel| self.channel_has_room(channel))
    }

    fn is_stalled(&self, channel: usize) -> bool {
        let lane = &self.lanes[channel];
        lane.flush_wanted || !lane.waiting.is_empty()
    }
}

impl Lane {
    /// Tells the receiver how many pages wait, the open one included.
    fn announce(&mut self) {
        self.sender.announce(self.waiting.len() + self.flush_wanted as usize);
    }
}

impl Drop for EdgeWriter {
    /// Pages that the receiver may still read stay with the channel; all others go back to the pool.
    fn drop(&mut self) {
        self.discard();
        for channel in 0..self.lanes.len() {
            self.reclaim(channel);
            let lane = &mut self.lanes[channel];
            while let Some(waiting) = lane.waiting.pop_front() {
                lane.sender.orphan(waiting.page);
            }
        }
    }
}
