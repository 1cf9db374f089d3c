//! `Who`: the name of a segment in errors, and the guard around its code: one per call, none per record.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::TaskError;

/// How a segment is called in errors.
pub(crate) struct Who {
    pub(crate) operator: String,
    pub(crate) subtask: u32,
    pub(crate) parallelism: u32,
}

impl Who {
    fn complete(&self, mut error: TaskError) -> TaskError {
        if error.operator.is_empty() {
            error.operator.clone_from(&self.operator);
        }
        TaskError { subtask: self.subtask, parallelism: self.parallelism, ..error }
    }

    /// An error of the segment itself.
    pub(crate) fn error(&self, message: impl Into<String>) -> TaskError {
        self.complete(TaskError::new("", message))
    }

    /// Calls user code: errors get the subtask's name, panics become errors.
    #[inline]
    pub(crate) fn guard<R>(&self, call: impl FnOnce() -> Result<R, TaskError>) -> Result<R, TaskError> {
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(self.complete(error)),
            Err(payload) => Err(self.panicked(payload.as_ref())),
        }
    }

    #[cold]
    fn panicked(&self, payload: &(dyn std::any::Any + Send)) -> TaskError {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        self.error(format!("panicked: {}", text.unwrap_or("(no message)")))
    }
}
