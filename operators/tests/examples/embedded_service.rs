//! `embedded_service`: nothing is lost, however narrow the ways in and out.

#[path = "../../examples/embedded_service/service.rs"]
mod service;

use service::{Summary, run};

#[test]
fn when_the_ways_in_and_out_are_narrow_then_nothing_is_lost() {
    for parallelism in [1, 2, 4] {
        for capacity in [1, 2, 1_000] {
            let summary = run(parallelism, capacity, 500).unwrap();
            assert_eq!(summary, Summary { pushed: 3_000, received: 3_000 }, "-p {parallelism}, capacity {capacity}");
        }
    }
}

#[test]
fn when_nothing_is_pushed_then_the_service_ends() {
    assert_eq!(run(2, 1, 0).unwrap(), Summary { pushed: 0, received: 0 });
}
