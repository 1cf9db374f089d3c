//! How much of the machine the process uses.

use std::time::{Duration, Instant};

/// The processor time that this process has used so far, all threads, user and system.
pub fn cpu_time() -> Duration {
    // SAFETY: `getrusage` fills the struct it is given; all zeros are a value of it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let of = |time: libc::timeval| Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64);
    of(usage.ru_utime) + of(usage.ru_stime)
}

/// Processor time and wall time from a moment on.
#[derive(Clone, Copy, Debug)]
pub struct CpuMeter {
    cpu: Duration,
    wall: Instant,
}

impl CpuMeter {
    /// From now on.
    pub fn start() -> Self {
        Self { cpu: cpu_time(), wall: Instant::now() }
    }

    /// Cores used since: processor time over wall time.
    pub fn cores(&self) -> f64 {
        (cpu_time() - self.cpu).as_secs_f64() / self.wall.elapsed().as_secs_f64().max(1e-9)
    }
}
