//! Schemas of derived records: what is read by them is what serde says of the same value, and hostile bytes are errors.

mod common;

use common::{assert_round_trip, round_trip};
use proptest::prelude::*;
use serde::Serialize;
use thalweg_derive::Record;
use thalweg_model::{
    Record, record,
    schema::{Schema, StateSchema, Value, key_hash, read},
};

#[derive(Record, Serialize, Clone, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
struct Unit;

#[derive(Record, Serialize, Clone, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
struct Price(u32);

#[derive(Record, Serialize, Clone, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
struct Pair<A, B>(A, B);

#[derive(Record, Serialize, Clone, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
enum Kind {
    Plain,
    Letter(char),
    Wide { flag: bool, value: i64 },
    Deep(Vec<Order>, Option<String>),
    Priced(Price),
}

#[derive(Record, Serialize, Clone, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
struct Order {
    tiny: u8,
    id: u64,
    customer: String,
    r#type: i16,
    ratio: f64,
    lines: Vec<(u32, String)>,
    price: Price,
    pair: Pair<i8, Option<f32>>,
    note: Option<String>,
    unit: Unit,
    nothing: (),
    more: Vec<Option<u16>>,
    nested: Vec<Vec<bool>>,
    maybe: Option<(i32, Vec<String>)>,
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{0,9}", prop::collection::vec(any::<char>(), 0..20).prop_map(String::from_iter)]
}

fn order() -> impl Strategy<Value = Order> {
    let small = (any::<u8>(), any::<u64>(), text(), any::<i16>(), -1e9..1e9f64, any::<u32>().prop_map(Price));
    let pair = (any::<i8>(), prop::option::of(-1e3..1e3f32)).prop_map(|(a, b)| Pair(a, b));
    let lists = (
        prop::collection::vec((any::<u32>(), text()), 0..4),
        prop::collection::vec(any::<Option<u16>>(), 0..4),
        prop::collection::vec(prop::collection::vec(any::<bool>(), 0..3), 0..3),
        prop::option::of((any::<i32>(), prop::collection::vec(text(), 0..3))),
        prop::option::of(text()),
    );
    (small, pair, lists).prop_map(|((tiny, id, customer, r#type, ratio, price), pair, lists)| {
        let (lines, more, nested, maybe, note) = lists;
        let (unit, nothing) = (Unit, ());
        Order { tiny, id, customer, r#type, ratio, lines, price, pair, note, unit, nothing, more, nested, maybe }
    })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Plain),
        any::<char>().prop_map(Kind::Letter),
        any::<(bool, i64)>().prop_map(|(flag, value)| Kind::Wide { flag, value }),
        (prop::collection::vec(order(), 0..3), prop::option::of(text())).prop_map(|(a, b)| Kind::Deep(a, b)),
        any::<u32>().prop_map(|n| Kind::Priced(Price(n))),
    ]
}

/// A value as serde_json has it.
fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(number) if *number < 0 => i64::try_from(*number).expect("small").into(),
        Value::Int(number) => u64::try_from(*number).expect("small").into(),
        Value::Large(_) => unreachable!("no such number is in these types"),
        Value::F32(number) => serde_json::to_value(number).expect("finite"),
        Value::F64(number) => (*number).into(),
        Value::String(text) => text.as_str().into(),
        Value::Array(values) => values.iter().map(json).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.to_string(), json(value))).collect(),
    }
}

/// The schema says of a value's bytes what serde says of the value, and the value can be built again.
fn assert_read<T: Record + Serialize + Clone + PartialEq + std::fmt::Debug>(value: &T) {
    assert_round_trip(value.clone());
    let bytes = round_trip(value);
    // The schema as it comes back from storage.
    let stored = StateSchema::decode(&StateSchema::elements::<T>().encode().expect("small")).expect("as written");
    assert_eq!(stored, StateSchema::elements::<T>());
    let schema: Schema = stored.value.expect("elements have a value");
    // At any place in memory.
    let shifted = [&[0u8][..], &bytes].concat();
    let dynamic = read(&schema, &shifted[1..]).expect("bytes of this schema");
    assert_eq!(json(&dynamic), serde_json::to_value(value).expect("JSON"));
    assert_eq!(&T::from_value(&dynamic).expect("its own value"), value);
    assert_eq!(schema.is_fixed(), T::FIXED);
    assert_eq!(key_hash(&schema, &dynamic), Some(record::key_hash::<T>(value.view())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn when_a_record_is_read_by_its_schema_then_it_is_what_serde_says(order in order(), kind in kind()) {
        assert_read(&order);
        assert_read(&kind);
        assert_read(&(kind.clone(), vec![Some(order.id)], order.clone()));
        assert_read(&Pair(order, vec![(kind, 1u8)]));
    }

    #[test]
    fn when_bytes_are_corrupted_then_reading_gives_a_value_or_an_error(
        kind in kind(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep in any::<prop::sample::Index>(),
        cut in prop::bool::weighted(0.2),
    ) {
        let mut bytes = round_trip(&kind).to_vec();
        let len = bytes.len();
        for (at, byte) in &flips {
            bytes[at.index(len)] = *byte;
        }
        let end = if cut { keep.index(len + 1) } else { len };
        for schema in [Kind::schema(), Order::schema(), Vec::<Order>::schema(), <Vec<Vec<()>>>::schema()] {
            if let Ok(value) = read(&schema, &bytes[..end]) {
                let _ = Kind::from_value(&value);
            }
        }
    }

    #[test]
    fn when_a_stored_schema_is_corrupted_then_decoding_it_gives_a_schema_or_an_error(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        keep in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut stored = StateSchema::maps::<u64, Kind, Order>().encode().expect("small");
        for (at, byte) in &flips {
            let at = at.index(stored.len());
            stored[at] = *byte;
        }
        let end = keep.index(stored.len() + 1);
        for stored in [&stored[..], &stored[..end]] {
            let Ok(schema) = StateSchema::decode(stored) else { continue };
            assert_eq!(schema.encode().as_deref(), Ok(stored));
            for part in [schema.key, schema.user_key, schema.value].into_iter().flatten() {
                let _ = read(&part, &bytes);
            }
        }
    }
}

#[test]
fn when_options_are_nested_then_their_values_stay_apart() {
    for value in [None, Some(None), Some(Some(7u8))] {
        let dynamic = Value::of(&value);
        assert_eq!(<Option<Option<u8>>>::from_value(&dynamic), Ok(value), "{dynamic:?}");
    }
    for value in [None, Some(Unit)] {
        assert_eq!(<Option<Unit>>::from_value(&Value::of(&value)), Ok(value));
    }
    assert_eq!(Value::of(&Some(())), Value::Array(vec![Value::Null]));
}

#[test]
fn when_numbers_are_extreme_then_they_are_read_exactly() {
    let numbers = (u128::MAX, i128::MIN, i8::MIN, u64::MAX, f32::MIN_POSITIVE, f64::MAX);
    let dynamic = Value::of(&numbers);
    assert_eq!(<(u128, i128, i8, u64, f32, f64)>::from_value(&dynamic), Ok(numbers));
    let schema = <(u128, i128, i8, u64, f32, f64)>::schema();
    assert_eq!(key_hash(&schema, &dynamic), Some(record::key_hash::<(u128, i128, i8, u64, f32, f64)>(numbers)));
    let Value::Array(values) = dynamic else { panic!("a tuple is an array") };
    assert_eq!(values[..2], [Value::Large(u128::MAX), Value::Int(i128::MIN)]);
}

#[test]
fn when_hostile_bytes_refer_to_the_same_bytes_often_then_they_are_refused() {
    // A vector of vectors, each of which is the whole of the bytes.
    let mut bytes = Vec::new();
    for n in 0..64i32 {
        bytes.extend_from_slice(&(-8 * n).to_le_bytes());
        bytes.extend_from_slice(&64u32.to_le_bytes());
    }
    bytes.extend_from_slice(&(-8 * 64i32).to_le_bytes());
    bytes.extend_from_slice(&64u32.to_le_bytes());
    let error = read(&<Vec<Vec<Vec<u64>>>>::schema(), &bytes).expect_err("more than there is");
    assert!(error.to_string().contains("bytes of others"), "{error}");
    let mut many = 0i32.to_le_bytes().to_vec();
    many.extend_from_slice(&u32::MAX.to_le_bytes());
    assert!(read(&<Vec<()>>::schema(), &many).expect_err("too many").to_string().contains("more values"));
}

#[test]
fn when_a_value_is_of_another_type_then_the_error_names_the_field() {
    let wrong = |value: &Value, expected: &str| {
        let error = Order::from_value(value).expect_err("wrong").to_string();
        assert!(error.contains(expected), "{error}");
    };
    wrong(&Value::Null, "an object is wanted, null is there");
    let order = Order {
        tiny: 1,
        id: 2,
        customer: "c".into(),
        r#type: 3,
        ratio: 0.5,
        lines: vec![(1, "a".into())],
        price: Price(1),
        pair: Pair(1, None),
        note: None,
        unit: Unit,
        nothing: (),
        more: vec![],
        nested: vec![],
        maybe: None,
    };
    let Value::Object(fields) = Value::of(&order) else { panic!("a struct is an object") };
    let with = |name: &str, value: Option<Value>| {
        let mut fields = fields.clone();
        fields.retain(|(field, _)| **field != *name);
        fields.extend(value.map(|value| (name.into(), value)));
        Value::Object(fields)
    };
    wrong(&with("id", None), "field `id`: it is missing");
    wrong(&with("id", Some(Value::Int(-1))), "field `id`: -1 is no `u64`");
    wrong(&with("type", Some(Value::String("x".into()))), "field `type`: `i16` is wanted, a string is there");
    wrong(&with("other", Some(Value::Null)), "a field `other`, which is not wanted");
    let lines = Value::Array(vec![Value::Array(vec![Value::Int(1), Value::Int(2)])]);
    wrong(&with("lines", Some(lines)), "field `lines.0.1`: `String` is wanted, an integer is there");
    assert_eq!(Order::from_value(&with("id", Some(Value::Int(2)))), Ok(order));
}

mod changed {
    //! The same names with other fields.

    use super::*;

    #[derive(Record)]
    #[record(model = ::thalweg_model)]
    pub struct Price(pub u64);

    #[derive(Record)]
    #[record(model = ::thalweg_model)]
    pub enum Kind {
        Plain,
        Letter(char),
        Wide { flag: bool, worth: i64 },
    }

    #[derive(Record)]
    #[record(model = ::thalweg_model)]
    pub struct Bid {
        pub price: u32,
        pub channel: String,
    }
}

#[derive(Record)]
#[record(model = ::thalweg_model)]
struct Bid {
    price: u64,
    channel: String,
}

#[derive(Record)]
#[record(model = ::thalweg_model)]
struct Offer {
    price: u64,
    channel: String,
}

#[derive(Record)]
#[record(model = ::thalweg_model)]
struct Reordered {
    a: u32,
    b: u32,
}

#[test]
fn when_types_differ_then_the_message_names_the_first_field_and_says_what_to_do() {
    fn said<A: Record, B: Record>(expected: &str) {
        let (a, b) = (StateSchema::elements::<A>(), StateSchema::elements::<B>());
        let said = a.compare(&b).expect_err("they differ").to_string();
        let advice = ": give the type back, declare a migration, or give the state a new name";
        assert_eq!(said.strip_suffix(advice), Some(expected), "{said}");
        assert_ne!(a.fingerprint(), b.fingerprint());
        assert_eq!((a.compare(&a), b.compare(&b)), (Ok(()), Ok(())));
    }
    said::<Bid, changed::Bid>("state was written with field `price: u64`, the job has `price: u32`");
    said::<Vec<(Bid, u8)>, Vec<(changed::Bid, u8)>>(
        "state was written with field `0.price: u64`, the job has `0.price: u32`",
    );
    said::<Bid, Offer>("state was written with `Bid`, the job has `Offer`");
    said::<Price, changed::Price>("state was written with field `0: u32`, the job has `0: u64`");
    said::<u64, i64>("state was written with `u64`, the job has `i64`");
    said::<Option<u64>, u64>("state was written with `Option<u64>`, the job has `u64`");
    said::<Vec<u64>, Vec<u32>>("state was written with `Vec<u64>`, the job has `Vec<u32>`");
    said::<(u64, String), (u64,)>("state was written with field `1: String`, which the job does not have");
    said::<(u64,), (u64, String)>("state was written without field `1: String`, which the job has");
    said::<Kind, changed::Kind>("state was written with field `Wide.value: i64`, which the job does not have");
    let (a, mut b) = (StateSchema::elements::<Reordered>(), StateSchema::elements::<Reordered>());
    if let Some(Schema { kind: thalweg_model::schema::Kind::Struct(case), .. }) = &mut b.value {
        case.fields.swap(0, 1);
        (case.fields[0].offset, case.fields[1].offset) = (0, 4);
    }
    let said = a.compare(&b).expect_err("places differ").to_string();
    assert!(said.contains("field `a: u32 at byte 0`, the job has `a: u32 at byte 4`"), "{said}");
}

#[test]
fn when_keys_differ_then_the_message_says_that_they_cannot_be_migrated() {
    let said = StateSchema::rows::<u64, u8>().compare(&StateSchema::rows::<u32, u8>()).expect_err("differ").to_string();
    assert!(said.starts_with("state was written with key `u64`, the job has `u32`: "), "{said}");
    assert!(said.ends_with("keys cannot be migrated"), "{said}");
    let (maps, rows) = (StateSchema::maps::<u64, (u8, Bid), u8>(), StateSchema::maps::<u64, (u8, changed::Bid), u8>());
    let said = maps.compare(&rows).expect_err("differ").to_string();
    assert!(said.contains("user key's field `1.price: u64`"), "{said}");
}

#[test]
fn when_a_schema_is_shown_then_it_reads_as_in_rust() {
    let shown = <(u64, Option<Vec<String>>, (i8,), Bid, f32, char, (), Kind)>::schema().to_string();
    assert_eq!(shown, "(u64, Option<Vec<String>>, (i8,), Bid, f32, char, (), Kind)");
}
