//! `Operations`: what clients have triggered, under the ids by which they ask what has become of it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use thalweg_model::JobId;

use super::reply::Refusal;
use crate::cluster::{PendingSnapshot, Snapshot, SnapshotError, random};

/// How long results stay.
const KEPT: Duration = Duration::from_secs(300);
/// How long the process waits, once its jobs have ended, for a client to fetch a result. Clients ask every second or two.
pub(super) const AWAITED: Duration = Duration::from_secs(10);
/// Operations at the same time: each has a thread that waits.
const MAX_RUNNING: usize = 64;
/// Results that are kept: the oldest go before their time.
const MAX_RESULTS: usize = 1_000;

/// What is triggered, which says where it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Savepoints, also those that stop the job.
    Savepoint,
    Checkpoint,
}

type Key = (JobId, Kind, String);
type Outcome = Result<Snapshot, SnapshotError>;

enum State {
    Running,
    Completed { at: Instant, outcome: Outcome, is_fetched: bool },
}

/// See the module. Clones are the same operations.
#[derive(Clone, Default)]
pub(super) struct Operations(Arc<Mutex<BTreeMap<Key, State>>>);

impl Operations {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Triggers something under the id that the client gives, or under a new one; answers the id. Where the client has
    /// given it before this is a retry, and nothing is triggered. `then` is told what has come of it.
    ///
    /// # Errors
    /// An id that is none, or too much at the same time.
    pub(super) fn begin(
        &self,
        job: JobId,
        kind: Kind,
        given: Option<String>,
        trigger: impl FnOnce() -> PendingSnapshot,
        then: impl FnOnce(&Outcome) + Send + 'static,
    ) -> Result<String, Refusal> {
        let id = match given {
            Some(id) => trigger_id(&id)?,
            None => format!("{:016x}{:016x}", random(), random()),
        };
        let key = (job, kind, id.clone());
        let mut all = self.lock();
        forget(&mut all, Instant::now());
        if all.contains_key(&key) {
            return Ok(id);
        }
        if all.values().filter(|state| matches!(state, State::Running)).count() >= MAX_RUNNING {
            return Err(Refusal::busy(format!("{MAX_RUNNING} operations are under way already: try again later")));
        }
        all.insert(key.clone(), State::Running);
        let (pending, operations) = (trigger(), self.clone());
        tokio::task::spawn_blocking(move || {
            let outcome = pending.wait();
            then(&outcome);
            operations.lock().insert(key, State::Completed { at: Instant::now(), outcome, is_fetched: false });
        });
        Ok(id)
    }

    /// What has become of it, as the client is told.
    ///
    /// # Errors
    /// Nobody has triggered it, or its result is no longer kept.
    pub(super) fn result(&self, job: JobId, kind: Kind, id: &str) -> Result<Value, Refusal> {
        let id = trigger_id(id)?;
        let mut all = self.lock();
        forget(&mut all, Instant::now());
        match all.get_mut(&(job, kind, id.clone())) {
            None => Err(Refusal::missing(format!(
                "there is no operation {id} of job {job}: results are kept for {} minutes",
                KEPT.as_secs() / 60
            ))),
            Some(State::Running) => Ok(json!({ "status": { "id": "IN_PROGRESS" }, "operation": null })),
            Some(State::Completed { outcome, is_fetched, .. }) => {
                *is_fetched = true;
                Ok(json!({ "status": { "id": "COMPLETED" }, "operation": shown(kind, outcome) }))
            }
        }
    }

    /// Whether somebody is likely to ask soon for a result that has not been fetched.
    pub(super) fn is_result_awaited(&self) -> bool {
        self.lock().values().any(|state| match state {
            State::Running => true,
            State::Completed { at, is_fetched, .. } => !is_fetched && at.elapsed() < AWAITED,
        })
    }
}

/// Removes results whose time is over, and the oldest of too many.
fn forget(all: &mut BTreeMap<Key, State>, now: Instant) {
    all.retain(|_, state| !matches!(state, State::Completed { at, .. } if now.duration_since(*at) >= KEPT));
    while all.len() > MAX_RESULTS + MAX_RUNNING {
        let completed = all.iter().filter_map(|(key, state)| match state {
            State::Completed { at, .. } => Some((*at, key.clone())),
            State::Running => None,
        });
        let Some((_, oldest)) = completed.min() else { return };
        all.remove(&oldest);
    }
}

/// An id as clients write it: 32 hexadecimal digits.
fn trigger_id(text: &str) -> Result<String, Refusal> {
    let is_id = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bad = || Refusal::bad(format!("{text:?} is no trigger id: give 32 hexadecimal digits"));
    if is_id { Ok(text.to_ascii_lowercase()) } else { Err(bad()) }
}

fn shown(kind: Kind, outcome: &Outcome) -> Value {
    match (outcome, kind) {
        (Ok(snapshot), Kind::Checkpoint) => json!({ "checkpointId": snapshot.id.0 }),
        (Ok(snapshot), Kind::Savepoint) => {
            // The client may be in another directory.
            let location = std::path::absolute(&snapshot.location);
            let location = location.map_or_else(|_| snapshot.location.clone(), |path| path.display().to_string());
            json!({ "location": location })
        }
        // No exception of Java's could be read out of what we have.
        (Err(error), _) => json!({
            "failure-cause": {
                "class": "org.apache.flink.runtime.checkpoint.CheckpointException",
                "stack-trace": error.to_string(),
                "serialized-throwable": "",
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use thalweg_model::CheckpointId;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";
    const UPPERCASE_ID: &str = "0123456789ABCDEF0123456789ABCDEF";

    fn completed(at: Instant, outcome: Outcome) -> State {
        State::Completed { at, outcome, is_fetched: false }
    }

    #[test]
    fn when_a_result_is_fetched_then_nobody_waits_for_it_and_it_stays_for_a_while() {
        let (operations, job) = (Operations::default(), JobId::from_name("job"));
        let key = (job, Kind::Savepoint, ID.to_owned());
        operations.lock().insert(key.clone(), State::Running);
        let result = |id| operations.result(job, Kind::Savepoint, id);
        assert_eq!(result(ID).unwrap()["status"]["id"], "IN_PROGRESS");
        assert!(operations.is_result_awaited());
        let snapshot = Snapshot { id: CheckpointId(3), location: "/s".to_owned() };
        operations.lock().insert(key, completed(Instant::now(), Ok(snapshot)));
        assert!(operations.is_result_awaited());
        assert_eq!(result(UPPERCASE_ID).unwrap()["operation"]["location"], "/s");
        assert!(!operations.is_result_awaited());
        assert_eq!(result(ID).unwrap()["operation"]["location"], "/s", "it can be asked for again");
        assert_eq!(result("7").unwrap_err().0, 400);
        assert_eq!(operations.result(job, Kind::Checkpoint, ID).unwrap_err().0, 404);

        forget(&mut operations.lock(), Instant::now() + KEPT);
        assert_eq!(result(ID).unwrap_err().0, 404);
    }

    #[test]
    fn when_too_many_results_are_there_then_the_oldest_go() {
        let mut all = BTreeMap::new();
        let now = Instant::now();
        for number in 0..MAX_RESULTS + MAX_RUNNING + 5 {
            let at = now + Duration::from_micros(number as u64);
            let key = (JobId::from_name("job"), Kind::Checkpoint, format!("{number:032x}"));
            all.insert(key, completed(at, Err(SnapshotError::JobEnded)));
        }
        forget(&mut all, now);
        assert_eq!(all.len(), MAX_RESULTS + MAX_RUNNING);
        assert_eq!(all.keys().next().unwrap().2, format!("{:032x}", 5));
    }

    #[test]
    fn when_it_has_failed_then_the_cause_is_where_clients_look() {
        let shown = shown(Kind::Savepoint, &Err(SnapshotError::NotEnabled));
        let cause = shown["failure-cause"]["stack-trace"].as_str().unwrap();
        assert!(cause.contains("execution.checkpointing.interval"), "{cause}");
    }
}
