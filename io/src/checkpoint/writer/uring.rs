//! The lane over io_uring: every operation goes through one ring, with the buffers registered where the system lets us.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    sync::Arc,
};

use io_uring::{IoUring, Probe, opcode, squeue, types};

use super::{
    buffers::Buffer,
    lane::{Answer, Done, Job, Lane, Op},
    thread::perform,
    wake::Wake,
};
use crate::spare_cores::spare_set;

/// Kernel threads that one ring may use for what cannot be done without waiting (opening, syncing, reserving).
const MAX_KERNEL_WORKERS: u32 = 4;
/// Operations without which the ring is of no use to us.
const NEEDED: [u8; 10] = [
    opcode::OpenAt::CODE,
    opcode::Fallocate::CODE,
    opcode::Write::CODE,
    opcode::WriteFixed::CODE,
    opcode::Fsync::CODE,
    opcode::Close::CODE,
    opcode::RenameAt::CODE,
    opcode::UnlinkAt::CODE,
    opcode::MkDirAt::CODE,
    opcode::Nop::CODE,
];

/// An operation that the kernel has, with the paths that it may still read.
struct InFlight {
    job: Job,
    _paths: [Option<CString>; 2],
}

/// A ring of one slot. Belongs to the thread that made it.
pub(crate) struct UringLane {
    ring: IoUring,
    /// By the number that the kernel gives back; never longer than what may be in flight.
    in_flight: Vec<Option<InFlight>>,
    free: Vec<usize>,
    count: usize,
    /// What could not be given to the kernel.
    ready: Vec<Done>,
    registered: bool,
    /// Whether the kernel can cut files through the ring (Linux 6.9).
    truncates: bool,
    signalled: bool,
    wake: Arc<Wake>,
}

/// Why the buffers are not registered: the ring works, at a higher cost per write.
pub(crate) type Unregistered = Option<io::Error>;

fn build_ring(entries: u32) -> io::Result<IoUring> {
    let modern = IoUring::builder()
        .setup_clamp()
        .setup_cqsize(entries * 2)
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(entries);
    match modern {
        // Linux before 6.1 does not know the flags.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::builder().setup_clamp().build(entries),
        other => other,
    }
}

impl UringLane {
    /// A ring for at most `max_in_flight` operations at once.
    pub(crate) fn new(max_in_flight: usize, buffers: &[Buffer], wake: Arc<Wake>) -> io::Result<(Self, Unregistered)> {
        let ring = build_ring(max_in_flight.next_power_of_two() as u32)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if let Some(code) = NEEDED.into_iter().find(|code| !probe.is_supported(*code)) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, format!("this kernel lacks operation {code}")));
        }
        ring.submitter().register_eventfd(wake.raw())?;
        // Unknown before Linux 5.15, and only a limit.
        let _ = ring.submitter().register_iowq_max_workers(&mut [MAX_KERNEL_WORKERS, MAX_KERNEL_WORKERS]);
        if let Some(set) = spare_set() {
            // Unknown before Linux 5.14. Without it they run on the slot's own core and hold it up.
            let _ = ring.submitter().register_iowq_aff(&set);
        }
        let vectors: Vec<libc::iovec> = buffers
            .iter()
            .map(|buffer| libc::iovec { iov_base: buffer.as_ptr().cast_mut().cast(), iov_len: buffer.len() })
            .collect();
        // SAFETY: the kernel pins the pages, so they stay valid until the ring is gone, whatever becomes of the mapping.
        let registered = unsafe { ring.submitter().register_buffers(&vectors) };
        let lane = Self {
            ring,
            in_flight: (0..max_in_flight).map(|_| None).collect(),
            free: (0..max_in_flight).rev().collect(),
            count: 0,
            ready: Vec::new(),
            registered: registered.is_ok(),
            truncates: probe.is_supported(opcode::Ftruncate::CODE),
            signalled: false,
            wake,
        };
        Ok((lane, registered.err()))
    }

    /// Gives what is queued to the kernel, and waits for `want` completions.
    fn enter(&mut self, want: usize) -> io::Result<()> {
        match self.ring.submitter().submit_and_wait(want) {
            Ok(_) => Ok(()),
            // Interrupted, or out of something for now: the next poll tries again.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: what the entry points to (paths, the buffer, the open file) is kept in `in_flight` until its completion.
        if unsafe { self.ring.submission().push(entry) }.is_ok() {
            return Ok(());
        }
        self.enter(0)?;
        // SAFETY: as above.
        unsafe { self.ring.submission().push(entry) }.map_err(|_| io::Error::other("the submission queue stays full"))
    }

    /// The entry for an operation; `None` if the ring cannot do it.
    fn entry(&self, op: &mut Op, paths: &mut [Option<CString>; 2]) -> io::Result<Option<squeue::Entry>> {
        let here = types::Fd(libc::AT_FDCWD);
        let mut text = |at: usize, path: &Path| -> io::Result<*const libc::c_char> {
            let path = CString::new(path.as_os_str().as_bytes())?;
            // Moving a CString does not move its bytes.
            Ok(paths[at].insert(path).as_ptr())
        };
        Ok(Some(match op {
            Op::Create { path, direct } => {
                let direct = if *direct { libc::O_DIRECT } else { 0 };
                let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC | direct;
                opcode::OpenAt::new(here, text(0, path)?).flags(flags).mode(0o644).build()
            }
            Op::OpenDir { path } => {
                let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
                opcode::OpenAt::new(here, text(0, path)?).flags(flags).build()
            }
            Op::Allocate { file, offset, bytes } => {
                opcode::Fallocate::new(types::Fd(file.as_raw_fd()), *bytes).offset(*offset).build()
            }
            Op::Write { file, buffer, start, end, offset, at_most } => {
                let bytes = &buffer[*start..(*end).min(*start + *at_most)];
                let (file, length) = (types::Fd(file.as_raw_fd()), bytes.len() as u32);
                if self.registered {
                    opcode::WriteFixed::new(file, bytes.as_ptr(), length, buffer.index()).offset(*offset).build()
                } else {
                    opcode::Write::new(file, bytes.as_ptr(), length).offset(*offset).build()
                }
            }
            Op::Truncate { file, bytes } if self.truncates => {
                opcode::Ftruncate::new(types::Fd(file.as_raw_fd()), *bytes).build()
            }
            // Nothing is in flight on the file by then, so that it takes microseconds.
            Op::Truncate { .. } => return Ok(None),
            Op::Sync { file } => {
                let flags = types::FsyncFlags::DATASYNC;
                opcode::Fsync::new(types::Fd(file.as_raw_fd())).flags(flags).build()
            }
            Op::Close { file } => match file.take() {
                Some(file) => opcode::Close::new(types::Fd(file.into_raw_fd())).build(),
                None => return Ok(None),
            },
            Op::Rename { from, to } => opcode::RenameAt::new(here, text(0, from)?, here, text(1, to)?).build(),
            Op::Unlink { path } => opcode::UnlinkAt::new(here, text(0, path)?).build(),
            Op::MakeDir { path } => opcode::MkDirAt::new(here, text(0, path)?).mode(0o755).build(),
        }))
    }

    fn reap(&mut self, done: &mut Vec<Done>) -> bool {
        let before = done.len();
        for completion in self.ring.completion() {
            let at = completion.user_data() as usize;
            let Some(InFlight { job, .. }) = self.in_flight.get_mut(at).and_then(Option::take) else {
                unreachable!("the kernel completed operation {at}, which is not in flight");
            };
            self.free.push(at);
            self.count -= 1;
            let result = match completion.result() {
                error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
                fd if matches!(job.op, Op::Create { .. } | Op::OpenDir { .. }) => {
                    // SAFETY: the kernel has just opened it for us, and nobody else has it.
                    Ok(Answer::Opened(unsafe { OwnedFd::from_raw_fd(fd) }.into()))
                }
                bytes if matches!(job.op, Op::Write { .. }) => Ok(Answer::Wrote(bytes as usize)),
                _ => Ok(Answer::Nothing),
            };
            done.push(Done { job, result });
        }
        done.len() > before
    }
}

impl Lane for UringLane {
    fn submit(&mut self, mut job: Job) {
        let mut paths = [None, None];
        let entry = self.entry(&mut job.op, &mut paths);
        let result = match entry {
            Ok(Some(entry)) => {
                let at = self.free.pop().expect("the writer keeps to what may be in flight");
                // Kept first: the kernel may look at it as soon as it is queued.
                self.in_flight[at] = Some(InFlight { job, _paths: paths });
                // By a kernel thread: on the way into the kernel a direct write waits for the lock of the file's block map,
                // which the completion of the one before it holds for milliseconds. The slot would wait with it.
                let entry = entry.user_data(at as u64).flags(squeue::Flags::ASYNC);
                let Err(error) = self.push(&entry) else {
                    self.count += 1;
                    return;
                };
                self.free.push(at);
                job = self.in_flight[at].take().expect("put there above").job;
                Err(error)
            }
            Ok(None) => perform(&mut job.op),
            Err(error) => Err(error),
        };
        self.ready.push(Done { job, result });
        self.wake.signal();
        self.signalled = true;
    }

    fn poll(&mut self, done: &mut Vec<Done>) -> io::Result<()> {
        let (queued, deferred) = {
            let queue = self.ring.submission();
            (!queue.is_empty(), queue.taskrun() || queue.cq_overflow())
        };
        let completed = !self.ring.completion().is_empty();
        // Drained before looking, so that a signal after the look is not lost; and once more after something came, since
        // its signal may have come behind the last drain. A slot would else be woken for nothing, again and again.
        if self.signalled || deferred || completed {
            self.wake.drain();
            self.signalled = false;
        }
        done.append(&mut self.ready);
        if queued || deferred {
            self.enter(0)?;
        }
        self.signalled |= self.reap(done);
        Ok(())
    }

    fn wait(&mut self) -> io::Result<()> {
        if self.ready.is_empty() && self.count > 0 { self.enter(1) } else { Ok(()) }
    }
}

impl Drop for UringLane {
    /// Waits for what is in flight: the kernel may still read the buffers and paths.
    fn drop(&mut self) {
        let mut done = Vec::new();
        while self.count > 0 {
            let came = self.wait().is_ok() && {
                self.reap(&mut done);
                true
            };
            if !came {
                // The ring is broken: rather leak the memory than free what the kernel might read.
                std::mem::forget(std::mem::take(&mut self.in_flight));
                return;
            }
        }
    }
}
