//! Control elements: what travels in line with the records.

/// A control element. Its place among the records is its meaning; none overtakes a record or is overtaken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Control {
    /// No record with a smaller or equal timestamp (milliseconds) will follow on this channel.
    Watermark(i64),
    /// The channel will be silent: do not wait for its watermark.
    Idle,
    /// The channel is no longer idle.
    Active,
    /// A checkpoint barrier.
    Barrier {
        /// The checkpoint.
        checkpoint: u64,
        /// When it was triggered, milliseconds since the epoch.
        triggered_ms: i64,
        /// Its kind and options; the gate passes them on unread.
        options: u64,
    },
    /// No record follows on this channel; barriers still may.
    EndOfData,
    /// Nothing follows on this channel.
    EndOfInput,
    /// A probe of the time that records take from a source.
    LatencyMarker {
        /// When the source sent it, nanoseconds of the job's monotonic clock.
        marked_ns: i64,
        /// The source's operator id, folded to 64 bits.
        operator: u64,
        /// The source's subtask.
        subtask: u32,
    },
}

/// Bytes of a control frame's payload.
pub(crate) const CONTROL_BYTES: usize = 24;

impl Control {
    /// Its kind, and its fields as words.
    pub(crate) const fn encode(self) -> (u32, [u64; 3]) {
        match self {
            Self::Watermark(at) => (0, [at as u64, 0, 0]),
            Self::Idle => (1, [0; 3]),
            Self::Active => (2, [0; 3]),
            Self::Barrier { checkpoint, triggered_ms, options } => (3, [checkpoint, triggered_ms as u64, options]),
            Self::EndOfInput => (4, [0; 3]),
            Self::LatencyMarker { marked_ns, operator, subtask } => (5, [marked_ns as u64, operator, subtask as u64]),
            Self::EndOfData => (6, [0; 3]),
        }
    }

    /// The inverse of `encode`; `None` for a kind that does not exist.
    pub(crate) const fn decode(kind: u32, [a, b, c]: [u64; 3]) -> Option<Self> {
        Some(match kind {
            0 => Self::Watermark(a as i64),
            1 => Self::Idle,
            2 => Self::Active,
            3 => Self::Barrier { checkpoint: a, triggered_ms: b as i64, options: c },
            4 => Self::EndOfInput,
            5 => Self::LatencyMarker { marked_ns: a as i64, operator: b, subtask: c as u32 },
            6 => Self::EndOfData,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_encoded_then_a_control_decodes_to_itself() {
        for control in [
            Control::Watermark(i64::MIN),
            Control::Watermark(i64::MAX),
            Control::Idle,
            Control::Active,
            Control::Barrier { checkpoint: 7, triggered_ms: -1, options: u64::MAX },
            Control::EndOfData,
            Control::EndOfInput,
            Control::LatencyMarker { marked_ns: -5, operator: u64::MAX, subtask: u32::MAX },
        ] {
            let (kind, words) = control.encode();
            assert_eq!(Control::decode(kind, words), Some(control));
        }
        assert_eq!(Control::decode(7, [0; 3]), None);
    }
}
