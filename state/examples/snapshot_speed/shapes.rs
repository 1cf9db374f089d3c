//! The tables that are measured: how each is filled and updated.

use thalweg_model::{KeyHash, MaxParallelism, Record, record::key_hash};
use thalweg_state::{
    LOCATE_AHEAD, ListTable, MapTable, PINPOINT_AHEAD, Place, Restore, RowTable, Snapshots, TableConfig,
};

use crate::beside::BATCH;

/// Records that are looked ahead.
const AHEAD: usize = LOCATE_AHEAD;
/// Elements of a list, entries of a map.
const ELEMENTS: u64 = 16;

pub fn config() -> TableConfig {
    TableConfig::whole(MaxParallelism::derived(1))
}

/// A table of one kind, and what updating it needs.
pub trait Shape: Sized {
    type Table: Snapshots + Restore;
    const NAME: &'static str;
    fn filled(keys: u64) -> (Self, Self::Table);
    fn update(&mut self, table: &mut Self::Table, batch: &[(u64, KeyHash); BATCH]);
    fn hash(&self, key: u64) -> KeyHash {
        key_hash::<u64>(key)
    }
    fn len(table: &Self::Table) -> usize;
    fn memory_bytes(table: &Self::Table) -> usize;
}

macro_rules! sizes {
    () => {
        fn len(table: &Self::Table) -> usize {
            table.len()
        }
        fn memory_bytes(table: &Self::Table) -> usize {
            table.memory_bytes()
        }
    };
}

/// Calls `f` with each record of a batch and its place, which is looked up ahead.
#[inline(always)]
fn each<K: Record, V: Record>(
    table: &mut RowTable<K, V>,
    batch: &[(u64, KeyHash); BATCH],
    mut f: impl FnMut(&mut RowTable<K, V>, Place, usize, u64, KeyHash),
) {
    let mut places = [Place::default(); AHEAD];
    for (place, &(_, hash)) in places.iter_mut().zip(batch) {
        *place = table.locate(hash);
    }
    for (index, &(key, hash)) in batch.iter().enumerate() {
        let place = places[index % AHEAD];
        if let Some(&(_, ahead)) = batch.get(index + AHEAD) {
            places[index % AHEAD] = table.locate(ahead);
        }
        if let Some(&(_, near)) = batch.get(index + PINPOINT_AHEAD) {
            table.pinpoint(&mut places[(index + PINPOINT_AHEAD) % AHEAD], near);
        }
        f(table, place, index, key, hash);
    }
}

/// Numbers by number.
pub struct NumberShape;

impl Shape for NumberShape {
    type Table = RowTable<u64, u64>;
    const NAME: &'static str = "(u64, u64)";
    sizes!();

    fn filled(keys: u64) -> (Self, Self::Table) {
        let mut table = RowTable::new(config());
        for key in 0..keys {
            table.insert(key_hash::<u64>(key), key, key);
        }
        (Self, table)
    }

    #[inline(never)]
    fn update(&mut self, table: &mut Self::Table, batch: &[(u64, KeyHash); BATCH]) {
        each(table, batch, |table, place, index, key, hash| table.update_at(place, hash, key, |_| index as u64));
    }
}

/// Strings of 200 bytes by number.
pub struct StringShape(Vec<String>);

impl Shape for StringShape {
    type Table = RowTable<u64, String>;
    const NAME: &'static str = "(u64, String of 200 bytes)";
    sizes!();

    fn filled(keys: u64) -> (Self, Self::Table) {
        let mut table = RowTable::new(config());
        let values: Vec<String> = (0..64).map(|n| format!("{n:0200}")).collect();
        for key in 0..keys {
            table.insert(key_hash::<u64>(key), key, values[key as usize % 64].as_str());
        }
        (Self(values), table)
    }

    #[inline(never)]
    fn update(&mut self, table: &mut Self::Table, batch: &[(u64, KeyHash); BATCH]) {
        each(table, batch, |table, place, index, key, hash| {
            table.update_at(place, hash, key, |_| self.0[index % 64].clone())
        });
    }
}

/// Numbers by string.
pub struct StringKeyShape(Vec<String>);

impl Shape for StringKeyShape {
    type Table = RowTable<String, u64>;
    const NAME: &'static str = "(String of 24 bytes, u64)";
    sizes!();

    fn filled(keys: u64) -> (Self, Self::Table) {
        let names: Vec<String> = (0..keys).map(|n| format!("customer-{n:015}")).collect();
        let mut table = RowTable::new(config());
        for name in &names {
            table.insert(key_hash::<String>(name), name.as_str(), 1);
        }
        (Self(names), table)
    }

    fn hash(&self, key: u64) -> KeyHash {
        key_hash::<String>(&self.0[key as usize])
    }

    #[inline(never)]
    fn update(&mut self, table: &mut Self::Table, batch: &[(u64, KeyHash); BATCH]) {
        each(table, batch, |table, place, index, key, hash| {
            table.update_at(place, hash, &self.0[key as usize], |_| index as u64)
        });
    }
}

/// Lists of numbers by number. An update adds an element, and one in sixteen removes the list first.
pub struct ListShape;

impl Shape for ListShape {
    type Table = ListTable<u64, u64>;
    const NAME: &'static str = "lists of 16 u64 by u64";
    sizes!();

    fn filled(keys: u64) -> (Self, Self::Table) {
        let mut table = ListTable::new(config());
        for n in 0..keys * ELEMENTS {
            table.append(key_hash::<u64>(n % keys), n % keys, n);
        }
        (Self, table)
    }

    #[inline(never)]
    fn update(&mut self, table: &mut Self::Table, batch: &[(u64, KeyHash); BATCH]) {
        for (index, &(key, hash)) in batch.iter().enumerate() {
            if let Some(&(_, ahead)) = batch.get(index + AHEAD) {
                table.prefetch(ahead);
            }
            if (index as u64).is_multiple_of(ELEMENTS) {
                table.remove(hash, key);
            }
            table.append(hash, key, index as u64);
        }
    }
}

/// Maps of numbers by number.
pub struct MapShape;

impl Shape for MapShape {
    type Table = MapTable<u64, u64, u64>;
    const NAME: &'static str = "maps of 16 (u64, u64) by u64";
    sizes!();

    fn filled(keys: u64) -> (Self, Self::Table) {
        let mut table = MapTable::new(config());
        for n in 0..keys * ELEMENTS {
            table.put(key_hash::<u64>(n % keys), n % keys, n / keys, n);
        }
        (Self, table)
    }

    #[inline(never)]
    fn update(&mut self, table: &mut Self::Table, batch: &[(u64, KeyHash); BATCH]) {
        for (index, &(key, hash)) in batch.iter().enumerate() {
            if let Some(&(_, ahead)) = batch.get(index + AHEAD) {
                table.prefetch(ahead);
            }
            table.put(hash, key, index as u64 % ELEMENTS, index as u64);
        }
    }
}
