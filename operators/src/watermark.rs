//! Timestamps and watermarks: strategies, and the operator that applies one.

use std::{sync::Arc, time::Duration};

use thalweg_model::{Elem, Record, time::MIN_WATERMARK};
use thalweg_runtime::{Clock, SegmentContext};

use crate::{fuse::Step, op_metrics::OpMetrics, pipe::Emit};

/// Makes watermarks from the timestamps it sees. Implement it for a generator of your own.
pub trait WatermarkGenerator: Send + 'static {
    /// A record with this timestamp has come; answers a watermark to emit at once, if any (punctuated generators).
    fn on_event(&mut self, timestamp: i64) -> Option<i64>;
    /// The interval has passed; answers the watermark so far, if any. Lower ones than before are ignored.
    fn on_periodic(&mut self) -> Option<i64>;
}

/// Records are at most `delay_ms` out of order: the watermark is the largest timestamp, less the delay, less one.
#[derive(Clone, Debug)]
pub struct BoundedOutOfOrderness {
    largest: i64,
    delay_ms: i64,
}

impl BoundedOutOfOrderness {
    /// A generator that allows for this delay.
    pub fn new(delay: Duration) -> Self {
        Self { largest: MIN_WATERMARK, delay_ms: i64::try_from(delay.as_millis()).unwrap_or(i64::MAX) }
    }
}

impl WatermarkGenerator for BoundedOutOfOrderness {
    #[inline(always)]
    fn on_event(&mut self, timestamp: i64) -> Option<i64> {
        self.largest = self.largest.max(timestamp);
        None
    }
    fn on_periodic(&mut self) -> Option<i64> {
        (self.largest != MIN_WATERMARK).then(|| self.largest.saturating_sub(self.delay_ms).saturating_sub(1))
    }
}

type MakeGenerator = Arc<dyn Fn() -> Generator + Send + Sync>;

pub(crate) enum Generator {
    Bounded(BoundedOutOfOrderness),
    Custom(Box<dyn WatermarkGenerator>),
}

impl Generator {
    #[inline(always)]
    pub(crate) fn on_event(&mut self, timestamp: i64) -> Option<i64> {
        match self {
            Self::Bounded(generator) => generator.on_event(timestamp),
            Self::Custom(generator) => generator.on_event(timestamp),
        }
    }
    pub(crate) fn on_periodic(&mut self) -> Option<i64> {
        match self {
            Self::Bounded(generator) => generator.on_periodic(),
            Self::Custom(generator) => generator.on_periodic(),
        }
    }
}

/// How records get their timestamps, and how watermarks follow from them.
#[derive(Clone)]
pub struct WatermarkStrategy<F> {
    make: MakeGenerator,
    pub(crate) timestamp: F,
    idleness: Option<Duration>,
}

/// A strategy that still needs to know where timestamps are.
#[derive(Clone)]
pub struct UntimedStrategy(MakeGenerator);

impl WatermarkStrategy<()> {
    /// Timestamps never decrease (per subtask).
    pub fn monotonous() -> UntimedStrategy {
        Self::bounded_out_of_orderness(Duration::ZERO)
    }

    /// Timestamps are at most this much out of order.
    pub fn bounded_out_of_orderness(delay: Duration) -> UntimedStrategy {
        UntimedStrategy(Arc::new(move || Generator::Bounded(BoundedOutOfOrderness::new(delay))))
    }

    /// Watermarks come from a generator of your own, one per subtask.
    pub fn generator<G: WatermarkGenerator>(make: impl Fn() -> G + Send + Sync + 'static) -> UntimedStrategy {
        UntimedStrategy(Arc::new(move || Generator::Custom(Box::new(make()))))
    }
}

impl UntimedStrategy {
    /// Takes the timestamp, in milliseconds since the epoch, from each record.
    pub fn with_timestamp<F>(self, timestamp: F) -> WatermarkStrategy<F> {
        WatermarkStrategy { make: self.0, timestamp, idleness: None }
    }
}

impl<F> WatermarkStrategy<F> {
    pub(crate) fn make(&self) -> Generator {
        (self.make)()
    }

    pub(crate) fn has_idleness(&self) -> bool {
        self.idleness.is_some()
    }

    /// Declares a subtask idle when it has seen nothing for this long, so that it does not hold back the others. Without
    /// effect in a [`FileSource`](crate::file_source::FileSource), where nothing is waited for.
    #[must_use]
    pub fn with_idleness(mut self, timeout: Duration) -> Self {
        self.idleness = Some(timeout);
        self
    }
}

/// The operator that applies a [`WatermarkStrategy`]. Watermarks that arrive from before it are dropped, except the last.
pub struct WatermarkStep<F> {
    strategy: WatermarkStrategy<F>,
    generator: Generator,
    last: i64,
    interval_ms: i64,
    next_ms: Option<i64>,
    clock: Option<Arc<dyn Clock>>,
    seen: u64,
    seen_at_last_period: u64,
    quiet_since_ms: i64,
    idle: bool,
}

impl<F> WatermarkStep<F> {
    pub(crate) fn new(strategy: WatermarkStrategy<F>) -> Self {
        let generator = (strategy.make)();
        Self {
            strategy,
            generator,
            last: MIN_WATERMARK,
            interval_ms: 0,
            next_ms: None,
            clock: None,
            seen: 0,
            seen_at_last_period: 0,
            quiet_since_ms: 0,
            idle: false,
        }
    }

    #[inline(always)]
    fn advance<T: Record, E: Emit<T>>(&mut self, watermark: Option<i64>, emit: &mut E) {
        if let Some(watermark) = watermark.filter(|&watermark| watermark > self.last) {
            self.last = watermark;
            emit.watermark(watermark);
        }
    }

    fn wake<T: Record, E: Emit<T>>(&mut self, emit: &mut E) {
        self.idle = false;
        emit.idle(false);
    }
}

impl<F: Clone> Clone for WatermarkStep<F> {
    fn clone(&self) -> Self {
        Self::new(self.strategy.clone())
    }
}

impl<T: Record, F> Step<T> for WatermarkStep<F>
where
    F: for<'v> FnMut(T::View<'v>) -> i64 + Clone + Send + 'static,
{
    type Out = T;

    fn open(&mut self, ctx: &mut SegmentContext, _metrics: &OpMetrics) {
        self.interval_ms = i64::try_from(ctx.auto_watermark_interval_ms).unwrap_or(i64::MAX);
        self.quiet_since_ms = ctx.clock.now_ms();
        self.next_ms = (self.interval_ms > 0).then(|| ctx.clock.now_ms() + self.interval_ms);
        self.clock = Some(ctx.clock.clone());
    }

    #[inline(always)]
    fn step<E: Emit<T>>(&mut self, elem: Elem<'_, T>, emit: &mut E) {
        let timestamp = (self.strategy.timestamp)(elem.view);
        if self.idle {
            self.wake(emit);
        }
        self.seen += 1;
        emit.emit(Elem { timestamp, ..elem });
        let watermark = self.generator.on_event(timestamp);
        self.advance(watermark, emit);
    }

    fn watermark<E: Emit<T>>(&mut self, watermark: i64, emit: &mut E) {
        if watermark == i64::MAX {
            self.next_ms = None;
            if self.idle {
                self.wake(emit);
            }
            self.advance(Some(watermark), emit);
        }
    }

    fn idle<E: Emit<T>>(&mut self, idle: bool, emit: &mut E) {
        if idle != self.idle {
            self.idle = idle;
            emit.idle(idle);
        }
    }

    fn next_deadline_ms(&self) -> Option<i64> {
        self.next_ms
    }

    fn processing_time<E: Emit<T>>(&mut self, now_ms: i64, emit: &mut E) {
        self.next_ms = Some(now_ms.saturating_add(self.interval_ms));
        let watermark = self.generator.on_periodic();
        if !self.idle {
            self.advance(watermark, emit);
        }
        if self.seen != self.seen_at_last_period {
            self.seen_at_last_period = self.seen;
            self.quiet_since_ms = now_ms;
        } else if let Some(timeout) = self.strategy.idleness
            && !self.idle
            && now_ms - self.quiet_since_ms >= i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX)
        {
            self.idle = true;
            emit.idle(true);
        }
    }
}
