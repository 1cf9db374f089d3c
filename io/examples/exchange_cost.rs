//! What a record costs on its way through an edge, next to a bare ring of the same buffers.
//!
//! `cargo run --release -p thalweg-io --example exchange_cost [-- MILLIONS]`: 24-byte records in 32-byte frames and 32 KiB pages,
//! first on one thread (each side by itself), then between two pinned threads.

use std::{hint::black_box, thread, time::Instant};

use thalweg_io::{
    ChannelConfig, EdgeConfig, EdgeWriter, FrameBuffer, FrameLayout, Gate, GateConfig, PagePool, PoolConfig, channel,
    ring::ring,
};
use thalweg_model::{Elem, KeyHash, record::decode_unchecked};

type Triple = (u64, u64, i64);

const PAGE_BYTES: usize = 32 << 10;

fn pin(core: usize) {
    // SAFETY: an all-zero CPU set is a valid one, and the call reads no more than its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

#[inline(always)]
fn triple(n: u64) -> Triple {
    (n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n, n as i64)
}

/// The best time per record over windows of a quarter of a million: on a shared machine the mean measures the neighbours.
struct Windows {
    since: Instant,
    seen: u64,
    best_s: f64,
}

impl Windows {
    fn new() -> Self {
        Self { since: Instant::now(), seen: 0, best_s: f64::MAX }
    }

    fn count(&mut self, records: u64) {
        self.seen += records;
        if self.seen >= 1 << 18 {
            self.best_s = self.best_s.min(self.since.elapsed().as_secs_f64() / self.seen as f64);
            (self.since, self.seen) = (Instant::now(), 0);
        }
    }
}

fn edge(in_flight: u32) -> (EdgeConfig, ChannelConfig, GateConfig) {
    let layout = FrameLayout::of::<Triple>(false);
    let buffers = in_flight as usize;
    let edge = EdgeConfig {
        layout,
        max_record_bytes: 1 << 20,
        buffers_per_channel: 2,
        extra_buffers: buffers,
        max_buffers_per_channel: buffers,
    };
    (
        edge,
        ChannelConfig { exclusive_buffers: 2, ring_slots: 64, same_core: false },
        GateConfig { floating_buffers: in_flight - 2 },
    )
}

/// Reads whatever has come. Answers how many records.
#[inline(never)]
fn read(gate: &mut Gate, sum: &mut u64) -> u64 {
    let mut count = 0;
    while let Some(channel) = gate.poll() {
        let mut cursor = gate.cursor(channel);
        while let Some(frame) = cursor.next::<Triple>() {
            // SAFETY: the payload is of a record of this type.
            let view = unsafe { decode_unchecked::<Triple>(frame.payload) };
            *sum = sum.wrapping_add(view.0 ^ view.1 ^ view.2 as u64 ^ frame.hash.0 as u64);
            count += 1;
        }
        let position = cursor.position();
        gate.consume(channel, position);
    }
    count
}

/// Writes records from `from` until there is no room. Answers the next one.
#[inline(never)]
fn write(writer: &mut EdgeWriter, mut from: u64, to: u64) -> u64 {
    while from < to && writer.room() {
        let record = triple(from);
        writer.write::<Triple>(0, &Elem::new(record, record.2), KeyHash(record.0 as u32));
        from += 1;
    }
    from
}

fn one_thread(records: u64) {
    let (edge, channel_config, gate) = edge(64);
    let pool =
        PagePool::new(PoolConfig { page_bytes: PAGE_BYTES, pages: 80, huge_pages: true, max_overdraft_pages: 0 });
    let (sender, receiver) = channel(channel_config);
    let mut writer = EdgeWriter::new(edge, vec![sender], pool.expect("memory"));
    let mut gate = Gate::new(gate, vec![(edge.layout, receiver)]);
    let (mut sent, mut seen, mut sum, mut write_s, mut read_s) = (0, 0, 0, f64::MAX, f64::MAX);
    while seen < records {
        // The best batch: on a shared machine the others measure the neighbours.
        let (from, start) = (sent, Instant::now());
        sent = write(&mut writer, sent, records.min(sent + 8192));
        writer.publish();
        let written = Instant::now();
        let count = read(&mut gate, &mut sum);
        seen += count;
        read_s = read_s.min(written.elapsed().as_secs_f64() / count as f64);
        writer.poll();
        write_s = write_s.min((written - start).as_secs_f64() / (sent - from) as f64);
    }
    black_box(sum);
    println!(
        "one thread, edge:        write {:.2} ns, read {:.2} ns a record (best batches)",
        write_s * 1e9,
        read_s * 1e9
    );
}

fn cursor_alone(records: u64) {
    let mut frames = FrameBuffer::new(FrameLayout::of::<Triple>(false));
    (0..1024).for_each(|n| frames.push::<Triple>(&Elem::new(triple(n), 0), KeyHash(n as u32)));
    let (mut sum, mut best_s) = (0u64, f64::MAX);
    for _ in 0..records / 1024 {
        let start = Instant::now();
        let mut cursor = frames.cursor();
        while let Some(frame) = cursor.next::<Triple>() {
            // SAFETY: the payload is of a record of this type.
            let view = unsafe { decode_unchecked::<Triple>(frame.payload) };
            sum = sum.wrapping_add(view.0 ^ view.1 ^ view.2 as u64 ^ frame.hash.0 as u64);
        }
        black_box(&mut sum);
        best_s = best_s.min(start.elapsed().as_secs_f64() / 1024.0);
    }
    println!("cursor in cache:         {:.2} ns a record (best batch)", best_s * 1e9);
}

fn two_threads(records: u64, in_flight: u32) -> f64 {
    let (edge, channel_config, gate) = edge(in_flight);
    let (sender, receiver) = channel(channel_config);
    let mut windows = Windows::new();
    let sending = thread::spawn(move || {
        pin(0);
        let config =
            PoolConfig { page_bytes: PAGE_BYTES, pages: edge.max_pages(1), huge_pages: true, max_overdraft_pages: 0 };
        let pool = PagePool::new(config).expect("memory");
        let mut writer = EdgeWriter::new(edge, vec![sender], pool.clone());
        let mut sent = 0;
        while sent < records {
            sent = write(&mut writer, sent, records.min(sent + 8192));
            writer.poll();
        }
        writer.finish();
        while !writer.quiescent() {
            writer.poll();
        }
        assert_eq!(pool.in_use(), 0);
    });
    pin(1);
    let mut gate = Gate::new(gate, vec![(edge.layout, receiver)]);
    let (mut seen, mut sum) = (0, 0);
    while seen < records {
        let count = read(&mut gate, &mut sum);
        seen += count;
        windows.count(count);
        if count == 0 {
            std::hint::spin_loop();
        }
    }
    gate.end(0);
    black_box(sum);
    while !gate.drained() {}
    sending.join().expect("sender");
    windows.best_s * 1e9
}

/// The same records in the same frames, by hand.
fn bare_ring(records: u64, in_flight: usize) -> f64 {
    let (mut data, mut full) = ring::<Box<[[u64; 4]]>>(64);
    let (mut returns, mut empty) = ring::<Box<[[u64; 4]]>>(64);
    let per_page = PAGE_BYTES / 32;
    let mut windows = Windows::new();
    let sending = thread::spawn(move || {
        pin(0);
        let mut free: Vec<_> = (0..in_flight).map(|_| vec![[0; 4]; per_page].into_boxed_slice()).collect();
        let mut n = 0;
        while n < records {
            while let Some(page) = empty.pop() {
                free.push(page);
            }
            let Some(mut page) = free.pop() else {
                std::hint::spin_loop();
                continue;
            };
            for frame in page.iter_mut() {
                let record = triple(n);
                *frame = [24 | record.0 << 32, record.0, record.1, record.2 as u64];
                n += 1;
            }
            let mut page = Some(page);
            while let Some(full) = page.take() {
                page = data.push(full).err();
            }
        }
    });
    pin(1);
    let (mut seen, mut sum) = (0, 0u64);
    while seen < records {
        let Some(page) = full.pop() else {
            std::hint::spin_loop();
            continue;
        };
        for frame in &page {
            sum = sum.wrapping_add(frame[1] ^ frame[2] ^ frame[3] ^ frame[0] >> 32);
        }
        seen += per_page as u64;
        windows.count(per_page as u64);
        let _ = returns.push(page);
    }
    black_box(sum);
    sending.join().expect("sender");
    windows.best_s * 1e9
}

fn main() {
    let millions = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(100u64);
    let records = millions << 20;
    cursor_alone(records);
    one_thread(records);
    for _ in 0..3 {
        for in_flight in [10, 32, 62] {
            let (bare, edge) = (bare_ring(records, in_flight), two_threads(records, in_flight as u32));
            println!(
                "two threads, {in_flight} in flight: bare {bare:.2} ns, edge {edge:.2} ns, ratio {:.2}",
                edge / bare
            );
        }
    }
}
