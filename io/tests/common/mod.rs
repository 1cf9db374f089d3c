//! What the exchange's tests share: small edges, and reading everything there is.

use std::rc::Rc;

use thalweg_io::{
    ChannelConfig, ChannelReceiver, ChannelSender, Control, EdgeConfig, EdgeWriter, FrameLayout, Gate, GateConfig,
    PagePool, PoolConfig, channel,
};
use thalweg_model::{Record, record::decode_unchecked};

pub fn pool(page_bytes: usize, pages: usize, max_overdraft_pages: usize) -> Rc<PagePool> {
    PagePool::new(PoolConfig { page_bytes, pages, huge_pages: false, max_overdraft_pages }).expect("memory")
}

pub fn config(layout: FrameLayout) -> EdgeConfig {
    EdgeConfig {
        layout,
        max_record_bytes: 1 << 20,
        buffers_per_channel: 2,
        extra_buffers: 8,
        max_buffers_per_channel: 10,
    }
}

pub fn channels(count: usize, exclusive_buffers: u32, ring_slots: u32) -> (Vec<ChannelSender>, Vec<ChannelReceiver>) {
    // Every other one as within a core.
    let config = |n: usize| ChannelConfig { exclusive_buffers, ring_slots, same_core: n % 2 == 1 };
    (0..count).map(|n| channel(config(n))).unzip()
}

pub fn gate(layout: FrameLayout, receivers: Vec<ChannelReceiver>, floating_buffers: u32) -> Gate {
    Gate::new(GateConfig { floating_buffers }, receivers.into_iter().map(|receiver| (layout, receiver)).collect())
}

pub fn edge(config: EdgeConfig, count: usize, pool: &Rc<PagePool>) -> (EdgeWriter, Gate) {
    let (senders, receivers) = channels(count, 2, 16);
    (EdgeWriter::new(config, senders, pool.clone()), gate(config.layout, receivers, 8))
}

/// What came on a channel: a record (hash, timestamp, value), or a control element.
#[derive(Debug, PartialEq, Clone)]
pub enum Seen<T> {
    Record(u32, i64, T),
    Control(Control),
}

/// Reads up to `max` records or one control element of the next channel that has something.
pub fn read_some<T: Record>(gate: &mut Gate, max: usize, mut see: impl FnMut(usize, Seen<T>)) -> bool {
    let Some(channel) = gate.poll() else { return false };
    if let Some(control) = gate.take_control(channel) {
        see(channel, Seen::Control(control));
        return true;
    }
    let mut cursor = gate.cursor(channel);
    for _ in 0..max {
        let Some(frame) = cursor.next::<T>() else { break };
        // SAFETY: the payload is of a record of this type, aligned as the layout says.
        let view = unsafe { decode_unchecked::<T>(frame.payload) };
        see(channel, Seen::Record(frame.hash.0, frame.timestamp, T::from_view(view)));
    }
    let position = cursor.position();
    gate.consume(channel, position);
    true
}

/// Reads everything there is.
pub fn read_all<T: Record>(gate: &mut Gate, mut see: impl FnMut(usize, Seen<T>)) {
    while read_some(gate, usize::MAX, &mut see) {}
}

/// Ends an edge in order: the last pages go out, come home, and the gate sees the channels closed.
pub fn shut<T: Record>(writer: &mut EdgeWriter, gate: &mut Gate, mut see: impl FnMut(usize, Seen<T>)) {
    writer.finish();
    for _ in 0..10_000 {
        read_all(gate, &mut see);
        writer.poll();
        if writer.quiescent() {
            gate.discard();
            assert!(gate.drained());
            return;
        }
    }
    panic!("pages are missing: {} held, {} waiting", writer.buffers_in_use(), writer.buffers_waiting());
}
