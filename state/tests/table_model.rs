//! `RowTable` against a map of the standard library, with tiny segments and hashes that collide.

use std::collections::HashMap;

use proptest::prelude::*;
use thalweg_model::{KeyGroupRange, KeyHash, MaxParallelism, Record, record::key_hash};
use thalweg_state::{Cursor, NamespaceSalt, NoSalt, Place, RowTable, Salt, TableConfig};

fn config(max_segment_rows: u32) -> TableConfig {
    TableConfig { max_segment_rows, ..TableConfig::whole(MaxParallelism::new(128).unwrap()) }
}

/// How keys get their hashes: the real way, or so that they collide in this or that way.
#[derive(Clone, Copy, Debug)]
enum Hashing {
    Real,
    Modulo(u32),
    Constant(u32),
}

impl Hashing {
    fn hash<K: Record>(self, key: K::View<'_>) -> KeyHash {
        let real = key_hash::<K>(key);
        match self {
            Self::Real => real,
            Self::Modulo(m) => KeyHash(real.0 % m),
            Self::Constant(hash) => KeyHash(hash),
        }
    }
}

fn hashing() -> impl Strategy<Value = Hashing> {
    prop_oneof![
        3 => Just(Hashing::Real),
        1 => (1u32..20).prop_map(Hashing::Modulo),
        1 => prop_oneof![Just(0u32), Just(1), Just(2), Just(3), any::<u32>()].prop_map(Hashing::Constant),
    ]
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u16, u16),
    Update(u16),
    Modify(u16),
    Remove(u16),
    Get(u16),
    Scan,
    Reset,
    Clear,
    Drain,
    PartialDrain(u8),
}

fn op(keys: u16) -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => (0..keys, any::<u16>()).prop_map(|(k, v)| Op::Insert(k, v)),
        20 => (0..keys).prop_map(Op::Update),
        20 => (0..keys).prop_map(Op::Modify),
        30 => (0..keys).prop_map(Op::Remove),
        10 => (0..keys).prop_map(Op::Get),
        3 => Just(Op::Scan),
        1 => Just(Op::Reset),
        1 => Just(Op::Clear),
        1 => Just(Op::Drain),
        1 => any::<u8>().prop_map(Op::PartialDrain),
    ]
}

/// Runs the operations on both; `key` and `value` make what the numbers stand for.
fn run<K, V, S>(ops: &[Op], rows: u32, hashing: Hashing, key: impl Fn(u16) -> K, value: impl Fn(u16) -> V)
where
    K: Record + Clone + Eq + std::hash::Hash + std::fmt::Debug,
    V: Record + Clone + PartialEq + std::fmt::Debug,
    S: Salt<K>,
{
    let mut table = RowTable::<K, V, S>::new(config(rows));
    let mut model: HashMap<K, V> = HashMap::new();
    let hash = |key: &K| hashing.hash::<K>(key.view());
    for op in ops {
        match op {
            Op::Insert(k, v) => {
                let (k, v) = (key(*k), value(*v));
                assert_eq!(table.insert(hash(&k), k.view(), v.view()), model.insert(k, v).is_some());
            }
            Op::Update(n) => {
                let k = key(*n);
                let seen = model.get(&k).cloned();
                table.update(hash(&k), k.view(), |old| {
                    assert_eq!(old.map(V::from_view), seen);
                    value(n.wrapping_mul(31))
                });
                model.insert(k, value(n.wrapping_mul(31)));
            }
            Op::Modify(n) => {
                let k = key(*n);
                let init = || value(n.wrapping_mul(7));
                let f = |v: &mut V| {
                    let old = v.clone();
                    *v = value(n.wrapping_mul(5));
                    old
                };
                let seen = if n % 2 == 0 {
                    table.modify_or_insert_with(hash(&k), k.view(), init, f)
                } else {
                    table.modify_or_insert_near(hash(&k), k.view(), init, f)
                };
                assert_eq!(seen, f(model.entry(k).or_insert_with(init)));
            }
            Op::Remove(n) => {
                let k = key(*n);
                assert_eq!(table.remove(hash(&k), k.view()), model.remove(&k).is_some());
            }
            Op::Get(n) => {
                let k = key(*n);
                let place = table.locate_key(hash(&k), k.view());
                assert_eq!(table.get_at(place, hash(&k), k.view()).map(V::from_view), model.get(&k).cloned());
                assert_eq!(table.get(hash(&k), k.view()).map(V::from_view), model.get(&k).cloned());
                assert_eq!(table.contains(hash(&k), k.view()), model.contains_key(&k));
            }
            Op::Scan => {
                let mut seen = HashMap::new();
                table.for_each(|k, v, h| {
                    assert_eq!(h, hashing.hash::<K>(k));
                    assert!(seen.insert(K::from_view(k), V::from_view(v)).is_none());
                });
                assert_eq!(seen, model);
            }
            Op::Reset => {
                table.reset();
                model.clear();
            }
            Op::Clear => {
                table.clear();
                assert!(table.memory_bytes() < 2048, "{}", table.memory_bytes());
                model.clear();
            }
            Op::Drain => {
                let mut cursor = Cursor::default();
                while let Some((k, v, h)) = table.drain_next(&mut cursor) {
                    assert_eq!(h, hashing.hash::<K>(k));
                    assert_eq!(model.remove(&K::from_view(k)), Some(V::from_view(v)));
                }
                assert!(model.is_empty());
                assert_eq!(cursor, Cursor::default());
            }
            Op::PartialDrain(n) => {
                let mut cursor = Cursor::default();
                for _ in 0..*n {
                    let Some((k, v, _)) = table.drain_next(&mut cursor) else { break };
                    assert_eq!(model.remove(&K::from_view(k)), Some(V::from_view(v)));
                }
                table.reset();
                model.clear();
            }
        }
        assert_eq!(table.len(), model.len());
        assert_eq!(table.is_empty(), model.is_empty());
    }
    for (k, v) in &model {
        assert_eq!(table.get(hash(k), k.view()).map(V::from_view).as_ref(), Some(v));
    }
}

/// Strings short and long, so that archived values are inline or not, and change their size class.
fn text(n: u16) -> String {
    "thalweg ".repeat((n % 40) as usize / 3) + &n.to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn when_fixed_rows_change_at_random_then_the_table_is_the_map(
        ops in prop::collection::vec(op(300), 0..1500), hashing in hashing(), rows in prop_oneof![Just(8u32), Just(64), Just(2048)],
    ) {
        run::<u64, u64, NoSalt>(&ops, rows, hashing, |k| k as u64, |v| v as u64);
    }

    #[test]
    fn when_rows_of_128_bits_change_at_random_then_the_table_is_the_map(
        ops in prop::collection::vec(op(100), 0..500), hashing in hashing(),
    ) {
        run::<u128, (u8, i128, Option<u16>), NoSalt>(
            &ops, 8, hashing, |k| (k as u128) << 100, |v| (v as u8, -(v as i128) << 80, (v % 2 == 0).then_some(v)),
        );
    }

    #[test]
    fn when_strings_change_at_random_then_the_table_is_the_map(
        ops in prop::collection::vec(op(200), 0..800), hashing in hashing(),
    ) {
        run::<String, Vec<String>, NoSalt>(&ops, 8, hashing, text, |v| (0..v % 4).map(|n| text(v ^ n)).collect());
    }

    #[test]
    fn when_the_keys_share_a_hash_but_not_a_salt_then_the_table_is_the_map(
        ops in prop::collection::vec(op(500), 0..1500),
    ) {
        run::<(u64, i64), u32, NamespaceSalt>(&ops, 8, Hashing::Constant(77), |k| (5, k as i64 - 100), |v| v as u32);
    }
}

#[test]
fn when_thousands_of_keys_share_one_hash_then_all_are_kept() {
    for rows in [8, 2048] {
        let mut table = RowTable::<u64, u64>::new(config(rows));
        for key in 0..6000 {
            assert!(!table.insert(KeyHash(0), key, key * 2));
            // Others in between, so that the crowded segment is next to ordinary ones.
            table.insert(key_hash::<u64>(key + (1 << 40)), key + (1 << 40), 1);
        }
        assert_eq!(table.len(), 12_000);
        for key in 0..6000 {
            assert_eq!(table.get(KeyHash(0), key), Some(key * 2));
            assert_eq!(table.get(key_hash::<u64>(key + (1 << 40)), key + (1 << 40)), Some(1));
        }
        assert!(table.memory_bytes() < 2 << 20, "{}", table.memory_bytes());
        for key in (0..6000).rev() {
            assert!(table.remove(KeyHash(0), key));
        }
        assert_eq!(table.len(), 6000);
    }
}

#[test]
fn when_all_keys_are_of_one_key_group_then_the_directory_stays_small() {
    let max_parallelism = MaxParallelism::new(32768).unwrap();
    let mut table = RowTable::<u64, u64>::new(TableConfig::whole(max_parallelism));
    let wanted = max_parallelism.key_group(key_hash::<u64>(0));
    let keys: Vec<u64> =
        (0..200_000_000).filter(|&key| max_parallelism.key_group(key_hash::<u64>(key)) == wanted).take(3000).collect();
    for &key in &keys {
        table.insert(key_hash::<u64>(key), key, key);
    }
    assert!(keys.iter().all(|&key| table.get(key_hash::<u64>(key), key) == Some(key)));
    assert!(table.memory_bytes() < 1 << 20, "{}", table.memory_bytes());
}

#[test]
fn when_a_table_is_scanned_then_key_groups_come_in_order() {
    let max_parallelism = MaxParallelism::new(128).unwrap();
    let range = KeyGroupRange { start: 32, end: 63 };
    let mut table =
        RowTable::<u64, ()>::new(TableConfig { max_segment_rows: 8, ..TableConfig::new(range, max_parallelism) });
    let keys = (0..40_000u64).filter(|&key| range.contains(max_parallelism.key_group(key_hash::<u64>(key))));
    let mut inserted = 0;
    for key in keys {
        table.insert(key_hash::<u64>(key), key, ());
        inserted += 1;
    }
    let mut groups = Vec::new();
    table.for_each(|_, (), hash| groups.push(max_parallelism.key_group(hash)));
    assert_eq!(groups.len(), inserted);
    assert!(groups.is_sorted());
}

#[test]
fn when_rows_are_removed_and_inserted_for_long_then_the_table_does_not_grow() {
    let mut table = RowTable::<u64, u64>::new(config(2048));
    for key in 0..1_000_000u64 {
        table.insert(key_hash::<u64>(key), key, key);
        if key >= 1000 {
            assert!(table.remove(key_hash::<u64>(key - 1000), key - 1000));
        }
    }
    assert_eq!(table.len(), 1000);
    assert!(table.memory_bytes() < 256 << 10, "{}", table.memory_bytes());
}

#[test]
fn when_a_cursor_is_kept_then_updates_and_removals_do_not_disturb_it() {
    let mut table = RowTable::<u64, u64>::new(config(64));
    for key in 0..5000 {
        table.insert(key_hash::<u64>(key), key, 0);
    }
    let (mut cursor, mut met) = (Cursor::default(), 0);
    while let Some((key, _, hash)) = table.next(&mut cursor) {
        met += 1;
        if key % 2 == 0 {
            assert!(table.remove(hash, key));
        } else {
            table.modify_or_insert(hash, key, || unreachable!(), |value| *value += 1);
        }
    }
    assert_eq!((met, table.len()), (5000, 2500));
    table.for_each(|key, value, _| assert_eq!((key % 2, value), (1, 1)));
}

#[test]
fn when_a_closure_panics_then_the_table_is_as_before() {
    let mut table = RowTable::<u64, String>::new(config(8));
    table.insert(key_hash::<u64>(1), 1, "one");
    for key in [1, 2] {
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            table.update(key_hash::<u64>(key), key, |_| panic!("a user's function"));
        }));
        assert!(panicked.is_err());
    }
    assert_eq!(table.get(key_hash::<u64>(1), 1), Some("one"));
    assert_eq!(table.len(), 1);
}

#[test]
fn when_a_table_is_new_then_it_takes_less_than_a_kilobyte() {
    assert!(RowTable::<u64, u64>::new(config(2048)).memory_bytes() < 1024);
    assert!(RowTable::<String, String>::new(config(2048)).memory_bytes() < 1024);
}

#[test]
fn when_a_table_is_large_then_its_rows_fill_a_fair_part_of_its_memory() {
    let mut table = RowTable::<u64, u64>::new(config(2048));
    for key in 0..300_000u64 {
        table.insert(key_hash::<u64>(key), key, key);
    }
    let rows_bytes = 300_000 * 24;
    assert!(table.memory_bytes() < rows_bytes * 3, "{}", table.memory_bytes());
    table.reset();
    assert_eq!((table.len(), table.get(key_hash::<u64>(5), 5)), (0, None));
    for key in 0..300_000u64 {
        table.insert(key_hash::<u64>(key), key, key);
    }
    assert!(table.memory_bytes() < rows_bytes * 3, "{}", table.memory_bytes());
}

#[test]
fn when_a_table_grows_after_rows_were_located_then_they_are_found_all_the_same() {
    let mut table = RowTable::<u64, u64>::new(config(8));
    let places: Vec<_> = (0..20_000).map(|key| (key, table.locate(key_hash::<u64>(key)))).collect();
    for &(key, place) in &places {
        table.update_at(place, key_hash::<u64>(key), key, |old| old.unwrap_or(key) + 1);
    }
    for &(key, place) in &places {
        let seen = table.modify_or_insert_at(place, key_hash::<u64>(key), key, || unreachable!(), |value| *value);
        assert_eq!(seen, key + 1);
        assert_eq!(table.get_at(Place::default(), key_hash::<u64>(key), key), Some(key + 1));
    }
    assert_eq!(table.len(), 20_000);
}

#[test]
fn when_a_place_of_another_hash_is_used_then_the_table_stays_sound() {
    let mut table = RowTable::<u64, u64>::new(config(8));
    let place = table.locate(KeyHash(0));
    for key in 0..20_000 {
        table.update_at(place, key_hash::<u64>(key), key, |old| old.unwrap_or(0) + 1);
    }
    let place = table.locate(KeyHash(0));
    for key in 20_000..40_000 {
        table.update_at(place, key_hash::<u64>(key), key, |old| old.unwrap_or(0) + 1);
    }
    let mut rows = 0;
    table.for_each(|_, _, _| rows += 1);
    assert_eq!(rows, table.len());
    assert!((0..40_000).all(|key| table.contains(key_hash::<u64>(key), key)));
}

#[test]
fn when_keys_are_of_any_group_of_any_maximum_then_all_are_kept() {
    for (max, start, end) in [(1, 0, 0), (10, 3, 4), (127, 43, 85), (1000, 7, 7), (32768, 100, 30_000)] {
        let range = KeyGroupRange { start, end };
        let config = TableConfig::new(range, MaxParallelism::new(max).unwrap());
        let mut table = RowTable::<u64, u64>::new(TableConfig { max_segment_rows: 16, ..config });
        // Those outside the range have no business here, but are not lost either.
        for key in 0..20_000 {
            table.insert(key_hash::<u64>(key), key, key);
        }
        let mut seen = 0;
        table.for_each(|key, value, hash| {
            assert_eq!((value, hash), (key, key_hash::<u64>(key)));
            seen += 1;
        });
        assert_eq!(seen, 20_000);
        assert!((0..20_000).all(|key| table.remove(key_hash::<u64>(key), key)));
    }
}
