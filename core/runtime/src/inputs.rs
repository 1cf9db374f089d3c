//! `Inputs`: the receiving side of a segment: a gate, and what its channels mean.

use std::sync::Arc;

use thalweg_io::{InFlight, Overtaking};
use thalweg_model::{
    CheckpointId,
    metrics::{Gauge, OperatorMetrics},
};

use crate::{
    CheckpointRequest, JobControl,
    checkpoint::{Aligned, Alignments, Complete},
    exchange::{Control, Gate},
    valve::{Change, Combiner, Valve},
    wake_set::WakeSet,
};

/// What a control element comes to.
#[derive(Debug)]
pub(crate) enum Event {
    /// Watermarks or idleness, perhaps the end of a logical input, perhaps of the last one.
    Change { change: Change, ended: Option<usize>, all_ended: bool },
    /// A latency marker.
    Marker(Control),
    /// Barriers: the segment's moment may have come, or an alignment been given up.
    Barriers(Moment),
    /// Nothing to do.
    Nothing,
}

/// What barriers come to, once the gate has been told.
#[derive(Debug, Default)]
pub(crate) struct Moment {
    /// The segment takes its snapshot now.
    pub(crate) complete: Option<Complete>,
    /// This checkpoint was given up for a newer one.
    pub(crate) cancelled: Option<CheckpointId>,
}

/// A logical input.
struct Input {
    valve: Valve,
    /// Channels that may still bring records.
    open_channels: usize,
}

/// The receiving side.
pub(crate) struct Inputs {
    pub(crate) gate: Gate,
    /// Of each channel of the gate: its logical input, and its place in that input's valve.
    place_of: Box<[(usize, usize)]>,
    /// Of each channel of the gate: the slot at its other end.
    slot_of: Box<[usize]>,
    inputs: Vec<Input>,
    combiner: Combiner,
    alignments: Alignments,
    /// Of each channel: whether its data have ended.
    ended: Box<[bool]>,
    control: JobControl,
    /// Whether barriers may overtake here.
    overtakes: bool,
    /// Of each channel: the barrier that has overtaken it, until the segment's moment has come.
    overtakings: Box<[Option<Overtaking>]>,
    recording: Option<Recording>,
    /// Whether a sender has ended its data and stays for a barrier.
    barrier_follows: bool,
    /// Shows the watermark of each logical input, where there are several.
    watermarks: Box<[Gauge]>,
}

/// Records in flight, while they are being recorded for a checkpoint.
struct Recording {
    id: CheckpointId,
    /// Channels whose barrier has not come.
    left: Vec<usize>,
    recorded: Vec<(usize, InFlight)>,
}

/// What an `Inputs` is made of besides its gate.
pub(crate) struct InputsSettings<'a> {
    /// Number of logical inputs.
    pub(crate) inputs: usize,
    /// Of each channel: its logical input.
    pub(crate) input_of: &'a [usize],
    /// Of each channel: the slot at its other end.
    pub(crate) slot_of: Box<[usize]>,
    pub(crate) control: JobControl,
    /// Whether barriers may overtake.
    pub(crate) overtakes: bool,
}

impl Inputs {
    /// A gate whose channels lead to these logical inputs and come from these slots.
    pub(crate) fn new(mut gate: Gate, settings: InputsSettings<'_>) -> Self {
        let InputsSettings { inputs, input_of, slot_of, control, overtakes } = settings;
        if overtakes {
            gate.heed_overtaking();
        }
        let mut counts = vec![0; inputs];
        let place = |&input: &usize| {
            counts[input] += 1;
            (input, counts[input] - 1)
        };
        let place_of = input_of.iter().map(place).collect();
        let input = |&channels: &usize| Input { valve: Valve::new(channels), open_channels: channels };
        Self {
            gate,
            place_of,
            slot_of,
            inputs: counts.iter().map(input).collect(),
            combiner: Combiner::new(inputs),
            alignments: Alignments::new(input_of.len(), overtakes),
            ended: vec![false; input_of.len()].into(),
            control,
            overtakes,
            overtakings: vec![None; input_of.len()].into(),
            recording: None,
            barrier_follows: false,
            watermarks: Box::default(),
        }
    }

    /// Registers what [`Self::report`] shows, as the metrics of the operator that takes the records.
    pub(crate) fn register(&mut self, operator: &OperatorMetrics) {
        if self.inputs.len() > 1 {
            self.watermarks = (1..=self.inputs.len()).map(|input| operator.current_input_n_watermark(input)).collect();
        }
    }

    /// Shows how far event time has come on each logical input.
    pub(crate) fn report(&self) {
        for (gauge, input) in self.watermarks.iter().zip(&self.inputs) {
            gauge.set(input.valve.current());
        }
    }

    /// The logical input of a channel.
    #[inline]
    pub(crate) fn input_of(&self, channel: usize) -> usize {
        self.place_of[channel].0
    }

    /// Takes the control element that a channel is at. `now_ns`: the slot's clock; `bytes`: read so far by the segment.
    pub(crate) fn take_control(&mut self, channel: usize, now_ns: u64, bytes: u64) -> Event {
        let Some(control) = self.gate.take_control(channel) else { return Event::Nothing };
        let (input, place) = self.place_of[channel];
        let state = &mut self.inputs[input];
        let change = match control {
            Control::Watermark(watermark) => state.valve.watermark(place, watermark),
            Control::Idle => state.valve.status(place, true),
            Control::Active => state.valve.status(place, false),
            Control::EndOfData => {
                self.barrier_follows = true;
                return self.data_ended(channel);
            }
            Control::EndOfInput => {
                self.gate.end(channel);
                return self.data_ended(channel);
            }
            Control::Barrier { checkpoint, .. } => {
                return self.barrier(channel, CheckpointId(checkpoint), now_ns, bytes);
            }
            Control::LatencyMarker { .. } => return Event::Marker(control),
            _ => return Event::Nothing,
        };
        Event::Change { change: self.combiner.update(input, change), ended: None, all_ended: false }
    }

    /// No record follows on a channel. Said twice where a barrier may come in between.
    fn data_ended(&mut self, channel: usize) -> Event {
        if std::mem::replace(&mut self.ended[channel], true) {
            return Event::Nothing;
        }
        let (input, place) = self.place_of[channel];
        let state = &mut self.inputs[input];
        state.open_channels -= 1;
        let change = state.valve.finished(place);
        let ended = (state.open_channels == 0).then_some(input);
        let all_ended = ended.is_some() && self.inputs.iter().all(|i| i.open_channels == 0);
        Event::Change { change: self.combiner.update(input, change), ended, all_ended }
    }

    fn barrier(&mut self, channel: usize, id: CheckpointId, now_ns: u64, bytes: u64) -> Event {
        if !self.alignments.wants(id) {
            self.recorded_in_line(channel, id);
            return Event::Nothing;
        }
        // One that nobody knows any more has come to nothing.
        let Some(request) = self.control.request(id) else { return Event::Nothing };
        let aligned = self.alignments.barrier(channel, request, now_ns, bytes);
        Event::Barriers(self.apply(aligned))
    }

    /// Whether the last element of a channel ended it, and with it perhaps an alignment.
    pub(crate) fn channel_ended(&mut self, channel: usize) -> Moment {
        if !self.gate.is_ended(channel) {
            return Moment::default();
        }
        if let Some(id) = self.recording.as_ref().map(|recording| recording.id) {
            self.recorded_in_line(channel, id);
        }
        let aligned = self.alignments.ended(channel);
        self.apply(aligned)
    }

    /// Whether a sender has ended its data and stays for a barrier, which must be passed on.
    pub(crate) fn barrier_follows(&self) -> bool {
        self.barrier_follows
    }

    /// Whether barriers may overtake here: then each step looks for them.
    #[inline]
    pub(crate) fn overtakes(&self) -> bool {
        self.overtakes
    }

    /// Looks for a barrier that has overtaken what is queued on a channel.
    #[inline]
    pub(crate) fn look(&mut self, channel: usize, now_ns: u64, bytes: u64) -> Moment {
        match self.gate.take_overtaking(channel) {
            Some(overtaking) => self.overtaken(channel, overtaking, now_ns, bytes),
            None => Moment::default(),
        }
    }

    #[cold]
    fn overtaken(&mut self, channel: usize, overtaking: Overtaking, now_ns: u64, bytes: u64) -> Moment {
        let id = CheckpointId(overtaking.checkpoint);
        if let Some(recording) = self.recording.as_mut().filter(|recording| recording.id == id) {
            if let Some(at) = recording.left.iter().position(|&left| left == channel) {
                recording.left.swap_remove(at);
                recording.recorded.push((channel, self.gate.finish_recording(channel, Some(overtaking.sent_bytes))));
            }
            return Moment::default();
        }
        if !self.alignments.wants(id) {
            // The segment's moment has come and it has not begun to record yet.
            self.overtakings[channel] = Some(overtaking);
            return Moment::default();
        }
        let Some(request) = self.control.request(id) else { return Moment::default() };
        self.overtakings[channel] = Some(overtaking);
        let aligned = self.alignments.overtaken(request, now_ns, bytes);
        self.apply(aligned)
    }

    /// The segment has taken its snapshot: what is queued on these channels belongs to it, up to their barriers.
    pub(crate) fn begin_recording(&mut self, id: CheckpointId, channels: Vec<usize>) {
        self.drop_recording();
        let mut recording = Recording { id, left: Vec::new(), recorded: Vec::new() };
        for channel in channels {
            match self.overtakings[channel].filter(|overtaking| overtaking.checkpoint == id.0) {
                Some(Overtaking { sent_bytes, .. }) => {
                    recording.recorded.push((channel, self.gate.finish_recording(channel, Some(sent_bytes))));
                }
                None => {
                    self.gate.record(channel);
                    recording.left.push(channel);
                }
            }
        }
        self.overtakings.fill(None);
        self.recording = Some(recording);
    }

    /// What was recorded for a checkpoint, by channel, once all barriers have come.
    pub(crate) fn take_recorded(&mut self, id: CheckpointId) -> Option<Vec<(usize, InFlight)>> {
        let whole = |recording: &mut Recording| recording.id == id && recording.left.is_empty();
        self.recording.take_if(whole).map(|recording| recording.recorded)
    }

    /// A barrier has come in line that ends the recording of its channel.
    fn recorded_in_line(&mut self, channel: usize, id: CheckpointId) {
        let Some(recording) = self.recording.as_mut().filter(|recording| recording.id == id) else { return };
        if let Some(at) = recording.left.iter().position(|&left| left == channel) {
            recording.left.swap_remove(at);
            recording.recorded.push((channel, self.gate.finish_recording(channel, None)));
        }
    }

    fn drop_recording(&mut self) {
        for channel in self.recording.take().into_iter().flat_map(|recording| recording.left) {
            self.gate.drop_recording(channel);
        }
    }

    /// A checkpoint that no barrier announces.
    pub(crate) fn trigger(&mut self, request: Arc<CheckpointRequest>, now_ns: u64, bytes: u64) -> Moment {
        let aligned = self.alignments.trigger(request, now_ns, bytes);
        self.apply(aligned)
    }

    /// A checkpoint came to nothing.
    pub(crate) fn abort(&mut self, id: CheckpointId) {
        if self.recording.as_ref().is_some_and(|recording| recording.id == id) {
            self.drop_recording();
        }
        let aligned = self.alignments.abort(id);
        let _ = self.apply(aligned);
    }

    /// When the present alignment is to be given up for overtaking, in milliseconds since the epoch.
    pub(crate) fn overtakes_at_ms(&self) -> Option<i64> {
        self.alignments.overtakes_at_ms()
    }

    /// The present alignment has taken too long.
    pub(crate) fn overtake(&mut self) -> Moment {
        let aligned = self.alignments.overtake();
        self.apply(aligned)
    }

    fn apply(&mut self, aligned: Aligned) -> Moment {
        if aligned.unblock_all {
            self.gate.unblock_all();
        }
        if let Some(channel) = aligned.block {
            self.gate.block(channel);
        }
        Moment { complete: aligned.complete, cancelled: aligned.cancelled }
    }

    /// The combined watermark.
    pub(crate) fn watermark(&self) -> i64 {
        self.combiner.current()
    }

    /// Notes the slots whose pages or credits went back.
    #[inline]
    pub(crate) fn note_wakes(&mut self, wakes: &mut WakeSet) {
        let slot_of = &self.slot_of;
        self.gate.senders_to_wake(|channel| wakes.insert(slot_of[channel]));
    }
}
