//! Why a checkpoint cannot be shown: one line that says what, and what to do.

use std::{fmt, io, path::PathBuf};

use thalweg_io::checkpoint::BadFile;
use thalweg_state::ImageError;

/// A failed `thalweg state`.
#[derive(Debug)]
pub enum StateError {
    /// A file that is missing or damaged; says where.
    Bad(BadFile),
    /// A directory that cannot be listed.
    List {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// There is no checkpoint at a path.
    NoCheckpoint(PathBuf),
    /// There are several checkpoints where one is wanted.
    Many {
        /// The directory.
        path: PathBuf,
        /// One of them.
        example: PathBuf,
    },
    /// There is no operator, or no state, that is called so.
    NotThere {
        /// What: `operator` or `state`.
        what: &'static str,
        /// What it was called.
        wanted: String,
        /// What there is.
        there: Vec<String>,
    },
    /// The key, or the user key, is none of the state's type.
    Key {
        /// Which: `key` or `user key`.
        what: &'static str,
        /// What was given.
        given: String,
        /// The type of the key.
        wanted: String,
    },
    /// The state has nothing for the key.
    NoEntry {
        /// The key, as it was given.
        key: String,
        /// The state.
        state: String,
    },
    /// The map of the key has no entry for the user key.
    NoUserKey {
        /// The user key, as it was given.
        user_key: String,
        /// The key, as it was given.
        key: String,
        /// The state.
        state: String,
    },
    /// A user key was given for a state that has none.
    NoMap {
        /// The state.
        state: String,
        /// What kind of state it is.
        kind: &'static str,
    },
    /// An image, or a value in it, that makes no sense.
    Image(ImageError),
    /// A value or a schema that makes no sense.
    Value(String),
    /// The same, and where it is.
    At {
        /// File, place and state.
        place: String,
        /// What is wrong there.
        what: Box<StateError>,
    },
    /// Some checkpoints are damaged; each has been told of.
    Damaged(usize),
}

impl StateError {
    /// The same error with its place, unless that is known already.
    pub fn at(self, place: impl FnOnce() -> String) -> Self {
        match self {
            Self::Image(_) | Self::Value(_) => Self::At { place: place(), what: Box::new(self) },
            other => other,
        }
    }
}

impl From<ImageError> for StateError {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

impl From<BadFile> for StateError {
    fn from(error: BadFile) -> Self {
        Self::Bad(error)
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad(bad) => bad.fmt(f),
            Self::List { path, source } => write!(f, "{} cannot be read: {source}", path.display()),
            Self::NoCheckpoint(path) => write!(
                f,
                "there is no checkpoint in {}: name a directory with `_metadata`, or one that holds such directories",
                path.display()
            ),
            Self::Many { path, example } => {
                write!(f, "{} holds several checkpoints: name one, such as {}", path.display(), example.display())
            }
            Self::NotThere { what, wanted, there } if there.is_empty() => {
                write!(f, "there is no {what} `{wanted}`, nor any other")
            }
            Self::NotThere { what, wanted, there } => {
                write!(f, "there is no {what} `{wanted}`, only {}", there.join(", "))
            }
            Self::Key { what, given, wanted } => {
                write!(f, "`{given}` is no {what} of this state: give JSON of type {wanted}")
            }
            Self::NoEntry { key, state } => write!(f, "state {state} has nothing for key {key}"),
            Self::NoUserKey { user_key, key, state } => {
                write!(f, "state {state} has nothing for user key {user_key} of key {key}")
            }
            Self::NoMap { state, kind } => {
                write!(f, "state {state} is no map, it is {kind}: leave --user-key out")
            }
            Self::Image(error) => error.fmt(f),
            Self::Value(what) => f.write_str(what),
            Self::At { place, what } => write!(f, "{place}: {what}"),
            Self::Damaged(1) => f.write_str("a checkpoint is damaged: use another one"),
            Self::Damaged(count) => write!(f, "{count} checkpoints are damaged: use others"),
        }
    }
}
