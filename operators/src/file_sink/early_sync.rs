//! Making files durable while they are still written, on a thread of the process, so that little is left for the barrier.
//!
//! A file that was written for ten seconds would otherwise hold its slot for as long as the disk needs for all of it.

use std::{
    fs::File,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

use thalweg_io::checkpoint::Disk;

/// Most requests that wait for the thread; a request beyond them is left out.
const MAX_REQUESTS: usize = 64;

type Request = Box<dyn FnOnce() + Send>;

/// The way to the thread; none where it cannot be started.
fn requests() -> Option<&'static flume::Sender<Request>> {
    static REQUESTS: OnceLock<Option<flume::Sender<Request>>> = OnceLock::new();
    let start = || {
        let (sender, receiver) = flume::bounded::<Request>(MAX_REQUESTS);
        let work = move || receiver.iter().for_each(|request| request());
        thread::Builder::new().name("file-sync".into()).spawn(work).ok().map(|_| sender)
    };
    REQUESTS.get_or_init(start).as_ref()
}

/// What the thread does for one file.
#[derive(Default)]
struct State {
    busy: bool,
    /// Written by the thread: a failure is told to one call only, and the file's owner must hear of it.
    failure: Option<io::Error>,
}

/// A file that may be made durable early.
#[derive(Clone, Default)]
pub(super) struct EarlySync(Arc<(Mutex<State>, Condvar)>);

impl EarlySync {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the thread to make durable what is written by now. Answers whether it will: not where it is busy with this file.
    pub(super) fn request(&self, disk: &Arc<dyn Disk>, file: &File) -> bool {
        if self.state().busy {
            return false;
        }
        let (Some(requests), Ok(file)) = (requests(), file.try_clone()) else { return false };
        self.state().busy = true;
        let (own, disk) = (self.clone(), disk.clone());
        let request = move || {
            let result = disk.sync(&file);
            let mut state = own.state();
            state.busy = false;
            if let Err(error) = result {
                state.failure.get_or_insert(error);
            }
            drop(state);
            own.0.1.notify_all();
        };
        let sent = requests.try_send(Box::new(request)).is_ok();
        if !sent {
            self.state().busy = false;
        }
        sent
    }

    /// Waits until the thread is not busy with this file.
    ///
    /// # Errors
    /// It has failed: contents of the file may be lost, and the next one to sync it would not be told.
    pub(super) fn settle(&self) -> io::Result<()> {
        let mut state = self.state();
        while state.busy {
            state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failure.take().map_or(Ok(()), Err)
    }
}
