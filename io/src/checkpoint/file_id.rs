//! The identity of a block file: 16 random bytes, in its name and in each of its blocks.

use std::{fmt, io::Read};

use thalweg_model::KeyHasher;

/// Identity of a block file. No two files of a job have the same one, so a block that lies in a wrong file is noticed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub [u8; 16]);

impl FileId {
    /// Reads the 32 hexadecimal digits that [`Display`](fmt::Display) writes.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        hex.then(|| u128::from_str_radix(text, 16).ok().map(|id| Self(id.to_be_bytes()))).flatten()
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileId({self})")
    }
}

/// Makes file ids: 128 bits of a seed, mixed with a counter.
#[derive(Clone, Debug)]
pub struct FileIds {
    seed: [u64; 2],
    next: u64,
}

impl FileIds {
    /// Ids that no other process makes: the seed comes from the system.
    ///
    /// # Errors
    /// Where the system's source of randomness cannot be read.
    pub fn from_system() -> std::io::Result<Self> {
        let mut bytes = [[0; 8]; 2];
        let mut source = std::fs::File::open("/dev/urandom")?;
        for half in &mut bytes {
            source.read_exact(half)?;
        }
        Ok(Self { seed: bytes.map(u64::from_le_bytes), next: 0 })
    }

    /// The same ids in each run, for tests and simulation.
    pub fn seeded(seed: u64) -> Self {
        Self { seed: [seed, !seed], next: 0 }
    }

    /// The next id.
    pub fn make(&mut self) -> FileId {
        let mut id = [0; 16];
        for (seed, half) in self.seed.into_iter().zip(id.chunks_exact_mut(8)) {
            let mut hasher = KeyHasher::new();
            hasher.word(seed);
            hasher.word(self.next);
            hasher.word(seed);
            half.copy_from_slice(&hasher.finish64().to_be_bytes());
        }
        self.next += 1;
        FileId(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_made_then_ids_differ_and_read_back() {
        let mut ids = FileIds::seeded(7);
        let made: std::collections::BTreeSet<FileId> = (0..10_000).map(|_| ids.make()).collect();
        assert_eq!(made.len(), 10_000);
        assert!(made.iter().all(|id| FileId::parse(&id.to_string()) == Some(*id)));
        assert_eq!(FileId::parse("00"), None);
        let mut system = FileIds::from_system().unwrap();
        assert_ne!(system.make(), FileIds::from_system().unwrap().make());
    }
}
