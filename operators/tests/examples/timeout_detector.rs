//! `timeout_detector`: who is told to be silent, in both kinds of time.

#[path = "../../examples/timeout_detector/job.rs"]
mod job;

use job::Silence;
use thalweg::prelude::*;

use crate::{PARALLELISMS, environment};

#[test]
fn when_heartbeats_stop_in_event_time_then_each_silence_is_told_once() {
    for parallelism in PARALLELISMS {
        let env = environment(parallelism);
        let (sink, out) = collect();
        job::by_event_time(&env, 5_000, sink);
        env.execute().unwrap();
        let mut silences = out.take();
        silences.sort();
        let expected = [(0, 59), (1, 59), (2, 59), (3, 19), (3, 59), (4, 29), (5, 59)];
        assert_eq!(silences, expected.map(|(device, second)| Silence { device, since_ms: second * 1_000 }));
    }
}

/// Says nothing of the devices that go on: on a machine that stands still for a while, they are silent too.
#[test]
fn when_heartbeats_stop_on_the_wall_clock_then_the_silence_is_told_before_the_end() {
    let env = environment(2);
    let (sink, out) = collect();
    job::by_wall_clock(&env, 100, 50, sink);
    env.execute().unwrap();
    let silences = out.take();
    for device in [3, 4] {
        assert!(silences.iter().any(|silence| silence.device == device), "{silences:?}");
    }
}
