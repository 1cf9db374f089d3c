//! `thalweg list`, `stop`, `cancel` and `savepoint trigger`: what is done with jobs that run.

use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::{
    commands::print,
    error::CliError,
    job_cli::{CancelArgs, ListArgs, StopArgs, TriggerArgs},
    rest_client::RestClient,
};

/// How long a cancelled job may take to end.
const CANCEL_PATIENCE: Duration = Duration::from_secs(60);

/// Lists the jobs of a process.
pub fn list(args: &ListArgs) -> Result<(), CliError> {
    let client = RestClient::new(&args.rest.rest);
    let reply = client.get("/jobs/overview")?;
    let mut text = format!("{:<32}  {:<10}  {:<20}  {:>5}  NAME\n", "JOB_ID", "STATE", "STARTED", "TASKS");
    for job in reply["jobs"].as_array().into_iter().flatten() {
        let (id, state, name) = (client.text(job, "jid")?, client.text(job, "state")?, client.text(job, "name")?);
        let started = job["start-time"].as_u64().map_or_else(String::new, |ms| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
            humantime::format_rfc3339_seconds(at).to_string()
        });
        let tasks = job["tasks"]["total"].as_u64().unwrap_or(0);
        text.push_str(&format!("{id:<32}  {state:<10}  {started:<20}  {tasks:>5}  {name}\n"));
    }
    print(&text)
}

/// Takes a savepoint of a running job, and prints where it lies.
pub fn trigger_savepoint(args: &TriggerArgs) -> Result<(), CliError> {
    let body = json!({ "target-directory": target(args.target.as_deref())?, "cancel-job": false });
    let path = RestClient::new(&args.rest.rest).savepoint(&args.job.to_string(), "savepoints", &body)?;
    print(&format!("{path}\n"))
}

/// Stops a job with a savepoint, and prints where that lies.
pub fn stop(args: &StopArgs) -> Result<(), CliError> {
    let body = json!({ "targetDirectory": target(args.target.as_deref())?, "drain": args.drain });
    let path = RestClient::new(&args.rest.rest).savepoint(&args.job.to_string(), "stop", &body)?;
    print(&format!("{path}\n"))
}

/// Cancels a job.
pub fn cancel(args: &CancelArgs) -> Result<(), CliError> {
    let state = RestClient::new(&args.rest.rest).cancel(&args.job.to_string(), CANCEL_PATIENCE)?;
    print(&format!("{}: {state}\n", args.job))
}

/// The job may run in another directory than this command: what the user means is relative to here. A URI is as it is.
fn target(given: Option<&str>) -> Result<Option<String>, CliError> {
    let Some(target) = given else { return Ok(None) };
    if target.contains("://") || target.starts_with("file:") {
        return Ok(Some(target.to_owned()));
    }
    let path = std::path::absolute(target).map_err(CliError::write(target.as_ref()))?;
    Ok(Some(path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_target_is_relative_then_it_is_relative_to_here_and_uris_stay() {
        let here = std::env::current_dir().unwrap();
        let absolute = |given: &str| target(Some(given)).unwrap().unwrap();
        assert_eq!(absolute("savepoints"), here.join("savepoints").display().to_string());
        assert_eq!(absolute("/s"), "/s");
        assert_eq!(absolute("file:///s"), "file:///s");
        assert_eq!(target(None).unwrap(), None);
    }
}
