//! What the tests share: one round trip through every way of encoding and decoding.

use std::fmt::Debug;

use rkyv::util::AlignedVec;
use thalweg_model::record::{EncodeScratch, Record, decode_checked, decode_unchecked, encode_large, key_hash};

/// The bytes of a value.
pub fn round_trip<T: Record>(value: &T) -> AlignedVec<16> {
    encode_large::<T>(value.view(), 1 << 20, &mut EncodeScratch::default()).expect("fits")
}

/// Asserts that a value, its key and its hash come back from its bytes, checked and unchecked.
pub fn assert_round_trip<T: Record + PartialEq + Debug>(value: T) {
    let bytes = round_trip(&value);
    // SAFETY: the bytes are those of `encode_large` for the same type.
    let back = unsafe { decode_unchecked::<T>(&bytes) };
    assert_eq!(T::from_view(back), value);
    assert_eq!(format!("{back:?}"), format!("{:?}", value.view()));
    assert!(T::eq_view(back, value.view()));
    assert_eq!(key_hash::<T>(back), key_hash::<T>(value.view()));
    let checked = decode_checked::<T>(&bytes).expect("valid");
    assert_eq!(T::from_view(checked), value);
    assert_eq!(T::FIXED, bytes.len() == size_of::<T::Archived>() && T::FIXED);
}
