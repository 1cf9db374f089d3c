//! Migrations: state of an older type becomes state of a new one, as it was declared and not otherwise.

use std::collections::BTreeMap;

use proptest::prelude::*;
use thalweg_derive::Record;
use thalweg_model::{KeyGroupRange, KeyHash, MaxParallelism, Record, StateSchema, record::key_hash};
use thalweg_state::{
    Cursor, ImageIndex, ListTable, MapTable, MigrateError, Migration, NamespaceSalt, RowTable, SnapshotKind, Snapshots,
    TableConfig, encode_elements, migrate, migrate_elements, restore, snapshot_to_vec,
};

mod v1 {
    use super::Record;

    #[derive(Record, Clone, Debug, PartialEq)]
    #[record(model = ::thalweg_model)]
    pub enum Side {
        Buy,
        Sell(u16),
    }

    #[derive(Record, Clone, Debug, PartialEq)]
    #[record(model = ::thalweg_model)]
    pub struct Line {
        pub count: u8,
        pub name: String,
    }

    #[derive(Record, Clone, Debug, PartialEq)]
    #[record(model = ::thalweg_model)]
    pub struct Bid {
        pub price: u32,
        pub note: Option<String>,
        pub lines: Vec<Line>,
        pub side: Side,
        pub weight: f32,
    }
}

mod v2 {
    use super::Record;

    #[derive(Record, Clone, Debug, PartialEq)]
    #[record(model = ::thalweg_model)]
    pub enum Side {
        Cancel,
        Sell(u32),
        Buy,
    }

    #[derive(Record, Clone, Debug, PartialEq)]
    #[record(model = ::thalweg_model)]
    pub struct Line {
        pub name: String,
        pub count: u8,
        pub tags: Vec<String>,
    }

    #[derive(Record, Clone, Debug, PartialEq)]
    #[record(model = ::thalweg_model)]
    pub struct Offer {
        pub side: Side,
        pub price: i64,
        pub currency: String,
        pub lines: Vec<Line>,
        pub weight: f64,
    }
}

fn config() -> TableConfig {
    TableConfig { max_segment_rows: 8, ..TableConfig::whole(MaxParallelism::new(16).unwrap()) }
}

fn hash<K: Record>(key: &K) -> KeyHash {
    key_hash::<K>(key.view())
}

fn old(n: u32) -> v1::Bid {
    v1::Bid {
        price: n.wrapping_mul(0x9e37_79b9),
        note: n.is_multiple_of(3).then(|| format!("note {n}")),
        lines: (0..n % 4).map(|i| v1::Line { count: i as u8, name: "n".repeat(n as usize % 20) }).collect(),
        side: if n.is_multiple_of(2) { v1::Side::Buy } else { v1::Side::Sell(n as u16) },
        weight: n as f32 / 3.0,
    }
}

fn new(n: u32) -> v2::Offer {
    let old = old(n);
    v2::Offer {
        side: match old.side {
            v1::Side::Buy => v2::Side::Buy,
            v1::Side::Sell(n) => v2::Side::Sell(n.into()),
        },
        price: old.price.into(),
        currency: "EUR".into(),
        lines: old
            .lines
            .into_iter()
            .map(|l| v2::Line { name: l.name, count: l.count, tags: vec!["old".into()] })
            .collect(),
        weight: old.weight.into(),
    }
}

fn declared() -> Migration<v2::Offer> {
    Migration::new()
        .add_field("currency", "EUR".to_string())
        .remove_field("note")
        .widen("price")
        .widen("weight")
        .widen("side.Sell.0")
        .add_field("lines.tags", vec!["old".to_string()])
}

fn converted() -> Migration<v2::Offer> {
    Migration::convert::<v1::Bid>(|bid| v2::Offer {
        side: match bid.side {
            v1::SideView::Buy => v2::Side::Buy,
            v1::SideView::Sell(n) => v2::Side::Sell(n.into()),
        },
        price: bid.price.into(),
        currency: "EUR".into(),
        lines: bid
            .lines
            .iter()
            .map(|line| v2::Line { name: line.name.into(), count: line.count, tags: vec!["old".into()] })
            .collect(),
        weight: bid.weight.into(),
    })
}

/// A full image of rows, and an increment on it in which some are changed and some removed.
fn rows<K: Record>(key: impl Fn(u32) -> K, count: u32) -> (Vec<Vec<u8>>, BTreeMap<u32, u32>) {
    let mut table = RowTable::<K, v1::Bid>::new(config());
    let mut model: BTreeMap<u32, u32> = (0..count).map(|n| (n, n)).collect();
    for n in 0..count {
        table.insert(hash(&key(n)), key(n).view(), old(n).view());
    }
    let full = snapshot_to_vec(&mut table, SnapshotKind::Base).unwrap();
    table.confirm_snapshot(ImageIndex::of(&full).unwrap().epoch());
    for n in (0..count).step_by(3) {
        table.insert(hash(&key(n)), key(n).view(), old(n + 7).view());
        model.insert(n, n + 7);
    }
    for n in (0..count).step_by(5) {
        table.remove(hash(&key(n)), key(n).view());
        model.remove(&n);
    }
    (vec![full, snapshot_to_vec(&mut table, SnapshotKind::Increment).unwrap()], model)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn when_rows_are_migrated_then_all_are_there_with_their_new_values(count in 0..300u32, split in 0..15u16) {
        let (images, model) = rows(|n| format!("key {n}"), count);
        let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
        let stored = StateSchema::rows::<String, v1::Bid>();
        for migration in [declared(), converted()] {
            let mut seen = BTreeMap::new();
            for (start, end) in [(0, split), (split + 1, 15)] {
                let config = TableConfig { range: KeyGroupRange { start, end }, ..config() };
                let table: RowTable<String, v2::Offer> = migrate(config, &stored, &images, &migration).unwrap();
                table.for_each(|key, value, key_hash| {
                    assert_eq!(key_hash, hash(&key.to_owned()));
                    seen.insert(key.to_owned(), value.to_record());
                });
            }
            let expected: BTreeMap<_, _> = model.iter().map(|(n, m)| (format!("key {n}"), new(*m))).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}

#[test]
fn when_migrated_then_the_table_can_be_snapshotted_and_restored() {
    let (images, model) = rows(u64::from, 100);
    let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
    let stored = StateSchema::rows::<u64, v1::Bid>();
    let mut table: RowTable<u64, v2::Offer> = migrate(config(), &stored, &images, &declared()).unwrap();
    let image = snapshot_to_vec(&mut table, SnapshotKind::Increment).unwrap();
    assert_eq!(ImageIndex::of(&image).unwrap().base(), None, "nothing of the old type can be built on");
    let back: RowTable<u64, v2::Offer> = restore(config(), &[&image]).unwrap();
    assert_eq!(back.len(), model.len());
    for (n, m) in model {
        let key = u64::from(n);
        assert_eq!(back.get(hash(&key), key).map(|view| view.to_record()), Some(new(m)));
    }
}

#[test]
fn when_keys_are_salted_then_their_rows_are_found_again() {
    let mut table = RowTable::<(u64, i64), u32, NamespaceSalt>::new(config());
    for n in 0..200u64 {
        table.insert(hash(&(n % 20)), (n % 20, n as i64), n as u32);
    }
    let image = snapshot_to_vec(&mut table, SnapshotKind::Full).unwrap();
    let stored = StateSchema::rows::<(u64, i64), u32>();
    let wide: RowTable<(u64, i64), u64, NamespaceSalt> =
        migrate(config(), &stored, &[&image], &Migration::new().widen("")).unwrap();
    for n in 0..200u64 {
        assert_eq!(wide.get(hash(&(n % 20)), (n % 20, n as i64)), Some(n));
    }
}

#[test]
fn when_lists_and_maps_are_migrated_then_their_values_are_new() {
    let mut lists = ListTable::<String, v1::Bid>::new(config());
    let mut maps = MapTable::<u64, String, v1::Bid>::new(config());
    for n in 0..60u32 {
        let key = format!("key {}", n % 7);
        lists.append(hash(&key), &key, old(n).view());
        let key = u64::from(n % 5);
        maps.put(hash(&key), key, &n.to_string(), old(n).view());
    }
    let image = snapshot_to_vec(&mut lists, SnapshotKind::Full).unwrap();
    let stored = StateSchema::lists::<String, v1::Bid>();
    let lists: ListTable<String, v2::Offer> = migrate(config(), &stored, &[&image], &declared()).unwrap();
    for k in 0..7u32 {
        let key = format!("key {k}");
        let expected: Vec<_> = (0..60).filter(|n| n % 7 == k).map(new).collect();
        assert_eq!(lists.list(hash(&key), &key).map(|view| view.to_record()).collect::<Vec<_>>(), expected);
    }
    let image = snapshot_to_vec(&mut maps, SnapshotKind::Full).unwrap();
    let stored = StateSchema::maps::<u64, String, v1::Bid>();
    let maps: MapTable<u64, String, v2::Offer> = migrate(config(), &stored, &[&image], &converted()).unwrap();
    let (mut cursor, mut seen) = (Cursor::default(), 0);
    while let Some((key, entries, _)) = maps.next(&mut cursor) {
        for (user_key, value) in entries {
            let n: u32 = user_key.parse().unwrap();
            assert_eq!((key, value.to_record()), (u64::from(n % 5), new(n)));
            seen += 1;
        }
    }
    assert_eq!(seen, 60);
}

#[test]
fn when_operator_state_is_migrated_then_every_element_is() {
    let elements: Vec<v1::Bid> = (0..20).map(old).collect();
    let bytes = encode_elements::<v1::Bid>(elements.iter().map(Record::view));
    let stored = StateSchema::elements::<v1::Bid>();
    let mut back = Vec::new();
    assert_eq!(migrate_elements(&bytes, &stored, &declared(), |element| back.push(element)), Ok(20));
    assert_eq!(back, (0..20).map(new).collect::<Vec<_>>());
}

fn refused<V: Record, W: Record>(migration: Migration<W>) -> String {
    migration.plan(&V::schema()).err().expect("not as declared").to_string()
}

#[test]
fn when_a_change_is_not_declared_then_the_message_names_the_field_and_what_to_declare() {
    type Old = v1::Bid;
    for (without, expected) in [
        ("currency", "field `currency`: it is new, of type `String`: declare `.add_field(\"currency\", default)`"),
        ("lines.tags", "field `lines.tags`: it is new, of type `Vec<String>`"),
        ("note", "field `note`: the job's type does not have it any more: declare `.remove_field(\"note\")`"),
        ("price", "field `price`: `u32` became `i64`: declare `.widen(\"price\")`"),
        ("side.Sell.0", "field `side.Sell.0`: `u16` became `u32`: declare `.widen(\"side.Sell.0\")`"),
    ] {
        let mut migration = Migration::<v2::Offer>::new();
        if without != "currency" {
            migration = migration.add_field("currency", "EUR".to_string());
        }
        if without != "lines.tags" {
            migration = migration.add_field("lines.tags", Vec::<String>::new());
        }
        if without != "note" {
            migration = migration.remove_field("note");
        }
        for wide in ["price", "weight", "side.Sell.0"].into_iter().filter(|wide| *wide != without) {
            migration = migration.widen(wide);
        }
        let said = refused::<Old, v2::Offer>(migration);
        assert!(said.contains(expected), "{said}");
    }
    assert!(
        refused::<u64, u32>(Migration::new().widen("")).contains("`u64` became `u32`, which no declared change does")
    );
    assert!(refused::<u32, String>(Migration::new()).contains("give a conversion function"));
    assert!(refused::<v2::Side, v1::Side>(Migration::new()).contains("field `Cancel`"));
}

#[test]
fn when_something_is_declared_that_has_not_changed_then_it_is_refused() {
    let said = refused::<v1::Bid, v2::Offer>(declared().remove_field("nothing"));
    assert!(said.contains("field `nothing`: it is declared to be removed, but the state has no such field"), "{said}");
    assert!(refused::<u32, u32>(Migration::new().widen("")).contains("declared to be widened"));
    let said = refused::<v1::Bid, v2::Offer>(declared().add_field("side", 1u8));
    assert!(said.contains("field `side`: it is declared to be added"), "{said}");
    let wrong = Migration::<v2::Offer>::new()
        .add_field("currency", 5u8)
        .remove_field("note")
        .widen("price")
        .widen("weight")
        .widen("side.Sell.0")
        .add_field("lines.tags", Vec::<String>::new());
    assert!(refused::<v1::Bid, v2::Offer>(wrong).contains("its default is no `String`"));
}

#[test]
fn when_a_conversion_takes_another_type_then_the_message_names_the_field() {
    let said = refused::<v2::Line, v2::Offer>(converted());
    assert!(said.contains("written with `Line`, its migration converts from `Bid`"), "{said}");
}

#[test]
fn when_keys_have_changed_then_they_cannot_be_migrated() {
    let (images, _) = rows(|n| n, 10);
    let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
    let stored = StateSchema::rows::<u32, v1::Bid>();
    let error = migrate::<RowTable<u64, v2::Offer>>(config(), &stored, &images, &declared()).err().expect("other keys");
    assert!(matches!(error, MigrateError::Keys(_)), "{error}");
    assert!(error.to_string().contains("keys cannot be migrated"), "{error}");
    // What the checkpoint says of the types is not what the images are of.
    let stored = StateSchema::rows::<u64, v1::Bid>();
    assert!(migrate::<RowTable<u64, v2::Offer>>(config(), &stored, &images, &declared()).is_err());
}

#[test]
fn when_only_the_name_of_a_keys_type_changes_then_an_empty_migration_will_do() {
    #[derive(Record, Clone, Debug, PartialEq)]
    #[record(model = ::thalweg_model)]
    struct Row {
        count: u8,
        name: String,
    }
    let old = |n: u8| v1::Line { count: n, name: format!("line {n}") };
    let mut table = RowTable::<v1::Line, u64>::new(config());
    for n in 0..50 {
        table.insert(hash(&old(n)), old(n).view(), n.into());
    }
    let image = snapshot_to_vec(&mut table, SnapshotKind::Full).unwrap();
    let stored = StateSchema::rows::<v1::Line, u64>();
    let renamed: RowTable<Row, u64> = migrate(config(), &stored, &[&image], &Migration::new()).unwrap();
    for n in 0..50u8 {
        let key = Row { count: n, name: format!("line {n}") };
        assert_eq!(renamed.get(hash(&key), key.view()), Some(n.into()));
    }
}

#[test]
fn when_only_names_and_orders_change_then_an_empty_migration_will_do() {
    #[derive(Record, Clone, Debug, PartialEq)]
    #[record(model = ::thalweg_model)]
    struct Row {
        name: String,
        count: u8,
    }
    let plan = Migration::<Row>::new().plan(&v1::Line::schema()).unwrap();
    let bytes = encode_elements::<v1::Line>([v1::LineView { count: 3, name: "x" }]);
    let row = thalweg_state::element_bytes(&bytes).map(|bytes| plan.apply(bytes.unwrap()).unwrap()).next();
    assert_eq!(row, Some(Row { name: "x".into(), count: 3 }));
}

#[test]
fn when_values_lie_in_options_and_beside_times_then_they_are_migrated_there_and_named_by_their_own_paths() {
    type Old = (i64, Option<v1::Bid>);
    let elements: Vec<Old> = (0..20).map(|n| (i64::from(n) - 5, (n % 4 > 0).then(|| old(n)))).collect();
    let bytes = encode_elements::<Old>(elements.iter().map(Record::view));
    let expected: Vec<_> = (0..20).map(|n| (i64::from(n) - 5, (n % 4 > 0).then(|| new(n)))).collect();
    for migration in [declared(), converted()] {
        let plan = migration.in_option().beside_time().plan(&Old::schema()).unwrap();
        let mut back = Vec::new();
        assert_eq!(plan.apply_to_elements(&bytes, |element| back.push(element)), Ok(20));
        assert_eq!(back, expected);
    }
    let undeclared = Migration::<v2::Offer>::new().widen("price").in_option().beside_time();
    let said = refused::<Old, _>(undeclared);
    assert!(said.contains("field `note`: the job's type does not have it any more: declare `.remove_field(\"note\")`"));
    assert!(refused::<Old, _>(declared().beside_time()).contains("became"), "the option was left out");
    assert!(refused::<u64, _>(declared().beside_time()).contains("a pair of a time and a value is wanted"));
    assert!(refused::<u64, _>(converted().in_option()).contains("an option is wanted"));
}

#[test]
fn when_bytes_of_a_value_within_another_are_damaged_then_that_is_an_error() {
    type Old = (i64, Option<v1::Bid>);
    let elements: [Old; 2] = [(1, Some(old(3))), (2, None)];
    let bytes = encode_elements::<Old>(elements.iter().map(Record::view));
    let plan = converted().in_option().beside_time().plan(&Old::schema()).unwrap();
    let mut changed = 0;
    for at in 16..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0xff;
        let mut back = Vec::new();
        // Whatever it is, it is an answer; and what does not lie in padding is seen or refused.
        let answer = plan.apply_to_elements(&bytes, |element| back.push(element));
        changed += usize::from(answer.is_err() || back != [(1, Some(new(3))), (2, None)]);
    }
    assert!(changed > bytes.len() / 4, "{changed} of {}", bytes.len());
}
