//! The bytes of `_metadata`: little-endian, versioned, with a checksum over all. The byte table is in `io/FORMAT.md`.
//!
//! Pure: bytes in, bytes out. Decoding allocates no more than a small multiple of the bytes it is given.

use std::path::Path;

use thalweg_model::{CheckpointId, JobId, OperatorId};

use super::{
    block_reader::Written,
    damage::{BadFile, Damage},
    file_id::FileId,
    limits::{MAX_METADATA_BYTES, MAX_PAYLOAD_BYTES},
    metadata::{
        FileRef, GroupSpan, Metadata, NamedState, OperatorState, Place, SnapshotKind, StateKind, StatePart,
        SubtaskState,
    },
    metadata_check::check,
};

const MAGIC: [u8; 8] = *b"THALWEGM";
/// Newest version of the format, and the one that is written.
pub(crate) const METADATA_VERSION: u16 = 1;
/// Magic number, version, zero, checksum, length of the body.
const HEADER_BYTES: usize = 24;
const CRC_AT: usize = 12;

const FLAG_SAVEPOINT: u8 = 1;
const FLAG_INCREMENTAL: u8 = 2;

/// The checksum of a whole file: everything but the four bytes that hold it.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC_AT]), &bytes[CRC_AT + 4..])
}

struct Out(Vec<u8>);

impl Out {
    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.raw(bytes);
    }

    /// A list: its length, then its items. Lengths have been checked against limits far below 2^32.
    fn list<T>(&mut self, items: &[T], mut put: impl FnMut(&mut Self, &T)) {
        self.u32(items.len() as u32);
        items.iter().for_each(|item| put(self, item));
    }

    fn file(&mut self, file: &FileRef) {
        self.bytes(file.path.as_bytes());
        self.raw(&file.written.file.0);
        self.u64(file.written.payload_bytes);
        self.u64(file.written.file_bytes);
        self.u32(file.written.digest);
    }

    fn operator(&mut self, operator: &OperatorState) {
        self.raw(&operator.id.0);
        self.bytes(operator.uid.as_bytes());
        self.bytes(operator.name.as_bytes());
        self.u32(operator.parallelism);
        self.u32(operator.max_parallelism);
        self.u8(u8::from(operator.finished));
        self.bytes(&operator.coordinator);
        self.list(&operator.subtasks, |out, subtask| {
            out.u32(subtask.index);
            out.u8(u8::from(subtask.finished));
            out.list(&subtask.states, Self::state);
        });
    }

    fn state(&mut self, state: &NamedState) {
        self.bytes(state.name.as_bytes());
        self.u8(state.kind as u8);
        self.bytes(&state.schema);
        self.list(&state.parts, |out, part| {
            out.u32(part.increment);
            out.u64(part.rows);
            match &part.place {
                Place::Inline(bytes) => {
                    out.u8(0);
                    out.bytes(bytes);
                }
                Place::File { file, offset, bytes } => {
                    out.u8(1);
                    out.u32(*file);
                    out.u64(*offset);
                    out.u64(*bytes);
                }
            }
            out.list(&part.groups, |out, span| {
                out.u16(span.first);
                out.u16(span.last);
                out.u64(span.offset);
                out.u64(span.bytes);
                out.u64(span.rows);
            });
        });
    }
}

/// Smallest encodings, by which the counts of lists are held against the bytes that are left.
mod least {
    pub(super) const PROPERTY: usize = 8;
    pub(super) const FILE: usize = 40;
    pub(super) const OPERATOR: usize = 41;
    pub(super) const SUBTASK: usize = 9;
    pub(super) const STATE: usize = 13;
    pub(super) const PART: usize = 21;
    pub(super) const SPAN: usize = 28;
}

struct In<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> In<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Damage> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..bytes).ok_or(Damage::Malformed { what: "it ends in the middle of something" })?;
        self.at += bytes;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u8(&mut self) -> Result<u8, Damage> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, Damage> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Damage> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Damage> {
        self.array().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Result<bool, Damage> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damage::Malformed { what: "a flag that is neither 0 nor 1" }),
        }
    }

    fn bytes(&mut self) -> Result<Vec<u8>, Damage> {
        let bytes = self.u32()? as usize;
        self.take(bytes).map(<[u8]>::to_vec)
    }

    fn text(&mut self) -> Result<String, Damage> {
        String::from_utf8(self.bytes()?).map_err(|_| Damage::Malformed { what: "a name that is not UTF-8" })
    }

    fn list<T>(&mut self, least: usize, mut get: impl FnMut(&mut Self) -> Result<T, Damage>) -> Result<Vec<T>, Damage> {
        let (count, fits) = (self.u32()? as usize, (self.bytes.len() - self.at) / least);
        if count > fits {
            return Err(Damage::TooMany { what: "items of a list", found: count as u64, limit: fits as u64 });
        }
        (0..count).map(|_| get(self)).collect()
    }

    fn file(&mut self) -> Result<FileRef, Damage> {
        let path = self.text()?;
        let file = FileId(self.array()?);
        let (payload_bytes, file_bytes, digest) = (self.u64()?, self.u64()?, self.u32()?);
        if payload_bytes > MAX_PAYLOAD_BYTES {
            let (found, limit) = (payload_bytes, MAX_PAYLOAD_BYTES);
            return Err(Damage::TooMany { what: "bytes of payload", found, limit });
        }
        Ok(FileRef { path, written: Written { file, payload_bytes, file_bytes, digest } })
    }

    fn operator(&mut self) -> Result<OperatorState, Damage> {
        Ok(OperatorState {
            id: OperatorId(self.array()?),
            uid: self.text()?,
            name: self.text()?,
            parallelism: self.u32()?,
            max_parallelism: self.u32()?,
            finished: self.flag()?,
            coordinator: self.bytes()?,
            subtasks: self.list(least::SUBTASK, |input| {
                Ok(SubtaskState {
                    index: input.u32()?,
                    finished: input.flag()?,
                    states: input.list(least::STATE, Self::state)?,
                })
            })?,
        })
    }

    fn state(&mut self) -> Result<NamedState, Damage> {
        let name = self.text()?;
        let kind = self.u8()? as usize;
        let kind = *StateKind::ALL.get(kind).ok_or(Damage::Malformed { what: "kind of a state" })?;
        let schema = self.bytes()?;
        Ok(NamedState { name, kind, schema, parts: self.list(least::PART, Self::part)? })
    }

    fn part(&mut self) -> Result<StatePart, Damage> {
        let (increment, rows) = (self.u32()?, self.u64()?);
        let place = match self.u8()? {
            0 => Place::Inline(self.bytes()?),
            1 => Place::File { file: self.u32()?, offset: self.u64()?, bytes: self.u64()? },
            _ => return Err(Damage::Malformed { what: "place of a part" }),
        };
        let groups = self.list(least::SPAN, |input| {
            Ok(GroupSpan {
                first: input.u16()?,
                last: input.u16()?,
                offset: input.u64()?,
                bytes: input.u64()?,
                rows: input.u64()?,
            })
        })?;
        Ok(StatePart { increment, rows, place, groups })
    }

    fn metadata(&mut self) -> Result<Metadata, Damage> {
        let checkpoint = CheckpointId(self.u64()?);
        let timestamp_ms = self.u64()? as i64;
        let flags = self.u8()?;
        if flags & !(FLAG_SAVEPOINT | FLAG_INCREMENTAL) != 0 {
            return Err(Damage::Malformed { what: "unknown flags" });
        }
        let kind = if flags & FLAG_SAVEPOINT != 0 { SnapshotKind::Savepoint } else { SnapshotKind::Checkpoint };
        Ok(Metadata {
            checkpoint,
            timestamp_ms,
            kind,
            incremental: flags & FLAG_INCREMENTAL != 0,
            job: JobId(self.array()?),
            job_name: self.text()?,
            max_parallelism: self.u32()?,
            properties: self.list(least::PROPERTY, |input| Ok((input.text()?, input.bytes()?)))?,
            files: self.list(least::FILE, Self::file)?,
            operators: self.list(least::OPERATOR, Self::operator)?,
        })
    }
}

impl Metadata {
    /// The bytes of `_metadata`.
    ///
    /// # Errors
    /// Where something is beyond its limit ([`limits`](super::limits)) or contradicts itself: it would be refused when
    /// it is read, so it is not written.
    pub fn encode(&self) -> Result<Vec<u8>, Damage> {
        check(self)?;
        let mut out = Out(vec![0; HEADER_BYTES]);
        out.u64(self.checkpoint.0);
        out.u64(self.timestamp_ms as u64);
        let savepoint = if self.kind == SnapshotKind::Savepoint { FLAG_SAVEPOINT } else { 0 };
        out.u8(savepoint | if self.incremental { FLAG_INCREMENTAL } else { 0 });
        out.raw(&self.job.0);
        out.bytes(self.job_name.as_bytes());
        out.u32(self.max_parallelism);
        out.list(&self.properties, |out, (name, value)| {
            out.bytes(name.as_bytes());
            out.bytes(value);
        });
        out.list(&self.files, Out::file);
        out.list(&self.operators, Out::operator);
        let mut bytes = out.0;
        let (found, limit) = (bytes.len() as u64, MAX_METADATA_BYTES);
        if found > limit {
            return Err(Damage::TooMany { what: "bytes of `_metadata`", found, limit });
        }
        let body_bytes = found - HEADER_BYTES as u64;
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&METADATA_VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&body_bytes.to_le_bytes());
        let crc = checksum(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        Ok(bytes)
    }

    /// Reads the bytes of a `_metadata`; `path` is for the error only.
    ///
    /// # Errors
    /// Where the bytes are not exactly what [`encode`](Self::encode) wrote.
    pub fn decode(bytes: &[u8], path: &Path) -> Result<Self, BadFile> {
        let found_bytes = bytes.len() as u64;
        let bad = |offset: usize, damage| BadFile::new(path, offset as u64, damage);
        let Some(header) = bytes.get(..HEADER_BYTES) else {
            return Err(bad(bytes.len(), Damage::Length { wanted_bytes: HEADER_BYTES as u64, found_bytes }));
        };
        let mut input = In { bytes: header, at: 0 };
        let in_header = |damage| bad(0, damage);
        let magic: [u8; 8] = input.array().map_err(in_header)?;
        let (version, reserved) = (input.u16().map_err(in_header)?, input.u16().map_err(in_header)?);
        let (stored, body_bytes) = (input.u32().map_err(in_header)?, input.u64().map_err(in_header)?);
        if magic != MAGIC {
            return Err(bad(0, Damage::Foreign));
        }
        let computed = checksum(bytes);
        if version != METADATA_VERSION && stored == computed {
            return Err(bad(8, Damage::Version { found: version, newest: METADATA_VERSION }));
        }
        let wanted_bytes = body_bytes.saturating_add(HEADER_BYTES as u64);
        if wanted_bytes != found_bytes {
            return Err(bad(bytes.len(), Damage::Length { wanted_bytes, found_bytes }));
        }
        if stored != computed {
            return Err(bad(CRC_AT, Damage::Checksum { stored, computed }));
        }
        if reserved != 0 {
            return Err(bad(10, Damage::Malformed { what: "reserved bytes" }));
        }
        let mut input = In { bytes, at: HEADER_BYTES };
        let metadata = input.metadata().map_err(|damage| bad(input.at, damage))?;
        if input.at != bytes.len() {
            return Err(bad(input.at, Damage::Malformed { what: "bytes after the end" }));
        }
        check(&metadata).map_err(|damage| bad(HEADER_BYTES, damage))?;
        Ok(metadata)
    }
}
