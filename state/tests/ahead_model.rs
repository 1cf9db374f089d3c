//! Rows that were located ahead of use, in tables that change meanwhile, against a `HashMap`.

use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;
use thalweg_model::{MaxParallelism, Record, record::key_hash};
use thalweg_state::{Place, RowTable, TableConfig};

#[derive(Clone, Debug)]
enum Op {
    /// Locates the row of a key.
    Locate(u16),
    /// Pinpoints the located row that is so far from its turn.
    Pinpoint(u8),
    /// Counts the key whose turn it is, by its place.
    Count,
    Insert(u16),
    Remove(u16),
    Reset,
    Clear,
}

fn op(keys: u16) -> impl Strategy<Value = Op> {
    prop_oneof![
        20 => (0..keys).prop_map(Op::Locate),
        20 => (0u8..24).prop_map(Op::Pinpoint),
        20 => Just(Op::Count),
        8 => (0..keys).prop_map(Op::Insert),
        2 => (0..keys).prop_map(Op::Remove),
        1 => prop_oneof![9 => Just(Op::Insert(0)), 1 => Just(Op::Reset), 1 => Just(Op::Clear)],
    ]
}

/// Values that hold a count.
trait Counts: Record {
    fn of(count: u64) -> Self;
    fn count(&self) -> u64;
}

impl Counts for u64 {
    fn of(count: u64) -> Self {
        count
    }
    fn count(&self) -> u64 {
        *self
    }
}

impl Counts for u32 {
    fn of(count: u64) -> Self {
        count as u32
    }
    fn count(&self) -> u64 {
        u64::from(*self)
    }
}

impl Counts for (u64, u64) {
    fn of(count: u64) -> Self {
        (count, !count)
    }
    fn count(&self) -> u64 {
        assert_eq!(self.0, !self.1);
        self.0
    }
}

impl Counts for (u64, u64, u64, u64, u64) {
    fn of(count: u64) -> Self {
        (count, 0, 1, 2, !count)
    }
    fn count(&self) -> u64 {
        assert_eq!(*self, Self::of(self.0));
        self.0
    }
}

impl Counts for String {
    fn of(count: u64) -> Self {
        format!("{count:0width$}", width = 1 + (count % 40) as usize)
    }
    fn count(&self) -> u64 {
        self.parse().unwrap()
    }
}

fn run<K: Record + Clone + Eq + std::fmt::Debug + std::hash::Hash, V: Counts>(
    ops: &[Op],
    segment_rows: u32,
    key: impl Fn(u16) -> K,
) {
    let mut config = TableConfig::whole(MaxParallelism::derived(1));
    config.max_segment_rows = segment_rows;
    let mut table = RowTable::<K, V>::new(config);
    let mut model = HashMap::<K, u64>::new();
    let mut located = VecDeque::<(K, Place)>::new();
    for op in ops {
        match *op {
            Op::Locate(n) => {
                let key = key(n);
                let place = table.locate(key_hash::<K>(key.view()));
                located.push_back((key, place));
            }
            Op::Pinpoint(distance) => {
                if let Some((key, place)) = located.get_mut(distance as usize) {
                    table.pinpoint(place, key_hash::<K>(key.view()));
                }
            }
            Op::Count => {
                let Some((key, place)) = located.pop_front() else { continue };
                let (hash, view) = (key_hash::<K>(key.view()), key.view());
                let before = model.get(&key).copied();
                assert_eq!(table.get_at(place, hash, view).map(|view| V::from_view(view).count()), before);
                if before.unwrap_or(0) % 3 == 0 {
                    let add = |value: &mut V| {
                        *value = V::of(value.count() + 1);
                        value.count()
                    };
                    let seen = table.modify_or_insert_at(place, hash, view, || V::of(0), add);
                    assert_eq!(seen, before.unwrap_or(0) + 1);
                } else {
                    table.update_at(place, hash, view, |old| V::of(old.map_or(0, |old| V::from_view(old).count()) + 1));
                }
                *model.entry(key).or_default() += 1;
            }
            Op::Insert(n) => {
                let key = key(n);
                let replaced = table.insert(key_hash::<K>(key.view()), key.view(), V::of(7).view());
                assert_eq!(replaced, model.insert(key, 7).is_some());
            }
            Op::Remove(n) => {
                let key = key(n);
                assert_eq!(table.remove(key_hash::<K>(key.view()), key.view()), model.remove(&key).is_some());
            }
            Op::Reset => {
                table.reset();
                model.clear();
            }
            Op::Clear => {
                table.clear();
                model.clear();
            }
        }
    }
    let mut seen = HashMap::new();
    table.for_each(|key, value, _| {
        assert!(seen.insert(K::from_view(key), V::from_view(value).count()).is_none(), "a key has two rows");
    });
    assert_eq!(seen, model);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn when_a_table_changes_after_rows_were_located_then_each_is_found_or_made_once(
        ops in prop::collection::vec(op(600), 0..3000),
        segment_rows in prop_oneof![Just(8u32), Just(64), Just(2048)],
    ) {
        run::<u64, u64>(&ops, segment_rows, u64::from);
        run::<u32, u32>(&ops, segment_rows, u32::from);
        run::<u128, u64>(&ops, segment_rows, u128::from);
        run::<u64, (u64, u64)>(&ops, segment_rows, u64::from);
        run::<u64, (u64, u64, u64, u64, u64)>(&ops, segment_rows, u64::from);
        run::<String, String>(&ops, segment_rows, |n| format!("key {n}"));
    }
}

#[test]
fn when_a_table_grows_then_it_is_near_at_first_and_its_rows_are_found_ever_after() {
    let mut table = RowTable::<u64, u64>::new(TableConfig::whole(MaxParallelism::derived(1)));
    let mut left_at = None;
    for key in 0..50_000u64 {
        table.insert(key_hash::<u64>(key), key, !key);
        if left_at.is_none() && !table.is_near() {
            left_at = Some(key);
            for key in 0..=key {
                assert_eq!(table.get(key_hash::<u64>(key), key), Some(!key));
            }
        }
    }
    assert!((3_000..9_000).contains(&left_at.unwrap()), "left near with {left_at:?} keys");
    assert!((0..50_000).all(|key| table.get(key_hash::<u64>(key), key) == Some(!key)));
    table.clear();
    assert!(table.is_near());
}
