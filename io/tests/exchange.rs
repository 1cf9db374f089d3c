//! An edge from writer to gate: what arrives is what was sent, within bounds, and every page comes home.

use std::rc::Rc;

use thalweg_io::{
    ChannelConfig, Control, EdgeConfig, EdgeWriter, FrameLayout, Gate, GateConfig, PagePool, PoolConfig, channel,
};
use thalweg_model::{Elem, KeyHash, record::decode_unchecked};

fn pool(page_bytes: usize, pages: usize) -> Rc<PagePool> {
    PagePool::new(PoolConfig { page_bytes, pages, huge_pages: false, max_overdraft_pages: 4096 }).expect("memory")
}

fn config(layout: FrameLayout) -> EdgeConfig {
    EdgeConfig {
        layout,
        max_record_bytes: 1 << 20,
        buffers_per_channel: 2,
        extra_buffers: 8,
        max_buffers_per_channel: 10,
    }
}

fn edge(config: EdgeConfig, channels: usize, pool: &Rc<PagePool>, floating_buffers: u32) -> (EdgeWriter, Gate) {
    let ends = (0..channels).map(|_| channel(ChannelConfig { exclusive_buffers: 2, ring_slots: 16 }));
    let (senders, receivers): (Vec<_>, Vec<_>) = ends.unzip();
    let receivers = receivers.into_iter().map(|receiver| (config.layout, receiver)).collect();
    (EdgeWriter::new(config, senders, pool.clone()), Gate::new(GateConfig { floating_buffers }, receivers))
}

#[test]
fn when_records_and_controls_are_written_then_they_arrive_in_order() {
    type T = (u64, String);
    let pool = pool(256, 64);
    let config = config(FrameLayout::of::<T>(true));
    let (mut writer, mut gate) = edge(config, 1, &pool, 8);
    let mut seen = 0u64;
    let mut written = 0u64;
    let mut watermark = -1;
    while seen < 2000 {
        while written < 2000 && writer.room() {
            let text = "x".repeat((written as usize * 37) % 900);
            writer.write::<T>(0, &Elem::new((written, text.as_str()), written as i64), KeyHash(written as u32));
            if written.is_multiple_of(10) {
                writer.broadcast_control(Control::Watermark(written as i64));
            }
            written += 1;
        }
        writer.publish();
        while let Some(channel) = gate.poll() {
            if let Some(control) = gate.take_control(channel) {
                watermark += if watermark < 0 { 1 } else { 10 };
                assert_eq!(control, Control::Watermark(watermark));
                assert_eq!(watermark as u64 + 1, seen);
                continue;
            }
            let mut cursor = gate.cursor(channel);
            while let Some(frame) = cursor.next::<T>() {
                // SAFETY: the payload is of a record of this type.
                let (number, text) = unsafe { decode_unchecked::<T>(frame.payload) };
                assert_eq!((number, frame.timestamp, frame.hash.0), (seen, seen as i64, seen as u32));
                assert_eq!(text.len(), (seen as usize * 37) % 900);
                seen += 1;
            }
            let position = cursor.position();
            gate.consume(channel, position);
        }
        writer.poll();
    }
    writer.finish();
    gate.end(0);
    while !(writer.quiescent() && gate.drained()) {
        writer.poll();
    }
    assert_eq!(pool.in_use(), 0);
    assert_eq!(writer.counters().records, 2000);
}
