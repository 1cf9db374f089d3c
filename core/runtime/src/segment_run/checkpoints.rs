//! What a segment does about checkpoints: the moment of one, barriers that overtake, records in flight, writing, the outcome.
//!
//! When the moment comes is decided by `checkpoint/alignment.rs` and `inputs.rs`, what is written by `checkpoint`.

use std::sync::Arc;

use thalweg_io::checkpoint::{Event as WriterEvent, SlotWriter};
use thalweg_model::CheckpointId;

use super::{InFlightParts, Life, SegmentRun, StepEnv, Todo};
use crate::{
    BarrierAlignment, CheckpointRequest, OperatorStateWriter, SnapshotFigures, StopMode, TaskError,
    checkpoint::{AtBarrier, ChannelState, Complete, Outcome, Slice, SliceEnv},
    inputs::Moment,
};

impl SegmentRun {
    /// The moment of a checkpoint: sends the barrier on, takes what is small, flips the epoch of the tables.
    pub(super) fn take_snapshot(&mut self, complete: Complete, env: &StepEnv<'_>) -> Result<(), TaskError> {
        let Complete { request, first_ns, first_bytes, overtaken, overtakes } = complete;
        let began_ns = env.clock.now_ns();
        let id = request.id;
        let states = self.out.barrier(&request, overtakes);
        let outputs_until_ms = request.overtakes_at_ms().filter(|_| !overtakes);
        let inputs = !overtaken.is_empty();
        if let Some(gate) = self.inputs.as_mut().filter(|_| inputs) {
            gate.begin_recording(id, overtaken);
        }
        let open = inputs || !states.is_empty() || outputs_until_ms.is_some();
        self.in_flight = open.then_some(InFlightParts { id, states, inputs, outputs_until_ms });
        let mut operator_state = OperatorStateWriter::new(self.waker.clone());
        let Self { segment, who, snapshots, .. } = self;
        let end_of_data = matches!(self.life, Life::AtEnd { .. });
        who.guard(|| segment.snapshot(id, &mut operator_state))?;
        let figures = SnapshotFigures {
            alignment_ns: began_ns.saturating_sub(first_ns),
            start_delay_ms: env.clock.ms_at(first_ns).saturating_sub(request.triggered_ms).max(0) as u64,
            processed_bytes: self.counters.bytes - first_bytes,
            unaligned: overtakes,
            ..SnapshotFigures::default()
        };
        let stop = request.stop;
        let at = AtBarrier { request, operator_state, figures, end_of_data, now_ns: began_ns, open };
        who.guard(|| {
            snapshots.begin(segment.as_mut(), at);
            Ok(())
        })?;
        snapshots.paused(env.clock.now_ns().saturating_sub(began_ns));
        match (&mut self.life, stop) {
            (Life::AtEnd { taken }, _) => *taken = taken.or(Some(id)),
            (life, Some(_)) => *life = Life::Stopped(id),
            _ => {}
        }
        self.gather_in_flight(env);
        Ok(())
    }

    /// Looks for barriers that overtake, whatever room there is, and for what is recorded for them.
    pub(super) fn mind_overtaking(&mut self, env: &StepEnv<'_>) -> Result<(), TaskError> {
        // Records that were in flight before must be out of the way first: they are in no channel.
        if let Some(inputs) = self.inputs.as_mut().filter(|inputs| inputs.overtakes() && self.restored.is_empty()) {
            let bytes = self.counters.bytes;
            let mut moments: Vec<Moment> =
                (0..inputs.gate.channels()).map(|channel| inputs.look(channel, env.now_ns, bytes)).collect();
            if inputs.overtakes_at_ms().is_some_and(|at_ms| at_ms <= env.now_ms) {
                moments.push(inputs.overtake());
            }
            moments.into_iter().for_each(|moment| self.overtaking_moment(moment));
            if matches!(self.todo.front(), Some(Todo::Barrier(_))) && !self.snapshots.is_busy() {
                self.run_todo(env)?;
            }
        }
        self.gather_in_flight(env);
        Ok(())
    }

    /// A moment that does not wait for what is to be done before it, unless that has been begun.
    pub(super) fn overtaking_moment(&mut self, moment: Moment) {
        let before = self.todo.len();
        self.moment(moment);
        if self.todo.len() > before
            && let Some(barrier) = self.todo.pop_back()
        {
            self.todo.insert(usize::from(self.begun && before > 0), barrier);
        }
    }

    /// Adds the records in flight to the snapshot once all of them are there.
    fn gather_in_flight(&mut self, env: &StepEnv<'_>) {
        let Some(parts) = &mut self.in_flight else { return };
        if parts.inputs
            && let Some(inputs) = &mut self.inputs
            && let Some(recorded) = inputs.take_recorded(parts.id)
        {
            parts.inputs = false;
            for (channel, records) in recorded.into_iter().filter(|(_, records)| !records.is_empty()) {
                let (name, schema) = &self.channels[channel];
                parts.states.push(ChannelState { name: name.clone(), schema: schema.to_vec(), records });
            }
        }
        if let Some(until_ms) = parts.outputs_until_ms {
            if !self.out.has_unsent_barrier(parts.id) {
                parts.outputs_until_ms = None;
            } else if until_ms <= env.now_ms {
                parts.states.extend(self.out.overtake_late(parts.id));
                parts.outputs_until_ms = None;
            }
        }
        if !parts.inputs
            && parts.outputs_until_ms.is_none()
            && let Some(parts) = self.in_flight.take()
        {
            self.snapshots.add_in_flight(parts.id, parts.states);
        }
    }

    /// A checkpoint that no barrier announces: to a source, or where all that is upstream has finished.
    pub(crate) fn trigger(&mut self, request: &Arc<CheckpointRequest>, now_ns: u64) {
        if self.closed {
            return;
        }
        let bytes = self.counters.bytes;
        if let Some(inputs) = &mut self.inputs {
            let moment = inputs.trigger(request.clone(), now_ns, bytes);
            return self.moment(moment);
        }
        if request.id <= self.triggered {
            return;
        }
        self.triggered = request.id;
        if request.stop == Some(StopMode::Drain) && !self.time_ended {
            self.final_checkpoint = true;
            self.all_ended();
        }
        let request = request.clone();
        let overtakes = request.alignment == BarrierAlignment::Unaligned;
        let overtaken = Vec::new();
        self.todo.push_back(Todo::Barrier(Complete {
            request,
            first_ns: now_ns,
            first_bytes: bytes,
            overtaken,
            overtakes,
        }));
    }

    pub(super) fn moment(&mut self, moment: Moment) {
        if let Some(id) = moment.cancelled {
            self.declined.push((id, "the barrier of a later checkpoint came first".into()));
        }
        self.todo.extend(moment.complete.map(Todo::Barrier));
    }

    /// A checkpoint is complete: commits what is pending.
    pub(crate) fn checkpoint_complete(&mut self, id: CheckpointId) -> Result<(), TaskError> {
        if self.closed {
            return Ok(());
        }
        let Self { segment, who, .. } = self;
        who.guard(|| segment.checkpoint_complete(id))
    }

    /// A checkpoint came to nothing. One that has stopped for it goes on.
    pub(crate) fn checkpoint_aborted(
        &mut self,
        id: CheckpointId,
        writer: Option<&mut SlotWriter>,
    ) -> Result<(), TaskError> {
        if self.closed {
            return Ok(());
        }
        if let Some(inputs) = &mut self.inputs {
            inputs.abort(id);
        }
        self.in_flight.take_if(|parts| parts.id == id);
        self.todo.retain(|todo| !matches!(todo, Todo::Barrier(complete) if complete.request.id == id));
        if self.life == Life::Stopped(id) {
            self.life = Life::Running;
        }
        let Self { segment, who, snapshots, .. } = self;
        who.guard(|| {
            snapshots.abort(id, segment.as_mut(), writer);
            segment.checkpoint_aborted(id);
            Ok(())
        })
    }

    /// Whether a snapshot of it is being written, or cleaned up.
    pub(crate) fn is_writing(&self) -> bool {
        !self.closed && self.snapshots.is_busy()
    }

    /// Goes on writing for about the budget, and says what has become of the snapshot if that is known now.
    pub(crate) fn write_slice(&mut self, env: &mut SliceEnv<'_>) -> Result<(Slice, Option<Outcome>), TaskError> {
        let Self { segment, who, snapshots, .. } = self;
        who.guard(|| {
            let slice = snapshots.step(segment.as_mut(), env);
            let outcome = snapshots.outcome(segment.as_mut(), env.writer.as_deref_mut(), env.now_ns);
            Ok((if outcome.is_some() { Slice::Busy } else { slice }, outcome))
        })
    }

    /// Something that the slot's writer has done.
    pub(crate) fn writer_event(&mut self, event: &WriterEvent) {
        self.snapshots.event(event);
    }

    /// Checkpoints that it has to decline, and why.
    pub(crate) fn take_declined(&mut self) -> Vec<(CheckpointId, String)> {
        std::mem::take(&mut self.declined)
    }
}
