//! `thalweg state`: its subcommands and flags.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::numbers::count;

/// What to do with checkpoints and savepoints.
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// List checkpoints and savepoints: when, of which job, how large.
    #[command(
        after_help = "PATH may be a checkpoint or savepoint, a job's directory, or a checkpoint directory with the \
                            directories of jobs.\n\n\
                            Examples:\n  \
                            thalweg state ls /var/lib/checkpoints\n  \
                            thalweg state ls savepoint-63ab12-0123456789ab --json"
    )]
    Ls(LsArgs),
    /// Show what a checkpoint holds: operators, states, types, sizes, and entries if asked for.
    #[command(after_help = "Entries are JSON, one a line, typed by the schema that is stored with the state.\n\n\
                            Examples:\n  \
                            thalweg state show chk-7\n  \
                            thalweg state show chk-7 --key-groups\n  \
                            thalweg state show chk-7 --entries --operator counts --state count --limit 10\n  \
                            thalweg state show chk-7 --entries --limit 0 --json")]
    Show(ShowArgs),
    /// Look up what a state holds for a key.
    #[command(
        after_help = "The key is JSON of the key's type: 17, '\"Google\"', '[1,\"a\"]', '{\"id\":1}'. Where keys are a \
                            tuple of the stream's key and more, such as a window, the stream's key alone will do. Of a \
                            map, --user-key gives the one entry. Exit code 1 where there is nothing.\n\n\
                            Examples:\n  \
                            thalweg state get chk-7 --operator counts --state count --key 17\n  \
                            thalweg state get chk-7 --operator counts --state window --key '[\"Google\",1700000000000]'\n  \
                            thalweg state get chk-7 --operator carts --state items --key 17 --user-key '\"apples\"'"
    )]
    Get(GetArgs),
    /// Compare two checkpoints: states, types, and entries added, removed and changed.
    #[command(after_help = "Examples:\n  \
                            thalweg state diff chk-7 chk-8\n  \
                            thalweg state diff chk-7 chk-8 --operator counts --entries --limit 20")]
    Diff(DiffArgs),
    /// Read all of a checkpoint and check every checksum and reference; exit with 1 if something is damaged.
    #[command(
        after_help = "PATH may also be a job's directory: all its checkpoints are checked. Damage is said in one \
                            line: the file, the place in it, and what is wrong.\n\n\
                            Examples:\n  \
                            thalweg state verify chk-7\n  \
                            thalweg state verify /var/lib/checkpoints --json"
    )]
    Verify(VerifyArgs),
}

/// Flags of `thalweg state ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Checkpoints, savepoints, or directories of them.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Which operator and state.
#[derive(Debug, Args)]
pub struct Selection {
    /// Only this operator: its uid, id (32 digits) or name.
    #[arg(long, value_name = "UID")]
    pub operator: Option<String>,
    /// Only states of this name.
    #[arg(long, value_name = "NAME")]
    pub state: Option<String>,
}

/// Whether and how many entries.
#[derive(Debug, Args)]
pub struct EntryArgs {
    /// Also show entries.
    #[arg(long)]
    pub entries: bool,
    /// At most so many entries of each state; 0 for all.
    #[arg(long, value_name = "N", default_value = "100", value_parser = count, requires = "entries")]
    pub limit: u64,
}

/// Flags of `thalweg state show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Checkpoints or savepoints: their directories, or `_metadata` in them.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
    /// Which operator and state.
    #[command(flatten)]
    pub selection: Selection,
    /// Also show keys and bytes by key group; reads all keyed state.
    #[arg(long)]
    pub key_groups: bool,
    /// Entries.
    #[command(flatten)]
    pub entries: EntryArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `thalweg state get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// A checkpoint or savepoint: its directory, or `_metadata` in it.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// The operator: its uid, id (32 digits) or name.
    #[arg(long, value_name = "UID")]
    pub operator: String,
    /// The state.
    #[arg(long, value_name = "NAME")]
    pub state: String,
    /// The key, as JSON.
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub key: String,
    /// Of a map, only the entry of this user key, as JSON.
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    pub user_key: Option<String>,
    /// Print JSON: an array of what was found.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `thalweg state diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The older checkpoint or savepoint.
    #[arg(value_name = "PATH")]
    pub first: PathBuf,
    /// The newer one.
    #[arg(value_name = "PATH")]
    pub second: PathBuf,
    /// Which operator and state.
    #[command(flatten)]
    pub selection: Selection,
    /// Entries.
    #[command(flatten)]
    pub entries: EntryArgs,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Flags of `thalweg state verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// A checkpoint, a savepoint, or a directory of them.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Print JSON, one line for each checkpoint.
    #[arg(long)]
    pub json: bool,
}
