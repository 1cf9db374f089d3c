//! `InputQueue`: what an input handle and the job's sources share: events with numbers, and which of them are durable.
//!
//! Events are numbered in the order in which they are pushed. A subtask that takes one keeps it until a checkpoint that it was
//! emitted before is complete; a subtask that ends otherwise gives back what it still keeps. An event is *covered* once such a
//! checkpoint is complete, and *durable* once all events with smaller numbers are covered too: subtasks take turns, so that
//! an event may be covered before its predecessor is.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use thalweg_runtime::SlotWaker;

use crate::number_set::NumberSet;

/// Most events that are kept until they are durable, unless told otherwise.
pub(crate) const DEFAULT_KEPT_EVENTS: usize = 1 << 20;

/// What a queue is asked for at once.
pub(crate) const MAX_TAKEN: usize = 32;

/// Why there is nothing to take, or how much was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Some,
    /// Nothing has been pushed, or too much waits to become durable.
    Nothing,
    /// All that was ever pushed is taken, and nothing more comes.
    Ended,
}

/// Why nothing is pushed.
pub(crate) enum Refused<T> {
    Full(T),
    Closed(T),
}

pub(crate) struct InputQueue<T> {
    state: Mutex<State<T>>,
    /// Threads wait here for room, for durability, and for the job to start.
    changed: Condvar,
}

struct State<T> {
    capacity: usize,
    max_kept: usize,
    /// Pushed, not taken; the first has number `first`.
    waiting: VecDeque<T>,
    first: u64,
    /// Taken by subtasks of an earlier attempt that did not make them durable.
    returned: BTreeMap<u64, T>,
    /// How many events subtasks keep.
    kept: usize,
    /// All events below are in a complete checkpoint.
    durable: u64,
    /// Those above that are, too.
    covered: NumberSet,
    /// Whether the numbers are settled: a job has started.
    started: bool,
    /// No handle is left.
    input_ended: bool,
    /// No job takes events any more.
    closed: bool,
    /// Asynchronous callers that wait, as the threads at `changed`.
    tasks: Vec<Waker>,
    /// Slots whose sources take events, by attachment.
    slots: Vec<(u64, SlotWaker)>,
    attachments: u64,
}

impl<T> State<T> {
    fn next(&self) -> u64 {
        self.first + self.waiting.len() as u64
    }

    fn wake_slots(&self) {
        self.slots.iter().for_each(|(_, slot)| slot.wake());
    }
}

impl<T> InputQueue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let state = State {
            capacity: capacity.max(1),
            max_kept: DEFAULT_KEPT_EVENTS,
            waiting: VecDeque::new(),
            first: 0,
            returned: BTreeMap::new(),
            kept: 0,
            durable: 0,
            covered: NumberSet::default(),
            started: false,
            input_ended: false,
            closed: false,
            tasks: Vec::new(),
            slots: Vec::new(),
            attachments: 0,
        };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all who wait for a change.
    fn notify(&self, mut state: MutexGuard<'_, State<T>>) {
        let tasks = std::mem::take(&mut state.tasks);
        drop(state);
        self.changed.notify_all();
        tasks.into_iter().for_each(Waker::wake);
    }

    /// Asks until there is an answer, blocking the thread meanwhile.
    fn wait<R>(&self, mut ask: impl FnMut(&mut State<T>) -> Option<R>) -> R {
        let mut state = self.state();
        loop {
            if let Some(answer) = ask(&mut state) {
                return answer;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Asks once, and leaves a waker where there is no answer yet.
    fn poll<R>(&self, cx: &Context<'_>, ask: impl FnOnce(&mut State<T>) -> Option<R>) -> Poll<R> {
        let mut state = self.state();
        if let Some(answer) = ask(&mut state) {
            return Poll::Ready(answer);
        }
        if !state.tasks.iter().any(|task| task.will_wake(cx.waker())) {
            state.tasks.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// The side of the callers.
impl<T> InputQueue<T> {
    pub(crate) fn try_push(&self, event: T) -> Result<u64, Refused<T>> {
        Self::push_now(&mut self.state(), event)
    }

    pub(crate) fn push(&self, event: T) -> Result<u64, T> {
        let mut event = Some(event);
        self.wait(|state| Self::push_if_room(state, &mut event))
    }

    pub(crate) fn poll_push(&self, cx: &Context<'_>, event: &mut Option<T>) -> Poll<Result<u64, T>> {
        self.poll(cx, |state| Self::push_if_room(state, event))
    }

    fn push_now(state: &mut State<T>, event: T) -> Result<u64, Refused<T>> {
        if state.closed {
            return Err(Refused::Closed(event));
        }
        if state.waiting.len() >= state.capacity {
            return Err(Refused::Full(event));
        }
        let number = state.next();
        state.waiting.push_back(event);
        state.wake_slots();
        Ok(number)
    }

    fn push_if_room(state: &mut State<T>, event: &mut Option<T>) -> Option<Result<u64, T>> {
        match Self::push_now(state, event.take()?) {
            Ok(number) => Some(Ok(number)),
            Err(Refused::Closed(event)) => Some(Err(event)),
            Err(Refused::Full(refused)) => {
                *event = Some(refused);
                None
            }
        }
    }

    pub(crate) fn durable(&self) -> u64 {
        self.state().durable
    }

    /// Whether an event is durable; none while that is open.
    fn is_durable(state: &State<T>, number: u64) -> Option<bool> {
        (number < state.durable).then_some(true).or(state.closed.then_some(false))
    }

    pub(crate) fn wait_durable(&self, number: u64) -> bool {
        self.wait(|state| Self::is_durable(state, number))
    }

    pub(crate) fn poll_durable(&self, cx: &Context<'_>, number: u64) -> Poll<bool> {
        self.poll(cx, |state| Self::is_durable(state, number))
    }

    /// The number of the next event once a job has started; `Some(None)` where it has ended before.
    fn started(state: &State<T>) -> Option<Option<u64>> {
        state.started.then(|| Some(state.next())).or(state.closed.then_some(None))
    }

    pub(crate) fn wait_started(&self) -> Option<u64> {
        self.wait(|state| Self::started(state))
    }

    pub(crate) fn poll_started(&self, cx: &Context<'_>) -> Poll<Option<u64>> {
        self.poll(cx, |state| Self::started(state))
    }

    pub(crate) fn keep_at_most(&self, events: usize) {
        let mut state = self.state();
        state.max_kept = events.max(1);
        state.wake_slots();
    }

    pub(crate) fn end_input(&self) {
        let mut state = self.state();
        state.input_ended = true;
        state.wake_slots();
    }
}

/// The side of the job.
impl<T> InputQueue<T> {
    /// A subtask takes part. Answers its attachment.
    pub(crate) fn attach(&self, slot: &SlotWaker) -> Result<u64, &'static str> {
        let mut state = self.state();
        if state.closed {
            return Err("this queue belonged to a job that has ended: build the job anew to run it again");
        }
        state.attachments += 1;
        let attachment = state.attachments;
        state.slots.push((attachment, slot.clone()));
        Ok(attachment)
    }

    /// A subtask is gone, with the events that it had taken and that are not durable. Answers whether it was the last.
    pub(crate) fn detach(&self, attachment: u64, events: impl IntoIterator<Item = (u64, T)>, kept: usize) -> bool {
        let mut state = self.state();
        state.slots.retain(|(id, _)| *id != attachment);
        state.kept -= kept;
        state.returned.extend(events);
        state.slots.is_empty()
    }

    /// No job takes events any more, unless one has attached meanwhile.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        if state.slots.is_empty() {
            state.closed = true;
            self.notify(state);
        }
    }

    /// The job does not start from a checkpoint, or the checkpoint knows nothing of this queue.
    pub(crate) fn start(&self) -> Result<(), String> {
        self.resume(0, &NumberSet::default())
    }

    /// The job starts where all events below `durable` and those in `covered` have been processed. Each subtask says so.
    pub(crate) fn resume(&self, durable: u64, covered: &NumberSet) -> Result<(), String> {
        let mut state = self.state();
        if state.durable > durable || !state.covered.is_within(covered, durable) {
            return Err(format!(
                "events up to number {} were reported durable, but the checkpoint that is restored has them only up to {}: \
                 start the service anew and push again from there",
                state.durable, durable
            ));
        }
        if !state.started {
            if durable > 0 && !state.waiting.is_empty() {
                return Err(format!(
                    "events were pushed before the job was restored, so that they have numbers of events that are durable \
                     already: wait for InputHandle::resume_from, and push from that event on ({durable})"
                ));
            }
            if durable > 0 {
                state.first = durable;
            }
            state.started = true;
        }
        (state.durable, state.covered) = (durable, covered.clone());
        self.notify(state);
        Ok(())
    }

    /// Takes events, at most a few at a time. With `keeping`, they count as kept.
    pub(crate) fn take(&self, into: &mut VecDeque<(u64, T)>, most: usize, keeping: bool) -> Taken {
        let mut state = self.state();
        let room = if keeping { state.max_kept.saturating_sub(state.kept) } else { usize::MAX };
        // A share, so that no subtask takes all that there is while others have nothing to do.
        let share = (state.waiting.len() + state.returned.len()).div_ceil(state.slots.len().max(1));
        let most = most.min(room).min(share).min(MAX_TAKEN);
        let (mut taken, mut freed) = (0, false);
        while taken < most {
            let (number, event) = match state.returned.pop_first() {
                Some(returned) => returned,
                None => {
                    let Some(event) = state.waiting.pop_front() else { break };
                    state.first += 1;
                    freed = true;
                    (state.first - 1, event)
                }
            };
            if number >= state.durable && !state.covered.contains(number) {
                into.push_back((number, event));
                taken += 1;
            }
        }
        if keeping {
            state.kept += taken;
        }
        let is_empty = state.waiting.is_empty() && state.returned.is_empty();
        let answer = match () {
            () if taken > 0 => Taken::Some,
            () if is_empty && state.input_ended => Taken::Ended,
            () => Taken::Nothing,
        };
        if freed {
            self.notify(state);
        }
        answer
    }

    /// What is covered by complete checkpoints: all below, and these.
    pub(crate) fn covered(&self) -> (u64, NumberSet) {
        let state = self.state();
        (state.durable, state.covered.clone())
    }

    /// A checkpoint is complete that a subtask emitted these events before.
    pub(crate) fn completed(&self, numbers: &NumberSet, kept: usize) {
        let mut state = self.state();
        state.covered.insert_all(numbers);
        while let Some(durable) = {
            let from = state.durable;
            state.covered.take_prefix(from)
        } {
            state.durable = durable;
        }
        state.kept -= kept;
        state.wake_slots();
        self.notify(state);
    }
}
