//! Nexmark: events, queries, result rows, the plain evaluation that results are checked against, and the same on the engine.
//!
//! Only `check`, `queries`, `run`, `run_state`, `sink`, `sliding` and `source` use the engine. The rest are pure functions of their
//! input and must not (beyond the views of records), or they would be no check of it.

pub mod channels;
mod check;
pub mod digest;
pub mod generator;
pub mod json;
pub mod model;
pub mod ndjson;
mod outputs;
pub mod price;
pub mod queries;
pub mod query;
pub mod reference;
pub mod rng;
pub mod rows;
pub mod run;
pub mod run_state;
pub mod scratch;
pub mod sink;
pub mod sliding;
pub mod source;
pub mod windows;

pub use digest::{DigestRow, RowDigest, RowHasher};
pub use generator::Generator;
pub use json::WriteJson;
pub use model::{Auction, AuctionView, Bid, BidView, Event, EventView, Person, PersonView};
pub use ndjson::{EventReader, ReadError, generate_ndjson, parse_event};
pub use query::Query;
pub use reference::{InputOrder, Reference, digest_events, digest_generated};
pub use rows::RowView;
pub use scratch::EventScratch;
