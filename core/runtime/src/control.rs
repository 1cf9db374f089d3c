//! `JobControl`: the handle by which a running job is told to stop, and where its first failure is kept.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use crate::{JobError, SlotWaker, TaskError};

#[derive(Default)]
struct Shared {
    /// Written by whoever cancels, read by every slot once per turn.
    stop: AtomicBool,
    /// Whether it was the user who asked to stop, and not a failure.
    cancelled: AtomicBool,
    /// Slots that are built, and slots whose tasks have all ended. Written by slots, read by slots.
    ready: AtomicUsize,
    ended: AtomicUsize,
    failure: Mutex<Option<JobError>>,
    slots: Mutex<Vec<SlotWaker>>,
}

/// Stops a job from any thread. Clones belong to the same job; use a fresh one for each job.
#[derive(Clone, Default)]
pub struct JobControl(Arc<Shared>);

impl JobControl {
    /// The control of a job that has not started.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels the job: tasks close without finishing their input, buffers are given back, `execute` answers
    /// [`JobError::Cancelled`]. Does nothing once the job has ended.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
        self.stop();
    }

    /// Whether the job has been cancelled by [`cancel`](Self::cancel).
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Relaxed)
    }

    /// Records a task's failure (the first one counts) and stops the others.
    pub(crate) fn fail(&self, error: TaskError) {
        self.fail_otherwise(error.into());
    }

    /// Records another failure (the first one counts) and stops all tasks.
    pub(crate) fn fail_otherwise(&self, error: JobError) {
        self.0.failure.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(error);
        self.stop();
    }

    pub(crate) fn take_failure(&self) -> Option<JobError> {
        self.0.failure.lock().unwrap_or_else(|e| e.into_inner()).take()
    }

    /// Stops all tasks.
    pub(crate) fn stop(&self) {
        self.0.stop.store(true, Ordering::SeqCst);
        self.wake_all();
    }

    /// Whether tasks must stop.
    #[inline]
    pub(crate) fn stopping(&self) -> bool {
        self.0.stop.load(Ordering::Relaxed)
    }

    /// Makes the slots known that `stop` has to wake.
    pub(crate) fn attach(&self, slots: Vec<SlotWaker>) {
        *self.0.slots.lock().unwrap_or_else(|e| e.into_inner()) = slots;
    }

    pub(crate) fn wake_all(&self) {
        for slot in self.0.slots.lock().unwrap_or_else(|e| e.into_inner()).iter() {
            slot.wake();
        }
    }

    /// One more slot is built.
    pub(crate) fn count_ready(&self) {
        self.0.ready.fetch_add(1, Ordering::SeqCst);
        self.wake_all();
    }

    /// Slots that are built.
    pub(crate) fn ready(&self) -> usize {
        self.0.ready.load(Ordering::SeqCst)
    }

    /// The tasks of one more slot have ended.
    pub(crate) fn count_ended(&self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
        self.wake_all();
    }

    /// Slots whose tasks have ended.
    pub(crate) fn ended(&self) -> usize {
        self.0.ended.load(Ordering::SeqCst)
    }
}
