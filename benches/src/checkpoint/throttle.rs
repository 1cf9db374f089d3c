//! `Throttle`: lets a sink take so many records a second and no more.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thalweg::runtime::SlotWaker;

/// How often permits are made.
const TICK: Duration = Duration::from_millis(1);
/// Permits that may lie unused: what comes in so long.
const BURST_S: f64 = 0.005;

#[derive(Debug, Default)]
struct Shared {
    /// Made by the throttle's thread, taken by the sinks, which may run into debt by a batch.
    permits: AtomicI64,
    wakers: Mutex<Vec<SlotWaker>>,
    over: AtomicBool,
    open: AtomicBool,
}

/// See the module. Shared by all subtasks of the sink.
#[derive(Clone, Debug)]
pub(super) struct Permits(Arc<Shared>);

/// The thread that makes permits; ends when it is dropped.
pub(super) struct Throttle {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Throttle {
    pub(super) fn start(records_per_s: f64) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let of = shared.clone();
        let run = move || {
            let (mut last, mut owed) = (Instant::now(), 0.0);
            while !of.over.load(Relaxed) {
                std::thread::sleep(TICK);
                owed += last.elapsed().as_secs_f64() * records_per_s;
                last = Instant::now();
                let most = (records_per_s * BURST_S).max(1.0) as i64;
                let room = most - of.permits.load(Relaxed);
                let now = (owed as i64).min(room.max(0));
                owed = (owed - now as f64).min(most as f64);
                of.permits.fetch_add(now, Relaxed);
                of.wakers.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(SlotWaker::wake);
            }
        };
        let thread = std::thread::Builder::new().name("throttle".into()).spawn(run)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(super) fn permits(&self) -> Permits {
        Permits(self.shared.clone())
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.shared.over.store(true, Relaxed);
        // One that panicked has said so itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Permits {
    /// Wakes this slot when there are new ones.
    pub(super) fn wake(&self, waker: SlotWaker) {
        self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner).push(waker);
    }

    /// From now on everybody may take as much as he likes.
    pub(super) fn open(&self) {
        self.0.open.store(true, Relaxed);
    }

    #[inline]
    pub(super) fn any(&self) -> bool {
        self.0.permits.load(Relaxed) > 0 || self.0.open.load(Relaxed)
    }

    #[inline]
    pub(super) fn take(&self) {
        self.0.permits.fetch_sub(1, Relaxed);
    }
}
