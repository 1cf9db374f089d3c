//! Watermark valve: from the watermarks and the idleness of many channels to those of one input, and of many inputs to
//! those of a segment.
//!
//! The rules are Flink's (`StatusWatermarkValve`, `CombinedWatermarkStatus`), with one difference: a finished channel
//! does not count any more. In Flink it counts as a channel at the end of time, so that event time jumps to the end
//! when the channels that are left become idle (FLINK-38477).

use thalweg_model::time::{MAX_WATERMARK, MIN_WATERMARK};

/// What changes for those downstream, in this order: active again, a new watermark, idle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Change {
    /// No longer idle.
    pub active: bool,
    /// Event time has advanced to this.
    pub watermark: Option<i64>,
    /// Idle from now on.
    pub idle: bool,
}

#[derive(Clone, Copy, Debug)]
struct Channel {
    watermark: i64,
    idle: bool,
    /// Whether it takes part in the minimum.
    aligned: bool,
    finished: bool,
}

/// The channels of one logical input.
#[derive(Clone, Debug)]
pub struct Valve {
    channels: Vec<Channel>,
    last: i64,
    idle: bool,
}

impl Valve {
    /// A valve over `channels` channels, all active, none with a watermark. At least one.
    pub fn new(channels: usize) -> Self {
        let channel = Channel { watermark: MIN_WATERMARK, idle: false, aligned: true, finished: false };
        Self { channels: vec![channel; channels], last: MIN_WATERMARK, idle: false }
    }

    /// A watermark has arrived. [`MAX_WATERMARK`] says that the channel has finished.
    pub fn watermark(&mut self, channel: usize, watermark: i64) -> Change {
        if watermark == MAX_WATERMARK {
            return self.finished(channel);
        }
        let state = &mut self.channels[channel];
        if self.idle || state.idle || state.finished || watermark <= state.watermark {
            return Change::default();
        }
        state.watermark = watermark;
        state.aligned |= watermark >= self.last;
        Change { watermark: self.new_minimum(), ..Change::default() }
    }

    /// The channel has become idle or active.
    pub fn status(&mut self, channel: usize, idle: bool) -> Change {
        let state = &mut self.channels[channel];
        if state.finished || state.idle == idle {
            return Change::default();
        }
        state.idle = idle;
        if idle {
            state.aligned = false;
            let held_back = state.watermark == self.last;
            return self.one_less(held_back);
        }
        state.aligned = state.watermark >= self.last;
        Change { active: std::mem::take(&mut self.idle), ..Change::default() }
    }

    /// The channel has ended. May be said twice.
    pub fn finished(&mut self, channel: usize) -> Change {
        let state = &mut self.channels[channel];
        if state.finished {
            return Change::default();
        }
        let (was_idle, held_back) = (state.idle, state.watermark == self.last);
        *state = Channel { finished: true, aligned: false, ..*state };
        if self.channels.iter().all(|c| c.finished) {
            self.last = MAX_WATERMARK;
            return Change {
                active: std::mem::take(&mut self.idle),
                watermark: Some(MAX_WATERMARK),
                ..Change::default()
            };
        }
        if was_idle { Change::default() } else { self.one_less(held_back) }
    }

    /// The watermark of the input so far.
    pub fn current(&self) -> i64 {
        self.last
    }

    /// An active channel has left.
    fn one_less(&mut self, held_back: bool) -> Change {
        if self.channels.iter().any(|c| !c.idle && !c.finished) {
            let watermark = if held_back { self.new_minimum() } else { None };
            return Change { watermark, ..Change::default() };
        }
        let max = self.channels.iter().filter(|c| !c.finished).map(|c| c.watermark).max();
        let watermark = if held_back { max.and_then(|w| self.advance(w)) } else { None };
        self.idle = true;
        Change { watermark, idle: true, ..Change::default() }
    }

    fn new_minimum(&mut self) -> Option<i64> {
        let min = self.channels.iter().filter(|c| c.aligned).map(|c| c.watermark).min()?;
        self.advance(min)
    }

    fn advance(&mut self, watermark: i64) -> Option<i64> {
        (watermark > self.last).then(|| {
            self.last = watermark;
            watermark
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Input {
    watermark: i64,
    idle: bool,
}

/// The logical inputs of one segment.
#[derive(Clone, Debug)]
pub struct Combiner {
    inputs: Vec<Input>,
    last: i64,
    idle: bool,
}

impl Combiner {
    /// A combiner over `inputs` inputs.
    pub fn new(inputs: usize) -> Self {
        Self { inputs: vec![Input { watermark: MIN_WATERMARK, idle: false }; inputs], last: MIN_WATERMARK, idle: false }
    }

    /// Takes in what has changed at one input.
    pub fn update(&mut self, input: usize, change: Change) -> Change {
        if self.inputs.len() == 1 {
            self.last = change.watermark.unwrap_or(self.last);
            return change;
        }
        let state = &mut self.inputs[input];
        if let Some(watermark) = change.watermark {
            state.watermark = watermark;
        }
        if change.active || change.idle {
            state.idle = change.idle;
        }
        if change == Change::default() {
            return change;
        }
        let (mut min, mut all_idle, mut all_finished) = (MAX_WATERMARK, true, true);
        for input in self.inputs.iter().filter(|i| i.watermark != MAX_WATERMARK) {
            all_finished = false;
            if !input.idle {
                all_idle = false;
                min = min.min(input.watermark);
            }
        }
        let was_idle = std::mem::replace(&mut self.idle, all_idle && !all_finished);
        let advanced = (all_finished || !all_idle) && min > self.last;
        if advanced {
            self.last = min;
        }
        Change { active: was_idle && !self.idle, watermark: advanced.then_some(min), idle: !was_idle && self.idle }
    }

    /// The watermark of the segment so far.
    pub fn current(&self) -> i64 {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(watermark: i64) -> Change {
        Change { watermark: Some(watermark), ..Change::default() }
    }
    const NONE: Change = Change { active: false, watermark: None, idle: false };
    const IDLE: Change = Change { active: false, watermark: None, idle: true };
    const ACTIVE: Change = Change { active: true, watermark: None, idle: false };

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Mark(usize, i64),
        Idle(usize),
        Active(usize),
        End(usize),
    }
    use Event::*;

    fn check(channels: usize, table: &[(Event, Change)]) {
        let mut valve = Valve::new(channels);
        for (line, (event, expected)) in table.iter().enumerate() {
            let change = match *event {
                Mark(c, w) => valve.watermark(c, w),
                Idle(c) => valve.status(c, true),
                Active(c) => valve.status(c, false),
                End(c) => valve.finished(c),
            };
            assert_eq!(change, *expected, "line {line}: {event:?}");
        }
    }

    #[test]
    fn when_one_channel_then_its_rising_watermarks_pass() {
        check(1, &[(Mark(0, 0), mark(0)), (Mark(0, 25), mark(25)), (Mark(0, 25), NONE), (Mark(0, 18), NONE)]);
    }

    #[test]
    fn when_one_channel_is_idle_then_its_watermarks_are_ignored() {
        check(
            1,
            &[
                (Mark(0, 25), mark(25)),
                (Idle(0), IDLE),
                (Idle(0), NONE),
                (Mark(0, 50), NONE),
                (Active(0), ACTIVE),
                (Mark(0, 50), mark(50)),
            ],
        );
    }

    #[test]
    fn when_several_channels_then_the_minimum_passes_once_all_have_spoken() {
        check(
            3,
            &[
                (Mark(0, 0), NONE),
                (Mark(1, 0), NONE),
                (Mark(2, 0), mark(0)),
                (Mark(0, 12), NONE),
                (Mark(2, 8), NONE),
                (Mark(2, 10), NONE),
                (Mark(1, 15), mark(10)),
                (Mark(2, 17), mark(12)),
                (Mark(0, 20), mark(15)),
            ],
        );
    }

    #[test]
    fn when_the_channel_that_holds_back_becomes_idle_then_the_minimum_of_the_others_passes() {
        check(
            3,
            &[
                (Mark(0, 25), NONE),
                (Mark(1, 10), NONE),
                (Mark(2, 17), mark(10)),
                (Idle(1), mark(17)),
                (Mark(0, 30), NONE),
                (Mark(2, 20), mark(20)),
            ],
        );
    }

    #[test]
    fn when_another_channel_becomes_idle_then_nothing_passes() {
        check(2, &[(Mark(0, 10), NONE), (Mark(1, 5), mark(5)), (Idle(0), NONE), (Mark(1, 7), mark(7))]);
    }

    #[test]
    fn when_the_last_active_channel_becomes_idle_then_the_maximum_passes_and_idleness() {
        check(
            3,
            &[
                (Mark(0, 5), NONE),
                (Mark(1, 9), NONE),
                (Mark(2, 7), mark(5)),
                (Idle(1), NONE),
                (Idle(2), NONE),
                (Idle(0), Change { active: false, watermark: Some(9), idle: true }),
            ],
        );
    }

    #[test]
    fn when_the_last_active_channel_was_ahead_then_no_maximum_passes() {
        // Channel 1 lags behind the output when it is the last: its watermark is not the last output.
        check(
            2,
            &[
                (Mark(0, 10), NONE),
                (Mark(1, 10), mark(10)),
                (Idle(1), NONE),
                (Mark(0, 20), mark(20)),
                (Active(1), NONE),
                (Mark(1, 15), NONE),
                (Idle(0), NONE),
                (Idle(1), IDLE),
            ],
        );
    }

    #[test]
    fn when_an_idle_channel_returns_behind_then_it_does_not_hold_back_until_it_catches_up() {
        check(
            2,
            &[
                (Mark(0, 10), NONE),
                (Mark(1, 10), mark(10)),
                (Idle(1), NONE),
                (Mark(0, 20), mark(20)),
                (Active(1), NONE),
                (Mark(0, 25), mark(25)),
                (Mark(1, 15), NONE),
                (Mark(1, 26), NONE),
                (Mark(0, 30), mark(26)),
            ],
        );
    }

    #[test]
    fn when_an_idle_channel_returns_ahead_then_it_counts_at_once() {
        check(
            2,
            &[
                (Mark(0, 10), NONE),
                (Mark(1, 30), mark(10)),
                (Idle(1), NONE),
                (Active(1), NONE),
                (Mark(0, 40), mark(30)),
            ],
        );
    }

    #[test]
    fn when_all_were_idle_then_the_first_active_one_makes_the_input_active() {
        check(2, &[(Idle(0), NONE), (Idle(1), IDLE), (Active(1), ACTIVE), (Active(0), NONE)]);
    }

    #[test]
    fn when_channels_finish_then_only_the_last_one_ends_time() {
        check(
            3,
            &[
                (Mark(0, 5), NONE),
                (Mark(1, 7), NONE),
                (Mark(2, 9), mark(5)),
                (Mark(0, i64::MAX), mark(7)),
                (End(0), NONE),
                (End(1), mark(9)),
                (Mark(2, i64::MAX), mark(i64::MAX)),
                (End(2), NONE),
            ],
        );
    }

    #[test]
    fn when_one_has_finished_and_the_rest_is_idle_then_time_does_not_jump_to_the_end() {
        check(
            2,
            &[
                (Mark(0, 5), NONE),
                (Mark(1, 7), mark(5)),
                (Mark(0, i64::MAX), mark(7)),
                (Idle(1), IDLE),
                (Active(1), ACTIVE),
                (Mark(1, 8), mark(8)),
                (Idle(1), IDLE),
                (End(1), Change { active: true, watermark: Some(i64::MAX), idle: false }),
            ],
        );
    }

    #[test]
    fn when_inputs_are_combined_then_idle_and_finished_ones_do_not_hold_back() {
        let mut c = Combiner::new(2);
        assert_eq!(c.update(0, mark(10)), NONE);
        assert_eq!(c.update(1, mark(4)), mark(4));
        assert_eq!(c.update(1, IDLE), mark(10));
        assert_eq!(c.update(0, mark(12)), mark(12));
        assert_eq!(c.update(1, ACTIVE), NONE);
        assert_eq!(c.update(1, mark(20)), NONE);
        assert_eq!(c.update(0, mark(15)), mark(15));
        assert_eq!(c.update(0, mark(i64::MAX)), mark(20));
        assert_eq!(c.update(1, IDLE), IDLE);
        assert_eq!(c.update(1, ACTIVE), ACTIVE);
        assert_eq!(c.update(1, mark(i64::MAX)), mark(i64::MAX));
        assert_eq!(c.current(), i64::MAX);
    }
}
