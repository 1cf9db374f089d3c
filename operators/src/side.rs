//! Side outputs: tags, and the collector that a process function emits through.

use std::{
    any::TypeId,
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use thalweg_model::{Elem, Record};

use crate::{error::BuildError, pipe::Emit};

/// Names a side output and its record type.
#[derive(Debug)]
pub struct OutputTag<U> {
    name: String,
    types: PhantomData<fn() -> U>,
}

impl<U> Clone for OutputTag<U> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), types: PhantomData }
    }
}

impl<U: Record> OutputTag<U> {
    /// A tag of this name. Two tags of one name on one operator must have one type.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), types: PhantomData }
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The names of a segment's side outputs, in the order of their ports: filled while the job is built, read when it opens.
#[derive(Clone, Debug, Default)]
pub(crate) struct SidePorts(Arc<Mutex<Vec<(String, TypeId)>>>);

impl SidePorts {
    fn lock(&self) -> MutexGuard<'_, Vec<(String, TypeId)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names so far.
    pub fn names(&self) -> Vec<String> {
        self.lock().iter().map(|(name, _)| name.clone()).collect()
    }

    /// The port of a tag, added if it is new. Port 0 is the main output.
    pub fn port<U: Record>(&self, tag: &OutputTag<U>) -> Result<usize, BuildError> {
        let mut ports = self.lock();
        match ports.iter().position(|(name, _)| *name == tag.name) {
            Some(index) if ports[index].1 == TypeId::of::<U>() => Ok(index + 1),
            Some(_) => Err(BuildError::TagType { tag: tag.name.clone() }),
            None => {
                ports.push((tag.name.clone(), TypeId::of::<U>()));
                Ok(ports.len())
            }
        }
    }
}

/// Takes what a process function emits, with the timestamp of the record or timer at hand.
pub struct Collector<'e, O, E> {
    emit: &'e mut E,
    timestamp: i64,
    ports: &'e [String],
    emitted: &'e mut u64,
    types: PhantomData<fn(O)>,
}

impl<'e, O: Record, E: Emit<O>> Collector<'e, O, E> {
    pub(crate) fn new(emit: &'e mut E, timestamp: i64, ports: &'e [String], emitted: &'e mut u64) -> Self {
        Self { emit, timestamp, ports, emitted, types: PhantomData }
    }

    /// Emits a record; it is encoded or consumed before this returns.
    #[inline(always)]
    pub fn collect(&mut self, view: O::View<'_>) {
        *self.emitted += 1;
        self.emit.emit(Elem::new(view, self.timestamp));
    }

    /// Emits a record with a timestamp of its own, in milliseconds.
    #[inline(always)]
    pub fn collect_at(&mut self, view: O::View<'_>, timestamp: i64) {
        *self.emitted += 1;
        self.emit.emit(Elem::new(view, timestamp));
    }

    /// Emits a record to a side output. Dropped where nobody reads the tag.
    pub fn side_output<U: Record>(&mut self, tag: &OutputTag<U>, view: U::View<'_>) {
        if let Some(index) = self.ports.iter().position(|name| name == tag.name()) {
            self.emit.side(index + 1, Elem::<U>::new(view, self.timestamp));
        }
    }
}
