//! The job: lines become words, words become counts. With a source of its own, to show how one is written: it says in each
//! checkpoint where it is, and goes on from there.

use std::{
    fs::File,
    io::{BufRead, BufReader, Cursor, Seek, SeekFrom},
    path::PathBuf,
};

use thalweg::{
    checkpoint::{OperatorRestore, OperatorSnapshot},
    model::{Elem, time::MIN_WATERMARK},
    prelude::*,
    runtime::{SegmentContext, SourceStatus},
    source::SourceError,
};

const TEXT: &str = "\
    To be, or not to be, that is the question:\n\
    Whether 'tis nobler in the mind to suffer\n\
    The slings and arrows of outrageous fortune,\n\
    Or to take arms against a sea of troubles\n\
    And by opposing end them.\n";

/// Name of the source's state.
const OFFSET: &str = "offset";

/// Builds the job: each word, in lower case, with how often it has come so far.
pub fn build<S: Sink<(String, u64)>>(env: &Environment, lines: Lines, sink: S) {
    env.from_source("Lines", lines)
        .uid("lines")
        .flat_map_to(|line: &str, out: &mut Out<'_, String>| {
            for word in line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
                out.push(&word.to_lowercase());
            }
        })
        .name("Words")
        .key_by_view::<String, _>(|word| word)
        .aggregate(Count, |word, count| (word.to_owned(), count))
        .name("Count")
        .uid("count")
        .sink(sink);
}

/// Something with lines in which one can go to a place.
trait Text: BufRead + Seek + Send {}

impl<T: BufRead + Seek + Send> Text for T {}

/// A source of lines. The first subtask reads them all; the job clones it for each.
pub struct Lines {
    path: Option<PathBuf>,
    reader: Option<Box<dyn Text>>,
    line: String,
    /// Where the next line begins: how many bytes have been read.
    offset: u64,
    emitted: u64,
}

impl Lines {
    /// The lines of a file, or of a text that is built in.
    pub fn of(path: Option<PathBuf>) -> Self {
        Self { path, reader: None, line: String::new(), offset: 0, emitted: 0 }
    }
}

impl Clone for Lines {
    fn clone(&self) -> Self {
        Self::of(self.path.clone())
    }
}

impl Source for Lines {
    type Out = String;

    /// Files are opened here, on the slot, and not while the job is built.
    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), SourceError> {
        if ctx.subtask == 0 {
            self.reader = Some(match &self.path {
                Some(path) => {
                    let file = File::open(path).map_err(|error| format!("cannot open {}: {error}", path.display()))?;
                    Box::new(BufReader::new(file))
                }
                None => Box::new(Cursor::new(TEXT)),
            });
        }
        Ok(())
    }

    fn poll<E: Emit<String>>(&mut self, budget: usize, emit: &mut E) -> Result<SourceStatus, SourceError> {
        let Some(reader) = &mut self.reader else { return Ok(SourceStatus::Ended) };
        for _ in 0..budget {
            if !emit.room() {
                break;
            }
            self.line.clear();
            let bytes = reader.read_line(&mut self.line)?;
            if bytes == 0 {
                return Ok(SourceStatus::Ended);
            }
            self.offset += bytes as u64;
            self.emitted += 1;
            emit.emit(Elem::new(self.line.trim_end(), MIN_WATERMARK));
        }
        Ok(SourceStatus::More)
    }

    fn emitted(&self) -> u64 {
        self.emitted
    }

    /// The barrier is where the source is: between two lines.
    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), SourceError> {
        snapshot.positions(OFFSET, self.reader.is_some().then_some(self.offset));
        Ok(())
    }

    /// Each subtask is shown the positions of all: only one had any, and only one asks.
    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), SourceError> {
        let offsets = restored.positions::<u64>(OFFSET)?;
        if let (Some(reader), Some(&offset)) = (&mut self.reader, offsets.first()) {
            self.offset = reader.seek(SeekFrom::Start(offset))?;
        }
        Ok(())
    }
}
