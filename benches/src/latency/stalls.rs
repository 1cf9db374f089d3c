//! `Stalls`: how often a thread did not come round for how long.

use std::time::{Duration, Instant};

/// Lengths that are counted, in microseconds: each stall counts for all that it exceeds.
pub const STALL_US: [u64; 12] = [20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000];

/// How many gaps there were above each of [`STALL_US`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stalls {
    /// By length.
    pub over: [u64; STALL_US.len()],
    /// The longest, in nanoseconds.
    pub max_ns: u64,
}

impl Stalls {
    /// Counts a gap.
    #[inline(always)]
    pub fn note(&mut self, gap_ns: u64) {
        self.max_ns = self.max_ns.max(gap_ns);
        if gap_ns > STALL_US[0] * 1_000 {
            self.count(gap_ns);
        }
    }

    #[cold]
    fn count(&mut self, gap_ns: u64) {
        for (count, over_us) in self.over.iter_mut().zip(STALL_US) {
            *count += u64::from(gap_ns > over_us * 1_000);
        }
    }

    /// Takes in those of another thread, or of another run.
    pub fn add(&mut self, other: &Self) {
        self.over.iter_mut().zip(other.over).for_each(|(own, other)| *own += other);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// How many were above a millisecond.
    pub fn over_1ms(&self) -> u64 {
        STALL_US.iter().position(|&us| us == 1_000).map_or(0, |at| self.over[at])
    }
}

/// Gaps between the calls of something that a slot does each turn; beside them, what is left of each once the time is
/// taken off in which the system had given the core to somebody else.
///
/// A thread that has given its core away itself, as one does that waits in the kernel for a lock or for the disk, has only
/// itself to blame: such a gap is its own, all of it.
#[derive(Debug)]
pub(crate) struct StallMeter {
    /// The last call.
    last: Option<Instant>,
    /// At most [`SAMPLE_NS`] before the last call.
    sample: Option<Sample>,
    pub(crate) all: Stalls,
    pub(crate) own: Stalls,
}

/// What a thread had had at some moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    /// Its processor time.
    cpu: Duration,
    /// How often it had begun to wait of its own accord.
    waits: i64,
}

/// How often the thread's processor time is asked for: two system calls.
const SAMPLE_NS: u64 = 100_000;
/// From this length on it is asked for what was the thread's own.
const ASK_NS: u64 = 100_000;

impl StallMeter {
    pub(crate) fn new() -> Self {
        Self { last: None, sample: None, all: Stalls::default(), own: Stalls::default() }
    }

    /// A call comes.
    #[inline(always)]
    pub(crate) fn called(&mut self, now: Instant) {
        if let Some(last) = self.last {
            let gap_ns = now.saturating_duration_since(last).as_nanos() as u64;
            self.all.note(gap_ns);
            let own_ns = if gap_ns > ASK_NS { self.own_of(gap_ns, now) } else { gap_ns };
            self.own.note(own_ns);
        }
        self.last = Some(now);
        let due = |sample: &Sample| now.saturating_duration_since(sample.at).as_nanos() as u64 > SAMPLE_NS;
        if self.sample.as_ref().is_none_or(due) {
            self.sample = Some(Sample::take(now));
        }
    }

    #[cold]
    fn own_of(&self, gap_ns: u64, now: Instant) -> u64 {
        let Some(before) = self.sample else { return gap_ns };
        let after = Sample::take(now);
        if after.waits > before.waits {
            return gap_ns;
        }
        let wall = now.saturating_duration_since(before.at);
        let away = wall.saturating_sub(after.cpu.saturating_sub(before.cpu));
        gap_ns.saturating_sub(away.as_nanos() as u64)
    }
}

impl Sample {
    /// Of the calling thread.
    fn take(at: Instant) -> Self {
        // SAFETY: all zeroes is a value of this struct of numbers.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: `getrusage` fills the struct it is given.
        unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
        Self { at, cpu: thread_cpu_time(), waits: usage.ru_nvcsw }
    }
}

/// The processor time that the calling thread has used.
fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `clock_gettime` fills the struct it is given.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_gaps_are_noted_then_each_counts_for_all_it_exceeds() {
        let mut stalls = Stalls::default();
        [10_000, 60_000, 1_500_000].into_iter().for_each(|ns| stalls.note(ns));
        assert_eq!(stalls.over[..7], [2, 2, 1, 1, 1, 1, 0]);
        assert_eq!((stalls.over_1ms(), stalls.max_ns), (1, 1_500_000));
    }

    #[test]
    fn when_a_thread_waits_then_the_stall_is_its_own() {
        let mut meter = StallMeter::new();
        meter.called(Instant::now());
        std::thread::sleep(Duration::from_millis(20));
        meter.called(Instant::now());
        assert!(meter.own.max_ns >= 20_000_000, "{meter:?}");
    }

    #[test]
    fn when_a_thread_did_not_get_its_core_then_the_stall_is_not_its_own() {
        let mut meter = StallMeter::new();
        let now = Instant::now();
        meter.called(now);
        // As if 20 ms had gone by, of which the thread had a few microseconds.
        meter.called(now + Duration::from_millis(20));
        assert!(meter.all.max_ns >= 20_000_000 && meter.own.max_ns < 20_000_000, "{meter:?}");
    }

    #[test]
    fn when_a_thread_works_then_the_stall_is_its_own() {
        let mut meter = StallMeter::new();
        meter.called(Instant::now());
        let from = thread_cpu_time();
        while thread_cpu_time() - from < Duration::from_millis(5) {}
        meter.called(Instant::now());
        assert!(meter.own.max_ns >= 4_900_000, "{meter:?}");
    }
}
