//! What the tests of operators share: environments with tiny buffers on the seeded reactor.

use thalweg::{model::metrics::MetricValue, prelude::*, runtime::SeededReactor};

/// An environment whose buffers hold a few records, so that every boundary is met.
pub fn tiny(parallelism: u32) -> Environment {
    let env = Environment::new();
    env.parallelism(parallelism).configure_runtime(|config| config.page_bytes = 256);
    env
}

/// Runs the job in simulation; the seed is in the message of a failure.
pub fn run(env: &Environment, seed: u64) {
    if let Err(error) = env.execute_on(&SeededReactor::new(seed)) {
        panic!("seed {seed}: {error}");
    }
}

/// Random numbers that depend on the seed alone.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A metric of the operator of this name, summed over its subtasks, once the job has run; none where it is not registered.
#[allow(dead_code, reason = "not every test looks at metrics")]
pub fn metric(env: &Environment, operator: &str, name: &str) -> Option<f64> {
    let mut sum = None;
    env.metrics().visit(0, |sample| {
        let is_of = |(label, value): &(_, String)| label == "operator_name" && value == operator;
        if sample.name == name && sample.path.is_empty() && sample.labels.iter().any(is_of) {
            let value = match sample.value {
                MetricValue::Counter(value) => value as f64,
                MetricValue::Gauge(value) => value as f64,
                MetricValue::Float(value) | MetricValue::Meter(value) => value,
                _ => return,
            };
            sum = Some(sum.unwrap_or(0.0) + value);
        }
    });
    sum
}
