//! `RestServer`: answers Flink's REST requests about the jobs of this process, as far as they mean something here.
//!
//! What clients send and get is Flink's: the paths, bare and below `/v1`, the names of fields, operations that are
//! triggered and then asked for, and the form of errors. Served: `GET /jobs`, `/jobs/overview` and
//! `/jobs/:jobid/checkpoints`; `POST /jobs/:jobid/savepoints`, `/checkpoints` and `/stop` with the `GET` that asks what
//! has become of each; `PATCH /jobs/:jobid?mode=cancel`.
//!
//! Runs on a thread of its own, beside the metrics server, and asks the job master like any other caller. There is
//! no password, so pages of other origins that a browser shows are refused, and no reply carries
//! `Access-Control-Allow-Origin`.

mod operations;
mod reply;
mod requests;
mod routes;
mod statistics;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    cluster::JobClient,
    server_thread::{NotStarted, ServerThread},
};
use operations::{AWAITED, Operations};

/// The interface that is listened on unless another is given: this machine only.
pub const LOOPBACK: &str = "127.0.0.1";
/// How long connections may take to be ended in order when the server ends.
const PARTING: Duration = Duration::from_secs(1);
/// Between two looks at whether results have been fetched.
const LOOK: Duration = Duration::from_millis(5);

/// What kept the server from starting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestServerError {
    /// Somebody else listens there.
    #[error(
        "port {port} on {host} is in use: give the REST interface another one with --rest-port (rest.port), or 0 for a \
         free one"
    )]
    PortInUse {
        /// The interface.
        host: String,
        /// The port.
        port: u16,
    },
    /// The port cannot be had for another reason, such as missing rights or an interface that is none of this machine.
    #[error(
        "cannot listen on {host}:{port}: {source}; give the REST interface another port with --rest-port (rest.port), or \
         another rest.bind-address"
    )]
    Listen {
        /// The interface.
        host: String,
        /// The port.
        port: u16,
        /// The system's answer.
        source: io::Error,
    },
    /// The server's thread could not be made.
    #[error("cannot start the thread of the REST interface: {source}")]
    Thread {
        /// The system's answer.
        source: io::Error,
    },
}

/// What requests are about.
struct Served {
    /// The jobs of this process, in the order in which they were started.
    jobs: Mutex<Vec<JobClient>>,
    operations: Operations,
}

impl Served {
    fn jobs(&self) -> MutexGuard<'_, Vec<JobClient>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running server. Dropping it ends it at once.
pub struct RestServer {
    served: Arc<Served>,
    thread: ServerThread,
}

impl RestServer {
    /// Listens on the interface that `host` names, [`LOOPBACK`] for this machine only, and on `port`, 0 for a free one.
    /// There is no authentication: whoever reaches the port controls the jobs.
    ///
    /// # Errors
    /// Where the port is in use or may not be used, or no thread can be made.
    pub fn start(host: &str, port: u16) -> Result<Self, RestServerError> {
        let listener = TcpListener::bind((host, port)).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => RestServerError::PortInUse { host: host.to_owned(), port },
            _ => RestServerError::Listen { host: host.to_owned(), port, source },
        })?;
        let served = Arc::new(Served { jobs: Mutex::default(), operations: Operations::default() });
        let router = routes::router(served.clone());
        let thread = ServerThread::start("rest", listener, |listener, stopped| serve(listener, router, stopped));
        let thread = thread.map_err(|reason| match reason {
            NotStarted::Listen(source) => RestServerError::Listen { host: host.to_owned(), port, source },
            NotStarted::Thread(source) => RestServerError::Thread { source },
        })?;
        Ok(Self { served, thread })
    }

    /// Answers requests about one more job, also once it has ended.
    pub fn add(&self, job: JobClient) {
        self.served.jobs().push(job);
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.thread.address()
    }

    /// Where to send requests.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Ends the server once whoever has stopped a job, or taken a last savepoint of it, has been told how that went.
    /// To be called when the jobs have ended. Waits a few seconds at most.
    pub fn finish(self) {
        let began = Instant::now();
        while self.served.operations.is_result_awaited() && began.elapsed() < AWAITED {
            std::thread::sleep(LOOK);
        }
    }
}

async fn serve(listener: tokio::net::TcpListener, router: axum::Router, stopped: oneshot::Receiver<()>) {
    let (part, parting) = oneshot::channel::<()>();
    let server = axum::serve(listener, router).with_graceful_shutdown(async {
        let _ = parting.await;
    });
    // Replies that are being written are finished; a client that keeps its connection open must not hold up the end.
    let ended = async {
        let _ = stopped.await;
        drop(part);
        tokio::time::sleep(PARTING).await;
    };
    tokio::select! {
        result = server => {
            if let Err(error) = result {
                tracing::warn!("the REST interface ended: {error}");
            }
        }
        () = ended => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_the_port_is_in_use_then_the_error_names_it_and_the_flag() {
        let first = RestServer::start(LOOPBACK, 0).unwrap();
        let port = first.address().port();
        let message = RestServer::start(LOOPBACK, port).err().unwrap().to_string();
        assert!(message.contains(&port.to_string()) && message.contains("--rest-port"), "{message}");
        let message = RestServer::start("no such host", 0).err().unwrap().to_string();
        assert!(message.contains("rest.bind-address"), "{message}");
    }

    #[test]
    fn when_dropped_with_a_connection_open_then_the_port_is_free_soon() {
        let server = RestServer::start(LOOPBACK, 0).unwrap();
        let address = server.address();
        let _open = std::net::TcpStream::connect(address).unwrap();
        server.finish();
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}
