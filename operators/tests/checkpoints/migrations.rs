//! Types that have changed in what is no keyed state of a function: lists of operators, and what aggregates accumulate.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

use thalweg::{
    checkpoint::{Migration, OperatorRestore, OperatorSnapshot},
    prelude::*,
    runtime::{StopMode, TaskError},
    sink::{Collected, for_each},
};

use crate::{numbers::*, unaligned::unaligned};

/// A total of either build: how many, and what they say that there was before.
trait Total: Record + Clone {
    fn new(count: u64) -> Self;
    fn merge(&mut self, other: &Self);
    fn less(&mut self, other: &Self);
    fn row(&self) -> (u64, String);
}

macro_rules! total {
    ($build:ident { count: $count:ty, $text:ident: $new:literal }) => {
        mod $build {
            use thalweg::Record;

            #[derive(Record, Clone, Debug, PartialEq)]
            pub struct Total {
                pub count: $count,
                pub $text: String,
            }
        }
        impl Total for $build::Total {
            fn new(count: u64) -> Self {
                Self { count: <$count>::try_from(count).unwrap(), $text: $new.into() }
            }
            fn merge(&mut self, other: &Self) {
                self.count += other.count;
                if self.$text.is_empty() {
                    self.$text.clone_from(&other.$text);
                }
            }
            fn less(&mut self, other: &Self) {
                self.count -= other.count;
            }
            fn row(&self) -> (u64, String) {
                (u64::from(self.count), self.$text.clone())
            }
        }
    };
}
total!(v1 { count: u32, note: "old" });
total!(v2 { count: u64, currency: "" });

fn declared() -> Migration<v2::Total> {
    Migration::new().widen("count").remove_field("note").add_field("currency", "EUR".to_owned())
}

fn converted() -> Migration<v2::Total> {
    Migration::convert::<v1::Total>(|old| v2::Total { count: old.count.into(), currency: "EUR".to_owned() })
}

fn not_all_declared() -> Migration<v2::Total> {
    Migration::new().widen("count").remove_field("note")
}

/// Counts numbers in totals; with a running table where windows overlap, or without.
#[derive(Clone)]
struct Tally<T: Total, const RUNNING: bool>(Option<Migration<T>>);

impl<T: Total, const RUNNING: bool> AggregateFunction<u64> for Tally<T, RUNNING> {
    type Acc = T;
    type Out = (u64, String);
    const INVERTIBLE: bool = RUNNING;

    fn create(&self) -> T {
        T::new(0)
    }
    fn add(&self, acc: &mut T, _: u64) {
        acc.merge(&T::new(1));
    }
    fn merge(&self, acc: &mut T, other: &T) {
        acc.merge(other);
    }
    fn retract(&self, acc: &mut T, other: &T) {
        acc.less(other);
    }
    fn result(&self, acc: &T) -> (u64, String) {
        acc.row()
    }
    fn migration(&self) -> Option<Migration<T>> {
        self.0.clone()
    }
}

/// What keeps totals.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Keeper {
    Windows,
    RunningWindows,
    ReducingWindows,
    ListingWindows,
    WindowsOverAll,
    Aggregate,
    Reduce,
}

impl Keeper {
    const ALL: [Self; 7] = [
        Self::Windows,
        Self::RunningWindows,
        Self::ReducingWindows,
        Self::ListingWindows,
        Self::WindowsOverAll,
        Self::Aggregate,
        Self::Reduce,
    ];

    /// The name of its state, or how that begins.
    fn state(self) -> &'static str {
        if matches!(self, Self::Aggregate | Self::Reduce) { "aggregate" } else { "window-contents" }
    }
}

/// Rows: the begin of a window in hours (0 where there are none), how many numbers, and the text of the total.
type Row = (i64, u64, String);

const HOUR_MS: i64 = 3_600_000;
/// So many numbers of each split fall into the first hour, all others into the second.
const FIRST: u64 = 50;

fn row(window: TimeWindow, (count, text): (u64, String)) -> Row {
    (window.start_ms / HOUR_MS, count, text)
}

fn sum<T: Total>(a: T::View<'_>, b: T::View<'_>) -> T {
    let mut sum = T::from_view(a);
    sum.merge(&T::from_view(b));
    sum
}

/// Counts numbers in windows of two hours, one an hour, or as they come.
fn keeping<T: Total>(
    env: &Environment,
    numbers: Numbers,
    keeper: Keeper,
    migration: Option<Migration<T>>,
) -> Collected<Row> {
    let (sink, rows) = collect();
    let hour = |n: u64| if n % SPLIT < FIRST { 0 } else { HOUR_MS };
    let timed = env
        .from_source("Numbers", numbers)
        .uid("numbers of totals")
        .assign_timestamps_and_watermarks(WatermarkStrategy::monotonous().with_timestamp(hour));
    let windows = SlidingEventTimeWindows::of(Duration::from_secs(2 * 3600), Duration::from_secs(3600));
    if keeper == Keeper::WindowsOverAll {
        timed.window_all(windows).aggregate(Tally::<T, false>(migration), row).uid("totals").sink(sink);
        return rows;
    }
    if matches!(keeper, Keeper::ReducingWindows | Keeper::ListingWindows | Keeper::Reduce) {
        let keyed = timed.map(|_| T::new(1)).key_by(|_| 7u64);
        match keeper {
            Keeper::ReducingWindows => {
                let result = |_: u64, window: TimeWindow, total: T| row(window, total.row());
                match migration {
                    None => keyed.window(windows).reduce(sum::<T>, result),
                    Some(migration) => keyed.window(windows).reduce_migrating(sum::<T>, result, &migration),
                }
                .uid("totals")
                .sink(sink);
            }
            Keeper::ListingWindows => {
                let function = |_: u64, window: TimeWindow, all: WindowElements<'_, T>, out: &mut Out<'_, Row>| {
                    let mut total = T::new(0);
                    all.iter().for_each(|element| total.merge(&T::from_view(element)));
                    out.push(row(window, total.row()).view());
                };
                match migration {
                    None => keyed.window(windows).process(function),
                    Some(migration) => keyed.window(windows).process_migrating(function, &migration),
                }
                .uid("totals")
                .sink(sink);
            }
            _ => {
                let row = |total: T::View<'_>| {
                    let (count, text) = T::from_view(total).row();
                    (0, count, text)
                };
                match migration {
                    None => drop(keyed.reduce(sum::<T>).uid("totals").map(row).sink(sink)),
                    Some(migration) => {
                        keyed.reduce_migrating(sum::<T>, &migration).uid("totals").map(row).sink(sink);
                    }
                }
            }
        }
        return rows;
    }
    let keyed = timed.key_by(|_| 7u64);
    match keeper {
        Keeper::Windows => {
            let tally = Tally::<T, false>(migration);
            keyed.window(windows).aggregate(tally, |_, window, out| row(window, out)).uid("totals").sink(sink);
        }
        Keeper::RunningWindows => {
            let tally = Tally::<T, true>(migration);
            keyed.window(windows).aggregate(tally, |_, window, out| row(window, out)).uid("totals").sink(sink);
        }
        _ => {
            let tally = Tally::<T, false>(migration);
            keyed.aggregate(tally, |_, (count, text)| (0, count, text)).uid("totals").sink(sink);
        }
    }
    rows
}

/// Stops a job that `build` makes, once `is_enough` has come true; answers where its savepoint is.
fn stopped<R>(dir: &Path, build: impl FnOnce(&Environment) -> R, mut is_enough: impl FnMut(&R) -> bool) -> PathBuf {
    let env = environment_in(&dir.join("checkpoints"), 1);
    let built = build(&env);
    let running = env.execute_async().unwrap();
    wait_until("checkpoint", || completed(&running) > 0);
    wait_until("enough", || is_enough(&built));
    let savepoint = running.stop_with_savepoint(Some(&dir.join("savepoints")), StopMode::Suspend).wait().unwrap();
    running.wait().unwrap();
    savepoint.location.into()
}

/// Runs the new build, from the savepoint, to its end.
fn new_build(
    dir: &Path,
    savepoint: &Path,
    keeper: Keeper,
    migration: Option<Migration<v2::Total>>,
) -> Result<Vec<Row>, String> {
    let env = restored(&dir.join("checkpoints"), Some(savepoint), 2);
    let (numbers, until) = Numbers::endless();
    until.store(ALL, Relaxed);
    let rows = keeping::<v2::Total>(&env, numbers, keeper, migration);
    env.execute().map_err(|error| error.to_string())?;
    Ok(rows.take())
}

#[test]
fn when_what_is_accumulated_has_another_type_then_it_is_migrated_as_declared_and_refused_otherwise() {
    for keeper in Keeper::ALL {
        let dir = tempfile::tempdir().unwrap();
        let old = |env: &Environment| keeping::<v1::Total>(env, Numbers::endless().0, keeper, None);
        // Once the first window has fired, or there is something for certain, the next windows have something too.
        let savepoint = stopped(dir.path(), old, |rows| rows.take().iter().any(|row| row.2 == "old"));

        for (migration, field) in [(None, "count: u32`"), (Some(not_all_declared()), "field `currency`")] {
            let refused = new_build(dir.path(), &savepoint, keeper, migration).unwrap_err();
            assert!(refused.contains(field), "{keeper:?}: {refused}");
            assert!(refused.contains(&format!("state \"{}", keeper.state())), "{keeper:?}: {refused}");
        }
        for migration in [declared(), converted()] {
            let rows = new_build(dir.path(), &savepoint, keeper, Some(migration)).unwrap();
            if keeper.state() == "aggregate" {
                assert!(rows.iter().all(|row| row.2 == "EUR"), "{keeper:?}: {rows:?}");
                assert_eq!(rows.iter().map(|row| row.1).max(), Some(2 * ALL), "{keeper:?}");
            } else {
                let expected = [(0, 2 * ALL, "EUR".to_owned()), (1, 2 * (ALL - FIRST), "EUR".to_owned())];
                assert_eq!(rows, expected, "{keeper:?}");
            }
        }
    }
}

/// What of a function's operator state is declared to have changed.
type Declared<T> = fn(&str) -> Option<Migration<T>>;

/// Keeps totals in operator state of each kind, and tells of what it was restored with.
#[derive(Clone)]
struct Lists<T: Total> {
    declared: Declared<T>,
    found: Vec<(String, u64, String)>,
}

const KINDS: [&str; 4] = ["list", "union", "broadcast", "positions"];

impl<T: Total> KeyedProcessFunction<u64, u64> for Lists<T> {
    type Out = (String, u64, String);

    fn process<E: Emit<Self::Out>>(
        &mut self,
        n: u64,
        _: &mut KeyContext<'_, u64>,
        out: &mut Collector<'_, Self::Out, E>,
    ) {
        self.found.drain(..).for_each(|found| out.collect(found.view()));
        out.collect(("number", n, ""));
    }
    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), TaskError> {
        snapshot.list(KINDS[0], [1, 2, 3].map(T::new));
        snapshot.union_list(KINDS[1], [4].map(T::new));
        snapshot.broadcast(KINDS[2], [5, 6].map(T::new));
        snapshot.positions(KINDS[3], [7].map(T::new));
        Ok(())
    }
    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), TaskError> {
        for kind in KINDS {
            let totals: Vec<T> = match (kind, (self.declared)(kind)) {
                ("list", Some(migration)) => restored.list_migrating(kind, &migration)?,
                ("list", None) => restored.list(kind)?,
                ("union", Some(migration)) => restored.union_list_migrating(kind, &migration)?,
                ("union", None) => restored.union_list(kind)?,
                ("broadcast", Some(migration)) => restored.broadcast_migrating(kind, &migration)?,
                ("broadcast", None) => restored.broadcast(kind)?,
                (_, Some(migration)) => restored.positions_migrating(kind, &migration)?,
                (_, None) => restored.positions(kind)?,
            };
            let rows = totals.into_iter().map(|total| total.row());
            self.found.extend(rows.map(|(count, text)| (kind.to_owned(), count, text)));
        }
        Ok(())
    }
}

/// A function with operator state, in front of a sink that waits so long for each row.
fn listing<T: Total>(
    env: &Environment,
    numbers: Numbers,
    declared: Declared<T>,
    wait: Duration,
) -> Arc<Mutex<Vec<(String, u64, String)>>> {
    let rows = Arc::new(Mutex::new(Vec::new()));
    let taken = rows.clone();
    env.from_source("Numbers", numbers)
        .uid("numbers")
        .rebalance()
        .map(|n| n)
        .uid("map")
        .key_by(|n| n % 10)
        .process(Lists { declared, found: Vec::new() })
        .name("Lists")
        .uid("lists")
        .sink(for_each(move |(what, count, text): (&str, u64, &str)| {
            std::thread::sleep(wait);
            if what != "number" {
                taken.lock().unwrap().push((what.to_owned(), count, text.to_owned()));
            }
        }))
        .uid("sink")
        .parallelism(1)
        .slot_sharing_group("sink");
    rows
}

fn new_lists(
    dir: &Path,
    savepoint: &Path,
    declared: Declared<v2::Total>,
) -> Result<Vec<(String, u64, String)>, String> {
    let env = restored(&dir.join("checkpoints"), Some(savepoint), 2);
    let (numbers, until) = Numbers::endless();
    until.store(ALL, Relaxed);
    let rows = listing::<v2::Total>(&env, numbers, declared, Duration::ZERO);
    env.execute().map_err(|error| error.to_string())?;
    let mut rows = std::mem::take(&mut *rows.lock().unwrap());
    rows.sort();
    Ok(rows)
}

#[test]
fn when_elements_of_operator_state_have_another_type_then_they_are_migrated_as_declared_and_refused_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let old = |env: &Environment| listing::<v1::Total>(env, Numbers::endless().0, |_| None, Duration::ZERO);
    let savepoint = stopped(dir.path(), old, |_| true);

    let without: [(&str, Declared<v2::Total>); 4] = [
        ("list", |kind| (kind != "list").then(declared)),
        ("union", |kind| (kind != "union").then(declared)),
        ("broadcast", |kind| (kind != "broadcast").then(declared)),
        ("positions", |kind| (kind != "positions").then(declared)),
    ];
    for (state, declared) in without {
        let refused = new_lists(dir.path(), &savepoint, declared).unwrap_err();
        assert!(refused.contains("Lists") && refused.contains(&format!("state {state:?}")), "{refused}");
        assert!(refused.contains("field `count: u32`") && refused.contains("the job has `count: u64`"), "{refused}");
    }
    let refused = new_lists(dir.path(), &savepoint, |_| Some(not_all_declared())).unwrap_err();
    assert!(refused.contains("state \"list\"") && refused.contains("field `currency`"), "{refused}");

    for declared in [|_: &str| Some(declared()), |_: &str| Some(converted())] {
        let rows = new_lists(dir.path(), &savepoint, declared).unwrap();
        // Lists are dealt out to the two subtasks, of the others each finds all.
        let twice = [("broadcast", 5), ("broadcast", 6), ("positions", 7), ("union", 4)].map(|row| [row; 2]);
        let mut expected = twice.concat();
        expected.extend([("list", 1), ("list", 2), ("list", 3)]);
        expected.sort_unstable();
        let expected: Vec<_> = expected.into_iter().map(|(kind, n)| (kind.to_owned(), n, "EUR".to_owned())).collect();
        assert_eq!(rows, expected);
    }
}

#[test]
fn when_records_are_in_flight_then_no_type_is_migrated() {
    let dir = tempfile::tempdir().unwrap();
    let env = environment_in(dir.path(), 2);
    unaligned(&env, Duration::ZERO);
    listing::<v1::Total>(&env, Numbers::endless().0, |_| None, Duration::from_millis(2));
    keeping::<v1::Total>(&env, Numbers::endless().0, Keeper::Windows, None);
    let job = env.execute_async().unwrap();
    wait_until("checkpoint with records in flight", || {
        let newest = job.control().checkpoints().and_then(|statistics| statistics.latest_completed().cloned());
        newest.is_some_and(|newest| newest.totals.persisted_bytes > 8_000)
    });
    job.cancel();
    assert!(is_cancelled(job.wait()));

    let refused = |build: &dyn Fn(&Environment)| {
        let env = restored(dir.path(), None, 2);
        // Keeps the checkpoint for whoever comes next.
        env.checkpoint_config(|options| options.retention = CheckpointRetention::RetainOnCancellation);
        build(&env);
        env.execute().unwrap_err().to_string()
    };
    let numbers = || {
        let (numbers, until) = Numbers::endless();
        until.store(ALL, Relaxed);
        numbers
    };
    let lists = refused(&|env| {
        listing::<v2::Total>(env, numbers(), |_| Some(declared()), Duration::ZERO);
        keeping::<v1::Total>(env, numbers(), Keeper::Windows, None);
    });
    let windows = refused(&|env| {
        listing::<v1::Total>(env, numbers(), |_| None, Duration::ZERO);
        keeping::<v2::Total>(env, numbers(), Keeper::Windows, Some(declared()));
    });
    for (refused, state) in [(lists, "list"), (windows, "window-contents")] {
        assert!(refused.contains(&format!("state \"{state}")), "{refused}");
        assert!(refused.contains("types cannot be migrated while records of them are in flight"), "{refused}");
    }
}
