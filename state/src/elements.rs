//! Elements of operator state: archived records one after another.
//!
//! Each element is its length (`u32`, little-endian), zeros up to the next multiple of 16 from the part's begin, and the
//! archived bytes, whose root is at their end.

use thalweg_model::{EncodeScratch, Record, record, rkyv::util::AlignedVec};

use crate::ImageError;

/// Elements begin at multiples of this.
const ALIGN: usize = 16;
/// The largest element, in bytes.
const MAX_ELEMENT_BYTES: usize = 64 << 20;

/// A sequence of elements in memory.
#[derive(Clone, Debug, Default)]
pub struct Elements {
    bytes: Vec<u8>,
    count: u64,
}

impl Elements {
    /// No elements.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an element.
    ///
    /// # Panics
    /// Where it is larger than 64 MiB, or needs an alignment above 16.
    pub fn push<T: Record>(&mut self, element: T::View<'_>) {
        const { assert!(T::ALIGN <= ALIGN, "elements of operator state are aligned to 16 bytes") };
        let encoded = record::encode_large::<T>(element, MAX_ELEMENT_BYTES, &mut EncodeScratch::default());
        let encoded = encoded.expect("an element of operator state is at most 64 MiB");
        self.bytes.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
        self.bytes.extend_from_slice(&encoded);
        self.count += 1;
    }

    /// How many there are.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Their bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Splits the bytes of elements.
///
/// # Errors
/// Where an element goes beyond the end.
pub fn split_elements(bytes: &[u8]) -> Result<Vec<&[u8]>, ImageError> {
    let (mut elements, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let head = bytes.get(at..at + 4).ok_or(ImageError::Damaged)?;
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let begin = (at + 4).next_multiple_of(ALIGN);
        elements.push(bytes.get(begin..begin + len).ok_or(ImageError::Damaged)?);
        at = begin + len;
    }
    Ok(elements)
}

/// Reads elements.
///
/// # Errors
/// Where the bytes are not such elements.
pub fn decode_elements<T: Record>(bytes: &[u8]) -> Result<Vec<T>, ImageError> {
    let mut aligned = AlignedVec::<ALIGN>::new();
    split_elements(bytes)?
        .into_iter()
        .map(|element| {
            aligned.clear();
            aligned.extend_from_slice(element);
            record::decode_checked::<T>(&aligned).map(T::from_view).ok_or(ImageError::Damaged)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_elements_are_written_then_they_read_back_and_cut_bytes_are_refused() {
        let mut elements = Elements::new();
        let values = [(7u64, "short".to_owned()), (8, String::new()), (9, "x".repeat(100))];
        for value in &values {
            elements.push::<(u64, String)>((value.0, &value.1));
        }
        assert_eq!(elements.count(), 3);
        let bytes = elements.into_bytes();
        assert_eq!(decode_elements::<(u64, String)>(&bytes).unwrap(), values);
        assert_eq!(decode_elements::<(u64, String)>(&bytes[..bytes.len() - 1]), Err(ImageError::Damaged));
        assert_eq!(decode_elements::<(u64, String)>(&[]).unwrap(), []);
    }
}
