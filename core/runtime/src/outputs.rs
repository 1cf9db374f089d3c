//! `Outputs`: where a segment writes: its ports, their edges, and each edge's partitioner.

use std::sync::Arc;

use thalweg_io::InFlight;
use thalweg_model::{CheckpointId, Elem, KeyHash, Record};

use crate::{
    CheckpointRequest,
    checkpoint::ChannelState,
    exchange::{Control, EdgeWriter},
    partition::{Router, XorShift},
    wake_set::WakeSet,
};

/// When what was written to an edge is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flush {
    /// The edge stays within its task: after each step.
    Step,
    /// After each record.
    Record,
    /// When there is no more input, and so many nanoseconds after the first record.
    After(u64),
    /// When a page is full.
    Full,
}

/// One edge of a port, sender side.
pub(crate) struct OutputEdge {
    pub(crate) writer: EdgeWriter,
    pub(crate) router: Router,
    pub(crate) flush: Flush,
    /// Since when something has been waiting to be published, as far as the task loop has seen; 0 for nothing.
    pub(crate) waiting_since_ns: u64,
    /// The slot behind each channel.
    pub(crate) slot_of: Box<[usize]>,
    /// The most pages it may hold, overdraft aside.
    pub(crate) max_pages: usize,
    /// What names each channel in checkpoints, and the schema of its records.
    pub(crate) names: Box<[String]>,
    pub(crate) schema: Arc<[u8]>,
    /// Whether barriers may overtake records on it.
    pub(crate) overtakes: bool,
}

impl OutputEdge {
    /// Whether both ends are in the same task.
    pub(crate) fn is_within_task(&self) -> bool {
        self.flush == Flush::Step
    }

    /// Whether [`write_direct`](Self::write_direct) is all there is to a write.
    pub(crate) fn is_direct(&self) -> bool {
        matches!(self.router, Router::Single(_) | Router::Hash(_) | Router::RoundRobin { .. })
            && self.flush != Flush::Record
    }

    #[inline(always)]
    fn write_direct<T: Record>(&mut self, elem: &Elem<'_, T>, hash: KeyHash) -> bool {
        // By keys first: there is the least else to do.
        let channel = if let Router::Hash(table) = &self.router {
            table.channel(hash)
        } else if let Router::RoundRobin { next, channels } = &mut self.router {
            advance(next, *channels)
        } else {
            0
        };
        self.writer.write(channel, elem, hash)
    }

    fn write_any<T: Record>(&mut self, elem: &Elem<'_, T>, hash: KeyHash) {
        let channel = match &mut self.router {
            Router::Single(channel) => *channel,
            Router::Hash(table) => table.channel(hash),
            Router::RoundRobin { next, channels } => advance(next, *channels),
            Router::Shuffle(random) => random.below(self.writer.channels()),
            Router::Modulo { channels } => (hash.0 % *channels) as usize,
            Router::Broadcast { channels } => {
                for channel in 0..*channels - 1 {
                    self.writer.write(channel, elem, hash);
                }
                *channels - 1
            }
        };
        self.writer.write(channel, elem, hash);
        if self.flush == Flush::Record {
            self.writer.publish();
        }
    }

    /// Lets the barrier of a checkpoint overtake; answers what it overtook.
    fn overtake(&mut self, checkpoint: u64) -> Vec<ChannelState> {
        let overtaken = self.writer.overtake(checkpoint).into_iter().filter(|(_, records)| !records.is_empty());
        let state = |(channel, records): (usize, InFlight)| ChannelState {
            name: self.names[channel].clone(),
            schema: self.schema.to_vec(),
            records,
        };
        overtaken.map(state).collect()
    }

    /// Publishes if it is time to. Answers whether it did.
    #[inline]
    fn flush(&mut self, no_more_input: bool, now_ns: u64) -> bool {
        let due = match self.flush {
            Flush::Step | Flush::Record => self.writer.pending(),
            Flush::Full => false,
            Flush::After(_) if !self.writer.pending() => {
                self.waiting_since_ns = 0;
                false
            }
            Flush::After(_) if no_more_input => true,
            Flush::After(timeout_ns) => {
                if self.waiting_since_ns == 0 {
                    self.waiting_since_ns = now_ns.max(1);
                }
                now_ns - self.waiting_since_ns >= timeout_ns
            }
        };
        if due {
            self.waiting_since_ns = 0;
            self.writer.publish();
        }
        due
    }
}

/// Round robin: answers the present channel.
#[inline(always)]
fn advance(next: &mut usize, channels: usize) -> usize {
    let channel = *next;
    *next = if channel + 1 == channels { 0 } else { channel + 1 };
    channel
}

/// Where a segment writes. Never blocks and never fails: ask [`room`](Self::room) between records.
pub struct Outputs {
    /// The main port's edge where it has just one, with the simplest way of writing: the common case, kept short where
    /// user code is inlined around it.
    direct: Option<OutputEdge>,
    /// The edges of each port, but for that one.
    ports: Vec<Vec<OutputEdge>>,
    /// Whether every edge has room; kept by `write`, and found anew before each call of the segment.
    room: bool,
}

impl Outputs {
    pub(crate) fn new(mut ports: Vec<Vec<OutputEdge>>) -> Self {
        let main = ports.first_mut().filter(|edges| edges.len() == 1 && edges[0].is_direct());
        Self { direct: main.and_then(Vec::pop), ports, room: true }
    }

    /// Sends a record to every edge of `port`. `hash` is the hash of the receiver's key, or the choice of a custom
    /// partitioner; other edges just carry it along.
    ///
    /// # Panics
    /// Where the segment has no such port.
    #[inline(always)]
    pub fn write<T: Record>(&mut self, port: usize, elem: Elem<'_, T>, hash: KeyHash) {
        if port == 0
            && let Some(edge) = &mut self.direct
        {
            if edge.write_direct(&elem, hash) {
                self.room &= edge.writer.room();
            }
        } else {
            self.write_any(port, elem, hash);
        }
    }

    #[inline(never)]
    fn write_any<T: Record>(&mut self, port: usize, elem: Elem<'_, T>, hash: KeyHash) {
        for edge in &mut self.ports[port] {
            edge.write_any(&elem, hash);
            self.room &= edge.writer.room();
        }
    }

    /// Sends a watermark, in line, to all channels of all ports.
    pub fn watermark(&mut self, watermark: i64) {
        self.control(Control::Watermark(watermark));
    }

    /// Tells all channels of all ports that nothing is to be waited for from here, or that it is again.
    pub fn idle(&mut self, idle: bool) {
        self.control(if idle { Control::Idle } else { Control::Active });
    }

    /// Whether more may be written. Where it is false, return soon: what is written nevertheless costs memory.
    #[inline(always)]
    pub fn room(&self) -> bool {
        self.room
    }

    /// Whether anything is connected to `port`.
    #[inline]
    pub fn has_edges(&self, port: usize) -> bool {
        (port == 0 && self.direct.is_some()) || self.ports.get(port).is_some_and(|edges| !edges.is_empty())
    }

    /// Number of ports, the main one included.
    pub fn ports(&self) -> usize {
        self.ports.len()
    }

    pub(crate) fn edges(&self) -> impl Iterator<Item = &OutputEdge> {
        self.direct.iter().chain(self.ports.iter().flatten())
    }

    fn edges_mut(&mut self) -> impl Iterator<Item = &mut OutputEdge> {
        self.direct.iter_mut().chain(self.ports.iter_mut().flatten())
    }

    /// Sends a control element to all channels.
    pub(crate) fn control(&mut self, control: Control) {
        let mut room = self.room;
        for edge in self.edges_mut() {
            edge.writer.broadcast_control(control);
            room &= edge.writer.room();
        }
        self.room = room;
    }

    /// Sends a control element to one channel of each edge, at random.
    pub(crate) fn control_to_one(&mut self, control: Control, random: &mut XorShift) {
        for edge in self.edges_mut() {
            let channel = random.below(edge.writer.channels());
            edge.writer.write_control(channel, control);
        }
    }

    /// Takes back what has come home, and sends what waited. Answers whether anything changed.
    #[inline]
    pub(crate) fn poll(&mut self) -> bool {
        let (mut changed, mut room) = (false, true);
        for edge in self.edges_mut() {
            changed |= edge.writer.poll();
            room &= edge.writer.room();
        }
        self.room = room;
        changed
    }

    /// Publishes what is due. Answers whether there was something.
    #[inline]
    pub(crate) fn flush(&mut self, no_more_input: bool, now_ns: u64) -> bool {
        self.edges_mut().fold(false, |any, edge| edge.flush(no_more_input, now_ns) | any)
    }

    /// Publishes everything that was written.
    pub(crate) fn publish(&mut self) {
        for edge in self.edges_mut() {
            edge.waiting_since_ns = 0;
            edge.writer.publish();
        }
    }

    /// When something is to be published at the latest.
    pub(crate) fn flush_deadline_ns(&self) -> Option<u64> {
        let deadline = |edge: &OutputEdge| match edge.flush {
            Flush::After(timeout_ns) if edge.waiting_since_ns != 0 => Some(edge.waiting_since_ns + timeout_ns),
            _ => None,
        };
        self.edges().filter_map(deadline).min()
    }

    /// Says that no record follows, while barriers still may.
    pub(crate) fn end_of_data(&mut self) {
        self.control(Control::EndOfData);
        self.publish();
    }

    /// Sends the barrier of a checkpoint, at once. Where it may `overtake`, it does, and what it overtook is answered.
    pub(crate) fn barrier(&mut self, request: &CheckpointRequest, overtake: bool) -> Vec<ChannelState> {
        let (checkpoint, triggered_ms) = (request.id.0, request.triggered_ms);
        let mut overtaken = Vec::new();
        let mut room = self.room;
        for edge in self.edges_mut() {
            if overtake && edge.overtakes {
                overtaken.extend(edge.overtake(checkpoint));
            } else {
                edge.writer.write_barrier(Control::Barrier { checkpoint, triggered_ms, options: 0 });
                edge.waiting_since_ns = 0;
                edge.writer.publish();
            }
            room &= edge.writer.room();
        }
        self.room = room;
        overtaken
    }

    /// Whether a barrier that was sent in line and might overtake has not gone out on some channel.
    pub(crate) fn has_unsent_barrier(&self, id: CheckpointId) -> bool {
        self.edges().any(|edge| edge.overtakes && edge.writer.has_unsent_barrier(id.0))
    }

    /// Lets a barrier that was sent in line overtake where it has not gone out.
    pub(crate) fn overtake_late(&mut self, id: CheckpointId) -> Vec<ChannelState> {
        self.edges_mut().filter(|edge| edge.overtakes).flat_map(|edge| edge.overtake(id.0)).collect()
    }

    /// Says that nothing follows, and gives up all pages.
    pub(crate) fn finish(&mut self) {
        self.control(Control::EndOfInput);
        self.edges_mut().for_each(|edge| edge.writer.finish());
    }

    /// Drops what was not sent.
    pub(crate) fn discard(&mut self) {
        self.edges_mut().for_each(|edge| edge.writer.discard());
    }

    /// Whether all pages are back.
    pub(crate) fn quiescent(&self) -> bool {
        self.edges().all(|edge| edge.writer.quiescent())
    }

    /// The first error that an edge has met: what to do about it is in the message.
    pub(crate) fn take_error(&mut self) -> Option<String> {
        self.edges_mut().find_map(|edge| edge.writer.take_error()).map(|error| error.to_string())
    }

    /// Notes the slots that something was sent to.
    #[inline]
    pub(crate) fn note_wakes(&mut self, wakes: &mut WakeSet) {
        for edge in self.edges_mut() {
            let slot_of = &edge.slot_of;
            edge.writer.targets_to_wake(|channel| wakes.insert(slot_of[channel]));
        }
    }
}
