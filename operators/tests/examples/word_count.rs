//! `word_count`: its last counts against those of a map.

#[path = "../../examples/word_count/job.rs"]
mod job;

use std::{collections::HashMap, path::PathBuf};

use thalweg::prelude::*;

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
