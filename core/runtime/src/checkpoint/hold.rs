//! `SnapshotHold`: something that must be safe before a task's part of a checkpoint is, and becomes so elsewhere.

use std::sync::{Arc, OnceLock};

use crate::SlotWaker;

/// Keeps the acknowledgement of a checkpoint back until it is [`done`](Self::done): for work that would stop the slot,
/// such as syncing a file, and is done by another thread. Dropped before that, it fails the checkpoint.
#[derive(Debug)]
pub struct SnapshotHold(Arc<State>);

/// The slot's end of a hold.
#[derive(Debug)]
pub(crate) struct Held(Arc<State>);

#[derive(Debug)]
struct State {
    /// Written once, by whoever has the hold; read by the slot.
    result: OnceLock<Result<(), String>>,
    waker: Option<SlotWaker>,
}

impl SnapshotHold {
    /// A hold of a slot that is woken through `waker`.
    pub(crate) fn new(waker: Option<SlotWaker>) -> (Self, Held) {
        let state = Arc::new(State { result: OnceLock::new(), waker });
        (Self(state.clone()), Held(state))
    }

    /// What was to become safe is, or cannot: then the checkpoint fails with this message.
    pub fn done(self, result: Result<(), String>) {
        // The first answer counts, and this is the first.
        let _ = self.0.result.set(result);
    }
}

impl Drop for SnapshotHold {
    fn drop(&mut self) {
        let _ = self.0.result.set(Err("what the checkpoint waited for was given up".into()));
        if let Some(waker) = &self.0.waker {
            waker.wake();
        }
    }
}

impl Held {
    /// How it went, once that is known.
    pub(crate) fn result(&self) -> Option<&Result<(), String>> {
        self.0.result.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_done_or_dropped_then_the_slot_knows_how_it_went() {
        let (hold, held) = SnapshotHold::new(None);
        assert_eq!(held.result(), None);
        std::thread::spawn(move || hold.done(Ok(()))).join().unwrap();
        assert_eq!(held.result(), Some(&Ok(())));
        let (hold, held) = SnapshotHold::new(None);
        drop(hold);
        assert!(held.result().is_some_and(Result::is_err));
    }
}
