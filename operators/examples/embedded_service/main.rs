//! `embedded_service`: a program with a job inside: threads and tokio tasks push events in and take results out.
//!
//! ```text
//! cargo run --release --example embedded_service
//! ```

mod service;

use std::{error::Error, time::Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    // Queues of 64: whoever pushes faster than the job takes, waits.
    let summary = service::run(1, 64, 50_000)?;
    let seconds = started.elapsed().as_secs_f64();
    println!("{} deposits in, {} balances out, none lost, in {seconds:.2} s", summary.pushed, summary.received);
    Ok(())
}
