//! Numbers as people type them on a command line.

/// Reads a count: `1000000`, `1_000_000`, `1M`, `2.5k`. Suffixes are k, M and G, powers of a thousand.
///
/// # Errors
/// A message for the command line where it is no whole number, or too large.
pub fn count(text: &str) -> Result<u64, String> {
    let plain = text.replace('_', "");
    let (digits, factor) = match plain.as_bytes().last() {
        Some(b'k' | b'K') => (&plain[..plain.len() - 1], 1_000),
        Some(b'm' | b'M') => (&plain[..plain.len() - 1], 1_000_000),
        Some(b'g' | b'G') => (&plain[..plain.len() - 1], 1_000_000_000),
        _ => (plain.as_str(), 1_u64),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let wrong = || "write a whole number such as 1000000, 1_000_000 or 1M".to_owned();
    if whole.is_empty() || !(whole.bytes().chain(fraction.bytes())).all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let too_large = || format!("too large: the largest is {}", u64::MAX);
    let mut value = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(factor)).ok_or_else(too_large)?;
    let mut unit = factor;
    for digit in fraction.bytes() {
        if unit % 10 != 0 {
            return Err(wrong());
        }
        unit /= 10;
        value = value.checked_add(u64::from(digit - b'0') * unit).ok_or_else(too_large)?;
    }
    if digits.ends_with('.') { Err(wrong()) } else { Ok(value) }
}

/// Reads a count of which there has to be one at least.
///
/// # Errors
/// As [`count`], and where it is 0.
pub fn count_from_1(text: &str) -> Result<u64, String> {
    match count(text)? {
        0 => Err("write 1 or more".to_owned()),
        count => Ok(count),
    }
}

/// Reads a rate per second: a count above zero, or a fraction such as `0.5`.
///
/// # Errors
/// A message for the command line where it is neither.
pub fn rate(text: &str) -> Result<f64, String> {
    let rate = count(text).map(|count| count as f64).or_else(|_| text.parse::<f64>());
    match rate {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("write how many a second, such as 500000, 500k or 0.5".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_typed_in_any_usual_way_then_the_count_is_understood() {
        let cases = [
            ("0", 0),
            ("1000", 1_000),
            ("1_000_000", 1_000_000),
            ("10k", 10_000),
            ("1M", 1_000_000),
            ("2.5M", 2_500_000),
            ("1.000k", 1_000),
            ("3G", 3_000_000_000),
        ];
        for (text, expected) in cases {
            assert_eq!(count(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn when_it_is_no_count_then_the_message_says_what_to_write() {
        for text in ["", "k", "-1", "1e6", "1.5", "1.0001k", "1.k", ".5k", "ten", "1 000"] {
            assert!(count(text).unwrap_err().contains("1_000_000"), "{text}");
        }
        assert!(count("99999999999999999999").unwrap_err().contains("too large"));
        assert!(count("18446744073709551615G").unwrap_err().contains("too large"));
    }

    #[test]
    fn when_there_has_to_be_one_at_least_then_none_is_refused() {
        assert_eq!((count_from_1("1"), count_from_1("1k")), (Ok(1), Ok(1_000)));
        assert!(count_from_1("0").unwrap_err().contains("1 or more") && count_from_1("x").is_err());
    }

    #[test]
    fn when_a_rate_is_typed_then_it_is_above_zero() {
        assert_eq!([rate("500k"), rate("0.5"), rate("100000")], [Ok(500_000.0), Ok(0.5), Ok(100_000.0)]);
        for text in ["0", "-5", "NaN", "inf", "fast"] {
            assert!(rate(text).unwrap_err().contains("500k"), "{text}");
        }
    }
}
