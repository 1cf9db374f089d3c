//! Nexmark without the engine: events, queries, result rows, and the plain evaluation that results are checked against.
//!
//! Everything here is a pure function of its input. Nothing here may use the engine, or it would be no check of it.

pub mod channels;
pub mod digest;
pub mod generator;
pub mod json;
pub mod model;
pub mod ndjson;
pub mod price;
pub mod query;
pub mod reference;
pub mod rng;
pub mod rows;
pub mod scratch;
pub mod windows;

#[cfg(test)]
mod throughput;

pub use digest::{DigestRow, RowDigest, RowHasher};
pub use generator::Generator;
pub use json::WriteJson;
pub use model::{Auction, AuctionView, Bid, BidView, Event, EventView, Person, PersonView};
pub use ndjson::{EventReader, ReadError, generate_ndjson, parse_event};
pub use query::Query;
pub use reference::{InputOrder, Reference, digest_events, digest_generated};
pub use rows::RowView;
pub use scratch::EventScratch;
