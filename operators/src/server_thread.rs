//! `ServerThread`: a thread of its own that answers requests over HTTP until it is dropped.
//!
//! Owns what every such server needs around its answers: the listener, an async runtime, and the way to end both. It
//! must never run on a slot's thread.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    thread::JoinHandle,
};

use tokio::sync::oneshot;

/// What kept a server from starting.
#[derive(Debug)]
pub(crate) enum NotStarted {
    /// The system does not let it listen.
    Listen(io::Error),
    /// Its thread could not be made.
    Thread(io::Error),
}

/// See the module. Dropping it tells the server to end, and waits until it has.
#[derive(Debug)]
pub(crate) struct ServerThread {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ServerThread {
    /// Starts a thread of this name in which `serve` answers what comes to `listener`, until it is told to stop.
    pub(crate) fn start<F: Future<Output = ()>>(
        name: &str,
        listener: TcpListener,
        serve: impl FnOnce(tokio::net::TcpListener, oneshot::Receiver<()>) -> F + Send + 'static,
    ) -> Result<Self, NotStarted> {
        listener.set_nonblocking(true).map_err(NotStarted::Listen)?;
        let address = listener.local_addr().map_err(NotStarted::Listen)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(NotStarted::Thread)?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(NotStarted::Listen)?
        };
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            runtime.block_on(serve(listener, stopped));
            // What still blocks, such as waiting for a snapshot, ends with the job, which may go on.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(NotStarted::Thread)?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }

    /// The address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for ServerThread {
    fn drop(&mut self) {
        // Whether the thread still listens does not matter: either way it ends.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
