//! The harness: workloads, limits of the machine, Nexmark.

pub mod nexmark;
pub mod progress;
pub mod report;
