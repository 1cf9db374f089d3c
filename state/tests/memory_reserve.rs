//! The reserve of memory, in a process of its own: it is one for the whole process.

use thalweg_model::{MaxParallelism, record::key_hash};
use thalweg_state::{MemoryReserve, RowTable, TableConfig};

const KEYS: u64 = 300_000;

/// A table of several MiB, and checks that it holds what was put into it and nothing else.
fn filled(times: u64) -> RowTable<u64, u64> {
    let mut table = RowTable::new(TableConfig::whole(MaxParallelism::new(128).unwrap()));
    for key in 0..KEYS {
        let had_one = table.insert(key_hash::<u64>(key), key, key * times);
        assert!(!had_one, "memory that was used before must look fresh");
    }
    assert!((0..KEYS).all(|key| table.get(key_hash::<u64>(key), key) == Some(key * times)));
    assert_eq!(table.len() as u64, KEYS);
    table
}

#[test]
fn when_there_is_a_reserve_then_tables_use_what_others_left_until_it_is_gone() {
    let job = MemoryReserve::of_job();
    drop(filled(3));
    let left = job.unused_bytes();
    assert!(left as u64 > KEYS * 24, "the next attempt may need it: {left}");
    let again = filled(5);
    assert!(job.unused_bytes() < left / 4, "the next table takes it: {} of {left}", job.unused_bytes());
    drop(again);
    assert_eq!(job.unused_bytes(), left);

    let holder = MemoryReserve::new();
    drop(job);
    assert_eq!(holder.unused_bytes(), left, "somebody holds it beyond the job");
    drop(holder);

    let job = MemoryReserve::of_job();
    assert_eq!(job.unused_bytes(), 0, "with the last who holds it, it goes");
    drop(filled(7));
    assert_eq!(job.unused_bytes(), left);
    let other = MemoryReserve::of_job();
    drop(job);
    assert_eq!(other.unused_bytes(), 0, "what a job has left goes with it");
    drop(other);

    drop(filled(9));
    assert_eq!(MemoryReserve::of_job().unused_bytes(), 0, "nothing is kept without a reserve");
}
