//! The check of a query's result: the plain evaluation of the same events, and the comparison.

use std::{
    fs::File,
    io::BufReader,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use thalweg::{Error, Record as _, entry::Interrupt, runtime::JobError};

use super::{
    EventReader, EventScratch, Generator, InputOrder, Query, Reference, RowDigest,
    run::{OUT_OF_ORDERNESS, events_of},
};
use crate::{options::NexmarkOptions, progress::Progress};

/// Events between two looks at how far the check is, and whether it is to go on.
const STEP: u64 = 4_096;

/// Evaluates the query without the engine and compares. `input` is all files that the job has read; none where it was given
/// generated events. `None` where the results differ for a reason that is known.
///
/// # Errors
/// Input that cannot be read, and a signal.
pub(super) fn verify(
    query: Query,
    options: &NexmarkOptions,
    input: &[PathBuf],
    rows: RowDigest,
    interrupt: &Interrupt,
) -> Result<Option<bool>, Error> {
    let checked = Arc::new(AtomicU64::new(0));
    let count = checked.clone();
    let total = input.is_empty().then(|| events_of(options));
    let _progress = Progress::start(format!("{query}, check"), total, move || count.load(Relaxed));
    let mut steps = Steps { done: 0, checked: &checked, interrupt };
    if input.is_empty() {
        let expected = evaluate_generated(query, options, &mut steps)?;
        return Ok(Some(compare(query, rows, expected)));
    }
    let (expected, disorder_ms) = evaluate_files(query, input, options.events, &mut steps)?;
    if rows != expected && disorder_ms > OUT_OF_ORDERNESS.as_millis() as i64 {
        let names: Vec<String> = input.iter().map(|path| path.display().to_string()).collect();
        tracing::warn!(
            "{query}: not checked: events of {} are up to {disorder_ms} ms out of order, and those more than {} ms late \
             were dropped; sort them by dateTime",
            names.join(", "),
            OUT_OF_ORDERNESS.as_millis()
        );
        return Ok(None);
    }
    Ok(Some(compare(query, rows, expected)))
}

fn compare(query: Query, rows: RowDigest, expected: RowDigest) -> bool {
    if rows != expected {
        tracing::error!("{query}: the result is wrong: {rows}; the reference evaluation has {expected}");
    }
    rows == expected
}

/// How far the check is.
struct Steps<'a> {
    done: u64,
    checked: &'a AtomicU64,
    interrupt: &'a Interrupt,
}

impl Steps<'_> {
    /// Another event is about to be evaluated.
    fn next(&mut self) -> Result<(), Error> {
        if self.done.is_multiple_of(STEP) {
            self.checked.store(self.done, Relaxed);
            if self.interrupt.is_set() {
                return Err(JobError::Cancelled.into());
            }
        }
        self.done += 1;
        Ok(())
    }
}

fn evaluate_generated(query: Query, options: &NexmarkOptions, steps: &mut Steps<'_>) -> Result<RowDigest, Error> {
    let generator = Generator::new(options.seed);
    let mut scratch = EventScratch::new();
    let mut reference = Reference::new(query, InputOrder::Ascending);
    let mut digest = RowDigest::default();
    for n in 0..events_of(options) {
        steps.next()?;
        reference.push(generator.event(n, &mut scratch), |row| digest.add(&row));
    }
    reference.finish(|row| digest.add(&row));
    Ok(digest)
}

/// The digest, and how far the events of a file are out of order: each file has watermarks of its own.
fn evaluate_files(
    query: Query,
    input: &[PathBuf],
    limit: Option<u64>,
    steps: &mut Steps<'_>,
) -> Result<(RowDigest, i64), Error> {
    let mut reference = Reference::new(query, InputOrder::Any);
    let mut digest = RowDigest::default();
    let mut disorder_ms = 0;
    let limit = limit.unwrap_or(u64::MAX);
    for path in input {
        let failed =
            |error: &dyn std::fmt::Display| Error::Other(format!("cannot check {query}: {}: {error}", path.display()));
        let file = File::open(path).map_err(|error| failed(&error))?;
        let mut latest_ms = i64::MIN;
        let left = usize::try_from(limit - steps.done).unwrap_or(usize::MAX);
        for event in EventReader::new(BufReader::with_capacity(1 << 20, file)).take(left) {
            steps.next()?;
            let event = event.map_err(|error| failed(&error))?;
            let event = event.view();
            latest_ms = latest_ms.max(event.timestamp_ms());
            disorder_ms = disorder_ms.max(latest_ms.saturating_sub(event.timestamp_ms()));
            reference.push(event, |row| digest.add(&row));
        }
    }
    reference.finish(|row| digest.add(&row));
    Ok((digest, disorder_ms))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::nexmark::digest_generated;

    fn options(events: Option<u64>) -> NexmarkOptions {
        NexmarkOptions { queries: Vec::new(), events, seed: 3, rate: None, input: None, output: None }
    }

    /// Writes events of the generator with these numbers.
    fn write(path: &Path, numbers: std::ops::Range<usize>) {
        let mut text = Vec::new();
        crate::nexmark::generate_ndjson(&Generator::new(3), numbers.end as u64, &mut text).unwrap();
        let lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
        fs::write(path, lines[numbers].concat()).unwrap();
    }

    #[test]
    fn when_there_are_several_files_then_all_are_checked_and_none_is_late_for_another() {
        let dir = tempfile::tempdir().unwrap();
        // The first file has the later events: ten seconds behind the second.
        let input = [dir.path().join("a.ndjson"), dir.path().join("b.ndjson")];
        write(&input[0], 100_000..110_000);
        write(&input[1], 0..100_000);
        for query in Query::ALL {
            let expected = digest_generated(Reference::new(query, InputOrder::Ascending), &Generator::new(3), 110_000);
            let check = |rows| verify(query, &options(None), &input, rows, &Interrupt::default()).unwrap();
            assert_eq!(check(expected), Some(true), "{query}");
            assert_eq!(check(RowDigest { sum: expected.sum ^ 1, ..expected }), Some(false), "{query}");
        }
        let five = digest_generated(Reference::new(Query::Q0, InputOrder::Ascending), &Generator::new(3), 5);
        let verified = verify(Query::Q0, &options(Some(5)), &input[1..], five, &Interrupt::default());
        assert_eq!(verified.unwrap(), Some(true));
    }
}
