//! `_metadata` files, each as it is and once more with the length and the checksum that it ought to have.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use thalweg_io::checkpoint::Metadata;

/// Where the header has the length of what follows it, and the checksum of all but itself (`io/FORMAT.md`).
const BODY_BYTES_AT: usize = 16;
const HEADER_BYTES: usize = 24;
const CRC_AT: usize = 12;

fn decode(bytes: &[u8]) {
    let path = Path::new("_metadata");
    let Ok(metadata) = Metadata::decode(bytes, path) else { return };
    let again = metadata.encode().expect("it was read");
    assert!(Metadata::decode(&again, path).expect("it was written") == metadata);
}

fuzz_target!(|bytes: &[u8]| {
    decode(bytes);
    let mut bytes = bytes.to_vec();
    if bytes.len() < HEADER_BYTES {
        return;
    }
    let body_bytes = (bytes.len() - HEADER_BYTES) as u64;
    bytes[BODY_BYTES_AT..HEADER_BYTES].copy_from_slice(&body_bytes.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC_AT]), &bytes[CRC_AT + 4..]);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    decode(&bytes);
});
