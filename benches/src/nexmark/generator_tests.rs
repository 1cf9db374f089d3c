//! What the generated stream must look like, and that it never changes.

use thalweg::Record as _;

use super::*;
use crate::nexmark::{Event, EventView, RowHasher, WriteJson};

fn for_each(seed: u64, events: u64, mut check: impl FnMut(u64, EventView<'_>)) {
    let generator = Generator::new(seed);
    let mut scratch = EventScratch::new();
    for n in 0..events {
        check(n, generator.event(n, &mut scratch));
    }
}

/// The hash of the JSON lines of the first ten thousand events: a change here strands every published result.
#[test]
fn when_the_code_changes_then_the_events_do_not() {
    let golden = |seed| {
        let mut text = Vec::new();
        let mut hasher = RowHasher::new();
        for_each(seed, 10_000, |_, event| {
            text.clear();
            event.write_json(&mut text);
            hasher = std::mem::take(&mut hasher).text(std::str::from_utf8(&text).expect("events are UTF-8"));
        });
        hasher.finish()
    };
    let seen = [golden(0), golden(1), golden(42)];
    assert_eq!(seen, GOLDEN, "seen {seen:#x?}");
}

const GOLDEN: [u64; 3] = [0x321a_f1ca_2176_363d, 0x82e5_22a4_3bbc_4601, 0xc23d_517e_9ad6_1ac1];

#[test]
fn when_an_event_is_made_by_itself_then_it_is_that_of_the_stream() {
    let generator = Generator::new(9);
    let mut all = Vec::new();
    for_each(9, 500, |_, event| all.push(Event::from_view(event)));
    let mut scratch = EventScratch::new();
    for n in (0..500).rev() {
        assert_eq!(Event::from_view(generator.clone().event(n, &mut scratch)), all[n as usize]);
    }
}

#[test]
fn when_seeds_differ_then_events_differ_but_not_their_kinds_and_times() {
    let mut other = Vec::new();
    for_each(2, 1000, |_, event| other.push(Event::from_view(event)));
    for_each(1, 1000, |n, event| {
        let other = &other[n as usize];
        assert_ne!(&Event::from_view(event), other);
        assert_eq!(std::mem::discriminant(&Event::from_view(event)), std::mem::discriminant(other));
        assert_eq!(event.timestamp_ms(), other.view().timestamp_ms());
    });
}

#[test]
fn when_events_are_counted_then_a_round_is_1_person_3_auctions_46_bids() {
    let mut seen = (0, 0, 0);
    assert_eq!(counts(0), seen);
    for_each(1, 1000, |n, event| {
        match event {
            EventView::Person(_) => seen.0 += 1,
            EventView::Auction(_) => seen.1 += 1,
            EventView::Bid(_) => seen.2 += 1,
        }
        assert_eq!(counts(n + 1), seen, "of {} events", n + 1);
    });
    assert_eq!(seen, (20, 60, 920));
    assert_eq!(counts(100_000_000), (2_000_000, 6_000_000, 92_000_000));
}

#[test]
fn when_time_passes_then_ten_events_share_a_millisecond() {
    let seen: Vec<i64> = [0, 8, 9, 18, 19, 9_999].into_iter().map(|n| timestamp_ms(n) - BASE_TIME_MS).collect();
    assert_eq!(seen, [0, 0, 1, 1, 2, 1000]);
    for_each(1, 1000, |n, event| assert_eq!(event.timestamp_ms(), timestamp_ms(n)));
}

#[test]
fn when_ids_are_assigned_then_they_are_those_of_the_original() {
    // (n, last person, last auction), by the formulas of the reference with id = n + 2.
    for (n, person, auction) in
        [(0, 0, 1), (1, 0, 2), (2, 0, 2), (47, 0, 2), (48, 1, 2), (49, 1, 3), (51, 1, 5), (52, 1, 5)]
    {
        let id = EventId::of(n);
        assert_eq!((id.last_person(), id.last_auction()), (person, auction), "event {n}");
    }
    let (mut person_id, mut auction_id) = (FIRST_ID, FIRST_ID);
    for_each(1, 100_000, |_, event| match event {
        EventView::Person(person) => {
            person_id += 1;
            assert_eq!(person.id, person_id);
        }
        EventView::Auction(auction) => {
            auction_id += 1;
            assert_eq!(auction.id, auction_id);
            assert!((FIRST_ID..=person_id + ID_LEAD).contains(&auction.seller));
        }
        EventView::Bid(bid) => {
            assert!((FIRST_ID..=auction_id + ID_LEAD).contains(&bid.auction), "{bid:?}");
            assert!(bid.auction + 2 * AUCTIONS_IN_FLIGHT >= auction_id, "{bid:?}");
            assert!((2 * FIRST_ID..=FIRST_ID + person_id + ID_LEAD).contains(&bid.bidder), "{bid:?}");
        }
    });
}

#[test]
fn when_bids_are_made_then_hot_ones_have_their_share() {
    let (mut bids, mut auctions, mut bidders, mut channels) = (0.0, 0.0, 0.0, 0.0);
    for_each(3, 500_000, |n, event| {
        let EventView::Bid(bid) = event else { return };
        let id = EventId::of(n);
        bids += 1.0;
        auctions += f64::from(u8::from(bid.auction == FIRST_ID + id.last_auction() / 100 * 100));
        bidders += f64::from(u8::from(bid.bidder == 2 * FIRST_ID + id.last_person() / 100 * 100 + 1));
        channels += f64::from(u8::from(HOT_CHANNELS.contains(&bid.channel)));
    });
    // A bid that is not drawn as hot hits the hot one at times.
    assert!((0.50..0.51).contains(&(auctions / bids)), "{}", auctions / bids);
    assert!((0.75..0.76).contains(&(bidders / bids)), "{}", bidders / bids);
    assert!((0.498..0.502).contains(&(channels / bids)), "{}", channels / bids);
}

#[test]
fn when_events_are_padded_then_their_sizes_are_as_documented() {
    let mut sums = [(0usize, 0usize); 3];
    let mut add = |kind: usize, bytes: usize| sums[kind] = (sums[kind].0 + bytes, sums[kind].1 + 1);
    for_each(4, 100_000, |_, event| match event {
        EventView::Person(p) => add(
            0,
            8 + [p.name, p.email_address, p.credit_card, p.city, p.state, p.extra]
                .iter()
                .map(|s| s.len())
                .sum::<usize>(),
        ),
        EventView::Auction(a) => add(1, 48 + a.item_name.len() + a.description.len() + a.extra.len()),
        EventView::Bid(b) => {
            assert!((54..82).contains(&b.extra.len()), "{}", b.extra.len());
            add(2, 32 + b.extra.len());
        }
    });
    for ((sum, count), target) in sums.into_iter().zip([200.0, 500.0, 100.0]) {
        let mean = sum as f64 / count as f64;
        assert!((mean - target).abs() < target / 50.0, "{mean} instead of {target}");
    }
}

#[test]
fn when_texts_are_made_then_they_have_the_documented_shapes() {
    let is_word = |text: &str| text.bytes().all(|byte| byte == b' ' || byte.is_ascii_lowercase());
    for_each(5, 50_000, |_, event| match event {
        EventView::Person(person) => {
            let (first, last) = person.name.split_once(' ').expect("two names");
            assert!(FIRST_NAMES.contains(&first) && LAST_NAMES.contains(&last));
            let (local, domain) = person.email_address.split_once('@').expect("an address");
            let domain = domain.strip_suffix(".com").expect("a domain");
            assert!(is_word(local) && local.len() < 7 && is_word(domain) && domain.len() < 5, "{person:?}");
            let groups: Vec<&str> = person.credit_card.split(' ').collect();
            assert!(groups.len() == 4 && groups.iter().all(|g| g.len() == 4 && g.parse::<u32>().is_ok()));
            assert!(CITIES.contains(&person.city) && STATES.contains(&person.state) && is_word(person.extra));
        }
        EventView::Auction(auction) => {
            assert!(is_word(auction.item_name) && auction.item_name.len() < 20, "{auction:?}");
            assert!(is_word(auction.description) && auction.description.len() < 100, "{auction:?}");
            assert!((100..=100_000_000).contains(&auction.initial_bid), "{auction:?}");
            assert!((100..=100_000_000).contains(&(auction.reserve - auction.initial_bid)), "{auction:?}");
            assert!((10..15).contains(&auction.category), "{auction:?}");
            assert!((1..=334).contains(&(auction.expires - auction.date_time)), "{auction:?}");
        }
        EventView::Bid(bid) => assert!(bid.url.starts_with("https://www.nexmark.com/") && is_word(bid.extra)),
    });
}

#[test]
fn when_an_event_is_encoded_then_its_bytes_are_read_back_as_the_same_event() {
    let mut scratch = thalweg::model::EncodeScratch::default();
    for_each(6, 1_000, |_, event| {
        let bytes = thalweg::model::record::encode_large::<Event>(event, 4096, &mut scratch).expect("fits");
        let back = thalweg::model::record::decode_checked::<Event>(&bytes).expect("valid");
        assert_eq!(back.to_record(), event.to_record());
    });
}
