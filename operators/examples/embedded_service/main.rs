//! `embedded_service`: a program with a job inside: threads and tokio tasks push events in and take results out.
//!
//! ```text
//! cargo run --release --example embedded_service
//! ```

mod service;

use std::{error::Error, io::Write as _, time::Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    // Queues of 64: whoever pushes faster than the job takes, waits.
    let summary = service::run(1, 64, 50_000)?;
    let seconds = started.elapsed().as_secs_f64();
    let (pushed, received) = (summary.pushed, summary.received);
    // That nobody reads it is no failure of the service.
    let _ = writeln!(std::io::stdout(), "{pushed} deposits in, {received} balances out, none lost, in {seconds:.2} s");
    Ok(())
}
