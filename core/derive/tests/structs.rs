//! Derived structs: what is generated, and that values survive encoding.

mod common;

use common::{assert_round_trip, round_trip};
use thalweg_derive::Record;
use thalweg_model::{Record as _, Seq, record};

/// A bid as in Nexmark.
#[derive(Record, serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
pub struct Bid {
    /// The auction.
    pub auction: u64,
    /// The price.
    pub price: u64,
    /// The channel.
    #[serde(default)]
    pub channel: String,
    ts: i64,
}

#[derive(Record, Clone, Copy, Debug, PartialEq)]
#[record(model = thalweg_model)]
struct Point {
    x: i32,
    y: Option<(f64, char)>,
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
struct Everything {
    a: u8,
    b: i8,
    c: u16,
    d: i16,
    e: u32,
    f: i32,
    g: u64,
    h: i64,
    i: u128,
    j: i128,
    k: f32,
    l: f64,
    m: bool,
    n: char,
    o: (),
    p: String,
    q: Option<String>,
    r: Vec<u8>,
    s: Vec<String>,
    t: Vec<Bid>,
    u: Option<Bid>,
    v: (Point, Bid, Option<Vec<(Point, String)>>),
    w: Point,
    x: Vec<Point>,
    r#type: std::vec::Vec<std::string::String>,
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
struct Wrapper(pub String, u32, Point);

#[derive(Record, Clone, Copy, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
struct Nothing;

#[derive(Record, Clone, Copy, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
struct Braces {}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
struct Keyed<K, V: Clone = u64>
where
    V: PartialEq,
{
    key: K,
    values: Vec<V>,
    last: Option<V>,
    label: String,
}

macro_rules! with_type {
    ($name:ident, $ty:ty) => {
        #[derive(Record, Clone, Copy, Debug, PartialEq)]
        #[record(model = ::thalweg_model)]
        struct $name {
            value: $ty,
        }
    };
}
with_type!(FromMacro, Option<u32>);

fn bid(auction: u64, channel: &str) -> Bid {
    Bid { auction, price: 100, channel: channel.into(), ts: -5 }
}

fn everything() -> Everything {
    let point = Point { x: -1, y: Some((2.5, 'ß')) };
    Everything {
        a: 1,
        b: -2,
        c: 3,
        d: -4,
        e: 5,
        f: -6,
        g: 7,
        h: -8,
        i: u128::MAX - 1,
        j: i128::MIN + 1,
        k: 0.5,
        l: -0.25,
        m: true,
        n: '漢',
        o: (),
        p: "a string longer than inline".into(),
        q: Some("short".into()),
        r: vec![1, 2, 3],
        s: vec!["x".into(), "another string that is not inline".into()],
        t: vec![bid(1, "Google"), bid(2, "a channel with a long name")],
        u: Some(bid(3, "Apple")),
        v: (point, bid(4, ""), Some(vec![(point, "nested, and not inline either".into())])),
        w: point,
        x: vec![point, Point { x: 9, y: None }],
        r#type: vec!["raw identifiers work".into()],
    }
}

#[test]
fn when_a_struct_is_encoded_then_it_comes_back() {
    assert_round_trip(bid(1, "Google"));
    assert_round_trip(Point { x: 1, y: None });
    assert_round_trip(everything());
    assert_round_trip(Wrapper("w".into(), 1, Point { x: 1, y: Some((f64::MAX, 'a')) }));
    assert_round_trip(Nothing);
    assert_round_trip(Braces {});
    assert_round_trip(FromMacro { value: Some(3) });
    assert_round_trip(vec![Nothing, Nothing]);
}

#[test]
fn when_a_generic_struct_is_encoded_then_it_comes_back() {
    assert_round_trip(Keyed { key: 1u64, values: vec![bid(1, "x")], last: None, label: "by bid".into() });
    assert_round_trip(Keyed::<String> { key: "k".into(), values: vec![1, 2], last: Some(3), label: String::new() });
    let keyed = Keyed { key: 7u8, values: vec![1u64], last: None, label: "l".into() };
    let same = keyed.clone();
    let view = keyed.view();
    assert_eq!(view, same.view());
    assert_eq!(format!("{view:?}"), "KeyedView { key: 7, values: [1], last: None, label: \"l\" }");
}

#[test]
fn when_no_bytes_are_out_of_line_then_a_struct_is_fixed() {
    const { assert!(Point::FIXED && Nothing::FIXED && Braces::FIXED && !Bid::FIXED && !Everything::FIXED) };
    const { assert!(Everything::ALIGN == 16 && Bid::ALIGN == 8 && Nothing::ALIGN == 1) };
    const { assert!(!<Keyed<u128>>::FIXED && <Keyed<u128>>::ALIGN == 16 && <Keyed<u8>>::ALIGN == 8) };
}

#[test]
fn when_users_build_views_then_plain_ones_have_no_lifetime() {
    fn plain(x: i32) -> PointView {
        PointView { x, y: None }
    }
    let owned = bid(3, "Google");
    let view = BidView { auction: 4, channel: "Apple", ..owned.view() };
    assert_eq!(view.to_record(), bid(4, "Apple"));
    assert_eq!(Bid::from(view), bid(4, "Apple"));
    assert_eq!(plain(1).to_record(), Point { x: 1, y: None });
    assert_eq!(WrapperView("a", 1, plain(2)).to_record(), Wrapper("a".into(), 1, Point { x: 2, y: None }));
    assert_eq!(NothingView.to_record(), Nothing);
    assert_eq!(format!("{view:?}"), "BidView { auction: 4, price: 100, channel: \"Apple\", ts: -5 }");
    let fields: (u64, &str) = (view.auction, view.channel);
    assert_eq!(fields, (4, "Apple"));
    let everything = everything();
    let names: Seq<'_, String> = everything.view().s;
    assert_eq!(names.len(), 2);
}

#[test]
fn when_two_views_borrow_for_different_lifetimes_then_one_may_be_chosen() {
    fn dearer<'a>(a: BidView<'a>, b: BidView<'a>) -> BidView<'a> {
        if a.price < b.price { b } else { a }
    }
    static STATIC: BidView<'static> = BidView { auction: 1, price: 200, channel: "static", ts: 0 };
    let local = bid(2, "local");
    assert_eq!(dearer(STATIC, local.view()).channel, "static");
}

fn map<T: record::Record, O, F: for<'a> FnMut(T::View<'a>) -> O>(values: &[T], f: F) -> Vec<O> {
    values.iter().map(T::view).map(f).collect()
}

#[test]
fn when_a_closure_takes_a_view_then_its_type_is_inferred() {
    let bids = [bid(1, "Google"), bid(2, "Apple")];
    assert_eq!(map(&bids, |b| (b.auction, b.price * 89 / 100)), [(1, 89), (2, 89)]);
    assert_eq!(map(&bids, |b| b.channel == "Google"), [true, false]);
    assert_eq!(map(&bids, |b| b.to_record()), bids);
}

#[test]
fn when_one_field_differs_then_keys_and_hashes_differ() {
    let (a, b) = (bid(1, "Google"), bid(1, "Googlf"));
    assert!(!Bid::eq_view(a.view(), b.view()));
    assert_ne!(record::key_hash::<Bid>(a.view()), record::key_hash::<Bid>(b.view()));
    let nan = Point { x: 0, y: Some((f64::NAN, 'x')) };
    assert!(Point::eq_view(nan.view(), nan.view()));
    assert_ne!(nan.view(), nan.view());
}

#[test]
fn when_rkyv_itself_is_used_then_derived_types_work() {
    let values = vec![everything()];
    let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(&values).expect("encodes");
    let back: Vec<Everything> = rkyv::from_bytes::<_, rkyv::rancor::Error>(&bytes).expect("decodes");
    assert_eq!(back, values);
}

#[test]
fn when_serde_is_derived_too_then_both_work() {
    let json = serde_json::to_string(&bid(1, "Google")).expect("encodes");
    assert_eq!(serde_json::from_str::<Bid>(&json).expect("decodes"), bid(1, "Google"));
}

#[test]
fn when_a_view_of_archived_bytes_is_encoded_again_then_the_bytes_are_the_same() {
    let bytes = round_trip(&everything());
    // SAFETY: the bytes are those of `encode_large` for the same type.
    let view = unsafe { record::decode_unchecked::<Everything>(&bytes) };
    let again = record::encode_large::<Everything>(view, 1 << 20, &mut Default::default()).expect("fits");
    assert_eq!(bytes.as_slice(), again.as_slice());
}
