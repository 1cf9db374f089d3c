//! Serves the metrics of this process to Prometheus: `GET /metrics` on 127.0.0.1.
//!
//! Runs on a thread of its own and never on a slot's core by choice: start it before slots pin themselves. It reads the
//! registry and writes nothing but process metrics into it.

mod exposition;
mod process;

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use thalweg_model::metrics::MetricRegistry;
use tokio::sync::oneshot;

use crate::server_thread::{NotStarted, ServerThread};
pub use exposition::{CONTENT_TYPE, render};
use process::ProcessMetrics;

/// How often rates take note of their counters.
const TICK: Duration = Duration::from_secs(1);

/// What kept the server from starting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsServerError {
    /// Somebody else listens there.
    #[error("port {port} on 127.0.0.1 is in use: give another one with --metrics-port, or 0 for a free one")]
    PortInUse {
        /// The port.
        port: u16,
    },
    /// The port cannot be had for another reason, such as missing rights.
    #[error("cannot listen on 127.0.0.1:{port}: {source}; give another port with --metrics-port, or 0 for a free one")]
    Listen {
        /// The port.
        port: u16,
        /// The system's answer.
        source: io::Error,
    },
    /// The server's thread could not be made.
    #[error("cannot start the thread of the metrics server: {source}")]
    Thread {
        /// The system's answer.
        source: io::Error,
    },
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct MetricsServer {
    thread: ServerThread,
}

struct Served {
    registry: MetricRegistry,
    process: ProcessMetrics,
    started: Instant,
}

impl Served {
    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

impl MetricsServer {
    /// Serves `registry` on 127.0.0.1 and `port`, 0 for a free one. Adds the metrics of this process to it.
    ///
    /// # Errors
    /// Where the port is in use or may not be used, or no thread can be made.
    pub fn start(port: u16, registry: MetricRegistry) -> Result<Self, MetricsServerError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => MetricsServerError::PortInUse { port },
            _ => MetricsServerError::Listen { port, source },
        })?;
        let process = ProcessMetrics::new(&registry);
        let served = Arc::new(Served { registry, process, started: Instant::now() });
        let thread = ServerThread::start("metrics", listener, |listener, stopped| serve(listener, served, stopped));
        let thread = thread.map_err(|reason| match reason {
            NotStarted::Listen(source) => MetricsServerError::Listen { port, source },
            NotStarted::Thread(source) => MetricsServerError::Thread { source },
        })?;
        Ok(Self { thread })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.thread.address().port()
    }

    /// Where to read the metrics.
    pub fn url(&self) -> String {
        format!("http://{}/metrics", self.thread.address())
    }
}

async fn serve(listener: tokio::net::TcpListener, served: Arc<Served>, stopped: oneshot::Receiver<()>) {
    let app = Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .fallback(missing)
        .with_state(Arc::clone(&served));
    let ticker = async {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            interval.tick().await;
            served.process.update_cpu();
            served.registry.tick(served.now_ms());
        }
    };
    // Open connections are cut, not waited for: a scraper that keeps one alive must not hold up the end of the process.
    tokio::select! {
        result = axum::serve(listener, app) => {
            if let Err(error) = result {
                eprintln!("warning: the metrics server ended: {error}");
            }
        }
        () = ticker => {}
        _ = stopped => {}
    }
}

async fn index() -> Response {
    const PAGE: &str = "Thalweg. Metrics in Prometheus' text format are at /metrics.\n";
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Bytes::from_static(PAGE.as_bytes())).into_response()
}

async fn metrics(State(served): State<Arc<Served>>) -> Response {
    served.process.update();
    match render(&served.registry, served.now_ms()) {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], Bytes::from(text)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, Bytes::from(format!("{error}\n"))).into_response(),
    }
}

async fn missing() -> Response {
    (StatusCode::NOT_FOUND, Bytes::from_static(b"There is nothing here. Metrics are at /metrics.\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    fn ask(port: u16, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    #[test]
    fn when_scraped_then_the_metrics_of_the_process_are_there() {
        let registry = MetricRegistry::default();
        registry.task_manager().counter("probe").set(42);
        let server = MetricsServer::start(0, registry).unwrap();
        assert_ne!(server.port(), 0);
        let (head, body) = ask(server.port(), "/metrics");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        exposition::parser::check(&body);
        assert!(
            body.contains("flink_taskmanager_probe{host=\"localhost\",tm_id=\"localhost:embedded\"} 42\n"),
            "{body}"
        );
        for name in ["Memory_Heap_Used", "Threads_Count", "FileDescriptor_Open", "FileDescriptor_Max", "CPU_Time"] {
            let start = format!("flink_taskmanager_Status_JVM_{name}{{");
            let line = body.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no {name}"));
            let value: f64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
            assert!(value > 0.0 || name == "CPU_Time", "{line}");
        }
        assert!(ask(server.port(), "/").1.contains("/metrics"));
        assert!(ask(server.port(), "/elsewhere").0.starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn when_the_port_is_in_use_then_the_error_names_it_and_the_flag() {
        let first = MetricsServer::start(0, MetricRegistry::default()).unwrap();
        let message = MetricsServer::start(first.port(), MetricRegistry::default()).unwrap_err().to_string();
        assert!(message.contains(&first.port().to_string()) && message.contains("--metrics-port"), "{message}");
    }

    #[test]
    fn when_dropped_with_a_connection_open_then_the_port_is_free_at_once() {
        let server = MetricsServer::start(0, MetricRegistry::default()).unwrap();
        let _open = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
        let port = server.port();
        drop(server);
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    }
}
