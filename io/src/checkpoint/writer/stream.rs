//! One file being written: what it waits for, and what comes next.

use std::{collections::VecDeque, fs::File, io, sync::Arc};

use super::{
    Doing, Event, StreamId, StreamSpec, WriteFailure,
    buffers::Buffer,
    lane::{Answer, Job, Lane, Op, Owner},
};
use crate::checkpoint::{
    block_format::{BlockLayout, FOOTER_BYTES, FileHeader, Sealer},
    block_reader::Written,
    limits::PAGE_BYTES,
};

/// Times that one stream may be told to try again before that is an error.
const MAX_RETRIES: u32 = 64;

/// What the stream waits for, besides its writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The file to be created.
    Creating,
    /// Payload, and its writes.
    Open,
    /// The file to be cut to its length.
    Truncating,
    /// The file to be durable.
    Syncing,
    /// The file to be closed.
    Closing,
    /// The file to be removed.
    Removing,
}

/// Bytes that are ready to be written.
struct Sealed {
    buffer: Buffer,
    bytes: usize,
    offset: u64,
}

/// What all streams of a writer share.
pub(super) struct Shared {
    pub(super) lane: Box<dyn Lane>,
    pub(super) free: Vec<Buffer>,
    pub(super) writes_in_flight: usize,
    pub(super) max_writes_in_flight: usize,
    pub(super) preallocate_bytes: u64,
    /// Cleared as soon as a file system refuses direct writes.
    pub(super) direct: bool,
}

/// A file being written.
pub(super) struct Stream {
    pub(super) id: StreamId,
    spec: StreamSpec,
    phase: Phase,
    file: Option<Arc<File>>,
    created: bool,
    direct: bool,
    sealer: Sealer,
    filling: Option<Buffer>,
    sealed: VecDeque<Sealed>,
    writes: usize,
    /// Bytes of the file that are reserved; `None` where nothing is reserved.
    allocated: Option<u64>,
    allocating: bool,
    finishing: bool,
    footer_sealed: bool,
    failure: Option<WriteFailure>,
    aborting: bool,
    retries: u32,
}

impl Stream {
    pub(super) fn new(id: StreamId, spec: StreamSpec, layout: BlockLayout, shared: &mut Shared) -> Self {
        let header = FileHeader { layout, file: spec.file, checkpoint: spec.checkpoint };
        let stream = Self {
            id,
            phase: Phase::Creating,
            file: None,
            created: false,
            direct: shared.direct,
            sealer: Sealer::new(header),
            filling: None,
            sealed: VecDeque::new(),
            writes: 0,
            allocated: (shared.preallocate_bytes > 0).then_some(0),
            allocating: false,
            finishing: false,
            footer_sealed: false,
            failure: None,
            aborting: false,
            retries: 0,
            spec,
        };
        stream.submit(shared, Op::Create { path: stream.spec.path.clone(), direct: stream.direct });
        stream
    }

    fn submit(&self, shared: &mut Shared, op: Op) {
        shared.lane.submit(Job { owner: Owner::Stream(self.id), op });
    }

    /// Whether payload can still be appended.
    pub(super) fn takes_payload(&self) -> bool {
        !self.finishing && !self.is_lost()
    }

    fn is_lost(&self) -> bool {
        self.aborting || self.failure.is_some()
    }

    pub(super) fn abort(&mut self) {
        self.aborting = true;
    }

    pub(super) fn finish(&mut self) {
        self.finishing = true;
    }

    fn fail(&mut self, doing: Doing, offset: u64, source: io::Error) {
        // The first failure is the one that says why.
        if self.failure.is_none() {
            self.failure = Some(WriteFailure { path: self.spec.path.clone(), doing, offset, source });
        }
    }

    /// Gives the stream up where the way to the disk is broken.
    pub(super) fn into_broken(self, source: io::Error) -> Event {
        let failure = WriteFailure { path: self.spec.path, doing: Doing::Other, offset: 0, source };
        let left_behind = self.created.then(|| io::Error::other("the way to the disk is broken"));
        Event::Failed { stream: self.id, failure, left_behind }
    }

    /// The block to fill, with room for payload; `None` until a buffer is free.
    pub(super) fn block(&mut self, shared: &mut Shared) -> Option<&mut [u8]> {
        if self.filling.is_none() {
            let mut buffer = shared.free.pop()?;
            self.sealer.start(&mut buffer);
            self.filling = Some(buffer);
        }
        let sealer = &self.sealer;
        self.filling.as_mut().map(|buffer| sealer.spare(buffer))
    }

    /// Takes over payload that was written to [`block`](Self::block).
    pub(super) fn advance(&mut self, bytes: usize) {
        let Some(buffer) = &self.filling else { return debug_assert_eq!(bytes, 0) };
        self.sealer.advance(buffer, bytes);
        if self.sealer.is_full() {
            self.seal();
        }
    }

    fn seal(&mut self) {
        if let Some(mut buffer) = self.filling.take() {
            let (offset, bytes) = self.sealer.seal(&mut buffer);
            self.sealed.push_back(Sealed { buffer, bytes, offset });
        }
    }

    /// Seals the last block and the footer, the latter in a page of its own where the block has no room.
    fn seal_end(&mut self, shared: &mut Shared) {
        // An empty payload still has a block, once there is a buffer for it.
        if self.footer_sealed || (!self.sealer.has_begun() && self.block(shared).is_none()) {
            return;
        }
        self.seal();
        let end = self.sealer.layout().file_bytes(self.sealer.payload_bytes());
        let footer = self.sealer.footer();
        if let Some(last) = self.sealed.back_mut() {
            let bytes = ((end - last.offset) as usize).min(last.buffer.len());
            last.buffer[last.bytes..bytes].fill(0);
            last.bytes = bytes;
            if last.offset + bytes as u64 == end {
                last.buffer[bytes - FOOTER_BYTES..bytes].copy_from_slice(&footer);
                self.footer_sealed = true;
                return;
            }
        }
        if let Some(mut buffer) = shared.free.pop() {
            buffer[..PAGE_BYTES].fill(0);
            buffer[PAGE_BYTES - FOOTER_BYTES..PAGE_BYTES].copy_from_slice(&footer);
            let offset = end - PAGE_BYTES as u64;
            self.sealed.push_back(Sealed { buffer, bytes: PAGE_BYTES, offset });
            self.footer_sealed = true;
        }
    }

    /// Does whatever can be done now. `Some` once the stream has ended.
    pub(super) fn drive(&mut self, shared: &mut Shared) -> Option<Event> {
        if self.is_lost() {
            return self.drive_lost(shared);
        }
        if self.phase != Phase::Open {
            return None;
        }
        if self.finishing {
            self.seal_end(shared);
        }
        self.reserve(shared);
        while shared.writes_in_flight < shared.max_writes_in_flight
            && let Some(file) = &self.file
            && let Some(next) = self.sealed.front()
            && self.allocated.is_none_or(|allocated| next.offset + next.bytes as u64 <= allocated)
        {
            let file = Arc::clone(file);
            let Some(Sealed { buffer, bytes, offset }) = self.sealed.pop_front() else { break };
            self.writes += 1;
            shared.writes_in_flight += 1;
            self.submit(shared, Op::Write { file, buffer, start: 0, end: bytes, offset, at_most: bytes });
        }
        if self.footer_sealed && self.sealed.is_empty() && self.writes == 0 && !self.allocating {
            self.truncate_or_sync(shared);
        }
        None
    }

    /// Reserves space where the next write, or the one after it, would go beyond what is reserved.
    fn reserve(&mut self, shared: &mut Shared) {
        let (Some(allocated), Some(file)) = (self.allocated, &self.file) else { return };
        let wanted = self.sealed.back().map_or(0, |last| last.offset + last.bytes as u64);
        if self.allocating || wanted <= allocated {
            return;
        }
        let first = if allocated == 0 { self.sealer.layout().file_bytes(self.spec.expected_bytes) } else { 0 };
        // Where the end is known, not a byte more.
        let step = if self.footer_sealed { 0 } else { shared.preallocate_bytes };
        let upto = wanted.max(allocated + step).max(first).next_multiple_of(PAGE_BYTES as u64);
        let op = Op::Allocate { file: Arc::clone(file), offset: allocated, bytes: upto - allocated };
        self.allocating = true;
        self.submit(shared, op);
    }

    fn truncate_or_sync(&mut self, shared: &mut Shared) {
        let Some(file) = self.file.clone() else { return };
        let bytes = self.sealer.layout().file_bytes(self.sealer.payload_bytes());
        if self.allocated.is_some_and(|allocated| allocated > bytes) {
            self.phase = Phase::Truncating;
            self.submit(shared, Op::Truncate { file, bytes });
        } else {
            self.phase = Phase::Syncing;
            self.submit(shared, Op::Sync { file });
        }
    }

    /// Gives back what the stream holds, then closes and removes the file once nothing is in flight on it.
    fn drive_lost(&mut self, shared: &mut Shared) -> Option<Event> {
        shared.free.extend(self.sealed.drain(..).map(|sealed| sealed.buffer));
        shared.free.extend(self.filling.take());
        if self.writes > 0 || self.allocating || self.phase != Phase::Open {
            return None;
        }
        if self.file.is_some() {
            self.close(shared);
        } else if self.created {
            self.phase = Phase::Removing;
            self.submit(shared, Op::Unlink { path: self.spec.path.clone() });
        } else {
            return Some(self.lost_event(None));
        }
        None
    }

    fn close(&mut self, shared: &mut Shared) {
        self.phase = Phase::Closing;
        // Nothing is in flight, so this is the only one that has it.
        let file = self.file.take().and_then(Arc::into_inner);
        debug_assert!(file.is_some());
        self.submit(shared, Op::Close { file });
    }

    fn lost_event(&mut self, left_behind: Option<io::Error>) -> Event {
        match self.failure.take() {
            Some(failure) => Event::Failed { stream: self.id, failure, left_behind },
            None => Event::Aborted { stream: self.id, left_behind },
        }
    }

    /// An operation of this stream has come back. `Some` once the stream has ended.
    pub(super) fn done(&mut self, op: Op, result: io::Result<Answer>, shared: &mut Shared) -> Option<Event> {
        match (op, result) {
            (Op::Write { file, buffer, start, end, offset, .. }, result) => {
                drop(file);
                self.wrote(Sealed { buffer, bytes: end, offset }, start, result, shared);
            }
            (Op::Create { direct, .. }, result) => self.opened(direct, result, shared),
            (Op::Allocate { offset, bytes, .. }, result) => {
                self.allocating = false;
                match result {
                    Ok(_) => self.allocated = Some(offset + bytes),
                    Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                        self.allocated = None;
                    }
                    Err(error) => self.fail(Doing::Allocate, offset, error),
                }
            }
            (Op::Truncate { file, bytes }, result) => match result {
                Ok(_) if !self.is_lost() => {
                    self.phase = Phase::Syncing;
                    self.submit(shared, Op::Sync { file });
                }
                result => self.back_to_open(Doing::Truncate, bytes, result),
            },
            (Op::Sync { file }, result) => {
                drop(file);
                self.back_to_open(Doing::Sync, 0, result);
                if !self.is_lost() {
                    self.close(shared);
                }
            }
            (Op::Close { .. }, result) => {
                self.back_to_open(Doing::Close, 0, result);
                if !self.is_lost() {
                    return Some(Event::Finished { stream: self.id, written: self.written() });
                }
            }
            (Op::Unlink { .. }, result) => {
                let left = result.err().filter(|error| error.kind() != io::ErrorKind::NotFound);
                return Some(self.lost_event(left));
            }
            (Op::OpenDir { .. } | Op::Rename { .. } | Op::MakeDir { .. }, _) => {
                unreachable!("a stream never asks for it")
            }
        }
        None
    }

    fn back_to_open(&mut self, doing: Doing, offset: u64, result: io::Result<Answer>) {
        self.phase = Phase::Open;
        if let Err(error) = result {
            self.fail(doing, offset, error);
        }
    }

    fn written(&self) -> Written {
        let payload_bytes = self.sealer.payload_bytes();
        Written {
            file: self.spec.file,
            payload_bytes,
            file_bytes: self.sealer.layout().file_bytes(payload_bytes),
            digest: self.sealer.digest(),
        }
    }

    fn opened(&mut self, direct: bool, result: io::Result<Answer>, shared: &mut Shared) {
        match result {
            Ok(Answer::Opened(file)) => {
                (self.file, self.created) = (Some(Arc::new(file)), true);
                self.phase = Phase::Open;
            }
            Err(error) if direct && error.raw_os_error() == Some(libc::EINVAL) => {
                // The file system has no direct writes. Some have created the file by then.
                (self.direct, shared.direct) = (false, false);
                let _ = std::fs::remove_file(&self.spec.path);
                self.submit(shared, Op::Create { path: self.spec.path.clone(), direct: false });
            }
            result => self.back_to_open(Doing::Create, 0, result),
        }
    }

    /// A write has come back: done, short, to be tried again, or failed.
    fn wrote(&mut self, block: Sealed, start: usize, result: io::Result<Answer>, shared: &mut Shared) {
        let Sealed { buffer, bytes: end, offset } = block;
        let again = match result {
            Ok(Answer::Wrote(bytes)) if start + bytes == end => None,
            Ok(Answer::Wrote(bytes)) if bytes > 0 => Some((start + bytes, offset + bytes as u64)),
            Ok(_) => {
                self.fail(Doing::Write, offset, io::ErrorKind::WriteZero.into());
                None
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) => Some((start, offset)),
                Some(libc::EINVAL) if self.direct => {
                    shared.direct = false;
                    self.direct = false;
                    Some((start, offset))
                }
                _ => {
                    self.fail(Doing::Write, offset, error);
                    None
                }
            },
        };
        if let Some((start, offset)) = again
            && !self.is_lost()
            && let Some(file) = &self.file
        {
            self.retries += 1;
            // What is left of a short write may not be a whole number of pages.
            let unaligned = !start.is_multiple_of(PAGE_BYTES);
            if (unaligned || !self.direct)
                && let Err(error) = clear_direct(file)
            {
                self.fail(Doing::Write, offset, error);
            } else if self.retries > MAX_RETRIES {
                self.fail(Doing::Write, offset, io::Error::other("the disk took too many writes only in part"));
            } else {
                let op = Op::Write { file: Arc::clone(file), buffer, start, end, offset, at_most: end - start };
                return self.submit(shared, op);
            }
        }
        shared.free.push(buffer);
        self.writes -= 1;
        shared.writes_in_flight -= 1;
    }
}

/// Lets further writes to the file go through the page cache.
fn clear_direct(file: &File) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the file is open; no memory is passed.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    // SAFETY: as above.
    if flags < 0 || unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags & !libc::O_DIRECT) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
