//! The rows that the crash job commits: written, read back, compared as multisets.

use std::{
    cmp::Ordering,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thalweg::prelude::*;

use super::super::job::BenchError;

/// A row of output.
#[derive(Record, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Row {
    /// `bucket` of a key, or `window` over buckets.
    pub kind: String,
    /// The key, or the group of keys.
    pub key: u64,
    /// The last millisecond of the bucket or window.
    pub end_ms: i64,
    /// Visits of the bucket, or buckets of the window.
    pub count: u64,
    /// Sum of their values.
    pub sum: i64,
    /// Visits of the key up to this bucket, or visits of the window.
    pub total: u64,
    /// What remains of the tags of all visits of the bucket; of the window's buckets.
    pub digest: u64,
}

fn failed(doing: &str, path: &Path, error: &dyn std::fmt::Display) -> BenchError {
    BenchError::Files(format!("cannot {doing} {}: {error}", path.display()))
}

/// What lies in a directory; nothing where there is none.
pub(super) fn names_in(dir: &Path) -> Result<Vec<String>, BenchError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read the directory", dir, &error)),
    };
    let name = |entry: std::io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().to_string_lossy().into());
    entries.map(name).collect::<Result<_, _>>().map_err(|error| failed("read the directory", dir, &error))
}

/// The committed files of a directory, ordered.
pub(super) fn committed(dir: &Path) -> Result<Vec<PathBuf>, BenchError> {
    let mut names = names_in(dir)?;
    names.retain(|name| name.starts_with("part-") && name.ends_with(".ndjson"));
    names.sort_unstable();
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// Whether a path is somewhere below a directory, whatever links lead there.
pub(super) fn is_within(path: &Path, dir: &Path) -> bool {
    matches!((path.canonicalize(), dir.canonicalize()), (Ok(path), Ok(dir)) if path.starts_with(&dir))
}

/// The newest checkpoint that committed files came with: `part-<subtask>-<checkpoint>-...`.
pub(super) fn newest_commit(files: &[PathBuf]) -> Option<u64> {
    let number = |path: &PathBuf| path.file_name()?.to_str()?.split('-').nth(2)?.parse().ok();
    files.iter().filter_map(number).max()
}

/// The newest checkpoint in a job's directory, readable or not.
pub(super) fn newest_checkpoint(job_dir: &Path) -> Result<Option<u64>, BenchError> {
    let names = names_in(job_dir)?.into_iter().filter(|name| job_dir.join(name).join("_metadata").exists());
    Ok(names.filter_map(|name| name.strip_prefix("chk-")?.parse().ok()).max())
}

/// All rows of some files.
pub(super) fn read(files: &[PathBuf]) -> Result<Vec<Row>, BenchError> {
    let mut rows = Vec::new();
    for path in files {
        let text = fs::read_to_string(path).map_err(|error| failed("read", path, &error))?;
        for line in text.lines() {
            rows.push(serde_json::from_str(line).map_err(|error| failed("understand", path, &error))?);
        }
    }
    Ok(rows)
}

/// How some rows differ from those that were expected, as multisets; `None` where they do not.
pub(super) fn difference(mut rows: Vec<Row>, mut expected: Vec<Row>) -> Option<String> {
    rows.sort_unstable();
    expected.sort_unstable();
    let (mut found, mut wanted) = (rows.iter().peekable(), expected.iter().peekable());
    let (mut missing, mut surplus) = (Vec::new(), Vec::new());
    loop {
        let order = match (found.peek(), wanted.peek()) {
            (Some(row), Some(want)) => row.cmp(want),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => break,
        };
        if order != Ordering::Greater {
            surplus.extend(found.next().filter(|_| order.is_lt()));
        }
        if order != Ordering::Less {
            missing.extend(wanted.next().filter(|_| order.is_gt()));
        }
    }
    if missing.is_empty() && surplus.is_empty() {
        return None;
    }
    let example = |rows: &[&Row]| rows.first().map(|row| format!(", such as {row:?}")).unwrap_or_default();
    Some(format!(
        "of {} rows {} are missing{}; {} are too many{}",
        expected.len(),
        missing.len(),
        example(&missing),
        surplus.len(),
        example(&surplus)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: u64) -> Row {
        Row { kind: "bucket".into(), key, end_ms: 0, count: 1, sum: 0, total: 1, digest: 0 }
    }

    #[test]
    fn when_rows_are_missing_doubled_or_strange_then_the_difference_says_so() {
        let rows = |keys: &[u64]| keys.iter().copied().map(row).collect::<Vec<_>>();
        assert_eq!(difference(rows(&[2, 1, 2]), rows(&[2, 2, 1])), None);
        let said = |found: &[u64], wanted: &[u64]| difference(rows(found), rows(wanted)).unwrap_or_default();
        assert!(said(&[1], &[1, 1]).starts_with("of 2 rows 1 are missing, such as"));
        let doubled = said(&[1, 1], &[1]);
        assert!(doubled.contains("0 are missing; 1 are too many, such as"), "{doubled}");
        let strange = said(&[1, 3], &[1, 2]);
        assert!(strange.contains("1 are missing, such as") && strange.contains("1 are too many"), "{strange}");
    }
}
