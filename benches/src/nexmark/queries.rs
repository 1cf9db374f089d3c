//! The queries as jobs on the engine.
//!
//! Each takes a stream of events with the times they were due and ends in a sink of the caller's choice. What a query
//! does not need is dropped before anything else, so that an exchange carries a few numbers and not events. Rows of q0,
//! q1 and q2 keep the due time of their event; rows of windows have none of their own (0), their timestamp is the last
//! millisecond of the window.

use std::{cmp::Ordering, num::NonZeroU32, time::Duration};

use thalweg::{
    fuse::Out,
    placed::Extend,
    prelude::{AggregateFunction, Count, Sink, SlidingEventTimeWindows, TumblingEventTimeWindows},
    stream::Stream,
};

use super::{
    BidView, Event, EventView,
    rows::{
        AuctionCountRow, AuctionCountRowView, AuctionPriceRow, AuctionPriceRowView, BidRow, BidRowView,
        ConvertedBidRow, ConvertedBidRowView, HighestBidRow, HighestBidRowView, NewSellerRow, NewSellerRowView,
    },
    source::Due,
};

const TEN_SECONDS: Duration = Duration::from_secs(10);
/// Of q1: dollars to euros, in thousandths.
const EXCHANGE_RATE_THOUSANDTHS: u128 = 908;

/// q0: all bids, passed through.
pub fn q0<P: Extend<Out = Due<Event>>>(events: Stream<Due<Event>, P>, sink: impl Sink<Due<BidRow>>) {
    events
        .map_to(|(due_ns, event), out: &mut Out<'_, Due<BidRow>>| {
            if let EventView::Bid(BidView { auction, bidder, price, date_time, extra, .. }) = event {
                out.push((due_ns, BidRowView { auction, bidder, price, date_time, extra }));
            }
        })
        .name("bids")
        .sink(sink);
}

/// q1: all bids, the price times 0.908.
pub fn q1<P: Extend<Out = Due<Event>>>(events: Stream<Due<Event>, P>, sink: impl Sink<Due<ConvertedBidRow>>) {
    events
        .map_to(|(due_ns, event), out: &mut Out<'_, Due<ConvertedBidRow>>| {
            if let EventView::Bid(BidView { auction, bidder, price, date_time, extra, .. }) = event {
                let price_thousandths = u128::from(price) * EXCHANGE_RATE_THOUSANDTHS;
                out.push((due_ns, ConvertedBidRowView { auction, bidder, price_thousandths, date_time, extra }));
            }
        })
        .name("converted bids")
        .sink(sink);
}

/// q2: auction and price of the bids whose auction is divisible by 123.
pub fn q2<P: Extend<Out = Due<Event>>>(events: Stream<Due<Event>, P>, sink: impl Sink<Due<AuctionPriceRow>>) {
    events
        .map_to(|(due_ns, event), out: &mut Out<'_, Due<AuctionPriceRow>>| {
            if let EventView::Bid(BidView { auction, price, .. }) = event
                && auction % 123 == 0
            {
                out.push((due_ns, AuctionPriceRowView { auction, price }));
            }
        })
        .name("selected bids")
        .sink(sink);
}

/// q5: per sliding window, the auctions with the most bids. The query proper has 10 s windows every 2 s.
pub fn q5<P: Extend<Out = Due<Event>>>(
    events: Stream<Due<Event>, P>,
    size_ms: NonZeroU32,
    slide_ms: NonZeroU32,
    sink: impl Sink<Due<AuctionCountRow>>,
) {
    let (size, slide) = (millis(size_ms), millis(slide_ms));
    // The counts of a window carry its last millisecond. These windows hold the counts of exactly one each.
    let same_window = TumblingEventTimeWindows::of(slide).with_offset(i64::from(size_ms.get() % slide_ms.get()));
    events
        .map_to(|(_, event), out: &mut Out<'_, u64>| {
            if let EventView::Bid(bid) = event {
                out.push(bid.auction);
            }
        })
        .name("auctions of bids")
        .key_by_view::<u64, _>(|auction| auction)
        .window(SlidingEventTimeWindows::of(size, slide))
        .aggregate(Count, |auction, _window, count| (auction, count))
        .name("bids per auction")
        .window_all(same_window)
        .aggregate(MostBids, |_window, most| most)
        .name("most bids")
        .map_to(|(num, auctions), out: &mut Out<'_, Due<AuctionCountRow>>| {
            for auction in auctions.iter() {
                out.push((0, AuctionCountRowView { auction, num }));
            }
        })
        .sink(sink);
}

/// q7: per tumbling window, the bids with the highest price.
pub fn q7<P: Extend<Out = Due<Event>>>(events: Stream<Due<Event>, P>, sink: impl Sink<Due<HighestBidRow>>) {
    events
        .map_to(|(_, event), out: &mut Out<'_, HighestBidRow>| {
            if let EventView::Bid(BidView { auction, bidder, price, date_time, extra, .. }) = event {
                out.push(HighestBidRowView { auction, price, bidder, date_time, extra });
            }
        })
        .name("bids")
        .window_all(TumblingEventTimeWindows::of(TEN_SECONDS))
        .aggregate(HighestBids, |_window, bids| bids)
        .name("highest bids")
        .map_to(|bids, out: &mut Out<'_, Due<HighestBidRow>>| {
            for bid in bids.iter() {
                out.push((0, bid));
            }
        })
        .sink(sink);
}

/// q8: per tumbling window, the persons who registered and opened an auction.
pub fn q8<P: Extend<Out = Due<Event>>>(events: Stream<Due<Event>, P>, sink: impl Sink<Due<NewSellerRow>>) {
    events
        .map_to(|(_, event), out: &mut Out<'_, Deed>| match event {
            EventView::Person(person) => out.push((person.id, Some(person.name))),
            EventView::Auction(auction) => out.push((auction.seller, None)),
            EventView::Bid(_) => {}
        })
        .name("persons and sellers")
        .key_by_view::<u64, _>(|(person, _)| person)
        .window(TumblingEventTimeWindows::of(TEN_SECONDS))
        .aggregate(NewSellers, |id, window, names| (id, window.start_ms, names))
        .name("new sellers")
        .map_to(|(id, starttime, names), out: &mut Out<'_, Due<NewSellerRow>>| {
            for name in names.iter() {
                out.push((0, NewSellerRowView { id, name, starttime }));
            }
        })
        .sink(sink);
}

fn millis(ms: NonZeroU32) -> Duration {
    Duration::from_millis(ms.get().into())
}

/// The largest count and the auctions that have it.
#[derive(Clone, Copy, Debug)]
struct MostBids;

impl AggregateFunction<(u64, u64)> for MostBids {
    type Acc = (u64, Vec<u64>);
    type Out = (u64, Vec<u64>);

    fn create(&self) -> Self::Acc {
        (0, Vec::new())
    }

    #[inline(always)]
    fn add(&self, most: &mut Self::Acc, (auction, count): (u64, u64)) {
        match count.cmp(&most.0) {
            Ordering::Less => {}
            Ordering::Equal => most.1.push(auction),
            Ordering::Greater => {
                most.0 = count;
                most.1.clear();
                most.1.push(auction);
            }
        }
    }

    fn merge(&self, most: &mut Self::Acc, other: &Self::Acc) {
        match other.0.cmp(&most.0) {
            Ordering::Less => {}
            Ordering::Equal => most.1.extend_from_slice(&other.1),
            Ordering::Greater => most.clone_from(other),
        }
    }

    fn result(&self, most: &Self::Acc) -> Self::Out {
        most.clone()
    }
}

/// The bids with the highest price.
#[derive(Clone, Copy, Debug)]
struct HighestBids;

impl AggregateFunction<HighestBidRow> for HighestBids {
    type Acc = Vec<HighestBidRow>;
    type Out = Vec<HighestBidRow>;

    fn create(&self) -> Self::Acc {
        Vec::new()
    }

    #[inline(always)]
    fn add(&self, highest: &mut Self::Acc, bid: HighestBidRowView<'_>) {
        match highest.first().map(|first| bid.price.cmp(&first.price)) {
            Some(Ordering::Less) => {}
            Some(Ordering::Equal) | None => highest.push(<HighestBidRow as thalweg::Record>::from_view(bid)),
            Some(Ordering::Greater) => {
                highest.clear();
                highest.push(<HighestBidRow as thalweg::Record>::from_view(bid));
            }
        }
    }

    fn merge(&self, highest: &mut Self::Acc, other: &Self::Acc) {
        other.iter().for_each(|bid| self.add(highest, thalweg::Record::view(bid)));
    }

    fn result(&self, highest: &Self::Acc) -> Self::Out {
        highest.clone()
    }
}

/// What q8 looks at: a person with the name given at registration, or without one as the seller in a new auction.
type Deed = (u64, Option<String>);

/// The names that a person registered with; none unless an auction was opened too.
#[derive(Clone, Copy, Debug)]
struct NewSellers;

impl AggregateFunction<Deed> for NewSellers {
    /// Whether an auction was opened, and the names, each once.
    type Acc = (bool, Vec<String>);
    type Out = Vec<String>;

    fn create(&self) -> Self::Acc {
        (false, Vec::new())
    }

    #[inline]
    fn add(&self, (sells, names): &mut Self::Acc, (_, name): (u64, Option<&str>)) {
        match name {
            None => *sells = true,
            Some(name) if names.iter().any(|known| known == name) => {}
            Some(name) => names.push(name.to_owned()),
        }
    }

    fn merge(&self, (sells, names): &mut Self::Acc, (other_sells, other_names): &Self::Acc) {
        *sells |= other_sells;
        for name in other_names {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }

    fn result(&self, (sells, names): &Self::Acc) -> Self::Out {
        if *sells { names.clone() } else { Vec::new() }
    }
}
