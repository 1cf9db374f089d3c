//! Tests of reading and writing files: whatever the splits, each record once, in order, from any position.

mod errors;
mod files;
mod splits;

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::*;

/// A file of that content, which goes with the directory.
fn file(name: &str, content: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, content).unwrap();
    (directory, path)
}

/// All records of some splits, one split after the other.
fn read_all<F: FileFormat>(format: &F, splits: &[FileSplit]) -> Result<Vec<F::Item>, ReadError> {
    let mut records = Vec::new();
    for split in splits {
        let mut reader = format.open(split)?;
        while let Some(record) = reader.next_record()? {
            records.push(record);
        }
        assert_eq!(reader.progress().done_bytes, reader.progress().total_bytes);
    }
    Ok(records)
}
