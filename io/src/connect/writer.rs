//! Writers of NDJSON and CSV files. A file is created afresh; its content is complete once `close` has answered.
//!
//! Records are gathered in memory and written at most every 64 KiB. A failed write latches: the file may end within a
//! record, so that every later call fails too. A writer that is dropped without `close` leaves out what it gathered.

use std::{
    fs::File,
    io::Write,
    marker::PhantomData,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::WriteError;

/// How much is gathered before it is written.
const GATHER_BYTES: usize = 64 << 10;

/// Writes an NDJSON file, one record a line.
pub struct NdjsonWriter<T> {
    path: PathBuf,
    file: File,
    gathered: Vec<u8>,
    records: u64,
    is_incomplete: bool,
    writes: PhantomData<fn(&T)>,
}

impl<T: Serialize> NdjsonWriter<T> {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, WriteError> {
        let path = path.as_ref().to_path_buf();
        let file = create(&path)?;
        let gathered = Vec::with_capacity(GATHER_BYTES);
        Ok(Self { path, file, gathered, records: 0, is_incomplete: false, writes: PhantomData })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// JSON cannot express the record (nothing of it is written then), or the file cannot be written.
    pub fn write(&mut self, record: &T) -> Result<(), WriteError> {
        self.check()?;
        let before = self.gathered.len();
        if let Err(error) = serde_json::to_writer(&mut self.gathered, record) {
            self.gathered.truncate(before);
            return Err(WriteError::Record { path: self.path.clone(), reason: error.to_string() });
        }
        self.gathered.push(b'\n');
        self.records += 1;
        if self.gathered.len() >= GATHER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Hands what is gathered to the system.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        self.check()?;
        self.file.write_all(&self.gathered).map_err(|source| {
            self.is_incomplete = true;
            WriteError::Write { path: self.path.clone(), source }
        })?;
        self.gathered.clear();
        Ok(())
    }

    /// Writes what is left and closes the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn close(mut self) -> Result<(), WriteError> {
        self.flush()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records taken so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    fn check(&self) -> Result<(), WriteError> {
        if self.is_incomplete { Err(WriteError::Incomplete { path: self.path.clone() }) } else { Ok(()) }
    }
}

/// Writes a CSV file with a header row, which structs name. A file without records stays empty.
pub struct CsvWriter<T> {
    path: PathBuf,
    rows: csv::Writer<File>,
    records: u64,
    is_incomplete: bool,
    writes: PhantomData<fn(&T)>,
}

impl<T: Serialize> CsvWriter<T> {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, WriteError> {
        let path = path.as_ref().to_path_buf();
        let file = create(&path)?;
        let rows = csv::WriterBuilder::new().buffer_capacity(GATHER_BYTES).from_writer(file);
        Ok(Self { path, rows, records: 0, is_incomplete: false, writes: PhantomData })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// CSV cannot express the record (a map, or a vector of varying length), or the file cannot be written.
    pub fn write(&mut self, record: &T) -> Result<(), WriteError> {
        self.check()?;
        if let Err(error) = self.rows.serialize(record) {
            self.is_incomplete = true;
            let path = self.path.clone();
            return Err(match error.into_kind() {
                csv::ErrorKind::Io(source) => WriteError::Write { path, source },
                csv::ErrorKind::Serialize(reason) => WriteError::Record { path, reason },
                other => WriteError::Record { path, reason: format!("{other:?}") },
            });
        }
        self.records += 1;
        Ok(())
    }

    /// Hands what is gathered to the system.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        self.check()?;
        self.rows.flush().map_err(|source| {
            self.is_incomplete = true;
            WriteError::Write { path: self.path.clone(), source }
        })
    }

    /// Writes what is left and closes the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn close(mut self) -> Result<(), WriteError> {
        self.flush()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Records taken so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    fn check(&self) -> Result<(), WriteError> {
        if self.is_incomplete { Err(WriteError::Incomplete { path: self.path.clone() }) } else { Ok(()) }
    }
}

fn create(path: &Path) -> Result<File, WriteError> {
    File::create(path).map_err(|source| WriteError::Create { path: path.to_path_buf(), source })
}
