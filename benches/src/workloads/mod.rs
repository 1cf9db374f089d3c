//! The workloads: jobs of the engine's ordinary API, each run beside the machine's own limit and checked.

pub mod buffer_timeout;
pub mod crash;
pub mod event;
pub mod exchange;
pub mod job;
pub mod keyed_count;
pub mod load;
pub mod open_loop;
pub mod pairs;
pub mod pipeline;
