//! Derived enums: what is generated, and that values survive encoding.

mod common;

use common::{assert_round_trip, round_trip};
use thalweg_derive::Record;
use thalweg_model::{Record as _, record};

#[derive(Record, Clone, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
struct Bid {
    auction: u64,
    channel: String,
}

/// Called as a type inside bytecheck's derive is called.
#[derive(Record, Clone, Copy, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
struct Tag(u32);

#[derive(Record, Clone, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
enum Event {
    /// The variant has the name of its type.
    Bid(Bid),
    Auction {
        id: u64,
        item: String,
        reserve: Option<u128>,
    },
    Idle,
    Tagged(Tag, u8, Vec<Color>),
    Empty(),
    Braces {},
}

#[derive(Record, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[record(model = ::thalweg_model)]
enum Color {
    Red = 7,
    Green = 3,
    Blue,
}
use Color as ImportedColor;

#[derive(Record, Clone, Copy, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
enum Measure {
    Whole(i64),
    Wide { low: u8, high: i128 },
    Missing,
}

/// Public and documented, so that `missing_docs` shows what the macro forgets.
#[derive(Record, Clone, Copy, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
pub enum Only {
    /// One.
    One(u16),
}

#[derive(Record, Clone, Debug, PartialEq)]
#[record(model = ::thalweg_model)]
enum Either<L, R> {
    Left(L),
    Right { value: Vec<R>, note: String },
    Neither,
}

fn events() -> Vec<Event> {
    vec![
        Event::Bid(Bid { auction: 1, channel: "a channel with a long name".into() }),
        Event::Auction { id: 2, item: "lamp".into(), reserve: Some(1 << 100) },
        Event::Auction { id: 3, item: "a lamp that is not kept inline".into(), reserve: None },
        Event::Idle,
        Event::Tagged(Tag(4), 5, vec![Color::Red, Color::Blue]),
        Event::Empty(),
        Event::Braces {},
    ]
}

#[test]
fn when_an_enum_is_encoded_then_it_comes_back() {
    events().into_iter().for_each(assert_round_trip);
    assert_round_trip(events());
    [Color::Red, Color::Green, Color::Blue].into_iter().for_each(assert_round_trip);
    let measures = [Measure::Whole(-1), Measure::Wide { low: 1, high: i128::MIN }, Measure::Missing];
    measures.into_iter().for_each(assert_round_trip);
    assert_round_trip(Only::One(3));
    assert_round_trip((Some(Measure::Missing), vec![Measure::Whole(1), Measure::Wide { low: 2, high: 3 }]));
    assert_round_trip(Either::<Bid, u64>::Left(Bid { auction: 1, channel: "x".into() }));
    assert_round_trip(vec![Either::<u8, Event>::Right { value: events(), note: "n".into() }, Either::Neither]);
}

#[test]
fn when_all_variants_are_fixed_then_the_enum_is() {
    const { assert!(Measure::FIXED && Color::FIXED && !Event::FIXED && <Either<u8, u8>>::ALIGN == 4) };
    const { assert!(Measure::ALIGN == 16 && Event::ALIGN == 16 && Color::ALIGN == 1) };
    assert_eq!(round_trip(&Color::Blue).as_slice(), [2], "the tag is the index, whatever the discriminant");
}

#[test]
fn when_a_view_is_matched_then_its_variants_are_those_of_the_enum() {
    for event in events() {
        let bytes = round_trip(&event);
        let name = match record::decode_checked::<Event>(&bytes).expect("valid") {
            EventView::Bid(BidView { channel, .. }) => channel,
            EventView::Auction { item, .. } => item,
            EventView::Tagged(TagView(4), _, colors) if colors.get(1) == Some(ColorView::Blue) => "blue",
            EventView::Tagged(..) => "tagged",
            EventView::Idle | EventView::Empty() | EventView::Braces {} => "",
        };
        let expected = match &event {
            Event::Bid(bid) => &bid.channel,
            Event::Auction { item, .. } => item,
            Event::Tagged(..) => "blue",
            _ => "",
        };
        assert_eq!(name, expected);
    }
    assert_eq!(
        EventView::Bid(BidView { auction: 9, channel: "c" }).to_record(),
        Event::Bid(Bid { auction: 9, channel: "c".into() })
    );
    assert_eq!(Color::from(ColorView::Green), ImportedColor::Green);
    let either = Either::<u8, u8>::Left(1);
    assert_eq!(format!("{:?} {:?}", either.view(), Either::<u8, u8>::Neither.view()), "Left(1) Neither");
    assert!(either.view() != Either::Neither.view());
}

#[test]
fn when_variants_differ_then_keys_and_hashes_differ() {
    let events = events();
    for (i, a) in events.iter().enumerate() {
        for (j, b) in events.iter().enumerate() {
            assert_eq!(Event::eq_view(a.view(), b.view()), i == j);
            assert_eq!(record::key_hash::<Event>(a.view()) == record::key_hash::<Event>(b.view()), i == j);
        }
    }
}

macro_rules! many {
    ($($name:ident)*) => {
        #[derive(Record, Clone, Copy, Debug, PartialEq)]
        #[record(model = ::thalweg_model)]
        enum Many { $($name,)* }
        const MANY: &[Many] = &[$(Many::$name),*];
    };
}
many!(
    V00 V01 V02 V03 V04 V05 V06 V07 V08 V09 V0a V0b V0c V0d V0e V0f V10 V11 V12 V13 V14 V15 V16 V17 V18 V19 V1a V1b V1c
    V1d V1e V1f V20 V21 V22 V23 V24 V25 V26 V27 V28 V29 V2a V2b V2c V2d V2e V2f V30 V31 V32 V33 V34 V35 V36 V37 V38 V39
    V3a V3b V3c V3d V3e V3f V40 V41 V42 V43 V44 V45 V46 V47 V48 V49 V4a V4b V4c V4d V4e V4f V50 V51 V52 V53 V54 V55 V56
    V57 V58 V59 V5a V5b V5c V5d V5e V5f V60 V61 V62 V63 V64 V65 V66 V67 V68 V69 V6a V6b V6c V6d V6e V6f V70 V71 V72 V73
    V74 V75 V76 V77 V78 V79 V7a V7b V7c V7d V7e V7f V80 V81 V82 V83 V84 V85 V86 V87 V88 V89 V8a V8b V8c V8d V8e V8f V90
    V91 V92 V93 V94 V95 V96 V97 V98 V99 V9a V9b V9c V9d V9e V9f Va0 Va1 Va2 Va3 Va4 Va5 Va6 Va7 Va8 Va9 Vaa Vab Vac Vad
    Vae Vaf Vb0 Vb1 Vb2 Vb3 Vb4 Vb5 Vb6 Vb7 Vb8 Vb9 Vba Vbb Vbc Vbd Vbe Vbf Vc0 Vc1 Vc2 Vc3 Vc4 Vc5 Vc6 Vc7 Vc8 Vc9 Vca
    Vcb Vcc Vcd Vce Vcf Vd0 Vd1 Vd2 Vd3 Vd4 Vd5 Vd6 Vd7 Vd8 Vd9 Vda Vdb Vdc Vdd Vde Vdf Ve0 Ve1 Ve2 Ve3 Ve4 Ve5 Ve6 Ve7
    Ve8 Ve9 Vea Veb Vec Ved Vee Vef Vf0 Vf1 Vf2 Vf3 Vf4 Vf5 Vf6 Vf7 Vf8 Vf9 Vfa Vfb Vfc Vfd Vfe Vff
);

#[test]
fn when_an_enum_has_256_variants_then_every_byte_is_one() {
    assert_eq!(MANY.len(), 256);
    for (index, value) in MANY.iter().enumerate() {
        assert_eq!(round_trip(value).as_slice(), [index as u8]);
        assert_round_trip(*value);
    }
    assert!(record::decode_checked::<Color>(&[3]).is_none());
}
