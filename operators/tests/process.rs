//! Keyed functions with state and timers, connected streams, side outputs, unions: in simulation.

mod common;

use std::{collections::BTreeMap, time::Duration};

use common::{Random, run, tiny};
use thalweg::{prelude::*, runtime::SeededReactor};

/// Key, timestamp.
type Event = (String, i64);

/// Emits a key's record count when nothing has come for it for 100 ms of event time.
#[derive(Clone, Default)]
struct SessionCount {
    count: ValueState<u64>,
    deadline: ValueState<i64>,
}

impl KeyedProcessFunction<String, Event> for SessionCount {
    type Out = (String, u64, i64);

    fn open(&mut self, ctx: &mut StateContext<'_, String>) {
        self.count = ctx.value_state("count");
        self.deadline = ctx.value_state("deadline");
    }

    fn process<E: Emit<Self::Out>>(
        &mut self,
        value: (&str, i64),
        ctx: &mut KeyContext<'_, String>,
        _out: &mut Collector<'_, Self::Out, E>,
    ) {
        assert_eq!(ctx.key(), value.0);
        assert_eq!(ctx.timestamp(), Some(value.1));
        self.count.update(ctx, || 0, |count| *count += 1);
        if let Some(deadline) = self.deadline.value(ctx) {
            ctx.delete_event_time_timer(deadline);
        }
        self.deadline.set(ctx, value.1 + 100);
        ctx.register_event_time_timer(value.1 + 100);
    }

    fn on_timer<E: Emit<Self::Out>>(
        &mut self,
        timestamp: i64,
        domain: TimeDomain,
        ctx: &mut KeyContext<'_, String>,
        out: &mut Collector<'_, Self::Out, E>,
    ) {
        assert_eq!(domain, TimeDomain::EventTime);
        let count = self.count.value(ctx).expect("a timer follows a record");
        let key = ctx.key();
        out.collect((key, count, timestamp));
        self.count.clear(ctx);
        self.deadline.clear(ctx);
    }
}

/// What happens record by record: a timer fires when the watermark, the timestamp of the record before, has reached it.
fn sessions(events: &[Event]) -> Vec<(String, u64, i64)> {
    let mut open: BTreeMap<&str, (u64, i64)> = BTreeMap::new();
    let mut rows = Vec::new();
    let mut close = |open: &mut BTreeMap<&str, (u64, i64)>, watermark: i64| {
        open.retain(|key, (count, last)| {
            let over = *last + 100 <= watermark;
            if over {
                rows.push(((*key).to_owned(), *count, *last + 100));
            }
            !over
        });
    };
    for (key, timestamp) in events {
        let (count, last) = open.entry(key).or_insert((0, 0));
        (*count, *last) = (*count + 1, *timestamp);
        close(&mut open, *timestamp);
    }
    close(&mut open, i64::MAX);
    rows.sort();
    rows
}

/// Watermark after every record: timers fire exactly where they would record by record.
struct EveryRecord;

impl WatermarkGenerator for EveryRecord {
    fn on_event(&mut self, timestamp: i64) -> Option<i64> {
        Some(timestamp)
    }
    fn on_periodic(&mut self) -> Option<i64> {
        None
    }
}

#[test]
fn when_a_key_is_quiet_then_its_timer_fires_once_with_its_state() {
    for seed in 0..30 {
        let mut random = Random::new(seed);
        let mut now_ms = 0;
        let input: Vec<Event> = (0..400)
            .map(|_| {
                now_ms += 1 + random.below(20) as i64;
                (format!("key {:>1$}", random.below(5), 1 + random.below(40) as usize % 2 * 30), now_ms)
            })
            .collect();
        let wanted = sessions(&input);
        let env = tiny(1 + (seed % 3) as u32);
        let (sink, out) = collect();
        env.from_iter(input)
            .assign_timestamps_and_watermarks(
                WatermarkStrategy::generator(|| EveryRecord).with_timestamp(|event: (&str, i64)| event.1),
            )
            .parallelism(1)
            .key_by_view::<String, _>(|event| event.0)
            .process(SessionCount::default())
            .sink(sink);
        run(&env, seed);
        let mut rows = out.take();
        rows.sort();
        assert_eq!(rows, wanted, "seed {seed}");
    }
}

/// Joins orders with payments by id, whichever comes first; what never matches goes to a side output at the end.
#[derive(Clone)]
struct Join {
    orders: MapState<u64, String>,
    payments: ListState<u64>,
    unmatched: OutputTag<u64>,
}

impl KeyedCoProcessFunction<u64, (u64, String), (u64, u64)> for Join {
    type Out = (u64, String, u64);

    fn open(&mut self, ctx: &mut StateContext<'_, u64>) {
        self.orders = ctx.map_state("orders");
        self.payments = ctx.list_state("payments");
    }
    fn process1<E: Emit<Self::Out>>(
        &mut self,
        order: (u64, &str),
        ctx: &mut KeyContext<'_, u64>,
        out: &mut Collector<'_, Self::Out, E>,
    ) {
        self.orders.put(ctx, order.0, order.1);
        for amount in self.payments.get(ctx) {
            out.collect((order.0, order.1, amount));
        }
        self.payments.clear(ctx);
    }
    fn process2<E: Emit<Self::Out>>(
        &mut self,
        payment: (u64, u64),
        ctx: &mut KeyContext<'_, u64>,
        out: &mut Collector<'_, Self::Out, E>,
    ) {
        match self.orders.get(ctx, payment.0) {
            Some(name) => out.collect((payment.0, name, payment.1)),
            None => {
                self.payments.add(ctx, payment.1);
                out.side_output(&self.unmatched, payment.0);
            }
        }
    }
}

#[test]
fn when_two_keyed_streams_connect_then_state_joins_them_in_any_order() {
    for seed in 0..20 {
        let env = tiny(1 + (seed % 3) as u32);
        let orders = env.from_iter((0..200u64).map(|id| (id, format!("order {id}"))));
        let payments = env.from_iter((0..300u64).map(|n| (n % 210, n)));
        let tag = OutputTag::new("unmatched");
        let join = Join { orders: MapState::default(), payments: ListState::default(), unmatched: tag.clone() };
        let joined = orders.key_by(|order| order.0).connect(payments.key_by(|payment| payment.0)).process(join);
        let (early, early_out) = collect();
        joined.side_output(&tag).sink(early);
        let (sink, out) = collect();
        joined.sink(sink);
        run(&env, seed);
        let mut rows = out.take();
        rows.sort();
        let mut wanted: Vec<_> =
            (0..300u64).filter(|n| n % 210 < 200).map(|n| (n % 210, format!("order {}", n % 210), n)).collect();
        wanted.sort();
        assert_eq!(rows, wanted, "seed {seed}");
        assert!(early_out.take().iter().filter(|id| **id >= 200).count() == 10, "seed {seed}");
    }
}

#[test]
fn when_streams_unite_then_every_record_arrives_once_through_every_exchange() {
    for seed in 0..20 {
        let env = tiny(2);
        let numbers = env.generate(500, |n| n).shared();
        let even = numbers.stream().filter(|n| n % 2 == 0).rebalance().map(|n| n);
        let odd = numbers.stream().filter(|n| n % 2 == 1).shuffle().flat_map(|n| [n, n]).parallelism(3);
        let (sink, out) = collect();
        even.union(odd).rescale().partition_custom(|n| n as u32).inspect(|_| ()).start_new_chain().sink(sink);
        run(&env, seed);
        let mut rows = out.take();
        rows.sort();
        let mut wanted: Vec<u64> = (0..500).flat_map(|n| std::iter::repeat_n(n, 1 + n as usize % 2)).collect();
        wanted.sort();
        assert_eq!(rows, wanted, "seed {seed}");
    }
}

#[test]
fn when_streams_of_different_parallelism_unite_before_a_key_then_each_senders_order_is_kept() {
    for seed in 0..20 {
        let env = tiny(3);
        let numbered = |from: u64| move |n: u64| (n % 5, from, n);
        let one = env.generate(200, |n| n).parallelism(1).map(numbered(1)).parallelism(1);
        let many = env.generate(600, |n| n).parallelism(3).map(numbered(3)).parallelism(3);
        let (sink, out) = collect();
        one.union(many).key_by(|record| record.0).reduce(|_, b| b).sink(sink);
        run(&env, seed);
        let mut last = std::collections::HashMap::new();
        let rows = out.take();
        assert_eq!(rows.len(), 800, "seed {seed}");
        for (key, from, n) in rows {
            // Subtask i of a generator makes the numbers of remainder i.
            let before = last.insert((key, from, n % from), n);
            assert!(before.is_none_or(|before| before < n), "seed {seed}: key {key}, {n} after {before:?}");
        }
    }
}

#[test]
fn when_a_record_is_larger_than_a_buffer_then_it_arrives_whole() {
    let env = tiny(2);
    let (sink, out) = collect();
    env.generate(50, |n| (n, "x".repeat(n as usize * 100)))
        .key_by(|record| record.0)
        .reduce(|a, _| (a.0, a.1.to_owned()))
        .sink(sink);
    run(&env, 7);
    let mut rows = out.take();
    rows.sort();
    assert!(rows.iter().enumerate().all(|(n, row)| *row == (n as u64, "x".repeat(n * 100))));
    assert_eq!(rows.len(), 50);
}

#[test]
fn when_a_record_is_larger_than_the_limit_then_the_error_says_so() {
    let env = tiny(2);
    env.configure_runtime(|config| config.max_record_bytes = 1000);
    env.generate(50, |n| (n, "x".repeat(n as usize * 100))).rebalance().sink(discard().0);
    let error = env.execute_on(&SeededReactor::new(1)).unwrap_err().to_string();
    assert!(error.contains("Generator") && error.contains("1000"), "{error}");
}

/// Wakes up by the wall clock.
#[derive(Clone)]
struct Alarm;

impl KeyedProcessFunction<u64, u64> for Alarm {
    type Out = (u64, i64);

    fn process<E: Emit<Self::Out>>(
        &mut self,
        value: u64,
        ctx: &mut KeyContext<'_, u64>,
        _: &mut Collector<'_, (u64, i64), E>,
    ) {
        let now_ms = ctx.current_processing_time();
        ctx.register_processing_time_timer(now_ms + 50 + value as i64);
    }
    fn on_timer<E: Emit<Self::Out>>(
        &mut self,
        timestamp: i64,
        domain: TimeDomain,
        ctx: &mut KeyContext<'_, u64>,
        out: &mut Collector<'_, (u64, i64), E>,
    ) {
        assert_eq!(domain, TimeDomain::ProcessingTime);
        assert!(ctx.current_processing_time() > timestamp);
        out.collect((ctx.key(), timestamp));
    }
}

#[test]
fn when_the_wall_clock_passes_then_processing_time_timers_fire() {
    for seed in 0..5 {
        let env = tiny(2);
        let (sink, out) = collect();
        env.generate_at_rate(100, 100.0, |n| n).key_by(|n| n % 3).process(Alarm).sink(sink);
        run(&env, seed);
        let fired = out.take();
        assert!(fired.len() > 50, "one record each 10 ms for a second, timers after 50 to 150 ms: {}", fired.len());
    }
}

#[test]
fn when_a_handle_feeds_a_job_then_a_full_result_queue_holds_it_back_without_loss() {
    let env = Environment::new();
    env.parallelism(1).auto_watermark_interval(Duration::from_millis(10));
    let (handle, events) = env.from_handle::<u64>(4);
    let (sink, replies) = results(2);
    events.map(|n| n * 2).sink(sink);
    let job = env.execute_async().unwrap();
    let feeder = std::thread::spawn(move || (0..2_000).for_each(|n| assert_eq!(handle.push(n).unwrap(), n)));
    let mut seen = Vec::new();
    for reply in &replies {
        seen.push(reply);
        if seen.len() % 500 == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    feeder.join().unwrap();
    job.wait().unwrap();
    assert_eq!(seen, (0..2_000).map(|n| n * 2).collect::<Vec<_>>());
}
