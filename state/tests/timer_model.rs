//! `TimerQueue` against an ordered set of the standard library.

use std::collections::BTreeSet;

use proptest::prelude::*;
use thalweg_model::{KeyHash, MaxParallelism, Record, record::key_hash};
use thalweg_state::{TableConfig, TimerQueue};

fn config() -> TableConfig {
    TableConfig { max_segment_rows: 8, ..TableConfig::whole(MaxParallelism::new(128).unwrap()) }
}

#[derive(Clone, Debug)]
enum Op {
    Register(u16, i64, i64),
    Delete(u16, i64, i64),
    Pop(i64),
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0u16..8;
    let namespace = || -2i64..3;
    let timestamp = || prop_oneof![8 => 0i64..40, 1 => Just(i64::MAX), 1 => Just(i64::MIN)];
    prop_oneof![
        50 => (key(), namespace(), timestamp()).prop_map(|(k, n, t)| Op::Register(k, n, t)),
        50 => (key(), namespace(), timestamp()).prop_map(|(k, n, t)| Op::Delete(k, n, t)),
        10 => (0i64..45).prop_map(Op::Pop),
        1 => Just(Op::Pop(i64::MAX)),
        1 => Just(Op::Clear),
    ]
}

fn run<K: Record + Ord + Clone + std::fmt::Debug>(ops: &[Op], modulo: u32, key: impl Fn(u16) -> K) {
    let mut queue = TimerQueue::<K>::new(config());
    let mut model: BTreeSet<(i64, i64, K)> = BTreeSet::new();
    let hash = |key: &K| KeyHash(key_hash::<K>(key.view()).0 % modulo);
    for op in ops {
        match op {
            Op::Register(k, n, t) => {
                let k = key(*k);
                assert_eq!(queue.register(hash(&k), k.view(), *n, *t), model.insert((*t, *n, k)));
            }
            Op::Delete(k, n, t) => {
                let k = key(*k);
                assert_eq!(queue.delete(hash(&k), k.view(), *n, *t), model.remove(&(*t, *n, k)));
            }
            Op::Pop(up_to) => {
                let mut last = i64::MIN;
                while let Some(timer) = queue.pop_due(*up_to) {
                    assert!(timer.timestamp >= last && timer.timestamp <= *up_to);
                    assert_eq!(timer.hash, hash(&timer.key));
                    last = timer.timestamp;
                    assert!(model.remove(&(timer.timestamp, timer.namespace, timer.key)));
                }
                assert!(model.first().is_none_or(|(timestamp, ..)| timestamp > up_to));
            }
            Op::Clear => {
                queue.clear();
                model.clear();
            }
        }
        assert_eq!((queue.len(), queue.is_empty()), (model.len(), model.is_empty()));
        if let Some((timestamp, ..)) = model.first() {
            assert!(queue.next().is_some_and(|next| next <= *timestamp));
        }
    }
    let mut seen = BTreeSet::new();
    queue.for_each(|timer| {
        let k = K::from_view(timer.key);
        assert_eq!(timer.hash, hash(&k));
        assert!(seen.insert((timer.timestamp, timer.namespace, k)));
    });
    assert_eq!(seen, model);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn when_timers_change_at_random_then_they_are_the_ordered_set(
        ops in prop::collection::vec(op(), 0..1500), modulo in prop_oneof![Just(1), Just(5), Just(u32::MAX)],
    ) {
        run::<u64>(&ops, modulo, |k| k as u64);
        run::<String>(&ops, modulo, |k| format!("a key that is not kept inline {k}"));
    }
}

#[test]
fn when_a_timer_is_deleted_and_registered_again_then_it_fires_once() {
    let mut queue = TimerQueue::<u64>::new(config());
    for _ in 0..1000 {
        assert!(queue.register(KeyHash(1), 1, 0, 100));
        assert!(!queue.register(KeyHash(1), 1, 0, 100));
        assert!(queue.delete(KeyHash(1), 1, 0, 100));
    }
    queue.register(KeyHash(1), 1, 0, 100);
    assert!(queue.memory_bytes() < 2048, "{}", queue.memory_bytes());
    assert_eq!(queue.pop_due(99), None);
    assert_eq!(queue.pop_due(100).map(|timer| (timer.key, timer.timestamp)), Some((1, 100)));
    assert_eq!(queue.pop_due(i64::MAX), None);
    assert_eq!(queue.next(), None);
}

#[test]
fn when_timeouts_are_pushed_back_for_long_then_memory_stays_bounded() {
    let mut queue = TimerQueue::<u64>::new(TableConfig::whole(MaxParallelism::new(128).unwrap()));
    let keys = 500u64;
    for step in 0..400_000u64 {
        let (key, now) = (step % keys, step as i64);
        let hash = key_hash::<u64>(key);
        // A timeout far ahead, so that none is ever due.
        queue.register(hash, key, 0, now + 1_000_000);
        if step >= keys {
            assert!(queue.delete(hash, key, 0, now - keys as i64 + 1_000_000));
        }
    }
    assert_eq!(queue.len(), 500);
    assert!(queue.memory_bytes() < 256 << 10, "{}", queue.memory_bytes());
}

#[test]
fn when_one_key_has_many_timers_then_each_operation_stays_fast() {
    let mut queue = TimerQueue::<u64>::new(TableConfig::whole(MaxParallelism::new(128).unwrap()));
    let start = std::time::Instant::now();
    for n in 0..100_000i64 {
        queue.register(KeyHash(7), 1, n % 3, (n * 7919) % 100_000);
    }
    let mut popped = 0;
    while queue.pop_due(i64::MAX).is_some() {
        popped += 1;
    }
    assert_eq!(popped, 100_000);
    // A scan of all timers for each would take minutes.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn when_a_callback_panics_then_the_timer_stays() {
    let mut queue = TimerQueue::<u64>::new(config());
    queue.register(KeyHash(7), 1, 0, 5);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        queue.pop_due_with(5, |_| panic!("a user's function"))
    }));
    assert!(panicked.is_err());
    assert_eq!(queue.pop_due_with(5, |timer| timer.key), Some(1));
    assert!(queue.is_empty());
}
