//! Partitioners: which channel of an edge a record takes, and which subtasks an edge connects.

use thalweg_model::{KeyHash, MaxParallelism};

/// How an edge spreads records over the subtasks behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Partitioner {
    /// Subtask i to subtask i. Both sides have the same parallelism, or the receiver more, which then gets records in each
    /// subtask by another edge.
    Forward,
    /// By the key group of the record's key hash.
    Hash {
        /// Number of key groups of the receiver.
        max_parallelism: MaxParallelism,
    },
    /// Round robin over all subtasks.
    Rebalance,
    /// Round robin over a contiguous share of the subtasks, so that few channels are needed.
    Rescale,
    /// To every subtask.
    Broadcast,
    /// At random.
    Shuffle {
        /// Start of the random sequence; mixed with the subtask's index.
        seed: u64,
    },
    /// All to subtask 0.
    Global,
    /// To the subtask numbered by the hash that the segment gives, modulo their number.
    Custom,
}

impl Partitioner {
    /// The subtasks of the receiving side that subtask `from` of `senders` has channels to, in the order of the
    /// channels. Rescale's shares are Flink's.
    pub fn targets(self, from: u32, senders: u32, receivers: u32) -> std::ops::Range<u32> {
        match self {
            Self::Forward => from..from + 1,
            Self::Rescale if senders >= receivers => {
                // Receiver r is fed by senders r*s/n .. (r+1)*s/n.
                let receiver = (0..receivers).rev().find(|&r| share(r, senders, receivers) <= from).unwrap_or(0);
                receiver..receiver + 1
            }
            Self::Rescale => {
                let start = |s: u32| (u64::from(s) * u64::from(receivers)).div_ceil(u64::from(senders)) as u32;
                start(from)..start(from + 1)
            }
            _ => 0..receivers,
        }
    }
}

fn share(index: u32, total: u32, parts: u32) -> u32 {
    (u64::from(index) * u64::from(total) / u64::from(parts)) as u32
}

/// A partitioner at work in one subtask, over the channels of one edge.
pub(crate) enum Router {
    /// One channel is all there is.
    Single(usize),
    Hash(HashTable),
    RoundRobin {
        next: usize,
        channels: usize,
    },
    Broadcast {
        channels: usize,
    },
    Shuffle(XorShift),
    Modulo {
        channels: u32,
    },
}

/// Key group to channel.
pub(crate) struct HashTable {
    channels: Box<[u16]>,
    max_parallelism: MaxParallelism,
}

impl HashTable {
    #[inline(always)]
    pub(crate) fn channel(&self, hash: KeyHash) -> usize {
        let group = usize::from(self.max_parallelism.key_group(hash).0);
        // SAFETY: there is a channel for each group (`Router::new`), and a hash is of one of these groups.
        usize::from(unsafe { *self.channels.get_unchecked(group) })
    }
}

/// A small random generator.
#[derive(Clone)]
pub(crate) struct XorShift(u64);

impl XorShift {
    pub(crate) fn new(seed: u64) -> Self {
        // Spread the seed, and keep clear of the one state that never leaves zero.
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((z ^ (z >> 31)) | 1)
    }

    #[inline(always)]
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `n`.
    #[inline(always)]
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (((self.next() >> 32) * n as u64) >> 32) as usize
    }
}

impl Router {
    pub(crate) fn new(partitioner: Partitioner, subtask: u32, channels: usize) -> Self {
        match partitioner {
            _ if channels == 1 => Self::Single(0),
            Partitioner::Forward | Partitioner::Global => Self::Single(0),
            Partitioner::Hash { max_parallelism } => {
                let groups = max_parallelism.get();
                let channel =
                    |group| max_parallelism.subtask_of(thalweg_model::KeyGroup(group as u16), channels as u32) as u16;
                Self::Hash(HashTable { channels: (0..groups).map(channel).collect(), max_parallelism })
            }
            Partitioner::Rebalance | Partitioner::Rescale => {
                Self::RoundRobin { next: subtask as usize % channels.max(1), channels }
            }
            Partitioner::Broadcast => Self::Broadcast { channels },
            Partitioner::Shuffle { seed } => Self::Shuffle(XorShift::new(seed ^ (u64::from(subtask) << 32))),
            Partitioner::Custom => Self::Modulo { channels: channels as u32 },
        }
    }
}
