//! What the crash job sets beneath what is configured, and what it cannot be configured to do.

use std::time::Duration;

use thalweg::model::config::{CheckpointingMode, Configuration, Key, StorageName, keys};
use thalweg::prelude::*;

use super::super::job::BenchError;

/// Between two checkpoints: often, for kills in all of their stages.
const INTERVAL: Duration = Duration::from_millis(50);
/// Checkpoints that are kept: one more than a restart needs.
const RETAINED: u32 = 2;
/// Between two watermarks: often, for timers and windows that fire all the time.
const WATERMARK_INTERVAL: Duration = Duration::from_millis(20);

/// Sets what holds where nothing else is said.
pub(super) fn defaults(env: &Environment) {
    env.enable_checkpointing(INTERVAL).auto_watermark_interval(WATERMARK_INTERVAL).checkpoint_config(|options| {
        options.incremental = true;
        options.retained_count = RETAINED;
        // A job that is cancelled goes on later, as one that is killed.
        options.retention = CheckpointRetention::RetainOnCancellation;
    });
}

/// Refuses what the promise that all rows are committed, once, in spite of any crash, cannot be kept with.
pub(super) fn check(configuration: &Configuration, interval: Option<Duration>) -> Result<(), BenchError> {
    fn refused<T>(key: &Key<T>, value: &str, why: &str) -> Result<(), BenchError> {
        Err(BenchError::Setting(format!("bench crash cannot run with {}={value}: {why}", key.name)))
    }
    let set = configuration;
    if interval.is_none() && set.explicit(&keys::CHECKPOINTING_INTERVAL).is_some_and(|interval| interval.is_zero()) {
        let why = "rows are committed with checkpoints, of which there are none then; set another, or leave it out";
        return refused(&keys::CHECKPOINTING_INTERVAL, "0", why);
    }
    if set.explicit(&keys::CHECKPOINTS_AFTER_TASKS_FINISH) == Some(false) {
        let why = "the last rows are committed with the checkpoint that this leaves out; leave it out, or set true";
        return refused(&keys::CHECKPOINTS_AFTER_TASKS_FINISH, "false", why);
    }
    if set.explicit(&keys::CHECKPOINTING_MODE) == Some(CheckpointingMode::AtLeastOnce) {
        let why = "rows may be committed twice then, and it checks that none is; leave it out, or set EXACTLY_ONCE";
        return refused(&keys::CHECKPOINTING_MODE, "AT_LEAST_ONCE", why);
    }
    if set.explicit(&keys::CHECKPOINT_STORAGE) == Some(StorageName::JobManager) {
        let why = "a kill takes them with the process; leave it out: they lie where --checkpoint-dir says";
        return refused(&keys::CHECKPOINT_STORAGE, "jobmanager", why);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use thalweg::model::config::CheckpointingOptions;

    use super::super::super::job::JobSettings;
    use super::*;
    use crate::options::EngineOptions;

    fn configuration(yaml: &str) -> Configuration {
        Configuration::builder().yaml("config.yaml", yaml).unwrap().build().unwrap().0
    }

    fn options(yaml: &str) -> CheckpointingOptions {
        let engine = EngineOptions { configuration: configuration(yaml), oversubscribe: true, ..Default::default() };
        let env = JobSettings::new(engine).unwrap().environment_over("crash", defaults);
        let mut found = CheckpointingOptions::default();
        env.checkpoint_config(|options| found = options.clone());
        found
    }

    #[test]
    fn when_something_is_configured_then_it_counts_more_than_the_benchs_own() {
        let own = options("");
        assert_eq!((own.interval, own.incremental, own.retained_count), (Some(INTERVAL), true, RETAINED));
        assert_eq!((own.retention, own.create_subdir), (CheckpointRetention::RetainOnCancellation, true));
        let said = options(
            "execution.checkpointing: {interval: 7 ms, incremental: false, num-retained: 1, create-subdir: false, \
             externalized-checkpoint-retention: DELETE_ON_CANCELLATION}",
        );
        assert_eq!((said.interval, said.incremental), (Some(Duration::from_millis(7)), false));
        assert_eq!((said.retained_count, said.create_subdir), (1, false));
        assert_eq!(said.retention, CheckpointRetention::DeleteOnCancellation);
    }

    #[test]
    fn when_the_promise_cannot_be_kept_then_the_key_is_refused_by_name() {
        for (key, value) in [
            ("execution.checkpointing.interval", "0"),
            ("execution.checkpointing.checkpoints-after-tasks-finish", "false"),
            ("execution.checkpointing.mode", "AT_LEAST_ONCE"),
            ("execution.checkpointing.storage", "jobmanager"),
        ] {
            let error = check(&configuration(&format!("{key}: {value}")), None).unwrap_err().to_string();
            assert!(error.contains(&format!("{key}={value}: ")) && error.contains("leave it out"), "{error}");
        }
        assert!(
            check(&configuration("execution.checkpointing.interval: 0"), Some(INTERVAL)).is_ok(),
            "--interval counts"
        );
        assert!(check(&configuration("execution.checkpointing.mode: EXACTLY_ONCE"), None).is_ok());
    }
}
