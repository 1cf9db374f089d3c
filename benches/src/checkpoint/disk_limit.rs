//! What the disk does by itself: plain threads that write or read whole blocks past the page cache.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

/// Bytes of a block: as the checkpoint writer has them.
pub(super) const BLOCK_BYTES: usize = 512 << 10;
/// Blocks on their way at once, of each file: as the checkpoint writer has them.
pub(super) const DEPTH: usize = 8;
/// Direct transfers are to and from multiples of this in memory.
const ALIGN: usize = 4096;

/// A directory of one measurement, removed with all that is in it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A fresh directory below `parent`, or below the working directory: on its disk.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn below(parent: Option<&Path>) -> std::io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("thalweg-bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let dir = match parent {
            Some(parent) => parent.join(name),
            None => std::env::current_dir()?.join(name),
        };
        fs::create_dir_all(&dir)?;
        Ok(Self(dir))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed stays, for the user to see.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Opens past the page cache, or through it where the file system does not take that.
fn open(options: &mut OpenOptions, path: &Path) -> std::io::Result<File> {
    match options.custom_flags(libc::O_DIRECT).open(path) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => options.custom_flags(0).open(path),
        other => other,
    }
}

/// A block that direct transfers take.
struct Block {
    bytes: Vec<u8>,
    from: usize,
}

impl Block {
    fn new() -> Self {
        let bytes: Vec<u8> = (0..BLOCK_BYTES + ALIGN).map(|at| (at * 31) as u8).collect();
        let from = bytes.as_ptr().align_offset(ALIGN).min(ALIGN);
        Self { bytes, from }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..self.from + BLOCK_BYTES]
    }
}

/// Writes `bytes` into `files` new files in `dir`, makes them durable, and removes them; the seconds of the writing.
///
/// # Errors
/// The disk refuses.
pub(super) fn write(dir: &Path, files: usize, bytes: u64) -> std::io::Result<f64> {
    let blocks = bytes.div_ceil((files * BLOCK_BYTES) as u64).max(1);
    let paths: Vec<PathBuf> = (0..files).map(|n| dir.join(format!("limit-{n}.bin"))).collect();
    let started = Instant::now();
    let done = std::thread::scope(|scope| {
        let writers: Vec<_> = paths.iter().map(|path| scope.spawn(move || write_file(path, blocks))).collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a limit's thread does not panic"))
    });
    let seconds = started.elapsed().as_secs_f64();
    for path in &paths {
        fs::remove_file(path)?;
    }
    done.map(|()| seconds)
}

fn write_file(path: &Path, blocks: u64) -> std::io::Result<()> {
    let file = open(OpenOptions::new().write(true).create(true).truncate(true), path)?;
    let bytes = i64::try_from(blocks * BLOCK_BYTES as u64).unwrap_or(i64::MAX);
    // SAFETY: reserves space in a file that is open. Where the system refuses, the writes reserve it.
    let _ = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes) };
    std::thread::scope(|scope| {
        let lane = |lane: u64| {
            let file = &file;
            move || {
                let mut block = Block::new();
                let numbers = (lane..blocks).step_by(DEPTH);
                numbers.into_iter().try_for_each(|n| file.write_all_at(block.bytes(), n * BLOCK_BYTES as u64))
            }
        };
        let lanes: Vec<_> = (0..DEPTH as u64).map(|n| scope.spawn(lane(n))).collect();
        lanes.into_iter().try_for_each(|lane| lane.join().expect("a limit's thread does not panic"))
    })?;
    file.sync_all()
}

/// Reads files from beginning to end, `threads` at a time with [`DEPTH`] blocks each; bytes and seconds.
///
/// # Errors
/// The disk refuses.
pub(super) fn read(files: &[PathBuf], threads: usize) -> std::io::Result<(u64, f64)> {
    let mut work = Vec::new();
    for path in files {
        let bytes = fs::metadata(path)?.len();
        let file = open(OpenOptions::new().read(true), path)?;
        work.push((file, bytes));
    }
    let total: u64 = work.iter().map(|(_, bytes)| bytes).sum();
    let lanes = threads.max(1) * DEPTH;
    let started = Instant::now();
    std::thread::scope(|scope| {
        let lane = |lane: usize| {
            let work = &work;
            move || {
                let mut block = Block::new();
                let mut n = 0;
                for (file, bytes) in work {
                    for at in (0..*bytes).step_by(BLOCK_BYTES) {
                        if n % lanes == lane {
                            file.read_at(block.bytes(), at)?;
                        }
                        n += 1;
                    }
                }
                Ok(())
            }
        };
        let running: Vec<_> = (0..lanes).map(|n| scope.spawn(lane(n))).collect();
        running.into_iter().try_for_each(|lane| lane.join().expect("a limit's thread does not panic"))
    })
    .map(|()| (total, started.elapsed().as_secs_f64()))
}

/// Makes the system forget what it has cached of files, as far as it likes.
pub(super) fn forget(files: &[PathBuf]) {
    for file in files.iter().filter_map(|path| File::open(path).ok()) {
        // SAFETY: a hint on a file that is open.
        let _ = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
}

/// Bytes per second of `fio` with as many files of as many bytes, or `None` where it is not installed.
pub(super) fn fio(dir: &Path, files: usize, bytes: u64) -> Option<f64> {
    let output = Command::new("fio")
        .args(["--name=limit", "--rw=write", "--ioengine=io_uring", "--direct=1", "--end_fsync=1"])
        .args(["--fallocate=native", "--group_reporting", "--unlink=1"])
        .args([format!("--numjobs={files}"), format!("--size={}", bytes / files as u64)])
        .args([format!("--bs={BLOCK_BYTES}"), format!("--iodepth={DEPTH}")])
        .args(["--output-format=terse", "--terse-version=3"])
        .arg(format!("--directory={}", dir.display()))
        .output()
        .ok()?;
    // Field 48 of the terse format: bandwidth of writes in KiB/s.
    let text = String::from_utf8(output.stdout).ok()?;
    text.split(';').nth(47)?.parse::<f64>().ok().map(|kib| kib * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_files_are_written_and_read_then_all_bytes_are_and_nothing_is_left() {
        let scratch = Scratch::below(Some(&std::env::temp_dir())).unwrap();
        assert!(write(scratch.path(), 2, 3 << 20).unwrap() > 0.0);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        let file = scratch.path().join("some");
        fs::write(&file, vec![7; 1_000_001]).unwrap();
        forget(std::slice::from_ref(&file));
        let (bytes, seconds) = read(&[file], 2).unwrap();
        assert!(bytes == 1_000_001 && seconds > 0.0);
        let path = scratch.path().to_path_buf();
        drop(scratch);
        assert!(!path.exists());
    }
}
