//! Time: of the thread's processor, so that a shared machine shows less, and of the wall; and a probe that shows how
//! often this thread is held up by others.

use std::{hint::black_box, time::Duration};

/// Keeps this thread on the processor it is on.
pub fn pin() {
    // SAFETY: the calls read and write the set that they are given, which plain zeros make an empty one.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu().max(0) as usize, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

/// Processor time of this thread.
pub fn busy() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes the time it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Work of a known length that touches no memory: whatever it takes longer is not this program's doing.
pub fn probe(times: &mut Times) {
    let start = busy();
    let mut state = black_box(1u64);
    for _ in 0..3000 {
        state = black_box(state.wrapping_mul(6364136223846793005).wrapping_add(1));
    }
    black_box(state);
    times.add(busy() - start);
}

/// How long something took, each time.
#[derive(Default)]
pub struct Times(Vec<u32>);

impl Times {
    pub fn add(&mut self, took: Duration) {
        self.0.push(took.as_nanos() as u32);
    }

    /// Median, 99 %, 99.99 % and the longest, in microseconds.
    pub fn show(&mut self) -> String {
        self.0.sort_unstable();
        let at = |part: f64| {
            let index = ((self.0.len() as f64 * part) as usize).min(self.0.len().saturating_sub(1));
            self.0.get(index).copied().unwrap_or(0) as f64 / 1e3
        };
        format!("{:.1} / {:.1} / {:.1} / {:.1}", at(0.5), at(0.99), at(0.9999), at(1.0))
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }
}
