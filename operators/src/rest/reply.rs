//! What goes back to a client: JSON, and errors in Flink's form.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// A reply in JSON.
pub(super) struct Reply(pub(super) StatusCode, pub(super) Value);

impl Reply {
    pub(super) fn ok(body: Value) -> Self {
        Self(StatusCode::OK, body)
    }

    /// It has been begun.
    pub(super) fn accepted(body: Value) -> Self {
        Self(StatusCode::ACCEPTED, body)
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let Self(status, body) = self;
        (status, [(header::CONTENT_TYPE, "application/json; charset=UTF-8")], body.to_string()).into_response()
    }
}

/// Why a request is not answered: a status, and a line for people.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

impl Refusal {
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }

    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self(StatusCode::FORBIDDEN, message.into())
    }

    pub(super) fn missing(message: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, message.into())
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self(StatusCode::CONFLICT, message.into())
    }

    pub(super) fn busy(message: impl Into<String>) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, message.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, message) = self;
        Reply(status, json!({ "errors": [message] })).into_response()
    }
}
