//! How fast the checkpoint writer fills a disk: `checkpoint_write [DIR] [GiB] [block KiB] [writes in flight]`.
//!
//! Beside it what `fio` writes with the same block size and depth, if it is installed.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use thalweg_io::checkpoint::{Appended, Engine, Event, FileIds, SlotWriter, StreamSpec, WriterConfig};
use thalweg_model::CheckpointId;

/// Payload is appended in pieces of so many bytes, as a slot would in slices of its time.
const PIECE_BYTES: usize = 64 << 10;

fn run(dir: &Path, bytes: u64, config: WriterConfig) -> Result<(f64, Duration), Box<dyn std::error::Error>> {
    let mut writer = SlotWriter::new(config)?;
    let (path, file) = (dir.join("checkpoint-write.bin"), FileIds::from_system()?.make());
    let piece: Vec<u8> = (0..PIECE_BYTES).map(|at| (at * 31) as u8).collect();
    let mut events = Vec::new();
    let (start, mut slowest) = (Instant::now(), Duration::ZERO);
    let spec = StreamSpec { path: path.clone(), file, checkpoint: CheckpointId(1), expected_bytes: bytes };
    let stream = writer.open(spec)?;
    let mut left = bytes;
    while left > 0 {
        let now = piece.len().min(left as usize);
        let step = Instant::now();
        let appended = writer.try_append(stream, &piece[..now]);
        writer.poll(&mut events);
        slowest = slowest.max(step.elapsed());
        match appended {
            Appended::All => left -= now as u64,
            Appended::Partial(taken) => left -= taken as u64,
            Appended::Full => writer.poll_wait(&mut events),
            Appended::Failed => break,
        }
    }
    writer.finish(stream);
    while events.is_empty() {
        writer.poll_wait(&mut events);
    }
    let seconds = start.elapsed().as_secs_f64();
    std::fs::remove_file(&path).ok();
    match events.remove(0) {
        Event::Finished { written, .. } => Ok((written.file_bytes as f64 / seconds / f64::from(1 << 30), slowest)),
        Event::Failed { failure, .. } => Err(failure.into()),
        other => Err(format!("unexpected: {other:?}").into()),
    }
}

/// GiB/s of fio, or `None` where it is not installed.
fn fio(dir: &Path, bytes: u64, block_bytes: usize, depth: usize) -> Option<f64> {
    let output = Command::new("fio")
        .args([
            "--name=limit",
            "--rw=write",
            "--ioengine=io_uring",
            "--direct=1",
            "--end_fsync=1",
            "--fallocate=native",
        ])
        .args([format!("--size={bytes}"), format!("--bs={block_bytes}"), format!("--iodepth={depth}")])
        .args(["--output-format=terse", "--terse-version=3", "--unlink=1"])
        .arg(format!("--directory={}", dir.display()))
        .output()
        .ok()?;
    // Field 48 of the terse format: bandwidth of writes in KiB/s.
    let text = String::from_utf8(output.stdout).ok()?;
    text.split(';').nth(47)?.parse::<f64>().ok().map(|kib| kib / f64::from(1 << 20))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| args.get(at).map_or(Ok(default), |text| text.parse::<u64>());
    let dir = args.first().map_or_else(std::env::temp_dir, Into::into);
    let (bytes, block_bytes, writes) = (number(1, 1)? << 30, (number(2, 512)? << 10) as usize, number(3, 8)? as usize);
    let config = |engine| WriterConfig { block_bytes, max_writes_in_flight: writes, engine, ..WriterConfig::default() };
    for round in 1..=3 {
        let (ring, step) = run(&dir, bytes, config(Engine::Auto))?;
        let (thread, _) = run(&dir, bytes, config(Engine::Thread))?;
        let limit = fio(&dir, bytes, block_bytes, writes);
        let limit = limit.map_or("not installed".to_owned(), |limit| format!("{limit:.2} ({:.2})", ring / limit));
        println!(
            "round {round}: ring {ring:.2} GiB/s (longest step {step:?}), helper thread {thread:.2} GiB/s, fio {limit}"
        );
    }
    Ok(())
}
