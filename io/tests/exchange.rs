//! An edge from writer to gate, case by case: order, flow control, errors, two threads.
#![cfg(not(loom))]

mod common;

use std::thread;

use common::{Seen, channels, config, edge, gate, pool, read_all, read_some, shut};
use thalweg_io::{Control, EdgeConfig, EdgeError, EdgeWriter, FrameBuffer, FrameLayout, PoolError};
use thalweg_model::{Elem, KeyHash, record::decode_unchecked};

type T = (u64, String);

fn text(n: u64) -> String {
    "x".repeat((n as usize * 37) % 900)
}

#[test]
fn when_records_and_controls_are_written_then_they_arrive_in_order() {
    let pool = pool(256, 64, 4096);
    let (mut writer, mut gate) = edge(config(FrameLayout::of::<T>(true)), 1, &pool);
    let (mut seen, mut written) = (0, 0);
    let mut check = |_: usize, item: Seen<T>| match item {
        Seen::Control(control) => assert_eq!(control, Control::Watermark(seen as i64 - 1)),
        Seen::Record(hash, timestamp, value) => {
            assert_eq!((hash, timestamp, value), (seen as u32, seen as i64, (seen, text(seen))));
            seen += 1;
        }
    };
    while written < 2000 {
        while written < 2000 && writer.room() {
            writer.write::<T>(
                0,
                &Elem::new((written, text(written).as_str()), written as i64),
                KeyHash(written as u32),
            );
            if written.is_multiple_of(10) {
                writer.broadcast_control(Control::Watermark(written as i64));
            }
            written += 1;
        }
        writer.publish();
        read_all(&mut gate, &mut check);
        writer.poll();
    }
    shut(&mut writer, &mut gate, &mut check);
    assert_eq!((seen, pool.in_use(), writer.counters().records), (2000, 0, 2000));
}

#[test]
fn when_the_receiver_reads_nothing_then_the_writer_has_no_room_and_holds_what_it_may() {
    let layout = FrameLayout::of::<(u64, u64, u64)>(false);
    let config = EdgeConfig { max_buffers_per_channel: 5, ..config(layout) };
    let pool = pool(256, config.max_pages(2), 0);
    let (mut writer, mut gate) = edge(config, 2, &pool);
    let mut written = 0;
    while writer.room() {
        writer.write::<(u64, u64, u64)>(1, &Elem::new((written, 0, 0), 0), KeyHash(0));
        written += 1;
    }
    assert_eq!(written, 5 * 8 + 1);
    writer.publish();
    assert!(!writer.poll() && writer.stalled() && !writer.has_news());
    assert_eq!((gate.queued_buffers(), writer.buffers_waiting()), (2, 3), "two exclusive credits");
    // The first page read brings its own credit back, and floating ones for the four that wait.
    assert!(read_some::<(u64, u64, u64)>(&mut gate, usize::MAX, |_, _| {}));
    let mut woken = Vec::new();
    gate.senders_to_wake(|channel| woken.push(channel));
    assert_eq!(woken, [1]);
    assert!(writer.has_news() && writer.poll() && writer.room() && !writer.stalled());
    writer.targets_to_wake(|channel| assert_eq!(channel, 1));
    assert_eq!(gate.queued_buffers(), 5);
    let mut seen = 8;
    shut::<(u64, u64, u64)>(&mut writer, &mut gate, |_, _| seen += 1);
    assert_eq!((seen, pool.in_use()), (written, 0));
}

#[test]
fn when_a_record_is_flushed_then_it_can_be_read_at_once_and_its_page_stays_open() {
    let pool = pool(1024, 4, 0);
    let (mut writer, mut gate) = edge(config(FrameLayout::of::<u64>(true)), 1, &pool);
    for n in 0..20u64 {
        writer.write::<u64>(0, &Elem::new(n, n as i64), KeyHash(n as u32));
        assert!(writer.pending());
        assert!(gate.is_empty() && gate.poll().is_none());
        writer.publish();
        assert!(!writer.pending() && !gate.is_empty());
        let mut got = Vec::new();
        read_all::<u64>(&mut gate, |_, seen| got.push(seen));
        assert_eq!(got, [Seen::Record(n as u32, n as i64, n)]);
        writer.poll();
    }
    assert_eq!((pool.in_use(), writer.counters().buffers), (1, 1));
    shut::<u64>(&mut writer, &mut gate, |_, _| panic!("nothing is left"));
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn when_many_flushes_wait_then_they_are_read_as_one_slice() {
    let pool = pool(4096, 4, 0);
    let (mut writer, mut gate) = edge(config(FrameLayout::of::<u64>(false)), 1, &pool);
    for n in 0..100u64 {
        writer.write::<u64>(0, &Elem::new(n, 0), KeyHash(n as u32));
        writer.publish();
    }
    // The ring has 16 places; the rest accumulates in the page, and follows when there is a place again.
    let channel = gate.poll().expect("something");
    let mut hashes = [KeyHash(0); 64];
    let cursor = gate.cursor(channel);
    assert_eq!((cursor.hashes(64, &mut hashes), cursor.hashes(3, &mut hashes)), (16, 3));
    assert_eq!(hashes[15], KeyHash(15));
    let mut seen = 0;
    read_all::<u64>(&mut gate, |_, _| seen += 1);
    assert_eq!(seen, 16);
    assert!(writer.has_news() && writer.poll());
    read_all::<u64>(&mut gate, |_, _| seen += 1);
    assert_eq!(seen, 100);
    shut::<u64>(&mut writer, &mut gate, |_, _| {});
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn when_a_channel_is_blocked_then_the_others_are_still_read() {
    let pool = pool(256, 40, 0);
    let (mut writer, mut gate) = edge(config(FrameLayout::of::<u64>(false)), 3, &pool);
    for channel in 0..3 {
        writer.write_control(channel, Control::Barrier { checkpoint: 9, triggered_ms: 1, options: 2 });
        writer.write::<u64>(channel, &Elem::new(channel as u64, 0), KeyHash(0));
    }
    writer.publish();
    let mut barriers = 0;
    while let Some(channel) = gate.poll() {
        let barrier = Control::Barrier { checkpoint: 9, triggered_ms: 1, options: 2 };
        assert_eq!(gate.take_control(channel), Some(barrier), "the record behind it waits");
        gate.block(channel);
        barriers += 1;
    }
    assert!(barriers == 3 && gate.is_empty() && gate.is_blocked(2));
    gate.unblock_all();
    let mut seen = 0;
    shut::<u64>(&mut writer, &mut gate, |channel, item| {
        assert_eq!(item, Seen::Record(0, i64::MIN, channel as u64));
        seen += 1;
    });
    assert_eq!((seen, pool.in_use()), (3, 0));
}

#[test]
fn when_a_record_is_too_large_then_the_error_says_so_and_nothing_more_is_written() {
    let pool = pool(256, 40, 4096);
    let config = EdgeConfig { max_record_bytes: 5000, ..config(FrameLayout::of::<String>(false)) };
    let (mut writer, mut gate) = edge(config, 1, &pool);
    writer.write::<String>(0, &Elem::new("a".repeat(4900).as_str(), 0), KeyHash(0));
    assert!(writer.take_error().is_none());
    writer.write::<String>(0, &Elem::new("a".repeat(5001).as_str(), 0), KeyHash(0));
    assert!(!writer.room());
    let error = writer.take_error().expect("too large");
    assert!(matches!(error, EdgeError::RecordTooLarge { max_record_bytes: 5000 }));
    assert!(error.to_string().contains("5000 bytes"));
    writer.write::<String>(0, &Elem::new("ignored", 0), KeyHash(0));
    gate.discard();
    writer.poll();
    assert!(writer.quiescent());
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn when_nobody_minds_room_then_the_overdraft_is_bounded() {
    let pool = pool(64, 4, 10);
    let (mut writer, mut gate) = edge(config(FrameLayout::of::<u64>(false)), 1, &pool);
    for n in 0..1000 {
        writer.write::<u64>(0, &Elem::new(n, 0), KeyHash(0));
    }
    let error = writer.take_error().expect("no page is left");
    assert!(matches!(error, EdgeError::Pool(PoolError::OverdraftExceeded { max_overdraft_pages: 10 })));
    gate.discard();
    writer.poll();
    assert!(writer.quiescent() && gate.drained());
    assert_eq!(pool.in_use(), 0);
}

#[test]
#[should_panic(expected = "finished")]
fn when_something_is_written_to_a_finished_edge_then_it_panics() {
    let pool = pool(256, 40, 0);
    let (mut writer, _gate) = edge(config(FrameLayout::of::<u64>(false)), 1, &pool);
    writer.finish();
    writer.write::<u64>(0, &Elem::new(1, 0), KeyHash(0));
}

#[test]
#[should_panic(expected = "another record type")]
fn when_the_type_needs_more_alignment_than_the_layout_gives_then_it_panics() {
    let pool = pool(256, 40, 0);
    let (mut writer, _gate) = edge(config(FrameLayout::of::<u64>(false)), 1, &pool);
    writer.write::<u128>(0, &Elem::new(1, 0), KeyHash(0));
}

#[test]
#[should_panic(expected = "another type than it was written as")]
fn when_a_fixed_record_is_read_as_another_type_then_it_panics() {
    let mut frames = FrameBuffer::new(FrameLayout::of::<u64>(false));
    frames.push::<u64>(&Elem::new(1, 0), KeyHash(0));
    frames.cursor().next::<(u64, u64)>();
}

#[test]
fn when_frames_are_kept_in_a_buffer_then_a_cursor_reads_them() {
    let mut frames = FrameBuffer::new(FrameLayout::of::<T>(true));
    for round in 0..2 {
        (0..50).for_each(|n| frames.push::<T>(&Elem::new((n, text(n).as_str()), round), KeyHash(n as u32)));
        let mut cursor = frames.cursor();
        let mut count = 0;
        while let Some(frame) = cursor.next::<T>() {
            // SAFETY: the payload is of a record of this type.
            let view = unsafe { decode_unchecked::<T>(frame.payload) };
            assert_eq!((view.0, view.1, frame.timestamp), (count, text(count).as_str(), round));
            count += 1;
        }
        assert!(count == 50 && cursor.remaining() == 0 && !cursor.is_at_special());
        frames.clear();
    }
}

/// Two senders and a receiver on threads of their own, tiny pages, records of all sizes: everything arrives in order.
#[test]
fn when_three_threads_exchange_then_all_arrives_and_every_page_comes_home() {
    const RECORDS: u64 = 30_000;
    let layout = FrameLayout::of::<T>(true);
    let (senders, receivers) = channels(2, 2, 8);
    let sending: Vec<_> = senders
        .into_iter()
        .enumerate()
        .map(|(index, sender)| {
            thread::spawn(move || {
                let config = EdgeConfig { max_buffers_per_channel: 6, ..config(layout) };
                let pool = pool(256, config.max_pages(1), 4096);
                let mut writer = EdgeWriter::new(config, vec![sender], pool.clone());
                let mut written = 0;
                while written < RECORDS {
                    // Bursts that differ between the two, and a flush now and then.
                    for _ in 0..1 + written % 13 * (index as u64 + 1) {
                        if written == RECORDS || !writer.room() {
                            break;
                        }
                        let text = text(written);
                        let elem = Elem::<T>::new((written, &text), index as i64);
                        writer.write(0, &elem, KeyHash(written as u32));
                        written += 1;
                    }
                    if written.is_multiple_of(3) {
                        writer.publish();
                    }
                    if !writer.poll() {
                        thread::yield_now();
                    }
                }
                writer.write_control(0, Control::EndOfInput);
                writer.finish();
                while !writer.quiescent() {
                    writer.poll();
                    thread::yield_now();
                }
                assert!(writer.take_error().is_none());
                assert_eq!((pool.in_use(), writer.counters().records), (0, RECORDS));
            })
        })
        .collect();
    let mut gate = gate(layout, receivers, 4);
    let mut seen = [0; 2];
    while !gate.drained() {
        let mut ended = None;
        let any = read_some::<T>(&mut gate, 7, |channel, item| match item {
            Seen::Control(control) => {
                assert_eq!((control, seen[channel]), (Control::EndOfInput, RECORDS));
                ended = Some(channel);
            }
            Seen::Record(hash, timestamp, (number, text_seen)) => {
                assert_eq!((hash, timestamp, number), (seen[channel] as u32, channel as i64, seen[channel]));
                assert_eq!(text_seen, text(number));
                seen[channel] += 1;
            }
        });
        ended.into_iter().for_each(|channel| gate.end(channel));
        if !any {
            thread::yield_now();
        }
    }
    assert_eq!(seen, [RECORDS; 2]);
    sending.into_iter().for_each(|sender| sender.join().expect("no panic"));
}
