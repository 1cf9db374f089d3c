//! The event with number n: a pure function of the seed and n, as in the source of Nexmark with one generator at
//! 10,000 events per second of event time.
//!
//! As there, event number n (from 0) is the `n + 1`st and has the id `n + 2`, since both its first number and its first
//! id are 1. Where the original draws from an unseeded source, every event here draws from a stream of its own.

use std::sync::Arc;

use super::{
    channels::{COLD_CHANNELS, Channels, HOT_CHANNELS},
    model::{AuctionView, BidView, EventView, PersonView},
    price::price_cents,
    rng::{Rng, Streams},
    scratch::{EventScratch, Separator, Span},
};

/// Event time of the start, in milliseconds.
pub const BASE_TIME_MS: i64 = 1_436_918_400_000;
/// Events in a round: 1 person, then 3 auctions, then 46 bids.
pub const ROUND_EVENTS: u64 = 50;
/// Persons in a round.
pub const ROUND_PERSONS: u64 = 1;
/// Auctions in a round.
pub const ROUND_AUCTIONS: u64 = 3;
/// Id of the first person and of the first auction.
pub const FIRST_ID: u64 = 1000;

const EVENTS_PER_MS: u64 = 10;
const FIRST_NUMBER: u64 = 1;
const FIRST_EVENT_ID: u64 = 1;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u32 = 5;
/// How far an id may lie ahead of the last one made.
const ID_LEAD: u64 = 10;
/// Distance between two ids that are hot one after the other.
const HOT_STRIDE: u64 = 100;
const HOT_AUCTIONS_RATIO: u32 = 2;
const HOT_BIDDERS_RATIO: u32 = 4;
const HOT_SELLERS_RATIO: u32 = 4;
const HOT_CHANNELS_RATIO: u32 = 2;
const AUCTIONS_IN_FLIGHT: u64 = 100;
const ACTIVE_PERSONS: u64 = 1000;
const PERSON_BYTES: usize = 200;
const AUCTION_BYTES: usize = 500;
const BID_BYTES: usize = 100;
/// The random numbers of events.
const PURPOSE: u64 = 0;

const FIRST_NAMES: [&str; 11] =
    ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A person registers.
    Person,
    /// An auction opens.
    Auction,
    /// A bid is made.
    Bid,
}

/// Identity of an event, which decides its kind and which persons and auctions exist when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventId(u64);

impl EventId {
    /// The id of event number `n`, counted from 0.
    #[inline(always)]
    pub const fn of(n: u64) -> Self {
        Self(FIRST_EVENT_ID + FIRST_NUMBER + n)
    }

    /// The kind of that event.
    #[inline(always)]
    pub const fn kind(self) -> EventKind {
        match self.0 % ROUND_EVENTS {
            0 => EventKind::Person,
            1..=ROUND_AUCTIONS => EventKind::Auction,
            _ => EventKind::Bid,
        }
    }

    /// The last person made up to this event, counted from 0.
    #[inline(always)]
    pub const fn last_person(self) -> u64 {
        self.0 / ROUND_EVENTS * ROUND_PERSONS
    }

    /// The last auction made up to this event, counted from 0.
    #[inline(always)]
    pub const fn last_auction(self) -> u64 {
        let (round, offset) = (self.0 / ROUND_EVENTS, self.0 % ROUND_EVENTS);
        // The first id is 2, so there is a round before whenever the offset is 0.
        round * ROUND_AUCTIONS + if offset > ROUND_AUCTIONS { ROUND_AUCTIONS } else { offset } - 1
    }

    /// A person to take part: one of the last thousand, or one of the next ten.
    #[inline(always)]
    fn next_person(self, rng: &mut Rng) -> u64 {
        let persons = self.last_person() + 1;
        let active = persons.min(ACTIVE_PERSONS);
        persons - active + u64::from(rng.below((active + ID_LEAD) as u32))
    }

    /// An auction to bid in: one of the last hundred, or one of the next ten.
    #[inline(always)]
    fn next_auction(self, rng: &mut Rng) -> u64 {
        let last = self.last_auction();
        let first = last.saturating_sub(AUCTIONS_IN_FLIGHT);
        first + u64::from(rng.below((last - first + 1 + ID_LEAD) as u32))
    }
}

/// Event time of event number `n`, in milliseconds.
#[inline(always)]
pub const fn timestamp_ms(n: u64) -> i64 {
    time_of_number_ms(FIRST_NUMBER + n)
}

#[inline(always)]
const fn time_of_number_ms(number: u64) -> i64 {
    BASE_TIME_MS + (number / EVENTS_PER_MS) as i64
}

/// How many of the first `events` events are persons, auctions and bids.
pub const fn counts(events: u64) -> (u64, u64, u64) {
    // Ids run from 2 to events + 1.
    let end = events + FIRST_EVENT_ID + FIRST_NUMBER;
    let (rounds, rest) = (end / ROUND_EVENTS, end % ROUND_EVENTS);
    let persons = rounds + if rest > 0 { 1 } else { 0 } - 1;
    let begun = if rest == 0 { 0 } else { rest - 1 };
    let auctions = rounds * ROUND_AUCTIONS + if begun > ROUND_AUCTIONS { ROUND_AUCTIONS } else { begun } - 1;
    if events == 0 { (0, 0, 0) } else { (persons, auctions, events - persons - auctions) }
}

/// Makes events. Cheap to clone: clones share the table of channels.
#[derive(Clone, Debug)]
pub struct Generator {
    streams: Streams,
    channels: Arc<Channels>,
}

impl Generator {
    /// The generator of a seed. Takes about a millisecond, for the table of channels.
    pub fn new(seed: u64) -> Self {
        Self { streams: Streams::new(seed, PURPOSE), channels: Arc::new(Channels::new(seed)) }
    }

    /// Event number `n`, counted from 0, whose strings lie in `scratch` and in the generator. Allocates nothing.
    #[inline]
    pub fn event<'a>(&'a self, n: u64, scratch: &'a mut EventScratch) -> EventView<'a> {
        let id = EventId::of(n);
        let mut rng = self.streams.stream(n);
        scratch.clear();
        match id.kind() {
            EventKind::Bid => EventView::Bid(self.bid(n, id, &mut rng, scratch)),
            EventKind::Auction => EventView::Auction(auction(n, id, &mut rng, scratch)),
            EventKind::Person => EventView::Person(person(n, id, &mut rng, scratch)),
        }
    }

    #[inline(always)]
    fn bid<'a>(&'a self, n: u64, id: EventId, rng: &mut Rng, scratch: &'a mut EventScratch) -> BidView<'a> {
        let auction = if rng.below(HOT_AUCTIONS_RATIO) > 0 {
            id.last_auction() / HOT_STRIDE * HOT_STRIDE
        } else {
            id.next_auction(rng)
        };
        let bidder = if rng.below(HOT_BIDDERS_RATIO) > 0 {
            id.last_person() / HOT_STRIDE * HOT_STRIDE + 1
        } else {
            id.next_person(rng)
        };
        let price = price_cents(rng);
        let (channel, url) = if rng.below(HOT_CHANNELS_RATIO) > 0 {
            self.channels.hot(rng.below(HOT_CHANNELS.len() as u32))
        } else {
            self.channels.cold(rng.below(COLD_CHANNELS))
        };
        let extra = push_padding(scratch, rng, 4 * size_of::<u64>(), BID_BYTES);
        BidView {
            auction: FIRST_ID + auction,
            // The original adds the first id twice.
            bidder: 2 * FIRST_ID + bidder,
            price,
            channel,
            url,
            date_time: timestamp_ms(n),
            extra: scratch.text(extra),
        }
    }
}

fn auction<'a>(n: u64, id: EventId, rng: &mut Rng, scratch: &'a mut EventScratch) -> AuctionView<'a> {
    let item_name = scratch.push_words(rng, 20, Separator::Blank);
    let description = scratch.push_words(rng, 100, Separator::Blank);
    let initial_bid = price_cents(rng);
    let reserve = initial_bid + price_cents(rng);
    let expires = timestamp_ms(n) + auction_length_ms(n, rng);
    let seller =
        if rng.below(HOT_SELLERS_RATIO) > 0 { id.last_person() / HOT_STRIDE * HOT_STRIDE } else { id.next_person(rng) };
    let category = FIRST_CATEGORY + u64::from(rng.below(CATEGORIES));
    let bytes = 6 * size_of::<u64>() + item_name.len() + description.len();
    let extra = push_padding(scratch, rng, bytes, AUCTION_BYTES);
    AuctionView {
        id: FIRST_ID + id.last_auction(),
        item_name: scratch.text(item_name),
        description: scratch.text(description),
        initial_bid,
        reserve,
        date_time: timestamp_ms(n),
        expires,
        seller: FIRST_ID + seller,
        category,
        extra: scratch.text(extra),
    }
}

/// How long an auction is open: about as long, on average, as it takes for a hundred more to open.
fn auction_length_ms(n: u64, rng: &mut Rng) -> i64 {
    let number = FIRST_NUMBER + n;
    let ahead = AUCTIONS_IN_FLIGHT * ROUND_EVENTS / ROUND_AUCTIONS;
    let horizon_ms = time_of_number_ms(number + ahead) - time_of_number_ms(number);
    1 + i64::from(rng.below((horizon_ms * 2).max(1) as u32))
}

fn person<'a>(n: u64, id: EventId, rng: &mut Rng, scratch: &'a mut EventScratch) -> PersonView<'a> {
    let name = scratch.position();
    scratch.push(one_of(&FIRST_NAMES, rng));
    scratch.push(" ");
    scratch.push(one_of(&LAST_NAMES, rng));
    let name = scratch.since(name);
    let email = push_email(scratch, rng);
    let credit_card = push_credit_card(scratch, rng);
    let city = one_of(&CITIES, rng);
    let state = one_of(&STATES, rng);
    let bytes = size_of::<u64>() + name.len() + email.len() + credit_card.len() + city.len() + state.len();
    let extra = push_padding(scratch, rng, bytes, PERSON_BYTES);
    PersonView {
        id: FIRST_ID + id.last_person(),
        name: scratch.text(name),
        email_address: scratch.text(email),
        credit_card: scratch.text(credit_card),
        city,
        state,
        date_time: timestamp_ms(n),
        extra: scratch.text(extra),
    }
}

fn one_of(texts: &[&'static str], rng: &mut Rng) -> &'static str {
    texts[rng.below(texts.len() as u32) as usize]
}

fn push_email(scratch: &mut EventScratch, rng: &mut Rng) -> Span {
    let start = scratch.position();
    scratch.push_words(rng, 7, Separator::Blank);
    scratch.push("@");
    scratch.push_words(rng, 5, Separator::Blank);
    scratch.push(".com");
    scratch.since(start)
}

fn push_credit_card(scratch: &mut EventScratch, rng: &mut Rng) -> Span {
    let start = scratch.position();
    for group in 0..4 {
        if group > 0 {
            scratch.push(" ");
        }
        scratch.push_four_digits(rng.below(10_000));
    }
    scratch.since(start)
}

/// Letters that bring an event of `bytes` to about `target_bytes`, give or take a fifth of what is missing.
#[inline(always)]
fn push_padding(scratch: &mut EventScratch, rng: &mut Rng, bytes: usize, target_bytes: usize) -> Span {
    let missing = target_bytes.saturating_sub(bytes);
    let spread = (missing * 2 + 5) / 10;
    let len = missing - spread + rng.below(2 * spread as u32) as usize;
    scratch.push_letters(rng, len)
}

#[cfg(test)]
#[path = "generator_tests.rs"]
mod tests;
