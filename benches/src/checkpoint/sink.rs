//! `StateSink`: times the records and the slot's turns, and adds up what says whether the counts are right.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use thalweg::prelude::*;
use thalweg::sink::{SinkContext, SinkError};

use super::load::{Counted, LoadPlan, UNTIMED};
use super::throttle::Permits;
use crate::latency::stalls::{StallMeter, Stalls};
use crate::latency::{histogram, record};

/// Records due in so long after the start of the timed stage are not recorded: clocks and caches settle.
pub(super) const SETTLE_NS: u64 = 500_000_000;

/// What the sinks took.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) latency: Option<Histogram<u64>>,
    pub(super) records: u64,
    /// Records whose count was 1.
    pub(super) first_counts: u64,
    /// Sum of all counts.
    pub(super) running: u64,
    /// Of the timed stage: gaps between the slot's turns.
    pub(super) stalls: Stalls,
    /// What of them was the threads' own.
    pub(super) own_stalls: Stalls,
}

impl Taken {
    /// What the counts add up to.
    pub(super) fn counted(&self) -> Counted {
        Counted { records: self.records, first_counts: self.first_counts, running: self.running }
    }
}

/// See the module.
pub(super) struct StateSink {
    plan: Arc<LoadPlan>,
    total: Arc<Mutex<Taken>>,
    permits: Option<Permits>,
    own: Taken,
    latency: Histogram<u64>,
    published: u64,
    timed_for: Option<Duration>,
    /// A slot asks each turn whether the sink is ready.
    meter: RefCell<StallMeter>,
}

impl StateSink {
    pub(super) fn new(plan: Arc<LoadPlan>, total: Arc<Mutex<Taken>>, permits: Option<Permits>) -> Self {
        let (own, latency, timed_for) = (Taken::default(), histogram(), plan.timed_for());
        Self { plan, total, permits, own, latency, published: 0, timed_for, meter: RefCell::new(StallMeter::new()) }
    }
}

impl Clone for StateSink {
    fn clone(&self) -> Self {
        Self::new(self.plan.clone(), self.total.clone(), self.permits.clone())
    }
}

impl Sink<(u64, u64, u64)> for StateSink {
    fn open(&mut self, ctx: &SinkContext) -> Result<(), SinkError> {
        if let Some(permits) = &self.permits {
            permits.wake(ctx.waker.clone());
        }
        Ok(())
    }

    fn ready(&self) -> bool {
        if let (Some(timed_for), Some(since)) = (self.timed_for, self.plan.timed_since()) {
            let now = Instant::now();
            if now >= since && now < since + timed_for {
                self.meter.borrow_mut().called(now);
            }
        }
        self.permits.as_ref().is_none_or(Permits::any)
    }

    #[inline(always)]
    fn write(&mut self, (_, count, due_ns): (u64, u64, u64), _: i64) -> Result<(), SinkError> {
        self.own.records += 1;
        self.own.first_counts += u64::from(count == 1);
        self.own.running += count;
        if let Some(permits) = &self.permits {
            permits.take();
        }
        if due_ns != UNTIMED
            && due_ns >= SETTLE_NS
            && let Some(started) = self.plan.timed_since()
        {
            record(&mut self.latency, (started.elapsed().as_nanos() as u64).saturating_sub(due_ns));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.plan.count_arrived(self.own.records - self.published);
        self.published = self.own.records;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        let mut total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        total.records += self.own.records;
        total.first_counts += self.own.first_counts;
        total.running += self.own.running;
        let meter = self.meter.borrow();
        total.stalls.add(&meter.all);
        total.own_stalls.add(&meter.own);
        total.latency.get_or_insert_with(histogram).add(&self.latency)?;
        Ok(())
    }

    fn name(&self) -> &str {
        "Latency"
    }
}
