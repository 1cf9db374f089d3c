//! Bodies of requests: what a client may say, with Flink's names. What is unknown is passed over, as Flink does.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use thalweg_runtime::StopMode;

use super::reply::Refusal;
use crate::settings::local_path;

/// The body of `POST /jobs/:jobid/savepoints`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TakeSavepoint {
    #[serde(rename = "target-directory")]
    target: Option<String>,
    #[serde(rename = "cancel-job", default, deserialize_with = "flag")]
    pub(super) cancel_job: bool,
    #[serde(rename = "triggerId")]
    pub(super) trigger: Option<String>,
    #[serde(rename = "formatType")]
    #[expect(dead_code, reason = "only checked")]
    format: Option<Format>,
}

/// The body of `POST /jobs/:jobid/stop`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Stop {
    #[serde(rename = "targetDirectory")]
    target: Option<String>,
    #[serde(default, deserialize_with = "flag")]
    drain: bool,
    #[serde(rename = "triggerId")]
    pub(super) trigger: Option<String>,
    #[serde(rename = "formatType")]
    #[expect(dead_code, reason = "only checked")]
    format: Option<Format>,
}

/// The body of `POST /jobs/:jobid/checkpoints`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct TakeCheckpoint {
    #[serde(rename = "triggerId")]
    pub(super) trigger: Option<String>,
    #[serde(rename = "checkpointType")]
    kind: Option<CheckpointType>,
}

/// Both are known, and mean the same here: there is one state backend, and what it writes can be restored at any
/// parallelism.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Format {
    Canonical,
    Native,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum CheckpointType {
    Configured,
    Full,
    Incremental,
}

/// True and false, which some clients write as text; nothing is false.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Flag {
        Bool(bool),
        Text(String),
    }
    match Option::<Flag>::deserialize(deserializer)? {
        None => Ok(false),
        Some(Flag::Bool(value)) => Ok(value),
        Some(Flag::Text(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Flag::Text(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(Flag::Text(text)) => Err(serde::de::Error::custom(format!("{text:?} is neither true nor false"))),
    }
}

impl TakeSavepoint {
    pub(super) fn target(&self) -> Result<Option<PathBuf>, Refusal> {
        directory(self.target.as_deref())
    }
}

impl Stop {
    pub(super) fn target(&self) -> Result<Option<PathBuf>, Refusal> {
        directory(self.target.as_deref())
    }

    pub(super) fn mode(&self) -> StopMode {
        if self.drain { StopMode::Drain } else { StopMode::Suspend }
    }
}

impl TakeCheckpoint {
    pub(super) fn is_full(&self) -> bool {
        self.kind == Some(CheckpointType::Full)
    }
}

/// A directory of this machine, which may be written as a URI.
fn directory(location: Option<&str>) -> Result<Option<PathBuf>, Refusal> {
    let location = location.filter(|location| !location.is_empty());
    let path = location.map(local_path).transpose().map_err(|error| Refusal::bad(error.to_string()))?;
    Ok(path.map(PathBuf::from))
}

/// Reads a body; an empty one says nothing.
pub(super) fn read<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Refusal> {
    if body.trim_ascii().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad(format!("the body of the request cannot be used: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_bodies_come_as_clients_write_them_then_they_are_read() {
        for (body, drain) in [
            ("", false),
            ("{}", false),
            (r#"{"drain":"true","formatType":"CANONICAL"}"#, true),
            (r#"{"drain":true,"targetDirectory":null,"somethingNew":7}"#, true),
            (r#"{"drain":null,"formatType":null}"#, false),
        ] {
            let stop: Stop = read(body.as_bytes()).unwrap();
            assert_eq!(stop.mode() == StopMode::Drain, drain, "{body}");
            assert_eq!(stop.target().unwrap(), None, "{body}");
        }
        let body = br#"{"target-directory":"file:///s","cancel-job":"True","triggerId":"ab"}"#;
        let savepoint: TakeSavepoint = read(body).unwrap();
        assert_eq!((savepoint.target().unwrap(), savepoint.cancel_job), (Some("/s".into()), true));
        assert_eq!(savepoint.trigger.as_deref(), Some("ab"));
        assert!(read::<TakeCheckpoint>(br#"{"checkpointType":"FULL"}"#).unwrap().is_full());
    }

    #[test]
    fn when_a_body_cannot_be_used_then_the_refusal_says_what_is_wrong() {
        for (body, said) in [
            (r#"{"drain":"perhaps"}"#, "neither true nor false"),
            (r#"{"formatType":"AVRO"}"#, "AVRO"),
            ("{", "cannot be used"),
        ] {
            let Refusal(status, message) = read::<Stop>(body.as_bytes()).unwrap_err();
            assert!(status == 400 && message.contains(said), "{message}");
        }
        let elsewhere: Stop = read(br#"{"targetDirectory":"hdfs://nn/s"}"#).unwrap();
        assert!(elsewhere.target().unwrap_err().1.contains("hdfs://nn/s"));
    }
}
