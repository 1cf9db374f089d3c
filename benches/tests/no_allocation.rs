//! Once warm, keyed count allocates nothing per record: counted by the allocator itself.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use thalweg_benches::options::EngineOptions;
use thalweg_benches::workloads::{job::JobSettings, keyed_count::KeyedCount, load::LoadPlan};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static AT_START: AtomicU64 = AtomicU64::new(0);
static AT_END: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(memory, layout, bytes) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(memory, layout) };
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations between the end of the warm-up and the first subtask's having everything.
fn allocations_of(parallelism: u32, records: u64) -> u64 {
    let engine = EngineOptions { parallelism: Some(parallelism), oversubscribe: true, ..EngineOptions::default() };
    let settings = JobSettings::new(engine).expect("any machine has a core");
    let bench = KeyedCount { keys: 2_000, records, settings };
    let on_start = || AT_START.store(ALLOCATIONS.load(SeqCst), SeqCst);
    let on_end = || {
        // The first one to end counts: what comes after is the end of the job.
        let _ = AT_END.compare_exchange(0, ALLOCATIONS.load(SeqCst), SeqCst, SeqCst);
    };
    AT_END.store(0, SeqCst);
    let plan = LoadPlan::new(bench.keys, records, None).observed(on_start, on_end);
    let counted = bench.job_of(&Arc::new(plan)).expect("runs");
    assert_eq!(counted.sums.records, bench.keys + records);
    AT_END.load(SeqCst) - AT_START.load(SeqCst)
}

#[test]
fn when_warm_then_the_number_of_records_does_not_change_the_number_of_allocations() {
    for parallelism in [1, 2] {
        let (few, many) = (allocations_of(parallelism, 50_000), allocations_of(parallelism, 1_000_000));
        println!("-p {parallelism}: {few} allocations for 50,000 records, {many} for 1,000,000");
        // None at all, as a rule; a few where somebody asks for figures meanwhile.
        assert!(many < 20, "{many} allocations for a million records, {few} for 50,000, at -p {parallelism}");
    }
}
