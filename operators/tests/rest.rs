//! The REST interface as Flink's clients use it: paths, fields, operations and errors, over a plain connection.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use thalweg::{
    cluster::JobState,
    prelude::*,
    rest::{LOOPBACK, RestServer},
    runtime::JobError,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Sends a request; answers status and body.
fn send(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, Value) {
    send_with(address, method, path, "", body)
}

/// As `send`, with more lines in the head.
fn send_with(address: SocketAddr, method: &str, path: &str, more: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: job\r\nConnection: close\r\n{more}Content-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("application/json; charset=UTF-8"), "{head}");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

/// A job that runs, and the server that answers for it.
struct Served {
    server: RestServer,
    job: JobHandle,
    id: String,
}

impl Served {
    fn start(dir: &Path, change: impl FnOnce(&Environment)) -> Self {
        let env = Environment::new();
        env.job_name("served").parallelism(2).configure_runtime(|config| config.oversubscribe = true);
        let checkpoints = dir.join("checkpoints").display().to_string();
        env.checkpoint_config(|options| options.checkpoint_dir = Some(checkpoints));
        change(&env);
        env.generate_at_rate(u64::MAX / 4, 2_000.0, |n| n % 7)
            .key_by(|n| n)
            .aggregate(Count, |_, n| n)
            .sink(discard().0);
        let server = RestServer::start(LOOPBACK, 0).unwrap();
        let job = env.execute_async().unwrap();
        server.add(job.control());
        let id = job.control().id().to_string();
        let served = Self { server, job, id };
        // Until all tasks run no checkpoint can be taken.
        served.until("checkpoint", || served.job.trigger_checkpoint().wait().ok());
        served
    }

    fn send(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        send(self.server.address(), method, &path.replace("ID", &self.id), body)
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, "")
    }

    fn until<T>(&self, what: &str, mut reached: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(reached) = reached() {
                return reached;
            }
            assert!(began.elapsed() < PATIENCE, "no {what} within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Triggers something and waits for its result.
    fn operation(&self, path: &str, body: &str, status: &str) -> Value {
        let (code, reply) = self.send("POST", path, body);
        let id = reply["request-id"].as_str().unwrap_or_else(|| panic!("{code}: {reply}"));
        assert!(code == 202 && id.len() == 32, "{code}: {reply}");
        self.until("result", || {
            let (code, reply) = self.get(&format!("{status}/{id}"));
            assert_eq!(code, 200, "{reply}");
            match reply["status"]["id"].as_str().unwrap() {
                "IN_PROGRESS" => {
                    assert_eq!(reply["operation"], Value::Null);
                    None
                }
                other => {
                    assert_eq!(other, "COMPLETED");
                    Some(reply["operation"].clone())
                }
            }
        })
    }
}

#[test]
fn when_jobs_are_asked_for_then_both_forms_of_the_paths_show_them() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path(), |_| ());
    let expected = json!({ "jobs": [{ "id": served.id, "status": "RUNNING" }] });
    for path in ["/jobs", "/v1/jobs"] {
        assert_eq!(served.get(path), (200, expected.clone()));
    }
    let (status, overview) = served.get("/v1/jobs/overview");
    let job = &overview["jobs"][0];
    assert!(status == 200 && job["jid"] == served.id && job["name"] == "served" && job["state"] == "RUNNING", "{job}");
    assert!(job["end-time"] == -1 && job["start-time"].as_u64() > Some(1_600_000_000_000), "{job}");
    assert!(job["tasks"]["total"].as_u64() > Some(0) && job["tasks"]["running"] == job["tasks"]["total"], "{job}");
    assert_eq!(job["tasks"].as_object().unwrap().len(), 11);

    let (_, checkpoints) = served.get("/jobs/ID/checkpoints");
    assert_eq!(checkpoints["counts"]["completed"], 1, "{checkpoints}");
    let latest = &checkpoints["latest"]["completed"];
    assert!(latest["className"] == "completed" && latest["checkpoint_type"] == "CHECKPOINT", "{latest}");
    let path = latest["external_path"].as_str().unwrap();
    assert!(Path::new(path).join("_metadata").exists(), "{path}");
    assert_eq!(
        checkpoints["history"].as_array().unwrap().len(),
        checkpoints["counts"]["total"].as_u64().unwrap() as usize
    );
    assert!(checkpoints["summary"]["end_to_end_duration"]["p99"].is_f64(), "{checkpoints}");

    assert_eq!(served.send("PATCH", "/jobs/ID?mode=cancel", ""), (202, json!({})));
    let (server, client) = (served.server, served.job.control());
    assert!(matches!(served.job.wait(), Err(Error::Job(JobError::Cancelled))));
    assert_eq!(client.state(), JobState::Canceled);
    let (_, overview) = send(server.address(), "GET", "/jobs/overview", "");
    let job = &overview["jobs"][0];
    assert!(job["state"] == "CANCELED" && job["tasks"]["canceled"] == job["tasks"]["total"], "{job}");
    assert_eq!(job["duration"].as_u64(), Some(job["end-time"].as_u64().unwrap() - job["start-time"].as_u64().unwrap()));
}

#[test]
fn when_operations_are_triggered_then_their_results_can_be_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path(), |env| {
        env.checkpoint_config(|options| options.savepoint_dir = Some(dir.path().join("own").display().to_string()));
    });
    let result = served.operation("/jobs/ID/checkpoints", r#"{"checkpointType":"FULL"}"#, "/jobs/ID/checkpoints");
    assert!(result["checkpointId"].as_u64() > Some(1), "{result}");

    let target = format!("file://{}", dir.path().join("named").display());
    let body = json!({ "target-directory": target, "cancel-job": false, "formatType": "CANONICAL", "new": 1 });
    let result = served.operation("/v1/jobs/ID/savepoints", &body.to_string(), "/v1/jobs/ID/savepoints");
    let location = Path::new(result["location"].as_str().unwrap());
    assert!(location.starts_with(dir.path().join("named")) && location.join("_metadata").exists(), "{result}");

    // A client that repeats itself gets the same operation.
    let trigger = "0123456789abcdef0123456789abcdef";
    let body = json!({ "triggerId": trigger }).to_string();
    let first = served.operation("/jobs/ID/savepoints", &body, "/jobs/ID/savepoints");
    assert_eq!(served.operation("/jobs/ID/savepoints", &body, "/jobs/ID/savepoints"), first);
    let own = std::fs::read_dir(dir.path().join("own")).unwrap().count();
    assert_eq!(own, 1);

    // As Nexmark's driver writes it, and asked for where Flink has it: below savepoints.
    let result = served.operation("/jobs/ID/stop", r#"{"drain":"true","targetDirectory":null}"#, "/jobs/ID/savepoints");
    let location = result["location"].as_str().unwrap_or_else(|| panic!("{result}"));
    assert!(Path::new(location).starts_with(dir.path().join("own")), "{location}");
    served.job.wait().unwrap();
    served.server.finish();
}

#[test]
fn when_a_job_is_stopped_then_the_server_stays_until_the_result_is_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path(), |_| ());
    let body = json!({ "targetDirectory": dir.path().join("savepoints") }).to_string();
    let (_, reply) = served.send("POST", "/jobs/ID/stop", &body);
    let path = format!("/jobs/{}/savepoints/{}", served.id, reply["request-id"].as_str().unwrap());
    let Served { server, job, .. } = served;
    job.wait().unwrap();
    let address = server.address();
    let finishing = std::thread::spawn(move || server.finish());
    std::thread::sleep(Duration::from_millis(200));
    assert!(!finishing.is_finished(), "nobody knows yet where the savepoint lies");
    let (_, reply) = send(address, "GET", &path, "");
    assert!(reply["operation"]["location"].is_string(), "{reply}");
    finishing.join().unwrap();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn when_a_savepoint_is_to_cancel_the_job_then_it_does_once_it_is_complete() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path(), |_| ());
    let body = json!({ "target-directory": dir.path().join("savepoints"), "cancel-job": true }).to_string();
    let result = served.operation("/jobs/ID/savepoints", &body, "/jobs/ID/savepoints");
    assert!(Path::new(result["location"].as_str().unwrap()).join("_metadata").exists());
    assert!(matches!(served.job.wait(), Err(Error::Job(JobError::Cancelled))));
}

#[test]
fn when_a_request_makes_no_sense_then_the_error_has_flinks_form() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(dir.path(), |_| ());
    let other = "0".repeat(32);
    for (method, path, body, status, said) in [
        ("GET", "/nothing/here", "", 404, "Unable to load requested file /nothing/here"),
        ("GET", "/jobs/7/checkpoints", "", 400, "32 hexadecimal digits"),
        ("GET", &format!("/jobs/{other}/checkpoints"), "", 404, "there is no job"),
        ("GET", &format!("/jobs/ID/savepoints/{other}"), "", 404, "there is no operation"),
        ("GET", "/jobs/ID/savepoints/7", "", 400, "no trigger id"),
        ("POST", "/jobs/ID/savepoints", "{", 400, "cannot be used"),
        ("POST", "/jobs/ID/savepoints", "{}", 400, "execution.checkpointing.savepoint-dir"),
        ("POST", "/jobs/ID/stop", r#"{"targetDirectory":"s3://b/s"}"#, 400, "not a place on this machine"),
        ("PATCH", "/jobs/ID?mode=stop", "", 400, "mode"),
    ] {
        let (code, reply) = served.send(method, path, body);
        let errors = reply["errors"].as_array().unwrap_or_else(|| panic!("{path}: {reply}"));
        assert!(code == status && errors[0].as_str().unwrap().contains(said), "{method} {path}: {code} {reply}");
    }
    // A page in a browser, from elsewhere and from here.
    let path = format!("/jobs/{}/checkpoints", served.id);
    for (origin, status) in [("http://elsewhere.example", 403), ("null", 403), ("http://job", 202)] {
        let head = format!("Origin: {origin}\r\n");
        let (code, reply) = send_with(served.server.address(), "POST", &path, &head, "");
        assert_eq!(code, status, "{origin}: {reply}");
    }
    served.job.cancel();
    assert!(served.job.wait().is_err());
}
