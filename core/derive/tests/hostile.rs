//! Bytes that nobody encoded: checked decoding refuses them or gives a value that can be used.

mod common;

use common::{assert_round_trip, round_trip};
use proptest::prelude::*;
use rkyv::util::AlignedVec;
use thalweg_derive::Record;
use thalweg_model::record;

#[derive(Record, Clone, Copy, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
enum Kind {
    Plain,
    Letter(char),
    Wide { flag: bool, value: i128 },
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
enum Event {
    Named(String, Kind),
    Many { notes: Vec<Option<String>>, kinds: Vec<(Kind, bool)> },
    Deep(Option<Vec<Vec<Order>>>),
    Idle,
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
struct Order {
    id: u64,
    customer: String,
    kind: Kind,
    lines: Vec<(u32, String)>,
    blob: Vec<u8>,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Plain),
        any::<char>().prop_map(Kind::Letter),
        any::<(bool, i128)>().prop_map(|(flag, value)| Kind::Wide { flag, value }),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..20).prop_map(String::from_iter)
}

fn order() -> impl Strategy<Value = Order> {
    (
        any::<u64>(),
        text(),
        kind(),
        prop::collection::vec((any::<u32>(), text()), 0..4),
        prop::collection::vec(any::<u8>(), 0..40),
    )
        .prop_map(|(id, customer, kind, lines, blob)| Order { id, customer, kind, lines, blob })
}

fn event() -> impl Strategy<Value = Event> {
    let orders = prop::collection::vec(prop::collection::vec(order(), 0..3), 0..3);
    prop_oneof![
        (text(), kind()).prop_map(|(name, kind)| Event::Named(name, kind)),
        (prop::collection::vec(prop::option::of(text()), 0..5), prop::collection::vec((kind(), any::<bool>()), 0..5))
            .prop_map(|(notes, kinds)| Event::Many { notes, kinds }),
        prop::option::of(orders).prop_map(Event::Deep),
        Just(Event::Idle),
    ]
}

/// Reads all of whatever the bytes decode to.
fn use_up<T: record::Record + std::fmt::Debug>(bytes: &[u8]) -> bool {
    let Some(view) = record::decode_checked::<T>(bytes) else { return false };
    let owned = T::from_view(view);
    assert_eq!(format!("{view:?}"), format!("{:?}", owned.view()));
    assert!(T::eq_view(view, owned.view()));
    assert_eq!(record::key_hash::<T>(view), record::key_hash::<T>(owned.view()));
    true
}

fn aligned(bytes: &[u8]) -> AlignedVec<16> {
    let mut aligned = AlignedVec::new();
    aligned.extend_from_slice(bytes);
    aligned
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn when_a_value_is_encoded_then_it_comes_back(value in event()) {
        assert_round_trip(value);
    }

    #[test]
    fn when_bytes_are_corrupted_then_decoding_is_safe(
        value in event(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep in any::<prop::sample::Index>(),
        cut in prop::bool::weighted(0.2),
    ) {
        let mut bytes = round_trip(&value);
        let len = bytes.len();
        for (at, byte) in &flips {
            bytes[at.index(len)] = *byte;
        }
        let end = if cut { keep.index(len + 1) } else { len };
        use_up::<Event>(&bytes[..end]);
        use_up::<Order>(&bytes[..end]);
        use_up::<Vec<Kind>>(&bytes[..end]);
        use_up::<Kind>(&bytes[..end]);
    }

    #[test]
    fn when_bytes_are_random_then_decoding_is_safe(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = aligned(&bytes);
        use_up::<Event>(&bytes);
        use_up::<Order>(&bytes);
        use_up::<Kind>(&bytes);
    }
}

#[test]
fn when_a_tag_is_of_no_variant_then_decoding_refuses() {
    let mut bytes = round_trip(&Kind::Plain);
    let root = bytes.len() - size_of::<<Kind as record::Record>::Archived>();
    assert!(use_up::<Kind>(&bytes));
    bytes[root] = 3;
    assert!(!use_up::<Kind>(&bytes));
    let mut bytes = round_trip(&Kind::Wide { flag: true, value: 0 });
    bytes[1] = 2;
    assert!(!use_up::<Kind>(&bytes), "a bool of 2");
}

#[test]
fn when_bytes_are_misaligned_or_too_few_then_decoding_refuses() {
    let bytes = round_trip(&Kind::Plain);
    assert!(!use_up::<Kind>(&bytes[1..]));
    assert!(!use_up::<Kind>(&bytes[..bytes.len() - 1]));
    assert!(!use_up::<Kind>(&[]));
}
