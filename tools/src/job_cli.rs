//! Subcommands for running jobs, which are asked over HTTP: `list`, `stop`, `cancel`, `savepoint trigger`.

use clap::Args;
use thalweg::model::JobId;

/// Where to ask.
#[derive(Debug, Args)]
pub struct RestArgs {
    /// Where the job answers requests: its --rest-port (rest.port), and its host if that is another.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8081")]
    pub rest: String,
}

/// Flags of `thalweg list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Where to ask.
    #[command(flatten)]
    pub rest: RestArgs,
}

/// Flags of `thalweg cancel`.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The job's id; `thalweg list` shows it.
    #[arg(value_name = "JOB_ID")]
    pub job: JobId,
    /// Where to ask.
    #[command(flatten)]
    pub rest: RestArgs,
}

/// Flags of `thalweg savepoint trigger`.
#[derive(Debug, Args)]
pub struct TriggerArgs {
    /// The job's id; `thalweg list` shows it.
    #[arg(value_name = "JOB_ID")]
    pub job: JobId,
    /// Directory in which the savepoint gets one of its own [default: the job's execution.checkpointing.savepoint-dir].
    #[arg(long, value_name = "DIR")]
    pub target: Option<String>,
    /// Where to ask.
    #[command(flatten)]
    pub rest: RestArgs,
}

/// Flags of `thalweg stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// The job's id; `thalweg list` shows it.
    #[arg(value_name = "JOB_ID")]
    pub job: JobId,
    /// Directory in which the savepoint gets one of its own [default: the job's execution.checkpointing.savepoint-dir].
    #[arg(long, value_name = "DIR")]
    pub target: Option<String>,
    /// Let windows and timers fire first, as at the end of all data: for a job that is not meant to go on.
    #[arg(long)]
    pub drain: bool,
    /// Where to ask.
    #[command(flatten)]
    pub rest: RestArgs,
}
