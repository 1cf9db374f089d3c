//! What `GET /jobs/:jobid/checkpoints` shows: counts, figures over the completed ones, the latest, the history.

use serde_json::{Value, json};
use thalweg_cluster::checkpoint::{Kind, Record, Restored, Spread, Statistics, Status};

/// Counters and history as clients expect them.
pub(super) fn shown(statistics: &Statistics) -> Value {
    let counts = statistics.counts();
    let summary = statistics.summary();
    let latest = |record: Option<&Record>| record.map_or(Value::Null, checkpoint);
    json!({
        "counts": {
            "restored": counts.restored,
            "total": counts.total,
            "in_progress": counts.in_progress,
            "completed": counts.completed,
            "failed": counts.failed,
        },
        "summary": {
            "checkpointed_size": spread(&summary.checkpointed_bytes),
            "state_size": spread(&summary.state_bytes),
            "end_to_end_duration": spread(&summary.duration_ms),
            "alignment_buffered": spread(&Spread::default()),
            "processed_data": spread(&summary.processed_bytes),
            "persisted_data": spread(&summary.persisted_bytes),
        },
        "latest": {
            "completed": latest(statistics.latest_completed()),
            "savepoint": latest(statistics.latest_savepoint()),
            "failed": latest(statistics.latest_failed()),
            "restored": statistics.restored().map_or(Value::Null, |restored| restore(statistics, restored)),
        },
        "history": statistics.history().into_iter().map(checkpoint).collect::<Vec<_>>(),
    })
}

fn spread(spread: &Spread) -> Value {
    let [p50, p90, p95, p99, p999] = spread.percentiles.map(|value| value as f64);
    json!({
        "min": spread.min, "max": spread.max, "avg": spread.mean,
        "p50": p50, "p90": p90, "p95": p95, "p99": p99, "p999": p999,
    })
}

fn restore(statistics: &Statistics, restored: &Restored) -> Value {
    // One that an earlier process has taken is not in the history of this one.
    let path = statistics.record(restored.id).and_then(|record| match &record.status {
        Status::Completed { location, .. } => Some(location),
        _ => None,
    });
    json!({
        "id": restored.id.0,
        "restore_timestamp": restored.at.0,
        "is_savepoint": restored.kind.is_savepoint(),
        "external_path": path,
    })
}

fn checkpoint(record: &Record) -> Value {
    let (class, name, ended) = match &record.status {
        Status::InProgress => ("in_progress", "IN_PROGRESS", None),
        Status::Completed { at, .. } => ("completed", "COMPLETED", Some(*at)),
        Status::Failed { at, .. } => ("failed", "FAILED", Some(*at)),
    };
    let (is_savepoint, totals) = (record.kind.is_savepoint(), &record.totals);
    let duration_ms = ended.map_or(-1, |at| at.since_ms(record.triggered_at) as i64);
    let mut shown = json!({
        "className": class,
        "id": record.id.0,
        "status": name,
        "is_savepoint": is_savepoint,
        "savepointFormat": if is_savepoint { Some("NATIVE") } else { None },
        "trigger_timestamp": record.triggered_at.0,
        "latest_ack_timestamp": record.latest_ack_at.map_or(-1, |at| at.0 as i64),
        "checkpointed_size": totals.checkpointed_bytes,
        "state_size": totals.state_bytes,
        "end_to_end_duration": duration_ms,
        "alignment_buffered": 0,
        "processed_data": totals.processed_bytes,
        "persisted_data": totals.persisted_bytes,
        "num_subtasks": record.expected,
        "num_acknowledged_subtasks": record.acknowledged,
        "checkpoint_type": match (record.kind, totals.unaligned) {
            (Kind::Savepoint { stop: Some(_), .. }, _) => "SYNC_SAVEPOINT",
            (Kind::Savepoint { .. }, _) => "SAVEPOINT",
            (Kind::Checkpoint { .. }, true) => "UNALIGNED_CHECKPOINT",
            (Kind::Checkpoint { .. }, false) => "CHECKPOINT",
        },
        "tasks": {},
    });
    match &record.status {
        Status::InProgress => {}
        Status::Completed { location, discarded, .. } => {
            shown["external_path"] = json!(location);
            shown["discarded"] = json!(discarded);
        }
        Status::Failed { at, message, .. } => {
            shown["failure_timestamp"] = json!(at.0);
            shown["failure_message"] = json!(message);
        }
    }
    shown
}
