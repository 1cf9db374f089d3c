//! One file of a committed file sink while it is written: over a disk that tests can let fail.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use serde::Serialize;
use thalweg_io::{
    checkpoint::Disk,
    connect::{CsvWriter, NdjsonWriter, WriteError},
};

use super::{
    failed,
    lane::{AtClose, Lane},
};
use crate::sink::SinkError;

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
    lane: Lane,
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Whether a thread is to make durable what is written. Set here, cleared by the thread.
    syncing: Arc<AtomicBool>,
    /// How many bytes there were when it was last begun to make them durable.
    early_bytes: u64,
}

impl PartFile {
    /// Begins to make durable what is written by now, unless that is being done already.
    fn begin_sync(&mut self) {
        if self.syncing.load(Relaxed) {
            return;
        }
        // Without a second descriptor it has to wait for the file's end.
        let Ok(file) = self.file.try_clone() else { return };
        self.syncing.store(true, Relaxed);
        self.early_bytes = self.bytes;
        let (disk, syncing, path) = (self.disk.clone(), self.syncing.clone(), self.path.clone());
        self.lane.add(None, AtClose::Drop, move || {
            syncing.store(false, Relaxed);
            sync(&disk, &file, &path)
        });
    }

    /// Makes its contents durable.
    pub(super) fn sync(self) -> Result<(), SinkError> {
        sync(&self.disk, &self.file, &self.path)
    }
}

fn sync(disk: &Arc<dyn Disk>, file: &File, path: &Path) -> Result<(), SinkError> {
    disk.sync(file).map_err(|error| failed("make durable the file", path, &error))
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
    /// Begins a file. No more than `gather_bytes` are gathered before they are written: only then are they counted.
    pub(super) fn create(
        disk: &Arc<dyn Disk>,
        lane: &Lane,
        path: &Path,
        format: Format,
        gather_bytes: usize,
    ) -> Result<Self, WriteError> {
        let file = disk.create(path).map_err(|source| WriteError::Create { path: PathBuf::from(path), source })?;
        let (disk, lane, syncing) = (disk.clone(), lane.clone(), Arc::default());
        let file = PartFile { disk, lane, path: path.to_owned(), file, bytes: 0, syncing, early_bytes: 0 };
        Ok(match format {
            Format::Ndjson => Self::Ndjson(NdjsonWriter::over_gathering(path, file, gather_bytes)),
            Format::Csv => Self::Csv(Box::new(CsvWriter::over_gathering(path, file, gather_bytes))),
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
