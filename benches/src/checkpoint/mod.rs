//! What checkpoints cost the stream and the disk, and what restoring one takes: each figure beside its limit.

mod disk_limit;
pub mod incremental;
mod job;
pub mod latency;
mod load;
pub mod measure;
mod report;
pub mod restore;
mod rows;
mod sink;
mod throttle;
pub mod throughput;
pub mod unaligned;
pub mod writer;

/// What is measured, for those who read the table.
pub const MEASURED: &str = "Job: source, key_by, count per key, sink, with a checkpoint each interval or when one is asked \
    for. Beside it the same job without checkpoints, by turns, and what plain threads do with the same bytes on the same disk.";

pub use disk_limit::Scratch;
pub use measure::{CheckpointBench, What};
pub use report::{CheckpointReport, CheckpointSummary, StallCount};
