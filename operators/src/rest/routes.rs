//! The paths, and what is done for each.

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{Path, RawQuery, Request, State},
    http::{Uri, header},
    middleware::{Next, from_fn},
    response::{IntoResponse as _, Response},
    routing::{get, patch, post},
};
use serde_json::{Value, json};
use thalweg_cluster::job::JobState;
use thalweg_model::JobId;

use super::{
    Served,
    operations::Kind,
    reply::{Refusal, Reply},
    requests::{Stop, TakeCheckpoint, TakeSavepoint, read},
    statistics,
};
use crate::cluster::{JobClient, Overview, SnapshotError};

type Jobs = State<Arc<Served>>;
type Answer = Result<Reply, Refusal>;

/// All paths, bare and below `/v1`.
pub(super) fn router(served: Arc<Served>) -> Router {
    let paths = Router::new()
        .route("/jobs", get(jobs))
        .route("/jobs/overview", get(overview))
        .route("/jobs/{job}", patch(cancel))
        .route("/jobs/{job}/checkpoints", get(checkpoints).post(take_checkpoint))
        .route("/jobs/{job}/checkpoints/{trigger}", get(checkpoint_status))
        .route("/jobs/{job}/savepoints", post(take_savepoint))
        .route("/jobs/{job}/savepoints/{trigger}", get(savepoint_status))
        .route("/jobs/{job}/stop", post(stop));
    let all = Router::new().nest("/v1", paths.clone()).merge(paths).fallback(missing);
    all.layer(from_fn(refuse_other_origins)).with_state(served)
}

/// Any page that a browser on this machine shows could send a request here, and no password keeps it from that. Browsers
/// say where a page comes from; other clients say nothing.
async fn refuse_other_origins(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    if let Some(origin) = headers.get(header::ORIGIN) {
        let from = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1));
        if from.is_none() || from != host {
            return Refusal::forbidden("pages of other origins may not control jobs").into_response();
        }
    }
    next.run(request).await
}

async fn missing(uri: Uri) -> Refusal {
    Refusal::missing(format!("Unable to load requested file {}.", uri.path()))
}

/// Asks a job master, which may have to end something first, without holding up other requests.
async fn ask<T: Send + 'static>(question: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let answer = tokio::task::spawn_blocking(question).await;
    answer.map_err(|_| Refusal::busy("the job cannot be asked now: try again"))
}

fn find(served: &Served, text: &str) -> Result<JobClient, Refusal> {
    let id: JobId = text.parse().map_err(|error| Refusal::bad(format!("{error}")))?;
    // Of several runs of one job the last is meant.
    let found = served.jobs().iter().rev().find(|job| job.id() == id).cloned();
    found.ok_or_else(|| Refusal::missing(format!("there is no job {id} in this process")))
}

async fn jobs(State(served): Jobs) -> Answer {
    let jobs: Vec<Value> =
        served.jobs().iter().map(|job| json!({ "id": job.id().to_string(), "status": job.state().name() })).collect();
    Ok(Reply::ok(json!({ "jobs": jobs })))
}

async fn overview(State(served): Jobs) -> Answer {
    let jobs = served.jobs().clone();
    let shown = ask(move || jobs.iter().map(|job| shown(job, job.overview())).collect::<Vec<_>>()).await?;
    Ok(Reply::ok(json!({ "jobs": shown })))
}

fn shown(job: &JobClient, overview: Overview) -> Value {
    let Overview { state, started_ms, ended_ms, changed_ms, tasks } = overview;
    let now_ms = std::time::UNIX_EPOCH.elapsed().map_or(0, |passed| passed.as_millis() as u64);
    json!({
        "jid": job.id().to_string(),
        "name": job.name(),
        "jobType": "STREAMING",
        "schedulerType": "Default",
        "start-time": started_ms,
        "end-time": ended_ms.map_or(-1, |at| at as i64),
        "duration": ended_ms.unwrap_or(now_ms).saturating_sub(started_ms),
        "state": state.name(),
        "last-modification": changed_ms,
        "tasks": {
            "running": tasks.running, "canceling": tasks.canceling, "canceled": tasks.canceled, "total": tasks.total(),
            "created": tasks.created, "scheduled": 0, "deploying": 0, "reconciling": 0, "finished": tasks.finished,
            "initializing": 0, "failed": 0,
        },
        "pending-operators": 0,
    })
}

async fn checkpoints(State(served): Jobs, Path(job): Path<String>) -> Answer {
    let job = find(&served, &job)?;
    let statistics = ask(move || job.checkpoints()).await?;
    let gone = || Refusal::missing("the job has ended, and its checkpoint statistics with it");
    Ok(Reply::ok(statistics::shown(&statistics.ok_or_else(gone)?)))
}

async fn take_checkpoint(State(served): Jobs, Path(job): Path<String>, body: Bytes) -> Answer {
    let (job, request) = (find(&served, &job)?, read::<TakeCheckpoint>(&body)?);
    let is_full = request.is_full();
    let id = job.id();
    let trigger = move || if is_full { job.trigger_full_checkpoint() } else { job.trigger_checkpoint() };
    begun(served.operations.begin(id, Kind::Checkpoint, request.trigger, trigger, |_| ()))
}

async fn take_savepoint(State(served): Jobs, Path(job): Path<String>, body: Bytes) -> Answer {
    let (job, request) = (find(&served, &job)?, read::<TakeSavepoint>(&body)?);
    let (target, cancel) = (request.target()?, request.cancel_job);
    check_target(&job, target.is_some())?;
    let (id, client) = (job.id(), job.clone());
    let then = move |outcome: &Result<_, SnapshotError>| {
        if cancel && outcome.is_ok() {
            client.cancel();
        }
    };
    let trigger = move || job.trigger_savepoint(target.as_deref());
    begun(served.operations.begin(id, Kind::Savepoint, request.trigger, trigger, then))
}

async fn stop(State(served): Jobs, Path(job): Path<String>, body: Bytes) -> Answer {
    let (job, request) = (find(&served, &job)?, read::<Stop>(&body)?);
    let (target, mode) = (request.target()?, request.mode());
    check_target(&job, target.is_some())?;
    let id = job.id();
    let trigger = move || job.stop_with_savepoint(target.as_deref(), mode);
    begun(served.operations.begin(id, Kind::Savepoint, request.trigger, trigger, |_| ()))
}

fn check_target(job: &JobClient, is_named: bool) -> Result<(), Refusal> {
    if is_named || job.has_savepoint_dir() { Ok(()) } else { Err(Refusal::bad(SnapshotError::NoTarget.to_string())) }
}

fn begun(operation: Result<String, Refusal>) -> Answer {
    operation.map(|id| Reply::accepted(json!({ "request-id": id })))
}

async fn checkpoint_status(State(served): Jobs, Path((job, trigger)): Path<(String, String)>) -> Answer {
    status(&served, &job, Kind::Checkpoint, &trigger)
}

async fn savepoint_status(State(served): Jobs, Path((job, trigger)): Path<(String, String)>) -> Answer {
    status(&served, &job, Kind::Savepoint, &trigger)
}

fn status(served: &Served, job: &str, kind: Kind, trigger: &str) -> Answer {
    let job = find(served, job)?;
    served.operations.result(job.id(), kind, trigger).map(Reply::ok)
}

async fn cancel(State(served): Jobs, Path(job): Path<String>, RawQuery(query): RawQuery) -> Answer {
    let job = find(&served, &job)?;
    let query = query.unwrap_or_default();
    let mode = query.split('&').find_map(|pair| pair.strip_prefix("mode=")).unwrap_or("cancel");
    if mode != "cancel" {
        let message =
            format!("mode {mode:?} is not known: use cancel, or POST /jobs/:jobid/stop to stop with a savepoint");
        return Err(Refusal::bad(message));
    }
    match job.state() {
        state if state.is_terminal() && state != JobState::Canceled => {
            Err(Refusal::conflict(format!("job {} has ended already: it is {state}", job.id())))
        }
        _ => {
            job.cancel();
            Ok(Reply::accepted(json!({})))
        }
    }
}
