//! `CheckpointingOptions`: when checkpoints are taken, how, and what is kept of them.

use std::time::Duration;

use crate::config::{Configuration, keys, value::enumeration};

/// What a restored job may repeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckpointingMode {
    /// Every record counts exactly once in state: barriers are aligned, or overtake and take buffers with them.
    #[default]
    ExactlyOnce,
    /// Barriers are counted without holding a channel back: after a restore some records count twice.
    AtLeastOnce,
}

/// What becomes of completed checkpoints when the job is cancelled or fails. A job that finished never needs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckpointRetention {
    /// Deleted when the job is cancelled, kept when it fails.
    DeleteOnCancellation,
    /// Kept in both cases.
    RetainOnCancellation,
    /// Deleted in both cases.
    #[default]
    NoExternalizedCheckpoints,
}

enumeration!(CheckpointingMode,
    CheckpointingMode::ExactlyOnce => "EXACTLY_ONCE",
    CheckpointingMode::AtLeastOnce => "AT_LEAST_ONCE",
);

enumeration!(CheckpointRetention,
    CheckpointRetention::DeleteOnCancellation => "DELETE_ON_CANCELLATION",
    CheckpointRetention::RetainOnCancellation => "RETAIN_ON_CANCELLATION",
    CheckpointRetention::NoExternalizedCheckpoints => "NO_EXTERNALIZED_CHECKPOINTS",
);

/// Everything that `execution.checkpointing.*` says about when and how. The defaults are Flink's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointingOptions {
    /// Period; `None`: no periodic checkpoints.
    pub interval: Option<Duration>,
    /// Period while a source reports backlog; `None`: as `interval`; zero: none at all meanwhile.
    pub interval_during_backlog: Option<Duration>,
    /// Guarantee.
    pub mode: CheckpointingMode,
    /// A checkpoint that is not complete after this time is given up.
    pub timeout: Duration,
    /// Least time from a completion to the next periodic start. Above zero it also means one at a time.
    pub min_pause: Duration,
    /// Checkpoints in flight at most, as configured; see [`Self::effective_max_concurrent`].
    pub max_concurrent: u32,
    /// Consecutive failures that are tolerated before the job fails.
    pub tolerable_failed: u32,
    /// What is kept when the job ends.
    pub retention: CheckpointRetention,
    /// Completed checkpoints kept, at least one.
    pub retained_count: u32,
    /// Whether barriers may overtake records.
    pub unaligned: bool,
    /// Whether they may do so with custom partitioners too.
    pub unaligned_forced: bool,
    /// With `unaligned`: how long barriers stay aligned first; zero: not at all.
    pub aligned_timeout: Duration,
    /// Whether checkpoints go on, and one more is taken before the end, when subtasks have finished.
    pub after_tasks_finish: bool,
    /// Whether only what changed is written.
    pub incremental: bool,
    /// Where checkpoints go; `None`: they stay in memory.
    pub checkpoint_dir: Option<String>,
    /// Where savepoints go if the request does not say.
    pub savepoint_dir: Option<String>,
    /// Whether a directory named after the job id is put below `checkpoint_dir`.
    pub create_subdir: bool,
    /// State below this size is put into the metadata, in bytes.
    pub data_inline_threshold_bytes: u64,
    /// How many checkpoints the history shows.
    pub history_count: u32,
}

impl Default for CheckpointingOptions {
    fn default() -> Self {
        Self {
            interval: None,
            interval_during_backlog: None,
            mode: CheckpointingMode::ExactlyOnce,
            timeout: Duration::from_secs(600),
            min_pause: Duration::ZERO,
            max_concurrent: 1,
            tolerable_failed: 0,
            retention: CheckpointRetention::NoExternalizedCheckpoints,
            retained_count: 1,
            unaligned: false,
            unaligned_forced: false,
            aligned_timeout: Duration::ZERO,
            after_tasks_finish: true,
            incremental: false,
            checkpoint_dir: None,
            savepoint_dir: None,
            create_subdir: true,
            data_inline_threshold_bytes: 20 * 1024,
            history_count: 10,
        }
    }
}

impl From<&Configuration> for CheckpointingOptions {
    fn from(config: &Configuration) -> Self {
        let mut options = Self::default();
        options.update(config);
        options
    }
}

impl CheckpointingOptions {
    /// Takes over what somebody set; the rest stays as it is. An interval of zero is none.
    pub fn update(&mut self, config: &Configuration) {
        let interval = |interval: Duration| (!interval.is_zero()).then_some(interval);
        config.when_set(&keys::CHECKPOINTING_INTERVAL, |value| self.interval = interval(value));
        config
            .when_set(&keys::CHECKPOINTING_INTERVAL_DURING_BACKLOG, |value| self.interval_during_backlog = Some(value));
        config.when_set(&keys::CHECKPOINTING_MODE, |value| self.mode = value);
        config.when_set(&keys::CHECKPOINTING_TIMEOUT, |value| self.timeout = value);
        config.when_set(&keys::CHECKPOINTING_MIN_PAUSE, |value| self.min_pause = value);
        config.when_set(&keys::MAX_CONCURRENT_CHECKPOINTS, |value| self.max_concurrent = value.get());
        config.when_set(&keys::TOLERABLE_FAILED_CHECKPOINTS, |value| self.tolerable_failed = value);
        config.when_set(&keys::CHECKPOINT_RETENTION, |value| self.retention = value);
        config.when_set(&keys::NUM_RETAINED, |value| self.retained_count = value.get());
        config.when_set(&keys::UNALIGNED, |value| self.unaligned = value);
        config.when_set(&keys::UNALIGNED_FORCED, |value| self.unaligned_forced = value);
        config.when_set(&keys::ALIGNED_CHECKPOINT_TIMEOUT, |value| self.aligned_timeout = value);
        config.when_set(&keys::CHECKPOINTS_AFTER_TASKS_FINISH, |value| self.after_tasks_finish = value);
        config.when_set(&keys::INCREMENTAL, |value| self.incremental = value);
        config.when_set(&keys::CHECKPOINT_DIR, |value| self.checkpoint_dir = Some(value));
        config.when_set(&keys::SAVEPOINT_DIR, |value| self.savepoint_dir = Some(value));
        config.when_set(&keys::CREATE_SUBDIR, |value| self.create_subdir = value);
        config.when_set(&keys::DATA_INLINE_THRESHOLD, |value| self.data_inline_threshold_bytes = value.0);
        config.when_set(&keys::CHECKPOINT_HISTORY, |value| self.history_count = value);
    }

    /// Checkpoints in flight at most: one where barriers overtake records or where a pause is asked for.
    pub fn effective_max_concurrent(&self) -> usize {
        if self.unaligned_enabled() || !self.min_pause.is_zero() { 1 } else { self.max_concurrent.max(1) as usize }
    }

    /// Whether barriers may overtake records: asked for, and the mode allows it.
    pub fn unaligned_enabled(&self) -> bool {
        self.unaligned && self.mode == CheckpointingMode::ExactlyOnce
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_unaligned_or_paused_then_one_checkpoint_at_a_time() {
        let several = CheckpointingOptions { max_concurrent: 4, ..Default::default() };
        assert_eq!(several.effective_max_concurrent(), 4);
        let unaligned = CheckpointingOptions { unaligned: true, ..several.clone() };
        assert_eq!(unaligned.effective_max_concurrent(), 1);
        let paused = CheckpointingOptions { min_pause: Duration::from_millis(1), ..several.clone() };
        assert_eq!(paused.effective_max_concurrent(), 1);
        let loose = CheckpointingOptions { mode: CheckpointingMode::AtLeastOnce, ..unaligned };
        assert_eq!(loose.effective_max_concurrent(), 4, "at-least-once has no unaligned barriers");
    }
}
