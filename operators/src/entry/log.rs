//! The log on standard error.

use std::{ffi::OsStr, io::IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// Starts the log on standard error: warnings, with a `verbose` of 1 what happens, then details, then everything;
/// `RUST_LOG` says otherwise. In colour on a terminal, unless `NO_COLOR` is set. Does nothing where the process has a log
/// already.
pub fn start_log(verbose: u8) {
    let level = ["warn", "info", "debug", "trace"][usize::from(verbose).min(3)];
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colours = in_colour(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref());
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).with_target(false);
    // Fails where there is one already, which then serves.
    let _ = log.with_ansi(colours).try_init();
}

/// Escape sequences are for eyes: in a file or a pipe they are dirt. An empty `NO_COLOR` is as good as none.
fn in_colour(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_nobody_looks_or_nobody_wants_them_then_there_are_no_colours() {
        assert!(in_colour(true, None) && in_colour(true, Some(OsStr::new(""))));
        assert!(!in_colour(false, None) && !in_colour(true, Some(OsStr::new("1"))));
    }
}
