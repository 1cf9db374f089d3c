//! `Scenario`: what a seed makes of a run: the job's shape, its options, what goes wrong and how often.

use std::time::Duration;

use thalweg_cluster::checkpoint::{Input, Topology, Vertex, Wiring};
use thalweg_model::config::{
    CheckpointRetention, CheckpointingOptions, ExponentialDelay, FixedDelay, RestartStrategyOptions,
};

use crate::rng::Rng;

pub struct Scenario {
    pub topology: Topology,
    pub options: CheckpointingOptions,
    pub restart: RestartStrategyOptions,
    /// Records per source subtask.
    pub records: u64,
    /// Longest delay of a message.
    pub delay_ms: u64,
    /// Messages to and from tasks that are lost, doubled; in thousandths.
    pub lost: u64,
    pub doubled: u64,
    /// Snapshots that a task declines, storage operations that fail, restores that find damage; in thousandths.
    pub declined: u64,
    pub storage_fails: u64,
    pub damaged: u64,
    /// Numbers of each over the run.
    pub task_failures: u64,
    pub process_crashes: u64,
    pub requests: u64,
    pub stops: u64,
    pub cancels: u64,
}

/// Nothing but messages goes wrong after this, so that a run comes to its end.
pub const CALM_AT_MS: u64 = 8_000;

impl Scenario {
    pub fn new(rng: &mut Rng) -> Self {
        let topology = topology(rng);
        let delay_ms = rng.within(1, 40);
        let options = options(rng, delay_ms);
        let restart = match rng.within(0, 9) {
            0 => RestartStrategyOptions::None,
            1 => RestartStrategyOptions::FixedDelay(FixedDelay { attempts: 3, delay: Duration::from_millis(50) }),
            _ => RestartStrategyOptions::ExponentialDelay(ExponentialDelay {
                initial_backoff: Duration::from_millis(20),
                max_backoff: Duration::from_millis(500),
                ..ExponentialDelay::default()
            }),
        };
        let calm = rng.chance(150);
        let some = |rng: &mut Rng, most: u64| if calm || rng.chance(400) { 0 } else { rng.within(1, most) };
        Self {
            topology,
            options,
            restart,
            records: rng.within(10, 3000),
            delay_ms,
            lost: some(rng, 80),
            doubled: some(rng, 100),
            declined: some(rng, 60),
            storage_fails: some(rng, 80),
            damaged: some(rng, 200),
            task_failures: some(rng, 5),
            process_crashes: some(rng, 3),
            requests: rng.within(0, 12),
            stops: if rng.chance(250) { rng.within(1, 2) } else { 0 },
            cancels: u64::from(rng.chance(80)),
        }
    }
}

fn topology(rng: &mut Rng) -> Topology {
    let mut vertices: Vec<Vertex> = Vec::new();
    for at in 0..rng.within(1, 4) as u32 {
        let parallelism = rng.within(1, 3) as u32;
        let mut inputs = Vec::new();
        for from in 0..at {
            // The one right before is always read, so that the graph hangs together.
            if from + 1 == at || rng.chance(250) {
                let same = vertices[from as usize].parallelism == parallelism;
                let wirings = [Wiring::All, Wiring::Rescale, Wiring::Forward];
                inputs.push(Input { from, wiring: rng.pick(&wirings[..if same { 3 } else { 2 }]) });
            }
        }
        if rng.chance(100) {
            inputs.clear();
        }
        vertices.push(Vertex { parallelism, inputs });
    }
    Topology::new(vertices)
}

fn options(rng: &mut Rng, delay_ms: u64) -> CheckpointingOptions {
    let retentions = [
        CheckpointRetention::DeleteOnCancellation,
        CheckpointRetention::RetainOnCancellation,
        CheckpointRetention::NoExternalizedCheckpoints,
    ];
    CheckpointingOptions {
        interval: (!rng.chance(50)).then(|| Duration::from_millis(rng.within(1, 600))),
        // Long enough for barriers to get through on most attempts: a job for which it is not never ends.
        timeout: Duration::from_millis(rng.within(100, 1500) + 25 * delay_ms),
        min_pause: Duration::from_millis(if rng.chance(500) { 0 } else { rng.within(1, 300) }),
        max_concurrent: rng.within(1, 4) as u32,
        tolerable_failed: rng.pick(&[0, 2, i32::MAX as u32]),
        retention: rng.pick(&retentions),
        retained_count: rng.within(1, 4) as u32,
        unaligned: rng.chance(300),
        aligned_timeout: Duration::from_millis(rng.pick(&[0, 10])),
        after_tasks_finish: !rng.chance(100),
        incremental: rng.chance(500),
        ..CheckpointingOptions::default()
    }
}
