//! The events as sources of a job: generated, read from files, and on a schedule.

use std::sync::Arc;

use thalweg::{
    checkpoint::{CheckpointId, OperatorRestore, OperatorSnapshot},
    files::{BadReason, ReadError},
    model::Elem,
    pipe::Emit,
    runtime::{Clock, SegmentContext, SourceStatus},
    source::{Progressions, Source, SourceError},
};

use super::{Event, EventScratch, Generator, generator::timestamp_ms, run_state::RunState};

/// A record with the time it was scheduled for: nanoseconds since the start of the run, 0 where there is no schedule.
pub type Due<T> = (u64, T);

/// Generates events: subtask `i` of `p` those with `n mod p = i`. Timestamps come with them, and after each batch the
/// watermark, one below the timestamp of the last event.
#[derive(Debug)]
pub struct GeneratorSource {
    generator: Generator,
    scratch: EventScratch,
    events: u64,
    numbers: Progressions,
    emitted: u64,
    watermark_ms: i64,
}

impl GeneratorSource {
    /// The first `events` events of a generator.
    pub fn new(generator: Generator, events: u64) -> Self {
        let scratch = EventScratch::new();
        let numbers = Progressions::new(events);
        Self { generator, scratch, events, numbers, emitted: 0, watermark_ms: i64::MIN }
    }
}

impl Clone for GeneratorSource {
    fn clone(&self) -> Self {
        Self::new(self.generator.clone(), self.events)
    }
}

impl Source for GeneratorSource {
    type Out = Event;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), SourceError> {
        self.numbers.open(ctx.subtask, ctx.parallelism);
        Ok(())
    }

    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), SourceError> {
        self.numbers.restore(restored)
    }

    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), SourceError> {
        self.numbers.snapshot(snapshot);
        Ok(())
    }

    #[inline]
    fn poll<E: Emit<Event>>(&mut self, budget: usize, emit: &mut E) -> Result<SourceStatus, SourceError> {
        let mut left = budget;
        let mut last = None;
        // Once, except where leftovers of a restored checkpoint come first.
        while left > 0 && !self.numbers.is_done() && emit.room() {
            let run = self.numbers.run();
            let (mut n, step, until) = (run.next, run.step, run.until);
            while left > 0 && n < until && emit.room() {
                let event = self.generator.event(n, &mut self.scratch);
                emit.emit(Elem::new(event, timestamp_ms(n)));
                n += step;
                left -= 1;
            }
            if n > run.next {
                last = Some(n - step);
            }
            self.numbers.reached(n);
        }
        self.emitted += (budget - left) as u64;
        if let Some(last) = last {
            let watermark_ms = timestamp_ms(last) - 1;
            if watermark_ms > self.watermark_ms {
                self.watermark_ms = watermark_ms;
                emit.watermark(watermark_ms);
            }
        }
        Ok(if self.numbers.is_done() { SourceStatus::Ended } else { SourceStatus::More })
    }

    fn emitted(&self) -> u64 {
        self.emitted
    }
}

/// Which events of the schedule are whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// Subtask `i` of `p` has every `p`th, from the `i`th.
    Strided,
    /// Whoever is ready takes the next: for sources whose subtasks have unequal shares.
    Shared,
}

/// A source on a schedule: event `k` is due `k / rate` seconds after the start, and emitted then or as soon after that
/// as the job takes it. Without a rate, a source whose events are counted.
pub struct Paced<S> {
    inner: S,
    events_per_ns: Option<f64>,
    turns: Turns,
    limit: u64,
    run: RunState,
    clock: Option<Arc<dyn Clock>>,
    made: u64,
    /// The events that are this subtask's next: numbers `from`, `from + step`, ... below `to`.
    from: u64,
    to: u64,
    step: u64,
    reached_ms: i64,
}

impl<S: Clone> Clone for Paced<S> {
    fn clone(&self) -> Self {
        let clone = Self::new(self.inner.clone(), None, self.turns, self.limit, self.run.clone());
        Self { events_per_ns: self.events_per_ns, ..clone }
    }
}

impl<S> Paced<S> {
    /// All subtasks together emit at most `events_per_s`, and each at most `limit` in all.
    pub fn new(inner: S, events_per_s: Option<f64>, turns: Turns, limit: u64, run: RunState) -> Self {
        let events_per_ns = events_per_s.map(|rate| rate / 1e9);
        let reached_ms = i64::MIN;
        Self { inner, events_per_ns, turns, limit, run, clock: None, made: 0, from: 0, to: 0, step: 1, reached_ms }
    }

    /// How many of this subtask's events may be emitted now, at most `budget`.
    fn allowed(&mut self, events_per_ns: f64, budget: u64) -> u64 {
        let elapsed_ns = self.run.start().elapsed().as_nanos() as f64;
        let due = (elapsed_ns * events_per_ns) as u64 + 1;
        match self.turns {
            Turns::Strided => self.to = due,
            Turns::Shared if self.from == self.to => {
                let (from, count) = self.run.claim(due, budget);
                (self.from, self.to) = (from, from + count);
            }
            Turns::Shared => {}
        }
        self.to.saturating_sub(self.from).div_ceil(self.step).min(budget)
    }

    /// Polls again when the next event is due.
    fn wait(&self, events_per_ns: f64) -> SourceStatus {
        let due_ns = (self.from as f64 / events_per_ns) as u64;
        let left_ns = due_ns.saturating_sub(self.run.start().elapsed().as_nanos() as u64);
        // At a rate so small that its nanoseconds cannot be counted: at the end of all time.
        SourceStatus::Wait { until_ns: self.clock.as_ref().map(|clock| clock.now_ns().saturating_add(left_ns)) }
    }
}

/// A line that is no event, with what whoever has only the command line can do about it.
fn advised(error: SourceError) -> SourceError {
    let Some(ReadError::BadRecord { path, line, column, reason, .. }) = error.downcast_ref() else { return error };
    let reason = match reason {
        BadReason::TooLong { limit_bytes } => {
            format!("the line is longer than the {limit_bytes} bytes that an event may have")
        }
        reason => reason.to_string(),
    };
    format!("{}:{line}:{column}: {reason}; correct the line, or take it out", path.display()).into()
}

impl<S: Source<Out = Event>> Source for Paced<S> {
    type Out = Due<Event>;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), SourceError> {
        if self.turns == Turns::Strided {
            self.from = ctx.subtask.into();
            self.step = ctx.parallelism.into();
        }
        self.clock = Some(ctx.clock.clone());
        self.inner.open(ctx)
    }

    #[inline]
    fn poll<E: Emit<Due<Event>>>(&mut self, budget: usize, emit: &mut E) -> Result<SourceStatus, SourceError> {
        self.run.start();
        let budget = (self.limit - self.made).min(budget as u64);
        if budget == 0 {
            return Ok(SourceStatus::Ended);
        }
        let Some(events_per_ns) = self.events_per_ns else {
            let mut counted = Counted { emit, events: 0 };
            let status = self.inner.poll(budget as usize, &mut counted).map_err(advised)?;
            let events = counted.events;
            self.made += events;
            self.run.count(events);
            return Ok(status);
        };
        let allowed = self.allowed(events_per_ns, budget);
        if allowed == 0 {
            return Ok(self.wait(events_per_ns));
        }
        let mut scheduled = Scheduled {
            emit,
            number: self.from,
            step: self.step,
            ns_per_event: 1.0 / events_per_ns,
            due_ns: 0,
            reached_ms: self.reached_ms,
            run: &self.run,
        };
        let status = self.inner.poll(allowed as usize, &mut scheduled).map_err(advised)?;
        let events = (scheduled.number - self.from) / self.step;
        (self.from, self.reached_ms) = (scheduled.number, scheduled.reached_ms);
        self.run.note_due(scheduled.due_ns);
        self.made += events;
        self.run.count(events);
        Ok(status)
    }

    fn next_deadline_ms(&self) -> Option<i64> {
        self.inner.next_deadline_ms()
    }

    fn periodic<E: Emit<Due<Event>>>(&mut self, now_ms: i64, emit: &mut E) {
        self.inner.periodic(now_ms, &mut Counted { emit, events: 0 });
    }

    fn emitted(&self) -> u64 {
        self.inner.emitted()
    }

    fn report(&mut self) {
        self.inner.report();
    }

    // The schedule begins anew after a restore; only what there is to emit is where it was.
    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), SourceError> {
        self.inner.restore(restored)
    }

    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), SourceError> {
        self.inner.snapshot(snapshot)
    }

    fn checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<(), SourceError> {
        self.inner.checkpoint_complete(checkpoint)
    }
}

/// Passes events on without a schedule.
struct Counted<'e, E> {
    emit: &'e mut E,
    events: u64,
}

/// Passes events on with the time that each was due.
struct Scheduled<'e, E> {
    emit: &'e mut E,
    number: u64,
    step: u64,
    ns_per_event: f64,
    due_ns: u64,
    reached_ms: i64,
    run: &'e RunState,
}

macro_rules! passes_the_rest_on {
    () => {
        #[inline]
        fn watermark(&mut self, watermark: i64) {
            self.emit.watermark(watermark);
        }
        #[inline]
        fn idle(&mut self, idle: bool) {
            self.emit.idle(idle);
        }
        #[inline(always)]
        fn room(&self) -> bool {
            self.emit.room()
        }
        #[inline]
        fn side<U: thalweg::Record>(&mut self, port: usize, elem: Elem<'_, U>) {
            self.emit.side(port, elem);
        }
    };
}

impl<E: Emit<Due<Event>>> Emit<Event> for Counted<'_, E> {
    #[inline(always)]
    fn emit(&mut self, elem: Elem<'_, Event>) {
        self.events += 1;
        self.emit.emit(Elem::new((0, elem.view), elem.timestamp));
    }
    passes_the_rest_on!();
}

impl<E: Emit<Due<Event>>> Emit<Event> for Scheduled<'_, E> {
    #[inline(always)]
    fn emit(&mut self, elem: Elem<'_, Event>) {
        self.due_ns = (self.number as f64 * self.ns_per_event) as u64;
        self.number += self.step;
        if self.reached_ms == i64::MIN || elem.timestamp >= RunState::next_step(self.reached_ms) {
            self.run.reach(self.reached_ms, elem.timestamp, self.due_ns);
            self.reached_ms = elem.timestamp;
        }
        self.emit.emit(Elem::new((self.due_ns, elem.view), elem.timestamp));
    }
    passes_the_rest_on!();
}
