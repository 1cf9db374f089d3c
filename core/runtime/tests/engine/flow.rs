//! Records from sources to sinks: every partitioner, chains, unions, ends, with boundaries everywhere.

use std::collections::{BTreeMap, BTreeSet};

use thalweg_model::{Elem, KeyHash, MaxParallelism, time::MAX_WATERMARK};
use thalweg_runtime::*;

use crate::common::*;

fn count_job(config: RuntimeConfig, log: &Log, records: u64, parallelism: u32) -> Job {
    let mut job = Job::new(config);
    let source = job.task("numbers", parallelism, 0, boxed(move || Numbers::new(records, 17)));
    let pass = job.chain("pass", 1, boxed(|| Pass));
    let count = job.task("count", parallelism, 1, boxed(Count::default));
    let sink = job.task("sink", 1, 1, log.sink());
    job.edge(source, pass, Partitioner::Forward);
    job.edge(pass, count, hash());
    job.edge(count, sink, Partitioner::Global);
    job
}

fn expected_counts(records: u64) -> Vec<Pair> {
    let mut counts = BTreeMap::new();
    (0..records).for_each(|i| *counts.entry(i % 17).or_insert(0) += 1);
    counts.into_iter().collect()
}

#[test]
fn when_keys_are_counted_in_simulation_then_counts_are_right_for_every_seed() {
    for seed in seeds(60) {
        let log = Log::default();
        let page_bytes = [64, 128, 192, 256][seed as usize % 4];
        let mut job = count_job(small_config(page_bytes), &log, 500, 1 + seed as u32 % 4);
        let timeouts = [BufferTimeout::PerRecord, BufferTimeout::Millis(1), BufferTimeout::WhenFull];
        job.plan.edges.iter_mut().for_each(|edge| edge.buffer_timeout = timeouts[seed as usize % 3]);
        let report = job.run(&SeededReactor::new(seed)).unwrap();
        assert_eq!(log.sorted_pairs(), expected_counts(500), "seed {seed}");
        assert_eq!(report.pages_outstanding, 0);
    }
}

#[test]
fn when_the_seed_is_the_same_then_the_run_is_the_same() {
    let run = || {
        let log = Log::default();
        count_job(small_config(128), &log, 300, 3).run(&SeededReactor::new(5)).unwrap();
        log.take()
    };
    assert_eq!(run(), run());
}

#[test]
fn when_keys_are_counted_on_threads_then_counts_are_right() {
    for (page_bytes, parallelism) in [(64, 2), (256, 3), (32 << 10, 2), (32 << 10, 1)] {
        let log = Log::default();
        let job = count_job(small_config(page_bytes), &log, 20_000, parallelism);
        let reactor = GlommioReactor::new(&job.plan.config);
        let report = job.run(&reactor).unwrap();
        assert_eq!(log.sorted_pairs(), expected_counts(20_000));
        assert!(report.slots.iter().all(|slot| slot.pages_outstanding == 0));
    }
}

#[test]
fn when_it_ends_then_each_sink_sees_the_end_once_and_in_order() {
    for seed in seeds(20) {
        let log = Log::default();
        let mut job = Job::new(small_config(128));
        let source = job.task("numbers", 3, 0, boxed(|| Numbers::new(100, 5)));
        let sink = job.task("sink", 2, 1, log.sink());
        job.edge(source, sink, Partitioner::Rebalance);
        job.run(&SeededReactor::new(seed)).unwrap();
        let seen = log.take();
        for subtask in 0..2 {
            let of = |s: &&Seen| match **s {
                Seen::Record { subtask: t, .. }
                | Seen::Watermark { subtask: t, .. }
                | Seen::Idle { subtask: t, .. } => t == subtask,
                Seen::EndInput { subtask: t, .. } | Seen::Finish { subtask: t } | Seen::Close { subtask: t } => {
                    t == subtask
                }
            };
            let mine: Vec<&Seen> = seen.iter().filter(of).collect();
            let expected = [
                Seen::EndInput { subtask, input: 0 },
                Seen::Watermark { subtask, watermark: MAX_WATERMARK },
                Seen::Finish { subtask },
                Seen::Close { subtask },
            ];
            let tail: Vec<&Seen> = expected.iter().collect();
            assert_eq!(mine[mine.len() - 4..], tail, "seed {seed}");
            let marks = mine
                .iter()
                .filter_map(|s| if let Seen::Watermark { watermark, .. } = s { Some(*watermark) } else { None });
            let marks: Vec<i64> = marks.collect();
            assert!(marks.windows(2).all(|w| w[0] < w[1]), "rising: {marks:?}");
        }
    }
}

#[test]
fn when_a_record_is_behind_a_watermark_then_it_arrives_behind_it() {
    // One source, so that a watermark w is only passed on when everything up to it has gone ahead.
    for seed in seeds(20) {
        let log = Log::default();
        let mut job = Job::new(small_config(64));
        let source = job.task("numbers", 2, 0, boxed(|| Numbers::new(200, 9)));
        let pass = job.task("pass", 3, 1, boxed(|| Pass));
        let sink = job.task("sink", 1, 1, log.sink());
        job.edge(source, pass, hash());
        job.edge(pass, sink, Partitioner::Global);
        job.run(&SeededReactor::new(seed)).unwrap();
        let mut current = i64::MIN;
        for seen in log.take() {
            match seen {
                Seen::Watermark { watermark, .. } => current = watermark,
                Seen::Record { timestamp, .. } => {
                    assert!(timestamp > current, "{timestamp} is late for {current}, seed {seed}")
                }
                _ => {}
            }
        }
    }
}

#[test]
fn when_rebalanced_then_records_go_round() {
    let log = Log::default();
    let mut job = Job::new(small_config(128));
    let source = job.task("numbers", 1, 0, boxed(|| Numbers::new(12, 12)));
    let sink = job.task("sink", 3, 1, log.sink());
    job.edge(source, sink, Partitioner::Rebalance);
    job.run(&SeededReactor::new(1)).unwrap();
    for seen in log.take() {
        if let Seen::Record { subtask, pair, .. } = seen {
            assert_eq!(u64::from(subtask), pair.1 % 3);
        }
    }
}

fn subtasks_by(partitioner: Partitioner, from: u32, to: u32, seed: u64) -> Vec<(u32, Pair)> {
    let log = Log::default();
    let mut job = Job::new(small_config(128));
    let source = job.task("numbers", from, 0, boxed(|| Numbers::new(120, 12)));
    let sink = job.task("sink", to, 1, log.sink());
    job.edge(source, sink, partitioner);
    job.run(&SeededReactor::new(seed)).unwrap();
    let record = |s| if let Seen::Record { subtask, pair, .. } = s { Some((subtask, pair)) } else { None };
    log.take().into_iter().filter_map(record).collect()
}

#[test]
fn when_partitioned_any_way_then_everything_arrives_where_it_should() {
    for seed in seeds(8) {
        let all: Vec<u64> = (0..120).collect();
        let numbers = |seen: &[(u32, Pair)]| {
            let mut numbers: Vec<u64> = seen.iter().map(|(_, pair)| pair.1).collect();
            numbers.sort();
            numbers
        };
        let seen = subtasks_by(Partitioner::Broadcast, 2, 3, seed);
        for subtask in 0..3 {
            let mine: Vec<_> = seen.iter().filter(|(s, _)| *s == subtask).copied().collect();
            assert_eq!(numbers(&mine), all);
        }
        let seen = subtasks_by(Partitioner::Global, 3, 2, seed);
        assert_eq!(numbers(&seen), all);
        assert!(seen.iter().all(|(subtask, _)| *subtask == 0));
        let seen = subtasks_by(Partitioner::Forward, 3, 3, seed);
        assert_eq!(numbers(&seen), all);
        assert!(seen.iter().all(|(subtask, pair)| u64::from(*subtask) == pair.1 % 3));
        let seen = subtasks_by(Partitioner::Shuffle { seed }, 1, 4, seed);
        assert_eq!(numbers(&seen), all);
        assert_eq!(seen.iter().map(|(s, _)| s).collect::<BTreeSet<_>>().len(), 4);
        let seen = subtasks_by(hash(), 2, 4, seed);
        assert_eq!(numbers(&seen), all);
        let m = MaxParallelism::new(128).unwrap();
        assert!(seen.iter().all(|(subtask, pair)| {
            m.subtask_of(m.key_group(thalweg_model::record::key_hash::<u64>(pair.0)), 4) == *subtask
        }));
        for (from, to) in [(1, 4), (2, 4), (3, 4), (4, 4), (4, 3), (4, 2), (4, 1)] {
            assert_eq!(numbers(&subtasks_by(Partitioner::Rescale, from, to, seed)), all, "{from} to {to}");
        }
    }
}

#[test]
fn when_the_partitioner_is_custom_then_the_segment_chooses() {
    let log = Log::default();
    let mut job = Job::new(small_config(128));
    let mut next = 0;
    let source = FnSource(move |_, out: &mut Outputs| {
        if next == 30 {
            return Ok(SourceStatus::Ended);
        }
        out.write::<Pair>(0, Elem::new((next, 0), 0), KeyHash(next as u32));
        next += 1;
        Ok(SourceStatus::More)
    });
    let source = std::sync::Mutex::new(Some(source));
    let source =
        job.task("numbers", 1, 0, std::sync::Arc::new(move || Box::new(source.lock().unwrap().take().unwrap())));
    let sink = job.task("sink", 3, 1, log.sink());
    job.edge(source, sink, Partitioner::Custom);
    job.run(&SeededReactor::new(3)).unwrap();
    let seen = log.take();
    assert_eq!(seen.iter().filter(|s| matches!(s, Seen::Record { .. })).count(), 30);
    assert!(seen.iter().all(|s| !matches!(s, Seen::Record { subtask, pair, .. } if pair.0 % 3 != u64::from(*subtask))));
}

#[test]
fn when_inputs_are_united_or_joined_then_each_record_names_its_input() {
    for seed in seeds(12) {
        let log = Log::default();
        let mut job = Job::new(small_config(128));
        let a = job.task("a", 2, 0, boxed(|| Numbers::new(50, 50)));
        let b = job.task("b", 1, 0, boxed(|| Numbers::new(40, 40)));
        let c = job.task("c", 1, 0, boxed(|| Numbers::new(30, 30)));
        let sink = job.task("sink", 2, 2, log.sink());
        job.edge(a, sink, hash());
        job.edge(b, sink, hash());
        job.edge(c, sink, Partitioner::Broadcast).to_input = 1;
        job.run(&SeededReactor::new(seed)).unwrap();
        let seen = log.take();
        let count =
            |wanted: usize| seen.iter().filter(|s| matches!(s, Seen::Record { input, .. } if *input == wanted)).count();
        assert_eq!((count(0), count(1)), (90, 60));
        let ends = seen.iter().filter(|s| matches!(s, Seen::EndInput { .. })).count();
        assert_eq!(ends, 4);
    }
}

#[test]
fn when_a_port_has_two_edges_and_another_port_one_then_all_get_their_records() {
    let (main_a, main_b, side) = (Log::default(), Log::default(), Log::default());
    let mut job = Job::new(small_config(128));
    let source = job.task("numbers", 1, 0, boxed(|| Numbers::new(60, 60)));
    let split = job.chain(
        "split",
        1,
        boxed(|| FnEach(|out: &mut Outputs, e: Elem<'_, Pair>, h| out.write::<Pair>((e.view.1 % 2) as usize, e, h))),
    );
    let a = job.task("a", 1, 1, main_a.sink());
    let b = job.task("b", 2, 1, main_b.sink());
    let s = job.task("s", 1, 1, side.sink());
    job.edge(source, split, Partitioner::Forward);
    job.edge(split, a, Partitioner::Forward);
    job.edge(split, b, Partitioner::Rebalance);
    job.edge(split, s, Partitioner::Forward).from_port = 1;
    job.run(&SeededReactor::new(9)).unwrap();
    let evens: Vec<Pair> = (0..60).filter(|i| i % 2 == 0).map(|i| (i, i)).collect();
    let odds: Vec<Pair> = (0..60).filter(|i| i % 2 == 1).map(|i| (i, i)).collect();
    assert_eq!((main_a.pairs(), main_b.sorted_pairs(), side.pairs()), (evens.clone(), evens, odds));
}

#[test]
fn when_the_plan_contradicts_itself_then_the_error_says_where() {
    let message = |change: fn(&mut Job)| {
        let mut job = count_job(small_config(128), &Log::default(), 1, 2);
        change(&mut job);
        job.run(&SeededReactor::new(0)).unwrap_err().to_string()
    };
    assert!(message(|job| job.plan.config.page_bytes = 100).contains("multiple of 64"));
    assert!(message(|job| job.plan.edges[2].partitioner = Partitioner::Forward).contains("forward edge"));
    assert!(message(|job| job.plan.edges[1].to_segment = 99).contains("99"));
    assert!(message(|job| job.plan.edges.truncate(2)).contains("nothing is connected to input 0 of sink"));
    assert!(message(|job| job.plan.tasks[0].slot_of[1] = 7).contains("slot 7"));
    assert!(
        message(|job| job.plan.tasks[0].segments[0].max_parallelism = MaxParallelism::new(1).unwrap())
            .contains("max-parallelism")
    );
}
