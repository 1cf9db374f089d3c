//! Known answers of every query on small inputs made by hand.

use std::{convert::Infallible, num::NonZeroU32};

use thalweg::Record as _;

use super::*;
use crate::nexmark::{
    Auction, Bid, Person, WriteJson,
    digest::DigestRow,
    rows::{AuctionCountRow, AuctionPriceRow, BidRow, ConvertedBidRow, NewSellerRow},
};

fn bid(auction: u64, price: u64, date_time: i64) -> Event {
    let (channel, url) = ("Apple".to_string(), "https://www.nexmark.com/".to_string());
    Event::Bid(Bid { auction, bidder: auction + 1, price, channel, url, date_time, extra: format!("x{price}") })
}

fn person(id: u64, name: &str, date_time: i64) -> Event {
    let text = String::new;
    Event::Person(Person {
        id,
        name: name.into(),
        email_address: text(),
        credit_card: text(),
        city: text(),
        state: text(),
        date_time,
        extra: text(),
    })
}

fn auction(seller: u64, date_time: i64) -> Event {
    Event::Auction(Auction {
        id: 1,
        item_name: String::new(),
        description: String::new(),
        initial_bid: 1,
        reserve: 2,
        date_time,
        expires: date_time + 1,
        seller,
        category: 10,
        extra: String::new(),
    })
}

/// The rows as JSON, sorted, and the check that their digest is that of the rows.
fn evaluate(mut reference: Reference, events: &[Event]) -> Vec<String> {
    let (mut rows, mut digest) = (Vec::new(), RowDigest::default());
    let mut emit = |row: RowView<'_>| {
        let mut json = Vec::new();
        row.write_json(&mut json);
        rows.push(String::from_utf8(json).expect("UTF-8"));
        digest.add(&row);
    };
    for event in events {
        reference.push(event.view(), &mut emit);
    }
    reference.finish(&mut emit);
    assert_eq!(digest.count, rows.len() as u64);
    rows.sort();
    rows
}

/// The rows of a query, which must not depend on what is known of the order, if the events are in order.
fn rows_of(query: Query, events: &[Event]) -> Vec<String> {
    let rows = evaluate(Reference::new(query, InputOrder::Any), events);
    if events.is_sorted_by_key(|event| event.view().timestamp_ms()) {
        assert_eq!(evaluate(Reference::new(query, InputOrder::Ascending), events), rows);
    }
    rows
}

#[test]
fn when_q0_runs_then_bids_pass_and_nothing_else() {
    let rows = rows_of(Query::Q0, &[person(1, "A", 0), auction(1, 1), bid(7, 100, -2), bid(8, 5, 3)]);
    assert_eq!(
        rows,
        [
            r#"{"auction":7,"bidder":8,"price":100,"dateTime":-2,"extra":"x100"}"#,
            r#"{"auction":8,"bidder":9,"price":5,"dateTime":3,"extra":"x5"}"#
        ]
    );
}

#[test]
fn when_q1_runs_then_prices_have_exactly_three_decimals() {
    let rows = rows_of(Query::Q1, &[bid(1, 100, 0), bid(2, 1, 0), bid(3, 123_457, 0), bid(4, 100_000_000, 0)]);
    let prices: Vec<&str> = rows.iter().map(|row| row.split(&[':', ','][..]).nth(5).expect("a price")).collect();
    assert_eq!(prices, ["90.800", "0.908", "112098.956", "90800000.000"]);
}

#[test]
fn when_q1_sees_prices_up_to_the_largest_then_every_digit_is_right() {
    // The last price whose product has 64 bits, the one after it, and the largest there is.
    for (price, expected) in [
        (u64::MAX / 908, "18446744073709551.512"),
        (u64::MAX / 908 + 1, "18446744073709552.420"),
        (u64::MAX, "16749643618928272866.420"),
    ] {
        let rows = rows_of(Query::Q1, &[bid(1, price, 0)]);
        assert!(rows[0].contains(&format!("\"price\":{expected},")), "{price}: {rows:?}");
    }
}

#[test]
fn when_q2_runs_then_every_123rd_auction_is_selected() {
    let rows = rows_of(Query::Q2, &[bid(123, 1, 0), bid(124, 2, 0), bid(1230, 3, 0), bid(122, 4, 0)]);
    assert_eq!(rows, [r#"{"auction":123,"price":1}"#, r#"{"auction":1230,"price":3}"#]);
}

#[test]
fn when_q5_runs_then_all_auctions_with_the_most_bids_of_each_window_are_found() {
    // At 9,999 the windows from 0, 2, 4, 6, 8 s; at 10,000 those from 2, 4, 6, 8, 10 s.
    let events = [bid(1, 1, 9_999), bid(2, 1, 10_000), bid(2, 1, 10_000)];
    let (one, two) = (r#"{"auction":1,"num":1}"#, r#"{"auction":2,"num":2}"#);
    assert_eq!(rows_of(Query::Q5, &events), [one, two, two, two, two, two]);
    let tie = r#"{"auction":2,"num":1}"#;
    assert_eq!(rows_of(Query::Q5, &events[..2]), [one, one, one, one, one, tie, tie, tie, tie, tie]);
}

#[test]
fn when_q5_has_other_windows_then_they_are_used() {
    let millis = |ms| NonZeroU32::new(ms).expect("not zero");
    let events = [bid(1, 1, 0), bid(1, 1, 9), bid(2, 1, 10)];
    let rows = evaluate(Reference::hot_items(Windows::hop(millis(10), millis(10)), InputOrder::Ascending), &events);
    assert_eq!(rows, [r#"{"auction":1,"num":2}"#, r#"{"auction":2,"num":1}"#]);
}

#[test]
fn when_q7_runs_then_all_bids_with_the_highest_price_of_each_window_are_found() {
    let events = [bid(1, 5, 0), bid(2, 9, 1), bid(3, 9, 9_999), bid(4, 8, 9_999), bid(5, 2, 10_000), bid(6, 1, 19_999)];
    let expected = [
        r#"{"auction":2,"price":9,"bidder":3,"dateTime":1,"extra":"x9"}"#,
        r#"{"auction":3,"price":9,"bidder":4,"dateTime":9999,"extra":"x9"}"#,
        r#"{"auction":5,"price":2,"bidder":6,"dateTime":10000,"extra":"x2"}"#,
    ];
    assert_eq!(rows_of(Query::Q7, &events), expected);
    let mut backwards = events.to_vec();
    backwards.reverse();
    assert_eq!(rows_of(Query::Q7, &backwards), expected);
}

#[test]
fn when_q7_sees_a_price_of_zero_then_it_counts_too() {
    assert_eq!(rows_of(Query::Q7, &[bid(1, 0, 0), bid(2, 0, 0)]).len(), 2);
}

#[test]
fn when_q8_runs_then_new_sellers_are_found_once_per_window() {
    let events = [
        auction(1, 0), // before the person registers, in the same window
        person(1, "Ann Lee", 5),
        auction(1, 6), // a second auction: no second row
        person(2, "Bo", 9_999),
        auction(2, 10_000), // the next window: no row
        person(3, "Cy", 10_001),
        auction(3, 19_999),
        person(4, "No auction", 19_999),
        bid(1, 1, 19_999),
    ];
    let expected = [r#"{"id":1,"name":"Ann Lee","starttime":0}"#, r#"{"id":3,"name":"Cy","starttime":10000}"#];
    assert_eq!(rows_of(Query::Q8, &events), expected);
}

#[test]
fn when_the_input_is_empty_then_so_is_every_result() {
    for query in Query::ALL {
        assert_eq!(rows_of(query, &[]), Vec::<String>::new());
    }
}

#[test]
#[should_panic(expected = "InputOrder::Any")]
fn when_events_are_not_ascending_as_said_then_evaluation_panics() {
    evaluate(Reference::new(Query::Q7, InputOrder::Ascending), &[bid(1, 1, 1), bid(1, 1, 0)]);
}

#[test]
fn when_rows_are_read_back_then_they_are_the_same_and_serde_writes_the_same() {
    fn check<R>(row: R)
    where
        R: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug + WriteJson + DigestRow,
    {
        let mut json = Vec::new();
        row.write_json(&mut json);
        assert_eq!(serde_json::to_string(&row).unwrap().as_bytes(), json);
        let back: R = serde_json::from_slice(&json).unwrap();
        assert_eq!(back.row_hash(), row.row_hash());
        assert_eq!(back, row);
    }
    let extra = || "a\"b\\c\n\u{1}é".to_string();
    check(BidRow { auction: 1, bidder: 2, price: 3, date_time: -4, extra: extra() });
    for price_thousandths in
        [0, 1, 999, 1000, 90_800_000_000, 90_799_999_999, 123_456_789_012_345, u128::from(u64::MAX) * 908]
    {
        check(ConvertedBidRow { auction: 1, bidder: 2, price_thousandths, date_time: i64::MIN, extra: extra() });
    }
    check(AuctionPriceRow { auction: u64::MAX, price: 0 });
    check(AuctionCountRow { auction: 1, num: 2 });
    check(HighestBidRow { auction: 1, price: 3, bidder: 2, date_time: 4, extra: extra() });
    check(NewSellerRow { id: 1, name: extra(), starttime: 0 });
}

/// The results of the first 200,000 events: 20 seconds of event time.
#[test]
fn when_events_are_generated_then_results_are_those_of_their_owned_form_and_never_change() {
    const EVENTS: u64 = 200_000;
    let generator = Generator::new(1);
    let mut scratch = EventScratch::new();
    let events: Vec<Event> = (0..EVENTS).map(|n| Event::from_view(generator.event(n, &mut scratch))).collect();
    let mut seen = Vec::new();
    for query in Query::ALL {
        let digest = digest_generated(Reference::new(query, InputOrder::Ascending), &generator, EVENTS);
        let owned = events.iter().cloned().map(Ok::<_, Infallible>);
        assert_eq!(digest_events(Reference::new(query, InputOrder::Any), owned), Ok(digest), "{query}");
        seen.push((query.name(), digest.count, digest.sum));
    }
    assert_eq!(seen, GOLDEN);
}

const GOLDEN: [(&str, u64, u64); 6] = [
    ("q0", 184000, 6089314351478133490),
    ("q1", 184000, 10254494394979219750),
    ("q2", 1509, 108328368460089556),
    ("q5", 14, 27079416447061179),
    ("q7", 2, 13930543090888741090),
    ("q8", 1793, 10987008390145961386),
];
