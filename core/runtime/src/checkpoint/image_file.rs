//! `ImageFile`: where the image of one table goes: memory while it is small, a file of its own from then on.

use thalweg_io::checkpoint::{CheckpointFiles, FileIds, FileRef, NewFile, SlotWriter, StreamId, WriterError, Written};
use thalweg_state::ImageSink;

use super::SnapshotPlace;

/// Room that is handed out in memory at a time.
const STEP_BYTES: usize = 4 << 10;
/// The end of an image: the number of its rows lies there.
const TAIL_BYTES: usize = 32;

/// An image being written.
#[derive(Debug, Default)]
pub(crate) struct ImageFile {
    memory: Vec<u8>,
    /// Bytes of `memory` that are written.
    filled: usize,
    file: Option<(StreamId, NewFile)>,
    bytes: u64,
    tail: [u8; TAIL_BYTES],
    ended: bool,
    written: Option<Written>,
}

/// What images are written with.
pub(crate) struct ImageTarget<'a> {
    pub(crate) writer: Option<&'a mut SlotWriter>,
    pub(crate) ids: &'a mut FileIds,
    pub(crate) files: Option<&'a CheckpointFiles>,
    /// Whether the file may be used by later checkpoints.
    pub(crate) shared: bool,
    pub(crate) inline_threshold_bytes: usize,
    /// What the writer said when a file could not be opened.
    pub(crate) error: Option<WriterError>,
}

/// The two together, for the length of a slice.
pub(crate) struct ImageWriter<'a, 't> {
    pub(crate) image: &'a mut ImageFile,
    pub(crate) target: &'a mut ImageTarget<'t>,
}

impl ImageFile {
    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of rows that a complete image of a table says it has.
    pub(crate) fn image_rows(&self) -> u64 {
        let [.., a, b, c, d, e, f, g, h, _, _, _, _, _, _, _, _] = self.tail;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// The stream of its file.
    pub(crate) fn stream(&self) -> Option<StreamId> {
        self.file.as_ref().map(|(stream, _)| *stream)
    }

    /// Everything has been written: what is in a file is to become durable. Any number of times.
    pub(crate) fn end(&mut self, writer: Option<&mut SlotWriter>) {
        if !std::mem::replace(&mut self.ended, true)
            && let (Some((stream, _)), Some(writer)) = (&self.file, writer)
        {
            writer.finish(*stream);
        }
    }

    /// Gives the file up.
    pub(crate) fn abort(&self, writer: Option<&mut SlotWriter>) {
        if let (Some((stream, _)), Some(writer)) = (&self.file, writer)
            && self.written.is_none()
        {
            writer.abort(*stream);
        }
    }

    /// The file is durable.
    pub(crate) fn finished(&mut self, written: Written) {
        self.written = Some(written);
    }

    /// Whether it is complete, and durable if it is in a file.
    pub(crate) fn is_safe(&self) -> bool {
        self.ended && (self.file.is_none() || self.written.is_some())
    }

    /// Where the image is, once it is safe.
    pub(crate) fn place(&mut self) -> Option<SnapshotPlace> {
        match (&self.file, self.written) {
            (None, _) if self.ended => {
                self.memory.truncate(self.filled);
                Some(SnapshotPlace::Inline(std::mem::take(&mut self.memory)))
            }
            (Some((_, file)), Some(written)) => {
                let FileRef { path, written } = file.reference(written);
                Some(SnapshotPlace::File(FileRef { path, written }))
            }
            _ => None,
        }
    }

    fn note_tail(&mut self, bytes: &[u8]) {
        let new = bytes.len().min(TAIL_BYTES);
        self.tail.copy_within(new.., 0);
        self.tail[TAIL_BYTES - new..].copy_from_slice(&bytes[bytes.len() - new..]);
    }
}

impl ImageWriter<'_, '_> {
    /// Puts bytes into the image; answers how many were taken.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> usize {
        let room = self.room();
        let taken = room.len().min(bytes.len());
        room[..taken].copy_from_slice(&bytes[..taken]);
        self.advance(taken);
        taken
    }

    /// Moves from memory to a file, as far as there is room. False while there is none.
    fn move_to_file(&mut self) -> bool {
        let Self { image, target } = self;
        let (Some(writer), Some(files)) = (target.writer.as_deref_mut(), target.files) else { return false };
        if image.file.is_none() {
            let id = target.ids.make();
            let file = if target.shared { files.shared(id) } else { files.exclusive(id) };
            match writer.open(file.spec(0)) {
                Ok(stream) => image.file = Some((stream, file)),
                Err(WriterError::Busy { .. }) => return false,
                Err(error) => {
                    target.error = Some(error);
                    return false;
                }
            }
        }
        let Some((stream, _)) = image.file else { return false };
        let mut moved = 0;
        while moved < image.filled {
            let Some(room) = writer.room(stream) else { break };
            let now = room.len().min(image.filled - moved);
            room[..now].copy_from_slice(&image.memory[moved..moved + now]);
            writer.commit(stream, now);
            moved += now;
        }
        image.memory.copy_within(moved..image.filled, 0);
        image.filled -= moved;
        if image.filled == 0 {
            image.memory = Vec::new();
        }
        image.filled == 0
    }
}

impl ImageSink for ImageWriter<'_, '_> {
    fn room(&mut self) -> &mut [u8] {
        let in_memory = self.target.files.is_none()
            || (self.image.file.is_none() && self.image.filled < self.target.inline_threshold_bytes);
        if in_memory {
            let ImageFile { memory, filled, .. } = &mut *self.image;
            let most = if self.target.files.is_none() { usize::MAX } else { self.target.inline_threshold_bytes };
            // Doubling, so that images that stay in memory are not copied too often.
            let end = (*filled + STEP_BYTES.max(*filled)).min(most);
            if memory.len() < end {
                memory.resize(end, 0);
            }
            return &mut memory[*filled..];
        }
        if (self.image.file.is_none() || self.image.filled > 0) && !self.move_to_file() {
            return &mut [];
        }
        let Some((stream, _)) = self.image.file else { return &mut [] };
        let Some(writer) = self.target.writer.as_deref_mut() else { return &mut [] };
        writer.room(stream).unwrap_or_default()
    }

    fn advance(&mut self, bytes: usize) {
        let Self { image, target } = self;
        image.bytes += bytes as u64;
        match (&image.file, target.writer.as_deref_mut()) {
            (Some((stream, _)), Some(writer)) => {
                let stream = *stream;
                let mut tail = [0; TAIL_BYTES];
                let count = bytes.min(TAIL_BYTES);
                if let Some(room) = writer.room(stream) {
                    tail[..count].copy_from_slice(&room[bytes - count..bytes]);
                }
                image.note_tail(&tail[..count]);
                writer.commit(stream, bytes);
            }
            _ => {
                let from = image.filled;
                image.filled += bytes;
                let count = bytes.min(TAIL_BYTES);
                let mut tail = [0; TAIL_BYTES];
                tail[..count].copy_from_slice(&image.memory[from + bytes - count..from + bytes]);
                image.note_tail(&tail[..count]);
            }
        }
    }
}
