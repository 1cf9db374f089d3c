//! The runtime's tests: jobs of hand-written segments, in simulation over many seeds, and on threads.

mod checkpoint;
mod common;
mod figures;
mod flow;
mod life;
mod time;
