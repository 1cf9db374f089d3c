//! `GlommioReactor`: one thread and one glommio executor per slot, pinned to its core.
//!
//! Nothing else in the workspace names glommio. The slot is the executor's only task, and it never yields to it. While
//! it has nothing to do it spins briefly, then sleeps in the kernel on its waker's event, not in glommio: that ends when
//! it should and costs one system call. Yielding to glommio 0.9 is not safe on a busy machine: if the thread loses its core
//! between the arming of the preempt timer and the first task, `run_task_queues` says that nothing ran and the executor
//! sleeps beside a runnable task, until somebody else wakes it. The same happens to the first task of all, and there nobody
//! would: so the timer is set to an age.

#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement};
use thalweg_io::spare_cores::SlotCores;

use super::{Reactor, SlotEnv, SlotProgram, probe};
use crate::{Clock, ReactorError, RuntimeConfig, SlotOutcome, SystemClock, Turn};

/// A slot that may not spin and is due again sooner than this rests so long, and cannot be woken meanwhile: falling asleep
/// and being woken cost tens of microseconds of the core, in a virtual machine above all.
const REST: Duration = Duration::from_micros(75);

/// When glommio is to look after other tasks than the slot, of which there are none. Longer than any thread loses its core
/// between the arming of the timer and the first turn: with a millisecond, one in some hundred slots of a busy machine
/// never began.
const PREEMPT: Duration = Duration::from_secs(3600);

/// Runs slots on pinned threads.
#[derive(Clone, Debug)]
pub struct GlommioReactor {
    cores: Vec<usize>,
    oversubscribe: bool,
    spin: Duration,
}

/// A deadline nearer than this is waited for without sleeping, where spinning is allowed.
const TOO_SHORT_TO_SLEEP_NS: u64 = 5_000;

impl GlommioReactor {
    /// A reactor that uses the cores, and spins as long, as the configuration says.
    pub fn new(config: &RuntimeConfig) -> Self {
        let spin = if config.oversubscribe { Duration::ZERO } else { Duration::from_micros(config.spin_us) };
        Self { cores: config.cores.clone(), oversubscribe: config.oversubscribe, spin }
    }

    /// Whether so many slots have the cores that they are to run on. Starts nothing.
    ///
    /// # Errors
    /// There are too few, or one is not available to this process.
    pub fn check_cores(&self, slots: usize) -> Result<(), ReactorError> {
        self.places(slots).map(drop)
    }

    fn places(&self, slots: usize) -> Result<Vec<Option<usize>>, ReactorError> {
        probe::place(slots, &self.cores, &probe::available_cores(), self.oversubscribe)
    }
}

impl Reactor for GlommioReactor {
    fn run(&self, programs: Vec<SlotProgram>) -> Result<Vec<SlotOutcome>, ReactorError> {
        let slots = programs.len();
        let places = self.places(slots)?;
        probe::io_uring(slots)?;
        // Known before the slots start the threads that serve them.
        let _cores = SlotCores::hold(&probe::available_cores(), places.iter().copied().flatten().collect());
        let clock = SystemClock::new();
        let spin = self.spin;
        thread::scope(|scope| {
            let spawn = |(slot, (program, core)): (usize, (SlotProgram, Option<usize>))| {
                thread::Builder::new()
                    .name(format!("slot-{slot}"))
                    .spawn_scoped(scope, move || run_slot(slot, slots, program, core, clock, spin))
                    .map_err(|error| ReactorError::Slot { slot, message: format!("no thread: {error}") })
            };
            // A program that is not run stops the job, so that the slots that did start come to an end.
            let threads: Vec<_> = programs.into_iter().zip(places).enumerate().map(spawn).collect();
            let outcomes: Vec<_> = threads
                .into_iter()
                .enumerate()
                .map(|(slot, thread)| {
                    let died = |_| Err(ReactorError::Slot { slot, message: "its thread has panicked".into() });
                    thread.and_then(|thread| thread.join().unwrap_or_else(died))
                })
                .collect();
            outcomes.into_iter().collect()
        })
    }
}

fn run_slot(
    slot: usize,
    slots: usize,
    program: SlotProgram,
    core: Option<usize>,
    clock: SystemClock,
    spin: Duration,
) -> Result<SlotOutcome, ReactorError> {
    // SAFETY: plain system call. A slack of 1 ns makes sleeps end when they should; without it they end 50 µs late.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    let executor = executor(slot, core).map_err(|error| executor_error(slot, slots, &error))?;
    Ok(executor.run(async { drive(program, clock, spin) }))
}

/// An executor for this thread.
fn executor(slot: usize, core: Option<usize>) -> Result<LocalExecutor, glommio::GlommioError<()>> {
    let placement = core.map_or(Placement::Unbound, Placement::Fixed);
    let name = format!("slot-{slot}");
    LocalExecutorBuilder::new(placement).name(&name).preempt_timer(PREEMPT).io_memory(0).make()
}

fn executor_error(slot: usize, slots: usize, error: &glommio::GlommioError<()>) -> ReactorError {
    if let glommio::GlommioError::IoError(source) = error
        && let Some(code) = source.raw_os_error()
    {
        return probe::ring_error(std::io::Error::from_raw_os_error(code), slots);
    }
    let message = error.to_string();
    // The reactor's own check shows as `MemLockLimit(..)`.
    if message.to_lowercase().contains("memlock") {
        return ReactorError::LockedMemory { slots };
    }
    ReactorError::Slot { slot, message }
}

/// Gives a slot its turns, and its rest.
fn drive(program: SlotProgram, clock: SystemClock, spin: Duration) -> SlotOutcome {
    let mut slot = program.build(SlotEnv { clock: Arc::new(clock), chaos_seed: None });
    let waker = slot.waker().clone();
    let mut idle_since: Option<Instant> = None;
    loop {
        match slot.turn() {
            Turn::Done => return slot.outcome(),
            Turn::Busy => {
                idle_since = None;
                continue;
            }
            Turn::Idle { until_ns } => {
                let due_within =
                    |nanos: u64| until_ns.is_some_and(|at_ns| at_ns < clock.now_ns().saturating_add(nanos));
                if spin.is_zero() {
                    if due_within(REST.as_nanos() as u64) {
                        thread::sleep(REST);
                        continue;
                    }
                } else if due_within(TOO_SHORT_TO_SLEEP_NS)
                    || idle_since.get_or_insert_with(Instant::now).elapsed() < spin
                {
                    std::hint::spin_loop();
                    continue;
                }
            }
        }
        // From here on whoever publishes something wakes the slot; what was published before is seen in one more turn.
        if !waker.prepare_park() {
            continue;
        }
        match slot.turn() {
            Turn::Idle { until_ns } => {
                let timeout = until_ns.map(|at_ns| Duration::from_nanos(at_ns.saturating_sub(clock.now_ns())));
                waker.park(timeout);
            }
            Turn::Done => return slot.outcome(),
            Turn::Busy => waker.stay(),
        }
        idle_since = None;
    }
}
