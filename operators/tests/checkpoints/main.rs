//! Jobs with checkpoints: taken, kept, deleted, restored from, in one process and across environments.

mod crash;
mod disk_full;
mod edges;
mod failures;
mod faults;
mod migrations;
mod modes;
mod numbers;
mod periodic;
mod recovery;
mod retention;
mod savepoints;
mod types;
mod unaligned;
mod windows;
