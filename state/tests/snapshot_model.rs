//! Snapshots of `RowTable` while it is changed: what is restored is the table at the barrier.

use std::collections::HashMap;

use proptest::prelude::*;
use thalweg_model::{KeyGroupRange, KeyHash, MaxParallelism, Record, record::key_hash};
use thalweg_state::{
    Cursor, ImageError, ImageIndex, ImageSink, NamespaceSalt, NoSalt, Progress, RowTable, Salt, SnapshotKind,
    Snapshots, TableConfig, restore, snapshot_to_vec,
};

const GROUPS: u32 = 16;

fn config(max_segment_rows: u32) -> TableConfig {
    TableConfig { max_segment_rows, ..TableConfig::whole(MaxParallelism::new(GROUPS).unwrap()) }
}

/// A sink that takes a few bytes at a time, and none every now and then.
struct Trickle<'a> {
    image: &'a mut Vec<u8>,
    room: Vec<u8>,
    at_once: usize,
    left: usize,
}

impl ImageSink for Trickle<'_> {
    fn room(&mut self) -> &mut [u8] {
        let len = self.at_once.min(self.left);
        &mut self.room[..len]
    }
    fn advance(&mut self, bytes: usize) {
        self.image.extend_from_slice(&self.room[..bytes]);
        self.left -= bytes;
    }
}

fn trickle(image: &mut Vec<u8>, at_once: usize, left: usize) -> Trickle<'_> {
    Trickle { image, room: vec![0xaa; at_once], at_once, left }
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u16, u16),
    Update(u16),
    Remove(u16),
    InsertMany(u16),
    Reset,
    Clear,
    Drain(u8),
    /// Budget, bytes at once, bytes in all.
    Step(u32, usize, usize),
    Begin(SnapshotKind),
    Abort,
}

fn op(keys: u16) -> impl Strategy<Value = Op> {
    let kind =
        prop_oneof![1 => Just(SnapshotKind::Full), 1 => Just(SnapshotKind::Base), 3 => Just(SnapshotKind::Increment)];
    prop_oneof![
        60 => (0..keys, any::<u16>()).prop_map(|(k, v)| Op::Insert(k, v)),
        60 => (0..keys).prop_map(Op::Update),
        60 => (0..keys).prop_map(Op::Remove),
        4 => (0..keys).prop_map(Op::InsertMany),
        1 => Just(Op::Reset),
        1 => Just(Op::Clear),
        2 => any::<u8>().prop_map(Op::Drain),
        60 => (1u32..300, 1usize..100, 0usize..3000).prop_map(|(b, o, l)| Op::Step(b, o, l)),
        20 => (1u32..10_000, 1000usize..2000, 5000usize..100_000).prop_map(|(b, o, l)| Op::Step(b, o, l)),
        20 => kind.prop_map(Op::Begin),
        1 => Just(Op::Abort),
    ]
}

type Model<K, V> = HashMap<K, V>;

/// An image, its epoch, and what it goes on from.
struct Taken {
    epoch: u16,
    base: Option<u16>,
    image: Vec<u8>,
}

/// The images that restoring the last one needs.
fn chain(taken: &[Taken]) -> Vec<&[u8]> {
    let mut chain = vec![taken.last().unwrap()];
    while let Some(base) = chain.last().unwrap().base {
        chain.push(taken.iter().rev().find(|one| one.epoch == base).unwrap());
    }
    chain.iter().rev().map(|one| &one.image[..]).collect()
}

fn content<K, V, S>(table: &RowTable<K, V, S>) -> Model<K, V>
where
    K: Record + Eq + std::hash::Hash,
    V: Record,
    S: Salt<K>,
{
    let mut seen = HashMap::new();
    table.for_each(|k, v, _| assert!(seen.insert(K::from_view(k), V::from_view(v)).is_none()));
    assert_eq!(seen.len(), table.len());
    seen
}

/// Restores into tables of several ranges and compares.
fn check<K, V, S>(images: &[&[u8]], rows: u32, parts: u32, hash: &dyn Fn(&K) -> KeyHash, wanted: &Model<K, V>)
where
    K: Record + Clone + Eq + std::hash::Hash + std::fmt::Debug,
    V: Record + Clone + PartialEq + std::fmt::Debug,
    S: Salt<K>,
{
    let max_parallelism = MaxParallelism::new(GROUPS).unwrap();
    let mut all = HashMap::new();
    for part in 0..parts {
        let range = max_parallelism.range_of(part, parts);
        let config = TableConfig { max_segment_rows: rows, ..TableConfig::new(range, max_parallelism) };
        let mut table: RowTable<K, V, S> = restore(config, images).unwrap();
        let seen = content(&table);
        for (k, v) in &seen {
            assert_eq!(table.get(hash(k), k.view()).map(V::from_view).as_ref(), Some(v));
            assert!(range.contains(max_parallelism.key_group(hash(k))));
        }
        // It is a table like any other.
        for k in wanted.keys().filter(|k| range.contains(max_parallelism.key_group(hash(k)))) {
            assert!(table.remove(hash(k), k.view()), "{k:?}");
        }
        assert!(table.is_empty());
        all.extend(seen);
    }
    assert_eq!(&all, wanted);
}

fn run<K, V, S>(ops: &[Op], rows: u32, modulo: u32, key: impl Fn(u16) -> K, value: impl Fn(u16) -> V)
where
    K: Record + Clone + Eq + std::hash::Hash + std::fmt::Debug,
    V: Record + Clone + PartialEq + std::fmt::Debug,
    S: Salt<K>,
{
    let mut table = RowTable::<K, V, S>::new(config(rows));
    let mut model: Model<K, V> = HashMap::new();
    let hash = |key: &K| KeyHash(key_hash::<K>(key.view()).0 % modulo);
    let mut taken: Vec<Taken> = Vec::new();
    let mut running: Option<(Taken, Model<K, V>)> = None;
    let mut next = 0u16;
    let last = [Op::Begin(SnapshotKind::Increment), Op::Step(u32::MAX, 10_000, usize::MAX)];
    for op in ops.iter().chain(&last) {
        match op {
            Op::Insert(k, v) => {
                let (k, v) = (key(*k), value(*v));
                assert_eq!(table.insert(hash(&k), k.view(), v.view()), model.insert(k, v).is_some());
            }
            Op::Update(n) => {
                let (k, new) = (key(*n), value(n.wrapping_mul(31)));
                table.update(hash(&k), k.view(), |_| new.clone());
                model.insert(k, new);
            }
            Op::Remove(n) => {
                let k = key(*n);
                assert_eq!(table.remove(hash(&k), k.view()), model.remove(&k).is_some());
            }
            Op::InsertMany(count) => {
                for _ in 0..*count {
                    next = next.wrapping_add(1);
                    let (k, v) = (key(1000 + next), value(next));
                    table.insert(hash(&k), k.view(), v.view());
                    model.insert(k, v);
                }
            }
            Op::Reset => {
                table.reset();
                model.clear();
            }
            Op::Clear => {
                table.clear();
                model.clear();
            }
            Op::Drain(count) => {
                let mut cursor = Cursor::default();
                for _ in 0..*count {
                    let Some((k, v, _)) = table.drain_next(&mut cursor) else { break };
                    assert_eq!(model.get(&K::from_view(k)), Some(&V::from_view(v)));
                }
                model = content(&table);
            }
            Op::Step(budget, at_once, left) => {
                let Some((snapshot, _)) = &mut running else { continue };
                let mut sink = trickle(&mut snapshot.image, *at_once, *left);
                let progress = table.snapshot_step(*budget, &mut sink);
                assert!(progress != Progress::Full || sink.left == 0);
                if progress == Progress::Done {
                    let (snapshot, wanted) = running.take().unwrap();
                    taken.push(snapshot);
                    check::<K, V, S>(&chain(&taken), rows, 1 + taken.len() as u32 % 3, &hash, &wanted);
                    // Every third one is never confirmed.
                    if taken.len() % 3 != 2 {
                        table.confirm_snapshot(taken.last().unwrap().epoch);
                    }
                }
            }
            Op::Begin(kind) => match table.begin_snapshot(*kind) {
                Ok(begun) => {
                    assert!(running.is_none());
                    let snapshot = Taken { epoch: begun.epoch, base: begun.base, image: Vec::new() };
                    running = Some((snapshot, model.clone()));
                }
                Err(_) => assert!(running.is_some()),
            },
            Op::Abort => {
                table.abort_snapshot();
                running = None;
            }
        }
        assert_eq!(table.len(), model.len());
    }
    assert_eq!(content(&table), model);
}

/// Strings short and long, so that archived values are inline or not, and change their size class.
fn text(n: u16) -> String {
    "thalweg ".repeat((n % 40) as usize / 3) + &n.to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn when_fixed_rows_change_during_snapshots_then_what_is_restored_is_the_state_at_the_barrier(
        ops in prop::collection::vec(op(300), 0..800), rows in prop_oneof![Just(8u32), Just(64), Just(2048)],
        modulo in prop_oneof![3 => Just(u32::MAX), 1 => Just(5u32), 1 => Just(1)],
    ) {
        run::<u64, u64, NoSalt>(&ops, rows, modulo, |k| k as u64, |v| v as u64);
        run::<u8, (bool, u128, Option<char>), NoSalt>(
            &ops, rows, modulo, |k| k as u8, |v| (v % 2 == 0, v as u128, (v % 3 == 0).then_some('é')),
        );
        // Wider than a line of the cache: read in another way.
        run::<u64, (u128, u128, u128, u128, u16), NoSalt>(
            &ops, rows, modulo, |k| k as u64, |v| (v as u128, 1, 2, !(v as u128), v),
        );
    }

    #[test]
    fn when_strings_change_during_snapshots_then_what_is_restored_is_the_state_at_the_barrier(
        ops in prop::collection::vec(op(100), 0..600), modulo in prop_oneof![3 => Just(u32::MAX), 1 => Just(5u32)],
    ) {
        run::<String, Vec<String>, NoSalt>(&ops, 8, modulo, text, |v| (0..v % 4).map(|n| text(v ^ n)).collect());
        run::<String, u16, NoSalt>(&ops, 8, modulo, text, |v| v);
        run::<u64, String, NoSalt>(&ops, 64, modulo, |k| k as u64, text);
    }
}

#[test]
fn when_rows_share_a_key_hash_but_not_a_salt_then_they_are_restored() {
    let mut table = RowTable::<(u64, i64), u32, NamespaceSalt>::new(config(8));
    for key in 0..50 {
        for window in 0..40 {
            table.insert(key_hash::<u64>(key), (key, window), window as u32);
        }
    }
    let image = snapshot_to_vec(&mut table, SnapshotKind::Full).unwrap();
    let restored: RowTable<(u64, i64), u32, NamespaceSalt> = restore(config(64), &[&image]).unwrap();
    assert_eq!(content(&restored), content(&table));
    assert_eq!(restored.get(key_hash::<u64>(7), (7, 9)), Some(9));
}

#[test]
fn when_a_table_is_large_then_a_part_of_the_key_groups_needs_a_part_of_the_image() {
    let max_parallelism = MaxParallelism::new(128).unwrap();
    let mut table = RowTable::<u64, u64>::new(TableConfig::whole(max_parallelism));
    for key in 0..300_000 {
        table.insert(key_hash::<u64>(key), key, key * 3);
    }
    let image = snapshot_to_vec(&mut table, SnapshotKind::Full).unwrap();
    let index = ImageIndex::of(&image).unwrap();
    assert_eq!(index.rows(), 300_000);
    let range = max_parallelism.range_of(3, 8);
    let wanted: u64 = index.parts_for(range).iter().map(|part| part.end - part.start).sum();
    assert!(wanted < image.len() as u64 / 6, "{wanted} of {}", image.len());
    let part: RowTable<u64, u64> = restore(TableConfig::new(range, max_parallelism), &[&image]).unwrap();
    let mut expected = 0;
    for key in 0..300_000 {
        if range.contains(max_parallelism.key_group(key_hash::<u64>(key))) {
            assert_eq!(part.get(key_hash::<u64>(key), key), Some(key * 3));
            expected += 1;
        }
    }
    assert_eq!(part.len(), expected);
    assert!(part.memory_bytes() < expected * 24 * 3, "{}", part.memory_bytes());
}

#[test]
fn when_tables_of_several_subtasks_are_restored_then_each_range_gets_its_rows() {
    let max_parallelism = MaxParallelism::new(128).unwrap();
    let mut images = Vec::new();
    for part in 0..3 {
        let range = max_parallelism.range_of(part, 3);
        let mut table = RowTable::<u64, String>::new(TableConfig::new(range, max_parallelism));
        for key in (0..20_000).filter(|&key| range.contains(max_parallelism.key_group(key_hash::<u64>(key)))) {
            table.insert(key_hash::<u64>(key), key, &text(key as u16));
        }
        images.push(snapshot_to_vec(&mut table, SnapshotKind::Base).unwrap());
        table.confirm_snapshot(ImageIndex::of(images.last().unwrap()).unwrap().epoch());
        table.remove(key_hash::<u64>(5), 5);
        images.push(snapshot_to_vec(&mut table, SnapshotKind::Increment).unwrap());
    }
    let images: Vec<&[u8]> = images.iter().map(|image| &image[..]).collect();
    let mut rows = 0;
    for part in 0..5 {
        let range = max_parallelism.range_of(part, 5);
        let table: RowTable<u64, String> = restore(TableConfig::new(range, max_parallelism), &images).unwrap();
        table.for_each(|key, value, _| assert_eq!(value, text(key as u16)));
        rows += table.len();
    }
    assert_eq!(rows, 19_999);
}

#[test]
fn when_little_has_changed_then_an_increment_is_small() {
    let mut table = RowTable::<u64, u64>::new(TableConfig::whole(MaxParallelism::new(128).unwrap()));
    for key in 0..200_000 {
        table.insert(key_hash::<u64>(key), key, 0);
    }
    assert_eq!(table.suggested_kind(), SnapshotKind::Base);
    let mut images = vec![snapshot_to_vec(&mut table, SnapshotKind::Base).unwrap()];
    table.confirm_snapshot(ImageIndex::of(&images[0]).unwrap().epoch());
    let mut round = 0;
    while table.suggested_kind() == SnapshotKind::Increment {
        round += 1;
        for key in (round..200_000).step_by(100) {
            table.update(key_hash::<u64>(key), key, |_| round);
        }
        let image = snapshot_to_vec(&mut table, SnapshotKind::Increment).unwrap();
        assert!(image.len() < images[0].len() / 20, "{} of {}", image.len(), images[0].len());
        table.confirm_snapshot(ImageIndex::of(&image).unwrap().epoch());
        images.push(image);
    }
    assert!((20..60).contains(&round), "{round}");
    let images: Vec<&[u8]> = images.iter().map(|image| &image[..]).collect();
    let mut restored: RowTable<u64, u64> =
        restore(TableConfig::whole(MaxParallelism::new(128).unwrap()), &images).unwrap();
    assert_eq!(content(&restored), content(&table));
    // The chain goes on after restoring.
    restored.insert(key_hash::<u64>(7), 7, 77);
    let epoch = ImageIndex::of(images[images.len() - 1]).unwrap().epoch();
    let begun = restored.begin_snapshot(SnapshotKind::Increment).unwrap();
    assert_eq!(begun.base, Some(epoch));
    let mut image = Vec::new();
    while restored.snapshot_step(1000, &mut image) != Progress::Done {}
    assert_eq!(ImageIndex::of(&image).unwrap().rows(), 1);
}

#[test]
fn when_epochs_wrap_then_old_rows_are_still_told_from_new_ones() {
    let mut table = RowTable::<u64, u64>::new(config(8));
    for key in 0..100 {
        table.insert(key_hash::<u64>(key), key, 0);
    }
    let begin = |table: &mut RowTable<u64, u64>| table.begin_snapshot(SnapshotKind::Full).unwrap().epoch;
    for round in 0..70_000u32 {
        begin(&mut table);
        table.abort_snapshot();
        // Around the places where numbers meet again.
        if round % 8192 < 3 || round % 65536 > 65530 {
            begin(&mut table);
            let before = content(&table);
            for key in 0..50 {
                table.update(key_hash::<u64>(key), key, |_| round as u64);
            }
            let mut image = Vec::new();
            while table.snapshot_step(100, &mut image) != Progress::Done {}
            let restored: RowTable<u64, u64> = restore(config(8), &[&image]).unwrap();
            assert_eq!(content(&restored), before, "{round}");
        }
    }
    // Only aborted ones for a whole round of numbers.
    for _ in 0..65_535 {
        begin(&mut table);
        table.abort_snapshot();
    }
    begin(&mut table);
    let before = content(&table);
    for key in 0..100 {
        table.update(key_hash::<u64>(key), key, |_| 1);
    }
    let mut image = Vec::new();
    while table.snapshot_step(100, &mut image) != Progress::Done {}
    let restored: RowTable<u64, u64> = restore(config(8), &[&image]).unwrap();
    assert_eq!(content(&restored), before);
}

#[test]
fn when_a_snapshot_runs_then_another_is_refused_until_it_is_done_or_given_up() {
    let mut table = RowTable::<u64, String>::new(config(8));
    for key in 0..1000 {
        table.insert(key_hash::<u64>(key), key, &text(key as u16));
    }
    let held = table.memory_bytes();
    table.begin_snapshot(SnapshotKind::Full).unwrap();
    assert!(table.begin_snapshot(SnapshotKind::Full).is_err());
    for key in 0..1000 {
        table.remove(key_hash::<u64>(key), key);
    }
    assert!(table.memory_bytes() > held);
    table.abort_snapshot();
    while table.snapshot_step(1000, &mut Vec::new()) != Progress::Done {}
    assert!(!table.is_snapshot_running());
    for key in 0..1000 {
        table.insert(key_hash::<u64>(key), key, &text(key as u16));
    }
    assert!(table.memory_bytes() <= held + held / 4, "{} {held}", table.memory_bytes());
}

#[test]
fn when_images_do_not_fit_then_the_error_says_why() {
    let mut table = RowTable::<u64, u64>::new(config(8));
    table.insert(key_hash::<u64>(1), 1, 1);
    let base = snapshot_to_vec(&mut table, SnapshotKind::Base).unwrap();
    table.confirm_snapshot(ImageIndex::of(&base).unwrap().epoch());
    let increment = snapshot_to_vec(&mut table, SnapshotKind::Increment).unwrap();
    let error = |result: Result<RowTable<u64, u64>, ImageError>| result.err().unwrap();
    assert_eq!(restore::<RowTable<u64, u32>>(config(8), &[&base]).err(), Some(ImageError::OtherType));
    assert_eq!(restore::<RowTable<u64, String>>(config(8), &[&base]).err(), Some(ImageError::OtherType));
    assert_eq!(error(restore(config(8), &[&increment])), ImageError::OtherBase { base: 1 });
    assert!(restore::<RowTable<u64, u64>>(config(8), &[&base, &increment]).is_ok());
    let other = TableConfig::whole(MaxParallelism::new(32).unwrap());
    assert_eq!(error(restore(other, &[&base])), ImageError::OtherMaxParallelism { written: 16 });
    let mut newer = base.clone();
    newer[8] = 9;
    assert_eq!(error(restore(config(8), &[&newer])), ImageError::Version { format: 9, hash: 2 });
    let range = KeyGroupRange { start: 0, end: 0 };
    let none: RowTable<u64, u64> = restore(TableConfig::new(range, MaxParallelism::new(16).unwrap()), &[]).unwrap();
    assert!(none.is_empty());
}
