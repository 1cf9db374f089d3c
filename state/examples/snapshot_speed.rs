//! What a snapshot costs: random updates without one, beside one, and with increments; the longest slice and the
//! longest batch; bytes; restoring. Times are processor
//! time of the thread, so that a shared machine shows less. Nothing is written to disk: the sink copies into one buffer again and again.
//!
//! `cargo run --release -p thalweg-state --example snapshot_speed [-- KEYS]`

use std::time::Duration;

use thalweg_model::{KeyHash, MaxParallelism, Record, record::key_hash};
use thalweg_state::{
    ImageSink, Place, Progress, RowTable, SnapshotKind, Snapshots, TableConfig, restore, snapshot_to_vec,
};

const BATCH: usize = 256;
const AHEAD: usize = 16;
const SLICE_NS: u32 = 10_000;
const RUN: Duration = Duration::from_millis(4000);

/// A sink that forgets what it is given.
struct Forget {
    buffer: Vec<u8>,
    bytes: u64,
}

impl ImageSink for Forget {
    fn room(&mut self) -> &mut [u8] {
        &mut self.buffer
    }
    fn advance(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }
}

/// Processor time of this thread.
fn busy() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the time it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn main() {
    let keys: u64 = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(10_000_000);
    println!("{SLICE_NS} ns a slice, one slice after each batch of {BATCH} updates, {keys} keys");
    measure::<u64>(keys, "rows of 24 bytes", |n| n);
    measure::<String>(keys / 10, "a tenth of the keys, strings of 180 bytes", |n| format!("{n:0180}"));
}

fn measure<V: Record>(keys: u64, what: &str, value: impl Fn(u64) -> V) {
    let config = TableConfig::whole(MaxParallelism::derived(1));
    let mut table = RowTable::<u64, V>::new(config);
    for key in 0..keys {
        table.insert(key_hash::<u64>(key), key, value(key).view());
    }
    println!("{what}: {} MiB of memory", table.memory_bytes() >> 20);
    let values: Vec<V> = (0..64).map(value).collect();
    for kind in [None, Some(SnapshotKind::Full), Some(SnapshotKind::Base), Some(SnapshotKind::Increment), None] {
        beside(&mut table, keys, kind, &values);
    }
    table.abort_snapshot();
    let start = busy();
    let image = snapshot_to_vec(&mut table, SnapshotKind::Full).unwrap();
    let took = busy() - start;
    let start = busy();
    let restored: RowTable<u64, V> = restore(config, &[&image]).unwrap();
    let seconds = (busy() - start).as_secs_f64();
    assert_eq!(restored.len(), table.len());
    println!(
        "  image of {} MiB at one go in {took:.0?}; restored in {:.0} ms, {:.2} s/GiB, {} MiB of memory",
        image.len() >> 20,
        seconds * 1e3,
        seconds / (image.len() as f64 / (1u64 << 30) as f64),
        restored.memory_bytes() >> 20
    );
}

/// Updates for a while, beside snapshots if a kind is given: one begins each second.
fn beside<V: Record>(table: &mut RowTable<u64, V>, keys: u64, kind: Option<SnapshotKind>, values: &[V]) {
    let mut sink = Forget { buffer: vec![0; 256 << 10], bytes: 0 };
    let (mut state, mut updates, mut snapshots) = (0x1234_5678_9abc_def1u64, 0u64, 0u32);
    let (mut begin, mut slice_max, mut batch_max, mut sweep) =
        (Duration::ZERO, Duration::ZERO, Duration::ZERO, Duration::ZERO);
    let mut slices: Vec<u32> = Vec::new();
    let (started, mut running) = (busy(), None);
    let (mut due, mut in_snapshot, mut beside, mut alone) = (Duration::ZERO, 0u64, Duration::ZERO, Duration::ZERO);
    while busy() - started < RUN || running.is_some() {
        let mut batch = [(0u64, KeyHash(0)); BATCH];
        for slot in &mut batch {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let key = ((state >> 32) * keys) >> 32;
            *slot = (key, key_hash::<u64>(key));
        }
        if let Some(kind) = kind.filter(|_| running.is_none() && busy() - started >= due && busy() - started < RUN) {
            let start = busy();
            let begun = table.begin_snapshot(kind).unwrap();
            begin = begin.max(busy() - start);
            running = Some((start, begun.epoch));
            due += Duration::from_secs(1);
        }
        let start = busy();
        update(table, &batch, values);
        let took = busy() - start;
        batch_max = batch_max.max(took);
        updates += BATCH as u64;
        if running.is_none() {
            alone += took;
        }
        if let Some((since, epoch)) = running {
            in_snapshot += BATCH as u64;
            beside += took;
            let start = busy();
            let progress = table.snapshot_step(SLICE_NS, &mut sink);
            let took = busy() - start;
            slice_max = slice_max.max(took);
            slices.push(took.as_nanos() as u32);
            if progress == Progress::Done {
                table.confirm_snapshot(epoch);
                sweep += busy() - since;
                snapshots += 1;
                running = None;
            }
        }
    }
    let seconds = (busy() - started).as_secs_f64();
    slices.sort_unstable();
    let at = |part: f64| slices.get((slices.len() as f64 * part) as usize).copied().unwrap_or(0) as f64 / 1e3;
    println!(
        "  {:<18} {:5.1} M updates/s (each {:4.1} ns alone, {:4.1} beside a sweep); longest batch {:.0?}; begin {:.1?}; {} slices: median {:.1} us, \
         99.9 % {:.1} us, longest {:.0?}; {} snapshots of {} MiB in {:.0?} each",
        kind.map_or("no snapshot".to_owned(), |kind| format!("{kind:?} each second")),
        updates as f64 / seconds / 1e6,
        alone.as_nanos() as f64 / (updates - in_snapshot).max(1) as f64,
        beside.as_nanos() as f64 / in_snapshot.max(1) as f64,
        batch_max,
        begin,
        slices.len(),
        at(0.5),
        at(0.999),
        slice_max,
        snapshots,
        (sink.bytes / snapshots.max(1) as u64) >> 20,
        sweep / snapshots.max(1),
    );
}

#[inline(never)]
fn update<V: Record>(table: &mut RowTable<u64, V>, batch: &[(u64, KeyHash); BATCH], values: &[V]) {
    let mut places = [Place::default(); AHEAD];
    for (place, &(_, hash)) in places.iter_mut().zip(batch) {
        *place = table.locate(hash);
    }
    for (index, &(key, hash)) in batch.iter().enumerate() {
        let place = places[index % AHEAD];
        if let Some(&(_, ahead)) = batch.get(index + AHEAD) {
            places[index % AHEAD] = table.locate(ahead);
        }
        table.update_at(place, hash, key, |_| V::from_view(values[index % values.len()].view()));
    }
}
