//! `ConfigError` and `Warning`: what is wrong with a setting, and what to do.

use std::fmt;

use super::source::Source;

/// A configuration that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not what its format wants.
    #[error("{place}: {problem}")]
    Syntax {
        /// Where.
        place: Source,
        /// What.
        problem: String,
    },
    /// A key that nobody knows.
    #[error("{place}: unknown key {key}{}", suggestion(.nearest))]
    UnknownKey {
        /// Where.
        place: Source,
        /// The key.
        key: String,
        /// A known key that looks like it.
        nearest: Option<&'static str>,
    },
    /// A value that its key cannot have.
    #[error("{place}: {key} cannot be {value:?}; allowed: {allowed}")]
    Value {
        /// Where.
        place: Source,
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What it can be.
        allowed: String,
    },
    /// One key twice in one file.
    #[error("{place}: {key} is also set at {first}; remove one of the two")]
    Twice {
        /// Where.
        place: Source,
        /// The key.
        key: String,
        /// Where else.
        first: Source,
    },
    /// Settings that do not go together.
    #[error("{problem}")]
    Conflict {
        /// Which, and what to do.
        problem: String,
    },
}

fn suggestion(nearest: &Option<&'static str>) -> String {
    nearest.map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default()
}

/// Something about a configuration that its author should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// A key of Flink's that means nothing here.
    Ignored {
        /// The key as it was written.
        key: String,
        /// Where.
        place: Source,
    },
    /// An older spelling, which works.
    Deprecated {
        /// As it was written.
        key: String,
        /// As it is written now.
        current: &'static str,
        /// Where.
        place: Source,
    },
    /// An older spelling that another setting of the same key takes precedence over.
    Shadowed {
        /// As it was written.
        key: String,
        /// The spelling that counts.
        by: String,
        /// Where.
        place: Source,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ignored { key, place } => write!(f, "{place}: {key} has no effect here"),
            Self::Deprecated { key, current, place } => write!(f, "{place}: {key} is now written {current}"),
            Self::Shadowed { key, by, place } => write!(f, "{place}: {key} has no effect beside {by}"),
        }
    }
}
