//! What a workload is told: its own settings, and how the engine is to run it.

use std::path::PathBuf;
use std::time::Duration;

use thalweg::Environment;
use thalweg::model::config::Configuration;

use crate::nexmark::Query;

/// How the engine runs a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineOptions {
    /// Settings of files and definitions; the other options count more.
    pub configuration: Configuration,
    /// Subtasks per operator; as configured, else the number of cores that the process may use where `None`.
    pub parallelism: Option<u32>,
    /// Cores to use, in the order of the slots; whichever the process may use where empty.
    pub cores: Vec<usize>,
    /// Whether several slots may share a core. They do not spin then.
    pub oversubscribe: bool,
    /// How long an idle slot looks for work before it sleeps, µs; the engine's default where `None`.
    pub spin_us: Option<u64>,
    /// Bound on how long a record waits in a buffer; the engine's default where `None`.
    pub buffer_timeout: Option<BufferTimeout>,
}

/// How long a record may wait in a buffer, as Flink's `execution.buffer-timeout.interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BufferTimeout {
    /// So long; zero sends every record at once.
    After(Duration),
    /// Until the buffer is full.
    Never,
}

/// `thalweg nexmark run`.
#[derive(Clone, Debug, PartialEq)]
pub struct NexmarkOptions {
    /// The queries, run one after the other.
    pub queries: Vec<Query>,
    /// How many events; with `input`, at most so many. `None` for the default, or the whole input.
    pub events: Option<u64>,
    /// Which sequence of events.
    pub seed: u64,
    /// Events per second in all, open-loop; as fast as it goes where `None`.
    pub rate: Option<f64>,
    /// A file of events to read in place of generating them.
    pub input: Option<PathBuf>,
    /// A directory for the result rows.
    pub output: Option<PathBuf>,
}

impl EngineOptions {
    /// Puts the options that are set into `env`.
    pub fn apply(&self, env: &Environment) {
        env.configure(&self.configuration);
        if let Some(parallelism) = self.parallelism {
            env.parallelism(parallelism);
        }
        match self.buffer_timeout {
            Some(BufferTimeout::After(timeout)) => {
                env.buffer_timeout(timeout);
            }
            Some(BufferTimeout::Never) => {
                env.disable_buffer_timeout();
            }
            None => {}
        }
        env.configure_runtime(|runtime| {
            runtime.cores.clone_from(&self.cores);
            runtime.oversubscribe = self.oversubscribe;
            if let Some(spin_us) = self.spin_us {
                runtime.spin_us = spin_us;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_applied_then_what_is_set_changes_and_the_rest_stays() {
        let env = Environment::new();
        let spin_us = env_spin(&env);
        let mut options = EngineOptions { parallelism: Some(3), cores: vec![1, 0], ..EngineOptions::default() };
        options.apply(&env);
        assert_eq!(env.default_parallelism(), 3);
        assert_eq!(env_spin(&env), spin_us);
        options.spin_us = Some(7);
        options.apply(&env);
        assert_eq!(env_spin(&env), 7);
        env.configure_runtime(|runtime| assert_eq!(runtime.cores, [1, 0]));
    }

    fn env_spin(env: &Environment) -> u64 {
        let mut spin_us = 0;
        env.configure_runtime(|runtime| spin_us = runtime.spin_us);
        spin_us
    }
}
