//! `OperatorRestore`: what an operator finds of itself in the checkpoint that the job starts from.

use std::sync::Arc;

use thalweg_cluster::rescale::{broadcast_parts, split_lists, union_parts};
use thalweg_io::checkpoint::{
    BadFile, NamedState, OperatorState, PartReader, Place, RestoredCheckpoint, SHARED_DIR, StateKind, StatePart,
    SubtaskState,
};
use thalweg_model::{CheckpointId, KeyGroupRange, MaxParallelism, OperatorId, Record, StateSchema, schema::Part};
use thalweg_runtime::{RestoredChain, SegmentContext, SnapshotPart, SnapshotPlace, TaskError};
use thalweg_state::{
    ImageError, ImageIndex, Migrate, MigrateError, Migration, Migrator, Plan, Restorer, TableConfig,
    elements::read_elements,
};

use super::StateTable;

/// The state of one operator in a checkpoint, as one subtask of the new parallelism sees it.
pub struct OperatorRestore<'c> {
    checkpoint: &'c Arc<RestoredCheckpoint>,
    operator: &'c OperatorState,
    name: &'c str,
    subtask: u32,
    parallelism: u32,
    max_parallelism: MaxParallelism,
}

impl<'c> OperatorRestore<'c> {
    /// What there is of the operator with this index in its segment; none where the job does not start from a checkpoint
    /// or the operator is not in it.
    pub(crate) fn of(ctx: &'c SegmentContext, operator: usize) -> Option<Self> {
        let checkpoint = ctx.restored.as_ref()?;
        let info = ctx.operators.get(operator)?;
        let id: OperatorId = info.id.parse().ok()?;
        let operator = checkpoint.operator(id)?;
        let (subtask, parallelism, max_parallelism) = (ctx.subtask, ctx.parallelism, ctx.max_parallelism);
        Some(Self { checkpoint, operator, name: &info.name, subtask, parallelism, max_parallelism })
    }

    /// The first operator of a checkpoint, as a subtask finds it.
    #[cfg(test)]
    pub(crate) fn first(checkpoint: &'c Arc<RestoredCheckpoint>, subtask: u32, parallelism: u32) -> Self {
        let operator = &checkpoint.metadata().operators[0];
        let max_parallelism = MaxParallelism::new(operator.max_parallelism).unwrap();
        Self { checkpoint, operator, name: "Tested", subtask, parallelism, max_parallelism }
    }

    /// The checkpoint that the job starts from.
    pub fn checkpoint(&self) -> CheckpointId {
        self.checkpoint.metadata().checkpoint
    }

    /// The parallelism that the operator had.
    pub fn old_parallelism(&self) -> u32 {
        self.operator.parallelism
    }

    /// Index of this subtask.
    pub fn subtask(&self) -> u32 {
        self.subtask
    }

    /// Number of subtasks now.
    pub fn parallelism(&self) -> u32 {
        self.parallelism
    }

    /// This subtask's share of a list state; empty where there is none of this name.
    ///
    /// # Errors
    /// Where it cannot be read, or was written as another type.
    pub fn list<T: Record>(&self, name: &str) -> Result<Vec<T>, TaskError> {
        self.list_as(name, None)
    }

    /// As [`list`](Self::list), where the checkpoint may hold elements of an older type.
    ///
    /// # Errors
    /// Where it cannot be read, or was written as a type that has changed otherwise than was declared.
    pub fn list_migrating<T: Record>(&self, name: &str, migration: &Migration<T>) -> Result<Vec<T>, TaskError> {
        self.list_as(name, Some(migration))
    }

    /// As [`list_migrating`](Self::list_migrating), if there is a migration.
    pub(crate) fn list_as<T: Record>(&self, name: &str, migration: Option<&Migration<T>>) -> Result<Vec<T>, TaskError> {
        let mut lists = self.all::<T>(name, StateKind::OperatorList, migration)?;
        let lengths: Vec<usize> = lists.iter().map(Vec::len).collect();
        let mut share = Vec::new();
        for part in split_lists(&[lengths], self.parallelism)[0][self.subtask as usize].iter().rev() {
            // From the last to the first, so that what is taken out moves nothing that is still wanted.
            let list = &mut lists[part.old_subtask as usize];
            share.push(list.drain(part.first..part.first + part.count).collect::<Vec<T>>());
        }
        share.reverse();
        Ok(share.into_iter().flatten().collect())
    }

    /// All of a list state, the shares of all subtasks. Unlike a union list, it may be lacking those that have finished.
    pub(crate) fn list_of_all<T: Record>(&self, name: &str) -> Result<Vec<T>, TaskError> {
        self.every(name, StateKind::OperatorList, None)
    }

    /// The elements of all subtasks, in the order of the subtasks; empty where there are none of this name.
    ///
    /// # Errors
    /// Where they cannot be read, or were written as another type.
    pub fn union_list<T: Record>(&self, name: &str) -> Result<Vec<T>, TaskError> {
        self.every::<T>(name, StateKind::Union, None)
    }

    /// As [`union_list`](Self::union_list), where the checkpoint may hold elements of an older type.
    ///
    /// # Errors
    /// Where they cannot be read, or were written as a type that has changed otherwise than was declared.
    pub fn union_list_migrating<T: Record>(&self, name: &str, migration: &Migration<T>) -> Result<Vec<T>, TaskError> {
        self.every(name, StateKind::Union, Some(migration))
    }

    /// A copy of what all subtasks have alike; empty where there is none of this name.
    ///
    /// # Errors
    /// Where it cannot be read, or was written as another type.
    pub fn broadcast<T: Record>(&self, name: &str) -> Result<Vec<T>, TaskError> {
        self.broadcast_as(name, None)
    }

    /// As [`broadcast`](Self::broadcast), where the checkpoint may hold elements of an older type.
    ///
    /// # Errors
    /// Where it cannot be read, or was written as a type that has changed otherwise than was declared.
    pub fn broadcast_migrating<T: Record>(&self, name: &str, migration: &Migration<T>) -> Result<Vec<T>, TaskError> {
        self.broadcast_as(name, Some(migration))
    }

    fn broadcast_as<T: Record>(&self, name: &str, migration: Option<&Migration<T>>) -> Result<Vec<T>, TaskError> {
        let old = broadcast_parts(self.operator.parallelism, self.parallelism)[self.subtask as usize];
        let mut all = self.all::<T>(name, StateKind::Broadcast, migration)?;
        Ok(std::mem::take(&mut all[old as usize]))
    }

    /// The positions of all subtasks of a source, in the order of the subtasks; empty where there are none of this name.
    ///
    /// # Errors
    /// Where they cannot be read, or were written as another type.
    pub fn positions<T: Record>(&self, name: &str) -> Result<Vec<T>, TaskError> {
        self.every::<T>(name, StateKind::SourcePosition, None)
    }

    /// As [`positions`](Self::positions), where the checkpoint may hold positions of an older type.
    ///
    /// # Errors
    /// Where they cannot be read, or were written as a type that has changed otherwise than was declared.
    pub fn positions_migrating<T: Record>(&self, name: &str, migration: &Migration<T>) -> Result<Vec<T>, TaskError> {
        self.every(name, StateKind::SourcePosition, Some(migration))
    }

    fn every<T: Record>(
        &self,
        name: &str,
        kind: StateKind,
        migration: Option<&Migration<T>>,
    ) -> Result<Vec<T>, TaskError> {
        let mut all = self.all::<T>(name, kind, migration)?;
        let parts = union_parts(self.operator.parallelism);
        Ok(parts.into_iter().flat_map(|old| std::mem::take(&mut all[old as usize])).collect())
    }

    /// The elements of a state, by old subtask.
    fn all<T: Record>(
        &self,
        name: &str,
        kind: StateKind,
        migration: Option<&Migration<T>>,
    ) -> Result<Vec<Vec<T>>, TaskError> {
        self.claim(kind, name);
        let mut all: Vec<Vec<T>> = (0..self.operator.parallelism).map(|_| Vec::new()).collect();
        for (old, state) in self.states(kind, name) {
            let stored = StateSchema::decode(&state.schema).map_err(|error| self.spoilt(name, error))?;
            let plan = self.plan_elements::<T>(name, &stored, migration)?;
            for part in &state.parts {
                let mut reader = self.checkpoint.open(part).map_err(|bad| self.unreadable(&bad))?;
                let mut bytes = vec![0; reader.len() as usize];
                reader.read(0, &mut bytes).map_err(|bad| self.unreadable(&bad))?;
                let into = &mut all[old.index as usize];
                let read = match &plan {
                    None => {
                        read_elements::<T>(&bytes).map(|elements| into.extend(elements)).map_err(MigrateError::from)
                    }
                    Some(plan) => plan.apply_to_elements(&bytes, |element| into.push(element)).map(drop),
                };
                read.map_err(|error| self.not_migrated(name, error))?;
            }
        }
        Ok(all)
    }

    /// How stored elements become those of type `T`; `None` where that is what they are.
    fn plan_elements<T: Record>(
        &self,
        name: &str,
        stored: &StateSchema,
        migration: Option<&Migration<T>>,
    ) -> Result<Option<Plan<T>>, TaskError> {
        let Err(mismatch) = stored.compare(&StateSchema::elements::<T>()) else { return Ok(None) };
        let Some((migration, value)) = migration.zip(stored.value.as_ref()).filter(|_| mismatch.part == Part::Value)
        else {
            return Err(self.unfit(name, mismatch));
        };
        self.nothing_in_flight(name)?;
        migration.plan(value).map(Some).map_err(|error| self.unfit(name, error))
    }

    /// Refuses to migrate a state of a checkpoint that holds records in flight, as these would be of the old types.
    fn nothing_in_flight(&self, name: &str) -> Result<(), TaskError> {
        let in_flight = |state: &NamedState| state.kind == StateKind::ChannelState;
        let operators = &self.checkpoint.metadata().operators;
        if !operators.iter().flat_map(|one| &one.subtasks).flat_map(|subtask| &subtask.states).any(in_flight) {
            return Ok(());
        }
        let problem = "the checkpoint is unaligned, and types cannot be migrated while records of them are in flight: \
                       restore it into the job that took it and take a savepoint";
        Err(self.unfit(name, problem))
    }

    /// Every state of this name and kind, with its old subtask.
    fn states(&self, kind: StateKind, name: &str) -> impl Iterator<Item = (&'c SubtaskState, &'c NamedState)> {
        let of = move |subtask: &'c SubtaskState| {
            let found = subtask.states.iter().find(|state| state.kind == kind && state.name == name);
            found.map(|state| (subtask, state))
        };
        self.operator.subtasks.iter().filter_map(of)
    }

    /// The names of the keyed states of a kind that begin with `prefix`, each once. They count as asked for.
    pub(crate) fn names(&self, kind: StateKind, prefix: &str) -> Vec<String> {
        let states = self.operator.subtasks.iter().flat_map(|subtask| &subtask.states);
        let mut names: Vec<String> = states
            .filter(|state| state.kind == kind && state.name.starts_with(prefix))
            .map(|state| state.name.clone())
            .collect();
        names.sort_unstable();
        names.dedup();
        names.iter().for_each(|name| self.claim(kind, name));
        names
    }

    /// The table of a keyed state, and what an increment of it may go on from. None where there is none of this name.
    pub(crate) fn table<T: StateTable>(
        &self,
        name: &str,
        config: TableConfig,
    ) -> Result<Option<(T, Option<RestoredChain>)>, TaskError> {
        let Some(mut found) = self.images(T::KIND, name, config)? else { return Ok(None) };
        found.schema.compare(&T::schema()).map_err(|mismatch| self.unfit(name, mismatch))?;
        let epoch = found.indexes.last().map(ImageIndex::epoch);
        let indexes = std::mem::take(&mut found.indexes);
        let table = fill::<T>(config, indexes, &mut found.readers).map_err(|bad| self.bad(name, bad))?;
        let chain =
            epoch.filter(|_| found.old_ranges == [config.range]).and_then(|epoch| self.chain(epoch, &found.parts));
        Ok(Some((table, chain)))
    }

    /// As [`table`](Self::table), where values may have been stored as another type: they become what the migration says.
    pub(crate) fn migrated_table<T: StateTable + Migrate>(
        &self,
        name: &str,
        config: TableConfig,
        migration: &Migration<T::Value>,
    ) -> Result<Option<(T, Option<RestoredChain>)>, TaskError> {
        let Some(mut found) = self.images(T::KIND, name, config)? else { return Ok(None) };
        if found.schema.compare(&<T as StateTable>::schema()).is_ok() {
            return self.table(name, config);
        }
        self.nothing_in_flight(name)?;
        let indexes = std::mem::take(&mut found.indexes);
        let mut migrator = Migrator::<T>::new(config, &found.schema, indexes, migration)
            .map_err(|error| self.not_migrated(name, error))?;
        let mut bytes = Vec::new();
        while let Some((image, extent)) = migrator.wanted() {
            bytes.resize(extent.bytes as usize, 0);
            found.readers[image].read(extent.offset, &mut bytes).map_err(|bad| self.unreadable(&bad))?;
            migrator.give(&bytes).map_err(|error| self.not_migrated(name, error))?;
        }
        Ok(Some((migrator.finish(), None)))
    }

    /// The images of a keyed state that hold key groups of the table's range.
    fn images(&self, kind: StateKind, name: &str, config: TableConfig) -> Result<Option<Images<'c>>, TaskError> {
        self.claim(kind, name);
        let old_max = MaxParallelism::new(self.operator.max_parallelism).unwrap_or(self.max_parallelism);
        let mut found: Option<Images<'c>> = None;
        for (old, state) in self.states(kind, name) {
            if old_max != self.max_parallelism {
                return Err(self.unfit(name, ImageError::OtherMaxParallelism { written: old_max.get() }));
            }
            let range = old_max.range_of(old.index, self.operator.parallelism);
            if range.start > config.range.end || config.range.start > range.end {
                continue;
            }
            let images = match &mut found {
                Some(images) => images,
                None => {
                    let schema = StateSchema::decode(&state.schema).map_err(|error| self.spoilt(name, error))?;
                    found.insert(Images::of(schema))
                }
            };
            images.old_ranges.push(range);
            for part in &state.parts {
                let mut reader = self.checkpoint.open(part).map_err(|bad| self.unreadable(&bad))?;
                let index = ImageIndex::read(reader.len(), |at, out| reader.read(at, out).map_err(Bad::File));
                images.indexes.push(index.map_err(|bad| self.bad(name, bad))?);
                images.readers.push(reader);
                images.parts.push(part);
            }
        }
        Ok(found)
    }

    /// What an increment may go on from: contents that a later checkpoint may refer to.
    fn chain(&self, epoch: u16, parts: &[&StatePart]) -> Option<RestoredChain> {
        let metadata = self.checkpoint.metadata();
        let parts = parts.iter().map(|part| {
            let place = match &part.place {
                Place::Inline(bytes) => SnapshotPlace::Inline(bytes.clone()),
                Place::File { file, offset: 0, bytes } => {
                    let file = metadata.files.get(*file as usize)?;
                    let whole = file.written.payload_bytes == *bytes;
                    let shared = file.path.starts_with(&format!("../{SHARED_DIR}/"));
                    SnapshotPlace::File(if whole && shared { file.clone() } else { return None })
                }
                Place::File { .. } => return None,
            };
            Some(SnapshotPart { rows: part.rows, place })
        });
        Some(RestoredChain { checkpoint: metadata.checkpoint, epoch, parts: parts.collect::<Option<_>>()? })
    }

    fn claim(&self, kind: StateKind, name: &str) {
        self.checkpoint.claim(self.operator.id, kind, name);
    }

    fn bad(&self, name: &str, bad: Bad) -> TaskError {
        match bad {
            Bad::File(bad) => self.unreadable(&bad),
            Bad::Image(error) if error.is_damage() => self.spoilt(name, error),
            Bad::Image(error) => self.unfit(name, error),
        }
    }

    fn not_migrated(&self, name: &str, error: MigrateError) -> TaskError {
        if error.is_damage() { self.spoilt(name, error) } else { self.unfit(name, error) }
    }

    /// What is stored makes no sense although its checksums hold: another checkpoint may do, as with a file that is damaged.
    fn spoilt(&self, name: &str, error: impl std::fmt::Display) -> TaskError {
        let what = format!("state {name:?} of checkpoint {}: {error}", self.number());
        self.checkpoint.note_damage(&what);
        TaskError::new(self.name, what)
    }

    fn unreadable(&self, bad: &BadFile) -> TaskError {
        TaskError::new(self.name, format!("cannot restore from checkpoint {}: {bad}", self.number()))
    }

    fn unfit(&self, name: &str, error: impl std::fmt::Display) -> TaskError {
        TaskError::new(self.name, format!("state {name:?} of checkpoint {}: {error}", self.number())).permanent()
    }

    fn number(&self) -> u64 {
        self.checkpoint.metadata().checkpoint.0
    }
}

/// The images of a state, in the order in which they are restored.
struct Images<'c> {
    /// What they were stored as.
    schema: StateSchema,
    /// The key groups of each old subtask that they are of.
    old_ranges: Vec<KeyGroupRange>,
    parts: Vec<&'c StatePart>,
    indexes: Vec<ImageIndex>,
    readers: Vec<PartReader<'c>>,
}

impl Images<'_> {
    fn of(schema: StateSchema) -> Self {
        Self { schema, old_ranges: Vec::new(), parts: Vec::new(), indexes: Vec::new(), readers: Vec::new() }
    }
}

/// Why an image cannot be read.
enum Bad {
    File(BadFile),
    Image(ImageError),
}

impl From<ImageError> for Bad {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

/// Restores a table from its images.
fn fill<T: StateTable>(
    config: TableConfig,
    indexes: Vec<ImageIndex>,
    readers: &mut [PartReader<'_>],
) -> Result<T, Bad> {
    let mut restorer = Restorer::<T>::new(config, indexes)?;
    let mut bytes = Vec::new();
    while let Some((image, extent)) = restorer.wanted() {
        bytes.resize(extent.bytes as usize, 0);
        readers[image].read(extent.offset, &mut bytes).map_err(Bad::File)?;
        restorer.give(&bytes)?;
    }
    Ok(restorer.finish()?)
}
