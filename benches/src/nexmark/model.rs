//! The three kinds of Nexmark events, with the field names of the reference as their JSON form.

use serde::{Deserialize, Serialize};
use thalweg::Record;

/// Someone who sells or bids.
#[derive(Record, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// Identity: 1000 and up.
    pub id: u64,
    /// First and last name.
    pub name: String,
    /// `local@domain.com`.
    pub email_address: String,
    /// Four groups of four digits.
    pub credit_card: String,
    /// One of ten cities.
    pub city: String,
    /// One of six states; not that of the city.
    pub state: String,
    /// When the person registered, event time in milliseconds.
    pub date_time: i64,
    /// Padding to about 200 bytes.
    pub extra: String,
}

/// An item put up for sale.
#[derive(Record, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Auction {
    /// Identity: 1000 and up.
    pub id: u64,
    /// What is sold.
    pub item_name: String,
    /// More about it.
    pub description: String,
    /// The lowest first bid, in cents.
    pub initial_bid: u64,
    /// The lowest price it goes for, in cents.
    pub reserve: u64,
    /// When the auction opened, event time in milliseconds.
    pub date_time: i64,
    /// When it closes, event time in milliseconds.
    pub expires: i64,
    /// The person who sells.
    pub seller: u64,
    /// One of five categories, from 10.
    pub category: u64,
    /// Padding to about 500 bytes.
    pub extra: String,
}

/// A price offered in an auction.
#[derive(Record, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bid {
    /// The auction.
    pub auction: u64,
    /// Who bids. As in the source of Nexmark, 1000 above the ids of persons.
    pub bidder: u64,
    /// The price, in cents.
    pub price: u64,
    /// Where the bid came from.
    pub channel: String,
    /// The page it came from.
    pub url: String,
    /// When, event time in milliseconds.
    pub date_time: i64,
    /// Padding to about 100 bytes.
    pub extra: String,
}

/// Any event of the stream.
#[derive(Record, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A person registers.
    Person(Person),
    /// An auction opens.
    Auction(Auction),
    /// A bid is made.
    Bid(Bid),
}

impl EventView<'_> {
    /// Event time in milliseconds.
    #[inline]
    pub const fn timestamp_ms(&self) -> i64 {
        match self {
            EventView::Person(person) => person.date_time,
            EventView::Auction(auction) => auction.date_time,
            EventView::Bid(bid) => bid.date_time,
        }
    }
}
