//! Signals that end a job in order: `SIGINT` (Ctrl-C) and `SIGTERM`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use signal_hook::consts::{SIGINT, SIGTERM};
use thalweg_runtime::JobReport;

use super::CANCELLED_STATUS;
use crate::{Environment, Error};

/// How often somebody looks for a signal.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Whether a signal has asked for the end. The default is one that no signal sets.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on `SIGINT` and `SIGTERM` set it, and no longer end the process; the second one does so at once, with
    /// [`CANCELLED_STATUS`].
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> Result<Self, Error> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // The order matters: the second signal finds the flag set by the first.
            signal_hook::flag::register_conditional_shutdown(signal, CANCELLED_STATUS.into(), interrupt.0.clone())
                .and_then(|_| signal_hook::flag::register(signal, interrupt.0.clone()))
                .map_err(|error| Error::Other(format!("cannot handle signal {signal}: {error}")))?;
        }
        Ok(interrupt)
    }

    /// Whether a signal has come.
    pub fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// Runs the job to its end as [`Environment::execute`] does, and cancels it when a signal comes.
    ///
    /// # Errors
    /// As [`Environment::execute`].
    pub fn execute(&self, env: &Environment) -> Result<JobReport, Error> {
        let job = env.execute_async()?;
        let (client, interrupt) = (job.control(), self.clone());
        let (running, ended) = mpsc::channel::<()>();
        let watch = move || {
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                if interrupt.is_set() {
                    client.cancel();
                    break;
                }
            }
        };
        // Without a thread the job runs unwatched, which is better than not at all.
        let watcher = std::thread::Builder::new().name("signals".into()).spawn(watch).ok();
        let result = job.wait();
        drop(running);
        // One that panicked has said so itself.
        let _ = watcher.map(std::thread::JoinHandle::join);
        let report = result?;
        env.finished(&report);
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use thalweg_runtime::JobError;

    use super::*;

    #[test]
    fn when_interrupted_then_the_job_is_cancelled_and_otherwise_it_runs_to_its_end() {
        let run = |count, interrupt: &Interrupt| {
            let env = Environment::new();
            env.parallelism(1);
            let (sink, seen) = crate::sink::discard();
            env.generate(count, |n| n).sink(sink);
            interrupt.execute(&env).map(|_| seen.get())
        };
        let interrupt = Interrupt::default();
        assert_eq!(run(1_000, &interrupt).unwrap(), 1_000);
        interrupt.0.store(true, Relaxed);
        assert!(matches!(run(u64::MAX, &interrupt), Err(Error::Job(JobError::Cancelled))));
    }
}
