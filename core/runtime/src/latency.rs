//! Latency markers: sources send them now and then, every segment notes when they pass and sends them on.
//!
//! A marker waits in the buffers like a record but is never processed by user code, so it measures the way, not the
//! work, as in Flink.

use std::{collections::HashMap, sync::Arc};

use thalweg_model::{
    KeyHasher,
    metrics::{Histogram, OperatorMetrics},
};

use crate::{Outputs, exchange::Control, partition::XorShift};

/// An operator's id, folded to what a marker carries.
pub(crate) fn fold_id(id: &str) -> u64 {
    let mut hasher = KeyHasher::new();
    hasher.bytes(id.as_bytes());
    hasher.finish64()
}

/// The ids of the job's sources, by what markers carry.
pub(crate) type SourceIds = Arc<HashMap<u64, String>>;

/// Sends, records and forwards markers for one segment.
pub(crate) struct LatencyProbe {
    interval_ns: u64,
    next_ns: u64,
    /// The segment's first operator, and its subtask.
    operator: u64,
    subtask: u32,
    random: XorShift,
    sources: SourceIds,
    metrics: Vec<OperatorMetrics>,
    /// By source: a histogram for each operator of the segment.
    histograms: Vec<(u64, Vec<Histogram>)>,
}

impl LatencyProbe {
    /// A probe that sends every `interval_ms`, or never if that is zero.
    pub(crate) fn new(
        interval_ms: u64,
        operator_id: &str,
        subtask: u32,
        sources: SourceIds,
        metrics: Vec<OperatorMetrics>,
    ) -> Self {
        let operator = fold_id(operator_id);
        Self {
            interval_ns: interval_ms.saturating_mul(1_000_000),
            next_ns: 0,
            operator,
            subtask,
            random: XorShift::new(operator ^ u64::from(subtask)),
            sources,
            metrics,
            histograms: Vec::new(),
        }
    }

    /// Sends a marker if one is due. For sources.
    #[inline]
    pub(crate) fn mark(&mut self, now_ns: u64, out: &mut Outputs) {
        if self.interval_ns == 0 || now_ns < self.next_ns {
            return;
        }
        self.next_ns = now_ns + self.interval_ns;
        let marker =
            Control::LatencyMarker { marked_ns: now_ns as i64, operator: self.operator, subtask: self.subtask };
        out.control_to_one(marker, &mut self.random);
    }

    /// Records a marker and sends it on.
    pub(crate) fn pass(&mut self, marker: Control, now_ns: u64, out: &mut Outputs) {
        let Control::LatencyMarker { marked_ns, operator, .. } = marker else { return };
        let latency_ms = (now_ns as i64).saturating_sub(marked_ns).max(0) as u64 / 1_000_000;
        if !self.histograms.iter().any(|(source, _)| *source == operator)
            && let Some(id) = self.sources.get(&operator)
        {
            self.histograms.push((operator, self.metrics.iter().map(|m| m.latency_ms(id)).collect()));
        }
        let of_source = self.histograms.iter().find(|(source, _)| *source == operator);
        for histogram in of_source.iter().flat_map(|(_, histograms)| histograms) {
            histogram.record(latency_ms);
        }
        out.control_to_one(marker, &mut self.random);
    }
}
