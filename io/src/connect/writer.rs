//! Writers of NDJSON and CSV files, or of anything else that takes bytes. A file is created afresh; its content is complete
//! once `close` has answered.
//!
//! Records are gathered in memory and written at most every 64 KiB, unless told to do so more often. A failed write latches: the file may end within a
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
/// The least that a CSV writer gathers: it fills its buffer in steps, each of which has to fit.
const MIN_CSV_GATHER_BYTES: usize = 64;

/// Writes an NDJSON file, one record a line.
pub struct NdjsonWriter<T, W = File> {
    path: PathBuf,
    out: W,
    gathered: Vec<u8>,
    gather_bytes: usize,
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
        Ok(Self::over(&path, create(path.as_ref())?))
    }
}

impl<T: Serialize, W: Write> NdjsonWriter<T, W> {
    /// Writes to something open. `path` is how errors name it.
    pub fn over(path: impl AsRef<Path>, out: W) -> Self {
        Self::over_gathering(path, out, GATHER_BYTES)
    }

    /// Like [`over`](Self::over), and writes when so many bytes are gathered; with 64 KiB at the latest.
    pub fn over_gathering(path: impl AsRef<Path>, out: W, gather_bytes: usize) -> Self {
        let gather_bytes = gather_bytes.min(GATHER_BYTES);
        let (gathered, path) = (Vec::with_capacity(gather_bytes), path.as_ref().to_path_buf());
        Self { path, out, gathered, gather_bytes, records: 0, is_incomplete: false, writes: PhantomData }
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
        if self.gathered.len() >= self.gather_bytes { self.flush() } else { Ok(()) }
    }

    /// Hands what is gathered to the system.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        self.check()?;
        // All of it, unless a record's own code has panicked within its line.
        let whole = memchr::memrchr(b'\n', &self.gathered).map_or(0, |last| last + 1);
        self.out.write_all(&self.gathered[..whole]).map_err(|source| {
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

    /// Writes what is left and answers what it has written to.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn into_out(mut self) -> Result<W, WriteError> {
        self.flush()?;
        Ok(self.out)
    }

    /// What it writes to.
    pub fn out(&self) -> &W {
        &self.out
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
pub struct CsvWriter<T, W: Write = File> {
    path: PathBuf,
    rows: csv::Writer<W>,
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
        Ok(Self::over(&path, create(path.as_ref())?))
    }
}

impl<T: Serialize, W: Write> CsvWriter<T, W> {
    /// Writes to something open. `path` is how errors name it.
    pub fn over(path: impl AsRef<Path>, out: W) -> Self {
        Self::over_gathering(path, out, GATHER_BYTES)
    }

    /// Like [`over`](Self::over), and writes when so many bytes are gathered, or a few more; with 64 KiB at the latest.
    pub fn over_gathering(path: impl AsRef<Path>, out: W, gather_bytes: usize) -> Self {
        let gather_bytes = gather_bytes.clamp(MIN_CSV_GATHER_BYTES, GATHER_BYTES);
        let rows = csv::WriterBuilder::new().buffer_capacity(gather_bytes).from_writer(out);
        Self { path: path.as_ref().to_path_buf(), rows, records: 0, is_incomplete: false, writes: PhantomData }
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

    /// Writes what is left and answers what it has written to.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn into_out(mut self) -> Result<W, WriteError> {
        self.flush()?;
        let Self { path, rows, .. } = self;
        rows.into_inner().map_err(|error| WriteError::Write { path, source: error.into_error() })
    }

    /// What it writes to.
    pub fn out(&self) -> &W {
        self.rows.get_ref()
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
