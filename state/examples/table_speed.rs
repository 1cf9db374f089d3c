//! Speed of a keyed table: random updates with prefetch beside those of a bare table, scans, and growth with its
//! longest pause. Rates are per second of processor time of the thread, so that a shared machine shows less.
//!
//! `cargo run --release -p thalweg-state --example table_speed [-- KEYS...]`

use std::time::Instant;

use thalweg_model::{KeyHash, MaxParallelism, record::key_hash};
use thalweg_state::{Cursor, LOCATE_AHEAD, PINPOINT_AHEAD, Place, RowTable, TableConfig};

const BATCH: usize = 1024;
const AHEAD: usize = LOCATE_AHEAD;
const ROUNDS: usize = 9;

fn main() {
    let keys: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let keys = if keys.is_empty() { vec![1_000, 100_000, 1_000_000, 10_000_000] } else { keys };
    println!(
        "{:>10} {:>13} {:>10} {:>10} {:>12} {:>10} {:>12} {:>10} {:>8}",
        "keys", "updates M/s", "plain M/s", "bare M/s", "insert M/s", "pause us", "split us", "scan M/s", "MiB"
    );
    for keys in keys {
        measure(keys);
    }
}

/// Processor time of this thread in seconds.
fn busy_s() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the time it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn measure(keys: u64) {
    let mut table = RowTable::<u64, u64>::new(TableConfig::whole(MaxParallelism::derived(1)));
    let mut bare = BareTable::new(keys);
    let started = busy_s();
    for key in 0..keys {
        table.update(key_hash::<u64>(key), key, |count| count.unwrap_or(0) + 1);
        // The table is filled in this order; the bare one below.
    }
    let inserts = keys as f64 / (busy_s() - started) / 1e6;
    for key in 0..keys {
        bare.update(key_hash::<u64>(key), key);
    }
    let (mut best, mut plain_best, mut bare_best, mut updates) = (0.0f64, 0.0f64, 0.0f64, keys);
    for _ in 0..ROUNDS {
        best = best.max(rate(keys, |batch| run(&mut table, batch)));
        plain_best = plain_best.max(rate(keys, |batch| run_plain(&mut table, batch)));
        bare_best = bare_best.max(rate(keys, |batch| run_bare(&mut bare, batch)));
        updates += 2 * UPDATES;
    }
    let started = busy_s();
    let (mut cursor, mut sum, mut rows) = (Cursor::default(), 0, 0);
    while let Some((_, count, _)) = table.next(&mut cursor) {
        sum += count;
        rows += 1;
    }
    let scan = rows as f64 / (busy_s() - started) / 1e6;
    assert_eq!((sum, rows, table.len() as u64), (updates, keys, keys));
    let mib = table.memory_bytes() as f64 / (1 << 20) as f64;
    let [pause, split] = pauses_us(keys);
    println!(
        "{keys:>10} {best:>13.1} {plain_best:>10.1} {bare_best:>10.1} {inserts:>12.1} {pause:>10.1} {split:>12.1} {scan:>10.1} {mib:>8.2}"
    );
}

const UPDATES: u64 = (4_000_000 / BATCH * BATCH) as u64;

/// Updates of random keys in a million per second, the time for making them up left out.
fn rate(keys: u64, mut update: impl FnMut(&[(u64, KeyHash); BATCH])) -> f64 {
    let mut state = Instant::now().elapsed().as_nanos() as u64 ^ 0x1234_5678_9abc_def1;
    let mut batches = vec![[(0u64, KeyHash(0)); BATCH]; UPDATES as usize / BATCH];
    for slot in batches.as_flattened_mut() {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let key = ((state >> 32) * keys) >> 32;
        *slot = (key, key_hash::<u64>(key));
    }
    let started = busy_s();
    for batch in &batches {
        update(batch);
    }
    UPDATES as f64 / (busy_s() - started) / 1e6
}

/// The longest time and the 99.9th percentile of times that one new key took, of those that grew the table.
fn pauses_us(keys: u64) -> [f64; 2] {
    let mut table = RowTable::<u64, u64>::new(TableConfig::whole(MaxParallelism::derived(1)));
    let mut growths = Vec::new();
    for key in 0..keys {
        let (held, start) = (table.memory_bytes(), Instant::now());
        table.insert(key_hash::<u64>(key), key, 1);
        let took_us = start.elapsed().as_secs_f64() * 1e6;
        if table.memory_bytes() != held {
            growths.push(took_us);
        }
    }
    growths.sort_by(f64::total_cmp);
    let at = |part: f64| growths.get(((growths.len() as f64 - 1.0) * part) as usize).copied().unwrap_or(0.0);
    [at(1.0), at(0.5)]
}

#[inline(never)]
fn run(table: &mut RowTable<u64, u64>, batch: &[(u64, KeyHash); BATCH]) {
    let mut places = [Place::default(); AHEAD];
    for (place, &(_, hash)) in places.iter_mut().zip(batch) {
        *place = table.locate(hash);
    }
    for (index, &(key, hash)) in batch.iter().enumerate() {
        let place = places[index % AHEAD];
        if let Some(&(_, ahead)) = batch.get(index + AHEAD) {
            places[index % AHEAD] = table.locate(ahead);
        }
        if let Some(&(_, near)) = batch.get(index + PINPOINT_AHEAD) {
            table.pinpoint(&mut places[(index + PINPOINT_AHEAD) % AHEAD], near);
        }
        table.update_at(place, hash, key, |count| count.unwrap_or(0) + 1);
    }
}

/// As `run`, without keeping the places.
#[inline(never)]
fn run_plain(table: &mut RowTable<u64, u64>, batch: &[(u64, KeyHash); BATCH]) {
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

/// What a table can do that does nothing but count: 16-byte rows, never growing, at most half full, small pages.
struct BareTable {
    rows: Vec<(u64, u64)>,
    shift: u32,
}

impl BareTable {
    fn new(keys: u64) -> Self {
        let rows = (keys * 3 / 2).next_power_of_two();
        Self { rows: vec![(0, 0); rows as usize], shift: 64 - rows.ilog2() }
    }

    #[inline(always)]
    fn index(&self, hash: KeyHash) -> usize {
        ((hash.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    #[inline(always)]
    fn update(&mut self, hash: KeyHash, key: u64) {
        let (mut index, mask) = (self.index(hash), self.rows.len() - 1);
        loop {
            let row = &mut self.rows[index & mask];
            if row.0 == key + 1 {
                row.1 += 1;
                return;
            }
            if row.0 == 0 {
                *row = (key + 1, 1);
                return;
            }
            index += 1;
        }
    }
}

#[inline(never)]
fn run_bare(table: &mut BareTable, batch: &[(u64, KeyHash); BATCH]) {
    for (index, &(key, hash)) in batch.iter().enumerate() {
        if let Some(&(_, ahead)) = batch.get(index + AHEAD) {
            let row = &raw const table.rows[table.index(ahead)];
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a prefetch reads nothing that the program sees.
            unsafe {
                std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(row.cast());
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = row;
        }
        table.update(hash, key);
    }
}
