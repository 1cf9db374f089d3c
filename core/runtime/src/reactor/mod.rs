//! `Reactor`: what runs slots: threads pinned to cores, or a simulation.

mod glommio;
mod probe;
mod seeded;

use std::sync::Arc;

pub use self::{glommio::GlommioReactor, seeded::SeededReactor};
use crate::{Clock, JobControl, ReactorError, Slot, SlotOutcome};

/// What a reactor gives a slot.
pub struct SlotEnv {
    /// What the slot goes by; the clocks of all slots agree.
    pub clock: Arc<dyn Clock>,
    /// In simulation: the seed of random batch sizes and flushes.
    pub chaos_seed: Option<u64>,
}

type Build = Box<dyn FnOnce(SlotEnv) -> Slot + Send>;

/// Builds one slot on the thread that will run it. A program that is dropped instead stops its job.
pub struct SlotProgram {
    control: JobControl,
    build: Option<Build>,
}

impl SlotProgram {
    pub(crate) fn new(control: JobControl, build: Build) -> Self {
        Self { control, build: Some(build) }
    }

    /// Builds the slot. It may open files and read state: this can take a while.
    pub fn build(mut self, env: SlotEnv) -> Slot {
        let Some(build) = self.build.take() else { unreachable!("a program is built once") };
        let guard = Unbuilt(&self.control);
        let slot = build(env);
        std::mem::forget(guard);
        slot
    }
}

impl Drop for SlotProgram {
    fn drop(&mut self) {
        if self.build.is_some() {
            drop(Unbuilt(&self.control));
        }
    }
}

/// Stands for a slot that never was, so that nobody waits for it.
struct Unbuilt<'a>(&'a JobControl);

impl Drop for Unbuilt<'_> {
    fn drop(&mut self) {
        self.0.stop();
        self.0.count_ready();
        self.0.count_ended();
    }
}

/// Runs the slots of a job.
pub trait Reactor {
    /// Builds every slot and gives it turns until it is done. Waits for all of them.
    ///
    /// # Errors
    /// Where the machine cannot run them, or one of them has died.
    fn run(&self, slots: Vec<SlotProgram>) -> Result<Vec<SlotOutcome>, ReactorError>;
}
