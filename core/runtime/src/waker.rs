//! `SlotWaker`: how anyone wakes a parked slot, and how a slot parks without missing it.
//!
//! The word that both sides look at is a `ParkWord`; what ends the sleep is an event descriptor.

use std::{
    fmt, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use crate::park_word::ParkWord;

struct Shared {
    word: ParkWord,
    event: OwnedFd,
}

/// Wakes one slot. Cheap to clone; any thread may use it.
#[derive(Clone)]
pub struct SlotWaker(Arc<Shared>);

impl fmt::Debug for SlotWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SlotWaker").field(&self.0.event.as_raw_fd()).finish()
    }
}

impl SlotWaker {
    /// A waker for a slot that is at work.
    ///
    /// # Errors
    /// Those of `eventfd`: no file descriptors left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: plain system call without pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just opened and belongs to nobody else.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(Arc::new(Shared { word: ParkWord::new(), event })))
    }

    /// Makes the slot take a turn and poll its sources, even those that wait without a deadline.
    pub fn wake(&self) {
        if self.0.word.notify() {
            self.ring();
        }
    }

    /// Wakes the slot only if it sleeps. The caller must have published, then passed a SeqCst fence.
    #[inline]
    pub(crate) fn wake_if_parked(&self) {
        if self.0.word.is_parked() {
            self.wake();
        }
    }

    #[cold]
    fn ring(&self) {
        let one = 1u64;
        // SAFETY: writes the eight bytes of `one`. It can only fail when the counter is full: then it rings anyway.
        unsafe { libc::write(self.0.event.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Takes a notification, if there is one. Slot only.
    #[inline]
    pub(crate) fn take_notified(&self) -> bool {
        self.0.word.take_notified()
    }

    /// Announces that the slot is about to sleep; false if it was notified meanwhile and must not. When it answers
    /// true, look at every input once more, then call [`park`](Self::park) or [`stay`](Self::stay). Slot only.
    #[must_use]
    pub(crate) fn prepare_park(&self) -> bool {
        self.0.word.prepare_park()
    }

    /// Takes back [`prepare_park`](Self::prepare_park): there is work. Slot only.
    pub(crate) fn stay(&self) {
        self.0.word.stay();
    }

    /// Sleeps until woken or until `timeout` has passed. Slot only, after [`prepare_park`](Self::prepare_park).
    pub(crate) fn park(&self, timeout: Option<Duration>) {
        if self.0.word.is_parked() {
            poll_readable(&mut [self.poll_entry()], timeout);
        }
        self.drain();
        self.stay();
    }

    /// Empties the event counter.
    pub(crate) fn drain(&self) {
        let mut count = 0u64;
        // SAFETY: reads eight bytes into `count`; non-blocking.
        unsafe { libc::read(self.0.event.as_raw_fd(), (&raw mut count).cast(), 8) };
    }

    /// The event that ends the slot's sleep, for somebody who rings it in another way.
    ///
    /// # Errors
    /// No file descriptors left.
    pub(crate) fn event_fd(&self) -> io::Result<OwnedFd> {
        self.0.event.try_clone()
    }

    /// What [`poll_readable`] takes: the event is readable when the slot has been woken from its sleep.
    pub(crate) fn poll_entry(&self) -> libc::pollfd {
        libc::pollfd { fd: self.0.event.as_raw_fd(), events: libc::POLLIN, revents: 0 }
    }
}

/// Waits until one of the descriptors, all asked about reading, is readable or the time is over. A signal may end the wait early.
pub(crate) fn poll_readable(polled: &mut [libc::pollfd], timeout: Option<Duration>) {
    let time = timeout
        .map(|t| libc::timespec { tv_sec: t.as_secs() as libc::time_t, tv_nsec: t.subsec_nanos() as libc::c_long });
    let time = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `polled` and `time` live through the call; a null mask leaves the signal mask alone.
    unsafe { libc::ppoll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, time, std::ptr::null()) };
}
