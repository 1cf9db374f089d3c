//! A stateful stream-processing engine, thread-per-core: the DataStream API.
//!
//! Build a job in an [`Environment`], from sources through operators to sinks, and run it in this process:
//!
//! ```
//! use thalweg::prelude::*;
//!
//! let env = Environment::new();
//! env.parallelism(1);
//! let (sink, sums) = collect();
//! env.generate(1000, |n| (n % 3, n)).key_by(|pair| pair.0).aggregate(Count, |key, count| (key, count)).sink(sink);
//! env.execute()?;
//! assert_eq!(sums.take().len(), 1000);
//! # Ok::<(), thalweg::Error>(())
//! ```
//!
//! This crate owns the operators and what wires them; it leaves threads and buffers to `thalweg-runtime`.

extern crate self as thalweg;

pub mod aggregate;
mod batch;
pub mod checkpoint;
pub mod cluster;
pub mod connect;
pub mod entry;
pub mod environment;
pub mod error;
pub mod file_sink;
pub mod file_source;
mod from_iter;
pub mod fuse;
mod graph;
pub mod handle;
mod handle_source;
mod input_queue;
pub mod keyed;
pub mod keyed_context;
mod late;
mod memory;
pub mod metrics_server;
mod number_set;
mod op_metrics;
pub mod pipe;
pub mod placed;
mod plain_file_sink;
pub mod prelude;
pub mod process;
mod progressions;
pub mod rest;
mod segment;
mod server_thread;
mod settings;
pub mod side;
pub mod sink;
pub mod source;
mod split_position;
pub mod stream;
#[cfg(test)]
mod testing;
pub mod two_phase;
pub mod watermark;
pub mod window;
mod window_aggregate;
mod window_all;
mod window_list;
mod window_slices;
mod window_state;

pub use clap;
pub use cluster::{JobClient, JobHandle};
pub use entry::{EngineArgs, NoArgs, main};
pub use environment::Environment;
pub use error::{BuildError, Error};
pub use thalweg_derive::Record;
pub use thalweg_io::connect as files;
pub use thalweg_model as model;
pub use thalweg_model::Record;
pub use thalweg_runtime as runtime;
pub use thalweg_state::MemoryReserve;
