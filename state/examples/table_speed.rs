//! Speed of a keyed table: random updates with prefetch, scans, growth and its longest pause.
//!
//! `cargo run --release -p thalweg-state --example table_speed [-- KEYS...]`

use std::time::Instant;

use thalweg_model::{KeyHash, MaxParallelism, record::key_hash};
use thalweg_state::{Cursor, RowTable, TableConfig};

const BATCH: usize = 1024;
const AHEAD: usize = 24;

fn main() {
    let keys: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let keys = if keys.is_empty() { vec![1_000, 100_000, 1_000_000, 10_000_000] } else { keys };
    println!(
        "{:>10} {:>12} {:>12} {:>10} {:>10} {:>9}",
        "keys", "updates M/s", "insert M/s", "pause us", "scan M/s", "MiB"
    );
    for keys in keys {
        measure(keys);
    }
}

fn measure(keys: u64) {
    let mut table = RowTable::<u64, u64>::new(TableConfig::whole(MaxParallelism::derived(1)));
    let (mut seconds, mut pause) = (0.0f64, 0.0f64);
    for first in (0..keys).step_by(16) {
        let start = Instant::now();
        for key in first..(first + 16).min(keys) {
            table.update(key_hash::<u64>(key), key, |count| count.unwrap_or(0) + 1);
        }
        let took = start.elapsed().as_secs_f64();
        seconds += took;
        pause = pause.max(took);
    }
    let inserts = keys as f64 / seconds / 1e6;

    let mut state = 0x1234_5678u64;
    let mut batch = [(0u64, KeyHash(0)); BATCH];
    let (mut best, mut updates) = (0.0f64, keys);
    for _ in 0..5 {
        let rounds = (20_000_000 / BATCH).max(1);
        let mut busy = 0.0;
        for _ in 0..rounds / 64 {
            let mut batches = Vec::with_capacity(64);
            for _ in 0..64 {
                for slot in &mut batch {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let key = ((state >> 32) * keys) >> 32;
                    *slot = (key, key_hash::<u64>(key));
                }
                batches.push(batch);
            }
            let start = Instant::now();
            for batch in &batches {
                run(&mut table, batch);
            }
            busy += start.elapsed().as_secs_f64();
        }
        let done = (rounds / 64 * 64 * BATCH) as u64;
        updates += done;
        best = best.max(done as f64 / busy / 1e6);
    }

    let start = Instant::now();
    let (mut cursor, mut sum, mut rows) = (Cursor::default(), 0, 0);
    while let Some((_, count, _)) = table.next(&mut cursor) {
        sum += count;
        rows += 1;
    }
    let scan = rows as f64 / start.elapsed().as_secs_f64() / 1e6;
    assert_eq!((sum, rows, table.len() as u64), (updates, keys, keys));
    let mib = table.memory_bytes() as f64 / (1 << 20) as f64;
    println!("{keys:>10} {best:>12.1} {inserts:>12.1} {:>10.1} {scan:>10.1} {mib:>9.2}", pause * 1e6);
}

#[inline(never)]
fn run(table: &mut RowTable<u64, u64>, batch: &[(u64, KeyHash); BATCH]) {
    for &(_, hash) in &batch[..AHEAD] {
        table.prefetch(hash);
    }
    for (index, &(key, hash)) in batch.iter().enumerate() {
        if let Some(&(_, ahead)) = batch.get(index + AHEAD) {
            table.prefetch(ahead);
        }
        table.update(hash, key, |count| count.unwrap_or(0) + 1);
    }
}
