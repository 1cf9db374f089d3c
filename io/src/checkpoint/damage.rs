//! What is wrong with a file of a checkpoint: which file, at which byte, and why.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// A file of a checkpoint cannot be used. One line that names the file and the byte.
#[derive(Debug)]
pub struct BadFile {
    /// The file.
    pub path: PathBuf,
    /// Where in the file the damage was noticed, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub damage: Damage,
}

/// What is wrong with a file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Damage {
    /// There is no such file.
    Missing,
    /// The system could not read it.
    Unreadable(io::Error),
    /// It ends too early, or goes on too long.
    Length {
        /// Bytes that the file should have.
        wanted_bytes: u64,
        /// Bytes that it has.
        found_bytes: u64,
    },
    /// It does not begin like a file of this kind.
    Foreign,
    /// It was written by a release that this one does not know.
    Version {
        /// The version in the file.
        found: u16,
        /// The newest that is understood.
        newest: u16,
    },
    /// The bytes are not those that were written.
    Checksum {
        /// The checksum in the file.
        stored: u32,
        /// That of the bytes in the file.
        computed: u32,
    },
    /// A whole block, or file, that belongs elsewhere.
    Misplaced {
        /// What does not belong here.
        what: &'static str,
    },
    /// The bytes are as written, and make no sense.
    Malformed {
        /// What makes no sense.
        what: &'static str,
    },
    /// More of something than is allowed ([`limits`](super::limits)).
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many the file says.
        found: u64,
        /// How many are allowed.
        limit: u64,
    },
}

impl BadFile {
    pub(crate) fn new(path: &Path, offset: u64, damage: Damage) -> Self {
        Self { path: path.to_path_buf(), offset, damage }
    }

    pub(crate) fn io(path: &Path, offset: u64, error: io::Error) -> Self {
        let missing = error.kind() == io::ErrorKind::NotFound;
        Self::new(path, offset, if missing { Damage::Missing } else { Damage::Unreadable(error) })
    }
}

impl fmt::Display for BadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, offset) = (self.path.display(), self.offset);
        match &self.damage {
            Damage::Missing => write!(f, "{path} is missing"),
            Damage::Unreadable(error) => write!(f, "{path} cannot be read at byte {offset}: {error}"),
            Damage::Length { wanted_bytes, found_bytes } if found_bytes < wanted_bytes => {
                write!(f, "{path} is truncated at byte {offset}: {found_bytes} of {wanted_bytes} bytes")
            }
            Damage::Length { wanted_bytes, found_bytes } => {
                write!(f, "{path} is too long: {found_bytes} bytes where {wanted_bytes} were written")
            }
            Damage::Foreign => write!(f, "{path} is not such a file: wrong magic number at byte {offset}"),
            Damage::Version { found, newest } => {
                write!(f, "{path} has format version {found}, this release reads up to {newest}: use a newer release")
            }
            Damage::Checksum { stored, computed } => {
                write!(f, "{path} is damaged at byte {offset}: checksum {computed:08x}, {stored:08x} was written")
            }
            Damage::Misplaced { what } => write!(f, "{path} holds a foreign {what} at byte {offset}"),
            Damage::Malformed { what } => write!(f, "{path} is malformed at byte {offset}: {what}"),
            Damage::TooMany { what, found, limit } => {
                write!(f, "{path} is malformed at byte {offset}: {found} {what}, at most {limit} are allowed")
            }
        }
    }
}

impl std::error::Error for BadFile {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.damage {
            Damage::Unreadable(error) => Some(error),
            _ => None,
        }
    }
}
