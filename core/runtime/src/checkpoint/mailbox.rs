//! A slot's mailbox: what the coordination tells its tasks, read between two turns and never behind data.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use thalweg_model::CheckpointId;

use super::{CheckpointRequest, TaskSubtask};

/// Something for one subtask.
#[derive(Clone, Debug)]
pub(crate) enum SlotMessage {
    /// Take your part and send the barrier on: no barrier reaches you.
    Trigger(TaskSubtask, Arc<CheckpointRequest>),
    /// It is complete: commit what is pending up to it.
    Complete(TaskSubtask, CheckpointId),
    /// It came to nothing.
    Aborted(TaskSubtask, CheckpointId),
}

/// See the module. Written by any thread, read by the slot.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    /// Whether there is something, so that a turn costs one load.
    filled: AtomicBool,
    messages: Mutex<Vec<SlotMessage>>,
}

impl Mailbox {
    /// Puts a message in. The caller wakes the slot.
    pub(crate) fn post(&self, message: SlotMessage) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        self.filled.store(true, Ordering::Release);
    }

    /// Whether there is something.
    #[inline]
    pub(crate) fn is_filled(&self) -> bool {
        self.filled.load(Ordering::Relaxed)
    }

    /// Takes everything out, in order.
    pub(crate) fn take(&self) -> Vec<SlotMessage> {
        self.filled.store(false, Ordering::SeqCst);
        std::mem::take(&mut *self.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
