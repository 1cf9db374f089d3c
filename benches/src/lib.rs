//! The harness: workloads, limits of the machine, Nexmark.
