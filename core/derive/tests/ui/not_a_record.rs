//! A field of a type that only the compiler can know not to be a record.

use thalweg_derive::Record;

struct Channel(String);

#[derive(Record)]
#[record(model = ::thalweg_model)]
struct Bid {
    auction: u64,
    channel: Channel,
}

#[derive(Record)]
#[record(model = ::thalweg_model)]
enum Event {
    Bid { channels: Vec<Channel> },
}

fn main() {}
