//! What an edge is made of, what it counts, and why it may give up.

use crate::{frame::FrameLayout, pool::PoolError};

/// What an edge is made of.
#[derive(Clone, Copy, Debug)]
pub struct EdgeConfig {
    /// The layout of its frames, as the receiving gate has it.
    pub layout: FrameLayout,
    /// The largest encoded record, in bytes; below 256 MiB.
    pub max_record_bytes: usize,
    /// Pages that each channel may hold: at least one.
    pub buffers_per_channel: usize,
    /// Pages that the channels may hold beyond that, together: at least one.
    pub extra_buffers: usize,
    /// Pages that may be under way or waiting on one channel before the edge has no room: at least one.
    pub max_buffers_per_channel: usize,
}

impl EdgeConfig {
    /// Pages that an edge of so many channels holds at most, overdraft aside: its term in the size of the pool.
    ///
    /// One page per channel can always be open, which is why `buffers_per_channel` and `extra_buffers` are at least one.
    pub const fn max_pages(&self, channels: usize) -> usize {
        channels * self.buffers_per_channel + self.extra_buffers
    }
}

/// Why an edge gave up. What was written afterwards is dropped: the task must fail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EdgeError {
    /// A record is larger than allowed.
    #[error(
        "a record takes more than the {max_record_bytes} bytes that one may: split it, or raise the largest record size"
    )]
    RecordTooLarge {
        /// The limit.
        max_record_bytes: usize,
    },
    /// No page could be had, not even beyond the pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// What an edge has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeCounters {
    /// Records written.
    pub records: u64,
    /// Bytes handed to channels, headers included.
    pub bytes: u64,
    /// Pages handed to channels.
    pub buffers: u64,
}
