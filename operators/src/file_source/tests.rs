//! File sources cut anywhere and restored at any parallelism.

use std::{fs, path::Path};

use proptest::prelude::*;
use thalweg_io::connect::{CsvFormat, NdjsonFormat, OnBadRecord};
use thalweg_runtime::SourceStatus;

use super::*;
use crate::testing::{Emitted, checkpoint, restored, snapshot};

type Row = (u64, String);

/// Runs a job of some parallelisms one after the other, each cut after so many polls of each subtask, and the last to its
/// end. Every subtask's state goes through a checkpoint.
fn run<Fmt: FileFormat<Item = Row, Reader: Send>>(
    format: &Fmt,
    paths: &[PathBuf],
    split_bytes: u64,
    attempts: &[(u32, Vec<usize>)],
) -> (Vec<Row>, u64) {
    let timestamp: fn((u64, &str)) -> i64 = |row| row.0 as i64;
    let strategy = WatermarkStrategy::<()>::monotonous().with_timestamp(timestamp);
    let mut emitted = Emitted::new();
    let mut cut: Option<Arc<_>> = None;
    let mut skipped = 0;
    for (number, (parallelism, polls)) in attempts.iter().enumerate() {
        let source = FileSource::new(format.clone(), paths).split_bytes(split_bytes).watermarks(strategy.clone());
        let (source, progress) = source.into_source().unwrap();
        let mut states = Vec::new();
        skipped = 0;
        for subtask in 0..*parallelism {
            let mut source = source.clone();
            source.assign(subtask, *parallelism);
            if let Some(cut) = &cut {
                source.restore(&restored(cut, subtask, *parallelism)).unwrap();
            }
            let is_last = number + 1 == attempts.len();
            let most = if is_last { usize::MAX } else { polls[subtask as usize % polls.len()] };
            let mut is_ended = false;
            for poll in 0..most {
                // Budgets of one to three records, so that cuts fall anywhere.
                if source.poll(1 + poll % 3, &mut emitted).unwrap() == SourceStatus::Ended {
                    is_ended = true;
                    break;
                }
            }
            skipped += source.skipped + source.active.iter().map(Active::skipped).sum::<u64>();
            let state = snapshot(number as u64 + 1, |snapshot| source.snapshot(snapshot)).unwrap();
            states.push(if is_ended { Vec::new() } else { state });
        }
        assert!(progress.done_bytes() <= progress.total_bytes(), "{progress:?}");
        if number + 1 == attempts.len() {
            assert_eq!(progress.done_bytes(), progress.total_bytes());
        }
        cut = Some(checkpoint(number as u64 + 1, states));
    }
    emitted.records.sort();
    (emitted.records, skipped)
}

fn write_files(dir: &Path, counts: &[usize], csv: bool) -> (Vec<PathBuf>, Vec<Row>) {
    let mut rows = Vec::new();
    let write = |(file, &count): (usize, &usize)| {
        let mut text = if csv { "id,name\n".to_owned() } else { String::new() };
        for at in 0..count {
            let row = (file as u64 * 1_000 + at as u64, "x".repeat(at * 7 % 23));
            text += &match csv {
                true => format!("{},{}\n", row.0, row.1),
                false => format!("[{},\"{}\"]\n", row.0, row.1),
            };
            rows.push(row);
        }
        let path = dir.join(format!("{file}.txt"));
        fs::write(&path, text).unwrap();
        path
    };
    (counts.iter().enumerate().map(write).collect(), rows)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn when_files_are_cut_anywhere_then_every_record_is_read_once_at_any_parallelism(
        counts in prop::collection::vec(0usize..30, 1..4),
        split_bytes in prop_oneof![1u64..40, 100u64..300, Just(u64::MAX)],
        mut attempts in prop::collection::vec((1u32..5, prop::collection::vec(0usize..25, 4)), 1..5),
        csv in any::<bool>(),
    ) {
        attempts.push((attempts[0].0 % 3 + 1, Vec::new()));
        let dir = tempfile::tempdir().unwrap();
        let (paths, rows) = write_files(dir.path(), &counts, csv);
        let (read, _) = match csv {
            true => run(&CsvFormat::<Row>::default(), &paths, split_bytes, &attempts),
            false => run(&NdjsonFormat::<Row>::new(), &paths, split_bytes, &attempts),
        };
        prop_assert_eq!(read, rows);
    }
}

#[test]
fn when_a_csv_row_has_several_lines_then_a_cut_within_the_file_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.csv");
    fs::write(&path, "id,name\n1,\"a\nb\"\n2,\"c\n\nd\"\n3,e\n").unwrap();
    let rows: Vec<Row> = vec![(1, "a\nb".into()), (2, "c\n\nd".into()), (3, "e".into())];
    for polls in 0..12 {
        let attempts = [(1, vec![polls]), (2, vec![1, 1]), (1, vec![])];
        assert_eq!(
            run(&CsvFormat::default(), std::slice::from_ref(&path), u64::MAX, &attempts).0,
            rows,
            "{polls} polls"
        );
    }
}

#[test]
fn when_bad_records_are_left_out_then_their_count_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.ndjson");
    fs::write(&path, "[1,\"a\"]\nbad\n[2,\"b\"]\nbad\n[3,\"c\"]\n").unwrap();
    let format = NdjsonFormat::new().on_bad_record(OnBadRecord::Skip);
    for polls in 0..5 {
        let (read, skipped) = run(&format, std::slice::from_ref(&path), u64::MAX, &[(1, vec![polls]), (1, vec![])]);
        assert_eq!((read.len(), skipped), (3, 2), "{polls} polls");
    }
}

#[test]
fn when_a_file_has_changed_since_the_checkpoint_then_restoring_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (paths, _) = write_files(dir.path(), &[5], false);
    let make = || FileSource::new(NdjsonFormat::<Row>::new(), &paths).into_source().unwrap().0;
    let mut source = make();
    source.assign(0, 1);
    let cut = checkpoint(1, vec![snapshot(1, |snapshot| source.snapshot(snapshot)).unwrap()]);
    fs::write(&paths[0], "[1,\"shorter\"]\n").unwrap();
    let error = make().restore(&restored(&cut, 0, 1)).unwrap_err().to_string();
    assert!(error.contains("has changed since the checkpoint was taken"), "{error}");
}

#[test]
fn when_a_split_is_restored_then_its_watermark_waits_for_what_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let (paths, _) = write_files(dir.path(), &[10], false);
    let timestamp: fn((u64, &str)) -> i64 = |row| row.0 as i64;
    let strategy = WatermarkStrategy::<()>::monotonous().with_timestamp(timestamp);
    let make = || {
        let source = FileSource::new(NdjsonFormat::<Row>::new(), &paths).watermarks(strategy.clone());
        source.into_source().unwrap().0
    };
    let mut source = make();
    source.assign(0, 1);
    let mut emitted = Emitted::new();
    while emitted.records.len() < 4 {
        assert_eq!(source.poll(1, &mut emitted).unwrap(), SourceStatus::More);
    }
    let cut = checkpoint(1, vec![snapshot(1, |snapshot| source.snapshot(snapshot)).unwrap()]);

    let mut again = make();
    again.restore(&restored(&cut, 0, 1)).unwrap();
    let mut emitted = Emitted::new();
    again.periodic(0, &mut emitted);
    assert!(emitted.watermarks.is_empty());
    while emitted.records.is_empty() {
        assert_eq!(again.poll(1, &mut emitted).unwrap(), SourceStatus::More);
    }
    again.periodic(0, &mut emitted);
    assert_eq!((emitted.records[0].0, emitted.watermarks), (4, vec![3]));
}

/// A watermark with each record: its own timestamp.
struct EachRecord;

impl crate::watermark::WatermarkGenerator for EachRecord {
    fn on_event(&mut self, timestamp: i64) -> Option<i64> {
        Some(timestamp)
    }
    fn on_periodic(&mut self) -> Option<i64> {
        None
    }
}

#[test]
fn when_a_generator_is_punctuated_then_each_of_its_watermarks_counts_and_the_slowest_split_decides() {
    let dir = tempfile::tempdir().unwrap();
    let paths = ["a", "b"].map(|name| dir.path().join(name));
    fs::write(&paths[0], "[1,\"\"]\n[5,\"\"]\n[3,\"\"]\n[20,\"\"]\n").unwrap();
    fs::write(&paths[1], "[4,\"\"]\n[7,\"\"]\n[8,\"\"]\n[9,\"\"]\n[30,\"\"]\n").unwrap();
    let timestamp: fn((u64, &str)) -> i64 = |row| row.0 as i64;
    let strategy = WatermarkStrategy::generator(|| EachRecord)
        .with_timestamp(timestamp)
        .with_idleness(std::time::Duration::from_millis(1));
    let source = FileSource::new(NdjsonFormat::<Row>::new(), &paths).watermarks(strategy);
    let mut source = source.into_source().unwrap().0;
    source.assign(0, 1);
    let mut emitted = Emitted::new();
    // Of either file in turn, one record each; never a periodic call.
    while source.poll(1, &mut emitted).unwrap() == SourceStatus::More {}
    assert_eq!(emitted.records.len(), 9);
    // b 4, a 1, b 7, a 5, b 8, a 3, b 9, a 20, b 30: the smaller of both each time. Then only b is left.
    assert_eq!(emitted.watermarks, [1, 5, 9, 20, 30]);
}

#[test]
fn when_idleness_is_asked_of_a_file_source_then_it_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    fs::write(&path, "[1,\"\"]\n").unwrap();
    let said = |idleness: bool| {
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || LogTo(lines.clone())).with_ansi(false).finish();
        tracing::subscriber::with_default(subscriber, || {
            let timestamp: fn((u64, &str)) -> i64 = |row| row.0 as i64;
            let mut strategy = WatermarkStrategy::generator(|| EachRecord).with_timestamp(timestamp);
            if idleness {
                strategy = strategy.with_idleness(std::time::Duration::from_secs(1));
            }
            FileSource::new(NdjsonFormat::<Row>::new(), [&path]).watermarks(strategy).into_source().unwrap();
        });
        let log = log.lock().unwrap().clone();
        String::from_utf8(log).unwrap()
    };
    let warning = said(true);
    assert!(warning.contains("WARN") && warning.contains("with_idleness has no effect on a file source"), "{warning}");
    assert_eq!(said(false), "");
}

struct LogTo(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for LogTo {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
