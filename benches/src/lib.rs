//! The harness: workloads, limits of the machine, Nexmark.

pub mod progress;
pub mod report;
