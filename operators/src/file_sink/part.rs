//! One file of a committed file sink while it is written: over a disk that tests can let fail.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Serialize;
use thalweg_io::{
    checkpoint::Disk,
    connect::{CsvWriter, NdjsonWriter, WriteError},
};

use super::early_sync::EarlySync;

/// When so many bytes have been written since the file was last made durable, that is begun beside the writing.
const EARLY_SYNC_BYTES: u64 = 8 << 20;

/// What records are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Ndjson,
    Csv,
}

impl Format {
    pub(super) const fn extension(self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
        }
    }
}

/// A file, from its beginning on.
pub(super) struct PartFile {
    disk: Arc<dyn Disk>,
    file: File,
    bytes: u64,
    early: EarlySync,
    /// How many bytes there were when it was last begun to make them durable.
    early_bytes: u64,
}

impl PartFile {
    /// Begins to make its contents durable.
    pub(super) fn begin_sync(&mut self) {
        if self.early.request(&self.disk, &self.file) {
            self.early_bytes = self.bytes;
        }
    }

    /// Makes its contents durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.disk.sync(&self.file)?;
        self.early.settle()
    }
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.disk.write_at(&self.file, bytes, self.bytes)?;
        self.bytes += written as u64;
        if self.bytes - self.early_bytes >= EARLY_SYNC_BYTES {
            self.begin_sync();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file and the format it is written in.
pub(super) enum PartWriter<T> {
    Ndjson(NdjsonWriter<T, PartFile>),
    Csv(Box<CsvWriter<T, PartFile>>),
}

impl<T: Serialize> PartWriter<T> {
    pub(super) fn create(disk: &Arc<dyn Disk>, path: &Path, format: Format) -> Result<Self, WriteError> {
        let file = disk.create(path).map_err(|source| WriteError::Create { path: PathBuf::from(path), source })?;
        let file = PartFile { disk: disk.clone(), file, bytes: 0, early: EarlySync::default(), early_bytes: 0 };
        Ok(match format {
            Format::Ndjson => Self::Ndjson(NdjsonWriter::over(path, file)),
            Format::Csv => Self::Csv(Box::new(CsvWriter::over(path, file))),
        })
    }

    pub(super) fn write(&mut self, record: &T) -> Result<(), WriteError> {
        match self {
            Self::Ndjson(writer) => writer.write(record),
            Self::Csv(writer) => writer.write(record),
        }
    }

    /// Bytes that are in the file; what is gathered comes on top.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Ndjson(writer) => writer.out().bytes,
            Self::Csv(writer) => writer.out().bytes,
        }
    }

    /// Writes what is gathered.
    pub(super) fn into_file(self) -> Result<PartFile, WriteError> {
        match self {
            Self::Ndjson(writer) => writer.into_out(),
            Self::Csv(writer) => writer.into_out(),
        }
    }
}
