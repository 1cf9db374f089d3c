//! `RestClient`: asks a running job over HTTP, as Flink's own command line does.

use std::{
    fmt,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use ureq::{Agent, Body, http::Response};

/// How long one request may take: replies are made of what the job master knows.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Between the first two looks at whether an operation has completed, and the longest between any two.
const FIRST_LOOK: Duration = Duration::from_millis(10);
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Why a job did not do what it was asked for.
#[derive(Debug)]
pub enum RestError {
    /// Nobody answers.
    Unreachable {
        /// Where.
        address: String,
        /// What the system said.
        source: Box<ureq::Error>,
    },
    /// It does not do that; in its own words.
    Refused(String),
    /// It tried.
    Failed(String),
    /// It is still at it.
    Late(String),
    /// The reply is not one of a job.
    Odd {
        /// Where it came from.
        address: String,
        /// What is wrong with it.
        what: String,
    },
}

impl fmt::Display for RestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable { address, source } => write!(f, "nobody answers at {address}: {source}"),
            Self::Refused(message) | Self::Failed(message) | Self::Late(message) => f.write_str(message),
            Self::Odd { address, what } => write!(f, "what answers at {address} is no job: {what}"),
        }
    }
}

/// See the module.
pub struct RestClient {
    agent: Agent,
    address: String,
}

impl RestClient {
    /// A client of whoever answers at `HOST:PORT`, which may also be written as a URL.
    pub fn new(address: &str) -> Self {
        let config =
            Agent::config_builder().http_status_as_error(false).proxy(None).timeout_global(Some(REPLY_TIMEOUT)).build();
        let address = address.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Self { agent: config.into(), address }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v1{path}", self.address)
    }

    /// Asks for something.
    pub fn get(&self, path: &str) -> Result<Value, RestError> {
        self.read(self.agent.get(self.url(path)).call())
    }

    /// Asks for something to be done.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, RestError> {
        let request = self.agent.post(self.url(path)).content_type("application/json");
        self.read(request.send(body.to_string()))
    }

    /// Asks for something to be changed.
    pub fn patch(&self, path: &str) -> Result<Value, RestError> {
        self.read(self.agent.patch(self.url(path)).send_empty())
    }

    fn read(&self, response: Result<Response<Body>, ureq::Error>) -> Result<Value, RestError> {
        let unreachable = |source| RestError::Unreachable { address: self.address.clone(), source: Box::new(source) };
        let mut response = response.map_err(unreachable)?;
        let text = response.body_mut().read_to_string().map_err(unreachable)?;
        let body: Value = serde_json::from_str(&text).map_err(|error| self.odd(&format!("{error}")))?;
        if response.status().is_success() {
            return Ok(body);
        }
        let errors: Vec<&str> = body["errors"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if errors.is_empty() {
            return Err(self.odd(&format!("status {} without errors", response.status())));
        }
        Err(RestError::Refused(errors.join("; ")))
    }

    fn odd(&self, what: &str) -> RestError {
        RestError::Odd { address: self.address.clone(), what: what.to_owned() }
    }

    /// The text in a field of a reply.
    pub fn text<'v>(&self, value: &'v Value, field: &str) -> Result<&'v str, RestError> {
        value[field].as_str().ok_or_else(|| self.odd(&format!("a reply without {field}")))
    }

    /// Triggers a savepoint, alone or to stop the job with, and waits until it is complete; answers where it lies.
    ///
    /// # Errors
    /// It was refused or it failed, or the job's process went away meanwhile.
    pub fn savepoint(&self, job: &str, trigger: &str, body: &Value) -> Result<String, RestError> {
        let reply = self.post(&format!("/jobs/{job}/{trigger}"), body)?;
        let path = format!("/jobs/{job}/savepoints/{}", self.text(&reply, "request-id")?);
        let mut pause = FIRST_LOOK;
        loop {
            let reply = self.get(&path)?;
            if self.text(&reply["status"], "id")? == "COMPLETED" {
                let operation = &reply["operation"];
                return match operation["failure-cause"]["stack-trace"].as_str() {
                    Some(reason) => Err(RestError::Failed(reason.to_owned())),
                    None => Ok(self.text(operation, "location")?.to_owned()),
                };
            }
            sleep(pause);
            pause = (pause * 2).min(LAST_LOOK);
        }
    }

    /// Cancels a job and waits, at most for `patience`, until it has ended; answers the state that it has ended in.
    ///
    /// # Errors
    /// It was refused, or takes longer.
    pub fn cancel(&self, job: &str, patience: Duration) -> Result<String, RestError> {
        self.patch(&format!("/jobs/{job}?mode=cancel"))?;
        let began = Instant::now();
        loop {
            // A job that runs by itself takes its process with it.
            let state = match self.state(job) {
                Ok(state) => state.unwrap_or_else(|| "CANCELED".to_owned()),
                Err(RestError::Unreachable { .. }) => "CANCELED".to_owned(),
                Err(error) => return Err(error),
            };
            if ["CANCELED", "FAILED", "FINISHED", "SUSPENDED"].contains(&state.as_str()) {
                return Ok(state);
            }
            if began.elapsed() > patience {
                return Err(RestError::Late(format!(
                    "job {job} has been told to end and has not within {} s: it is {state}",
                    patience.as_secs()
                )));
            }
            sleep(FIRST_LOOK);
        }
    }

    /// What a job is doing, if there is such a one.
    fn state(&self, job: &str) -> Result<Option<String>, RestError> {
        let reply = self.get("/jobs")?;
        let jobs = reply["jobs"].as_array().into_iter().flatten();
        let state = jobs.rev().find(|shown| shown["id"] == json!(job)).and_then(|shown| shown["status"].as_str());
        Ok(state.map(str::to_owned))
    }
}
