//! The borrowed form of events and rows: `Copy`, with native fields, as the engine's records have it.

use super::{
    model::{Auction, Bid, Event, Person},
    rows::{AuctionCountRow, AuctionPriceRow, BidRow, ConvertedBidRow, HighestBidRow, NewSellerRow},
};

/// Writes the view of a struct of numbers and strings, and the ways to it and back.
macro_rules! views {
    ($($owned:ident $view:ident { $($number:ident: $ty:ty),+; $($text:ident),+ })+) => {$(
        #[doc = concat!("The view of [`", stringify!($owned), "`].")]
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $view<'a> {
            $(#[doc = concat!("Field `", stringify!($number), "`.")] pub $number: $ty,)+
            $(#[doc = concat!("Field `", stringify!($text), "`.")] pub $text: &'a str,)+
        }

        impl $owned {
            /// The view of this value.
            #[inline]
            pub fn view(&self) -> $view<'_> {
                $view { $($number: self.$number,)+ $($text: &self.$text,)+ }
            }

            /// An owned value from a view. Allocates.
            pub fn from_view(view: $view<'_>) -> Self {
                Self { $($number: view.$number,)+ $($text: view.$text.to_owned(),)+ }
            }
        }
    )+};
    (numbers: $($owned:ident $view:ident { $($number:ident: $ty:ty),+ })+) => {$(
        #[doc = concat!("The view of [`", stringify!($owned), "`].")]
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $view {
            $(#[doc = concat!("Field `", stringify!($number), "`.")] pub $number: $ty,)+
        }

        impl $owned {
            /// The view of this value.
            #[inline]
            pub const fn view(&self) -> $view {
                $view { $($number: self.$number,)+ }
            }
        }
    )+};
}

views! {
    Person PersonView { id: u64, date_time: i64; name, email_address, credit_card, city, state, extra }
    Auction AuctionView {
        id: u64, initial_bid: u64, reserve: u64, date_time: i64, expires: i64, seller: u64, category: u64;
        item_name, description, extra
    }
    Bid BidView { auction: u64, bidder: u64, price: u64, date_time: i64; channel, url, extra }
    BidRow BidRowView { auction: u64, bidder: u64, price: u64, date_time: i64; extra }
    ConvertedBidRow ConvertedBidRowView { auction: u64, bidder: u64, price_thousandths: u64, date_time: i64; extra }
    HighestBidRow HighestBidRowView { auction: u64, price: u64, bidder: u64, date_time: i64; extra }
    NewSellerRow NewSellerRowView { id: u64, starttime: i64; name }
}

views! {
    numbers:
    AuctionPriceRow AuctionPriceRowView { auction: u64, price: u64 }
    AuctionCountRow AuctionCountRowView { auction: u64, num: u64 }
}

/// The view of [`Event`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EventView<'a> {
    /// A person registers.
    Person(PersonView<'a>),
    /// An auction opens.
    Auction(AuctionView<'a>),
    /// A bid is made.
    Bid(BidView<'a>),
}

impl Event {
    /// The view of this value.
    #[inline]
    pub fn view(&self) -> EventView<'_> {
        match self {
            Self::Person(person) => EventView::Person(person.view()),
            Self::Auction(auction) => EventView::Auction(auction.view()),
            Self::Bid(bid) => EventView::Bid(bid.view()),
        }
    }

    /// An owned value from a view. Allocates.
    pub fn from_view(view: EventView<'_>) -> Self {
        match view {
            EventView::Person(person) => Self::Person(Person::from_view(person)),
            EventView::Auction(auction) => Self::Auction(Auction::from_view(auction)),
            EventView::Bid(bid) => Self::Bid(Bid::from_view(bid)),
        }
    }
}
