//! Images of version 1 that later releases must restore. `WRITE_FIXTURES=1` writes them anew, for a new version only.

use std::{
    fs,
    path::{Path, PathBuf},
};

use thalweg_model::{MaxParallelism, Record, record::key_hash};
use thalweg_state::{
    ListTable, MapTable, RowTable, SnapshotKind, Snapshots, TableConfig, TimerQueue, restore, snapshot_to_vec,
};

fn config() -> TableConfig {
    TableConfig { max_segment_rows: 8, ..TableConfig::whole(MaxParallelism::new(16).unwrap()) }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The image that is kept under this name.
fn kept(name: &str, bytes: Vec<u8>) -> Vec<u8> {
    let path = fixture(name);
    if std::env::var_os("WRITE_FIXTURES").is_some() {
        fs::write(&path, &bytes).unwrap();
    }
    let kept = fs::read(&path).unwrap();
    assert!(kept == bytes, "{name}: this release writes other bytes; raise the version");
    kept
}

#[test]
fn when_rows_of_version_1_are_restored_then_they_are_what_was_written() {
    let mut table = RowTable::<String, (u64, String)>::new(config());
    let hash = |key: &str| key_hash::<String>(key);
    for n in 0..20u64 {
        let (key, text) = (format!("key {n}"), format!("value {n}"));
        table.insert(hash(&key), &key, (n, &text));
    }
    let base = kept("rows-v1-order-2.bin", snapshot_to_vec(&mut table, SnapshotKind::Base).unwrap());
    table.confirm_snapshot(thalweg_state::ImageIndex::of(&base).unwrap().epoch());
    table.remove(hash("key 3"), "key 3");
    table.insert(hash("key 4"), "key 4", (400, "changed"));
    let increment = kept("rows-increment-v1.bin", snapshot_to_vec(&mut table, SnapshotKind::Increment).unwrap());

    // The order of rows is another from release to release.
    for base in [base, fs::read(fixture("rows-v1.bin")).unwrap()] {
        let restored: RowTable<String, (u64, String)> = restore(config(), &[&base, &increment]).unwrap();
        assert_eq!(restored.len(), 19);
        for n in (0..20u64).filter(|&n| n != 3) {
            let (key, text) = (format!("key {n}"), format!("value {n}"));
            let value = if n == 4 { (400, "changed") } else { (n, text.as_str()) };
            assert_eq!(restored.get(hash(&key), &key), Some(value), "{key}");
        }
        assert_eq!(restored.get(hash("key 3"), "key 3"), None);
    }
}

#[test]
fn when_lists_and_maps_of_version_1_are_restored_then_they_are_what_was_written() {
    let hash = |key: u32| key_hash::<u32>(key);
    let mut lists = ListTable::<u32, String>::new(config());
    let mut maps = MapTable::<u32, String, u64>::new(config());
    for key in 0..10u32 {
        for n in 0..key {
            lists.append(hash(key), key, &format!("element {n}"));
            maps.put(hash(key), key, &format!("entry {n}"), u64::from(n));
        }
    }
    let list_image = kept("lists-v1.bin", snapshot_to_vec(&mut lists, SnapshotKind::Full).unwrap());
    let map_image = kept("maps-v1.bin", snapshot_to_vec(&mut maps, SnapshotKind::Full).unwrap());

    let lists: ListTable<u32, String> = restore(config(), &[&list_image]).unwrap();
    let maps: MapTable<u32, String, u64> = restore(config(), &[&map_image]).unwrap();
    for key in 0..10u32 {
        let expected: Vec<String> = (0..key).map(|n| format!("element {n}")).collect();
        assert!(lists.list(hash(key), key).eq(expected.iter().map(String::as_str)), "key {key}");
        for n in 0..key {
            assert_eq!(maps.get(hash(key), key, &format!("entry {n}")), Some(u64::from(n)));
        }
        assert_eq!(maps.entries(hash(key), key).count(), key as usize);
    }
}

#[test]
fn when_timers_of_version_1_are_restored_then_they_are_what_was_written() {
    let mut timers = TimerQueue::<u64>::new(config());
    for key in 0..12u64 {
        timers.register(key_hash::<u64>(key), key, 0, 1000 - key as i64);
    }
    let image = kept("timers-v1.bin", snapshot_to_vec(&mut timers, SnapshotKind::Full).unwrap());
    let mut timers: TimerQueue<u64> = restore(config(), &[&image]).unwrap();
    for key in (0..12u64).rev() {
        let timer = timers.pop_due(2000).unwrap();
        assert_eq!((timer.key.view(), timer.timestamp), (key, 1000 - key as i64));
    }
    assert!(timers.is_empty());
}

/// Rows of an image find their place by their hash and their key group: one that has others is refused, never misread.
#[test]
fn when_an_image_was_written_with_another_hash_then_it_is_refused_by_version() {
    let image = fs::read(fixture("rows-v1-hash-1.bin")).unwrap();
    let refused = restore::<RowTable<String, (u64, String)>>(config(), &[&image]).err().unwrap();
    assert_eq!(refused, thalweg_state::ImageError::Version { format: 1, hash: 1 });
    assert!(refused.to_string().contains("restore it with the version that wrote it"), "{refused}");
}
