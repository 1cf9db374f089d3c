//! Which cores slots leave over: there run the threads that serve slots without being one.
//!
//! A thread inherits the cores of the one that starts it, and so do the kernel's threads behind a ring. What a pinned slot
//! starts would therefore take turns with it on its one core, while others idle: a direct write holds up a slot's records
//! for 20 to 200 µs. The reactor says here which cores it pins slots to; threads of writers and sinks ask.
//!
//! Owns the process's list of slots' cores, since cores belong to no job alone, and the system calls that keep threads to
//! a set of them. Never pins a slot: the reactor does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What the process knows of its cores.
#[derive(Debug, Default)]
struct Cores {
    available: BTreeSet<usize>,
    /// How many slots are pinned to each core.
    slots: BTreeMap<usize, usize>,
}

impl Cores {
    const fn new() -> Self {
        Self { available: BTreeSet::new(), slots: BTreeMap::new() }
    }

    fn hold(&mut self, available: &[usize], slots: &[usize]) {
        self.available.extend(available);
        for &core in slots {
            *self.slots.entry(core).or_default() += 1;
        }
    }

    fn release(&mut self, slots: &[usize]) {
        for core in slots {
            if let Some(count) = self.slots.get_mut(core) {
                *count -= 1;
                if *count == 0 {
                    self.slots.remove(core);
                }
            }
        }
    }

    /// The cores that no slot is pinned to; none where no slot has ever been pinned.
    fn spare(&self) -> Vec<usize> {
        let free: Vec<usize> = self.available.iter().copied().filter(|core| !self.slots.contains_key(core)).collect();
        // Where slots are everywhere, whichever of them rests makes room.
        if free.is_empty() { self.available.iter().copied().collect() } else { free }
    }
}

static CORES: Mutex<Cores> = Mutex::new(Cores::new());

fn cores() -> MutexGuard<'static, Cores> {
    CORES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says that slots are pinned to cores, for as long as it lives.
#[derive(Debug)]
pub struct SlotCores(Vec<usize>);

impl SlotCores {
    /// `slots` is the core of each slot, of the `available` ones, which are those that the process may use.
    pub fn hold(available: &[usize], slots: Vec<usize>) -> Self {
        cores().hold(available, &slots);
        Self(slots)
    }
}

impl Drop for SlotCores {
    fn drop(&mut self) {
        cores().release(&self.0);
    }
}

/// Cores as the kernel wants them. `None` where it would take none of them.
fn set_of(cores: &[usize]) -> Option<libc::cpu_set_t> {
    let known = |core: &&usize| **core < libc::CPU_SETSIZE as usize;
    cores.iter().find(known)?;
    // SAFETY: the set is plain bits, of which none set is the empty set, and all that are set lie within it.
    Some(unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        cores.iter().filter(known).for_each(|core| libc::CPU_SET(*core, &mut set));
        set
    })
}

/// The spare cores as the kernel wants them. `None` where there is nothing to say.
pub(crate) fn spare_set() -> Option<libc::cpu_set_t> {
    set_of(&cores().spare())
}

/// Moves the calling thread, which a slot may have started, to the spare cores. Only a matter of speed: where the system
/// refuses, the thread stays where it is.
pub fn run_on_spare_cores() {
    let spare = cores().spare();
    run_on(&spare);
}

/// Moves the calling thread.
pub(crate) fn run_on(cores: &[usize]) {
    if let Some(set) = set_of(cores) {
        // SAFETY: the set is as long as is said, and only read.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    }
}

/// Where the calling thread may run.
#[cfg(test)]
pub(crate) fn of_thread() -> Vec<usize> {
    of_task(0)
}

/// Where a thread of this process may run; 0 is the calling one. Nowhere, if it has ended.
#[cfg(test)]
pub(crate) fn of_task(id: libc::pid_t) -> Vec<usize> {
    // SAFETY: the set is plain bits, as long as is said, and filled by the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(id, size_of::<libc::cpu_set_t>(), &raw mut set);
        (0..libc::CPU_SETSIZE as usize).filter(|&core| libc::CPU_ISSET(core, &set)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_slots_take_some_cores_then_the_others_are_spare_until_they_let_go() {
        let mut cores = Cores::new();
        assert!(cores.spare().is_empty());
        cores.hold(&[0, 1, 2, 3], &[1, 2]);
        cores.hold(&[0, 1, 2, 3], &[2]);
        assert_eq!(cores.spare(), [0, 3]);
        cores.release(&[1, 2]);
        assert_eq!(cores.spare(), [0, 1, 3]);
        cores.release(&[2]);
        assert_eq!(cores.spare(), [0, 1, 2, 3]);
    }

    #[test]
    fn when_a_pinned_thread_starts_another_then_that_can_leave_its_core() {
        let available = of_thread();
        let own = available[0];
        let _held = SlotCores::hold(&available, vec![own]);
        let cores = std::thread::spawn(move || {
            run_on(&[own]);
            std::thread::spawn(|| {
                let inherited = of_thread();
                run_on_spare_cores();
                (inherited, of_thread())
            })
            .join()
        });
        let (inherited, cores) = cores.join().unwrap().unwrap();
        assert_eq!(inherited, [own]);
        assert!(
            cores.len() == available.len().max(2) - 1 && (!cores.contains(&own) || available.len() == 1),
            "{cores:?}"
        );
    }

    #[test]
    fn when_slots_are_on_every_core_then_all_are_as_good_as_spare() {
        let mut cores = Cores::new();
        cores.hold(&[4, 5], &[5, 4, 4]);
        assert_eq!(cores.spare(), [4, 5]);
    }
}
