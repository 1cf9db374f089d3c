//! How fast Nexmark's events are made, written, read and evaluated, without the engine: what its sources and checks cost.
//!
//! `cargo run --release -p thalweg-benches --example nexmark_speed`

use std::{hint::black_box, io, time::Instant};

use thalweg_benches::nexmark::*;

fn report(what: &str, events: u64, run: impl Fn()) {
    let mut rates: Vec<f64> = (0..5)
        .map(|_| {
            let start = Instant::now();
            run();
            events as f64 / start.elapsed().as_secs_f64() / 1e6
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    println!("{what:28} {:7.2} M events/s (of five: {:.2} to {:.2})", rates[2], rates[0], rates[4]);
}

fn main() {
    const EVENTS: u64 = 2_000_000;
    let start = Instant::now();
    let generator = Generator::new(1);
    println!("generator made in {:?}", start.elapsed());
    report("generate", EVENTS, || {
        let mut scratch = EventScratch::new();
        for n in 0..EVENTS {
            black_box(generator.event(n, &mut scratch));
        }
    });
    report("write NDJSON", EVENTS, || {
        black_box(generate_ndjson(&generator, EVENTS, &mut io::sink()).unwrap());
    });
    let mut text = Vec::new();
    generate_ndjson(&generator, EVENTS / 10, &mut text).unwrap();
    println!("{} bytes an event as NDJSON", text.len() as u64 / (EVENTS / 10));
    report("read NDJSON", EVENTS / 10, || {
        assert_eq!(EventReader::new(&text[..]).filter(Result::is_ok).count() as u64, EVENTS / 10);
    });
    for query in Query::ALL {
        report(&format!("reference {query}, generated"), EVENTS, || {
            black_box(digest_generated(Reference::new(query, InputOrder::Ascending), &generator, EVENTS));
        });
    }
}
