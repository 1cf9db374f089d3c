//! The harness: workloads, limits of the machine, Nexmark.

pub mod checkpoint;
pub mod latency;
pub mod limits;
pub mod memory;
pub mod nexmark;
pub mod options;
pub mod progress;
pub mod report;
pub mod workloads;
