//! Images of tables: one alone, and one that goes on from another where a first length says where they meet.

#![no_main]

use libfuzzer_sys::fuzz_target;
use thalweg_model::MaxParallelism;
use thalweg_state::{ListTable, MapTable, RowTable, Snapshots, TableConfig, TimerQueue, restore, snapshot_to_vec};

fn config() -> TableConfig {
    TableConfig { max_segment_rows: 8, ..TableConfig::whole(MaxParallelism::new(16).expect("a power of two")) }
}

/// What is restored can be written: it is whole.
fn restored<T: thalweg_state::Restore + Snapshots>(images: &[&[u8]]) {
    if let Ok(mut table) = restore::<T>(config(), images) {
        let image = snapshot_to_vec(&mut table, thalweg_state::SnapshotKind::Full).expect("a vector takes all");
        assert!(restore::<T>(config(), &[&image]).is_ok(), "what was written is not read");
    }
}

fn all(images: &[&[u8]]) {
    restored::<RowTable<String, (u64, String)>>(images);
    restored::<ListTable<u32, String>>(images);
    restored::<MapTable<u32, String, u64>>(images);
    restored::<TimerQueue<u64>>(images);
}

fuzz_target!(|bytes: &[u8]| {
    all(&[bytes]);
    if let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (base, increment) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
        all(&[base, increment]);
    }
});
