//! `StateOptions`: where state lives and where its checkpoints lie, the older names of both included.

use crate::config::{ConfigError, Configuration, keys, value::enumeration};

/// Values of `state.backend.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateBackendName {
    /// On the heap.
    HashMap,
    /// RocksDB.
    RocksDb,
    /// Before Flink 1.13: on the heap, checkpoints in files.
    FileSystem,
    /// Before Flink 1.13: on the heap, checkpoints in the JobManager's memory.
    JobManager,
}

enumeration!(StateBackendName,
    StateBackendName::HashMap => "hashmap",
    StateBackendName::RocksDb => "rocksdb",
    StateBackendName::FileSystem => "filesystem",
    StateBackendName::JobManager => "jobmanager",
);

/// Values of `execution.checkpointing.storage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageName {
    /// The JobManager's memory: gone with the process.
    JobManager,
    /// Files below `execution.checkpointing.dir`.
    FileSystem,
}

enumeration!(StorageName, StorageName::JobManager => "jobmanager", StorageName::FileSystem => "filesystem");

/// Where state lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateBackend {
    /// Tables in memory.
    Heap,
    /// RocksDB.
    RocksDb,
}

impl StateBackend {
    /// The one that is configured, by whatever name.
    pub fn configured(config: &Configuration) -> Self {
        if config.value(&keys::STATE_BACKEND) == StateBackendName::RocksDb { Self::RocksDb } else { Self::Heap }
    }
}

/// Where state lives and where its checkpoints lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateOptions {
    /// The backend.
    pub backend: StateBackend,
    /// The storage of checkpoints.
    pub storage: CheckpointStorage,
}

/// Where checkpoints lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointStorage {
    /// In memory: they help against failures of tasks, not of the process.
    Memory,
    /// In this directory.
    Directory(String),
}

impl StateOptions {
    /// The configured backend and storage, with a directory of checkpoints that need not be the configured one: a program
    /// may set it after all that is configured.
    ///
    /// # Errors
    /// Where checkpoints are to lie in files and there is no directory.
    pub fn resolve(config: &Configuration, directory: Option<String>) -> Result<Self, ConfigError> {
        let name = config.value(&keys::STATE_BACKEND);
        let implied = match name {
            StateBackendName::FileSystem => Some(StorageName::FileSystem),
            StateBackendName::JobManager => Some(StorageName::JobManager),
            StateBackendName::HashMap | StateBackendName::RocksDb => None,
        };
        let from_directory = if directory.is_some() { StorageName::FileSystem } else { StorageName::JobManager };
        let storage = config.get(&keys::CHECKPOINT_STORAGE).or(implied).unwrap_or(from_directory);
        let storage = match (storage, directory) {
            (StorageName::FileSystem, Some(directory)) => CheckpointStorage::Directory(directory),
            (StorageName::FileSystem, None) => {
                let problem = format!("checkpoints are to lie in files: set {} too", keys::CHECKPOINT_DIR.name);
                return Err(ConfigError::Conflict { problem });
            }
            (StorageName::JobManager, _) => CheckpointStorage::Memory,
        };
        Ok(Self { backend: StateBackend::configured(config), storage })
    }
}
