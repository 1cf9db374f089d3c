//! Whole jobs under simulation: messages late, lost, doubled and out of order, failures and crashes at any instant.
//!
//! `THALWEG_SIM_SEED=n` runs one seed and prints its messages, `THALWEG_SIM_SEEDS=n` that many; the test prints the seed that failed.

mod checks;
mod rng;
mod scenario;
mod storage;
mod tasks;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use thalweg_cluster::job::JobState;

use crate::world::World;

const SEEDS: u64 = 3000;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text}")))
}

#[test]
fn when_anything_goes_wrong_at_any_instant_then_checkpoints_stay_exactly_once() {
    let seeds = match number("THALWEG_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("THALWEG_SIM_SEEDS").unwrap_or(SEEDS),
    };
    let traced = number("THALWEG_SIM_SEED").is_some();
    let (mut completed, mut restarts, mut ends) = (0, 0, [0_u32; 3]);
    let many = seeds.end - seeds.start >= 1000;
    for seed in seeds {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut world = World::new(seed, traced);
            world.run();
            world
        }));
        let world = outcome.unwrap_or_else(|panic| {
            eprintln!(
                "seed {seed} failed; rerun: THALWEG_SIM_SEED={seed} cargo test -p thalweg-cluster --test simulation"
            );
            resume_unwind(panic)
        });
        completed += world.checks.completed_count;
        restarts += world.job.restarts();
        match world.job.state() {
            JobState::Finished => ends[0] += 1,
            JobState::Canceled => ends[1] += 1,
            JobState::Failed => ends[2] += 1,
            other => panic!("seed {seed} ended {other}"),
        }
    }
    println!("{completed} checkpoints, {restarts} restarts, finished, cancelled and failed: {ends:?}");
    if many {
        // A simulation in which nothing happens shows nothing.
        assert!(completed > 10_000 && restarts > 1000, "{completed} checkpoints, {restarts} restarts");
        assert!(ends.iter().all(|&count| count > 50), "finished, cancelled, failed: {ends:?}");
    }
}
