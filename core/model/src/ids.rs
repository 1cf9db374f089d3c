//! Ids of jobs, operators and checkpoints: what state is named by, the same in every build and on every machine.

use std::{fmt, str::FromStr};

use crate::KeyHasher;

/// Salts of the two halves of an id made from a name. Part of the format: a change strands checkpoints.
const NAME_SALTS: [u64; 2] = [0x6a6f_625f_6e61_6d65, 0x7365_636f_6e64_5f68];

/// Number of a checkpoint or savepoint: strictly increasing in a job, across restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckpointId(pub u64);

/// Id of a job: 16 bytes, written as 32 hexadecimal digits (as Flink's).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub [u8; 16]);

/// Id of an operator: 16 bytes, written as 32 hexadecimal digits (as Flink's). State is matched by it on restore.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperatorId(pub [u8; 16]);

/// A text is not 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadId(String);

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not an id: give 32 hexadecimal digits", self.0)
    }
}

impl std::error::Error for BadId {}

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn from_name(name: &str) -> [u8; 16] {
    let mut id = [0; 16];
    for (salt, half) in NAME_SALTS.into_iter().zip(id.chunks_exact_mut(8)) {
        let mut hasher = KeyHasher::new();
        hasher.word(salt);
        hasher.bytes(name.as_bytes());
        // One multiplication leaves the last bytes badly mixed; a second spreads them.
        hasher.word(salt);
        half.copy_from_slice(&hasher.finish64().to_be_bytes());
    }
    id
}

fn parse(text: &str) -> Result<[u8; 16], BadId> {
    let bad = || BadId(text.chars().take(64).collect());
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(bad());
    }
    u128::from_str_radix(text, 16).map(u128::to_be_bytes).map_err(|_| bad())
}

macro_rules! sixteen_bytes {
    ($id:ident) => {
        impl $id {
            /// The id that a name gives: the same name, the same id, in every build and on every machine.
            pub fn from_name(name: &str) -> Self {
                Self(from_name(name))
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", u128::from_be_bytes(self.0))
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($id), "({})"), self)
            }
        }

        impl FromStr for $id {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                parse(text).map(Self)
            }
        }
    };
}

sixteen_bytes!(JobId);
sixteen_bytes!(OperatorId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_written_then_an_id_reads_back() {
        let id = JobId::from_name("orders");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(JobId([0; 16]).to_string(), "0".repeat(32));
        for bad in ["", "12", "+0000000000000000000000000000000", &"g".repeat(32), &"0".repeat(33)] {
            assert!(bad.parse::<OperatorId>().is_err(), "{bad}");
        }
    }

    /// Fixed vectors: a change here strands every checkpoint found by its job's name.
    #[test]
    fn when_made_from_a_name_then_the_id_is_the_published_one() {
        assert_eq!(JobId::from_name("orders").to_string(), "636b396bae541b7ace39b4a64faae5be");
        assert_eq!(OperatorId::from_name("").to_string(), "bca8091d80a13c75ac0f2d562c7a772c");
        assert_ne!(JobId::from_name("a"), JobId::from_name("b"));
    }
}
