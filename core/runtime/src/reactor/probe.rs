//! What the machine must have before slots can run: cores, io_uring, lockable memory.

use crate::ReactorError;

/// The cores this process may run on.
pub(super) fn available_cores() -> Vec<usize> {
    core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect()
}

/// The core of each slot; `None` lets the system place it.
pub(super) fn place(
    slots: usize,
    wanted: &[usize],
    available: &[usize],
    oversubscribe: bool,
) -> Result<Vec<Option<usize>>, ReactorError> {
    if let Some(&core) = wanted.iter().find(|core| !available.contains(core)) {
        return Err(ReactorError::CoreNotAvailable { core, available: available.to_vec() });
    }
    let cores = if wanted.is_empty() { available } else { wanted };
    if slots > cores.len() && !oversubscribe {
        return Err(ReactorError::TooFewCores { slots, cores: cores.len() });
    }
    if slots > cores.len() && wanted.is_empty() {
        return Ok(vec![None; slots]);
    }
    Ok((0..slots).map(|slot| Some(cores[slot % cores.len()])).collect())
}

/// Open files of a slot while it starts: three rings, two ways of waking it, and what it reads of the machine.
const FILES_PER_SLOT: usize = 6;

/// Sets up a tiny ring, since what a reactor says when it cannot is hard to read, and one that runs out of files panics.
pub(super) fn io_uring(slots: usize) -> Result<(), ReactorError> {
    io_uring::IoUring::new(2).map(drop).and_then(|()| open_files(slots)).map_err(|source| ring_error(source, slots))
}

/// Opens as many files as the slots will, and closes them again.
fn open_files(slots: usize) -> std::io::Result<()> {
    let first = std::fs::File::open("/dev/null")?;
    (1..slots * FILES_PER_SLOT).map(|_| first.try_clone()).collect::<Result<Vec<_>, _>>().map(drop)
}

/// What a failed set-up means.
pub(super) fn ring_error(source: std::io::Error, slots: usize) -> ReactorError {
    match source.raw_os_error() {
        Some(libc::ENOMEM) => ReactorError::LockedMemory { slots },
        Some(libc::EMFILE | libc::ENFILE) => ReactorError::OpenFiles { source },
        _ => ReactorError::NoIoUring { source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_there_are_cores_then_slots_take_them_in_order() {
        assert_eq!(place(2, &[], &[4, 5, 6], false).unwrap(), [Some(4), Some(5)]);
        assert_eq!(place(2, &[6, 4], &[4, 5, 6], false).unwrap(), [Some(6), Some(4)]);
        assert_eq!(place(3, &[6, 4], &[4, 5, 6], true).unwrap(), [Some(6), Some(4), Some(6)]);
        assert_eq!(place(3, &[], &[4, 5], true).unwrap(), [None, None, None]);
    }

    #[test]
    fn when_there_are_too_few_cores_then_the_error_names_both_numbers_and_the_flag() {
        let message = place(3, &[], &[0, 1], false).unwrap_err().to_string();
        assert!(message.contains('3') && message.contains('2') && message.contains("--oversubscribe"), "{message}");
    }

    #[test]
    fn when_a_core_is_not_ours_then_the_error_names_it() {
        let message = place(1, &[9], &[0, 1], false).unwrap_err().to_string();
        assert!(message.contains("core 9") && message.contains("[0, 1]"), "{message}");
    }

    #[test]
    fn when_memory_cannot_be_locked_then_the_error_says_ulimit() {
        let error = ring_error(std::io::Error::from_raw_os_error(libc::ENOMEM), 8);
        assert!(error.to_string().contains("ulimit -l"), "{error}");
        let error = ring_error(std::io::Error::from_raw_os_error(libc::ENOSYS), 8);
        assert!(error.to_string().contains("io_uring"), "{error}");
    }

    #[test]
    fn when_no_file_can_be_opened_then_the_error_says_which_limit_and_nothing_of_the_kernel() {
        for code in [libc::EMFILE, libc::ENFILE] {
            let message = ring_error(std::io::Error::from_raw_os_error(code), 8).to_string();
            assert!(message.contains("ulimit -n") && !message.contains("Linux 5.8"), "{message}");
        }
    }
}
