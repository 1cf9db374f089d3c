//! The eventfd by which completions wake a sleeping slot.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

/// An eventfd: the writer's own, or one that the slot already sleeps on.
#[derive(Debug)]
pub(crate) struct Wake {
    file: File,
    own: bool,
}

impl Wake {
    /// Takes the slot's eventfd, or makes one.
    pub(crate) fn new(slot: Option<OwnedFd>) -> io::Result<Self> {
        if let Some(fd) = slot {
            return Ok(Self { file: File::from(fd), own: false });
        }
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else has it.
        Ok(Self { file: File::from(unsafe { OwnedFd::from_raw_fd(fd) }), own: true })
    }

    /// Wakes the slot. The counter cannot overflow in practice; if it did, the slot would be awake anyway.
    pub(crate) fn signal(&self) {
        let _ = (&self.file).write(&1u64.to_ne_bytes());
    }

    /// Takes back all signals, if the eventfd is the writer's own: the slot drains its own by itself.
    pub(crate) fn drain(&self) {
        if self.own {
            let _ = (&self.file).read(&mut [0; 8]);
        }
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
