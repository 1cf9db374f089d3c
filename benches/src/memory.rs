//! What the system says of this process: its largest memory in a stretch of time, and its age.

use std::{fs, time::Duration};

/// The largest resident memory of this process since a moment.
#[derive(Debug)]
pub struct PeakMemory {
    reset: bool,
}

impl PeakMemory {
    /// Starts anew. Where the system does not allow that, [`mib`](Self::mib) has no answer.
    pub fn reset() -> Self {
        Self { reset: fs::write("/proc/self/clear_refs", "5").is_ok() }
    }

    /// The largest resident memory since the reset, in MiB.
    pub fn mib(&self) -> Option<f64> {
        let status = fs::read_to_string("/proc/self/status").ok().filter(|_| self.reset)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.split_whitespace().next()?.parse::<f64>().ok().map(|kib| kib / 1024.0)
    }
}

/// How long this process has existed, to the hundredth of a second.
pub fn process_age() -> Option<Duration> {
    const TICKS_PER_S: f64 = 100.0;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name, in brackets, may hold blanks; the start is the 20th field after it.
    let started = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse::<f64>().ok()? / TICKS_PER_S;
    let uptime = fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse::<f64>().ok()?;
    Duration::try_from_secs_f64(uptime - started).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Other tests take and give back memory of this process meanwhile, a few MiB: far less than is used here.
    #[test]
    fn when_memory_is_used_and_given_back_then_its_peak_is_remembered_until_the_next_reset() {
        const USED_MIB: usize = 256;
        let peak = PeakMemory::reset();
        drop(std::hint::black_box(vec![1u8; USED_MIB << 20]));
        let Some(after) = peak.mib() else { return };
        assert!(after >= USED_MIB as f64, "{after} MiB");
        let anew = PeakMemory::reset().mib().unwrap();
        assert!(anew < USED_MIB as f64, "{anew} MiB after a reset");
    }

    #[test]
    fn when_asked_for_its_age_then_the_process_is_young() {
        assert!(process_age().is_none_or(|age| age < Duration::from_secs(600)));
    }
}
