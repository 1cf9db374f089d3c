//! `JobLife`: whether a job that has stopped may start again, for what outlives an attempt: queues into and out of it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

type AtEnd = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    held: bool,
    at_end: Vec<AtEnd>,
}

/// The life of a job over all its attempts. Clones are the same life.
///
/// Unless it is held, a life ends with the first attempt. Whoever restarts jobs holds it before the first attempt, and ends
/// it after the last.
#[derive(Clone, Default)]
pub struct JobLife(Arc<Mutex<State>>);

impl fmt::Debug for JobLife {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobLife").field("held", &self.state().held).finish_non_exhaustive()
    }
}

impl JobLife {
    /// From now on, attempts may follow one another.
    pub fn hold(&self) {
        self.state().held = true;
    }

    /// There will be no more attempts.
    pub fn end(&self) {
        let at_end = {
            let mut state = self.state();
            state.held = false;
            std::mem::take(&mut state.at_end)
        };
        at_end.into_iter().for_each(|call| call());
    }

    /// Calls a function when there will be no more attempts; at once where the life is not held.
    pub fn at_end(&self, call: impl FnOnce() + Send + 'static) {
        let mut state = self.state();
        if state.held {
            state.at_end.push(Box::new(call));
            return;
        }
        drop(state);
        call();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    #[test]
    fn when_a_life_is_held_then_its_end_is_heard_once_at_the_end() {
        let (life, heard) = (JobLife::default(), Arc::new(AtomicU32::new(0)));
        let hear = || {
            let heard = heard.clone();
            life.at_end(move || {
                heard.fetch_add(1, Relaxed);
            });
        };
        hear();
        assert_eq!(heard.load(Relaxed), 1);
        life.hold();
        hear();
        hear();
        assert_eq!(heard.load(Relaxed), 1);
        life.end();
        life.end();
        assert_eq!(heard.load(Relaxed), 3);
    }
}
