//! Lists of cores as people write them: `0,2-3`.

/// Highest core number that is accepted; more than any machine has.
pub const CORE_MAX: usize = 4_095;

/// What is wrong with a core list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CoreListError {
    /// Nothing in it, or nothing between two commas.
    #[error("core list {list:?} has an empty part: write numbers and ranges such as 0,2-3")]
    Empty {
        /// The list as given.
        list: String,
    },
    /// A part is neither a number nor a range.
    #[error("core list {list:?}: {part:?} is neither a core nor a range: write numbers and ranges such as 0,2-3")]
    NotANumber {
        /// The list as given.
        list: String,
        /// The part.
        part: String,
    },
    /// A number that no machine has.
    #[error("core list {list:?}: core {core} is beyond the highest number there can be, {CORE_MAX}")]
    TooLarge {
        /// The list as given.
        list: String,
        /// The core.
        core: usize,
    },
    /// A range whose end is before its start.
    #[error("core list {list:?}: range {start}-{end} runs backwards: write {end}-{start}")]
    Backwards {
        /// The list as given.
        list: String,
        /// The range's start.
        start: usize,
        /// The range's end.
        end: usize,
    },
    /// A core that is there twice: two slots would share it without saying so.
    #[error("core list {list:?} names core {core} twice: name each core once")]
    Twice {
        /// The list as given.
        list: String,
        /// The core.
        core: usize,
    },
    /// A core that this process may not run on.
    #[error("core {core} is not available to this process: it may use {available}")]
    NotAvailable {
        /// The core.
        core: usize,
        /// What there is, written as a core list.
        available: String,
    },
}

/// Reads a core list, in the order given: `0,2-3` is 0, 2, 3. Spaces around numbers do not matter.
///
/// # Errors
/// Where a part is no number or range, a range runs backwards, or a core is named twice.
pub fn parse_core_list(list: &str) -> Result<Vec<usize>, CoreListError> {
    let number = |text: &str, part: &str| {
        let text = text.trim();
        let not = || CoreListError::NotANumber { list: list.into(), part: part.into() };
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(not());
        }
        let core = text.parse::<usize>().unwrap_or(usize::MAX);
        if core > CORE_MAX { Err(CoreListError::TooLarge { list: list.into(), core }) } else { Ok(core) }
    };
    let mut cores = Vec::new();
    for part in list.split(',').map(str::trim) {
        if part.is_empty() {
            return Err(CoreListError::Empty { list: list.into() });
        }
        let (start, end) = match part.split_once('-') {
            Some((start, end)) => (number(start, part)?, number(end, part)?),
            None => {
                let core = number(part, part)?;
                (core, core)
            }
        };
        if start > end {
            return Err(CoreListError::Backwards { list: list.into(), start, end });
        }
        for core in start..=end {
            if cores.contains(&core) {
                return Err(CoreListError::Twice { list: list.into(), core });
            }
            cores.push(core);
        }
    }
    Ok(cores)
}

/// Writes cores the way [`parse_core_list`] reads them, neighbours as ranges.
pub fn format_core_list(cores: &[usize]) -> String {
    let mut list = String::new();
    let mut at = 0;
    while at < cores.len() {
        let mut last = at;
        while last + 1 < cores.len() && cores[last + 1] == cores[last] + 1 {
            last += 1;
        }
        if !list.is_empty() {
            list.push(',');
        }
        list.push_str(&cores[at].to_string());
        if last > at {
            list.push('-');
            list.push_str(&cores[last].to_string());
        }
        at = last + 1;
    }
    list
}

/// Checks that a process that may run on `available` may run on each of `cores`.
///
/// # Errors
/// Names the first core that is not available.
pub fn check_cores_available(cores: &[usize], available: &[usize]) -> Result<(), CoreListError> {
    match cores.iter().find(|core| !available.contains(core)) {
        Some(&core) => Err(CoreListError::NotAvailable { core, available: format_core_list(available) }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_well_formed_then_cores_come_in_the_order_given() {
        assert_eq!(parse_core_list("0"), Ok(vec![0]));
        assert_eq!(parse_core_list("0,2-3"), Ok(vec![0, 2, 3]));
        assert_eq!(parse_core_list(" 5 - 6 , 1 "), Ok(vec![5, 6, 1]));
    }

    #[test]
    fn when_malformed_then_the_error_names_the_part_and_what_to_write() {
        let cases = [
            ("", "empty part"),
            ("1,,2", "empty part"),
            ("1,", "empty part"),
            ("a", "\"a\" is neither"),
            ("1-2-3", "\"1-2-3\" is neither"),
            ("-1", "\"-1\" is neither"),
            ("+1", "\"+1\" is neither"),
            ("3-1", "write 1-3"),
            ("0,1,0-2", "core 0 twice"),
            ("0-99999999999999999999", "highest"),
        ];
        for (list, expected) in cases {
            let message = parse_core_list(list).unwrap_err().to_string();
            assert!(message.contains(expected), "{list}: {message}");
        }
    }

    #[test]
    fn when_formatted_then_parsing_gives_the_same() {
        for cores in [vec![0], vec![0, 1, 2, 5], vec![7, 3, 4]] {
            assert_eq!(parse_core_list(&format_core_list(&cores)), Ok(cores));
        }
        assert_eq!(format_core_list(&[0, 1, 2, 5]), "0-2,5");
    }

    #[test]
    fn when_a_core_is_missing_then_the_error_says_which_there_are() {
        assert_eq!(check_cores_available(&[1, 0], &[0, 1]), Ok(()));
        let message = check_cores_available(&[0, 9], &[0, 1]).unwrap_err().to_string();
        assert!(message.contains("core 9") && message.contains("0-1"), "{message}");
    }
}
