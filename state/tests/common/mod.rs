//! Small tables, keys and values of changing length, for the models of collections.

use thalweg_model::{KeyHash, MaxParallelism, Record, record::key_hash};
use thalweg_state::TableConfig;

const GROUPS: u32 = 16;

pub fn config() -> TableConfig {
    TableConfig { max_segment_rows: 8, ..TableConfig::whole(MaxParallelism::new(GROUPS).unwrap()) }
}

pub fn hash<K: Record>(key: &K) -> KeyHash {
    key_hash::<K>(key.view())
}

pub fn text(n: u16) -> String {
    "thalweg ".repeat((n % 40) as usize / 3) + &n.to_string()
}
