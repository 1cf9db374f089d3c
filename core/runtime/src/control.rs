//! `JobControl`: the handle by which a running job is told to stop, and where its first failure is kept.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use thalweg_model::CheckpointId;

use crate::{
    CheckpointRequest, JobError, SlotWaker, TaskError, TaskSubtask,
    checkpoint::{Mailbox, SlotMessage},
};

/// What reaches the slots of a running job.
#[derive(Default)]
struct Slots {
    wakers: Vec<SlotWaker>,
    mailboxes: Vec<Arc<Mailbox>>,
    /// The slot of each subtask of each task.
    slot_of: Vec<Vec<usize>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

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
    slots: Mutex<Slots>,
    /// Checkpoints whose barriers may be under way. Written by the coordination, read by slots, once per barrier.
    requests: Mutex<BTreeMap<CheckpointId, Arc<CheckpointRequest>>>,
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
        lock(&self.0.failure).get_or_insert(error);
        self.stop();
    }

    pub(crate) fn take_failure(&self) -> Option<JobError> {
        lock(&self.0.failure).take()
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

    /// Makes the slots known: whom `stop` has to wake, and where messages go.
    pub(crate) fn attach(&self, wakers: Vec<SlotWaker>, slot_of: Vec<Vec<usize>>) -> Vec<Arc<Mailbox>> {
        let mailboxes: Vec<Arc<Mailbox>> = wakers.iter().map(|_| Arc::default()).collect();
        *lock(&self.0.slots) = Slots { wakers, mailboxes: mailboxes.clone(), slot_of };
        mailboxes
    }

    /// There are no slots any more.
    pub(crate) fn detach(&self) {
        *lock(&self.0.slots) = Slots::default();
    }

    pub(crate) fn wake_all(&self) {
        lock(&self.0.slots).wakers.iter().for_each(SlotWaker::wake);
    }

    /// Starts a checkpoint: these subtasks, which no barrier reaches, take their part and send the barrier on. A
    /// checkpoint whose number is not above the last one that a subtask has heard of is ignored by it.
    pub fn trigger_checkpoint(&self, request: &Arc<CheckpointRequest>, subtasks: &[TaskSubtask]) {
        lock(&self.0.requests).insert(request.id, request.clone());
        self.post(subtasks, |subtask| SlotMessage::Trigger(subtask, request.clone()));
    }

    /// Tells subtasks that a checkpoint is complete: what is pending up to it is committed.
    pub fn notify_complete(&self, id: CheckpointId, subtasks: &[TaskSubtask]) {
        lock(&self.0.requests).retain(|&one, _| one > id);
        self.post(subtasks, |subtask| SlotMessage::Complete(subtask, id));
    }

    /// Tells subtasks that a checkpoint came to nothing.
    pub fn notify_aborted(&self, id: CheckpointId, subtasks: &[TaskSubtask]) {
        lock(&self.0.requests).remove(&id);
        self.post(subtasks, |subtask| SlotMessage::Aborted(subtask, id));
    }

    fn post(&self, subtasks: &[TaskSubtask], message: impl Fn(TaskSubtask) -> SlotMessage) {
        let slots = lock(&self.0.slots);
        let mut wake = vec![false; slots.wakers.len()];
        for &subtask in subtasks {
            // A job that has ended has no slots: nobody is left to be told.
            let slot = slots.slot_of.get(subtask.task).and_then(|of| of.get(subtask.subtask as usize));
            if let Some((&slot, mailbox)) = slot.and_then(|slot| Some((slot, slots.mailboxes.get(*slot)?))) {
                mailbox.post(message(subtask));
                wake[slot] = true;
            }
        }
        slots.wakers.iter().zip(wake).filter(|(_, wake)| *wake).for_each(|(waker, _)| waker.wake());
    }

    /// The checkpoint of a barrier; none if it has come to nothing meanwhile.
    pub(crate) fn request(&self, id: CheckpointId) -> Option<Arc<CheckpointRequest>> {
        lock(&self.0.requests).get(&id).cloned()
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
