//! The gate: the receiving side of a segment, all channels that lead to it.
//!
//! Owns the order in which channels are read, the floating credits, and the reassembly of records that came in pieces. It
//! must never read past a control element that was not taken.

use thalweg_model::KeyHash;

use crate::{
    channel::{ChannelReceiver, Floating, Overtaking},
    control::{CONTROL_BYTES, Control},
    cursor::FrameCursor,
    frame::{CONTROL, FRAGMENT, FrameLayout, LAST_FRAGMENT, LEN_MASK},
    frame_buffer::FrameBuffer,
    in_flight::InFlight,
};

/// What a gate is made of.
#[derive(Clone, Copy, Debug)]
pub struct GateConfig {
    /// Credits beyond the exclusive ones of the channels, lent to channels with a backlog.
    pub floating_buffers: u32,
}

struct Lane {
    receiver: ChannelReceiver,
    layout: FrameLayout,
    blocked: bool,
    ended: bool,
    /// A record in pieces: what of it has come.
    large: Option<Box<FrameBuffer>>,
    /// Whether `large` is whole: it is what comes next.
    whole: bool,
    /// Whether a piece of a record waits for a barrier that has overtaken it to be seen.
    heeds: bool,
    /// What is read is copied here, while an unaligned checkpoint waits for the channel's barrier.
    recording: Option<Box<InFlight>>,
}

/// The receiving side of a segment.
pub struct Gate {
    lanes: Vec<Lane>,
    next: usize,
    floating: Floating,
}

/// The first word and the second of the frame at the start of `bytes`.
fn head(bytes: &[u8]) -> Option<(u32, u32)> {
    let (word, rest) = bytes.split_first_chunk::<4>()?;
    let (hash, _) = rest.split_first_chunk::<4>()?;
    Some((u32::from_ne_bytes(*word), u32::from_ne_bytes(*hash)))
}

impl Gate {
    /// A gate over channels, each with the layout of its edge.
    pub fn new(config: GateConfig, channels: Vec<(FrameLayout, ChannelReceiver)>) -> Self {
        let lane = |(layout, receiver)| Lane {
            receiver,
            layout,
            blocked: false,
            ended: false,
            large: None,
            whole: false,
            heeds: false,
            recording: None,
        };
        let free = config.floating_buffers;
        let share = free / (channels.len() as u32).max(1);
        Self { lanes: channels.into_iter().map(lane).collect(), next: 0, floating: Floating { free, share } }
    }

    /// The number of channels.
    pub fn channels(&self) -> usize {
        self.lanes.len()
    }

    /// The next channel with something to read, round robin; blocked and ended ones are passed over. It has either plain
    /// records ([`cursor`](Self::cursor)) or a control element ([`take_control`](Self::take_control)).
    #[inline]
    pub fn poll(&mut self) -> Option<usize> {
        for _ in 0..self.lanes.len() {
            let channel = self.next;
            self.next = if channel + 1 == self.lanes.len() { 0 } else { channel + 1 };
            let lane = &mut self.lanes[channel];
            if lane.ended {
                lane.receiver.discard(&mut self.floating);
            } else if !lane.blocked && lane.ready(&mut self.floating) {
                return Some(channel);
            }
        }
        None
    }

    /// A cursor over what has come on a channel. Tell the gate how far it was read: [`consume`](Self::consume).
    #[inline]
    pub fn cursor(&mut self, channel: usize) -> FrameCursor<'_> {
        let lane = &mut self.lanes[channel];
        match &lane.large {
            Some(record) if lane.whole => record.cursor(),
            _ => lane.receiver.cursor(lane.layout),
        }
    }

    /// What the cursor of a channel has read ([`FrameCursor::position`]) may go back to the sender.
    ///
    /// # Panics
    /// Where that is more than there was.
    #[inline]
    pub fn consume(&mut self, channel: usize, position: usize) {
        let lane = &mut self.lanes[channel];
        if lane.whole {
            if position > 0 {
                lane.record_whole();
                lane.whole = false;
                lane.large = None;
            }
            return;
        }
        if let Some(recording) = &mut lane.recording {
            recording.copy_frames(&lane.receiver.bytes()[..position], lane.layout);
        }
        lane.receiver.consume(position, &mut self.floating);
    }

    /// From now on barriers may overtake: [`take_overtaking`](Self::take_overtaking) is asked for each channel, again and again.
    pub fn heed_overtaking(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.heeds = true);
    }

    /// A barrier that has overtaken what is queued on a channel, once. Ask again after each [`poll`](Self::poll): what a
    /// slice brings may have been sent after it.
    #[inline]
    pub fn take_overtaking(&mut self, channel: usize) -> Option<Overtaking> {
        self.lanes[channel].receiver.take_overtaking()
    }

    /// Copies from now on what is read of a channel.
    pub fn record(&mut self, channel: usize) {
        self.lanes[channel].recording = Some(Box::default());
    }

    /// Ends the recording of a channel, if there is one, and adds what is queued up to `sent_bytes` of a barrier that has
    /// overtaken it; without that, the barrier has come in line.
    pub fn finish_recording(&mut self, channel: usize, sent_bytes: Option<u64>) -> InFlight {
        let lane = &mut self.lanes[channel];
        lane.recording.get_or_insert_default();
        if let Some(sent_bytes) = sent_bytes {
            match &lane.large {
                Some(_) if lane.whole => lane.record_whole(),
                Some(begun) => {
                    if let Some(recording) = &mut lane.recording {
                        recording.push_fragment(begun.open_payload());
                    }
                }
                None => {}
            }
            if let Some(recording) = &mut lane.recording {
                lane.receiver.copy_queued(sent_bytes, lane.layout, recording);
            }
        }
        lane.recording.take().map(|recording| *recording).unwrap_or_default()
    }

    /// Drops what was recorded of a channel.
    pub fn drop_recording(&mut self, channel: usize) {
        self.lanes[channel].recording = None;
    }

    /// Takes the control element that a channel is at, if it is at one.
    pub fn take_control(&mut self, channel: usize) -> Option<Control> {
        let lane = &mut self.lanes[channel];
        if lane.whole {
            return None;
        }
        let bytes = lane.receiver.bytes();
        let (word, kind) = head(bytes)?;
        if word & !LEN_MASK != CONTROL {
            return None;
        }
        let payload = &bytes[lane.layout.header_bytes()..][..CONTROL_BYTES];
        let mut words = [0; 3];
        for (word, bytes) in words.iter_mut().zip(payload.chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        }
        let control = Control::decode(kind, words);
        debug_assert!(control.is_some(), "control element of kind {kind}");
        lane.receiver.consume(lane.layout.stride_bytes(CONTROL_BYTES), &mut self.floating);
        control
    }

    /// Reads no more of a channel until [`unblock_all`](Self::unblock_all).
    pub fn block(&mut self, channel: usize) {
        self.lanes[channel].blocked = true;
    }

    /// Reads all channels again.
    pub fn unblock_all(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.blocked = false);
    }

    /// Whether a channel has ended.
    pub fn is_ended(&self, channel: usize) -> bool {
        self.lanes[channel].ended
    }

    /// Whether a channel is blocked.
    pub fn is_blocked(&self, channel: usize) -> bool {
        self.lanes[channel].blocked
    }

    /// A channel has ended: whatever still comes on it (its last page) goes back unread.
    pub fn end(&mut self, channel: usize) {
        let lane = &mut self.lanes[channel];
        lane.ended = true;
        lane.large = None;
        lane.whole = false;
        lane.receiver.discard(&mut self.floating);
    }

    /// Ends all channels: the job was cancelled, or has failed.
    pub fn discard(&mut self) {
        (0..self.lanes.len()).for_each(|channel| self.end(channel));
    }

    /// Whether all channels have ended, and their senders have closed them and have every page back on its way. Sends back
    /// what has come since. A slot must not stop before that, or its peers would miss pages.
    pub fn drained(&mut self) -> bool {
        self.lanes.iter_mut().filter(|lane| lane.ended).for_each(|lane| lane.receiver.discard(&mut self.floating));
        self.lanes.iter().all(|lane| lane.ended && lane.receiver.is_drained())
    }

    /// Slices queued in all channels: how far this gate is behind.
    pub fn queued_buffers(&self) -> usize {
        self.lanes.iter().map(|lane| lane.receiver.queued()).sum()
    }

    /// Bytes queued in all channels.
    pub fn queued_bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.receiver.queued_bytes()).sum()
    }

    /// Pages that may be under way to this gate: exclusive and floating ones.
    pub fn capacity_buffers(&self) -> usize {
        self.lanes.iter().map(|lane| lane.receiver.capacity_buffers() as usize).sum::<usize>()
            + self.floating.free as usize
    }

    /// Whether [`poll`](Self::poll) would find nothing to do, read afresh: to be asked between announcing that a slot parks
    /// and parking it.
    pub fn is_empty(&self) -> bool {
        !self.lanes.iter().any(|lane| {
            let here = lane.whole || !lane.receiver.bytes().is_empty();
            (!lane.blocked || lane.ended) && (here || lane.receiver.has_more())
        })
    }

    /// Calls back for each channel whose sender was given places, pages or credits since the last call: the runtime wakes
    /// those slots.
    #[inline]
    pub fn senders_to_wake(&mut self, mut wake: impl FnMut(usize)) {
        for (channel, lane) in self.lanes.iter_mut().enumerate() {
            if lane.receiver.take_gave() {
                wake(channel);
            }
        }
    }
}

impl Lane {
    /// Copies the record that came in pieces, which is whole.
    #[cold]
    fn record_whole(&mut self) {
        if let (Some(recording), Some(record)) = (&mut self.recording, &self.large) {
            recording.copy_frames(record.bytes(), self.layout);
        }
    }

    /// Whether there is a record or a control element to read; puts pieces together on the way.
    #[inline]
    fn ready(&mut self, floating: &mut Floating) -> bool {
        if self.whole {
            return true;
        }
        while self.receiver.advance(floating) {
            match head(self.receiver.bytes()) {
                // What was sent behind the barrier must not get into the record before that is known.
                Some((word, _)) if word & !LEN_MASK >= FRAGMENT && self.heeds && self.receiver.is_overtaken() => {
                    return false;
                }
                Some((word, hash)) if word & !LEN_MASK >= FRAGMENT => self.absorb(word, hash, floating),
                _ => return true,
            }
            if self.whole {
                return true;
            }
        }
        false
    }

    /// Takes in a piece of a record.
    #[cold]
    fn absorb(&mut self, word: u32, hash: u32, floating: &mut Floating) {
        let (len, layout) = ((word & LEN_MASK) as usize, self.layout);
        let (header, piece) = self.receiver.bytes()[..layout.header_bytes() + len].split_at(layout.header_bytes());
        let timestamp = match header.get(8..16) {
            Some(bytes) if layout.carries_time() => i64::from_ne_bytes(bytes.try_into().unwrap_or_default()),
            _ => thalweg_model::time::MIN_WATERMARK,
        };
        let record = self.large.get_or_insert_with(|| Box::new(FrameBuffer::new(layout)));
        record.extend_open_frame(piece);
        if word & !LEN_MASK == LAST_FRAGMENT {
            record.close_frame(KeyHash(hash), timestamp);
            self.whole = true;
        }
        self.receiver.consume(layout.stride_bytes(len), floating);
    }
}
