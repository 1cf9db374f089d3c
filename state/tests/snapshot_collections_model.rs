//! Snapshots of lists, maps and timers while they are changed, and what damaged images do.

mod common;

use std::{collections::BTreeMap, fmt::Debug};

use common::{config, hash, text};
use proptest::prelude::*;
use thalweg_model::Record;
use thalweg_state::{
    Cursor, ImageIndex, ListTable, MapTable, Progress, Restore, RowTable, SnapshotKind, Snapshots, TableConfig,
    TimerQueue, restore, snapshot_to_vec,
};

/// A structure of keyed state, as the test drives it, and all that it holds.
trait Tested: Snapshots + Restore {
    type Content: Clone + PartialEq + Debug + Default;
    fn change(&mut self, what: u8, n: u16, m: u16);
    fn content(&self) -> Self::Content;
    fn merge(a: &mut Self::Content, b: Self::Content);
}

impl<E: TestRecord> Tested for ListTable<String, E> {
    type Content = BTreeMap<String, Vec<E>>;
    fn change(&mut self, what: u8, n: u16, m: u16) {
        let key = text(n % 40);
        match what {
            0..60 => self.append(hash(&key), &key, E::of(m).view()),
            60..70 => {
                let elements: Vec<E> = (0..m % 300).map(E::of).collect();
                self.append_all(hash(&key), &key, elements.iter().map(E::view));
            }
            70..80 => {
                let elements: Vec<E> = (0..m % 9).map(E::of).collect();
                self.replace(hash(&key), &key, elements.iter().map(E::view));
            }
            80..99 => drop(self.remove(hash(&key), &key)),
            _ if m.is_multiple_of(4) => self.clear(),
            _ => {}
        }
    }
    fn content(&self) -> Self::Content {
        let (mut cursor, mut content) = (Cursor::default(), BTreeMap::new());
        while let Some((key, list, h)) = self.next(&mut cursor) {
            assert_eq!(h, hash(&key.to_string()));
            assert!(content.insert(key.to_string(), list.map(E::from_view).collect()).is_none());
        }
        assert_eq!(content.len(), self.len());
        content
    }
    fn merge(a: &mut Self::Content, b: Self::Content) {
        a.extend(b);
    }
}

impl<UK: TestRecord + Ord, UV: TestRecord> Tested for MapTable<u64, UK, UV> {
    type Content = BTreeMap<u64, BTreeMap<UK, UV>>;
    fn change(&mut self, what: u8, n: u16, m: u16) {
        let (key, user_key) = ((n % 12) as u64, UK::of(m % 50));
        match what {
            0..40 => drop(self.put(hash(&key), key, user_key.view(), UV::of(n).view())),
            40..60 => self.update(hash(&key), key, user_key.view(), |_| UV::of(n ^ m)),
            60..94 => drop(self.remove_entry(hash(&key), key, user_key.view())),
            94..99 => drop(self.remove(hash(&key), key)),
            _ if m.is_multiple_of(4) => self.clear(),
            _ => {}
        }
    }
    fn content(&self) -> Self::Content {
        let (mut cursor, mut content) = (Cursor::default(), BTreeMap::new());
        while let Some((key, map, _)) = self.next(&mut cursor) {
            let map: BTreeMap<UK, UV> = map.map(|(k, v)| (UK::from_view(k), UV::from_view(v))).collect();
            assert_eq!(self.count(hash(&key), key), map.len());
            for user_key in map.keys() {
                assert!(self.contains(hash(&key), key, user_key.view()));
            }
            content.insert(key, map);
        }
        content
    }
    fn merge(a: &mut Self::Content, b: Self::Content) {
        a.extend(b);
    }
}

impl Tested for TimerQueue<String> {
    type Content = Vec<(i64, i64, String)>;
    fn change(&mut self, what: u8, n: u16, m: u16) {
        let key = text(n % 20);
        match what {
            0..60 => drop(self.register(hash(&key), &key, (m % 3) as i64, (m % 50) as i64)),
            60..85 => drop(self.delete(hash(&key), &key, (m % 3) as i64, (m % 50) as i64)),
            85..98 => drop(self.pop_due((m % 30) as i64)),
            _ if m.is_multiple_of(4) => self.clear(),
            _ => {}
        }
    }
    fn content(&self) -> Self::Content {
        let mut content = Vec::new();
        self.for_each(|timer| content.push((timer.timestamp, timer.namespace, timer.key.to_string())));
        assert_eq!(content.len(), self.len());
        content.sort();
        content
    }
    fn merge(a: &mut Self::Content, b: Self::Content) {
        a.extend(b);
        a.sort();
    }
}

trait TestRecord: Record + Clone + PartialEq + Debug {
    fn of(n: u16) -> Self;
}
impl TestRecord for u64 {
    fn of(n: u16) -> u64 {
        n as u64
    }
}
impl TestRecord for String {
    fn of(n: u16) -> String {
        text(n)
    }
}
impl TestRecord for (u8, u128) {
    fn of(n: u16) -> Self {
        (n as u8, n as u128)
    }
}
impl TestRecord for () {
    fn of(_: u16) {}
}

#[derive(Clone, Debug)]
enum Op {
    Change(u8, u16, u16),
    Step(u32),
    Begin(SnapshotKind),
    Abort,
}

fn op() -> impl Strategy<Value = Op> {
    let kind =
        prop_oneof![1 => Just(SnapshotKind::Full), 1 => Just(SnapshotKind::Base), 2 => Just(SnapshotKind::Increment)];
    prop_oneof![
        60 => (0u8..100, any::<u16>(), any::<u16>()).prop_map(|(w, n, m)| Op::Change(w, n, m)),
        20 => (1u32..2000).prop_map(Op::Step),
        4 => kind.prop_map(Op::Begin),
        1 => Just(Op::Abort),
    ]
}

fn run<T: Tested>(mut table: T, ops: &[Op]) {
    type Images = Vec<(u16, Option<u16>, Vec<u8>)>;
    let (mut taken, mut running) = (Images::new(), None);
    let last = [Op::Begin(SnapshotKind::Increment), Op::Step(u32::MAX)];
    for op in ops.iter().chain(&last) {
        match op {
            Op::Change(what, n, m) => table.change(*what, *n, *m),
            Op::Begin(kind) => {
                if let Ok(begun) = table.begin_snapshot(*kind) {
                    running = Some((begun, Vec::new(), table.content()));
                }
            }
            Op::Abort => {
                table.abort_snapshot();
                running = None;
            }
            Op::Step(budget) => {
                let Some((_, image, _)) = &mut running else { continue };
                if table.snapshot_step(*budget, image) != Progress::Done {
                    continue;
                }
                let (begun, image, wanted) = running.take().unwrap();
                taken.push((begun.epoch, begun.base, image));
                let mut chain = vec![taken.last().unwrap()];
                while let Some(base) = chain.last().unwrap().1 {
                    chain.push(taken.iter().rev().find(|one| one.0 == base).unwrap());
                }
                let images: Vec<&[u8]> = chain.iter().rev().map(|one| &one.2[..]).collect();
                let (mut all, parts) = (T::Content::default(), 1 + taken.len() as u32 % 3);
                for part in 0..parts {
                    let range = config().max_parallelism.range_of(part, parts);
                    let mut restored: T = restore(TableConfig { range, ..config() }, &images).unwrap();
                    T::merge(&mut all, restored.content());
                    // It can be snapshotted and changed like any other.
                    let again = snapshot_to_vec(&mut restored, SnapshotKind::Full).unwrap();
                    let again: T = restore(TableConfig { range, ..config() }, &[&again]).unwrap();
                    assert_eq!(again.content(), restored.content());
                    (0..100).for_each(|n| restored.change(n, n as u16 * 77, n as u16 * 31));
                    restored.content();
                }
                assert_eq!(all, wanted);
                if taken.len() % 3 != 2 {
                    table.confirm_snapshot(begun.epoch);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn when_lists_change_during_snapshots_then_what_is_restored_is_the_state_at_the_barrier(
        ops in prop::collection::vec(op(), 0..500),
    ) {
        run(ListTable::<String, u64>::new(config()), &ops);
        run(ListTable::<String, String>::new(config()), &ops);
        run(ListTable::<String, (u8, u128)>::new(config()), &ops);
        run(ListTable::<String, ()>::new(config()), &ops);
    }

    #[test]
    fn when_maps_change_during_snapshots_then_what_is_restored_is_the_state_at_the_barrier(
        ops in prop::collection::vec(op(), 0..500),
    ) {
        run(MapTable::<u64, u64, u64>::new(config()), &ops);
        run(MapTable::<u64, String, String>::new(config()), &ops);
        run(MapTable::<u64, u64, String>::new(config()), &ops);
        run(MapTable::<u64, String, ()>::new(config()), &ops);
    }

    #[test]
    fn when_timers_change_during_snapshots_then_what_is_restored_is_the_state_at_the_barrier(
        ops in prop::collection::vec(op(), 0..800),
    ) {
        run(TimerQueue::<String>::new(config()), &ops);
    }

    #[test]
    fn when_images_are_damaged_then_there_is_an_error_or_a_sound_table(
        seed in any::<u16>(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        damage(ListTable::<String, String>::new(config()), seed, &flips, cut);
        damage(ListTable::<String, u64>::new(config()), seed, &flips, cut);
        damage(ListTable::<String, ()>::new(config()), seed, &flips, cut);
        damage(MapTable::<u64, String, String>::new(config()), seed, &flips, cut);
        damage(MapTable::<u64, u64, u64>::new(config()), seed, &flips, cut);
        damage(TimerQueue::<String>::new(config()), seed, &flips, cut);
        let mut rows = RowTable::<String, (bool, char, Option<u16>)>::new(config());
        for n in 0..50u16 {
            rows.insert(hash(&text(n)), &text(n), (n % 2 == 0, 'x', Some(n)));
        }
        let image = damaged(snapshot_to_vec(&mut rows, SnapshotKind::Full).unwrap(), &flips, cut);
        if let Ok(rows) = restore::<RowTable<String, (bool, char, Option<u16>)>>(config(), &[&image]) {
            rows.for_each(|key, value, _| drop((key.to_owned(), value)));
        }
    }
}

fn damaged(mut image: Vec<u8>, flips: &[(prop::sample::Index, u8)], cut: Option<prop::sample::Index>) -> Vec<u8> {
    for (at, bits) in flips {
        let at = at.index(image.len());
        image[at] ^= bits;
    }
    if let Some(cut) = cut {
        image.truncate(cut.index(image.len()));
    }
    image
}

/// Restores damaged images and uses what comes of them.
fn damage<T: Tested>(mut table: T, seed: u16, flips: &[(prop::sample::Index, u8)], cut: Option<prop::sample::Index>) {
    for n in 0..200u16 {
        table.change((n % 60) as u8, n, n.wrapping_mul(seed));
    }
    let base = snapshot_to_vec(&mut table, SnapshotKind::Base).unwrap();
    table.confirm_snapshot(ImageIndex::of(&base).unwrap().epoch());
    for n in 0..60u16 {
        table.change(60 + (n % 34) as u8, n, n.wrapping_mul(seed));
    }
    let increment = snapshot_to_vec(&mut table, SnapshotKind::Increment).unwrap();
    let (bad_base, bad_increment) = (damaged(base.clone(), flips, cut), damaged(increment.clone(), flips, cut));
    for images in [[&base[..], &bad_increment], [&bad_base, &increment]] {
        if let Ok(mut table) = restore::<T>(config(), &images) {
            for n in 0..200u16 {
                table.change((n % 100) as u8, n.wrapping_mul(seed), n);
            }
            snapshot_to_vec(&mut table, SnapshotKind::Full).unwrap();
        }
    }
}
