//! Windows over a keyed stream: assigners, and the builder that configures a window operator.
//!
//! Windows are sliced: a record is added to the one slice that its timestamp falls into, and the slices of a window
//! are combined when it fires. Semantics (lateness, firing, cleanup) are Flink's, see `SlicedWindows`.

use std::time::Duration;

use thalweg_model::{
    Record,
    time::{MIN_WATERMARK, window_start},
};
use thalweg_state::Migration;

use crate::{
    aggregate::{AggregateFunction, Reduce},
    fuse::Out,
    keyed::{KeySelector, KeyedStream},
    pipe::Pipe,
    side::OutputTag,
    stream::Stream,
    window_aggregate::WindowAggregate,
    window_list::WindowList,
};

/// A window of event time: `start_ms` inclusive, `end_ms` exclusive, milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeWindow {
    /// First millisecond.
    pub start_ms: i64,
    /// First millisecond behind the window.
    pub end_ms: i64,
}

impl TimeWindow {
    /// The last millisecond: the timestamp of what the window emits.
    pub const fn max_timestamp(self) -> i64 {
        self.end_ms - 1
    }
}

/// The shape of windows of event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Length of a window in milliseconds, at least one.
    pub size_ms: i64,
    /// Distance of their starts in milliseconds, at least one.
    pub slide_ms: i64,
    /// Shift of their starts against the epoch in milliseconds.
    pub offset_ms: i64,
}

/// Says which windows a timestamp falls into.
pub trait WindowAssigner: Clone + Send + 'static {
    /// The shape of the windows.
    fn windows(&self) -> Windows;
}

fn millis(duration: Duration, what: &str) -> i64 {
    let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    assert!(ms > 0, "the {what} of a window has to be at least one millisecond");
    ms
}

/// Windows that follow each other without overlap.
#[derive(Clone, Copy, Debug)]
pub struct TumblingEventTimeWindows(Windows);

impl TumblingEventTimeWindows {
    /// Windows of this size, aligned to the epoch.
    ///
    /// # Panics
    /// Where the size is under a millisecond.
    pub fn of(size: Duration) -> Self {
        let size_ms = millis(size, "size");
        Self(Windows { size_ms, slide_ms: size_ms, offset_ms: 0 })
    }

    /// Shifts the windows' starts.
    #[must_use]
    pub fn with_offset(mut self, offset_ms: i64) -> Self {
        self.0.offset_ms = offset_ms;
        self
    }
}

impl WindowAssigner for TumblingEventTimeWindows {
    fn windows(&self) -> Windows {
        self.0
    }
}

/// Windows that start at regular distances and may overlap.
#[derive(Clone, Copy, Debug)]
pub struct SlidingEventTimeWindows(Windows);

impl SlidingEventTimeWindows {
    /// Windows of `size`, one each `slide`.
    ///
    /// # Panics
    /// Where either is under a millisecond.
    pub fn of(size: Duration, slide: Duration) -> Self {
        Self(Windows { size_ms: millis(size, "size"), slide_ms: millis(slide, "slide"), offset_ms: 0 })
    }

    /// Shifts the windows' starts.
    #[must_use]
    pub fn with_offset(mut self, offset_ms: i64) -> Self {
        self.0.offset_ms = offset_ms;
        self
    }
}

impl WindowAssigner for SlidingEventTimeWindows {
    fn windows(&self) -> Windows {
        self.0
    }
}

impl Windows {
    /// The length of a slice: no window begins or ends inside one.
    pub(crate) fn slice_ms(self) -> i64 {
        let (mut a, mut b) = (self.size_ms, self.slide_ms);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    }

    /// The start of the slice that a timestamp falls into.
    pub(crate) fn slice_of(self, timestamp: i64) -> i64 {
        window_start(timestamp, self.offset_ms, self.slice_ms())
    }

    /// The last window that holds a timestamp; with gaps between windows it may end before it.
    pub(crate) fn last_window(self, timestamp: i64) -> TimeWindow {
        self.window_at(window_start(timestamp, self.offset_ms, self.slide_ms))
    }

    /// The first window that holds a timestamp.
    pub(crate) fn first_window(self, timestamp: i64) -> TimeWindow {
        let last = window_start(timestamp, self.offset_ms, self.slide_ms);
        // What has to lie behind the start of a window that still holds it, from the start of the last one on.
        let reach_ms = (timestamp - last) - self.size_ms;
        let earlier = reach_ms.div_euclid(self.slide_ms) + 1;
        self.window_at(last + earlier.min(0) * self.slide_ms)
    }

    /// Whether the windows of a timestamp begin and end within the time that 64 bits count. All else here is only right
    /// where they do.
    pub(crate) fn fit(self, timestamp: i64) -> bool {
        let reach_ms = self.size_ms.saturating_add(self.slide_ms);
        let is_far_from_the_ends =
            timestamp.checked_sub(reach_ms).is_some() && timestamp.checked_add(reach_ms).is_some();
        is_far_from_the_ends || self.fit_exactly(timestamp)
    }

    #[cold]
    fn fit_exactly(self, timestamp: i64) -> bool {
        let [timestamp, size, slide, offset] = [timestamp, self.size_ms, self.slide_ms, self.offset_ms].map(i128::from);
        let last = timestamp - (timestamp - offset).rem_euclid(slide);
        let earlier = (timestamp - size - last).div_euclid(slide) + 1;
        let first = last + earlier.min(0) * slide;
        // The first of all timestamps says that there is none, and is in no window.
        first > i128::from(i64::MIN) && last + size <= i128::from(i64::MAX)
    }

    /// What is wrong with a record whose windows do not [`fit`](Self::fit).
    pub(crate) fn unfit(self, timestamp: i64) -> String {
        if timestamp == MIN_WATERMARK {
            return format!(
                "a record without a timestamp ({timestamp}) has come to an event-time window: give each record one in \
                 assign_timestamps_and_watermarks"
            );
        }
        format!(
            "a record's timestamp of {timestamp} lies so near the end of time that a window of {} ms around it has no \
             place in 64 bits: check that timestamps are milliseconds since the epoch, or filter out such records before \
             the window",
            self.size_ms
        )
    }

    /// The first window that holds a timestamp and has not fired by a watermark; none where all have.
    pub(crate) fn first_open(self, timestamp: i64, watermark: i64) -> Option<TimeWindow> {
        let first = self.first_window(timestamp);
        if first.max_timestamp() > watermark {
            return (first.start_ms <= timestamp).then_some(first);
        }
        // They may lie at either end of time.
        let behind_ms = watermark.abs_diff(first.max_timestamp());
        let slide_ms = self.slide_ms.unsigned_abs();
        let start_ms = i128::from(first.start_ms) + (i128::from(behind_ms / slide_ms) + 1) * i128::from(slide_ms);
        let start_ms = i64::try_from(start_ms).ok().filter(|start_ms| *start_ms <= timestamp)?;
        Some(self.window_at(start_ms))
    }

    pub(crate) fn window_at(self, start_ms: i64) -> TimeWindow {
        TimeWindow { start_ms, end_ms: start_ms.saturating_add(self.size_ms) }
    }
}

/// A keyed stream cut into windows.
#[must_use = "a stream does nothing until it ends in a sink"]
pub struct WindowedStream<T: Record, P: Pipe<Out = T>, S: KeySelector<T>, W: WindowAssigner> {
    keyed: KeyedStream<T, P, S>,
    assigner: W,
    lateness_ms: i64,
    late: Option<OutputTag<T>>,
}

/// What a window operator needs to know besides what it computes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowConfig {
    pub windows: Windows,
    pub lateness_ms: i64,
    /// Side output port for records that come too late.
    pub late_port: Option<usize>,
}

impl<T: Record, P: Pipe<Out = T>, S: KeySelector<T>, W: WindowAssigner> WindowedStream<T, P, S, W> {
    pub(crate) fn new(keyed: KeyedStream<T, P, S>, assigner: W) -> Self {
        assert!(
            keyed.stream.timed,
            "event-time windows need timestamps: call assign_timestamps_and_watermarks before key_by"
        );
        Self { keyed, assigner, lateness_ms: 0, late: None }
    }

    /// How long after its end a window still takes records, firing again for each.
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.lateness_ms = i64::try_from(lateness.as_millis()).unwrap_or(i64::MAX);
        self
    }

    /// Sends records that come too late to a side output instead of dropping them.
    pub fn side_output_late_data(mut self, tag: &OutputTag<T>) -> Self {
        self.late = Some(tag.clone());
        self
    }

    fn head<H: Pipe>(self, name: &str, make: impl FnOnce(S, WindowConfig) -> H) -> Stream<H::Out, H> {
        let (windows, lateness_ms, late) = (self.assigner.windows(), self.lateness_ms, self.late);
        self.keyed.head(name, |selector, ports| {
            let late_port = late.map(|tag| ports.port(&tag).unwrap_or_else(|error| panic!("{error}")));
            make(selector, WindowConfig { windows, lateness_ms, late_port })
        })
    }

    /// Aggregates incrementally; when a window fires, `result` makes a record of the key, the window and the aggregate.
    /// Accumulators are kept; where their type changes, the aggregate says [how](AggregateFunction::migration).
    pub fn aggregate<A, O, F>(self, aggregate: A, result: F) -> Stream<O, WindowAggregate<T, S, A, F, O>>
    where
        A: AggregateFunction<T>,
        O: Record,
        F: for<'k> FnMut(<S::Key as Record>::View<'k>, TimeWindow, A::Out) -> O + Clone + Send + 'static,
    {
        self.head("Window", |selector, config| WindowAggregate::new(selector, aggregate, result, config))
    }

    /// Combines the records of a window two at a time; when it fires, `result` makes a record of the combination.
    pub fn reduce<O, F, R>(self, function: F, result: R) -> Stream<O, WindowAggregate<T, S, Reduce<T, F>, R, O>>
    where
        T: Clone,
        O: Record,
        F: for<'a, 'b> Fn(T::View<'a>, T::View<'b>) -> T + Clone + Send + 'static,
        R: for<'k> FnMut(<S::Key as Record>::View<'k>, TimeWindow, T) -> O + Clone + Send + 'static,
    {
        self.aggregate(Reduce::new(function), result)
    }

    /// As [`reduce`](Self::reduce), where checkpoints may hold combinations of an older type.
    pub fn reduce_migrating<O, F, R>(
        self,
        function: F,
        result: R,
        migration: &Migration<T>,
    ) -> Stream<O, WindowAggregate<T, S, Reduce<T, F>, R, O>>
    where
        T: Clone,
        O: Record,
        F: for<'a, 'b> Fn(T::View<'a>, T::View<'b>) -> T + Clone + Send + 'static,
        R: for<'k> FnMut(<S::Key as Record>::View<'k>, TimeWindow, T) -> O + Clone + Send + 'static,
    {
        self.aggregate(Reduce::migrating(function, migration), result)
    }

    /// Keeps all records of a window; when it fires, `function` sees them in order of arrival and pushes any number of
    /// results. Prefer [`aggregate`](Self::aggregate) where it will do: it keeps one accumulator instead.
    pub fn process<O, F>(self, function: F) -> Stream<O, WindowList<T, S, F, O>>
    where
        O: Record,
        F: for<'k, 'e, 'o> FnMut(<S::Key as Record>::View<'k>, TimeWindow, WindowElements<'e, T>, &mut Out<'o, O>)
            + Clone
            + Send
            + 'static,
    {
        self.head("Window", |selector, config| WindowList::new(selector, function, config, None))
    }

    /// As [`process`](Self::process), where checkpoints may hold records of an older type.
    pub fn process_migrating<O, F>(self, function: F, migration: &Migration<T>) -> Stream<O, WindowList<T, S, F, O>>
    where
        O: Record,
        F: for<'k, 'e, 'o> FnMut(<S::Key as Record>::View<'k>, TimeWindow, WindowElements<'e, T>, &mut Out<'o, O>)
            + Clone
            + Send
            + 'static,
    {
        let migration = Some(migration.clone());
        self.head("Window", |selector, config| WindowList::new(selector, function, config, migration))
    }
}

pub use crate::window_list::WindowElements;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_windows_overlap_then_first_and_last_hold_the_timestamp() {
        for (size_ms, slide_ms) in [(10, 10), (10, 2), (10, 3), (7, 5)] {
            for offset_ms in [0, 1, -3] {
                let windows = Windows { size_ms, slide_ms, offset_ms };
                for timestamp in -40..40 {
                    let holding: Vec<i64> = (-100..100)
                        .map(|n| n * slide_ms + offset_ms)
                        .filter(|&start| start <= timestamp && timestamp < start + size_ms)
                        .collect();
                    assert_eq!(windows.first_window(timestamp).start_ms, holding[0], "{windows:?} {timestamp}");
                    assert_eq!(windows.last_window(timestamp).start_ms, holding[holding.len() - 1]);
                    let slice = windows.slice_of(timestamp);
                    assert!(slice <= timestamp && timestamp < slice + windows.slice_ms());
                    assert!(windows.fit(timestamp));
                }
            }
        }
    }

    /// All in 128 bits: the starts of the windows that hold a timestamp.
    fn holding(windows: Windows, timestamp: i64) -> Vec<i128> {
        let [timestamp, size, slide, offset] =
            [timestamp, windows.size_ms, windows.slide_ms, windows.offset_ms].map(i128::from);
        let last = timestamp - (timestamp - offset).rem_euclid(slide);
        (0..).map(|n| last - n * slide).take_while(|start| *start > timestamp - size).collect()
    }

    #[test]
    fn when_a_timestamp_is_near_the_end_of_time_then_its_windows_are_right_or_do_not_fit() {
        for (size_ms, slide_ms) in
            [(10, 10), (8, 8), (10, 2), (10, 3), (7, 5), (i64::MAX, i64::MAX), (i64::MAX, i64::MAX / 3)]
        {
            for offset_ms in [0, 1, -3] {
                let windows = Windows { size_ms, slide_ms, offset_ms };
                let near = (0..40).flat_map(|n| [i64::MIN + n, i64::MAX - n, n - 20]);
                for timestamp in near {
                    let starts = holding(windows, timestamp);
                    let (first, last) = (starts[starts.len() - 1], starts[0]);
                    let fit = first > i128::from(i64::MIN) && last + i128::from(size_ms) <= i128::from(i64::MAX);
                    assert_eq!(windows.fit(timestamp), fit, "{windows:?} {timestamp}");
                    if fit {
                        assert_eq!(
                            i128::from(windows.first_window(timestamp).start_ms),
                            first,
                            "{windows:?} {timestamp}"
                        );
                        assert_eq!(
                            i128::from(windows.last_window(timestamp).start_ms),
                            last,
                            "{windows:?} {timestamp}"
                        );
                        let open = windows.first_open(timestamp, i64::MIN);
                        assert_eq!(open, Some(windows.first_window(timestamp)), "{windows:?} {timestamp}");
                        assert_eq!(windows.first_open(timestamp, i64::MAX), None, "{windows:?} {timestamp}");
                    }
                }
            }
        }
    }
}
