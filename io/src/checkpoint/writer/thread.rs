//! The lane without io_uring: a plain thread that does one operation after the other.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    thread::JoinHandle,
};

use super::{
    lane::{Answer, Done, Job, Lane, Op},
    wake::Wake,
};
use crate::spare_cores::run_on_spare_cores;

/// A helper thread and the two queues to it. Both hold at least as much as may be in flight, so neither end ever waits
/// for room.
pub(crate) struct ThreadLane {
    jobs: Option<SyncSender<Job>>,
    done: Receiver<Done>,
    /// What `wait` has taken out of `done`.
    waited: Option<Done>,
    in_flight: usize,
    signalled: bool,
    wake: Arc<Wake>,
    thread: Option<JoinHandle<()>>,
}

impl ThreadLane {
    pub(crate) fn new(max_in_flight: usize, wake: Arc<Wake>) -> io::Result<Self> {
        let (jobs, todo) = sync_channel::<Job>(max_in_flight);
        let (finished, done) = sync_channel(max_in_flight);
        let waker = Arc::clone(&wake);
        let thread = std::thread::Builder::new().name("checkpoint-writer".into()).spawn(move || {
            run_on_spare_cores();
            for mut job in todo {
                let result = perform(&mut job.op);
                if finished.send(Done { job, result }).is_err() {
                    return;
                }
                waker.signal();
            }
        })?;
        Ok(Self { jobs: Some(jobs), done, waited: None, in_flight: 0, signalled: false, wake, thread: Some(thread) })
    }
}

fn gone() -> io::Error {
    io::Error::other("the checkpoint writer's thread is gone")
}

impl Lane for ThreadLane {
    fn submit(&mut self, job: Job) {
        self.in_flight += 1;
        if let Some(jobs) = &self.jobs
            && jobs.try_send(job).is_err()
        {
            // Full cannot be; where the thread is gone, `poll` says so.
            self.jobs = None;
        }
    }

    fn poll(&mut self, done: &mut Vec<Done>) -> io::Result<()> {
        if self.signalled {
            self.wake.drain();
            self.signalled = false;
        }
        let before = done.len();
        done.extend(self.waited.take());
        let state = loop {
            match self.done.try_recv() {
                Ok(one) => done.push(one),
                Err(state) => break state,
            }
        };
        let came = done.len() - before;
        self.in_flight -= came;
        self.signalled = came > 0;
        let broken = state == TryRecvError::Disconnected || self.jobs.is_none();
        if broken && came == 0 && self.in_flight > 0 { Err(gone()) } else { Ok(()) }
    }

    fn wait(&mut self) -> io::Result<()> {
        if self.in_flight > 0 && self.waited.is_none() {
            self.waited = Some(self.done.recv().map_err(|_| gone())?);
        }
        Ok(())
    }
}

impl Drop for ThreadLane {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been said by the panic hook; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

/// Creates a file, which must not exist.
fn create(path: &Path, direct: bool) -> io::Result<File> {
    let flags = if direct { libc::O_DIRECT } else { 0 };
    OpenOptions::new().write(true).create_new(true).custom_flags(flags).mode(0o644).open(path)
}

/// Reserves space. Where the file system cannot, that is no error: it will find space as it writes.
fn allocate(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let (offset, bytes) = (i64::try_from(offset).map_err(too_large)?, i64::try_from(bytes).map_err(too_large)?);
    // SAFETY: no memory is passed, and the file is open.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), 0, offset, bytes) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Does an operation, and waits for it.
pub(crate) fn perform(op: &mut Op) -> io::Result<Answer> {
    let nothing = |()| Answer::Nothing;
    match op {
        Op::Create { path, direct } => create(path, *direct).map(Answer::Opened),
        Op::OpenDir { path } => File::open(path).map(Answer::Opened),
        Op::Allocate { file, offset, bytes } => allocate(file, *offset, *bytes).map(nothing),
        Op::Write { file, buffer, start, end, offset, at_most } => {
            let end = (*end).min(*start + *at_most);
            file.write_at(&buffer[*start..end], *offset).map(Answer::Wrote)
        }
        Op::Truncate { file, bytes } => file.set_len(*bytes).map(nothing),
        Op::Sync { file } => file.sync_data().map(nothing),
        Op::Close { file } => {
            drop(file.take());
            Ok(Answer::Nothing)
        }
        Op::Rename { from, to } => std::fs::rename(from, to).map(nothing),
        Op::Unlink { path } => std::fs::remove_file(path).map(nothing),
        Op::MakeDir { path } => std::fs::create_dir(path).map(nothing),
    }
}
