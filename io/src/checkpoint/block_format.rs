//! The bytes of a block file: where they lie, and how blocks are sealed. The byte table is in `io/FORMAT.md`.
//!
//! Pure: bytes in, bytes out.

use thalweg_model::CheckpointId;

use super::{
    file_id::FileId,
    limits::{MAX_BLOCK_BYTES, MIN_BLOCK_BYTES, PAGE_BYTES},
};

/// Newest version of the format, and the one that is written.
pub(crate) const BLOCK_VERSION: u16 = 1;
pub(crate) const BLOCK_MAGIC: [u8; 4] = *b"TWB1";
pub(crate) const FILE_MAGIC: [u8; 8] = *b"THALWEGB";
pub(crate) const FOOTER_MAGIC: [u8; 8] = *b"THALWEGE";
/// Bytes before the content of each block.
pub(crate) const BLOCK_HEADER_BYTES: usize = 64;
/// Bytes of the file header: the first content of the first block.
pub(crate) const FILE_HEADER_BYTES: usize = 64;
/// Bytes of the footer: the last of the file.
pub(crate) const FOOTER_BYTES: usize = 64;
const CRC_AT: usize = 60;

/// Where the bytes of a payload lie in a file of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLayout {
    block_bytes: u32,
}

/// What the first block says about the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileHeader {
    pub(crate) layout: BlockLayout,
    pub(crate) file: FileId,
    pub(crate) checkpoint: CheckpointId,
}

/// What the header of a block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) content_bytes: u32,
    pub(crate) sequence: u64,
    pub(crate) file: FileId,
    pub(crate) crc: u32,
}

/// What the last bytes of the file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) layout: BlockLayout,
    pub(crate) file: FileId,
    pub(crate) payload_bytes: u64,
    pub(crate) block_count: u64,
    pub(crate) digest: u32,
}

/// Why a header or footer cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Foreign,
    Version(u16),
    Checksum { stored: u32, computed: u32 },
    Malformed(&'static str),
}

fn put<const N: usize>(out: &mut [u8], at: usize, bytes: [u8; N]) {
    out[at..at + N].copy_from_slice(&bytes);
}

fn get<const N: usize>(bytes: &[u8; 64], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn get_u32(bytes: &[u8; 64], at: usize) -> u32 {
    u32::from_le_bytes(get(bytes, at))
}

fn get_u64(bytes: &[u8; 64], at: usize) -> u64 {
    u64::from_le_bytes(get(bytes, at))
}

/// Seals a header or footer with the checksum of its first 60 bytes.
fn seal_own(bytes: &mut [u8; 64]) {
    let crc = crc32c::crc32c(&bytes[..CRC_AT]);
    put(bytes, CRC_AT, crc.to_le_bytes());
}

fn check_own(bytes: &[u8; 64]) -> Result<(), HeaderError> {
    let (stored, computed) = (get_u32(bytes, CRC_AT), crc32c::crc32c(&bytes[..CRC_AT]));
    if stored == computed { Ok(()) } else { Err(HeaderError::Checksum { stored, computed }) }
}

/// Magic number and version come before the checksum, so that another format or release is called by its name.
fn check_magic(bytes: &[u8; 64], magic: &[u8; 8]) -> Result<(), HeaderError> {
    let version = u16::from_le_bytes(get(bytes, 8));
    match () {
        () if bytes[..8] != *magic => Err(HeaderError::Foreign),
        () if version != BLOCK_VERSION && check_own(bytes).is_ok() => Err(HeaderError::Version(version)),
        () => check_own(bytes),
    }
}

impl BlockLayout {
    /// Blocks of `block_bytes`: a multiple of 4 KiB, at most 1 MiB.
    ///
    /// # Errors
    /// `None` for any other size.
    pub const fn new(block_bytes: usize) -> Option<Self> {
        let fits = block_bytes >= MIN_BLOCK_BYTES && block_bytes <= MAX_BLOCK_BYTES;
        if fits && block_bytes.is_multiple_of(PAGE_BYTES) {
            Some(Self { block_bytes: block_bytes as u32 })
        } else {
            None
        }
    }

    /// Bytes from one block to the next.
    pub const fn block_bytes(self) -> usize {
        self.block_bytes as usize
    }

    /// Content of a full block, in bytes.
    pub(crate) const fn capacity(self) -> usize {
        self.block_bytes() - BLOCK_HEADER_BYTES
    }

    /// How many blocks a payload takes: at least one, which holds the file header.
    pub const fn block_count(self, payload_bytes: u64) -> u64 {
        (payload_bytes + FILE_HEADER_BYTES as u64).div_ceil(self.capacity() as u64)
    }

    /// Content of a block, in bytes, the file header included.
    pub(crate) const fn content_bytes(self, block: u64, payload_bytes: u64) -> usize {
        let before = block * self.capacity() as u64;
        let rest = payload_bytes + FILE_HEADER_BYTES as u64 - before;
        if rest < self.capacity() as u64 { rest as usize } else { self.capacity() }
    }

    /// Bytes of the whole file: a multiple of 4 KiB with the footer at its end.
    pub const fn file_bytes(self, payload_bytes: u64) -> u64 {
        let last = self.block_count(payload_bytes) - 1;
        let end = last * self.block_bytes as u64
            + (BLOCK_HEADER_BYTES + self.content_bytes(last, payload_bytes) + FOOTER_BYTES) as u64;
        end.next_multiple_of(PAGE_BYTES as u64)
    }

    /// The block that holds a byte of the payload, and where in the block's content.
    pub(crate) const fn locate(self, payload_offset: u64) -> (u64, usize) {
        let at = payload_offset + FILE_HEADER_BYTES as u64;
        (at / self.capacity() as u64, (at % self.capacity() as u64) as usize)
    }
}

impl FileHeader {
    pub(crate) fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut out = [0; FILE_HEADER_BYTES];
        put(&mut out, 0, FILE_MAGIC);
        put(&mut out, 8, BLOCK_VERSION.to_le_bytes());
        put(&mut out, 10, (FILE_HEADER_BYTES as u16).to_le_bytes());
        put(&mut out, 12, self.layout.block_bytes.to_le_bytes());
        put(&mut out, 16, self.file.0);
        put(&mut out, 32, self.checkpoint.0.to_le_bytes());
        seal_own(&mut out);
        out
    }

    pub(crate) fn decode(bytes: &[u8; FILE_HEADER_BYTES]) -> Result<Self, HeaderError> {
        check_magic(bytes, &FILE_MAGIC)?;
        let layout = BlockLayout::new(get_u32(bytes, 12) as usize).ok_or(HeaderError::Malformed("block size"))?;
        let zero = bytes[40..CRC_AT].iter().all(|byte| *byte == 0);
        if u16::from_le_bytes(get(bytes, 10)) as usize != FILE_HEADER_BYTES || !zero {
            return Err(HeaderError::Malformed("file header"));
        }
        Ok(Self { layout, file: FileId(get(bytes, 16)), checkpoint: CheckpointId(get_u64(bytes, 32)) })
    }
}

impl BlockHeader {
    /// The header's bytes with a checksum of zero: what the checksum covers behind the content.
    fn unsealed(content_bytes: u32, sequence: u64, file: FileId) -> [u8; BLOCK_HEADER_BYTES] {
        let mut out = [0; BLOCK_HEADER_BYTES];
        put(&mut out, 0, BLOCK_MAGIC);
        put(&mut out, 4, content_bytes.to_le_bytes());
        put(&mut out, 8, sequence.to_le_bytes());
        put(&mut out, 16, file.0);
        out
    }

    pub(crate) fn decode(bytes: &[u8; BLOCK_HEADER_BYTES]) -> Result<Self, HeaderError> {
        if bytes[..4] != BLOCK_MAGIC {
            return Err(HeaderError::Foreign);
        }
        if bytes[32..CRC_AT].iter().any(|byte| *byte != 0) {
            return Err(HeaderError::Malformed("block header"));
        }
        Ok(Self {
            content_bytes: get_u32(bytes, 4),
            sequence: get_u64(bytes, 8),
            file: FileId(get(bytes, 16)),
            crc: get_u32(bytes, CRC_AT),
        })
    }

    /// The checksum that a block with this header and content should have.
    pub(crate) fn checksum(&self, content: &[u8]) -> u32 {
        let header = Self::unsealed(self.content_bytes, self.sequence, self.file);
        crc32c::crc32c_append(crc32c::crc32c(content), &header)
    }
}

impl Footer {
    pub(crate) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let mut out = [0; FOOTER_BYTES];
        put(&mut out, 0, FOOTER_MAGIC);
        put(&mut out, 8, BLOCK_VERSION.to_le_bytes());
        put(&mut out, 12, self.layout.block_bytes.to_le_bytes());
        put(&mut out, 16, self.file.0);
        put(&mut out, 32, self.payload_bytes.to_le_bytes());
        put(&mut out, 40, self.block_count.to_le_bytes());
        put(&mut out, 48, self.digest.to_le_bytes());
        seal_own(&mut out);
        out
    }

    pub(crate) fn decode(bytes: &[u8; FOOTER_BYTES]) -> Result<Self, HeaderError> {
        check_magic(bytes, &FOOTER_MAGIC)?;
        let layout = BlockLayout::new(get_u32(bytes, 12) as usize).ok_or(HeaderError::Malformed("block size"))?;
        Ok(Self {
            layout,
            file: FileId(get(bytes, 16)),
            payload_bytes: get_u64(bytes, 32),
            block_count: get_u64(bytes, 40),
            digest: get_u32(bytes, 48),
        })
    }
}

/// Fills and seals the blocks of one file, in order. The caller owns the memory of the blocks.
///
/// The checksum is taken as bytes are appended, so that sealing a block costs nothing that grows with it: a slot that
/// appends in slices of 20 µs never has to sum up half a megabyte at once.
#[derive(Debug)]
pub(crate) struct Sealer {
    header: FileHeader,
    sequence: u64,
    payload_bytes: u64,
    digest: u32,
    /// Bytes of the block being filled, its header included; 0 where there is none.
    filled: usize,
    crc: u32,
}

impl Sealer {
    pub(crate) fn new(header: FileHeader) -> Self {
        Self { header, sequence: 0, payload_bytes: 0, digest: 0, filled: 0, crc: 0 }
    }

    pub(crate) fn layout(&self) -> BlockLayout {
        self.header.layout
    }

    pub(crate) fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    pub(crate) fn digest(&self) -> u32 {
        self.digest
    }

    /// Begins a block in `block`, which must have the layout's size.
    pub(crate) fn start(&mut self, block: &mut [u8]) {
        debug_assert!(self.filled == 0 && block.len() == self.layout().block_bytes());
        (self.filled, self.crc) = (BLOCK_HEADER_BYTES, 0);
        if self.sequence == 0 {
            let header = self.header.encode();
            block[self.filled..][..FILE_HEADER_BYTES].copy_from_slice(&header);
            self.crc = crc32c::crc32c(&header);
            self.filled += FILE_HEADER_BYTES;
        }
    }

    /// The bytes of the block that payload may be written to before [`advance`](Self::advance).
    pub(crate) fn spare<'a>(&self, block: &'a mut [u8]) -> &'a mut [u8] {
        &mut block[self.filled..]
    }

    /// Takes over `bytes` bytes that were written to [`spare`](Self::spare).
    pub(crate) fn advance(&mut self, block: &[u8], bytes: usize) {
        self.crc = crc32c::crc32c_append(self.crc, &block[self.filled..self.filled + bytes]);
        self.filled += bytes;
        self.payload_bytes += bytes as u64;
    }

    /// Whether the block is full and has to be sealed.
    pub(crate) fn is_full(&self) -> bool {
        self.filled == self.layout().block_bytes()
    }

    /// Whether a block has been started.
    pub(crate) fn has_begun(&self) -> bool {
        self.filled != 0 || self.sequence != 0
    }

    /// Writes the header of the block. Returns where the block lies in the file, and its length in bytes.
    pub(crate) fn seal(&mut self, block: &mut [u8]) -> (u64, usize) {
        debug_assert!(self.filled >= BLOCK_HEADER_BYTES);
        let content_bytes = (self.filled - BLOCK_HEADER_BYTES) as u32;
        let mut header = BlockHeader::unsealed(content_bytes, self.sequence, self.header.file);
        let crc = crc32c::crc32c_append(self.crc, &header);
        put(&mut header, CRC_AT, crc.to_le_bytes());
        block[..BLOCK_HEADER_BYTES].copy_from_slice(&header);
        self.digest = crc32c::crc32c_append(self.digest, &crc.to_le_bytes());
        let at = self.sequence * self.layout().block_bytes() as u64;
        self.sequence += 1;
        (at, std::mem::take(&mut self.filled))
    }

    /// The footer, once the last block is sealed.
    pub(crate) fn footer(&self) -> [u8; FOOTER_BYTES] {
        debug_assert!(self.filled == 0 && self.sequence > 0);
        let footer = Footer {
            layout: self.layout(),
            file: self.header.file,
            payload_bytes: self.payload_bytes,
            block_count: self.sequence,
            digest: self.digest,
        };
        footer.encode()
    }
}

/// The bytes of a whole block file in memory: for small files, tools and tests.
///
/// # Panics
/// If the file would not fit into memory.
pub fn encode_block_file(file: FileId, checkpoint: CheckpointId, layout: BlockLayout, payload: &[u8]) -> Vec<u8> {
    let file_bytes = usize::try_from(layout.file_bytes(payload.len() as u64)).expect("a file that fits into memory");
    let mut out = vec![0; file_bytes.next_multiple_of(layout.block_bytes())];
    let mut sealer = Sealer::new(FileHeader { layout, file, checkpoint });
    let mut rest = payload;
    for block in out.chunks_exact_mut(layout.block_bytes()).take(layout.block_count(payload.len() as u64) as usize) {
        sealer.start(block);
        let spare = sealer.spare(block);
        let bytes = spare.len().min(rest.len());
        spare[..bytes].copy_from_slice(&rest[..bytes]);
        sealer.advance(block, bytes);
        sealer.seal(block);
        rest = &rest[bytes..];
    }
    out.truncate(file_bytes);
    out[file_bytes - FOOTER_BYTES..].copy_from_slice(&sealer.footer());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_laid_out_then_every_size_has_room_for_its_footer() {
        let layout = BlockLayout::new(4096).unwrap();
        let capacity = 4096 - 64;
        assert_eq!((layout.block_count(0), layout.file_bytes(0)), (1, 4096));
        // The last size whose footer fits behind the block, and the first whose does not.
        assert_eq!(layout.file_bytes(capacity - 128), 4096);
        assert_eq!((layout.block_count(capacity - 127), layout.file_bytes(capacity - 127)), (1, 8192));
        // A full block has its footer in a page of its own.
        assert_eq!((layout.block_count(capacity - 64), layout.file_bytes(capacity - 64)), (1, 8192));
        assert_eq!((layout.block_count(capacity - 63), layout.file_bytes(capacity - 63)), (2, 8192));
        assert_eq!(layout.locate(0), (0, 64));
        assert_eq!(layout.locate(capacity - 64), (1, 0));
        for bad in [0, 4095, 5000, 2 << 20] {
            assert_eq!(BlockLayout::new(bad), None);
        }
    }
}
