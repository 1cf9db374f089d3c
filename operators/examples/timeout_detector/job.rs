//! The job: a `KeyedProcessFunction` that keeps each device's last heartbeat, and a timer for when it is overdue.

use thalweg::prelude::*;

/// Devices that send heartbeats.
const DEVICES: u64 = 6;
/// How long they do so, in seconds.
const SECONDS: u64 = 60;

/// A sign of life.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Heartbeat {
    /// Who sent it.
    pub device: u64,
    /// When, in milliseconds.
    pub at_ms: i64,
}

/// A device has been silent for longer than the timeout.
#[derive(Record, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Silence {
    /// Which device.
    pub device: u64,
    /// When it was last heard of, in milliseconds.
    pub since_ms: i64,
}

/// Detects silence in the time of the heartbeats themselves. The end of the input counts as the end of time, so that in
/// the end every device is silent.
pub fn by_event_time<S: Sink<Silence>>(env: &Environment, timeout_ms: i64, sink: S) {
    env.from_iter((0..DEVICES * SECONDS).filter_map(heartbeat))
        .assign_timestamps_and_watermarks(WatermarkStrategy::monotonous().with_timestamp(|b: HeartbeatView| b.at_ms))
        // Dealt to several subtasks, the heartbeats of a device would no longer come in order.
        .parallelism(1)
        .key_by(|beat| beat.device)
        .process(DetectSilence::new(TimeDomain::EventTime, timeout_ms))
        .name("Detect silence")
        .sink(sink);
}

/// Detects silence by the wall clock; the heartbeats come `speed` times as fast as they say.
pub fn by_wall_clock<S: Sink<Silence>>(env: &Environment, speed: u32, timeout_ms: i64, sink: S) {
    let records_per_s = DEVICES as f64 * f64::from(speed);
    env.generate_to(DEVICES * SECONDS, Some(records_per_s), |index, out: &mut Out<'_, Heartbeat>| {
        if let Some(beat) = heartbeat(index) {
            out.push(beat.view());
        }
    })
    .key_by(|beat| beat.device)
    .process(DetectSilence::new(TimeDomain::ProcessingTime, timeout_ms))
    .name("Detect silence")
    .sink(sink);
}

/// The heartbeats in the order of their times: 3 pauses for twenty seconds, 4 stops half-way.
fn heartbeat(index: u64) -> Option<Heartbeat> {
    let (device, second) = (index % DEVICES, index / DEVICES);
    let is_silent = match device {
        3 => (20..40).contains(&second),
        4 => second >= 30,
        _ => false,
    };
    (!is_silent).then_some(Heartbeat { device, at_ms: second as i64 * 1_000 })
}

/// Tells of a device once per silence.
#[derive(Clone)]
struct DetectSilence {
    domain: TimeDomain,
    timeout_ms: i64,
    /// When the device was last heard of; nothing once its silence has been told of.
    last: ValueState<i64>,
}

impl DetectSilence {
    fn new(domain: TimeDomain, timeout_ms: i64) -> Self {
        Self { domain, timeout_ms, last: ValueState::default() }
    }
}

impl KeyedProcessFunction<u64, Heartbeat> for DetectSilence {
    type Out = Silence;

    fn open(&mut self, ctx: &mut StateContext<'_, u64>) {
        self.last = ctx.value_state("last");
    }

    fn process<E: Emit<Silence>>(
        &mut self,
        beat: HeartbeatView,
        ctx: &mut KeyContext<'_, u64>,
        out: &mut Collector<'_, Silence, E>,
    ) {
        let now_ms = match self.domain {
            TimeDomain::EventTime => beat.at_ms,
            TimeDomain::ProcessingTime => ctx.current_processing_time(),
        };
        if let Some(last_ms) = self.last.value(ctx) {
            let deadline_ms = last_ms + self.timeout_ms;
            // Watermarks come in intervals: the next heartbeat may be here before the timer was due.
            if now_ms > deadline_ms {
                out.collect(SilenceView { device: beat.device, since_ms: last_ms });
            }
            match self.domain {
                TimeDomain::EventTime => ctx.delete_event_time_timer(deadline_ms),
                TimeDomain::ProcessingTime => ctx.delete_processing_time_timer(deadline_ms),
            }
        }
        self.last.set(ctx, now_ms);
        match self.domain {
            TimeDomain::EventTime => ctx.register_event_time_timer(now_ms + self.timeout_ms),
            TimeDomain::ProcessingTime => ctx.register_processing_time_timer(now_ms + self.timeout_ms),
        }
    }

    fn on_timer<E: Emit<Silence>>(
        &mut self,
        _timestamp: i64,
        _domain: TimeDomain,
        ctx: &mut KeyContext<'_, u64>,
        out: &mut Collector<'_, Silence, E>,
    ) {
        if let Some(since_ms) = self.last.value(ctx) {
            out.collect(SilenceView { device: ctx.key(), since_ms });
            self.last.clear(ctx);
        }
    }
}
