//! `main`: the entry of a job's binary: flags, log, progress, cancellation, exit code.
//!
//! The job's own function only builds the graph, so that a run can be explained, or started elsewhere, without running it.

mod configuration;
mod flags;
mod log;
mod progress;
mod signals;

use std::{error::Error as StdError, ffi::OsString, io::Write as _, path::Path, process::ExitCode};

use clap::{Args, Command, FromArgMatches as _, builder::Resettable};
use thalweg_runtime::{JobError, JobReport};

use crate::{
    BuildError, Environment, Error,
    metrics_server::MetricsServer,
    rest::{LOOPBACK, RestServer},
};

pub use configuration::{CONF_DIR, ConfigurationArgs, ConfigurationError};
pub use flags::{CoreList, EngineArgs, NoArgs, parallelism};
pub use log::start_log;
use progress::Watch;
pub use signals::Interrupt;

/// What the function that builds a job may answer: any error, which is shown as it displays itself.
pub type BuildResult = Result<(), Box<dyn StdError + Send + Sync>>;

/// Exit status of a job that was cancelled by a signal: 128 and the number of `SIGINT`, as a shell has it.
pub const CANCELLED_STATUS: u8 = 130;
/// Exit status of a job that failed.
const FAILED_STATUS: u8 = 1;
/// Exit status of a command line or configuration that cannot be used.
const WRONG_COMMAND_LINE_STATUS: u8 = 2;

/// What `--help` ends in.
const EXAMPLES: &str = "\
Settings are Flink's keys. A file is read first, then -D, then the other flags; what the job's own code sets counts most,
but for its name, its id and what it starts from. Older names of keys work; keys that mean nothing here are warned of.

Examples:
  job -p 4
  job --config config.yaml -D execution.checkpointing.interval=10s
  job --checkpoint-dir /data/checkpoints --checkpoint-interval 1000
  job --checkpoint-dir /data/checkpoints --checkpoint-interval 1000 --restore latest
  job --restore /data/savepoints/savepoint-1 --allow-non-restored-state
  THALWEG_CONF_DIR=/etc/thalweg job";

/// The entry of a job's binary: `fn main() -> ExitCode { thalweg::main(|env, args: MyArgs| { .. }) }`.
///
/// Reads the command line (the engine's flags, see [`EngineArgs`], and the job's own `A`; [`NoArgs`] where it has none),
/// calls `build`, runs what it built, and shows progress on standard error. Ctrl-C cancels the job in order; a second one
/// ends the process at once. `build` only builds the graph: what is to be printed in the end goes into
/// [`Environment::on_finished`].
///
/// The exit status is 0 when the job has run to its end, or when whoever read its output wants no more (`job | head -1`), 1
/// when it failed (one line on standard error says why), 2 for a wrong command line or configuration, such as more subtasks
/// than cores, and 130 when it was cancelled.
///
/// Configuration and flags are applied before `build` is called: what the job sets itself counts, except for its name, its
/// id and what it starts from (`--job-name`, `--job-id`, `--restore`, `--allow-non-restored-state`).
///
/// ```no_run
/// use std::process::ExitCode;
/// use thalweg::prelude::*;
///
/// fn main() -> ExitCode {
///     thalweg::main(|env, _: thalweg::NoArgs| {
///         env.generate(1_000_000, |n| n).filter(|n| n % 2 == 0).sink(discard().0);
///         Ok(())
///     })
/// }
/// ```
pub fn main<A: Args, F>(build: F) -> ExitCode
where
    F: FnOnce(&Environment, A) -> BuildResult,
{
    ExitCode::from(main_with_args(std::env::args_os(), build))
}

/// As [`main`] with a command line from elsewhere, program name first; answers the exit status.
pub fn main_with_args<A: Args, F>(args: impl IntoIterator<Item: Into<OsString> + Clone>, build: F) -> u8
where
    F: FnOnce(&Environment, A) -> BuildResult,
{
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let name = program_name(&args);
    let parsed = command::<A>().try_get_matches_from(args);
    let parsed =
        parsed.and_then(|matches| Ok((EngineArgs::from_arg_matches(&matches)?, A::from_arg_matches(&matches)?)));
    let (engine, own) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // Also `--help` comes this way, with status 0. Nobody to print it to is no failure of its own.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(FAILED_STATUS);
        }
    };
    engine.start_log();
    let env = Environment::new();
    env.job_name(&name);
    if let Err(error) = engine.apply(&env) {
        eprintln!("error: {error}");
        return WRONG_COMMAND_LINE_STATUS;
    }
    match run(&env, &engine, own, build) {
        Ok(()) => 0,
        // Whoever read the output has seen enough.
        Err(error) if error.downcast_ref().is_some_and(Error::is_output_closed) => 0,
        Err(error) => {
            eprintln!("error: {error}");
            status_of(&*error)
        }
    }
}

/// The exit status of a job that did not run to its end.
fn status_of(error: &(dyn StdError + 'static)) -> u8 {
    let is_configuration = error.downcast_ref().is_some_and(Error::is_configuration)
        || error.downcast_ref().is_some_and(BuildError::is_configuration);
    match error.downcast_ref() {
        Some(Error::Job(JobError::Cancelled)) => CANCELLED_STATUS,
        _ if is_configuration => WRONG_COMMAND_LINE_STATUS,
        _ => FAILED_STATUS,
    }
}

fn program_name(args: &[OsString]) -> String {
    let name = args.first().and_then(|program| Path::new(program).file_stem());
    name.map_or_else(|| "job".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The job's flags, then the engine's under a heading of their own; the description is the job's.
fn command<A: Args>() -> Command {
    let own = A::augment_args(Command::new("job"));
    let (about, long_about) = (own.get_about().cloned(), own.get_long_about().cloned());
    let after_help = match own.get_after_help() {
        Some(help) => format!("{help}\n\n{EXAMPLES}"),
        None => EXAMPLES.to_owned(),
    };
    let all = EngineArgs::augment_args(own);
    all.about(Resettable::from(about)).long_about(Resettable::from(long_about)).after_help(after_help)
}

fn run<A, F>(env: &Environment, engine: &EngineArgs, own: A, build: F) -> BuildResult
where
    F: FnOnce(&Environment, A) -> BuildResult,
{
    build(env, own)?;
    engine.apply_last(env);
    if engine.explain {
        let mut stdout = std::io::stdout().lock();
        return Ok(stdout.write_all(env.explain()?.as_bytes())?);
    }
    let _server = match engine.metrics_port {
        Some(port) => {
            let server = MetricsServer::start(port, env.metrics()).map_err(Error::from)?;
            eprintln!("metrics: {}", server.url());
            Some(server)
        }
        None => None,
    };
    run_attended(env, Progress::Shown, &Interrupt::listen()?)?;
    Ok(())
}

/// Whether a line on standard error shows how far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A line that follows the job, and one that says how it went.
    Shown,
    /// Whoever runs the job shows it in a way of their own, or not at all.
    Hidden,
}

/// Runs the job to its end as [`main`] does once it is built, for programs with a command line of their own: answers
/// requests on `rest.port`, if that is set, and says where; the interrupt cancels the job in order.
///
/// # Errors
/// As [`Environment::execute`]; where the port cannot be had. `JobError::Cancelled` is for the exit status
/// [`CANCELLED_STATUS`].
pub fn run_attended(env: &Environment, progress: Progress, interrupt: &Interrupt) -> Result<JobReport, Error> {
    let rest = start_rest(env)?;
    let result = run_watched(env, rest.as_ref(), progress, interrupt);
    if let Some(rest) = rest {
        rest.finish();
    }
    let report = result?;
    env.finished(&report);
    Ok(report)
}

/// Answers requests where `rest.port` is set; nobody is surprised by an open port.
fn start_rest(env: &Environment) -> Result<Option<RestServer>, Error> {
    let options = env.settings().rest.clone();
    let Some(port) = options.port else { return Ok(None) };
    let server = RestServer::start(options.bind_address.as_deref().unwrap_or(LOOPBACK), port)?;
    if !server.address().ip().is_loopback() {
        tracing::warn!("whoever reaches {} may stop the job: there is no password", server.address());
    }
    Ok(Some(server))
}

/// Runs the job, with a line of progress on standard error if that is to be shown; the interrupt cancels it.
fn run_watched(
    env: &Environment,
    rest: Option<&RestServer>,
    progress: Progress,
    interrupt: &Interrupt,
) -> Result<JobReport, Error> {
    let sources = env.plan()?.tasks.into_iter().flat_map(|task| task.segments).filter(|segment| segment.inputs == 0);
    let sources = sources.filter_map(|segment| Some(segment.operators.first()?.id.clone())).collect();
    let job = env.execute_async()?;
    if let Some(rest) = rest {
        rest.add(job.control());
        // Only now: whoever reads this may ask at once.
        eprintln!("rest: {}", rest.url());
    }
    let shown = progress == Progress::Shown;
    let watch = Watch { job_name: env.name(), metrics: env.metrics(), sources, files: env.file_progress(), shown };
    let watching = watch.start(job.control(), interrupt.clone());
    let result = job.wait();
    watching.end(result.as_ref().ok());
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_flags_are_combined_then_the_command_line_is_consistent() {
        command::<NoArgs>().debug_assert();
    }

    #[test]
    fn when_flags_are_wrong_then_the_status_is_two_and_nothing_is_built() {
        for args in [
            &["job", "--no-such-flag"][..],
            &["job", "-p", "0"],
            &["job", "-p", "two"],
            &["job", "--cores", "0,,1"],
            &["job", "--buffer-timeout", "-2"],
            &["job", "--max-parallelism", "40000"],
        ] {
            let status = main_with_args(args, |_, _: NoArgs| panic!("the job was built"));
            assert_eq!(status, 2, "{args:?}");
        }
    }

    #[test]
    fn when_flags_are_right_then_the_job_runs_with_them() {
        let args = ["/bin/counting", "-p", "3", "--oversubscribe", "--buffer-timeout", "-1", "--max-parallelism", "64"];
        let (sink, count) = crate::sink::discard();
        let finished = std::rc::Rc::new(std::cell::Cell::new(0));
        let seen = finished.clone();
        let status = main_with_args(args, |env, _: NoArgs| {
            assert_eq!((env.default_parallelism(), env.name().as_str()), (3, "counting"));
            env.generate(1000, |n| n).rebalance().sink(sink);
            env.on_finished(move |report| seen.set(report.slots.len()));
            Ok(())
        });
        assert_eq!((status, count.get(), finished.get()), (0, 1000, 3));
    }

    #[test]
    fn when_the_job_cannot_be_built_then_the_status_is_one() {
        assert_eq!(main_with_args(["job"], |_, _: NoArgs| Ok(())), 1);
        assert_eq!(main_with_args(["job"], |_, _: NoArgs| Err("no".into())), 1);
    }
}
