//! What a snapshot costs, for tables of each kind: updates without one, beside full ones and beside increments, with the
//! slices beside a probe of the same thread; the sweep alone; restoring, beside copying the same bytes.
//!
//! Nothing is written to disk unless a file is named: then the image is read from there too, past the page cache.
//! `cargo run --release -p thalweg-state --example snapshot_speed [-- KEYS [SHAPES [FILE]]]`, shapes of `nsklmt`: numbers,
//! string values, string keys, lists, maps, and the longest operations (`t`); capitals leave the updates out.

mod beside;
mod clock;
mod restoring;
mod shapes;
mod tails;

use thalweg_state::SnapshotKind;

use crate::shapes::{ListShape, MapShape, NumberShape, Shape, StringKeyShape, StringShape};

fn main() {
    let mut args = std::env::args().skip(1);
    let keys: u64 = args.next().and_then(|arg| arg.parse().ok()).unwrap_or(10_000_000);
    let shapes = args.next().unwrap_or_else(|| "nsklmt".to_owned());
    let file = args.next();
    clock::pin();
    println!("{} ns a slice, one slice after each batch of {} updates", beside::SLICE_NS, beside::BATCH);
    for shape in shapes.chars() {
        let (with_updates, file) = (shape.is_lowercase(), file.as_deref());
        match shape.to_ascii_lowercase() {
            'n' => measure::<NumberShape>(keys, with_updates, file),
            's' => measure::<StringShape>(keys / 10, with_updates, file),
            'k' => measure::<StringKeyShape>(keys / 4, with_updates, file),
            'l' => measure::<ListShape>(keys / 20, with_updates, file),
            'm' => measure::<MapShape>(keys / 20, with_updates, file),
            't' => tails::measure(keys / 4),
            other => println!("there is no shape {other:?}"),
        }
    }
}

fn measure<S: Shape>(keys: u64, with_updates: bool, file: Option<&str>) {
    let (mut shape, mut table) = S::filled(keys);
    println!("{}, {keys} keys: {} MiB of memory", S::NAME, S::memory_bytes(&table) >> 20);
    for kind in
        [None, Some(SnapshotKind::Full), Some(SnapshotKind::Increment), None].into_iter().filter(|_| with_updates)
    {
        beside::measure::<S>(&mut shape, &mut table, keys, kind);
    }
    restoring::measure::<S>(table, file);
}
