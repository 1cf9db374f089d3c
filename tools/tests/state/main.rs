//! `thalweg state` as a user meets it, on checkpoints that the store has written.

mod checkpoints;
mod commands;
mod damage;
