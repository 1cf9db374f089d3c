//! Faults on request: the Nth write, sync or rename fails, the disk is full, the power goes.
//!
//! A plan is shared by everything that should see the same faults: [`FaultyDisk`] around a store's disk, and
//! [`WriterConfig::faults`](super::WriterConfig). It also keeps a log of what was done, from which a test can tell
//! whether things were made durable in the right order.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use super::{
    dir_lock::DirLock,
    disk::{DirEntry, Disk},
};

/// A kind of operation on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Opening or creating a file.
    Open,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Reserving space ahead of writes.
    Allocate,
    /// Cutting a file to its length.
    Truncate,
    /// Making a file or directory durable.
    Sync,
    /// Renaming.
    Rename,
    /// Removing a file.
    Unlink,
    /// Making a directory.
    MakeDir,
    /// Removing a directory.
    RemoveDir,
    /// Listing a directory.
    List,
}

impl Operation {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Open,
        Self::Read,
        Self::Write,
        Self::Allocate,
        Self::Truncate,
        Self::Sync,
        Self::Rename,
        Self::Unlink,
        Self::MakeDir,
        Self::RemoveDir,
        Self::List,
    ];

    /// Whether it changes what is on the disk, or makes a change durable.
    pub const fn changes(self) -> bool {
        !matches!(self, Self::Read | Self::List)
    }
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is done.
    Go,
    /// Only so many bytes of a write are done.
    Short(usize),
    /// It fails with this error number, and nothing is done.
    Fail(i32),
    /// A write is torn: so many bytes reach the disk, and it fails.
    Torn(usize, i32),
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    operation: Operation,
    /// Counted from 1, from the start of the plan.
    nth: u64,
    errno: i32,
    forever: bool,
}

#[derive(Debug, Default)]
struct State {
    counts: [u64; Operation::ALL.len()],
    changes: u64,
    faults: Vec<Fault>,
    short_write: Option<u64>,
    crash_at: Option<u64>,
    disk_bytes: Option<u64>,
    log: Option<Vec<(Operation, PathBuf)>>,
    injected: u64,
}

/// Which operations fail. Everything succeeds until told otherwise; may be changed while in use.
#[derive(Debug, Default)]
pub struct FaultPlan {
    // Held for a few instructions by test threads only.
    state: Mutex<State>,
}

impl FaultPlan {
    /// A plan without faults.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The `nth` operation of a kind from now on (1: the next) fails with `errno`, once.
    pub fn fail_nth(&self, operation: Operation, nth: u64, errno: i32) {
        let mut state = self.state();
        let nth = state.counts[operation as usize] + nth;
        state.faults.push(Fault { operation, nth, errno, forever: false });
    }

    /// The `nth` operation of a kind from now on (1: the next) and all after it fail with `errno`.
    pub fn fail_from(&self, operation: Operation, nth: u64, errno: i32) {
        let mut state = self.state();
        let nth = state.counts[operation as usize] + nth;
        state.faults.push(Fault { operation, nth, errno, forever: true });
    }

    /// The `nth` write from now on writes half of its bytes and says so.
    pub fn short_write(&self, nth: u64) {
        let mut state = self.state();
        state.short_write = Some(state.counts[Operation::Write as usize] + nth);
    }

    /// The power goes at the `nth` operation from now on that [changes](Operation::changes) something: that one and
    /// everything after it fails with `EIO`, and a write leaves half of its bytes.
    pub fn crash_at(&self, nth: u64) {
        let mut state = self.state();
        state.crash_at = Some(state.changes + nth);
    }

    /// After so many more bytes writes fail with `ENOSPC`.
    pub fn disk_full_after(&self, bytes: u64) {
        self.state().disk_bytes = Some(bytes);
    }

    /// Forgets every fault; counts and log stay.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        (state.short_write, state.crash_at, state.disk_bytes) = (None, None, None);
    }

    /// How many operations of a kind there have been.
    pub fn count(&self, operation: Operation) -> u64 {
        self.state().counts[operation as usize]
    }

    /// How many operations there have been that change something.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// How many faults have been injected.
    pub fn injected(&self) -> u64 {
        self.state().injected
    }

    /// Begins to log what is done, from an empty log.
    pub fn start_log(&self) {
        self.state().log = Some(Vec::new());
    }

    /// What was done since [`start_log`](Self::start_log), in order, without what was made to fail.
    pub fn log(&self) -> Vec<(Operation, PathBuf)> {
        self.state().log.clone().unwrap_or_default()
    }

    /// Decides about an operation on `bytes` bytes and counts it.
    pub(crate) fn decide(&self, operation: Operation, bytes: usize, path: impl FnOnce() -> PathBuf) -> Verdict {
        let mut state = self.state();
        state.counts[operation as usize] += 1;
        state.changes += u64::from(operation.changes());
        let verdict = state.judge(operation, bytes);
        match verdict {
            Verdict::Go | Verdict::Short(_) => {
                if let Some(budget) = &mut state.disk_bytes
                    && operation == Operation::Write
                {
                    *budget -= if let Verdict::Short(short) = verdict { short as u64 } else { bytes as u64 };
                }
                if let Some(log) = &mut state.log {
                    log.push((operation, path()));
                }
            }
            Verdict::Fail(_) | Verdict::Torn(..) => state.injected += 1,
        }
        verdict
    }
}

impl State {
    fn judge(&self, operation: Operation, bytes: usize) -> Verdict {
        let count = self.counts[operation as usize];
        let is_write = operation == Operation::Write;
        if let Some(at) = self.crash_at
            && self.changes >= at
        {
            let torn = is_write && self.changes == at;
            return if torn { Verdict::Torn(bytes / 2, libc::EIO) } else { Verdict::Fail(libc::EIO) };
        }
        let hit = |fault: &&Fault| {
            fault.operation == operation && (count == fault.nth || (fault.forever && count > fault.nth))
        };
        if let Some(fault) = self.faults.iter().find(hit) {
            return Verdict::Fail(fault.errno);
        }
        match self.disk_bytes {
            Some(budget) if is_write && budget < bytes as u64 => Verdict::Fail(libc::ENOSPC),
            _ if is_write && self.short_write == Some(count) => Verdict::Short(bytes / 2),
            _ => Verdict::Go,
        }
    }
}

/// The path of an open file, for the log.
pub(crate) fn path_of(file: &impl AsRawFd) -> PathBuf {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default()
}

/// A disk with faults.
pub struct FaultyDisk<D> {
    inner: D,
    plan: Arc<FaultPlan>,
}

impl<D: Disk> FaultyDisk<D> {
    /// `inner`, as far as the plan lets operations through.
    pub fn new(inner: D, plan: Arc<FaultPlan>) -> Self {
        Self { inner, plan }
    }

    fn check(&self, operation: Operation, path: &Path) -> io::Result<()> {
        match self.plan.decide(operation, 0, || path.to_path_buf()) {
            Verdict::Go | Verdict::Short(_) => Ok(()),
            Verdict::Fail(errno) | Verdict::Torn(_, errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn check_file(&self, operation: Operation, file: &File) -> io::Result<()> {
        match self.plan.decide(operation, 0, || path_of(file)) {
            Verdict::Go | Verdict::Short(_) => Ok(()),
            Verdict::Fail(errno) | Verdict::Torn(_, errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

impl<D: Disk> Disk for FaultyDisk<D> {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.check(Operation::Open, path)?;
        self.inner.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        // Reading does not count as a change of the disk.
        self.check(Operation::Read, path)?;
        self.inner.open(path)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        match self.plan.decide(Operation::Write, bytes.len(), || path_of(file)) {
            Verdict::Go => self.inner.write_at(file, bytes, offset),
            Verdict::Short(short) => self.inner.write_at(file, &bytes[..short], offset),
            Verdict::Torn(torn, errno) => {
                self.inner.write_at(file, &bytes[..torn], offset)?;
                Err(io::Error::from_raw_os_error(errno))
            }
            Verdict::Fail(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.check_file(Operation::Read, file)?;
        self.inner.read_at(file, bytes, offset)
    }

    fn length(&self, file: &File) -> io::Result<u64> {
        self.inner.length(file)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.check_file(Operation::Sync, file)?;
        self.inner.sync(file)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.check(Operation::Sync, path)?;
        self.inner.sync_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Operation::Rename, to)?;
        self.inner.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.check(Operation::Unlink, path)?;
        self.inner.unlink(path)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.check(Operation::MakeDir, path)?;
        self.inner.make_dir(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.check(Operation::RemoveDir, path)?;
        self.inner.remove_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.check(Operation::List, path)?;
        self.inner.list(path)
    }

    fn lock_dir(&self, path: &Path) -> io::Result<DirLock> {
        self.inner.lock_dir(path)
    }

    fn share_dir(&self, path: &Path) -> io::Result<DirLock> {
        self.inner.share_dir(path)
    }
}
