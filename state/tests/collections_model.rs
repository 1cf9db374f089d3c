//! `ListTable` and `MapTable` against collections of the standard library, with tiny segments and colliding hashes.

use std::{collections::HashMap, fmt::Debug, hash::Hash};

use proptest::prelude::*;
use thalweg_model::{KeyHash, MaxParallelism, Record, record::key_hash};
use thalweg_state::{Cursor, ListTable, MapTable, TableConfig};

fn config() -> TableConfig {
    TableConfig { max_segment_rows: 8, ..TableConfig::whole(MaxParallelism::new(128).unwrap()) }
}

/// Key hashes that collide: the tables must be right with any hash that is the same for equal keys.
fn hash<K: Record>(key: &K, modulo: u32) -> KeyHash {
    KeyHash(key_hash::<K>(key.view()).0 % modulo)
}

fn text(n: u16) -> String {
    "thalweg ".repeat((n % 40) as usize / 3) + &n.to_string()
}

#[derive(Clone, Debug)]
enum ListOp {
    Append(u16, u16),
    AppendAll(u16, Vec<u16>),
    Replace(u16, Vec<u16>),
    Remove(u16),
    Clear,
}

fn list_op() -> impl Strategy<Value = ListOp> {
    let key = || 0u16..30;
    prop_oneof![
        40 => (key(), any::<u16>()).prop_map(|(k, v)| ListOp::Append(k, v)),
        8 => (key(), prop::collection::vec(any::<u16>(), 0..100)).prop_map(|(k, v)| ListOp::AppendAll(k, v)),
        8 => (key(), prop::collection::vec(any::<u16>(), 0..20)).prop_map(|(k, v)| ListOp::Replace(k, v)),
        8 => key().prop_map(ListOp::Remove),
        1 => Just(ListOp::Clear),
    ]
}

fn run_lists<K, E>(ops: &[ListOp], modulo: u32, key: impl Fn(u16) -> K, element: impl Fn(u16) -> E)
where
    K: Record + Eq + Hash + Debug,
    E: Record + PartialEq + Debug,
{
    let mut table = ListTable::<K, E>::new(config());
    let mut model: HashMap<K, Vec<E>> = HashMap::new();
    for op in ops {
        match op {
            ListOp::Append(k, v) => {
                let k = key(*k);
                table.append(hash(&k, modulo), k.view(), element(*v).view());
                model.entry(k).or_default().push(element(*v));
            }
            ListOp::AppendAll(k, v) => {
                let (k, v): (K, Vec<E>) = (key(*k), v.iter().map(|&v| element(v)).collect());
                table.append_all(hash(&k, modulo), k.view(), v.iter().map(E::view));
                if !v.is_empty() {
                    model.entry(k).or_default().extend(v);
                }
            }
            ListOp::Replace(k, v) => {
                let (k, v): (K, Vec<E>) = (key(*k), v.iter().map(|&v| element(v)).collect());
                table.replace(hash(&k, modulo), k.view(), v.iter().map(E::view));
                if v.is_empty() {
                    model.remove(&k)
                } else {
                    model.insert(k, v)
                };
            }
            ListOp::Remove(k) => {
                let k = key(*k);
                assert_eq!(table.remove(hash(&k, modulo), k.view()), model.remove(&k).is_some());
            }
            ListOp::Clear => {
                table.clear();
                model.clear();
            }
        }
        assert_eq!((table.len(), table.is_empty()), (model.len(), model.is_empty()));
    }
    for n in 0..30 {
        let k = key(n);
        let seen = table.list(hash(&k, modulo), k.view());
        let wanted = model.get(&k).map_or(&[][..], |list| &list[..]);
        assert_eq!(seen.len(), wanted.len());
        assert_eq!(table.count(hash(&k, modulo), k.view()), wanted.len());
        assert_eq!(table.contains(hash(&k, modulo), k.view()), !wanted.is_empty());
        assert!(seen.map(E::from_view).eq(wanted.iter().map(|e| E::from_view(e.view()))));
    }
    let (mut cursor, mut met) = (Cursor::default(), 0);
    while let Some((k, list, h)) = table.next(&mut cursor) {
        let k = K::from_view(k);
        assert_eq!(h, hash(&k, modulo));
        assert_eq!(&list.map(E::from_view).collect::<Vec<_>>(), &model[&k]);
        met += 1;
    }
    assert_eq!(met, model.len());
}

#[derive(Clone, Debug)]
enum MapOp {
    Put(u16, u16, u16),
    Update(u16, u16),
    RemoveEntry(u16, u16),
    Remove(u16),
    Clear,
}

fn map_op() -> impl Strategy<Value = MapOp> {
    let key = || 0u16..12;
    let user_key = || 0u16..60;
    prop_oneof![
        40 => (key(), user_key(), any::<u16>()).prop_map(|(k, u, v)| MapOp::Put(k, u, v)),
        20 => (key(), user_key()).prop_map(|(k, u)| MapOp::Update(k, u)),
        50 => (key(), user_key()).prop_map(|(k, u)| MapOp::RemoveEntry(k, u)),
        2 => key().prop_map(MapOp::Remove),
        1 => Just(MapOp::Clear),
    ]
}

fn run_maps<K, UK, UV>(
    ops: &[MapOp],
    modulo: u32,
    key: impl Fn(u16) -> K,
    user_key: impl Fn(u16) -> UK,
    value: impl Fn(u16) -> UV,
) where
    K: Record + Eq + Hash + Debug,
    UK: Record + Clone + Eq + Hash + Debug,
    UV: Record + Clone + PartialEq + Debug,
{
    let mut table = MapTable::<K, UK, UV>::new(config());
    let mut model: HashMap<K, HashMap<UK, UV>> = HashMap::new();
    for op in ops {
        match op {
            MapOp::Put(k, u, v) => {
                let (k, u, v) = (key(*k), user_key(*u), value(*v));
                let existed = table.put(hash(&k, modulo), k.view(), u.view(), v.view());
                assert_eq!(existed, model.entry(k).or_default().insert(u, v).is_some());
            }
            MapOp::Update(k, u) => {
                let (new, k, u) = (value(k ^ u), key(*k), user_key(*u));
                let map = model.entry(K::from_view(k.view())).or_default();
                table.update(hash(&k, modulo), k.view(), u.view(), |old| {
                    assert_eq!(old.map(UV::from_view).as_ref(), map.get(&u));
                    new.clone()
                });
                map.insert(u, new);
            }
            MapOp::RemoveEntry(k, u) => {
                let (k, u) = (key(*k), user_key(*u));
                let existed = table.remove_entry(hash(&k, modulo), k.view(), u.view());
                assert_eq!(existed, model.get_mut(&k).is_some_and(|map| map.remove(&u).is_some()));
                if model.get(&k).is_some_and(HashMap::is_empty) {
                    model.remove(&k);
                }
            }
            MapOp::Remove(k) => {
                let k = key(*k);
                assert_eq!(table.remove(hash(&k, modulo), k.view()), model.remove(&k).is_some());
            }
            MapOp::Clear => {
                table.clear();
                model.clear();
            }
        }
        assert_eq!((table.len(), table.is_empty()), (model.len(), model.is_empty()));
    }
    for n in 0..12 {
        let k = key(n);
        let empty = HashMap::new();
        let wanted = model.get(&k).unwrap_or(&empty);
        for u in (0..60).map(&user_key) {
            let seen = table.get(hash(&k, modulo), k.view(), u.view()).map(UV::from_view);
            assert_eq!(seen.as_ref(), wanted.get(&u));
            assert_eq!(table.contains(hash(&k, modulo), k.view(), u.view()), wanted.contains_key(&u));
        }
        let entries = table.entries(hash(&k, modulo), k.view());
        assert_eq!(entries.len(), wanted.len());
        assert_eq!(table.count(hash(&k, modulo), k.view()), wanted.len());
        assert_eq!(table.is_empty_map(hash(&k, modulo), k.view()), wanted.is_empty());
        let seen: HashMap<UK, UV> = entries.map(|(u, v)| (UK::from_view(u), UV::from_view(v))).collect();
        assert_eq!(&seen, wanted);
    }
    let (mut cursor, mut met) = (Cursor::default(), 0);
    while let Some((k, entries, h)) = table.next(&mut cursor) {
        let k = K::from_view(k);
        assert_eq!(h, hash(&k, modulo));
        assert_eq!(entries.len(), model[&k].len());
        met += 1;
    }
    assert_eq!(met, model.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn when_lists_change_at_random_then_they_are_the_vectors(
        ops in prop::collection::vec(list_op(), 0..300), modulo in prop_oneof![Just(1), Just(5), Just(u32::MAX)],
    ) {
        run_lists::<u64, u64>(&ops, modulo, |k| k as u64, |v| v as u64);
        run_lists::<u64, (u8, u128)>(&ops, modulo, |k| k as u64, |v| (v as u8, v as u128));
        run_lists::<String, String>(&ops, modulo, text, text);
        run_lists::<String, (String, u128)>(&ops, modulo, text, |v| (text(v), v as u128));
        run_lists::<u8, ()>(&ops, modulo, |k| k as u8, |_| ());
    }

    #[test]
    fn when_maps_change_at_random_then_they_are_the_maps(
        ops in prop::collection::vec(map_op(), 0..600), modulo in prop_oneof![Just(1), Just(5), Just(u32::MAX)],
    ) {
        run_maps::<u64, u64, u64>(&ops, modulo, |k| k as u64, |u| u as u64, |v| v as u64);
        run_maps::<String, String, String>(&ops, modulo, text, text, text);
        run_maps::<u64, u128, Vec<u32>>(&ops, modulo, |k| k as u64, |u| u as u128, |v| vec![v as u32; v as usize % 7]);
        run_maps::<u8, u8, ()>(&ops, modulo, |k| k as u8, |u| u as u8, |_| ());
    }
}

#[test]
fn when_one_list_is_long_then_its_elements_stay_in_order() {
    let mut table = ListTable::<u64, u64>::new(config());
    for n in 0..200_000 {
        table.append(KeyHash(9), 1, n);
    }
    assert!(table.list(KeyHash(9), 1).eq(0..200_000));
    assert!(table.memory_bytes() < 4 << 20, "{}", table.memory_bytes());
    let long = "long ".repeat(1_000_000);
    let mut table = ListTable::<u64, String>::new(config());
    for element in ["short", &long, "", &long[..5000], "end"] {
        table.append(KeyHash(9), 1, element);
    }
    assert!(table.list(KeyHash(9), 1).eq(["short", &long, "", &long[..5000], "end"]));
}

#[test]
fn when_lists_come_and_go_then_their_memory_is_reused() {
    let mut table = ListTable::<u64, u64>::new(config());
    for round in 0..2000u64 {
        for n in 0..500 {
            table.append(key_hash::<u64>(round), round, n);
        }
        assert!(table.remove(key_hash::<u64>(round), round));
    }
    assert!(table.memory_bytes() < 100_000, "{}", table.memory_bytes());
}

#[test]
fn when_one_map_is_large_then_all_its_entries_are_there() {
    let mut table = MapTable::<u64, u64, u64>::new(config());
    for n in 0..200_000 {
        assert!(!table.put(KeyHash(9), 1, n, n + 1));
    }
    assert_eq!(table.count(KeyHash(9), 1), 200_000);
    assert!((0..200_000).all(|n| table.get(KeyHash(9), 1, n) == Some(n + 1)));
    for n in 0..200_000 {
        assert!(table.remove_entry(KeyHash(9), 1, n));
    }
    assert!(table.is_empty());
}

#[test]
fn when_an_update_panics_while_a_map_is_full_then_it_is_as_before() {
    let mut table = MapTable::<u64, u64, String>::new(config());
    for n in 0..100 {
        table.put(KeyHash(9), 1, n, "value");
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            table.update(KeyHash(9), 1, 1000 + n, |_| panic!("a user's function"));
        }));
        assert!(panicked.is_err());
        assert_eq!(table.entries(KeyHash(9), 1).len(), n as usize + 1);
        assert!(table.entries(KeyHash(9), 1).all(|(user_key, value)| user_key <= n && value == "value"));
    }
}
