//! One operator's own counters inside a fused piece.

use thalweg_model::metrics::{Gauge, OperatorMetrics};
use thalweg_runtime::{SegmentContext, TaskError};

use crate::pipe::Watermarks;

/// The metrics of one operator, found again when the subtask opens.
#[derive(Default)]
pub struct OpMetrics {
    index: usize,
    name: String,
    metrics: Option<OperatorMetrics>,
    input_watermark: Option<Gauge>,
}

impl Clone for OpMetrics {
    fn clone(&self) -> Self {
        Self::new(self.index)
    }
}

impl OpMetrics {
    /// The metrics of operator `index` of its segment.
    pub(crate) fn new(index: usize) -> Self {
        Self { index, ..Self::default() }
    }

    /// Which operator of its segment it is.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    pub(crate) fn open(&mut self, ctx: &SegmentContext) {
        self.open_source(ctx);
        self.input_watermark = self.metrics.as_ref().map(OperatorMetrics::current_input_watermark);
    }

    /// The same for an operator without input.
    pub(crate) fn open_source(&mut self, ctx: &SegmentContext) {
        self.name = ctx.operators.get(self.index).map(|operator| operator.name.clone()).unwrap_or_default();
        self.metrics = ctx.metrics.get(self.index).cloned();
    }

    /// Publishes how many records the operator has taken and emitted so far.
    pub(crate) fn records(&self, taken: u64, emitted: u64) {
        if let Some(metrics) = &self.metrics {
            metrics.num_records_in.set(taken);
            metrics.num_records_out.set(emitted);
        }
    }

    /// Publishes the last watermarks before and behind the operator.
    pub(crate) fn watermarks(&self, marks: Watermarks) {
        if let Some(metrics) = &self.metrics {
            metrics.current_output_watermark.set(marks.left);
        }
        if let Some(gauge) = &self.input_watermark {
            gauge.set(marks.arrived);
        }
    }

    /// The handles, once open.
    pub(crate) fn handles(&self) -> Option<&OperatorMetrics> {
        self.metrics.as_ref()
    }

    /// An error of this operator.
    pub(crate) fn error(&self, message: impl Into<String>) -> TaskError {
        TaskError::new(self.name.as_str(), message)
    }

    /// An error that did not know where it came from.
    pub(crate) fn named(&self, mut error: TaskError) -> TaskError {
        if error.operator.is_empty() {
            error.operator.clone_from(&self.name);
        }
        error
    }

    /// An error of user code. One that came from the engine stays what it is.
    pub(crate) fn failed(&self, error: Box<dyn std::error::Error + Send + Sync>) -> TaskError {
        match error.downcast::<TaskError>() {
            Ok(error) => self.named(*error),
            Err(error) => self.error(error.to_string()),
        }
    }
}
