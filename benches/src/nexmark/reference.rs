//! The queries evaluated plainly, one event after the other: what the engine's results are checked against.
//!
//! Must stay free of cleverness, and of anything that the engine uses.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use thalweg::Record as _;

use super::{
    Generator,
    digest::RowDigest,
    model::{AuctionView, BidView, Event, EventView, PersonView},
    query::Query,
    rows::{
        AuctionCountRowView, AuctionPriceRowView, BidRowView, ConvertedBidRowView, HighestBidRow, NewSellerRowView,
        RowView,
    },
    scratch::EventScratch,
    windows::Windows,
};

/// What is known of the order of the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputOrder {
    /// Timestamps never fall, so that a window is complete, and forgotten, once an event lies behind it.
    Ascending,
    /// Nothing is known; all windows are kept to the end of the input.
    Any,
}

/// The evaluation of one query. Push all events, then finish.
#[derive(Debug)]
pub struct Reference {
    state: State,
    order: InputOrder,
    latest_ms: i64,
}

#[derive(Debug)]
enum State {
    PassThrough,
    Convert,
    Select,
    HotItems(Windows, BTreeMap<i64, HashMap<u64, u64>>),
    HighestBids(BTreeMap<i64, Vec<HighestBidRow>>),
    NewSellers(BTreeMap<i64, Registrations>),
}

#[derive(Debug, Default)]
struct Registrations {
    persons: BTreeSet<(u64, String)>,
    sellers: HashSet<u64>,
}

impl Reference {
    /// The evaluation of a query, with its own windows.
    pub fn new(query: Query, order: InputOrder) -> Self {
        let state = match query {
            Query::Q0 => State::PassThrough,
            Query::Q1 => State::Convert,
            Query::Q2 => State::Select,
            Query::Q5 => return Self::hot_items(Windows::HOP_10S_2S, order),
            Query::Q7 => State::HighestBids(BTreeMap::new()),
            Query::Q8 => State::NewSellers(BTreeMap::new()),
        };
        Self { state, order, latest_ms: i64::MIN }
    }

    /// The evaluation of q5 with other windows.
    pub fn hot_items(windows: Windows, order: InputOrder) -> Self {
        Self { state: State::HotItems(windows, BTreeMap::new()), order, latest_ms: i64::MIN }
    }

    /// Takes the next event, and emits the rows that are certain with it.
    ///
    /// # Panics
    /// Where the order was said to be ascending, and the event is older than one before it.
    pub fn push(&mut self, event: EventView<'_>, mut emit: impl FnMut(RowView<'_>)) {
        if self.order == InputOrder::Ascending {
            let now_ms = event.timestamp_ms();
            assert!(now_ms >= self.latest_ms, "events out of order: evaluate with InputOrder::Any");
            if now_ms > self.latest_ms {
                self.latest_ms = now_ms;
                self.close(now_ms, &mut emit);
            }
        }
        match event {
            EventView::Bid(bid) => self.bid(bid, emit),
            EventView::Auction(auction) => self.auction(auction),
            EventView::Person(person) => self.person(person),
        }
    }

    /// Ends the input: all windows are complete.
    pub fn finish(mut self, mut emit: impl FnMut(RowView<'_>)) {
        self.close(i64::MAX, &mut emit);
    }

    fn bid(&mut self, bid: BidView<'_>, mut emit: impl FnMut(RowView<'_>)) {
        let BidView { auction, bidder, price, date_time, extra, .. } = bid;
        match &mut self.state {
            State::PassThrough => emit(RowView::Q0(BidRowView { auction, bidder, price, date_time, extra })),
            State::Convert => {
                let price_thousandths = u128::from(price) * 908;
                emit(RowView::Q1(ConvertedBidRowView { auction, bidder, price_thousandths, date_time, extra }));
            }
            State::Select => {
                if auction % 123 == 0 {
                    emit(RowView::Q2(AuctionPriceRowView { auction, price }));
                }
            }
            State::HotItems(windows, counts) => {
                for start in windows.starts(date_time) {
                    *counts.entry(start).or_default().entry(auction).or_default() += 1;
                }
            }
            State::HighestBids(highest) => {
                for start in Windows::TUMBLE_10S.starts(date_time) {
                    let best = highest.entry(start).or_default();
                    let best_price = best.first().map_or(0, |row| row.price);
                    if price > best_price {
                        best.clear();
                    }
                    if price >= best_price {
                        best.push(HighestBidRow { auction, price, bidder, date_time, extra: extra.to_owned() });
                    }
                }
            }
            State::NewSellers(_) => {}
        }
    }

    fn auction(&mut self, auction: AuctionView<'_>) {
        if let State::NewSellers(registrations) = &mut self.state {
            for start in Windows::TUMBLE_10S.starts(auction.date_time) {
                registrations.entry(start).or_default().sellers.insert(auction.seller);
            }
        }
    }

    fn person(&mut self, person: PersonView<'_>) {
        if let State::NewSellers(registrations) = &mut self.state {
            for start in Windows::TUMBLE_10S.starts(person.date_time) {
                registrations.entry(start).or_default().persons.insert((person.id, person.name.to_owned()));
            }
        }
    }

    /// Emits and forgets the windows that end at or before `now_ms`.
    fn close(&mut self, now_ms: i64, emit: &mut impl FnMut(RowView<'_>)) {
        match &mut self.state {
            State::PassThrough | State::Convert | State::Select => {}
            State::HotItems(windows, counts) => {
                while let Some((_, auctions)) = take_complete(counts, windows.size_ms(), now_ms) {
                    let most = auctions.values().copied().max().unwrap_or(0);
                    for (&auction, &num) in auctions.iter().filter(|(_, num)| **num == most) {
                        emit(RowView::Q5(AuctionCountRowView { auction, num }));
                    }
                }
            }
            State::HighestBids(highest) => {
                while let Some((_, best)) = take_complete(highest, Windows::TUMBLE_10S.size_ms(), now_ms) {
                    for row in &best {
                        emit(RowView::Q7(row.view()));
                    }
                }
            }
            State::NewSellers(registrations) => {
                while let Some((starttime, window)) =
                    take_complete(registrations, Windows::TUMBLE_10S.size_ms(), now_ms)
                {
                    for (id, name) in window.persons.iter().filter(|(id, _)| window.sellers.contains(id)) {
                        emit(RowView::Q8(NewSellerRowView { id: *id, name, starttime }));
                    }
                }
            }
        }
    }
}

/// The first window, if it ends at or before `now_ms`.
fn take_complete<W>(windows: &mut BTreeMap<i64, W>, size_ms: i64, now_ms: i64) -> Option<(i64, W)> {
    let first = windows.first_entry()?;
    (first.key().saturating_add(size_ms) <= now_ms).then(|| first.remove_entry())
}

/// The digest of a query's result over the first `events` events of a generator.
pub fn digest_generated(mut reference: Reference, generator: &Generator, events: u64) -> RowDigest {
    let mut digest = RowDigest::default();
    let mut scratch = EventScratch::new();
    for n in 0..events {
        reference.push(generator.event(n, &mut scratch), |row| digest.add(&row));
    }
    reference.finish(|row| digest.add(&row));
    digest
}

/// The digest of a query's result over events.
///
/// # Errors
/// The first error among the events.
pub fn digest_events<E>(
    mut reference: Reference,
    events: impl IntoIterator<Item = Result<Event, E>>,
) -> Result<RowDigest, E> {
    let mut digest = RowDigest::default();
    for event in events {
        reference.push(event?.view(), |row| digest.add(&row));
    }
    reference.finish(|row| digest.add(&row));
    Ok(digest)
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
