//! `thalweg nexmark generate`: the events as text.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use thalweg_benches::nexmark::{Generator, generate_ndjson};
use thalweg_benches::progress::Progress;
use thalweg_benches::report::grouped;

use crate::cli::GenerateArgs;
use crate::error::CliError;

/// Writes the events, showing how far it is.
pub fn run(args: &GenerateArgs) -> Result<(), CliError> {
    let to_stdout = args.out == Path::new("-");
    let failed = |source| if to_stdout { CliError::Output(source) } else { CliError::write(&args.out)(source) };
    let out: Box<dyn Write> =
        if to_stdout { Box::new(io::stdout().lock()) } else { Box::new(File::create(&args.out).map_err(failed)?) };
    let written = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&written);
    let progress = Progress::start("generate", Some(args.events), move || seen.load(Relaxed));
    let mut out = LineCounter { out, lines: written };
    let result = generate_ndjson(&Generator::new(args.seed), args.events, &mut out);
    progress.finish();
    let bytes = result.map_err(failed)?;
    let place = if to_stdout { "standard output".into() } else { args.out.display().to_string() };
    eprintln!("{} events, {} bytes, written to {place}", grouped(args.events), grouped(bytes));
    Ok(())
}

/// Counts the lines that go through it. The generator writes in large pieces.
struct LineCounter {
    out: Box<dyn Write>,
    lines: Arc<AtomicU64>,
}

impl Write for LineCounter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        let lines = bytes[..written].iter().filter(|&&byte| byte == b'\n').count();
        self.lines.fetch_add(lines as u64, Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
