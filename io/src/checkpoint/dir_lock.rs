//! `DirLock`: keeps two processes from working on one directory.
//!
//! The lock is on the directory itself, by an advisory `flock` on its descriptor. So there is no file to clean up, and
//! the system gives the lock back the moment the process that has it is gone, however it went.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// A directory that nobody else may lock in a way that contradicts this one. Dropping it gives the lock back.
#[derive(Debug)]
pub struct DirLock {
    /// None where the file system knows no locks.
    dir: Option<File>,
}

impl DirLock {
    /// Locks a directory for its only user.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) where somebody else has locked it, or what the system said of the
    /// directory.
    pub fn exclusive(dir: &Path) -> io::Result<Self> {
        Self::lock(dir, File::try_lock)
    }

    /// Locks a directory for one of several users, who all keep an exclusive one away.
    ///
    /// # Errors
    /// As [`exclusive`](Self::exclusive).
    pub fn shared(dir: &Path) -> io::Result<Self> {
        Self::lock(dir, File::try_lock_shared)
    }

    fn lock(dir: &Path, lock: fn(&File) -> Result<(), TryLockError>) -> io::Result<Self> {
        // Whatever else has the name is refused at once: a pipe would make us wait.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(dir)?;
        match lock(&file) {
            Ok(()) => Ok(Self { dir: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) if is_unsupported(&error) => {
                tracing::warn!(
                    "{} cannot be locked ({error}): nothing keeps a second process from using it",
                    dir.display()
                );
                Ok(Self { dir: None })
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Whether the file system has no such locks: some network ones refuse them, or want a file that is open for writing,
/// which no directory is. A job that could run there before still can.
fn is_unsupported(error: &io::Error) -> bool {
    const NONE: [i32; 4] = [libc::ENOLCK, libc::EBADF, libc::ENOSYS, libc::EINVAL];
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error().is_some_and(|errno| NONE.contains(&errno))
}

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing would do, were it not for a process that is just being started and still has a copy of the descriptor.
        if let Some(dir) = &self.dir {
            let _ = dir.unlock();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_taken(lock: io::Result<DirLock>) -> bool {
        matches!(lock, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    #[test]
    fn when_a_directory_is_locked_then_others_wait_for_its_end_and_nothing_lies_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::exclusive(dir.path()).unwrap();
        assert!(is_taken(DirLock::exclusive(dir.path())) && is_taken(DirLock::shared(dir.path())));
        drop(lock);
        let one = DirLock::shared(dir.path()).unwrap();
        let other = DirLock::shared(dir.path()).unwrap();
        drop(one);
        assert!(is_taken(DirLock::exclusive(dir.path())), "one of two users is left");
        drop(other);
        DirLock::exclusive(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn when_a_copy_of_the_descriptor_outlives_the_lock_then_it_is_free_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let lock = DirLock::exclusive(dir.path()).unwrap();
        let _copy = lock.dir.as_ref().unwrap().try_clone().unwrap();
        drop(lock);
        DirLock::exclusive(dir.path()).unwrap();
    }

    #[test]
    fn when_there_is_no_directory_then_that_is_the_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = DirLock::exclusive(&dir.path().join("missing")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
