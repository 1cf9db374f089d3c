//! Random use of an edge: what arrives is what was sent, within bounds, and every page comes home.
#![cfg(not(loom))]

mod common;

use std::collections::VecDeque;

use common::{Seen, channels, gate, pool, read_some, shut};
use proptest::prelude::*;
use thalweg_io::{Control, EdgeConfig, EdgeWriter, FrameLayout};
use thalweg_model::{Elem, KeyHash, Record};

#[derive(Debug, Clone)]
enum Op {
    Write { channel: usize, bytes: usize, again: bool },
    Control { channel: usize },
    Broadcast,
    Publish,
    Poll,
    Read { records: usize },
    Block { channel: usize },
    Unblock,
}

fn op(max_bytes: usize) -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0..4usize, 0..max_bytes, any::<bool>()).prop_map(|(channel, bytes, again)| Op::Write { channel, bytes, again }),
        1 => (0..4usize).prop_map(|channel| Op::Control { channel }),
        1 => Just(Op::Broadcast),
        3 => Just(Op::Publish),
        3 => Just(Op::Poll),
        6 => (1..20usize).prop_map(|records| Op::Read { records }),
        1 => (0..4usize).prop_map(|channel| Op::Block { channel }),
        1 => Just(Op::Unblock),
    ]
}

/// Pages of a few frames, and some that are longer than what a writer puts together before it writes to them; in 64 bytes.
fn page_lines() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 1..6usize, 1 => 30..120usize]
}

fn small_edge(layout: FrameLayout, extra_buffers: usize, max_buffers_per_channel: usize) -> EdgeConfig {
    EdgeConfig { layout, max_record_bytes: 1 << 16, buffers_per_channel: 1, extra_buffers, max_buffers_per_channel }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Records of all sizes, from none to many pages; controls; blocked channels.
    #[test]
    fn when_records_of_any_size_are_written_then_all_arrive_in_order(
        ops in prop_oneof![prop::collection::vec(op(700), 1..300), prop::collection::vec(op(6_000), 1..100)],
        count in 1..4usize, page in page_lines(), time in any::<bool>(),
        slots in 1u32..9, exclusive in 1u32..3, floating in 0u32..4, extra in 1..6usize,
    ) {
        type T = (u64, String);
        let pool = pool(page * 64, 4, 1 << 20);
        let config = small_edge(FrameLayout::of::<T>(time), extra, 4);
        let (senders, receivers) = channels(count, exclusive, slots);
        let mut writer = EdgeWriter::new(config, senders, pool.clone());
        let mut gate = gate(config.layout, receivers, floating);
        let mut expected = vec![VecDeque::new(); count];
        let mut raw: Vec<u8> = Vec::new();
        let mut written = 0u64;
        let mut ok = true;
        let mut blocked = vec![false; count];
        for op in ops {
            match op {
                Op::Write { channel, bytes, again } if writer.room() => {
                    let (channel, text) = (channel % count, "x".repeat(bytes));
                    let (hash, timestamp) = (written as u32, if time { written as i64 } else { i64::MIN });
                    let mut elem = Elem::<T>::new((written, &text), timestamp);
                    if again {
                        // As if the record had come from a buffer.
                        let mut scratch = Default::default();
                        raw = thalweg_model::record::encode_large::<T>(elem.view, 1 << 16, &mut scratch).expect("fits").to_vec();
                        elem.raw = &raw;
                    }
                    writer.write(channel, &elem, KeyHash(hash));
                    expected[channel].push_back(Seen::Record(hash, timestamp, (written, text)));
                    written += 1;
                }
                Op::Write { .. } => {}
                Op::Control { channel } => {
                    writer.write_control(channel % count, Control::Watermark(written as i64));
                    expected[channel % count].push_back(Seen::Control(Control::Watermark(written as i64)));
                }
                Op::Broadcast => {
                    writer.broadcast_control(Control::Idle);
                    expected.iter_mut().for_each(|lane| lane.push_back(Seen::Control(Control::Idle)));
                }
                Op::Publish => {
                    writer.publish();
                    prop_assert!(!writer.pending());
                }
                Op::Poll => { writer.poll(); }
                Op::Read { records } => {
                    read_some::<T>(&mut gate, records, |channel, seen| {
                        ok &= !blocked[channel] && expected[channel].pop_front() == Some(seen);
                    });
                }
                Op::Block { channel } => {
                    gate.block(channel % count);
                    blocked[channel % count] = true;
                }
                Op::Unblock => {
                    gate.unblock_all();
                    blocked.fill(false);
                }
            }
            prop_assert!(ok);
        }
        prop_assert!(writer.take_error().is_none());
        gate.unblock_all();
        shut::<T>(&mut writer, &mut gate, |channel, seen| ok &= expected[channel].pop_front() == Some(seen));
        prop_assert!(ok && expected.iter().all(VecDeque::is_empty));
        prop_assert_eq!(pool.in_use(), 0);
        prop_assert_eq!(writer.counters().records, written);
        drop(raw);
    }

    /// A writer that minds `room` between records that fit a page stays within its pages: the pool has no other.
    #[test]
    fn when_room_is_minded_then_no_page_beyond_the_edges_own_is_taken(
        ops in prop::collection::vec(op(1), 1..400), count in 1..4usize, page in page_lines(), slots in 1u32..9,
        extra in 1..6usize, max_per_channel in 1..6usize,
    ) {
        type T = (u64, u64, u64);
        let config = small_edge(FrameLayout::of::<T>(false), extra, max_per_channel);
        let pool = pool(page * 64, config.max_pages(count), 0);
        let (senders, receivers) = channels(count, 1, slots);
        let mut writer = EdgeWriter::new(config, senders, pool.clone());
        let mut gate = gate(config.layout, receivers, 2);
        let mut expected = vec![VecDeque::new(); count];
        let (mut written, mut ok) = (0u64, true);
        for op in ops {
            match op {
                Op::Write { channel, .. } => for _ in 0..8 {
                    if !writer.room() {
                        break;
                    }
                    let record = (written, !written, 7);
                    writer.write::<T>(channel % count, &Elem::new(record, 0), KeyHash(written as u32));
                    expected[channel % count].push_back(record);
                    written += 1;
                },
                Op::Publish => writer.publish(),
                Op::Read { records } => {
                    read_some::<T>(&mut gate, records, |channel, seen| {
                        ok &= matches!(seen, Seen::Record(_, i64::MIN, value) if Some(value) == expected[channel].pop_front());
                    });
                }
                _ => { writer.poll(); }
            }
            prop_assert!(ok && writer.buffers_in_use() <= config.max_pages(count));
        }
        prop_assert!(writer.take_error().is_none());
        // Without a write the edge always finds its room again, once all is read.
        while read_some::<T>(&mut gate, 9, |channel, seen| {
            ok &= matches!(seen, Seen::Record(_, _, value) if Some(value) == expected[channel].pop_front());
        }) || writer.poll() {}
        prop_assert!(ok && writer.room());
        shut::<T>(&mut writer, &mut gate, |channel, seen| {
            ok &= matches!(seen, Seen::Record(_, _, value) if Some(value) == expected[channel].pop_front());
        });
        prop_assert!(ok && expected.iter().all(VecDeque::is_empty));
        prop_assert_eq!((pool.in_use(), writer.counters().records), (0, written));
    }

    /// Discarding at any moment brings every page home; dropping either end at any moment touches no memory that is gone.
    #[test]
    fn when_an_edge_is_discarded_at_any_moment_then_every_page_comes_home(
        ops in prop::collection::vec(op(300), 1..60), slots in 1u32..5, drops in any::<bool>(), writer_first in any::<bool>(),
    ) {
        type T = String;
        let pool = pool(128, 3, 1 << 20);
        let config = small_edge(FrameLayout::of::<T>(true), 2, 4);
        let (senders, receivers) = channels(2, 1, slots);
        let mut writer = EdgeWriter::new(config, senders, pool.clone());
        let mut gate = gate(config.layout, receivers, 1);
        for op in ops {
            match op {
                Op::Write { channel, bytes, .. } => {
                    writer.write::<T>(channel % 2, &Elem::new("y".repeat(bytes).as_str(), 1), KeyHash(0));
                }
                Op::Publish => writer.publish(),
                Op::Read { records } => { read_some::<T>(&mut gate, records, |_, _| {}); }
                _ => { writer.poll(); }
            }
        }
        if drops {
            drop(pool);
            if writer_first {
                drop(writer);
                while read_some::<T>(&mut gate, 5, |_, seen| {
                    assert!(matches!(seen, Seen::Record(0, 1, text) if text.bytes().all(|byte| byte == b'y')));
                }) {}
            } else {
                drop(gate);
                writer.publish();
            }
        } else {
            writer.discard();
            writer.write::<T>(0, &Elem::new("dropped", 0), KeyHash(0));
            gate.discard();
            for _ in 0..100 {
                gate.drained();
                writer.poll();
            }
            prop_assert!(gate.drained() && writer.quiescent());
            prop_assert_eq!(pool.in_use(), 0);
        }
    }
}

/// A layout check that needs no edge: the record's own alignment is what the layout takes.
#[test]
fn when_a_record_needs_16_bytes_of_alignment_then_its_frames_have_it() {
    type T = (u8, u128);
    let layout = FrameLayout::of::<T>(false);
    assert_eq!((layout.align(), layout.header_bytes(), T::ALIGN), (16, 16, 16));
    let pool = pool(128, 8, 0);
    let (mut writer, mut gate) = common::edge(common::config(layout), 1, &pool);
    let mut next = 0u8;
    for n in 0..9u8 {
        writer.write::<T>(0, &Elem::new((n, u128::MAX - n as u128), 5), KeyHash(n as u32));
        writer.publish();
    }
    shut::<T>(&mut writer, &mut gate, |_, seen| {
        assert_eq!(seen, Seen::Record(next as u32, i64::MIN, (next, u128::MAX - next as u128)));
        next += 1;
    });
    assert_eq!((next, pool.in_use()), (9, 0));
}
