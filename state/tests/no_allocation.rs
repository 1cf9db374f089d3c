//! Once warm, keyed state of fixed size takes no memory for an operation.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use thalweg_model::{KeyHash, MaxParallelism, record::key_hash};
use thalweg_state::{Cursor, ListTable, MapTable, RowTable, TableConfig, TimerQueue};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations_of(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

fn config() -> TableConfig {
    TableConfig::whole(MaxParallelism::new(128).unwrap())
}

fn keys() -> impl Iterator<Item = (u64, KeyHash)> {
    (0..20_000).map(|key| (key, key_hash::<u64>(key)))
}

#[test]
fn when_a_row_table_is_warm_then_nothing_allocates() {
    let mut table = RowTable::<u64, (u64, i64)>::new(config());
    let fill = |table: &mut RowTable<u64, (u64, i64)>| {
        for (key, hash) in keys() {
            table.update(hash, key, |old| (old.map_or(0, |(count, _)| count) + 1, -1));
            table.modify_or_insert(hash, key, || unreachable!(), |value| value.1 += 1);
            table.insert(hash, key, (3, 4));
        }
    };
    fill(&mut table);
    assert_eq!(allocations_of(|| fill(&mut table)), 0);
    let drain_and_fill = |table: &mut RowTable<u64, (u64, i64)>| {
        let mut cursor = Cursor::default();
        while table.drain_next(&mut cursor).is_some() {}
        fill(table);
        table.reset();
        fill(table);
    };
    assert_eq!(allocations_of(|| drain_and_fill(&mut table)), 0);
    assert_eq!(table.len(), 20_000);
}

#[test]
fn when_a_table_of_strings_is_warm_then_writing_views_does_not_allocate() {
    let names: Vec<String> = (0..1000).map(|n| format!("a name that is not kept inline {n}")).collect();
    let mut table = RowTable::<String, String>::new(config());
    let mut round = |shift: usize| {
        for (n, name) in names.iter().enumerate() {
            table.insert(key_hash::<String>(name), name, &names[(n + shift) % 1000]);
            assert_eq!(table.get(key_hash::<String>(name), name), Some(&names[(n + shift) % 1000][..]));
        }
    };
    round(0);
    round(1);
    assert_eq!(allocations_of(|| round(2)), 0);
}

#[test]
fn when_lists_and_maps_are_warm_then_nothing_allocates() {
    let mut lists = ListTable::<u64, u64>::new(config());
    let mut maps = MapTable::<u64, u64, u64>::new(config());
    let mut round = || {
        for (n, hash) in keys() {
            let key = n % 1000;
            let hash = if n == key { hash } else { key_hash::<u64>(key) };
            lists.append(hash, key, n);
            maps.put(hash, key, n, n);
        }
        for (key, hash) in keys().take(1000) {
            assert_eq!(lists.list(hash, key).len(), 20);
            assert_eq!(maps.entries(hash, key).map(|(_, value)| value).max(), Some(19_000 + key));
            assert!(lists.remove(hash, key) && maps.remove(hash, key));
        }
    };
    round();
    assert_eq!(allocations_of(round), 0);
}

#[test]
fn when_timers_are_warm_then_nothing_allocates() {
    let mut timers = TimerQueue::<u64>::new(config());
    let mut round = |start: i64| {
        for (key, hash) in keys() {
            assert!(timers.register(hash, key, 1, start + (key as i64 * 7919) % 1000));
            if key % 4 == 0 {
                assert!(timers.delete(hash, key, 1, start + (key as i64 * 7919) % 1000));
            }
        }
        let mut fired = 0;
        while timers.pop_due(start + 1000).is_some() {
            fired += 1;
        }
        assert_eq!(fired, 15_000);
    };
    round(0);
    // Deleted rows are swept out by writing segments anew, into the place of segments written before.
    round(10_000);
    round(20_000);
    let count = allocations_of(|| round(30_000));
    assert!(count <= 64, "{count} allocations for 20,000 timers");
}
