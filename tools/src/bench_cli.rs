//! The flags of `thalweg bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use thalweg::model::config::RestoreFrom;
use thalweg_benches::report::Format;

use crate::cli::{DEFAULT_SEED, format};
use crate::engine_args::EngineArgs;
use crate::numbers::{count, count_from_1, rate};

/// Pairs of runs unless told otherwise.
const DEFAULT_RUNS: &str = "5";

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Count uniform keys: source, key_by, running count per key, sink; beside it a bare shuffle-and-count loop.
    #[command(
        after_help = "With --rate: latency from the moment each record was due, spinning and not, beside what a loop \
                            that only looks at the clock sees on the same cores.\n\n\
                            Examples:\n  \
                            thalweg bench keyed-count --keys 1M --records 50M -p 2\n  \
                            thalweg bench keyed-count --keys 1M --rate 500k -p 2 --seconds 10"
    )]
    KeyedCount(KeyedCountArgs),
    /// Source, map, filter and sink in one chain; beside it the same loop written by hand.
    Pipeline(PlainArgs),
    /// Records from one core to another; beside it a bare ring of the same buffers, and memory copy.
    Exchange(PlainArgs),
    /// Keyed count with buffer timeouts of 0, 1 and 100 ms: throughput and latency side by side.
    BufferTimeout(BufferTimeoutArgs),
    /// A job that may be killed at any instant and started again: its committed files must be those of an undisturbed run.
    #[command(
        after_help = "Kill it, start it again with --restore latest at any parallelism, and do so as often as you like: in \
                            the end the rows of DIR/part-*.ndjson are, as a multiset, a function of --events and --seed \
                            alone. Files whose names begin with a dot are in progress or wait for their checkpoint. A run \
                            that comes to its end compares the rows with a plain evaluation, and leaves nothing but the \
                            files. Started again after that, it only compares. Configured settings count more than its \
                            own; those that would break this are refused. SIGINT and SIGTERM cancel it, with exit status \
                            130; with --rest-port it can be stopped with a savepoint.\n\n\
                            Examples:\n  \
                            thalweg bench crash --checkpoint-dir ckpt --output out --events 1M --seed 7 -p 2\n  \
                            thalweg bench crash --checkpoint-dir ckpt --output out --events 1M --seed 7 -p 3 --restore latest"
    )]
    Crash(CrashArgs),
    /// What checkpoints cost: latency, stalls, throughput, speed of writing, size of increments, backpressure, restore.
    #[command(
        after_help = "Each figure has its target and its limit beside it: the same job without checkpoints, and what plain \
                            threads write to and read from the same disk (or fio, where it is installed).\n\n\
                            Examples:\n  \
                            thalweg bench checkpoint -p 2\n  \
                            thalweg bench checkpoint --what writer,restore --state 256M --runs 3 --checkpoint-dir /mnt/disk"
    )]
    Checkpoint(CheckpointArgs),
}

/// Groups of figures of `bench checkpoint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckpointWhat {
    /// Latency and stalls of a steady load, with a checkpoint each interval and without.
    Latency,
    /// Throughput of a keyed count (as of `bench keyed-count`), with a checkpoint each interval and without.
    Throughput,
    /// How fast state is written.
    Writer,
    /// What an increment writes after one key in a hundred has changed.
    Incremental,
    /// Checkpoints under a throttled sink, aligned and unaligned.
    Unaligned,
    /// How fast state is restored.
    Restore,
}

/// Flags of `checkpoint`.
#[derive(Debug, Args)]
pub struct CheckpointArgs {
    /// What to measure, with commas between; everything by default.
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',')]
    pub what: Vec<CheckpointWhat>,
    /// Bytes of state in rows of 200 bytes (binary units: 1G is 1 GiB).
    #[arg(long, value_name = "BYTES", default_value = "1G", value_parser = bytes)]
    pub state: u64,
    /// Keys of the keyed count whose throughput is measured.
    #[arg(long, value_name = "K", default_value = "10M", value_parser = count_from_1)]
    pub keys: u64,
    /// Records of that, besides one of each key before time is taken.
    #[arg(long, value_name = "N", default_value = "300M", value_parser = count_from_1)]
    pub records: u64,
    /// Records a second of the steady load.
    #[arg(long, value_name = "R", default_value = "500k", value_parser = rate)]
    pub rate: f64,
    /// How long each run of the steady load is.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    pub seconds: Duration,
    /// Seconds from one checkpoint to the next.
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    pub interval: Duration,
    /// Below which directory checkpoints lie while they are measured; by default the working directory. A fresh one is made there and removed afterwards.
    #[arg(long, value_name = "DIR")]
    pub checkpoint_dir: Option<PathBuf>,
    /// What all benches share.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// A number of bytes with a binary unit.
fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    number.ok_or_else(|| "write a whole number of bytes, or one with K, M or G behind it, such as 256M".to_owned())
}

/// Flags of all benches.
#[derive(Debug, Args)]
pub struct CommonArgs {
    /// Runs of limit and job, by turns; the median counts.
    #[arg(long, value_name = "N", default_value = DEFAULT_RUNS, value_parser = clap::value_parser!(u16).range(1..))]
    pub runs: u16,
    /// How to print the results.
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = format)]
    pub format: Format,
    /// How the engine runs.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// Flags of `keyed-count`.
#[derive(Debug, Args)]
pub struct KeyedCountArgs {
    /// How many keys.
    #[arg(long, value_name = "K", default_value = "1M", value_parser = count_from_1)]
    pub keys: u64,
    /// How many records, besides one of each key before time is taken; with --rate, of each run [default: 50M, or as --seconds says].
    #[arg(long, value_name = "N", value_parser = count_from_1)]
    pub records: Option<u64>,
    /// Records a second in all, sent when they are due whatever becomes of them: measures latency.
    #[arg(long, value_name = "R", value_parser = rate)]
    pub rate: Option<f64>,
    /// With --rate: how long each run is recorded, after half a second that is not [default: 10, or as --records says].
    #[arg(long, value_name = "S", value_parser = seconds, requires = "rate", conflicts_with = "records")]
    pub seconds: Option<Duration>,
    /// What all benches share.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Flags of `buffer-timeout`.
#[derive(Debug, Args)]
pub struct BufferTimeoutArgs {
    /// How many keys.
    #[arg(long, value_name = "K", default_value = "1M", value_parser = count_from_1)]
    pub keys: u64,
    /// How many records at full speed, besides one of each key before time is taken.
    #[arg(long, value_name = "N", default_value = "10M", value_parser = count_from_1)]
    pub records: u64,
    /// Records a second of the steady load, whose latency is measured.
    #[arg(long, value_name = "R", default_value = "100k", value_parser = rate)]
    pub rate: f64,
    /// How long the steady load is recorded, after half a second that is not.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    pub seconds: Duration,
    /// What all benches share.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// A time in seconds, which may have decimals.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|time| !time.is_zero()).ok_or_else(|| "write seconds, such as 10 or 0.5".to_owned())
}

/// Flags of `crash`.
#[derive(Debug, Args)]
pub struct CrashArgs {
    /// Where checkpoints lie.
    #[arg(long, value_name = "DIR")]
    pub checkpoint_dir: PathBuf,
    /// Where committed files lie.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// Bytes of a committed file from which on another is begun; each checkpoint begins another in any case.
    #[arg(long, value_name = "BYTES", default_value = "16K", value_parser = bytes)]
    pub roll_bytes: u64,
    /// How many events.
    #[arg(long, value_name = "N", default_value = "1M", value_parser = count)]
    pub events: u64,
    /// Which sequence of events.
    #[arg(long, value_name = "S", default_value = DEFAULT_SEED)]
    pub seed: u64,
    /// Events a second in all.
    #[arg(long, value_name = "R", default_value = "200k", value_parser = rate)]
    pub rate: f64,
    /// Microseconds that each record costs behind an exchange: buffers fill where the rate is above what is left.
    #[arg(long, value_name = "MICROS", default_value_t = 0)]
    pub work: u64,
    /// Milliseconds between two checkpoints [default: as configured, else 50]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    pub interval: Option<u32>,
    /// Let barriers overtake records (execution.checkpointing.unaligned.enabled)
    #[arg(long)]
    pub unaligned: bool,
    /// Go on from the latest checkpoint, from nothing where there is none yet, or from the one at this path.
    #[arg(long, value_name = "latest|PATH", value_parser = restore_from)]
    pub restore: Option<RestoreFrom>,
    /// How the engine runs. Slots share cores where there are fewer.
    #[command(flatten)]
    pub engine: EngineArgs,
}

fn restore_from(text: &str) -> Result<RestoreFrom, String> {
    match text {
        "" => Err("write latest, or the path of a checkpoint or savepoint".to_owned()),
        "latest" => Ok(RestoreFrom::Latest),
        path => Ok(RestoreFrom::Path(path.to_owned())),
    }
}

/// Flags of `pipeline` and `exchange`.
#[derive(Debug, Args)]
pub struct PlainArgs {
    /// How many records.
    #[arg(long, value_name = "N", default_value = "200M", value_parser = count_from_1)]
    pub records: u64,
    /// What all benches share.
    #[command(flatten)]
    pub common: CommonArgs,
}
