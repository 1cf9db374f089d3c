//! The longest single operations where much is given up at once: a table emptied while it is read, a snapshot aborted
//! after every row has changed, and an increment behind many removals.

use std::time::Duration;

use thalweg_model::{KeyHash, record::key_hash};
use thalweg_state::{ListTable, Progress, RowTable, SnapshotKind, Snapshots};

use crate::{
    beside::{Forget, SLICE_NS},
    clock::{Times, busy},
    shapes::config,
};

type Hashed = (u64, KeyHash);

pub fn measure(keys: u64) {
    let keys: Vec<Hashed> = (0..keys).map(|key| (key, key_hash::<u64>(key))).collect();
    println!("longest operations, {} keys (begin; slices: median / 99 % / 99.99 % / longest; confirm), us", keys.len());
    let mut rows = RowTable::<u64, String>::new(config());
    let value = "v".repeat(200);
    for &(key, hash) in &keys {
        rows.insert(hash, key, &value);
    }
    let update_all = |rows: &mut RowTable<u64, String>| {
        for &(key, hash) in &keys {
            rows.update(hash, key, |_| "w".repeat(150));
        }
    };
    run("rows, all changed", &mut rows, SnapshotKind::Base, update_all);
    rows.begin_snapshot(SnapshotKind::Base).unwrap();
    update_all(&mut rows);
    rows.abort_snapshot();
    run("rows, after one was aborted", &mut rows, SnapshotKind::Base, |_| {});
    for &(key, hash) in &keys[..keys.len() / 3] {
        rows.remove(hash, key);
    }
    run("rows, a third removed before", &mut rows, SnapshotKind::Increment, |_| {});
    run("rows, emptied", &mut rows, SnapshotKind::Base, RowTable::clear);

    let mut lists = ListTable::<u64, u64>::new(config());
    for n in 0..4 {
        for &(key, hash) in &keys {
            lists.append(hash, key, n);
        }
    }
    lists.begin_snapshot(SnapshotKind::Base).unwrap();
    for &(key, hash) in &keys {
        lists.remove(hash, key);
        lists.append(hash, key, 1);
    }
    lists.abort_snapshot();
    run("lists, after one was aborted", &mut lists, SnapshotKind::Base, |_| {});
    run("lists, emptied", &mut lists, SnapshotKind::Base, ListTable::clear);
}

fn run<T: Snapshots>(what: &str, table: &mut T, kind: SnapshotKind, change: impl FnOnce(&mut T)) {
    let us = |took: Duration| took.as_nanos() as f64 / 1e3;
    let mut sink = Forget::new();
    let start = busy();
    let begun = table.begin_snapshot(kind).unwrap();
    let begin = busy() - start;
    table.snapshot_step(SLICE_NS, &mut sink);
    change(table);
    let mut slices = Times::default();
    loop {
        let start = busy();
        let progress = table.snapshot_step(SLICE_NS, &mut sink);
        let took = busy() - start;
        slices.add(took);
        if progress == Progress::Done {
            break;
        }
    }
    let start = busy();
    table.confirm_snapshot(begun.epoch);
    let confirm = busy() - start;
    println!("  {what}: {:.1}; {}; {:.1}", us(begin), slices.show(), us(confirm));
}
