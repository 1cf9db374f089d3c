//! `ParkWord`: whether a slot works, sleeps, or has been called.
//!
//! The slot says that it is parked, looks at all its inputs once more, and only then sleeps. A sender publishes first and
//! looks at the word after. A sequentially consistent fence between the two steps of each makes one of them see the
//! other: no wake is lost, and none is sent to a slot that works.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, Ordering, fence};

/// The slot is at work.
const RUNNING: u32 = 0;
/// The slot sleeps, or is about to.
const PARKED: u32 = 1;
/// Somebody has called since the slot last looked.
const NOTIFIED: u32 = 2;

/// The word. The slot writes *running* and *parked*, callers write *notified*.
pub(crate) struct ParkWord(AtomicU32);

impl ParkWord {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(RUNNING))
    }

    /// Calls the slot. True if it may be asleep and the caller must wake it.
    #[must_use]
    pub(crate) fn notify(&self) -> bool {
        self.0.swap(NOTIFIED, Ordering::SeqCst) == PARKED
    }

    /// Whether the slot has said that it is parked. For senders after a SeqCst fence, and for the slot itself.
    #[inline]
    pub(crate) fn is_parked(&self) -> bool {
        self.0.load(Ordering::Relaxed) == PARKED
    }

    /// Takes a call, if there is one. Slot only.
    #[inline]
    pub(crate) fn take_notified(&self) -> bool {
        self.0.load(Ordering::Relaxed) == NOTIFIED && self.0.swap(RUNNING, Ordering::SeqCst) == NOTIFIED
    }

    /// Says that the slot is parked, unless it was called meanwhile. Slot only; look at every input afterwards.
    #[must_use]
    pub(crate) fn prepare_park(&self) -> bool {
        let prepared = self.0.compare_exchange(RUNNING, PARKED, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        fence(Ordering::SeqCst);
        prepared
    }

    /// Takes back [`prepare_park`](Self::prepare_park); a call that came in between stays. Slot only.
    pub(crate) fn stay(&self) {
        let _ = self.0.compare_exchange(PARKED, RUNNING, Ordering::SeqCst, Ordering::SeqCst);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{
        sync::{Arc, atomic::AtomicBool},
        thread,
    };

    use super::*;

    #[derive(Default)]
    struct Shared {
        /// What a sender publishes, and the event that ends a sleep.
        published: [AtomicBool; 2],
        event: AtomicBool,
    }

    /// The slot parks once. Whatever is published must have been seen before, or the event rings.
    fn slot(word: &ParkWord, shared: &Shared) -> bool {
        let seen = || shared.published.iter().all(|p| p.load(Ordering::Acquire));
        if seen() || !word.prepare_park() {
            return true;
        }
        if seen() {
            word.stay();
            return true;
        }
        false
    }

    #[test]
    fn when_a_sender_publishes_while_the_slot_parks_then_it_is_seen_or_rung_for() {
        loom::model(|| {
            let shared = Arc::new((ParkWord::new(), Shared::default()));
            let senders: Vec<_> = (0..2)
                .map(|sender| {
                    let shared = shared.clone();
                    thread::spawn(move || {
                        let (word, shared) = &*shared;
                        shared.published[sender].store(true, Ordering::Release);
                        fence(Ordering::SeqCst);
                        if word.is_parked() && word.notify() {
                            shared.event.store(true, Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            let (word, state) = &*shared;
            let awake = slot(word, state);
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            assert!(awake || state.event.load(Ordering::Relaxed), "asleep, with everything published");
        });
    }

    #[test]
    fn when_called_while_it_parks_then_the_slot_stays_or_is_rung_for() {
        loom::model(|| {
            let shared = Arc::new((ParkWord::new(), AtomicBool::new(false)));
            let other = shared.clone();
            let caller = thread::spawn(move || {
                if other.0.notify() {
                    other.1.store(true, Ordering::Relaxed);
                }
            });
            let notified = shared.0.take_notified();
            let parked = !notified && shared.0.prepare_park();
            caller.join().unwrap();
            assert!(!parked || shared.1.load(Ordering::Relaxed));
        });
    }
}
