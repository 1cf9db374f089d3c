//! `Outputs`: where a segment writes: its ports, their edges, and each edge's partitioner.

use thalweg_model::{Elem, KeyHash, Record};

use crate::{
    exchange::{Control, EdgeWriter},
    partition::Router,
};

/// One edge of a port, sender side.
pub(crate) struct OutputEdge {
    pub(crate) writer: EdgeWriter,
    pub(crate) router: Router,
    /// Publish after each record.
    pub(crate) each: bool,
}

impl OutputEdge {
    #[inline(always)]
    fn write<T: Record>(&mut self, elem: &Elem<'_, T>, hash: KeyHash) {
        let channel = match &mut self.router {
            Router::Single(channel) => *channel,
            Router::Hash(table) => table.channel(hash),
            Router::RoundRobin { next, channels } => {
                let channel = *next;
                *next = if channel + 1 == *channels { 0 } else { channel + 1 };
                channel
            }
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
        if self.each {
            self.writer.publish();
        }
    }
}

/// Where a segment writes. Never blocks and never fails: ask [`room`](Self::room) between records.
pub struct Outputs {
    pub(crate) ports: Vec<Vec<OutputEdge>>,
    /// Whether every edge has room; kept exact by `write`, and recomputed before each call of the segment.
    pub(crate) room: bool,
}

impl Outputs {
    /// Sends a record to every edge of `port`. `hash` is the hash of the receiver's key, or the choice of a custom
    /// partitioner; other edges just carry it along.
    ///
    /// # Panics
    /// Where the segment has no such port.
    #[inline(always)]
    pub fn write<T: Record>(&mut self, port: usize, elem: Elem<'_, T>, hash: KeyHash) {
        for edge in &mut self.ports[port] {
            edge.write(&elem, hash);
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
        self.ports.get(port).is_some_and(|edges| !edges.is_empty())
    }

    /// Number of ports, the main one included.
    pub fn ports(&self) -> usize {
        self.ports.len()
    }

    pub(crate) fn control(&mut self, control: Control) {
        for edge in self.ports.iter_mut().flatten() {
            edge.writer.broadcast_control(control);
            self.room &= edge.writer.room();
        }
    }
}
