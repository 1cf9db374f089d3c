//! `FileMark`: by what an input file is known again, so that a position taken in it is never used in another file.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use super::{
    FileError,
    split::{open_error, regular_file_bytes},
};

/// How much of a file's beginning is remembered: enough for a header line and some records.
const HEAD_BYTES: usize = 4 << 10;

/// What a file was like when reading it was planned: its length, and a checksum of its first 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileMark {
    /// Its length in bytes.
    pub bytes: u64,
    /// CRC-32C of its first 4 KiB.
    pub head_crc: u32,
}

impl FileMark {
    /// What a file is like now.
    ///
    /// # Errors
    /// The file is missing, unreadable or not a regular file.
    pub fn of(path: &Path) -> Result<Self, FileError> {
        let bytes = regular_file_bytes(path)?;
        let file = File::open(path).map_err(|source| open_error(path, source))?;
        let mut head = vec![0; HEAD_BYTES.min(bytes as usize)];
        file.read_exact_at(&mut head, 0).map_err(|source| FileError::Read {
            path: path.to_path_buf(),
            offset: 0,
            source,
        })?;
        Ok(Self { bytes, head_crc: crc32c::crc32c(&head) })
    }

    /// Finds out whether a file is still as it was.
    ///
    /// # Errors
    /// It is missing, of another length, or begins otherwise.
    pub fn check(self, path: &Path) -> Result<(), FileError> {
        let now = Self::of(path)?;
        let what = match () {
            () if now.bytes != self.bytes => format!("it had {} bytes and has {}", self.bytes, now.bytes),
            () if now.head_crc != self.head_crc => "its first lines are others".to_string(),
            () => return Ok(()),
        };
        Err(FileError::Changed { path: path.to_path_buf(), what })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn when_a_file_changes_then_its_mark_says_how() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.csv");
        fs::write(&path, "id,name\n1,x\n").unwrap();
        let mark = FileMark::of(&path).unwrap();
        mark.check(&path).unwrap();
        fs::write(&path, "id,nome\n1,x\n").unwrap();
        assert!(mark.check(&path).unwrap_err().to_string().contains("its first lines are others"));
        fs::write(&path, "id,name\n1,x\n2,y\n").unwrap();
        assert!(mark.check(&path).unwrap_err().to_string().contains("it had 12 bytes and has 16"));
        fs::remove_file(&path).unwrap();
        assert!(matches!(mark.check(&path), Err(FileError::NotFound { .. })));
        fs::write(&path, "").unwrap();
        FileMark::of(&path).unwrap().check(&path).unwrap();
    }
}
