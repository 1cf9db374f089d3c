//! State whose type has changed between two builds of a job: refused by the field, or migrated as declared.

use std::path::{Path, PathBuf};

use thalweg::{
    checkpoint::{Migration, OperatorRestore, OperatorSnapshot},
    prelude::*,
    runtime::{StopMode, TaskError},
};

use crate::numbers::*;

mod v1 {
    use thalweg::Record;

    #[derive(Record, Clone, Debug, PartialEq)]
    pub struct Total {
        pub count: u32,
        pub note: String,
    }
}

mod v2 {
    use thalweg::Record;

    #[derive(Record, Clone, Debug, PartialEq)]
    pub struct Total {
        pub count: u64,
        pub currency: String,
    }
}

/// What two builds of the function do differently.
trait Build: Clone + Send + 'static {
    type Total: Record + Clone;

    fn register(&self, ctx: &mut StateContext<'_, u64>) -> ValueState<Self::Total>;
    fn first() -> Self::Total;
    fn count(total: &mut Self::Total) -> u64;
    fn describe(total: &Self::Total) -> String;
}

#[derive(Clone)]
struct Old;

impl Build for Old {
    type Total = v1::Total;

    fn register(&self, ctx: &mut StateContext<'_, u64>) -> ValueState<v1::Total> {
        ctx.value_state("total")
    }
    fn first() -> v1::Total {
        v1::Total { count: 0, note: "old".into() }
    }
    fn count(total: &mut v1::Total) -> u64 {
        total.count += 1;
        total.count.into()
    }
    fn describe(total: &v1::Total) -> String {
        total.note.clone()
    }
}

#[derive(Clone)]
struct New(Option<Migration<v2::Total>>);

impl Build for New {
    type Total = v2::Total;

    fn register(&self, ctx: &mut StateContext<'_, u64>) -> ValueState<v2::Total> {
        match &self.0 {
            Some(migration) => ctx.value_state_migrating("total", migration),
            None => ctx.value_state("total"),
        }
    }
    fn first() -> v2::Total {
        v2::Total { count: 0, currency: "new".into() }
    }
    fn count(total: &mut v2::Total) -> u64 {
        total.count += 1;
        total.count
    }
    fn describe(total: &v2::Total) -> String {
        total.currency.clone()
    }
}

#[derive(Clone)]
struct Counting<B: Build> {
    build: B,
    total: ValueState<B::Total>,
    /// Operator state beside the keyed one.
    seen: u64,
}

impl<B: Build> KeyedProcessFunction<u64, u64> for Counting<B> {
    type Out = (u64, u64, String);

    fn open(&mut self, ctx: &mut StateContext<'_, u64>) {
        self.total = self.build.register(ctx);
    }
    fn process<E: Emit<Self::Out>>(
        &mut self,
        _: u64,
        ctx: &mut KeyContext<'_, u64>,
        out: &mut Collector<'_, Self::Out, E>,
    ) {
        self.seen += 1;
        let key = ctx.key();
        let (count, text) = self.total.update(ctx, B::first, |total| (B::count(total), B::describe(total)));
        out.collect((key, count, &text));
    }
    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot<'_>) -> Result<(), TaskError> {
        snapshot.list("seen", [self.seen]);
        Ok(())
    }
    fn restore(&mut self, restored: &OperatorRestore<'_>) -> Result<(), TaskError> {
        self.seen = restored.list::<u64>("seen")?.iter().sum();
        Ok(())
    }
}

fn job<B: Build>(env: &Environment, numbers: Numbers, build: B) -> thalweg::sink::Collected<(u64, u64, String)> {
    let (sink, rows) = collect();
    env.from_source("Numbers", numbers)
        .uid("numbers")
        .key_by(|_| 7u64)
        .process(Counting { build, total: ValueState::default(), seen: 0 })
        .uid("counting")
        .sink(sink);
    rows
}

/// Runs the old build up to a savepoint; answers where that is and how many it had counted.
fn old_build(dir: &Path) -> (PathBuf, u64) {
    let env = environment_in(&dir.join("checkpoints"), 1);
    let rows = job(&env, Numbers::endless().0, Old);
    let running = env.execute_async().unwrap();
    wait_until("checkpoint", || completed(&running) > 0);
    let savepoint = running.stop_with_savepoint(Some(&dir.join("savepoints")), StopMode::Suspend).wait().unwrap();
    running.wait().unwrap();
    (PathBuf::from(savepoint.location), rows.take().last().unwrap().1)
}

/// The first row of the new build, started from the savepoint.
fn new_build(dir: &Path, savepoint: &Path, build: New) -> Result<(u64, u64, String), thalweg::Error> {
    let env = restored(&dir.join("checkpoints"), Some(savepoint), 2);
    let (numbers, until) = Numbers::endless();
    let rows = job(&env, numbers, build);
    let running = env.execute_async().unwrap();
    let mut all = Vec::new();
    while all.is_empty() && !running.is_finished() {
        std::thread::sleep(std::time::Duration::from_millis(5));
        all.extend(rows.take());
    }
    until.store(0, std::sync::atomic::Ordering::Relaxed);
    let ran = running.wait();
    all.extend(rows.take());
    if all.is_empty() { Err(ran.err().unwrap()) } else { Ok(all.remove(0)) }
}

#[test]
fn when_a_type_has_changed_then_the_job_is_refused_by_the_field_unless_a_migration_is_declared() {
    let dir = tempfile::tempdir().unwrap();
    let (savepoint, count) = old_build(dir.path());

    let refused = new_build(dir.path(), &savepoint, New(None)).unwrap_err().to_string();
    assert!(refused.contains("`count: u32`") && refused.contains("`count: u64`"), "{refused}");
    assert!(refused.contains("migration"), "{refused}");

    let undeclared = Migration::new().widen("count").remove_field("note");
    let refused = new_build(dir.path(), &savepoint, New(Some(undeclared))).unwrap_err().to_string();
    assert!(refused.contains("currency"), "{refused}");

    let declared = Migration::new().widen("count").remove_field("note").add_field("currency", "EUR".to_owned());
    let row = new_build(dir.path(), &savepoint, New(Some(declared))).unwrap();
    assert_eq!(row, (7, count + 1, "EUR".to_owned()));

    let converted = Migration::convert::<v1::Total>(|old| v2::Total {
        count: u64::from(old.count),
        currency: format!("from {}", old.note),
    });
    let row = new_build(dir.path(), &savepoint, New(Some(converted))).unwrap();
    assert_eq!(row, (7, count + 1, "from old".to_owned()));
}
