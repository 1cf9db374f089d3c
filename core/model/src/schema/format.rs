//! The format of archived values: what rkyv was built to write.
//!
//! rkyv's features are chosen for a whole build, by whoever turns one on. Readers of state rely on one choice, so that
//! another one does not compile.

use rkyv::{
    primitive::{ArchivedI32, ArchivedUsize},
    rend,
};

/// How archived values are written: the same in every build, and part of every fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveFormat {
    /// The generation of formats: 8 for rkyv 0.8.
    pub generation: u8,
    /// Whether numbers are big-endian.
    pub is_big_endian: bool,
    /// Bits of a relative pointer, and of the length of a string or vector.
    pub pointer_bits: u8,
    /// Whether numbers lie at multiples of their size.
    pub is_aligned: bool,
}

impl ArchiveFormat {
    /// The format of this release.
    pub const CURRENT: Self = Self { generation: 8, is_big_endian: false, pointer_bits: 32, is_aligned: true };

    /// As it is stored: generation, byte order, bits of a pointer, alignment.
    pub(crate) const fn to_bytes(self) -> [u8; 4] {
        [self.generation, self.is_big_endian as u8, self.pointer_bits, self.is_aligned as u8]
    }

    pub(crate) const fn from_bytes([generation, is_big_endian, pointer_bits, is_aligned]: [u8; 4]) -> Option<Self> {
        if is_big_endian > 1 || is_aligned > 1 {
            return None;
        }
        Some(Self { generation, is_big_endian: is_big_endian == 1, pointer_bits, is_aligned: is_aligned == 1 })
    }
}

const _: () = assert!(
    size_of::<ArchivedUsize>() * 8 == ArchiveFormat::CURRENT.pointer_bits as usize,
    "state is stored with 32-bit pointers: turn rkyv's feature pointer_width_16 or pointer_width_64 off"
);
/// Does not compile where numbers are stored big-endian or unaligned: turn rkyv's features `big_endian` and `unaligned`
/// off.
const _: ArchivedI32 = rend::i32_le::from_native(0);
