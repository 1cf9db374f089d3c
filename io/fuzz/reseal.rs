//! Gives a block file the checksums that it ought to have (`io/FORMAT.md`), so that damage gets past them.
//!
//! For the fuzz target and the property tests. Knows the format by its byte table alone, not by the code that it tests.

const HEADER: usize = 64;
const PAGE: usize = 4096;

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Seals a file header or footer by itself: the checksum of its first 60 bytes.
fn seal_own(bytes: &mut [u8], at: usize) {
    let crc = crc32c::crc32c(&bytes[at..at + 60]);
    put_u32(bytes, at + 60, crc);
}

/// Seals the file header, every block as far as there are bytes for it, the digest of these checksums, and the footer.
pub fn reseal(bytes: &mut [u8]) {
    if bytes.len() < PAGE {
        return;
    }
    let footer = bytes.len() - HEADER;
    seal_own(bytes, HEADER);
    let block_bytes = u32_at(bytes, HEADER + 12).max(PAGE);
    let blocks = u32_at(bytes, footer + 40);
    let mut digest = 0;
    for start in (0..footer).step_by(block_bytes).take(blocks) {
        let content = u32_at(bytes, start + 4);
        let Some(content) = bytes.get(start + HEADER..).and_then(|rest| rest.get(..content)) else { break };
        let crc = crc32c::crc32c_append(crc32c::crc32c(content), &bytes[start..start + 60]);
        let crc = crc32c::crc32c_append(crc, &[0; 4]);
        put_u32(bytes, start + 60, crc);
        digest = crc32c::crc32c_append(digest, &crc.to_le_bytes());
    }
    put_u32(bytes, footer + 48, digest);
    seal_own(bytes, footer);
}
