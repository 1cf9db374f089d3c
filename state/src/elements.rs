//! Elements of operator state, one after another in a part of a checkpoint.
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the element's bytes, little-endian |
//! | | zeros up to the next multiple of 16 from the begin of the part |
//! | length | the element, archived |
//!
//! So the elements of a part that lies at a multiple of 16 in memory can be read where they are. The length of an
//! element follows the bytes of the one before at once.

use rkyv::util::AlignedVec;
use thalweg_model::{Record, record::decode_checked};

use crate::{cell::Encoder, image::ImageError};

/// What the bytes of every element are aligned to: more than any record needs.
const ALIGN_BYTES: usize = 16;

/// Elements in the making.
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
    /// Where it takes 4 GiB or more.
    pub fn push<T: Record>(&mut self, element: T::View<'_>) {
        push_encoded(&mut self.bytes, Encoder::new().encode::<T>(element));
        self.count += 1;
    }

    /// How many there are.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Their bytes, as a part of a checkpoint has them.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

fn push_encoded(out: &mut Vec<u8>, element: &[u8]) {
    out.extend_from_slice(&u32::try_from(element.len()).expect("an element is below 4 GiB").to_le_bytes());
    out.resize(out.len().next_multiple_of(ALIGN_BYTES), 0);
    out.extend_from_slice(element);
}

/// The elements of a part, as values.
///
/// # Errors
/// Where the bytes are damaged.
pub fn read_elements<T: Record>(bytes: &[u8]) -> Result<Vec<T>, ImageError> {
    let mut elements = Vec::new();
    decode_elements::<T>(bytes, |element| elements.push(T::from_view(element)))?;
    Ok(elements)
}

/// The bytes of elements, as a part of a checkpoint has them.
///
/// # Panics
/// Where an element takes 4 GiB or more.
pub fn encode_elements<'a, T: Record>(elements: impl IntoIterator<Item = T::View<'a>>) -> Vec<u8> {
    let (mut out, mut encoder) = (Vec::new(), Encoder::new());
    for element in elements {
        push_encoded(&mut out, encoder.encode::<T>(element));
    }
    out
}

/// Hands the elements of a part to `f`, checked, and answers how many there are.
///
/// # Errors
/// Where the bytes are damaged; elements before that have been handed over.
pub fn decode_elements<T: Record>(bytes: &[u8], mut f: impl FnMut(T::View<'_>)) -> Result<u64, ImageError> {
    let (mut count, mut aligned) = (0, AlignedBytes::default());
    for element in element_bytes(bytes) {
        f(decode_checked::<T>(aligned.of(element?)).ok_or(ImageError::Damaged)?);
        count += 1;
    }
    Ok(count)
}

/// The bytes of each element of a part, whatever its type. Ends with the first error.
pub fn element_bytes(bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], ImageError>> {
    let mut at = Some(0).filter(|_| !bytes.is_empty());
    std::iter::from_fn(move || {
        let element = element_at(bytes, at?);
        at = element.as_ref().map(|(_, end)| *end).filter(|&end| end < bytes.len());
        Some(element.map(|(element, _)| element).ok_or(ImageError::Damaged))
    })
}

fn element_at(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let len = u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize;
    let begin = (at + size_of::<u32>()).next_multiple_of(ALIGN_BYTES);
    Some((bytes.get(begin..begin + len)?, begin + len))
}

/// Bytes at an address that every record can be read at: the given ones if they lie so, else a copy.
#[derive(Default)]
pub(crate) struct AlignedBytes(AlignedVec<16>);

impl AlignedBytes {
    pub(crate) fn of<'a>(&'a mut self, bytes: &'a [u8]) -> &'a [u8] {
        if (bytes.as_ptr() as usize).is_multiple_of(ALIGN_BYTES) {
            return bytes;
        }
        self.0.clear();
        self.0.extend_from_slice(bytes);
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_elements_are_encoded_then_they_come_back_and_lie_aligned() {
        let elements: Vec<(u64, String)> = (0..50).map(|n| (n, "x".repeat(n as usize % 23))).collect();
        let bytes = encode_elements::<(u64, String)>(elements.iter().map(Record::view));
        let mut back = Vec::new();
        // At every place in memory.
        for shift in 0..16 {
            back.clear();
            let shifted = [&vec![0; shift][..], &bytes].concat();
            let count = decode_elements::<(u64, String)>(&shifted[shift..], |view| back.push(Record::from_view(view)));
            assert_eq!((count, &back), (Ok(50), &elements));
        }
        let base = bytes.as_ptr() as usize;
        for element in element_bytes(&bytes) {
            assert!((element.unwrap().as_ptr() as usize - base).is_multiple_of(16));
        }
        assert_eq!(encode_elements::<u64>([]), []);
        assert_eq!(decode_elements::<()>(&encode_elements::<()>([(), ()]), |()| {}), Ok(2));
    }

    #[test]
    fn when_elements_are_cut_off_or_of_another_type_then_that_is_an_error() {
        let bytes = encode_elements::<String>(["short", "longer than what lies in place"]);
        for len in 1..bytes.len() {
            let cut = decode_elements::<String>(&bytes[..len], |_| {});
            // Between two elements nothing is missing.
            assert!(cut.is_err() || cut == Ok(1), "{len}: {cut:?}");
        }
        assert_eq!(decode_elements::<char>(&encode_elements::<u32>([0x11_0000]), |_| {}), Err(ImageError::Damaged));
        let mut long = bytes.clone();
        long[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode_elements::<String>(&long, |_| {}), Err(ImageError::Damaged));
    }
}
