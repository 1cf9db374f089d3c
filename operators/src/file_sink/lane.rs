//! `Lane`: what one subtask of a file sink wants of the disk, done in order by threads of the process, beside its slot.
//!
//! A slot that synced files itself would stand still for as long as the disk takes. What fails is remembered and nothing
//! is done after it: a file whose sync failed is never synced again, and no checkpoint that relies on it gets its answer.
//! Whoever waits for a lane does its work where no thread has begun it.

use std::{
    collections::VecDeque,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use thalweg_io::spare_cores::run_on_spare_cores;
use thalweg_runtime::SlotWaker;

use crate::{checkpoint::SnapshotHold, sink::SinkError};

/// Threads of the process that work for all lanes: as many file systems' journals can be waited for at once.
const THREADS: usize = 4;
/// Most jobs that wait in a lane. Each checkpoint adds two; whoever adds one beyond waits for the disk.
const MAX_JOBS: usize = 64;
/// Jobs in a lane from which on its sink holds the stream back.
const MAX_JOBS_AHEAD: usize = 16;
const _: () = assert!(MAX_JOBS_AHEAD < MAX_JOBS);
/// How long closing a lane waits for a disk that does not answer. What is done after that hurts nobody: it can only give
/// a file of its own another name, which no checkpoint knows, or commit what is to be committed.
const MAX_CLOSE_WAIT: Duration = Duration::from_secs(30);

type Work = Box<dyn FnOnce() -> Result<(), SinkError> + Send>;

/// What becomes of a job when its lane closes before it was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AtClose {
    /// It is done nevertheless: a checkpoint that is complete wants it.
    Do,
    /// It is dropped, and its hold with it.
    Drop,
}

struct Job {
    work: Work,
    hold: Option<SnapshotHold>,
    at_close: AtClose,
}

/// Who works for lanes.
#[derive(Clone)]
pub(super) enum Workers {
    /// Threads, or a test, behind this queue, in which each lane is once at most.
    Queue(flume::Sender<Lane>),
    /// Whoever adds a job, at once.
    Caller,
}

impl Workers {
    /// The threads of this process, started on first use; the caller where none can be.
    pub(super) fn of_process() -> Self {
        static WORKERS: OnceLock<Workers> = OnceLock::new();
        let start = || {
            let (sender, receiver) = flume::unbounded::<Lane>();
            let start = |_: &usize| {
                let receiver = receiver.clone();
                let work = move || {
                    run_on_spare_cores();
                    receiver.iter().for_each(|lane| lane.work());
                };
                thread::Builder::new().name("file-sink".into()).spawn(work).is_ok()
            };
            if (0..THREADS).filter(start).count() > 0 { Self::Queue(sender) } else { Self::Caller }
        };
        WORKERS.get_or_init(start).clone()
    }
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Whether it is in the workers' queue.
    queued: bool,
    /// Whether somebody is at a job.
    running: bool,
    failure: Option<String>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    workers: Workers,
    waker: SlotWaker,
    /// How many jobs are not done. Written under the lock, read by the slot without it.
    jobs_count: AtomicUsize,
    /// Whether there is a failure. Written under the lock, read by the slot without it.
    failed: AtomicBool,
}

/// See the module. All clones mean the same lane.
#[derive(Clone)]
pub(super) struct Lane(Arc<Shared>);

impl Lane {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job. Its hold, if it has one, is done when the job is, and fails with it.
    pub(super) fn add(
        &self,
        hold: Option<SnapshotHold>,
        at_close: AtClose,
        work: impl FnOnce() -> Result<(), SinkError> + Send + 'static,
    ) {
        let mut state = self.state();
        while state.jobs.len() >= MAX_JOBS {
            state = self.turn(state, None);
        }
        state.jobs.push_back(Job { work: Box::new(work), hold, at_close });
        self.0.jobs_count.fetch_add(1, Relaxed);
        let idle = !state.running && !state.queued;
        match &self.0.workers {
            Workers::Queue(queue) if idle => {
                state.queued = true;
                drop(state);
                // Where nobody is at the other end, whoever waits for the lane does the work.
                let _ = queue.send(self.clone());
            }
            Workers::Queue(_) => {}
            Workers::Caller => drop(self.drain(state, None)),
        }
    }

    /// Does what there is to do: what a thread does that has taken the lane out of the queue.
    pub(super) fn work(&self) {
        let mut state = self.state();
        state.queued = false;
        while !state.running && !state.jobs.is_empty() {
            state = self.turn(state, None);
        }
    }

    /// Does a job, or waits until whoever is at one is through.
    fn turn<'s>(&'s self, mut state: MutexGuard<'s, State>, until: Option<Instant>) -> MutexGuard<'s, State> {
        if state.running {
            let Some(until) = until else {
                return self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            };
            let left = until.saturating_duration_since(Instant::now());
            return self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let Some(Job { work, hold, .. }) = state.jobs.pop_front() else { return state };
        if state.failure.is_none() {
            state.running = true;
            drop(state);
            let result = catch_unwind(AssertUnwindSafe(work));
            state = self.state();
            state.running = false;
            state.failure = match result {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("what writes files panicked; please report this".into()),
            };
            self.0.failed.store(state.failure.is_some(), Relaxed);
        }
        self.0.jobs_count.fetch_sub(1, Relaxed);
        self.0.changed.notify_all();
        // The failure is known before anybody hears of it through the hold.
        if let Some(hold) = hold {
            hold.done(state.failure.clone().map_or(Ok(()), Err));
        }
        self.0.waker.wake();
        state
    }

    fn drain<'s>(&'s self, mut state: MutexGuard<'s, State>, until: Option<Instant>) -> MutexGuard<'s, State> {
        while (state.running || !state.jobs.is_empty()) && until.is_none_or(|until| Instant::now() < until) {
            state = self.turn(state, until);
        }
        state
    }

    /// Waits until everything is done.
    ///
    /// # Errors
    /// Something has failed.
    pub(super) fn settle(&self) -> Result<(), SinkError> {
        drop(self.drain(self.state(), None));
        self.check()
    }

    /// Whether everything is done.
    ///
    /// # Errors
    /// Something has failed.
    pub(super) fn is_idle(&self) -> Result<bool, SinkError> {
        let state = self.state();
        match &state.failure {
            Some(failure) => Err(failure.clone().into()),
            None => Ok(!state.running && state.jobs.is_empty()),
        }
    }

    /// Whether a sink may go on filling the lane.
    pub(super) fn has_room(&self) -> bool {
        self.0.jobs_count.load(Relaxed) < MAX_JOBS_AHEAD
    }

    /// # Errors
    /// Something has failed.
    pub(super) fn check(&self) -> Result<(), SinkError> {
        if !self.0.failed.load(Relaxed) {
            return Ok(());
        }
        Err(self.state().failure.clone().unwrap_or_default().into())
    }

    /// Drops what is not to be done any more, does the rest, and waits for whatever has been begun, within limits.
    pub(super) fn close(&self) {
        let mut state = self.state();
        let (keep, dropped): (VecDeque<_>, VecDeque<_>) =
            state.jobs.drain(..).partition(|job| job.at_close == AtClose::Do);
        state.jobs = keep;
        self.0.jobs_count.fetch_sub(dropped.len(), Relaxed);
        let state = self.drain(state, Some(Instant::now() + MAX_CLOSE_WAIT));
        let is_through = !state.running && state.jobs.is_empty();
        drop(state);
        if !is_through {
            let waited_s = MAX_CLOSE_WAIT.as_secs();
            tracing::warn!(waited_s, "closing a file sink although the disk has not answered");
        }
    }
}

/// The lane of a sink that is open. Dropped, it closes.
pub(super) struct OwnLane(Lane);

impl OwnLane {
    /// Begins a lane. `waker` wakes the slot of its sink when there is room again.
    pub(super) fn open(workers: Workers, waker: SlotWaker) -> Self {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let (jobs_count, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self(Lane(Arc::new(Shared { state, changed, workers, waker, jobs_count, failed })))
    }
}

impl Deref for OwnLane {
    type Target = Lane;

    fn deref(&self) -> &Lane {
        &self.0
    }
}

impl Drop for OwnLane {
    fn drop(&mut self) {
        self.close();
    }
}
