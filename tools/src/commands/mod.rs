//! The subcommands, one a file: each turns its flags into a call of the harness and prints what comes back.

pub mod nexmark_generate;
pub mod nexmark_list;
