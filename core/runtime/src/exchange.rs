//! What the runtime uses of the exchange, named in one place.

pub use shim::*;
mod shim {
    //! Stands in for thalweg-io's primitives until they are merged.
    use thalweg_model::{Elem, KeyHash, Record, time::MIN_WATERMARK};

    /// How frames lie in a page.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FrameLayout {
        /// Alignment of a frame's start.
        pub align: usize,
        /// Bytes before the payload.
        pub header_bytes: usize,
        /// Whether frames carry a timestamp.
        pub carries_time: bool,
    }
    /// A plain frame.
    #[derive(Clone, Copy, Debug)]
    pub struct Frame<'a> {
        /// Hash of the key.
        pub hash: KeyHash,
        /// Event time.
        pub timestamp: i64,
        /// The encoded record.
        pub payload: &'a [u8],
    }
    /// Reads frames.
    pub struct FrameCursor<'a> {
        bytes: &'a [u8],
    }
    impl<'a> FrameCursor<'a> {
        /// The next plain frame.
        #[allow(clippy::should_implement_trait)]
        pub fn next(&mut self) -> Option<Frame<'a>> {
            if self.bytes.is_empty() {
                return None;
            }
            let payload = std::mem::take(&mut self.bytes);
            Some(Frame { hash: KeyHash(0), timestamp: MIN_WATERMARK, payload })
        }
        /// Key hashes of the next plain frames; answers how many.
        pub fn hashes(&self, max: usize, out: &mut [KeyHash]) -> usize {
            let _ = (max, out);
            0
        }
    }
    /// Writes frames.
    pub struct EdgeWriter {
        bytes: Vec<u8>,
    }
    impl EdgeWriter {
        pub fn write<T: Record>(&mut self, _channel: usize, elem: &Elem<'_, T>, _hash: KeyHash) {
            self.bytes.extend_from_slice(elem.raw);
        }
        pub fn room(&self) -> bool {
            true
        }
        pub fn publish(&mut self) {}
        pub fn channels(&self) -> usize {
            1
        }
        pub fn broadcast_control(&mut self, _: Control) {}
    }
    /// In-line control.
    #[derive(Clone, Copy, Debug)]
    pub enum Control {
        Watermark(i64),
        Idle,
        Active,
    }
}
