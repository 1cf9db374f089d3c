//! `Inputs`: the receiving side of a segment: a gate, and what its channels mean.

use crate::{
    exchange::{Control, Gate},
    valve::{Change, Combiner, Valve},
    wake_set::WakeSet,
};

/// What a control element comes to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    /// Watermarks or idleness, perhaps the end of a logical input, perhaps of the last one.
    Change { change: Change, ended: Option<usize>, all_ended: bool },
    /// A latency marker.
    Marker(Control),
    /// Nothing to do.
    Nothing,
}

/// A logical input.
struct Input {
    valve: Valve,
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
}

impl Inputs {
    /// A gate whose channels lead to these logical inputs and come from these slots.
    pub(crate) fn new(gate: Gate, inputs: usize, input_of: &[usize], slot_of: Box<[usize]>) -> Self {
        let mut counts = vec![0; inputs];
        let place = |&input: &usize| {
            counts[input] += 1;
            (input, counts[input] - 1)
        };
        let place_of = input_of.iter().map(place).collect();
        let input = |&channels: &usize| Input { valve: Valve::new(channels), open_channels: channels };
        Self { gate, place_of, slot_of, inputs: counts.iter().map(input).collect(), combiner: Combiner::new(inputs) }
    }

    /// The logical input of a channel.
    #[inline]
    pub(crate) fn input_of(&self, channel: usize) -> usize {
        self.place_of[channel].0
    }

    /// Takes the control element that a channel is at.
    pub(crate) fn take_control(&mut self, channel: usize) -> Event {
        let Some(control) = self.gate.take_control(channel) else { return Event::Nothing };
        let (input, place) = self.place_of[channel];
        let state = &mut self.inputs[input];
        let change = match control {
            Control::Watermark(watermark) => state.valve.watermark(place, watermark),
            Control::Idle => state.valve.status(place, true),
            Control::Active => state.valve.status(place, false),
            Control::EndOfInput => {
                self.gate.end(channel);
                state.open_channels -= 1;
                state.valve.finished(place)
            }
            Control::LatencyMarker { .. } => return Event::Marker(control),
            // Barriers, which belong to checkpoints, are not sent yet.
            _ => return Event::Nothing,
        };
        let ended = (control == Control::EndOfInput && state.open_channels == 0).then_some(input);
        let all_ended = ended.is_some() && self.inputs.iter().all(|i| i.open_channels == 0);
        Event::Change { change: self.combiner.update(input, change), ended, all_ended }
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
