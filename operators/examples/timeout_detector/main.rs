//! `timeout_detector`: tells which devices have fallen silent, by keyed state and timers.
//!
//! ```text
//! cargo run --release --example timeout_detector -- -p 1
//! cargo run --release --example timeout_detector -- -p 1 --processing-time
//! ```

mod job;

use std::process::ExitCode;

use thalweg::{clap, prelude::print};

/// Six devices send a heartbeat a second for a minute; 3 pauses from second 20 to 40, 4 stops at second 30. Prints who was
/// silent for longer than the timeout.
#[derive(clap::Args)]
struct TimeoutArgs {
    /// How long a device may be silent, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5_000)]
    timeout: i64,
    /// Go by the wall clock, with the heartbeats played at a hundred times their speed and the timeout as much shorter
    #[arg(long)]
    processing_time: bool,
}

fn main() -> ExitCode {
    thalweg::main(|env, args: TimeoutArgs| {
        if args.processing_time {
            job::by_wall_clock(env, 100, args.timeout / 100, print());
        } else {
            job::by_event_time(env, args.timeout, print());
        }
        Ok(())
    })
}
