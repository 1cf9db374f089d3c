//! The writer of a slot: appends to block files without ever waiting for the disk.
//!
//! One writer belongs to one slot and lives on its thread. Payload is copied into blocks of a fixed number of buffers;
//! where none is free, [`Appended::Full`] says so and the caller comes back after a [`poll`](SlotWriter::poll), which the
//! slot calls once per step. Everything that may wait for the disk (opening, reserving, writing, syncing, closing,
//! removing) is done by the kernel behind a ring, or by a helper thread where there is no io_uring.
//!
//! A file that fails is closed and removed; a failed sync is never tried again. What the writer cannot remove, the store's
//! sweep does.

mod buffers;
mod config;
mod faulty;
mod lane;
mod stream;
#[cfg(test)]
mod tests;
mod thread;
mod uring;
mod wake;

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Once},
};

pub use config::{
    Appended, Doing, Engine, Event, Fallback, MAX_REQUESTS, MAX_STREAMS, MAX_WRITES_IN_FLIGHT, Request, RequestId,
    StreamId, StreamSpec, WriteFailure, WriterConfig, WriterError,
};

use self::{
    buffers::Buffer,
    faulty::FaultyLane,
    lane::{Answer, Done, Job, Lane, Op, Owner},
    stream::{Shared, Stream},
    thread::ThreadLane,
    uring::UringLane,
    wake::Wake,
};
use super::block_format::BlockLayout;

/// Writes the block files of one slot: appends to files, and never waits for the disk.
///
/// Dropping it waits for what is in flight; files that were not finished are left to the store's sweep.
pub struct SlotWriter {
    shared: Shared,
    layout: BlockLayout,
    max_streams: usize,
    streams: Vec<Stream>,
    requests: usize,
    next_id: u64,
    done: Vec<Done>,
    wake: Arc<Wake>,
    fallback: Option<Fallback>,
    broken: bool,
    /// A ring takes operations from the thread that made it only.
    _not_send: PhantomData<*const ()>,
}

fn make_lane(
    config: &WriterConfig,
    buffers: &[Buffer],
    wake: &Arc<Wake>,
) -> Result<(Box<dyn Lane>, Option<Fallback>), WriterError> {
    let operations = config.operations();
    let mut fallback = None;
    if config.engine == Engine::Auto {
        match UringLane::new(operations, buffers, Arc::clone(wake)) {
            Ok((lane, unregistered)) => {
                let bytes = config.block_bytes * buffers.len();
                let fallback = unregistered.map(|source| Fallback::UnregisteredBuffers { bytes, source });
                return Ok((Box::new(lane), fallback));
            }
            Err(error) => fallback = Some(Fallback::HelperThread(error)),
        }
    }
    let lane = ThreadLane::new(operations, Arc::clone(wake))
        .map_err(|source| WriterError::System { what: "helper thread", source })?;
    Ok((Box::new(lane), fallback))
}

impl SlotWriter {
    /// A writer for the calling thread, on which it stays.
    ///
    /// Where the system refuses io_uring or locked memory, the writer does without and warns once per process;
    /// [`fallback`](Self::fallback) says what it does without.
    ///
    /// # Errors
    /// A configuration without sense, or no memory, eventfd or thread.
    pub fn new(mut config: WriterConfig) -> Result<Self, WriterError> {
        let layout = config.layout()?;
        let refused = |what| move |source| WriterError::System { what, source };
        let wake = Arc::new(Wake::new(config.wake.take()).map_err(refused("eventfd"))?);
        let free = buffers::map_buffers(config.block_bytes, config.buffers() as u16).map_err(refused("buffers"))?;
        let (mut lane, fallback) = make_lane(&config, &free, &wake)?;
        if let Some(fallback) = &fallback {
            static WARN: Once = Once::new();
            WARN.call_once(|| tracing::warn!("{fallback}"));
        }
        if let Some(plan) = config.faults {
            lane = Box::new(FaultyLane::new(lane, plan, Arc::clone(&wake)));
        }
        let shared = Shared {
            lane,
            free,
            writes_in_flight: 0,
            max_writes_in_flight: config.max_writes_in_flight,
            preallocate_bytes: config.preallocate_bytes,
            direct: config.direct,
        };
        Ok(Self {
            shared,
            layout,
            max_streams: config.max_streams,
            streams: Vec::with_capacity(config.max_streams),
            requests: 0,
            next_id: 0,
            done: Vec::new(),
            wake,
            fallback,
            broken: false,
            _not_send: PhantomData,
        })
    }

    /// What the writer does without.
    pub fn fallback(&self) -> Option<&Fallback> {
        self.fallback.as_ref()
    }

    /// Whether files are still written past the page cache: false as soon as a file system has refused.
    pub fn is_direct(&self) -> bool {
        self.shared.direct
    }

    /// The eventfd that completions signal. A slot that sleeps waits for it to be readable, then polls.
    pub fn completion_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Whether nothing is open, asked for, or in flight.
    pub fn is_idle(&self) -> bool {
        self.streams.is_empty() && self.requests == 0
    }

    fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Begins a file. Payload can be appended at once.
    ///
    /// # Errors
    /// Too many streams, or the writer is broken. What the disk says comes as an event.
    pub fn open(&mut self, spec: StreamSpec) -> Result<StreamId, WriterError> {
        if self.broken {
            return Err(WriterError::Broken);
        }
        if self.streams.len() >= self.max_streams {
            return Err(WriterError::Busy { what: "files open", limit: self.max_streams });
        }
        let id = StreamId(self.next_id());
        self.streams.push(Stream::new(id, spec, self.layout, &mut self.shared));
        Ok(id)
    }

    fn stream(&mut self, id: StreamId) -> Option<(&mut Stream, &mut Shared)> {
        let stream = self.streams.iter_mut().find(|stream| stream.id == id)?;
        Some((stream, &mut self.shared))
    }

    /// Appends payload: copies as much as there are buffers for. Costs a copy and a checksum of what is taken; nothing
    /// reaches the disk before the next [`poll`](Self::poll).
    pub fn try_append(&mut self, stream: StreamId, bytes: &[u8]) -> Appended {
        let Some((stream, shared)) = self.stream(stream).filter(|(stream, _)| stream.takes_payload()) else {
            return Appended::Failed;
        };
        let mut taken = 0;
        while taken < bytes.len() {
            let Some(room) = stream.block(shared) else { break };
            let now = room.len().min(bytes.len() - taken);
            room[..now].copy_from_slice(&bytes[taken..taken + now]);
            stream.advance(now);
            taken += now;
        }
        match taken {
            all if all == bytes.len() => Appended::All,
            0 => Appended::Full,
            some => Appended::Partial(some),
        }
    }

    /// Memory to write payload into without a copy; [`commit`](Self::commit) then says how much was written. At least
    /// one byte long; `None` while no buffer is free, or where [`try_append`](Self::try_append) would fail.
    pub fn room(&mut self, stream: StreamId) -> Option<&mut [u8]> {
        let (stream, shared) = self.stream(stream).filter(|(stream, _)| stream.takes_payload())?;
        stream.block(shared)
    }

    /// Takes over the first `bytes` bytes of what [`room`](Self::room) gave.
    ///
    /// # Panics
    /// If that are more than there was room for.
    pub fn commit(&mut self, stream: StreamId, bytes: usize) {
        if let Some((stream, _)) = self.stream(stream).filter(|(stream, _)| stream.takes_payload()) {
            stream.advance(bytes);
        }
    }

    /// Ends a file: the rest is written, cut to length, synced and closed; then comes [`Event::Finished`].
    pub fn finish(&mut self, stream: StreamId) {
        if let Some((stream, _)) = self.stream(stream) {
            stream.finish();
        }
    }

    /// Gives a file up: it is closed and removed; then comes [`Event::Aborted`]. One that is just being finished may
    /// still report what it has become otherwise.
    pub fn abort(&mut self, stream: StreamId) {
        if let Some((stream, _)) = self.stream(stream) {
            stream.abort();
        }
    }

    /// Asks for something that is not about one stream. [`Event::Done`] says how it went.
    ///
    /// # Errors
    /// Too many requests, or the writer is broken.
    pub fn request(&mut self, request: Request) -> Result<RequestId, WriterError> {
        if self.broken {
            return Err(WriterError::Broken);
        }
        if self.requests >= MAX_REQUESTS {
            return Err(WriterError::Busy { what: "requests", limit: MAX_REQUESTS });
        }
        self.requests += 1;
        let id = RequestId(self.next_id());
        let op = match request {
            Request::SyncDir(path) => Op::OpenDir { path },
            Request::Rename { from, to } => Op::Rename { from, to },
            Request::Unlink(path) => Op::Unlink { path },
            Request::MakeDir(path) => Op::MakeDir { path },
        };
        self.shared.lane.submit(Job { owner: Owner::Request(id), op });
        Ok(id)
    }

    fn request_done(&mut self, id: RequestId, op: Op, result: io::Result<Answer>, events: &mut Vec<Event>) {
        if let (Op::OpenDir { .. }, Ok(Answer::Opened(dir))) = (&op, &result) {
            return match dir.try_clone() {
                Ok(dir) => {
                    let op = Op::Sync { file: Arc::new(dir) };
                    self.shared.lane.submit(Job { owner: Owner::Request(id), op });
                }
                Err(error) => {
                    self.requests -= 1;
                    events.push(Event::Done { request: id, result: Err(error) });
                }
            };
        }
        self.requests -= 1;
        events.push(Event::Done { request: id, result: result.map(drop) });
    }

    /// Moves everything along without waiting, and appends what has happened to `events`. Call once per step while the
    /// writer is not [idle](Self::is_idle): costs a few loads where there is nothing to do, else one or two system calls.
    pub fn poll(&mut self, events: &mut Vec<Event>) {
        if self.broken {
            return;
        }
        // Until nothing comes back any more: what came back lets more go out, and whatever has been queued must have been
        // given to the kernel before the slot may sleep. Ends, since nothing is appended meanwhile: at most each buffer
        // is written, and each stream takes its last steps.
        loop {
            self.drive(events);
            let mut done = std::mem::take(&mut self.done);
            let result = self.shared.lane.poll(&mut done);
            let came = !done.is_empty();
            for Done { job, result } in done.drain(..) {
                match job.owner {
                    Owner::Request(id) => self.request_done(id, job.op, result, events),
                    Owner::Stream(id) => self.stream_done(id, job.op, result, events),
                }
            }
            self.done = done;
            if let Err(error) = result {
                return self.break_down(&error, events);
            }
            if !came {
                return;
            }
        }
    }

    fn stream_done(&mut self, id: StreamId, op: Op, result: io::Result<Answer>, events: &mut Vec<Event>) {
        let Some(at) = self.streams.iter().position(|stream| stream.id == id) else {
            unreachable!("a stream stays until everything of it has come back");
        };
        if let Some(event) = self.streams[at].done(op, result, &mut self.shared) {
            self.streams.swap_remove(at);
            events.push(event);
        }
    }

    fn drive(&mut self, events: &mut Vec<Event>) {
        let mut at = 0;
        while at < self.streams.len() {
            match self.streams[at].drive(&mut self.shared) {
                Some(event) => {
                    self.streams.swap_remove(at);
                    events.push(event);
                }
                None => at += 1,
            }
        }
        // The stream that was served first is served last next time.
        if self.streams.len() > 1 {
            self.streams.rotate_left(1);
        }
    }

    /// The lane is gone, and with it whatever was in flight.
    fn break_down(&mut self, error: &io::Error, events: &mut Vec<Event>) {
        self.broken = true;
        self.requests = 0;
        let again = || io::Error::new(error.kind(), error.to_string());
        events.extend(self.streams.drain(..).map(|stream| stream.into_broken(again())));
    }

    /// As [`poll`](Self::poll), but waits until something is done. For tools and tests; a slot sleeps on
    /// [`completion_fd`](Self::completion_fd) instead.
    pub fn poll_wait(&mut self, events: &mut Vec<Event>) {
        let before = events.len();
        self.poll(events);
        if events.len() == before && !self.is_idle() && !self.broken {
            if let Err(error) = self.shared.lane.wait() {
                return self.break_down(&error, events);
            }
            self.poll(events);
        }
    }
}
