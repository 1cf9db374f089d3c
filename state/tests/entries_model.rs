//! Reading images by their schemas: the entries are those of the table, whatever was changed and however it was split.

mod common;

use std::{collections::BTreeMap, ops::ControlFlow};

use common::{config, hash, text};
use proptest::prelude::*;
use thalweg_model::{KeyGroupRange, Record, StateSchema, Value, schema::read};
use thalweg_state::{
    Content, Cursor, ImageError, ImageIndex, ListTable, MapTable, RowTable, SnapshotKind, Snapshots, TimerQueue,
    live_entries, snapshot_to_vec,
};

/// A table with what can be changed in it, and what it holds as values without type.
trait Tested: Snapshots {
    fn new() -> Self;
    fn schema() -> StateSchema;
    fn change(&mut self, what: u8, n: u16, m: u16);
    /// By the key's text.
    fn content(&self) -> BTreeMap<String, String>;
}

fn shown(value: &Value) -> String {
    format!("{value:?}")
}

impl Tested for RowTable<String, (u64, Option<String>)> {
    fn new() -> Self {
        Self::new(config())
    }
    fn schema() -> StateSchema {
        StateSchema::rows::<String, (u64, Option<String>)>()
    }
    fn change(&mut self, what: u8, n: u16, m: u16) {
        let key = text(n % 50);
        match what {
            0..70 => drop(self.insert(hash(&key), &key, (m.into(), m.is_multiple_of(2).then_some("even")))),
            _ => drop(self.remove(hash(&key), &key)),
        }
    }
    fn content(&self) -> BTreeMap<String, String> {
        let mut content = BTreeMap::new();
        self.for_each(|key, value, _| {
            let value = Value::of_view::<(u64, Option<String>)>(value);
            content.insert(shown(&Value::of_view::<String>(key)), shown(&value));
        });
        content
    }
}

impl<E: Record + From<u8>> Tested for ListTable<u32, (E, String)> {
    fn new() -> Self {
        Self::new(config())
    }
    fn schema() -> StateSchema {
        StateSchema::lists::<u32, (E, String)>()
    }
    fn change(&mut self, what: u8, n: u16, m: u16) {
        let key = u32::from(n % 20);
        match what {
            0..80 => {
                for i in 0..m % 40 {
                    self.append(hash(&key), key, (E::from(i as u8), text(m + i)).view());
                }
            }
            _ => drop(self.remove(hash(&key), key)),
        }
    }
    fn content(&self) -> BTreeMap<String, String> {
        let (mut cursor, mut content) = (Cursor::default(), BTreeMap::new());
        while let Some((key, list, _)) = self.next(&mut cursor) {
            let list = list.map(Value::of_view::<(E, String)>).collect();
            content.insert(shown(&Value::of(&key)), shown(&Value::Array(list)));
        }
        content
    }
}

impl Tested for MapTable<u64, String, u128> {
    fn new() -> Self {
        Self::new(config())
    }
    fn schema() -> StateSchema {
        StateSchema::maps::<u64, String, u128>()
    }
    fn change(&mut self, what: u8, n: u16, m: u16) {
        let (key, user_key) = (u64::from(n % 12), text(m % 30));
        match what {
            0..80 => drop(self.put(hash(&key), key, &user_key, n.into())),
            80..95 => drop(self.remove_entry(hash(&key), key, &user_key)),
            _ => drop(self.remove(hash(&key), key)),
        }
    }
    fn content(&self) -> BTreeMap<String, String> {
        let (mut cursor, mut content) = (Cursor::default(), BTreeMap::new());
        while let Some((key, map, _)) = self.next(&mut cursor) {
            let map: BTreeMap<String, Value> = map.map(|(k, v)| (k.to_owned(), Value::of(&v))).collect();
            content.insert(shown(&Value::of(&key)), format!("{map:?}"));
        }
        content
    }
}

impl Tested for TimerQueue<u16> {
    fn new() -> Self {
        Self::new(config())
    }
    fn schema() -> StateSchema {
        StateSchema::timers::<u16>()
    }
    fn change(&mut self, what: u8, n: u16, m: u16) {
        let key = n % 20;
        let (namespace, timestamp) = ((m % 3).into(), (m % 50).into());
        match what {
            0..60 => drop(self.register(hash(&key), key, namespace, timestamp)),
            60..90 => drop(self.delete(hash(&key), key, namespace, timestamp)),
            _ => drop(self.pop_due((m % 30).into())),
        }
    }
    fn content(&self) -> BTreeMap<String, String> {
        let mut content = BTreeMap::new();
        self.for_each(|timer| {
            let key = Value::of(&(timer.key, timer.namespace, timer.timestamp));
            content.insert(shown(&key), shown(&Value::Bool(true)));
        });
        content
    }
}

/// What images hold, read by the schema.
fn read_images(images: &[Vec<u8>], schema: &StateSchema, range: KeyGroupRange) -> BTreeMap<String, String> {
    let indexes: Vec<ImageIndex> = images.iter().map(|image| ImageIndex::of(image).unwrap()).collect();
    for index in &indexes {
        index.check_schema(schema).unwrap();
    }
    let (key, value) = (schema.key.as_ref().unwrap(), schema.value.as_ref().unwrap());
    let mut content = BTreeMap::new();
    let extent_of = |n: usize, extent: &thalweg_state::Extent| {
        Ok::<_, ImageError>(images[n][extent.offset as usize..][..extent.bytes as usize].to_vec())
    };
    live_entries(&indexes, range, extent_of, |entry| {
        let one = match &entry.content {
            Content::Removed => panic!("a removed key is not live"),
            Content::Value(bytes) => shown(&read(value, bytes).unwrap()),
            Content::List(all) => shown(&Value::Array(all.iter().map(|bytes| read(value, bytes).unwrap()).collect())),
            Content::Map(all) => {
                let user_key = schema.user_key.as_ref().unwrap();
                let entry = |(k, v): &(std::borrow::Cow<'_, [u8]>, std::borrow::Cow<'_, [u8]>)| {
                    let Value::String(k) = read(user_key, k).unwrap() else { panic!("user keys are strings") };
                    (k, read(value, v).unwrap())
                };
                format!("{:?}", all.iter().map(entry).collect::<BTreeMap<_, _>>())
            }
        };
        assert!(range.contains(entry.group));
        assert!(content.insert(shown(&read(key, &entry.key).unwrap()), one).is_none(), "a key comes once");
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    content
}

fn whole() -> KeyGroupRange {
    config().range
}

fn check<T: Tested>(changes: &[(u8, u16, u16)], cuts: &[usize]) {
    let mut table = T::new();
    let mut images: Vec<Vec<u8>> = Vec::new();
    for (n, &(what, a, b)) in changes.iter().enumerate() {
        table.change(what, a, b);
        if cuts.contains(&n) {
            let kind = if images.is_empty() { SnapshotKind::Base } else { SnapshotKind::Increment };
            let image = snapshot_to_vec(&mut table, kind).unwrap();
            table.confirm_snapshot(ImageIndex::of(&image).unwrap().epoch());
            images.push(image);
            let expected = table.content();
            assert_eq!(read_images(&images, &T::schema(), whole()), expected);
            // In two halves.
            let mut halves = read_images(&images, &T::schema(), KeyGroupRange { start: 0, end: 6 });
            halves.extend(read_images(&images, &T::schema(), KeyGroupRange { start: 7, end: 15 }));
            assert_eq!(halves, expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn when_images_are_read_by_their_schema_then_their_entries_are_those_of_the_table(
        changes in prop::collection::vec((0..100u8, any::<u16>(), 0..1000u16), 1..300),
        cuts in prop::collection::vec(0..300usize, 1..5),
    ) {
        check::<RowTable<String, (u64, Option<String>)>>(&changes, &cuts);
        check::<ListTable<u32, (u8, String)>>(&changes, &cuts);
        check::<ListTable<u32, (u128, String)>>(&changes, &cuts);
        check::<MapTable<u64, String, u128>>(&changes, &cuts);
        check::<TimerQueue<u16>>(&changes, &cuts);
    }

    #[test]
    fn when_an_image_is_corrupted_then_reading_it_gives_entries_or_an_error(
        changes in prop::collection::vec((0..100u8, any::<u16>(), 0..1000u16), 1..60),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
    ) {
        fn hurt<T: Tested>(changes: &[(u8, u16, u16)], flips: &[(prop::sample::Index, u8)]) {
            let mut table = T::new();
            changes.iter().for_each(|&(what, a, b)| table.change(what, a, b));
            let mut image = snapshot_to_vec(&mut table, SnapshotKind::Full).unwrap();
            for (at, byte) in flips {
                let at = at.index(image.len());
                image[at] = *byte;
            }
            let Ok(index) = ImageIndex::of(&image) else { return };
            for extent in index.extents() {
                let bytes = &image[extent.offset as usize..][..extent.bytes as usize];
                for entry in index.entries(extent, bytes).flatten() {
                    let _ = read(T::schema().key.as_ref().unwrap(), &entry.key);
                    if let Content::Value(value) = &entry.content {
                        let _ = read(T::schema().value.as_ref().unwrap(), value);
                    }
                }
            }
        }
        hurt::<RowTable<String, (u64, Option<String>)>>(&changes, &flips);
        hurt::<ListTable<u32, (u8, String)>>(&changes, &flips);
        hurt::<MapTable<u64, String, u128>>(&changes, &flips);
        hurt::<TimerQueue<u16>>(&changes, &flips);
    }
}

#[test]
fn when_lists_are_of_elements_without_bytes_then_they_are_read() {
    let mut table = ListTable::<u8, ()>::new(config());
    table.append_all(hash(&1u8), 1, [(), (), ()]);
    let image = snapshot_to_vec(&mut table, SnapshotKind::Full).unwrap();
    let content = read_images(&[image], &StateSchema::lists::<u8, ()>(), whole());
    assert_eq!(
        content.into_iter().collect::<Vec<_>>(),
        [("Int(1)".to_owned(), "Array([Null, Null, Null])".to_owned())]
    );
}

#[test]
fn when_a_schema_is_of_another_table_then_it_is_refused() {
    let mut table = RowTable::<u64, u32>::new(config());
    let image = snapshot_to_vec(&mut table, SnapshotKind::Full).unwrap();
    let index = ImageIndex::of(&image).unwrap();
    assert_eq!(index.check_schema(&StateSchema::rows::<u64, u32>()), Ok(()));
    for other in [
        StateSchema::rows::<u64, u64>(),
        StateSchema::rows::<u64, String>(),
        StateSchema::rows::<u32, u32>(),
        StateSchema::maps::<u64, u32, u32>(),
        StateSchema::elements::<u32>(),
    ] {
        assert_eq!(index.check_schema(&other), Err(ImageError::OtherType), "{other:?}");
    }
}
