//! Tables of keyed state with their names: how operators keep them, show them and find them again.

use std::sync::Arc;

use thalweg_io::checkpoint::StateKind;
use thalweg_model::{Record, StateSchema};
use thalweg_runtime::{KeyedStateRef, RecordType, RestoredChain, SegmentContext, StateHandle, TaskError};
use thalweg_state::{
    ListTable, MapTable, Migrate, Migration, Restore, RowTable, Salt, Snapshots, TableConfig, TimerQueue,
};

use super::OperatorRestore;

/// Encodes a schema for a checkpoint.
///
/// # Panics
/// Where the type cannot be described: it contains itself, or is too large.
fn encoded(schema: &StateSchema) -> Vec<u8> {
    schema.encode().unwrap_or_else(|error| panic!("a record type cannot be kept in checkpoints: {error}"))
}

/// The encoded schema of elements of operator state, and of records in flight.
pub(crate) fn elements_schema<T: Record>() -> Vec<u8> {
    encoded(&StateSchema::elements::<T>())
}

/// The type of the records of an edge.
pub(crate) fn record_type<T: Record>() -> RecordType {
    RecordType::of::<T>(elements_schema::<T>().into())
}

/// A kind of table that keyed state is kept in.
pub(crate) trait StateTable: Snapshots + Restore + Send + 'static {
    /// What it is in a checkpoint.
    const KIND: StateKind;

    /// An empty one.
    fn empty(config: TableConfig) -> Self;
    /// The schema of what it holds.
    fn schema() -> StateSchema;
    /// Memory it holds, in bytes.
    fn bytes(&self) -> usize;
}

macro_rules! state_table {
    ([$($generics:tt)*] $ty:ty, $kind:ident, $schema:expr) => {
        impl<$($generics)*> StateTable for $ty {
            const KIND: StateKind = StateKind::$kind;

            fn empty(config: TableConfig) -> Self {
                Self::new(config)
            }
            fn schema() -> StateSchema {
                $schema
            }
            fn bytes(&self) -> usize {
                self.memory_bytes()
            }
        }
    };
}
state_table!([K: Record, V: Record, S: Salt<K> + 'static] RowTable<K, V, S>, KeyedTable, StateSchema::rows::<K, V>());
state_table!([K: Record, E: Record] ListTable<K, E>, KeyedList, StateSchema::lists::<K, E>());
state_table!([K: Record, UK: Record, UV: Record] MapTable<K, UK, UV>, KeyedMap, StateSchema::maps::<K, UK, UV>());
state_table!([K: Record] TimerQueue<K>, Timers, StateSchema::timers::<K>());

/// A table and its name.
pub(crate) struct KeyedTable<T> {
    pub(crate) table: T,
    pub(crate) handle: StateHandle,
}

impl<T: StateTable> KeyedTable<T> {
    /// The table of a state of an operator: as it was in the checkpoint that the job starts from, or empty.
    pub(crate) fn open(
        ctx: &SegmentContext,
        operator: usize,
        name: &str,
        config: TableConfig,
    ) -> Result<Self, TaskError> {
        let restored = match OperatorRestore::of(ctx, operator) {
            Some(restored) => restored.table::<T>(name, config)?,
            None => None,
        };
        Ok(Self::of(restored, operator, name, config))
    }

    /// As [`open`](Self::open), where values may have been stored as another type, if there is a migration.
    pub(crate) fn open_migrating(
        ctx: &SegmentContext,
        operator: usize,
        name: &str,
        config: TableConfig,
        migration: Option<&Migration<T::Value>>,
    ) -> Result<Self, TaskError>
    where
        T: Migrate,
    {
        match OperatorRestore::of(ctx, operator) {
            Some(restored) => Self::take(&restored, operator, name, config, migration),
            None => Ok(Self::of(None, operator, name, config)),
        }
    }

    /// As [`open_migrating`](Self::open_migrating), where the job starts from a checkpoint.
    pub(crate) fn take(
        restored: &OperatorRestore<'_>,
        operator: usize,
        name: &str,
        config: TableConfig,
        migration: Option<&Migration<T::Value>>,
    ) -> Result<Self, TaskError>
    where
        T: Migrate,
    {
        let table = match migration {
            Some(migration) => restored.migrated_table::<T>(name, config, migration)?,
            None => restored.table::<T>(name, config)?,
        };
        Ok(Self::of(table, operator, name, config))
    }

    fn of(restored: Option<(T, Option<RestoredChain>)>, operator: usize, name: &str, config: TableConfig) -> Self {
        let (table, chain) = restored.unwrap_or_else(|| (T::empty(config), None));
        let mut handle = Self::handle(operator, name);
        handle.restored = chain.map(Arc::new);
        Self { table, handle }
    }

    /// The handle of a table of this type.
    pub(crate) fn handle(operator: usize, name: impl Into<Arc<str>>) -> StateHandle {
        StateHandle::new(operator, name, T::KIND, encoded(&<T as StateTable>::schema()).into())
    }

    /// Shows it to the runtime.
    pub(crate) fn visit(&mut self, visit: &mut dyn FnMut(KeyedStateRef<'_>)) {
        let memory_bytes = self.table.bytes();
        visit(KeyedStateRef { handle: &self.handle, table: &mut self.table, memory_bytes, live: true });
    }
}

impl<T: StateTable> crate::window_slices::SliceContents for KeyedTable<T> {
    fn is_kept(&self) -> bool {
        self.table.is_snapshot_running()
    }
}
