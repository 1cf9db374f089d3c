//! Tables of keyed state with their names: how operators keep them, show them and find them again.

use std::sync::Arc;

use thalweg_io::checkpoint::StateKind;
use thalweg_model::Record;
use thalweg_runtime::{KeyedStateRef, RecordType, SegmentContext, StateHandle, TaskError};
use thalweg_state::{ListTable, MapTable, Restore, RowTable, Salt, Snapshots, TableConfig, TimerQueue};

use super::OperatorRestore;

/// The encoded schemas of states.
pub(crate) mod schema_of {
    use thalweg_model::Record;

    /// Elements of operator state.
    pub(crate) fn elements<T: Record>() -> Vec<u8> {
        Vec::new()
    }
}

/// The type of the records of an edge.
pub(crate) fn record_type<T: Record>() -> RecordType {
    RecordType::of::<T>(schema_of::elements::<T>().into())
}

/// A kind of table that keyed state is kept in.
pub(crate) trait StateTable: Snapshots + Restore + Send + 'static {
    /// What it is in a checkpoint.
    const KIND: StateKind;

    /// An empty one.
    fn empty(config: TableConfig) -> Self;
    /// The encoded schema of what it holds.
    fn schema() -> Vec<u8>;
    /// Memory it holds, in bytes.
    fn bytes(&self) -> usize;
}

macro_rules! state_table {
    ([$($generics:tt)*] $ty:ty, $kind:ident) => {
        impl<$($generics)*> StateTable for $ty {
            const KIND: StateKind = StateKind::$kind;

            fn empty(config: TableConfig) -> Self {
                Self::new(config)
            }
            fn schema() -> Vec<u8> {
                Vec::new()
            }
            fn bytes(&self) -> usize {
                self.memory_bytes()
            }
        }
    };
}
state_table!([K: Record, V: Record, S: Salt<K> + 'static] RowTable<K, V, S>, KeyedTable);
state_table!([K: Record, E: Record] ListTable<K, E>, KeyedList);
state_table!([K: Record, UK: Record, UV: Record] MapTable<K, UK, UV>, KeyedMap);
state_table!([K: Record] TimerQueue<K>, Timers);

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
        let mut handle = StateHandle::new(operator, name, T::KIND, Arc::from(T::schema()));
        let table = match restored {
            Some((table, chain)) => {
                handle.restored = chain.map(Arc::new);
                table
            }
            None => T::empty(config),
        };
        Ok(Self { table, handle })
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
