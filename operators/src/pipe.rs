//! `Pipe` and `Emit`: how operators fuse into one monomorphised loop.
//!
//! A *pipe* starts a segment (a source, a decoder of frames, a keyed operator) and pushes records into an `Emit`.
//! A record-wise operator wraps both: it is a pipe around the pipe before it, handing it an emitter around the emitter
//! after it. Once a tail is attached the compiler sees one loop; nothing in it is dynamic.

use std::marker::PhantomData;

use thalweg_io::{Frame, FrameCursor};
use thalweg_model::{CheckpointId, Elem, Record, record::decode_unchecked};
use thalweg_runtime::{KeyedStateRef, OperatorStateWriter, Progress, SegmentContext, SourceStatus, TaskError};

/// Where a pipe's records go: the next fused operator, or the segment's outputs.
pub trait Emit<T: Record> {
    /// Takes one record.
    fn emit(&mut self, elem: Elem<'_, T>);
    /// Takes the watermark, in line with the records.
    fn watermark(&mut self, watermark: i64);
    /// Takes a change of idleness, in line with the records.
    fn idle(&mut self, idle: bool);
    /// Whether there is room for another record; a loop stops between records when there is not.
    fn room(&self) -> bool;
    /// Takes a record for a side output of the segment.
    fn side<U: Record>(&mut self, port: usize, elem: Elem<'_, U>);
}

/// The last watermarks at the two ends of a pipe, for its metrics; `i64::MIN` before the first. Whoever is around a pipe
/// sees what comes and what leaves.
#[derive(Clone, Copy, Debug)]
pub struct Watermarks {
    /// The one that has come to its first operator; none comes to a source before the end.
    pub arrived: i64,
    /// The one that has left its last operator.
    pub left: i64,
}

/// The head of a segment with what has been fused onto it. One instance per subtask; lives on its slot's thread.
///
/// The methods mirror [`thalweg_runtime::Segment`], with the emitter in place of the outputs.
pub trait Pipe: Clone + Send + 'static {
    /// What it emits.
    type Out: Record;

    /// Called once, before anything else.
    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), TaskError>;
    /// Reads frames of a logical input until there are none or there is no room.
    fn process<E: Emit<Self::Out>>(
        &mut self,
        input: usize,
        frames: &mut FrameCursor<'_>,
        emit: &mut E,
    ) -> Result<(), TaskError>;
    /// Takes the combined watermark of the inputs; resumable.
    fn watermark<E: Emit<Self::Out>>(&mut self, watermark: i64, emit: &mut E) -> Result<Progress, TaskError>;
    /// All inputs became idle, or one became active again.
    fn idle<E: Emit<Self::Out>>(&mut self, idle: bool, emit: &mut E) {
        emit.idle(idle);
    }
    /// Produces up to `budget` records, if this is a source.
    fn poll<E: Emit<Self::Out>>(&mut self, budget: usize, emit: &mut E) -> Result<SourceStatus, TaskError> {
        let _ = (budget, emit);
        Ok(SourceStatus::Ended)
    }
    /// Processing time has reached [`next_deadline_ms`](Self::next_deadline_ms); resumable.
    fn processing_time<E: Emit<Self::Out>>(&mut self, now_ms: i64, emit: &mut E) -> Result<Progress, TaskError> {
        let _ = (now_ms, emit);
        Ok(Progress::Done)
    }
    /// When processing time matters next.
    fn next_deadline_ms(&self) -> Option<i64> {
        None
    }
    /// A logical input has ended; resumable.
    fn end_input<E: Emit<Self::Out>>(&mut self, input: usize, emit: &mut E) -> Result<Progress, TaskError> {
        let _ = (input, emit);
        Ok(Progress::Done)
    }
    /// Everything has ended and the last watermark has been taken; resumable.
    fn finish<E: Emit<Self::Out>>(&mut self, emit: &mut E) -> Result<Progress, TaskError> {
        let _ = emit;
        Ok(Progress::Done)
    }
    /// Shows every table of keyed state to a function.
    fn keyed_states(&mut self, visit: &mut dyn FnMut(KeyedStateRef<'_>)) {
        let _ = visit;
    }
    /// The barrier of a checkpoint: hands over what is small and not keyed.
    fn snapshot(&mut self, checkpoint: CheckpointId, state: &mut OperatorStateWriter) -> Result<(), TaskError> {
        let _ = (checkpoint, state);
        Ok(())
    }
    /// A checkpoint is complete: commit what is pending up to it.
    fn checkpoint_complete(&mut self, checkpoint: CheckpointId) -> Result<(), TaskError> {
        let _ = checkpoint;
        Ok(())
    }
    /// The last checkpoint is complete: finish what committing has left to other threads. May wait.
    fn settle(&mut self) -> Result<(), TaskError> {
        Ok(())
    }
    /// A checkpoint came to nothing.
    fn checkpoint_aborted(&mut self, checkpoint: CheckpointId) {
        let _ = checkpoint;
    }
    /// The subtask ends, for whatever reason.
    fn close(&mut self) {}
    /// Publishes counters and watermarks; answers how many records the last operator has emitted.
    fn report(&mut self, marks: Watermarks) -> u64;
    /// Whether it can take records now; a sink that is full cannot.
    fn ready(&self) -> bool {
        true
    }
    /// Whether it only passes on what arrives, as no operator of its own.
    fn is_silent(&self) -> bool {
        false
    }
    /// Whether it makes its own records.
    fn is_source(&self) -> bool {
        false
    }
}

/// Reads one frame as a record of the type that its edge carries.
#[inline(always)]
pub(crate) fn read<'a, T: Record>(frame: &Frame<'a>) -> Elem<'a, T> {
    // SAFETY: an edge is made for one record type (the graph joins streams of `T` to pipes over `T` only), and its
    // frames were written by `EdgeWriter::write` of that type, at its alignment, on this machine.
    let view = unsafe { decode_unchecked::<T>(frame.payload) };
    Elem { view, timestamp: frame.timestamp, raw: frame.payload }
}

/// The head that passes on what arrives on its input: the start of every segment that is not a source and has no
/// operator of its own at the head.
pub struct Records<T> {
    seen: u64,
    types: PhantomData<fn() -> T>,
}

impl<T> Clone for Records<T> {
    fn clone(&self) -> Self {
        Self::silent()
    }
}

impl<T> Records<T> {
    /// A head that is no operator by itself; what is fused onto it is.
    pub(crate) fn silent() -> Self {
        Self { seen: 0, types: PhantomData }
    }
}

impl<T: Record> Records<T> {
    /// Passes records on while there are any, and room.
    #[inline(always)]
    fn pass<const TIMED: bool, E: Emit<T>>(&mut self, frames: &mut FrameCursor<'_>, emit: &mut E) {
        let (mut records, mut seen) = (frames.typed::<T, TIMED>(), 0);
        while emit.room()
            && let Some(frame) = records.next()
        {
            emit.emit(read::<T>(&frame));
            seen += 1;
        }
        frames.resume(&records);
        self.seen += seen;
    }
}

impl<T: Record> Pipe for Records<T> {
    type Out = T;

    fn open(&mut self, ctx: &mut SegmentContext) -> Result<(), TaskError> {
        let _ = ctx;
        Ok(())
    }

    #[inline]
    fn process<E: Emit<T>>(
        &mut self,
        _input: usize,
        frames: &mut FrameCursor<'_>,
        emit: &mut E,
    ) -> Result<(), TaskError> {
        match frames.carries_time() {
            true => self.pass::<true, E>(frames, emit),
            false => self.pass::<false, E>(frames, emit),
        }
        Ok(())
    }

    fn watermark<E: Emit<T>>(&mut self, watermark: i64, emit: &mut E) -> Result<Progress, TaskError> {
        emit.watermark(watermark);
        Ok(Progress::Done)
    }

    fn report(&mut self, _marks: Watermarks) -> u64 {
        self.seen
    }

    fn is_silent(&self) -> bool {
        true
    }
}
