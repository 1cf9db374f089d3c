//! `RecoveryOptions`: what a job starts from, and what becomes of it.

use crate::config::{Configuration, keys, value::enumeration};

/// Who owns the checkpoint or savepoint that a job starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClaimMode {
    /// The engine, which deletes it in time.
    Claim,
    /// The user: the first checkpoint is full, then nothing depends on it.
    #[default]
    NoClaim,
    /// Nobody: it is never deleted, and later checkpoints may build on its files where these lie in the job's own directory,
    /// so that it is not known when the user may delete it. Deprecated.
    Legacy,
}

enumeration!(ClaimMode,
    ClaimMode::Claim => "CLAIM",
    ClaimMode::NoClaim => "NO_CLAIM",
    ClaimMode::Legacy => "LEGACY",
);

/// What a job starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreFrom {
    /// The newest valid checkpoint of this job in its directory of checkpoints; nothing where there is none.
    Latest,
    /// This checkpoint or savepoint.
    Path(String),
}

/// What a job starts from, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryOptions {
    /// Savepoint or checkpoint; `None`: nothing.
    pub restore_from: Option<RestoreFrom>,
    /// Whether state that no operator claims is left out instead of refused.
    pub ignore_unclaimed_state: bool,
    /// Who owns it then.
    pub claim_mode: ClaimMode,
}

impl RecoveryOptions {
    /// Takes over what somebody set; the rest stays as it is.
    pub fn update(&mut self, config: &Configuration) {
        config.when_set(&keys::RESTORE_PATH, |path| self.restore_from = Some(RestoreFrom::Path(path)));
        config.when_set(&keys::IGNORE_UNCLAIMED_STATE, |value| self.ignore_unclaimed_state = value);
        config.when_set(&keys::CLAIM_MODE, |value| self.claim_mode = value);
    }
}

impl From<&Configuration> for RecoveryOptions {
    fn from(config: &Configuration) -> Self {
        let mut options = Self::default();
        options.update(config);
        options
    }
}
