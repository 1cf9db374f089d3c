//! Aggregate functions: incremental, mergeable, and where possible invertible.

use thalweg_model::Record;
use thalweg_state::Migration;

/// An incremental aggregate over records of type `I`, as Flink's `AggregateFunction`.
pub trait AggregateFunction<I: Record>: Clone + Send + 'static {
    /// The accumulator, kept in state.
    type Acc: Record;
    /// What it amounts to.
    type Out;
    /// Whether [`retract`](Self::retract) undoes [`merge`](Self::merge): sliding windows then cost one merge and one
    /// retraction per slice and key, however small the slide.
    const INVERTIBLE: bool = false;

    /// An accumulator that has seen nothing.
    fn create(&self) -> Self::Acc;
    /// Takes one record.
    fn add(&self, acc: &mut Self::Acc, value: I::View<'_>);
    /// Takes everything that another accumulator has seen.
    fn merge(&self, acc: &mut Self::Acc, other: &Self::Acc);
    /// Undoes a merge. Only called where `INVERTIBLE`.
    fn retract(&self, acc: &mut Self::Acc, other: &Self::Acc) {
        let _ = (acc, other);
    }
    /// The result so far.
    fn result(&self, acc: &Self::Acc) -> Self::Out;
    /// How accumulators of an older type, which checkpoints may hold, become those of this one. Without it a job whose
    /// accumulators have changed is refused what it is restored from.
    fn migration(&self) -> Option<Migration<Self::Acc>> {
        None
    }
}

/// Counts records.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count;

impl<I: Record> AggregateFunction<I> for Count {
    type Acc = u64;
    type Out = u64;
    const INVERTIBLE: bool = true;

    #[inline(always)]
    fn create(&self) -> u64 {
        0
    }
    #[inline(always)]
    fn add(&self, acc: &mut u64, _value: I::View<'_>) {
        *acc += 1;
    }
    #[inline(always)]
    fn merge(&self, acc: &mut u64, other: &u64) {
        *acc += other;
    }
    #[inline(always)]
    fn retract(&self, acc: &mut u64, other: &u64) {
        *acc -= other;
    }
    #[inline(always)]
    fn result(&self, acc: &u64) -> u64 {
        *acc
    }
}

/// Sums what a function takes from each record; wraps around at the ends of `i64`.
#[derive(Clone, Copy, Debug)]
pub struct Sum<F>(
    /// What is summed.
    pub F,
);

impl<I: Record, F> AggregateFunction<I> for Sum<F>
where
    F: for<'v> Fn(I::View<'v>) -> i64 + Clone + Send + 'static,
{
    type Acc = i64;
    type Out = i64;
    const INVERTIBLE: bool = true;

    #[inline(always)]
    fn create(&self) -> i64 {
        0
    }
    #[inline(always)]
    fn add(&self, acc: &mut i64, value: I::View<'_>) {
        *acc = acc.wrapping_add((self.0)(value));
    }
    #[inline(always)]
    fn merge(&self, acc: &mut i64, other: &i64) {
        *acc = acc.wrapping_add(*other);
    }
    #[inline(always)]
    fn retract(&self, acc: &mut i64, other: &i64) {
        *acc = acc.wrapping_sub(*other);
    }
    #[inline(always)]
    fn result(&self, acc: &i64) -> i64 {
        *acc
    }
}

/// Combines records two at a time; the accumulator is the combination so far.
pub struct Reduce<T: Record, F> {
    function: F,
    migration: Option<Migration<Option<T>>>,
}

impl<T: Record, F> Reduce<T, F> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, migration: None }
    }

    pub(crate) fn migrating(function: F, migration: &Migration<T>) -> Self {
        Self { function, migration: Some(migration.in_option()) }
    }
}

impl<T: Record, F: Clone> Clone for Reduce<T, F> {
    fn clone(&self) -> Self {
        Self { function: self.function.clone(), migration: self.migration.clone() }
    }
}

impl<T, F> AggregateFunction<T> for Reduce<T, F>
where
    T: Record + Clone,
    F: for<'a, 'b> Fn(T::View<'a>, T::View<'b>) -> T + Clone + Send + 'static,
{
    type Acc = Option<T>;
    type Out = T;

    #[inline(always)]
    fn create(&self) -> Option<T> {
        None
    }
    #[inline(always)]
    fn add(&self, acc: &mut Option<T>, value: T::View<'_>) {
        let next = match acc.as_ref() {
            Some(so_far) => (self.function)(so_far.view(), value),
            None => T::from_view(value),
        };
        *acc = Some(next);
    }
    fn merge(&self, acc: &mut Option<T>, other: &Option<T>) {
        if let Some(other) = other {
            self.add(acc, other.view());
        }
    }
    #[inline(always)]
    fn result(&self, acc: &Option<T>) -> T {
        match acc {
            Some(value) => value.clone(),
            None => unreachable!("a result is only asked for after a record has been added"),
        }
    }
    fn migration(&self) -> Option<Migration<Option<T>>> {
        self.migration.clone()
    }
}
