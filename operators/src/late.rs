//! Records that come too late for all their windows: to a side output, or dropped and counted.

use thalweg_model::{Elem, Record, metrics::Counter};

use crate::{op_metrics::OpMetrics, pipe::Emit};

/// Counts what is dropped (`numLateRecordsDropped`).
#[derive(Default)]
pub(crate) struct LateRecords {
    dropped: u64,
    counter: Option<Counter>,
}

impl LateRecords {
    pub fn open(&mut self, metrics: &OpMetrics) {
        self.counter = metrics.handles().map(|metrics| metrics.num_late_records_dropped());
    }

    #[cold]
    pub fn take<T: Record, O: Record, E: Emit<O>>(&mut self, elem: Elem<'_, T>, port: Option<usize>, emit: &mut E) {
        match port {
            Some(port) => emit.side(port, elem),
            None => self.dropped += 1,
        }
    }

    /// A record that no side output wants.
    #[cold]
    pub fn drop_one(&mut self) {
        self.dropped += 1;
    }

    pub fn report(&self) {
        if let Some(counter) = &self.counter {
            counter.set(self.dropped);
        }
    }
}
