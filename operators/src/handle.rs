//! Embedding: a bounded handle that other threads push events through, and a channel that hands results back.

use std::{
    cell::RefCell,
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use thalweg_model::{Elem, Record, time::MIN_WATERMARK};
use thalweg_runtime::{SegmentContext, SlotWaker, SourceStatus};

use crate::{
    pipe::Emit,
    sink::{Sink, SinkContext, SinkError},
    source::{Source, SourceError},
};

/// The engine's end of a queue. The job's subtasks attach to it; when the last of them has gone, the end is closed, even
/// while the job's definition lives on.
struct End<Q>(Arc<EndState<Q>>);

struct EndState<Q> {
    queue: Mutex<Option<Q>>,
    attached: AtomicUsize,
}

impl<Q> Clone for End<Q> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Q: Clone> End<Q> {
    fn new(queue: Q) -> Self {
        Self(Arc::new(EndState { queue: Mutex::new(Some(queue)), attached: AtomicUsize::new(0) }))
    }

    fn attach(&self) -> Result<Attached<Q>, String> {
        let queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let queue = queue.ok_or("this queue belonged to a job that has ended: build the job anew to run it again")?;
        self.0.attached.fetch_add(1, SeqCst);
        Ok(Attached { queue, end: self.0.clone() })
    }
}

/// One subtask's hold on the engine's end of a queue.
struct Attached<Q> {
    queue: Q,
    end: Arc<EndState<Q>>,
}

impl<Q> Drop for Attached<Q> {
    fn drop(&mut self) {
        if self.end.attached.fetch_sub(1, SeqCst) == 1 {
            self.end.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

/// Slots to wake when something has changed on this side of a queue.
#[derive(Clone, Default)]
struct Wakers(Arc<Mutex<Vec<SlotWaker>>>);

impl Wakers {
    fn add(&self, waker: &SlotWaker) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(waker.clone());
    }

    fn wake(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(SlotWaker::wake);
    }
}

/// The job has ended, so nothing takes events any more; here is the one that was not taken.
#[derive(Debug, thiserror::Error)]
#[error("the job has ended and takes no more events")]
pub struct Closed<T>(
    /// The event.
    pub T,
);

/// Why an event was not taken without waiting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TryPushError<T> {
    /// The queue is full: the job is slower than its callers.
    #[error("the input queue is full")]
    Full(T),
    /// The job has ended.
    #[error("the job has ended and takes no more events")]
    Closed(T),
}

/// Pushes events into a running job from any thread. Clone it for each; the input ends when the last clone is dropped.
pub struct InputHandle<T> {
    queue: flume::Sender<T>,
    wakers: Wakers,
    /// Dropped after `queue`, so that the slots see the end of the input when they are woken.
    _end: Arc<WakeAtEnd>,
}

struct WakeAtEnd(Wakers);

impl Drop for WakeAtEnd {
    fn drop(&mut self) {
        self.0.wake();
    }
}

impl<T> Clone for InputHandle<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), wakers: self.wakers.clone(), _end: self._end.clone() }
    }
}

impl<T: Record> InputHandle<T> {
    /// Pushes an event, waiting while the queue is full.
    ///
    /// # Errors
    /// The job has ended.
    pub fn push(&self, event: T) -> Result<(), Closed<T>> {
        self.queue.send(event).map_err(|error| Closed(error.0))?;
        self.wakers.wake();
        Ok(())
    }

    /// Pushes an event if there is room.
    ///
    /// # Errors
    /// The queue is full, or the job has ended.
    pub fn try_push(&self, event: T) -> Result<(), TryPushError<T>> {
        self.queue.try_send(event).map_err(|error| match error {
            flume::TrySendError::Full(event) => TryPushError::Full(event),
            flume::TrySendError::Disconnected(event) => TryPushError::Closed(event),
        })?;
        self.wakers.wake();
        Ok(())
    }

    /// Pushes an event from asynchronous code (tokio or any other), waiting while the queue is full.
    ///
    /// # Errors
    /// The job has ended.
    pub async fn push_async(&self, event: T) -> Result<(), Closed<T>> {
        self.queue.send_async(event).await.map_err(|error| Closed(error.0))?;
        self.wakers.wake();
        Ok(())
    }
}

/// The source behind an [`InputHandle`]; its subtasks share one queue.
pub struct HandleSource<T> {
    end: End<flume::Receiver<T>>,
    attached: Option<Attached<flume::Receiver<T>>>,
    wakers: Wakers,
    emitted: u64,
}

impl<T> Clone for HandleSource<T> {
    fn clone(&self) -> Self {
        Self { end: self.end.clone(), attached: None, wakers: self.wakers.clone(), emitted: 0 }
    }
}

/// A queue of at most `capacity` events (at least one) into a job.
pub(crate) fn input<T: Record>(capacity: usize) -> (InputHandle<T>, HandleSource<T>) {
    let (sender, receiver) = flume::bounded(capacity.max(1));
    let wakers = Wakers::default();
    let end = Arc::new(WakeAtEnd(wakers.clone()));
    (
        InputHandle { queue: sender, wakers: wakers.clone(), _end: end },
        HandleSource { end: End::new(receiver), attached: None, wakers, emitted: 0 },
    )
}

impl<T: Record> Source for HandleSource<T> {
    type Out = T;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), SourceError> {
        self.attached = Some(self.end.attach()?);
        self.wakers.add(&ctx.waker);
        Ok(())
    }

    fn poll<E: Emit<T>>(&mut self, budget: usize, emit: &mut E) -> Result<SourceStatus, SourceError> {
        let Some(Attached { queue, .. }) = &self.attached else { return Ok(SourceStatus::Ended) };
        for _ in 0..budget {
            if !emit.room() {
                return Ok(SourceStatus::More);
            }
            match queue.try_recv() {
                Ok(event) => {
                    self.emitted += 1;
                    emit.emit(Elem::new(event.view(), MIN_WATERMARK));
                }
                Err(flume::TryRecvError::Empty) => return Ok(SourceStatus::Wait { until_ns: None }),
                Err(flume::TryRecvError::Disconnected) => return Ok(SourceStatus::Ended),
            }
        }
        Ok(SourceStatus::More)
    }

    fn emitted(&self) -> u64 {
        self.emitted
    }
}

/// The sink that hands results to a [`ResultReceiver`]; a full queue holds the stream back.
pub struct ResultSink<T> {
    end: End<flume::Sender<T>>,
    attached: Option<Attached<flume::Sender<T>>>,
    /// Records that found the queue full: those of one record in flight. The sink is not ready until they are gone.
    overflow: RefCell<VecDeque<T>>,
    state: Arc<Blocked>,
}

/// Whether a sink waits for room (set by sinks, cleared by the receiver), and whom to wake then.
#[derive(Default)]
struct Blocked {
    waiting: AtomicBool,
    wakers: Wakers,
}

/// Takes the results of a running job, from any thread. Results are lost only if this is dropped.
pub struct ResultReceiver<T> {
    queue: flume::Receiver<T>,
    state: Arc<Blocked>,
}

/// A queue of at most `capacity` results (at least one) out of a job: the sink to end a stream in, and the receiver.
pub fn results<T: Record>(capacity: usize) -> (ResultSink<T>, ResultReceiver<T>) {
    let (sender, receiver) = flume::bounded(capacity.max(1));
    let state = Arc::new(Blocked::default());
    let sink = ResultSink { end: End::new(sender), attached: None, overflow: RefCell::default(), state: state.clone() };
    (sink, ResultReceiver { queue: receiver, state })
}

impl<T> Clone for ResultSink<T> {
    fn clone(&self) -> Self {
        Self { end: self.end.clone(), attached: None, overflow: RefCell::default(), state: self.state.clone() }
    }
}

impl<T: Record> ResultSink<T> {
    /// Moves what has overflowed into the queue; answers whether all of it went.
    fn drain(&self) -> bool {
        let Some(Attached { queue, .. }) = &self.attached else { return true };
        let mut overflow = self.overflow.borrow_mut();
        while let Some(record) = overflow.pop_front() {
            if let Err(flume::TrySendError::Full(record)) = queue.try_send(record) {
                overflow.push_front(record);
                return false;
            }
        }
        true
    }

    fn room(&self) -> bool {
        let free = |Attached { queue, .. }: &Attached<flume::Sender<T>>| !queue.is_full() || queue.is_disconnected();
        self.drain() && self.attached.as_ref().is_none_or(free)
    }
}

impl<T: Record> Sink<T> for ResultSink<T> {
    fn open(&mut self, ctx: &SinkContext) -> Result<(), SinkError> {
        self.attached = Some(self.end.attach()?);
        self.state.wakers.add(&ctx.waker);
        Ok(())
    }

    fn write(&mut self, view: T::View<'_>, _timestamp: i64) -> Result<(), SinkError> {
        self.overflow.get_mut().push_back(T::from_view(view));
        self.drain();
        Ok(())
    }

    fn ready(&self) -> bool {
        if self.room() {
            return true;
        }
        // Announce the wait, then look again: the receiver either sees the announcement or has made room before it.
        self.state.waiting.store(true, SeqCst);
        self.room()
    }

    fn drained(&self) -> bool {
        self.drain() || {
            self.state.waiting.store(true, SeqCst);
            self.drain()
        }
    }

    fn name(&self) -> &str {
        "Results"
    }
}

impl<T> ResultReceiver<T> {
    fn taken<R>(&self, result: R) -> R {
        if self.state.waiting.swap(false, SeqCst) {
            self.state.wakers.wake();
        }
        result
    }

    /// The next result, waiting for it; none when the job has ended and all have been taken.
    pub fn recv(&self) -> Option<T> {
        self.taken(self.queue.recv().ok())
    }

    /// The next result if there is one.
    pub fn try_recv(&self) -> Option<T> {
        self.taken(self.queue.try_recv().ok())
    }

    /// As [`recv`](Self::recv), for asynchronous code.
    pub async fn recv_async(&self) -> Option<T> {
        let result = self.queue.recv_async().await.ok();
        self.taken(result)
    }
}

impl<T> Iterator for &ResultReceiver<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.recv()
    }
}
