//! `word_count`: its last counts against those of a map.

#[path = "../../examples/word_count/job.rs"]
mod job;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::{Duration, Instant},
};

use thalweg::{model::config::RestoreFrom, prelude::*, runtime::StopMode};

use crate::{PARALLELISMS, environment};

fn counts(parallelism: u32, path: Option<PathBuf>) -> HashMap<String, u64> {
    let env = environment(parallelism);
    let (sink, out) = collect();
    job::build(&env, job::Lines::of(path), sink);
    env.execute().unwrap();
    let mut counts = HashMap::new();
    for (word, count) in out.take() {
        let before = counts.insert(word.clone(), count);
        assert_eq!(before.unwrap_or(0) + 1, count, "the counts of {word:?} come in order");
    }
    counts
}

#[test]
fn when_a_text_is_counted_then_each_word_counts() {
    for parallelism in PARALLELISMS {
        let counts = counts(parallelism, None);
        assert_eq!((counts["to"], counts["be"], counts["the"], counts["troubles"]), (4, 2, 3, 1));
        assert_eq!(counts.values().sum::<u64>(), 39);
    }
}

#[test]
fn when_a_file_is_counted_then_each_word_counts() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "Ein Wort, zwei Worte: das Wort. ".repeat(10_000)).unwrap();
    let counts = counts(2, Some(file.path().to_owned()));
    let expected = [("ein", 10_000), ("wort", 20_000), ("zwei", 10_000), ("worte", 10_000), ("das", 10_000)];
    assert_eq!(counts, HashMap::from(expected.map(|(word, count)| (word.to_owned(), count))));
}

#[test]
fn when_the_file_is_missing_then_the_error_names_operator_and_file() {
    let env = environment(1);
    job::build(&env, job::Lines::of(Some("no/such/text".into())), discard().0);
    let message = env.execute().unwrap_err().to_string();
    assert!(message.contains("Source: Lines") && message.contains("no/such/text"), "{message}");
}

#[test]
fn when_stopped_with_a_savepoint_and_started_again_then_each_word_counts_once() {
    const LINES: u64 = 100_000;
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    std::fs::write(&text, "ein wort\nzwei worte\n".repeat(LINES as usize)).unwrap();
    let start = |parallelism, from: Option<String>| {
        let env = environment(parallelism);
        env.checkpoint_config(|options| options.savepoint_dir = Some(dir.path().display().to_string()));
        env.recovery(|options| options.restore_from = from.map(RestoreFrom::Path));
        let (sink, out) = collect();
        job::build(&env, job::Lines::of(Some(text.clone())), sink);
        (env.execute_async().unwrap(), out)
    };
    let (running, first) = start(1, None);
    let began = Instant::now();
    // Until all tasks run none can be taken.
    let savepoint = loop {
        match running.stop_with_savepoint(None, StopMode::Suspend).wait() {
            Ok(savepoint) => break savepoint,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(60), "{error}"),
        }
    };
    running.wait().unwrap();
    let (running, second) = start(2, Some(savepoint.location));
    running.wait().unwrap();
    let (first, second) = (first.take(), second.take());
    assert!(!second.is_empty(), "stopped before the end");
    // Each count comes once: neither a word twice nor one left out.
    let mut counts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (word, count) in first.into_iter().chain(second) {
        counts.entry(word).or_default().push(count);
    }
    for word in ["ein", "wort", "zwei", "worte"] {
        assert!(counts.remove(word).unwrap().into_iter().eq(1..=LINES), "{word}");
    }
    assert!(counts.is_empty(), "{counts:?}");
}
