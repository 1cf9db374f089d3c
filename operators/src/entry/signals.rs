//! Signals that end a job in order: `SIGINT` (Ctrl-C) and `SIGTERM`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use signal_hook::{
    SigId,
    consts::{SIGINT, SIGTERM},
};

use super::CANCELLED_STATUS;
use crate::Error;

/// How often somebody looks for a signal.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Whether a signal has asked for the end. The default is one that no signal sets.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
    /// Until the last clone goes.
    _handlers: Option<Arc<Handlers>>,
}

#[derive(Debug, Default)]
struct Handlers(Vec<SigId>);

impl Drop for Handlers {
    /// What the process listens with next has a flag of its own.
    fn drop(&mut self) {
        for handler in self.0.drain(..) {
            signal_hook::low_level::unregister(handler);
        }
    }
}

impl Interrupt {
    /// From now on, and as long as this or a clone of it is there, `SIGINT` and `SIGTERM` set it, and no longer end the
    /// process; the second one does so at once, with [`CANCELLED_STATUS`].
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen() -> Result<Self, Error> {
        let flag = Arc::<AtomicBool>::default();
        let mut handlers = Handlers::default();
        for signal in [SIGINT, SIGTERM] {
            let refused = |error| Error::Other(format!("cannot handle signal {signal}: {error}"));
            // The order matters: the second signal finds the flag set by the first.
            let end = signal_hook::flag::register_conditional_shutdown(signal, CANCELLED_STATUS.into(), flag.clone());
            handlers.0.push(end.map_err(refused)?);
            handlers.0.push(signal_hook::flag::register(signal, flag.clone()).map_err(refused)?);
        }
        Ok(Self { flag, _handlers: Some(Arc::new(handlers)) })
    }

    /// Whether a signal has come.
    pub fn is_set(&self) -> bool {
        self.flag.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use thalweg_runtime::JobError;

    use super::*;
    use crate::{
        Environment,
        entry::{Progress, run_attended},
    };

    #[test]
    fn when_interrupted_then_the_job_is_cancelled_and_otherwise_it_runs_to_its_end() {
        let run = |count, interrupt: &Interrupt| {
            let env = Environment::new();
            env.parallelism(1);
            let (sink, seen) = crate::sink::discard();
            env.generate(count, |n| n).sink(sink);
            run_attended(&env, Progress::Hidden, interrupt).map(|_| seen.get())
        };
        let interrupt = Interrupt::default();
        assert_eq!(run(1_000, &interrupt).unwrap(), 1_000);
        interrupt.flag.store(true, Relaxed);
        assert!(matches!(run(u64::MAX, &interrupt), Err(Error::Job(JobError::Cancelled))));
    }
}
