//! Fields that the macro knows not to be records.

use std::{collections::HashMap, sync::Arc, time::Duration};

use thalweg_derive::Record;

#[derive(Record)]
#[record(model = ::thalweg_model)]
struct Bid {
    auction: usize,
    channel: &'static str,
    prices: [u64; 4],
    extra: Option<Vec<HashMap<String, u64>>>,
    shared: Arc<Vec<u8>>,
    handler: Box<dyn Fn()>,
    callback: fn(u64) -> u64,
    took: Duration,
    next: Vec<Bid>,
    ok: u64,
}

#[derive(Record)]
#[record(model = ::thalweg_model)]
enum Event {
    Pair(u64, *const u8),
    At { when: std::time::Instant },
}

fn main() {}
