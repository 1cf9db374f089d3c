//! How fast one core copies memory, in the cache and out of it.

use std::hint::black_box;
use std::time::Instant;

use super::memory::HugeSlice;
use super::pinned::on_cores;

/// A buffer, as in the exchange.
const PIECE_BYTES: usize = 32 << 10;

/// Bytes per second of copying 32 KiB pieces.
#[derive(Clone, Copy, Debug)]
pub struct CopyRates {
    /// Between two pieces that stay in the core's own cache.
    pub in_cache: f64,
    /// Over 256 MiB.
    pub in_memory: f64,
}

/// Measures, on one core, for some tenths of a second.
pub fn measure(core: usize) -> CopyRates {
    let measured = on_cores(&[core], vec![()], |_, ()| CopyRates {
        in_cache: copy(2 * PIECE_BYTES, 4 << 30),
        in_memory: copy(256 << 20, 1 << 30),
    });
    measured[0]
}

fn copy(span_bytes: usize, bytes: usize) -> f64 {
    let mut memory = HugeSlice::<u8>::new(span_bytes);
    let (from, to) = memory.as_mut_slice().split_at_mut(span_bytes / 2);
    let rounds = bytes / from.len();
    let started = Instant::now();
    for _ in 0..rounds {
        for (from, to) in from.chunks_exact(PIECE_BYTES).zip(to.chunks_exact_mut(PIECE_BYTES)) {
            to.copy_from_slice(from);
            black_box(to);
        }
    }
    (rounds * from.len()) as f64 / started.elapsed().as_secs_f64()
}
