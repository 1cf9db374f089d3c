//! The examples, run: each job's module is the one that the example itself is made of.

mod embedded_service;
mod flights;
mod side_output_splitter;
mod timeout_detector;
mod word_count;

use thalweg::Environment;

/// The parallelisms that the jobs are run with.
const PARALLELISMS: [u32; 3] = [1, 2, 4];

/// An environment whose slots share what cores there are.
fn environment(parallelism: u32) -> Environment {
    let env = Environment::new();
    env.parallelism(parallelism).configure_runtime(|config| config.oversubscribe = true);
    env
}
