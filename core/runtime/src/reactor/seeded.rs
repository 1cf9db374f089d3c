//! `SeededReactor`: all slots on one thread, interleaved at random from a seed, under a virtual clock.
//!
//! One seed gives one run, unless a segment listens to the world outside. The clock moves a little with every turn and
//! jumps to the next deadline when all slots are idle.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Reactor, SlotEnv, SlotProgram};
use crate::{Clock, ReactorError, Slot, SlotOutcome, Turn, VirtualClock, partition::XorShift, waker::poll_readable};

/// A simulation of a machine.
#[derive(Clone, Debug)]
pub struct SeededReactor {
    seed: u64,
    clock: VirtualClock,
    stall_timeout: Duration,
}

/// Virtual time that passes in one turn, at most.
const TURN_NS: usize = 2_000;

impl SeededReactor {
    /// A simulation of this seed, on a clock of its own.
    pub fn new(seed: u64) -> Self {
        Self { seed, clock: VirtualClock::default(), stall_timeout: Duration::from_secs(60) }
    }

    /// The clock that the slots will go by.
    pub fn clock(&self) -> VirtualClock {
        self.clock.clone()
    }

    /// How long, in real time, the slots may all wait for the world outside before the run is given up: 60 s unless set.
    pub fn with_stall_timeout(self, stall_timeout: Duration) -> Self {
        Self { stall_timeout, ..self }
    }
}

impl Reactor for SeededReactor {
    fn run(&self, programs: Vec<SlotProgram>) -> Result<Vec<SlotOutcome>, ReactorError> {
        let mut random = XorShift::new(self.seed);
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let build =
            |program: SlotProgram| program.build(SlotEnv { clock: clock.clone(), chaos_seed: Some(random.next()) });
        let mut slots: Vec<Slot> = programs.into_iter().map(build).collect();
        let mut live: Vec<usize> = (0..slots.len()).collect();
        let mut idle_until: Vec<Option<Option<u64>>> = vec![None; slots.len()];
        let mut stalled: Option<Instant> = None;
        while !live.is_empty() {
            self.clock.advance_to(self.clock.now_ns() + random.below(TURN_NS) as u64);
            let pick = random.below(live.len());
            let slot = live[pick];
            match slots[slot].turn() {
                Turn::Busy => {
                    // Anyone may have work now.
                    idle_until.iter_mut().for_each(|idle| *idle = None);
                    stalled = None;
                }
                Turn::Idle { until_ns } => idle_until[slot] = Some(until_ns),
                Turn::Done => {
                    live.swap_remove(pick);
                    idle_until.iter_mut().for_each(|idle| *idle = None);
                }
            }
            if live.is_empty() || live.iter().any(|&slot| idle_until[slot].is_none()) {
                continue;
            }
            // All are idle. A slot's own reports are a deadline too, so time alone does not tell that a job is stuck.
            let next_ns = live.iter().filter_map(|&slot| idle_until[slot].flatten()).min();
            if let Some(next_ns) = next_ns {
                self.clock.advance_to(next_ns);
            }
            self.listen(&slots, &live, next_ns.is_none());
            if stalled.get_or_insert_with(Instant::now).elapsed() > self.stall_timeout {
                let message = format!("no slot had anything to do for {:?}", self.stall_timeout);
                return Err(ReactorError::Slot { slot: live[0], message });
            }
            idle_until.iter_mut().for_each(|idle| *idle = None);
        }
        Ok(slots.iter().map(Slot::outcome).collect())
    }
}

impl SeededReactor {
    /// Lets the world outside wake a slot; waits for it a moment if nothing else can.
    fn listen(&self, slots: &[Slot], live: &[usize], wait: bool) {
        if !wait {
            return;
        }
        let prepared: Vec<&Slot> =
            live.iter().map(|&slot| &slots[slot]).filter(|slot| slot.waker().prepare_park()).collect();
        if prepared.len() == live.len() {
            let mut fds: Vec<_> = prepared.iter().map(|slot| slot.waker().poll_entry()).collect();
            poll_readable(&mut fds, Some(Duration::from_millis(10)));
        }
        for slot in prepared {
            slot.waker().drain();
            slot.waker().stay();
        }
    }
}
