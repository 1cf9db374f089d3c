//! Records in flight: copied out of channels for an unaligned checkpoint, and read back.
//!
//! | header | |
//! |---|---|
//! | 0: 6, 6: 2 | `TWFLY` and a newline; version of the format: 1 |
//!
//! | bytes of each frame, without gaps | |
//! |---|---|
//! | 0: 4 | length of the payload; the top four bits are the kind: 0 record, 2 fragment, 3 last fragment of a record |
//! | 4: 4, 8: 8 | key hash; timestamp in milliseconds |
//! | from 16 on | the payload: archived bytes, or a piece of them |
//!
//! Little-endian. Control elements are left out: barriers mean nothing any more, watermarks and idleness are no state.
//! What a receiver had queued comes first, then what the sender had not sent.

use thalweg_model::time::MIN_WATERMARK;

use crate::frame::{CONTROL, FRAGMENT, FrameLayout, LAST_FRAGMENT, LEN_MASK};

/// What the bytes of a channel begin with: the last two are the version.
const HEADER: [u8; 8] = *b"TWFLY\n\x01\0";
/// Bytes before the payload of a frame.
const HEAD_BYTES: usize = 16;

/// Copies of frames.
#[derive(Clone, Debug, Default)]
pub struct InFlight {
    bytes: Vec<u8>,
    frames: u64,
}

/// One record that was in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlightRecord {
    /// Hash of its key, as its frame had it.
    pub hash: u32,
    /// Its timestamp in milliseconds.
    pub timestamp: i64,
    /// Its archived bytes.
    pub payload: Vec<u8>,
}

/// The bytes are no records in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadInFlight;

impl InFlight {
    /// Copies whole frames of this layout, control elements left out.
    pub(crate) fn copy_frames(&mut self, mut bytes: &[u8], layout: FrameLayout) {
        let word = |bytes: &[u8], at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        while !bytes.is_empty() {
            let (first, hash) = (word(bytes, 0), word(bytes, 4));
            let (kind, len) = (first & !LEN_MASK, (first & LEN_MASK) as usize);
            let timestamp = match layout.carries_time() {
                true => i64::from_ne_bytes(bytes[8..16].try_into().expect("eight bytes")),
                false => MIN_WATERMARK,
            };
            if kind != CONTROL {
                let payload = &bytes[layout.header_bytes()..layout.header_bytes() + len];
                self.push(kind, hash, timestamp, payload);
            }
            bytes = &bytes[layout.stride_bytes(len)..];
        }
    }

    /// Appends a piece of a record whose other pieces follow.
    pub(crate) fn push_fragment(&mut self, payload: &[u8]) {
        for piece in payload.chunks(LEN_MASK as usize) {
            self.push(FRAGMENT, 0, MIN_WATERMARK, piece);
        }
    }

    fn push(&mut self, kind: u32, hash: u32, timestamp: i64, payload: &[u8]) {
        self.bytes.extend_from_slice(&(kind | payload.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&hash.to_le_bytes());
        self.bytes.extend_from_slice(&timestamp.to_le_bytes());
        self.bytes.extend_from_slice(payload);
        self.frames += 1;
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Number of frames.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// The bytes to store.
    pub fn into_bytes(self) -> Vec<u8> {
        let mut bytes = self.bytes;
        bytes.splice(0..0, HEADER);
        bytes
    }

    /// The records in the bytes of one channel: what the receiver had, then what the sender had.
    ///
    /// # Errors
    /// Where the bytes are none, or end within a record.
    pub fn read(parts: &[&[u8]]) -> Result<Vec<InFlightRecord>, BadInFlight> {
        let (mut records, mut pieces) = (Vec::new(), Vec::new());
        for part in parts {
            let mut rest = part.strip_prefix(&HEADER).ok_or(BadInFlight)?;
            while !rest.is_empty() {
                let (head, after) = rest.split_at_checked(HEAD_BYTES).ok_or(BadInFlight)?;
                let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
                let (first, hash) = (word(0), word(4));
                let timestamp = (u64::from(word(8)) | u64::from(word(12)) << 32) as i64;
                let (payload, after) = after.split_at_checked((first & LEN_MASK) as usize).ok_or(BadInFlight)?;
                rest = after;
                match first & !LEN_MASK {
                    0 if pieces.is_empty() => {
                        records.push(InFlightRecord { hash, timestamp, payload: payload.to_vec() })
                    }
                    FRAGMENT => pieces.extend_from_slice(payload),
                    LAST_FRAGMENT => {
                        pieces.extend_from_slice(payload);
                        records.push(InFlightRecord { hash, timestamp, payload: std::mem::take(&mut pieces) });
                    }
                    _ => return Err(BadInFlight),
                }
            }
        }
        if pieces.is_empty() { Ok(records) } else { Err(BadInFlight) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_frames_are_copied_then_whole_records_read_back_from_both_parts() {
        let (mut queued, mut unsent) = (InFlight::default(), InFlight::default());
        queued.push(0, 7, -1, b"whole");
        queued.push_fragment(b"be");
        unsent.push(FRAGMENT, 9, 5, b"gu");
        unsent.push(LAST_FRAGMENT, 9, 5, b"n");
        let (queued, unsent) = (queued.into_bytes(), unsent.into_bytes());
        let record = |hash, timestamp, payload: &[u8]| InFlightRecord { hash, timestamp, payload: payload.to_vec() };
        assert_eq!(InFlight::read(&[&queued, &unsent]), Ok(vec![record(7, -1, b"whole"), record(9, 5, b"begun")]));
        assert_eq!(InFlight::read(&[&queued]), Err(BadInFlight), "the end of a record is missing");
        for cut in 0..queued.len() - 2 {
            let read = InFlight::read(&[&queued[..cut]]);
            assert!(cut == HEADER.len() || cut == HEADER.len() + 21 || read.is_err(), "{cut}: {read:?}");
        }
        let newer = [&queued[..6], &[2, 0], &queued[8..]].concat();
        assert_eq!(InFlight::read(&[&newer]), Err(BadInFlight), "another version");
        assert_eq!(InFlight::read(&[&[0xff; 40]]), Err(BadInFlight));
    }
}
