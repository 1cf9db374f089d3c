//! Reading a block file: nothing of it is believed before its checksum has been.
//!
//! Opening looks at both ends of the file: magic numbers, version, identity, and that its length is exactly the one that
//! its footer asks for. Each block is checked when it is read. Whatever is wrong becomes a [`BadFile`].

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use thalweg_model::CheckpointId;

use super::{
    block_format::{
        BLOCK_HEADER_BYTES, BLOCK_VERSION, BlockHeader, BlockLayout, FILE_HEADER_BYTES, FOOTER_BYTES, FileHeader,
        Footer, HeaderError,
    },
    damage::{BadFile, Damage},
    disk::{Disk, read_full_at},
    file_id::FileId,
    limits::MAX_PAYLOAD_BYTES,
};

/// What a finished block file is, as `_metadata` remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Written {
    /// Its identity.
    pub file: FileId,
    /// Bytes of payload.
    pub payload_bytes: u64,
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// Checksum over the checksums of its blocks.
    pub digest: u32,
}

/// A block file, open for reading. Holds one block in memory.
pub struct BlockFile<'d> {
    disk: &'d dyn Disk,
    path: PathBuf,
    file: File,
    header: FileHeader,
    footer: Footer,
    block: Vec<u8>,
    /// The block that `block` holds, and its content's bytes.
    loaded: Option<(u64, usize)>,
}

fn damage_of(error: HeaderError, what: &'static str) -> Damage {
    match error {
        HeaderError::Foreign => Damage::Foreign,
        HeaderError::Version(found) => Damage::Version { found, newest: BLOCK_VERSION },
        HeaderError::Checksum { stored, computed } => Damage::Checksum { stored, computed },
        HeaderError::Malformed(_) => Damage::Malformed { what },
    }
}

impl<'d> BlockFile<'d> {
    /// Opens a file and checks both of its ends.
    ///
    /// # Errors
    /// Where the file is missing, truncated, too long, foreign, from a newer release, or its ends are damaged.
    pub fn open(disk: &'d dyn Disk, path: &Path) -> Result<Self, BadFile> {
        let bad = |offset, damage| BadFile::new(path, offset, damage);
        let unreadable = |error| BadFile::io(path, 0, error);
        let file = disk.open(path).map_err(unreadable)?;
        let file_bytes = disk.length(&file).map_err(unreadable)?;

        let mut start = [0; BLOCK_HEADER_BYTES + FILE_HEADER_BYTES];
        let read = read_full_at(disk, &file, &mut start, 0).map_err(unreadable)?;
        let least = BlockLayout::file_bytes(smallest(), 0);
        if read < start.len() || file_bytes < least {
            return Err(bad(file_bytes, Damage::Length { wanted_bytes: least, found_bytes: file_bytes }));
        }
        let (_, header) = start.split_at(BLOCK_HEADER_BYTES);
        let header: &[u8; FILE_HEADER_BYTES] = header.try_into().expect("both parts have their size");
        let header = FileHeader::decode(header)
            .map_err(|error| bad(BLOCK_HEADER_BYTES as u64, damage_of(error, "file header")))?;

        let footer_at = file_bytes - FOOTER_BYTES as u64;
        let mut end = [0; FOOTER_BYTES];
        let read = read_full_at(disk, &file, &mut end, footer_at).map_err(|e| BadFile::io(path, footer_at, e))?;
        if read < end.len() {
            let found_bytes = footer_at + read as u64;
            return Err(bad(found_bytes, Damage::Length { wanted_bytes: file_bytes, found_bytes }));
        }
        let footer = Footer::decode(&end).map_err(|error| match error {
            // A file cut short ends in the middle of something: no footer is the mark of a torn file.
            HeaderError::Foreign => bad(footer_at, Damage::Malformed { what: "no footer: the file was not finished" }),
            error => bad(footer_at, damage_of(error, "footer")),
        })?;
        if footer.file != header.file || footer.layout != header.layout {
            return Err(bad(footer_at, Damage::Misplaced { what: "footer" }));
        }
        if footer.payload_bytes > MAX_PAYLOAD_BYTES {
            let (found, limit) = (footer.payload_bytes, MAX_PAYLOAD_BYTES);
            return Err(bad(footer_at, Damage::TooMany { what: "bytes of payload", found, limit }));
        }
        let wanted_bytes = header.layout.file_bytes(footer.payload_bytes);
        if file_bytes != wanted_bytes {
            return Err(bad(file_bytes.min(wanted_bytes), Damage::Length { wanted_bytes, found_bytes: file_bytes }));
        }
        if footer.block_count != header.layout.block_count(footer.payload_bytes) {
            return Err(bad(footer_at, Damage::Malformed { what: "count of blocks" }));
        }
        Ok(Self { disk, path: path.to_path_buf(), file, header, footer, block: Vec::new(), loaded: None })
    }

    /// Opens a file and checks that it is the one that was written.
    ///
    /// # Errors
    /// As [`open`](Self::open), and where a sound file of this name is another one.
    pub fn open_written(disk: &'d dyn Disk, path: &Path, written: &Written) -> Result<Self, BadFile> {
        let open = Self::open(disk, path)?;
        if open.written() == *written {
            return Ok(open);
        }
        Err(BadFile::new(path, 0, Damage::Misplaced { what: "file: not the one that `_metadata` names" }))
    }

    /// What the file says it is.
    pub fn written(&self) -> Written {
        Written {
            file: self.header.file,
            payload_bytes: self.footer.payload_bytes,
            file_bytes: self.header.layout.file_bytes(self.footer.payload_bytes),
            digest: self.footer.digest,
        }
    }

    /// The checkpoint that wrote the file.
    pub fn checkpoint(&self) -> CheckpointId {
        self.header.checkpoint
    }

    /// How its bytes are laid out.
    pub fn layout(&self) -> BlockLayout {
        self.header.layout
    }

    /// Bytes of payload.
    pub fn payload_bytes(&self) -> u64 {
        self.footer.payload_bytes
    }

    fn bad(&self, offset: u64, damage: Damage) -> BadFile {
        BadFile::new(&self.path, offset, damage)
    }

    /// Reads a block, checks it, and returns its checksum.
    fn load(&mut self, block: u64) -> Result<u32, BadFile> {
        let layout = self.header.layout;
        let offset = block * layout.block_bytes() as u64;
        let content_bytes = layout.content_bytes(block, self.footer.payload_bytes);
        let end = BLOCK_HEADER_BYTES + content_bytes;
        self.loaded = None;
        self.block.resize(layout.block_bytes(), 0);
        let read = read_full_at(self.disk, &self.file, &mut self.block[..end], offset)
            .map_err(|error| BadFile::io(&self.path, offset, error))?;
        if read < end {
            let found_bytes = offset + read as u64;
            let damage = Damage::Length { wanted_bytes: self.written().file_bytes, found_bytes };
            return Err(self.bad(found_bytes, damage));
        }
        let (header, content) = self.block[..end].split_at(BLOCK_HEADER_BYTES);
        let header: &[u8; BLOCK_HEADER_BYTES] = header.try_into().expect("split at its size");
        let header =
            BlockHeader::decode(header).map_err(|error| self.bad(offset, damage_of(error, "header of a block")))?;
        let computed = header.checksum(content);
        if header.content_bytes as usize != content_bytes {
            return Err(self.bad(offset, Damage::Malformed { what: "length of a block" }));
        }
        if header.crc != computed {
            return Err(self.bad(offset, Damage::Checksum { stored: header.crc, computed }));
        }
        // Sound, and yet not what belongs here: a write went astray, or an older file shows through.
        if header.file != self.header.file || header.sequence != block {
            return Err(self.bad(offset, Damage::Misplaced { what: "block" }));
        }
        self.loaded = Some((block, content_bytes));
        Ok(header.crc)
    }

    /// The part of the payload that lies in the loaded block, from `payload_offset` on.
    fn loaded_from(&self, payload_offset: u64) -> Option<&[u8]> {
        let (block, at) = self.header.layout.locate(payload_offset);
        let (loaded, content_bytes) = self.loaded?;
        let content = &self.block[BLOCK_HEADER_BYTES..BLOCK_HEADER_BYTES + content_bytes];
        if loaded == block { content.get(at..).filter(|rest| !rest.is_empty()) } else { None }
    }

    /// The payload from an offset to the end of the block that it lies in: no copy. Empty at the end of the payload.
    ///
    /// # Errors
    /// Where the block is damaged.
    pub fn chunk(&mut self, payload_offset: u64) -> Result<&[u8], BadFile> {
        if payload_offset >= self.footer.payload_bytes {
            return Ok(&[]);
        }
        if self.loaded_from(payload_offset).is_none() {
            self.load(self.header.layout.locate(payload_offset).0)?;
        }
        Ok(self.loaded_from(payload_offset).unwrap_or_default())
    }

    /// Fills `out` with the payload from an offset on.
    ///
    /// # Errors
    /// Where a block is damaged, or the payload ends before `out` is full.
    pub fn read_exact_at(&mut self, mut payload_offset: u64, mut out: &mut [u8]) -> Result<(), BadFile> {
        let end = payload_offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.footer.payload_bytes) {
            let damage = Damage::Length {
                wanted_bytes: payload_offset.saturating_add(out.len() as u64),
                found_bytes: self.footer.payload_bytes,
            };
            return Err(self.bad(self.written().file_bytes, damage));
        }
        while !out.is_empty() {
            let chunk = self.chunk(payload_offset)?;
            let bytes = chunk.len().min(out.len());
            let (now, later) = std::mem::take(&mut out).split_at_mut(bytes);
            now.copy_from_slice(&chunk[..bytes]);
            (out, payload_offset) = (later, payload_offset + bytes as u64);
        }
        Ok(())
    }

    /// Reads the whole file and checks every byte: each block, that the footer belongs to exactly these blocks, and that
    /// nothing lies between the last block and the footer.
    ///
    /// # Errors
    /// The first damage.
    pub fn verify(&mut self) -> Result<(), BadFile> {
        let mut digest = 0;
        for block in 0..self.footer.block_count {
            digest = crc32c::crc32c_append(digest, &self.load(block)?.to_le_bytes());
        }
        let footer_at = self.written().file_bytes - FOOTER_BYTES as u64;
        if digest != self.footer.digest {
            return Err(self.bad(footer_at, Damage::Checksum { stored: self.footer.digest, computed: digest }));
        }
        let last = self.footer.block_count - 1;
        let layout = self.header.layout;
        let end = last * layout.block_bytes() as u64
            + (BLOCK_HEADER_BYTES + layout.content_bytes(last, self.footer.payload_bytes)) as u64;
        // Less than a page, so it fits into the block.
        let mut padding = vec![0; (footer_at - end) as usize];
        let read = read_full_at(self.disk, &self.file, &mut padding, end);
        match read.map_err(|error| BadFile::io(&self.path, end, error))? {
            read if read < padding.len() => Err(BadFile::io(&self.path, end, io::ErrorKind::UnexpectedEof.into())),
            _ => match padding.iter().position(|byte| *byte != 0) {
                Some(at) => Err(self.bad(end + at as u64, Damage::Malformed { what: "padding that is not zero" })),
                None => Ok(()),
            },
        }
    }
}

/// The layout with the smallest file.
const fn smallest() -> BlockLayout {
    match BlockLayout::new(super::limits::MIN_BLOCK_BYTES) {
        Some(layout) => layout,
        None => panic!("the smallest block size is one"),
    }
}
