//! Pinned threads that start together.

/// The cores this process may use, in their order.
pub fn available_cores() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect()
}

/// Binds the calling thread to a core; false where the system refuses.
pub fn pin(core: usize) -> bool {
    core_affinity::set_for_current(core_affinity::CoreId { id: core })
}

/// Runs a function on one pinned thread per core; `cores[i % len]` for thread `i`. Answers what they answered, in order.
///
/// # Panics
/// Where a thread panics, or there are no cores.
pub fn on_cores<T: Send, S: Send>(cores: &[usize], work: Vec<S>, run: impl Fn(usize, S) -> T + Sync) -> Vec<T> {
    assert!(!cores.is_empty(), "no cores to run on");
    std::thread::scope(|scope| {
        let threads: Vec<_> = work
            .into_iter()
            .enumerate()
            .map(|(index, part)| {
                let run = &run;
                scope.spawn(move || {
                    // Where pinning is refused the system places the thread.
                    pin(cores[index % cores.len()]);
                    run(index, part)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a limit's thread does not panic")).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_run_on_cores_then_answers_come_in_order() {
        let line = std::sync::Barrier::new(2);
        let answers = on_cores(&available_cores(), vec![10, 20], |index, value| {
            line.wait();
            line.wait();
            index + value
        });
        assert_eq!(answers, [10, 21]);
    }
}
