//! Handles that metrics are written through, and the rate computed from one.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};

/// Span that a rate covers at most, as in Flink's `MeterView`.
const RATE_WINDOW_MS: u64 = 60_000;
/// Distance of the points in time that a rate remembers.
const RATE_STEP_MS: u64 = 5_000;
const RATE_POINTS_MAX: usize = (RATE_WINDOW_MS / RATE_STEP_MS) as usize + 1;

/// A total. One writer, any number of readers; clones are the same counter.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one. Only one thread may write.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `count`, without a locked instruction: only one thread may write.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Publishes a total that the writer keeps itself.
    #[inline]
    pub fn set(&self, total: u64) {
        self.0.store(total, Relaxed);
    }

    /// The total.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The cell of a [`Gauge`].
#[derive(Debug, Default)]
pub(super) struct GaugeCell(AtomicI64);

impl GaugeCell {
    pub(super) fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// A whole number that goes up and down; clones are the same gauge. The last write counts.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<GaugeCell>);

impl Gauge {
    /// Sets it.
    #[inline]
    pub fn set(&self, value: i64) {
        self.0.0.store(value, Relaxed);
    }

    /// Its value.
    #[inline]
    pub fn get(&self) -> i64 {
        self.0.get()
    }

    pub(super) fn downgrade(&self) -> Weak<GaugeCell> {
        Arc::downgrade(&self.0)
    }
}

/// A fraction that goes up and down; clones are the same gauge. The last write counts.
#[derive(Clone, Debug, Default)]
pub struct FloatGauge(Arc<AtomicU64>);

impl FloatGauge {
    /// Sets it.
    #[inline]
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// Its value.
    #[inline]
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

/// Growth of a counter per second over the last minute.
pub(super) struct Meter {
    counter: Counter,
    scale: f64,
    /// (time in ms, total), oldest first, at most [`RATE_POINTS_MAX`].
    points: VecDeque<(u64, u64)>,
}

impl Meter {
    pub(super) fn new(counter: Counter, scale: f64) -> Self {
        Self { counter, scale, points: VecDeque::with_capacity(RATE_POINTS_MAX) }
    }

    pub(super) fn tick(&mut self, now_ms: u64) {
        let total = self.counter.get();
        // A total that fell began anew: what was before says nothing about its rate.
        if self.points.back().is_some_and(|&(_, last)| total < last) {
            self.points.clear();
        }
        if self.points.back().is_none_or(|&(time_ms, _)| now_ms >= time_ms.saturating_add(RATE_STEP_MS)) {
            if self.points.len() == RATE_POINTS_MAX {
                self.points.pop_front();
            }
            self.points.push_back((now_ms, total));
        }
        while self.points.len() > 1 && now_ms.saturating_sub(self.points[0].0) > RATE_WINDOW_MS {
            self.points.pop_front();
        }
    }

    pub(super) fn read(&mut self, now_ms: u64) -> f64 {
        self.tick(now_ms);
        let total = self.counter.get();
        match self.points.front() {
            Some(&(time_ms, then)) if now_ms > time_ms => {
                total.saturating_sub(then) as f64 * self.scale * 1_000.0 / (now_ms - time_ms) as f64
            }
            _ => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_time_passes_then_the_rate_forgets_what_is_older_than_a_minute() {
        let counter = Counter::default();
        let mut meter = Meter::new(counter.clone(), 1.0);
        for second in 0..=60_u64 {
            counter.set(second * 100);
            meter.tick(second * 1_000);
        }
        assert_eq!(meter.read(60_000), 100.0);
        for second in 61..=200_u64 {
            meter.tick(second * 1_000);
        }
        assert_eq!(meter.read(200_000), 0.0);
        assert!(meter.points.len() <= RATE_POINTS_MAX);
    }

    #[test]
    fn when_a_total_falls_then_the_rate_starts_anew() {
        let counter = Counter::default();
        counter.set(1_000_000);
        let mut meter = Meter::new(counter.clone(), 1e-6);
        meter.tick(0);
        counter.set(0);
        meter.tick(1_000);
        counter.set(2_000_000_000);
        assert_eq!(meter.read(3_000), 1_000.0);
    }
}
