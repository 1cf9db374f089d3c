//! `SlicedWindows`: which slices there are, which window fires next, and which records come too late.
//!
//! Holds the rules only; what a slice keeps per key is a type parameter. Rules (Flink's `WindowOperator`): a window fires
//! when the watermark reaches its last millisecond; it is cleaned up `lateness` after that; a record is late when all its
//! windows have been cleaned up, or where it has none, in a gap between windows, when `lateness` has passed since its own
//! time; a record whose window has fired but not been cleaned up fires it again at once.

use thalweg_model::time::MIN_WATERMARK;

use crate::window::{TimeWindow, WindowConfig};

/// What a slice keeps.
pub(crate) trait SliceContents {
    /// Whether somebody still reads what it held before, so that it may neither go nor serve another slice.
    fn is_kept(&self) -> bool {
        false
    }
}

/// One slice of time and what it keeps.
pub(crate) struct Slice<T> {
    pub start_ms: i64,
    pub table: T,
}

/// What is to be done with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Add it to the slice at this index; all its windows are still to fire.
    OnTime(usize),
    /// Add it to the slice at this index; some of its windows have fired and fire again.
    Refire(usize),
    /// It comes too late for all its windows.
    Late,
    /// It falls into a gap between windows.
    Nowhere,
    /// Its windows are not all within the time that 64 bits count.
    Unfit,
}

/// The slices of one subtask, ordered by time, and the windows over them.
pub(crate) struct SlicedWindows<T> {
    pub config: WindowConfig,
    pub slices: Vec<Slice<T>>,
    free: Vec<T>,
    pub watermark: i64,
    next: Option<TimeWindow>,
    slice_ms: i64,
    recent: Option<Recent>,
}

/// The slice of the last record: most records fall into the same one.
#[derive(Clone, Copy)]
struct Recent {
    start_ms: i64,
    end_ms: i64,
    place: Place,
}

/// Most tables that are kept for reuse.
const MAX_FREE_TABLES: usize = 8;

impl<T: SliceContents> SlicedWindows<T> {
    pub fn new(config: WindowConfig) -> Self {
        Self {
            config,
            slices: Vec::new(),
            free: Vec::new(),
            watermark: MIN_WATERMARK,
            next: None,
            slice_ms: config.windows.slice_ms(),
            recent: None,
        }
    }

    /// The table of the slice that records fall into at the moment.
    #[inline(always)]
    pub fn recent_table(&self) -> Option<&T> {
        match self.recent?.place {
            Place::OnTime(index) | Place::Refire(index) => Some(&self.slices[index].table),
            Place::Late | Place::Nowhere | Place::Unfit => None,
        }
    }

    /// Where a record with this timestamp goes; a slice is made for it if there is none.
    #[inline(always)]
    pub fn place(&mut self, timestamp: i64, make: impl FnOnce(Option<T>, i64) -> T) -> Place {
        match self.recent {
            Some(recent) if recent.start_ms <= timestamp && timestamp < recent.end_ms => recent.place,
            _ => self.place_in_other(timestamp, make),
        }
    }

    #[cold]
    fn place_in_other(&mut self, timestamp: i64, make: impl FnOnce(Option<T>, i64) -> T) -> Place {
        let place = self.place_under(self.watermark, timestamp, make);
        let start_ms = self.config.windows.slice_of(timestamp);
        let mut recent = Recent { start_ms, end_ms: start_ms.saturating_add(self.slice_ms), place };
        // In a gap what is late ends at a time, not at the end of a slice.
        let late_before = self.watermark.saturating_sub(self.config.lateness_ms).saturating_add(1);
        match place {
            Place::OnTime(_) | Place::Refire(_) => {}
            Place::Late if self.is_in_gap(timestamp) => recent.end_ms = recent.end_ms.min(late_before),
            Place::Late => {}
            Place::Nowhere => recent.start_ms = recent.start_ms.max(late_before),
            Place::Unfit => return place,
        }
        self.recent = Some(recent);
        place
    }

    /// The same, where the record's windows have fired up to another watermark.
    pub fn place_under(&mut self, watermark: i64, timestamp: i64, make: impl FnOnce(Option<T>, i64) -> T) -> Place {
        let windows = self.config.windows;
        if !windows.fit(timestamp) {
            return Place::Unfit;
        }
        let last = windows.last_window(timestamp);
        if last.end_ms <= timestamp {
            let is_late = timestamp.saturating_add(self.config.lateness_ms) <= watermark;
            return if is_late { Place::Late } else { Place::Nowhere };
        }
        if self.cleanup_time(last) <= watermark {
            return Place::Late;
        }
        // A new slice moves those behind it.
        self.recent = None;
        let index = self.slice_index(windows.slice_of(timestamp), make);
        self.schedule(timestamp);
        let first_is_open = windows.first_window(timestamp).max_timestamp() > watermark;
        if first_is_open { Place::OnTime(index) } else { Place::Refire(index) }
    }

    fn is_in_gap(&self, timestamp: i64) -> bool {
        self.config.windows.last_window(timestamp).end_ms <= timestamp
    }

    fn slice_index(&mut self, start_ms: i64, make: impl FnOnce(Option<T>, i64) -> T) -> usize {
        match self.slices.binary_search_by_key(&start_ms, |slice| slice.start_ms) {
            Ok(index) => index,
            Err(index) => {
                let free = self.free.iter().rposition(|table| !table.is_kept());
                let table = make(free.map(|at| self.free.swap_remove(at)), start_ms);
                self.slices.insert(index, Slice { start_ms, table });
                index
            }
        }
    }

    /// Makes sure that the first unfired window of a timestamp will fire.
    fn schedule(&mut self, timestamp: i64) {
        let first = self.config.windows.first_open(timestamp, self.watermark);
        if let Some(window) = first.filter(|window| self.next.is_none_or(|next| *window < next)) {
            self.next = Some(window);
        }
    }

    /// When a window is forgotten.
    fn cleanup_time(&self, window: TimeWindow) -> i64 {
        window.max_timestamp().saturating_add(self.config.lateness_ms)
    }

    /// The windows of a late record that have fired, up to this watermark, and are still kept.
    pub fn refiring(&self, watermark: i64, timestamp: i64) -> impl Iterator<Item = TimeWindow> + use<T> {
        let windows = self.config.windows;
        let lateness_ms = self.config.lateness_ms;
        let first = windows.first_window(timestamp);
        (0..)
            .map(move |n| windows.window_at(first.start_ms.saturating_add(windows.slide_ms.saturating_mul(n))))
            .take_while(move |window| window.start_ms <= timestamp && window.max_timestamp() <= watermark)
            .filter(move |window| window.max_timestamp().saturating_add(lateness_ms) > watermark)
    }

    /// The window that fires next under this watermark.
    pub fn due(&self, watermark: i64) -> Option<TimeWindow> {
        self.next.filter(|window| window.max_timestamp() <= watermark)
    }

    /// Notes that the window has fired; windows without records are skipped.
    pub fn fired(&mut self, window: TimeWindow) {
        let windows = self.config.windows;
        let after = window.start_ms.saturating_add(windows.slide_ms);
        self.next = self
            .slices
            .iter()
            .find(|slice| slice.start_ms >= after)
            .map(|slice| windows.window_at(windows.first_window(slice.start_ms).start_ms.max(after)));
    }

    /// The indices of the slices in a window.
    pub fn slices_of(&self, window: TimeWindow) -> std::ops::Range<usize> {
        let from = self.slices.partition_point(|slice| slice.start_ms < window.start_ms);
        let to = self.slices.partition_point(|slice| slice.start_ms < window.end_ms);
        from..to
    }

    /// Whether the first slice is in no window any more that this watermark keeps.
    pub fn first_has_expired(&self, watermark: i64) -> bool {
        self.slices
            .first()
            .is_some_and(|slice| self.cleanup_time(self.config.windows.last_window(slice.start_ms)) <= watermark)
    }

    /// Removes the first slice; its table, emptied by `reset`, may serve another.
    pub fn forget_first(&mut self, reset: impl FnOnce(&mut T)) {
        let mut slice = self.slices.remove(0);
        self.recent = None;
        reset(&mut slice.table);
        // One that is kept must stay, however many there are.
        if slice.table.is_kept() || self.free.len() < MAX_FREE_TABLES {
            self.free.push(slice.table);
        }
    }

    /// Puts a slice in that a checkpoint held; the watermark must have been set. Its windows that have not fired will.
    pub fn restore(&mut self, start_ms: i64, table: T) {
        let index = self.slices.partition_point(|slice| slice.start_ms < start_ms);
        self.slices.insert(index, Slice { start_ms, table });
        self.schedule(start_ms);
    }

    /// What all slices keep, and what is kept of others: with whether it is in use.
    pub fn tables_mut(&mut self) -> impl Iterator<Item = (&mut T, bool)> {
        let free = self.free.iter_mut().map(|table| (table, false));
        self.slices.iter_mut().map(|slice| (&mut slice.table, true)).chain(free)
    }

    /// Takes the watermark, once its windows have fired.
    pub fn advance(&mut self, watermark: i64) {
        self.watermark = self.watermark.max(watermark);
        self.recent = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Windows;

    impl SliceContents for () {}

    fn sliced(size_ms: i64, slide_ms: i64, lateness_ms: i64) -> SlicedWindows<()> {
        SlicedWindows::new(WindowConfig {
            windows: Windows { size_ms, slide_ms, offset_ms: 0 },
            lateness_ms,
            late_port: None,
        })
    }

    fn fire_all(sliced: &mut SlicedWindows<()>, watermark: i64) -> Vec<(i64, i64)> {
        let mut fired = Vec::new();
        while let Some(window) = sliced.due(watermark) {
            fired.push((window.start_ms, window.end_ms));
            sliced.fired(window);
        }
        while sliced.first_has_expired(watermark) {
            sliced.forget_first(|()| ());
        }
        sliced.advance(watermark);
        fired
    }

    #[test]
    fn when_windows_slide_then_each_with_records_fires_once() {
        let mut sliced = sliced(10, 5, 0);
        assert_eq!(sliced.place(7, |_, _| ()), Place::OnTime(0));
        assert_eq!(sliced.place(101, |_, _| ()), Place::OnTime(1));
        assert_eq!(fire_all(&mut sliced, 8), []);
        assert_eq!(fire_all(&mut sliced, 200), [(0, 10), (5, 15), (95, 105), (100, 110)]);
        assert!(sliced.slices.is_empty());
        assert_eq!(sliced.place(7, |_, _| ()), Place::Late);
    }

    #[test]
    fn when_a_record_is_late_but_allowed_then_its_fired_windows_fire_again() {
        let mut sliced = sliced(10, 5, 3);
        sliced.place(12, |_, _| ());
        assert_eq!(fire_all(&mut sliced, 15), [(5, 15)]);
        assert_eq!(sliced.place(13, |_, _| ()), Place::Refire(0));
        assert_eq!(sliced.refiring(sliced.watermark, 13).collect::<Vec<_>>(), [TimeWindow { start_ms: 5, end_ms: 15 }]);
        assert_eq!(sliced.place(7, |_, _| ()), Place::Refire(0), "its later window is still kept");
        assert_eq!(fire_all(&mut sliced, 17), []);
        assert_eq!(sliced.place(7, |_, _| ()), Place::Late);
        assert_eq!(sliced.place(11, |_, _| ()), Place::Refire(0));
        assert_eq!(
            sliced.refiring(sliced.watermark, 11).count(),
            0,
            "the first window is cleaned up, the second has not fired"
        );
    }

    #[test]
    fn when_there_are_gaps_between_windows_then_records_in_them_go_nowhere() {
        let mut sliced = sliced(5, 10, 0);
        assert_eq!(sliced.place(7, |_, _| ()), Place::Nowhere);
        assert_eq!(sliced.place(3, |_, _| ()), Place::OnTime(0));
        assert_eq!(fire_all(&mut sliced, 4), [(0, 5)]);
    }

    #[test]
    fn when_a_record_in_a_gap_is_older_than_the_lateness_then_it_is_late() {
        let mut sliced = sliced(5, 10, 1);
        fire_all(&mut sliced, 7);
        // Back and forth within one slice, whose place is remembered.
        for _ in 0..2 {
            assert_eq!(sliced.place(6, |_, _| ()), Place::Late);
            assert_eq!(sliced.place(7, |_, _| ()), Place::Nowhere);
            assert_eq!(sliced.place(9, |_, _| ()), Place::Nowhere);
            assert_eq!(sliced.place(5, |_, _| ()), Place::Late);
        }
        fire_all(&mut sliced, 8);
        assert_eq!(sliced.place(7, |_, _| ()), Place::Late);
        assert_eq!(sliced.place(8, |_, _| ()), Place::Nowhere);
    }

    #[test]
    fn when_windows_reach_beyond_the_end_of_time_then_a_record_has_no_place() {
        let mut sliced = sliced(10, 5, 0);
        for timestamp in [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX] {
            assert_eq!(sliced.place(timestamp, |_, _| ()), Place::Unfit, "{timestamp}");
        }
        let last = i64::MAX - 12;
        assert_eq!(sliced.place(last, |_, _| ()), Place::OnTime(0));
        assert_eq!(fire_all(&mut sliced, i64::MAX).len(), 2);
    }
}
