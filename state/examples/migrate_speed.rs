//! Measures what restoring rows costs as they are, by declared changes, by a conversion, and reading them by schema.
//!
//! `cargo run --release -p thalweg-state --example migrate_speed -- [ROWS]`: prints nanoseconds a row.

use std::{ops::ControlFlow, time::Instant};

use thalweg_derive::Record;
use thalweg_model::{KeyHash, MaxParallelism, StateSchema, record::key_hash, schema::read};
use thalweg_state::{
    ImageError, ImageIndex, Migration, RowTable, SnapshotKind, TableConfig, live_entries, migrate, restore,
    snapshot_to_vec,
};

/// What is stored.
#[derive(Record)]
#[record(model = ::thalweg_model)]
pub struct Old {
    price: u32,
    count: u64,
    channel: String,
}

/// What it becomes.
#[derive(Record)]
#[record(model = ::thalweg_model)]
pub struct New {
    price: u64,
    count: u64,
    channel: String,
    currency: String,
}

const RUNS: usize = 5;

fn hash(key: u64) -> KeyHash {
    key_hash::<u64>(key)
}

fn measure(what: &str, rows: u64, mut run: impl FnMut() -> u64) {
    let mut ns: Vec<u64> = (0..RUNS)
        .map(|_| {
            let begin = Instant::now();
            assert_eq!(run(), rows);
            begin.elapsed().as_nanos() as u64 / rows
        })
        .collect();
    ns.sort_unstable();
    println!("{what:<40} {:>6} ns/row, median of {RUNS}: {ns:?}", ns[RUNS / 2]);
}

fn main() {
    let rows: u64 = std::env::args().nth(1).map_or(500_000, |text| text.parse().expect("a number of rows"));
    let config = TableConfig::whole(MaxParallelism::new(128).expect("in range"));
    let mut table = RowTable::<u64, Old>::new(config);
    for n in 0..rows {
        let channel = if n % 2 == 0 { "Google" } else { "a channel that does not lie in place" };
        table.insert(hash(n), n, OldView { price: n as u32, count: n, channel });
    }
    let image = snapshot_to_vec(&mut table, SnapshotKind::Full).expect("none is running");
    println!("{rows} rows, {:.1} bytes each in the image", image.len() as f64 / rows as f64);
    let stored = StateSchema::rows::<u64, Old>();
    measure("restore as it is", rows, || restore::<RowTable<u64, Old>>(config, &[&image]).expect("sound").len() as u64);
    let declared = Migration::<New>::new().widen("price").add_field("currency", "EUR".to_string());
    let converted = Migration::<New>::convert::<Old>(|old| New {
        price: old.price.into(),
        count: old.count,
        channel: old.channel.into(),
        currency: "EUR".into(),
    });
    for (what, migration) in [("restore by declared changes", declared), ("restore by a conversion", converted)] {
        measure(what, rows, || {
            migrate::<RowTable<u64, New>>(config, &stored, &[&image], &migration).expect("declared").len() as u64
        });
    }
    let index = ImageIndex::of(&image).expect("an image");
    let value = stored.value.as_ref().expect("rows have values");
    measure("read by schema", rows, || {
        let mut seen = 0;
        live_entries::<ImageError>(
            std::slice::from_ref(&index),
            config.range,
            |_, extent| Ok(image[extent.offset as usize..][..extent.bytes as usize].to_vec()),
            |entry| {
                if let thalweg_state::Content::Value(bytes) = &entry.content {
                    seen += u64::from(read(value, bytes).is_ok());
                }
                Ok(ControlFlow::Continue(()))
            },
        )
        .expect("sound");
        seen
    });
}
