//! The shortest jobs, on real cores.

use std::time::Duration;

use thalweg::prelude::*;

#[derive(Record, Clone, Debug, PartialEq)]
struct Bid {
    auction: u64,
    price: u64,
    channel: String,
    ts: i64,
}

fn bid(n: u64) -> Bid {
    let channel = if n.is_multiple_of(2) { "Google" } else { "a channel with a long name" };
    Bid { auction: n % 7, price: n, channel: channel.to_owned(), ts: n as i64 * 10 }
}

#[test]
fn when_a_chain_runs_then_all_records_come_out() {
    let env = Environment::new();
    env.parallelism(1);
    let (sink, out) = collect();
    env.generate(10_000, bid).filter(|b| b.channel == "Google").map(|b| (b.auction, b.price * 89 / 100)).sink(sink);
    env.execute().unwrap();
    let out = out.take();
    assert_eq!(out.len(), 5_000);
    assert_eq!(out[1], (2, 2 * 89 / 100));
}

#[test]
fn when_keyed_then_windows_count_per_key() {
    for parallelism in [1, 2, 3] {
        let env = Environment::new();
        env.parallelism(parallelism).configure_runtime(|config| config.oversubscribe = true);
        let (sink, out) = collect();
        env.generate(10_000, bid)
            .assign_timestamps_and_watermarks(WatermarkStrategy::monotonous().with_timestamp(|b: BidView<'_>| b.ts))
            .key_by_view::<String, _>(|b| b.channel)
            .window(TumblingEventTimeWindows::of(Duration::from_secs(10)))
            .aggregate(Count, |channel, window, count| (channel.to_owned(), window.start_ms, count))
            .sink(sink);
        env.execute().unwrap();
        let mut out = out.take();
        out.sort();
        assert_eq!(out.len(), 20, "{out:?}");
        assert!(out.iter().all(|row| row.2 == 500), "{out:?}");
    }
}

#[test]
fn when_explained_then_the_graph_is_shown() {
    let env = Environment::new();
    env.parallelism(2);
    env.generate(10, |n| n).map(|n| n + 1).name("plus one").key_by(|n| n).reduce(|a, b| a + b).sink(print());
    let text = env.explain().unwrap();
    assert!(text.contains("Source: Generator -> plus one"), "{text}");
    assert!(text.contains("--HASH-->"), "{text}");
}
