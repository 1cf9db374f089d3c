//! Embedding: a bounded handle that other threads push events through, and a channel that hands results back.
//!
//! Events have numbers, from 0 on in the order in which they are pushed. With checkpoints, a handle tells up to which event
//! everything is *durable*: in a complete checkpoint. A restart within the process loses nothing, since events are kept until
//! then. A service that survives its own crash keeps its events somewhere, starts the job from the latest checkpoint, asks
//! [`resume_from`](InputHandle::resume_from), and pushes again from that event on.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use thalweg_model::Record;
use thalweg_runtime::{JobLife, SlotWaker};

pub use crate::handle_source::{EventRange, HandleSource};
use crate::{
    input_queue::{InputQueue, Refused},
    sink::{Sink, SinkContext, SinkError},
};

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

/// The job has ended before what was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the job has ended; what is not durable has to be pushed again once it is started from its latest checkpoint")]
pub struct JobEnded;

/// Pushes events into a running job from any thread. Clone it for each; the input ends when the last clone is dropped.
///
/// The handle's capacity counts events that no source has taken. With checkpoints, sources keep what they have taken until
/// it is durable: at most so many events as [`keep_at_most`](Self::keep_at_most) says.
pub struct InputHandle<T: Record> {
    queue: Arc<InputQueue<T>>,
    /// Dropped with the last handle.
    _end: Arc<EndOfInput<T>>,
}

struct EndOfInput<T: Record>(Arc<InputQueue<T>>);

impl<T: Record> Drop for EndOfInput<T> {
    fn drop(&mut self) {
        self.0.end_input();
    }
}

impl<T: Record> Clone for InputHandle<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), _end: self._end.clone() }
    }
}

impl<T: Record> InputHandle<T> {
    /// Pushes an event, waiting while the queue is full. Answers its number.
    ///
    /// # Errors
    /// The job has ended.
    pub fn push(&self, event: T) -> Result<u64, Closed<T>> {
        self.queue.push(event).map_err(Closed)
    }

    /// Pushes an event if there is room. Answers its number.
    ///
    /// # Errors
    /// The queue is full, or the job has ended.
    pub fn try_push(&self, event: T) -> Result<u64, TryPushError<T>> {
        self.queue.try_push(event).map_err(|refused| match refused {
            Refused::Full(event) => TryPushError::Full(event),
            Refused::Closed(event) => TryPushError::Closed(event),
        })
    }

    /// Pushes an event from asynchronous code (tokio or any other), waiting while the queue is full. Answers its number.
    ///
    /// # Errors
    /// The job has ended.
    ///
    /// # Cancel safety
    /// Where it is dropped before it has answered, the event is dropped with it and was not pushed.
    pub async fn push_async(&self, event: T) -> Result<u64, Closed<T>> {
        let mut event = Some(event);
        poll_fn(|cx| self.queue.poll_push(cx, &mut event)).await.map_err(Closed)
    }

    /// The number up to which everything is durable: of all events with smaller numbers, a complete checkpoint has what
    /// became of them. Stays where it is without checkpoints.
    pub fn durable(&self) -> u64 {
        self.queue.durable()
    }

    /// Waits until an event is durable, and all before it.
    ///
    /// # Errors
    /// The job has ended before.
    pub fn wait_durable(&self, number: u64) -> Result<(), JobEnded> {
        if self.queue.wait_durable(number) { Ok(()) } else { Err(JobEnded) }
    }

    /// As [`wait_durable`](Self::wait_durable), for asynchronous code.
    ///
    /// # Errors
    /// The job has ended before.
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    pub async fn wait_durable_async(&self, number: u64) -> Result<(), JobEnded> {
        if poll_fn(|cx| self.queue.poll_durable(cx, number)).await { Ok(()) } else { Err(JobEnded) }
    }

    /// The number that the next event gets, once the job has started: where it starts from a checkpoint, that up to which
    /// everything is durable. A service that replays pushes its events from this one on, all of them and in the same order;
    /// those that the checkpoint has nevertheless are passed over. Waits for the job to start. A job that does not start from
    /// a checkpoint may be pushed to before that.
    ///
    /// # Errors
    /// The job has ended before it started.
    pub fn resume_from(&self) -> Result<u64, JobEnded> {
        self.queue.wait_started().ok_or(JobEnded)
    }

    /// As [`resume_from`](Self::resume_from), for asynchronous code.
    ///
    /// # Errors
    /// The job has ended before it started.
    ///
    /// # Cancel safety
    /// It may be dropped at any time.
    pub async fn resume_from_async(&self) -> Result<u64, JobEnded> {
        poll_fn(|cx| self.queue.poll_started(cx)).await.ok_or(JobEnded)
    }

    /// How many events sources may keep until they are durable, instead of 1,048,576 in all: with more, the job takes none
    /// until a checkpoint is complete. It should be well above what is pushed between two checkpoints.
    pub fn keep_at_most(&self, events: usize) {
        self.queue.keep_at_most(events);
    }
}

/// A queue of at most `capacity` events (at least one) into a job.
pub(crate) fn input<T: Record>(capacity: usize) -> (InputHandle<T>, HandleSource<T>) {
    let queue = Arc::new(InputQueue::new(capacity));
    let end = Arc::new(EndOfInput(queue.clone()));
    (InputHandle { queue: queue.clone(), _end: end }, HandleSource::new(queue))
}

/// The engine's end of the queue of results. The job's subtasks attach to it; when the last of them has gone, and the job
/// does not start again, the end is closed, even while the job's definition lives on.
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

impl<Q: Clone + Send + 'static> End<Q> {
    fn new(queue: Q) -> Self {
        Self(Arc::new(EndState { queue: Mutex::new(Some(queue)), attached: AtomicUsize::new(0) }))
    }

    fn attach(&self, life: &JobLife) -> Result<Attached<Q>, String> {
        let queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let queue = queue.ok_or("this queue belonged to a job that has ended: build the job anew to run it again")?;
        self.0.attached.fetch_add(1, SeqCst);
        Ok(Attached { queue, end: self.0.clone(), life: life.clone() })
    }
}

/// One subtask's hold on the engine's end of a queue.
struct Attached<Q: Send + 'static> {
    queue: Q,
    end: Arc<EndState<Q>>,
    life: JobLife,
}

impl<Q: Send + 'static> Drop for Attached<Q> {
    fn drop(&mut self) {
        if self.end.attached.fetch_sub(1, SeqCst) == 1 {
            let end = self.end.clone();
            self.life.at_end(move || {
                if end.attached.load(SeqCst) == 0 {
                    end.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
                }
            });
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

/// The sink that hands results to a [`ResultReceiver`]; a full queue holds the stream back.
pub struct ResultSink<T: Record> {
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

impl<T: Record> Clone for ResultSink<T> {
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
        self.attached = Some(self.end.attach(&ctx.life)?);
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
