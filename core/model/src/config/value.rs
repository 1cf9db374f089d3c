//! `ConfigValue`: how values are written in configuration, as Flink writes them.

use std::{num::NonZeroU32, time::Duration};

/// A type of values.
pub trait ConfigValue: Sized {
    /// What may be written, for messages.
    fn allowed() -> String;

    /// Reads a value; `None` where it is not one. Surrounding blanks have been removed.
    fn parse(text: &str) -> Option<Self>;

    /// Writes a value so that [`Self::parse`] reads it.
    fn render(&self) -> String;
}

/// A size in bytes: `32kb`, `1 gb`, or a bare number of bytes. Units are powers of 1,024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize(pub u64);

/// A share from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Fraction(pub f64);

/// Splits a number from the unit behind it.
fn number_and_unit(text: &str) -> Option<(u64, String)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim().to_lowercase()))
}

impl ConfigValue for Duration {
    fn allowed() -> String {
        "a duration such as 10 s, 200 ms, 5 min, 1 h, 2 d, PT1M30S, or a number of milliseconds".into()
    }

    fn parse(text: &str) -> Option<Self> {
        if text.starts_with(['P', 'p']) {
            return iso_duration(text);
        }
        let (number, unit) = number_and_unit(text)?;
        let nanos: u128 = match unit.as_str() {
            "ns" | "nano" | "nanos" | "nanosecond" | "nanoseconds" => 1,
            "µs" | "us" | "micro" | "micros" | "microsecond" | "microseconds" => 1_000,
            "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1_000_000,
            "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000_000,
            "m" | "min" | "minute" | "minutes" => 60_000_000_000,
            "h" | "hour" | "hours" => 3_600_000_000_000,
            "d" | "day" | "days" => 86_400_000_000_000,
            _ => return None,
        };
        let nanos = u128::from(number) * nanos;
        let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
        Some(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
    }

    fn render(&self) -> String {
        match self.subsec_nanos() {
            0 => format!("{} s", self.as_secs()),
            _ => format!("{} ns", self.as_nanos()),
        }
    }
}

/// ISO 8601: `P1DT2H3M4.5S`, without years, months and weeks.
fn iso_duration(text: &str) -> Option<Duration> {
    let upper = text.to_ascii_uppercase();
    let (days, time) = match upper[1..].split_once('T') {
        Some((_, "")) => return None,
        Some((days, time)) => (days, time),
        None => (&upper[1..], ""),
    };
    let mut total = match days.strip_suffix('D') {
        Some(days) => Duration::from_secs(days.parse::<u64>().ok()?.checked_mul(86_400)?),
        None if days.is_empty() && !time.is_empty() => Duration::ZERO,
        None => return None,
    };
    let mut rest = time;
    for (unit, seconds) in [('H', 3600), ('M', 60)] {
        if let Some((number, after)) = rest.split_once(unit) {
            let part = Duration::from_secs(number.parse::<u64>().ok()?.checked_mul(seconds)?);
            (total, rest) = (total.checked_add(part)?, after);
        }
    }
    if !rest.is_empty() {
        let digits = |c: char| c.is_ascii_digit() || c == '.';
        let number = rest.strip_suffix('S').filter(|number| number.chars().all(digits))?;
        total = total.checked_add(Duration::try_from_secs_f64(number.parse().ok()?).ok()?)?;
    }
    Some(total)
}

impl ConfigValue for MemorySize {
    fn allowed() -> String {
        "a size such as 32kb, 64 mb, 1 gb, or a number of bytes".into()
    }

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = number_and_unit(text)?;
        let shift = match unit.as_str() {
            "" | "b" | "bytes" => 0,
            "k" | "kb" | "kibibytes" => 10,
            "m" | "mb" | "mebibytes" => 20,
            "g" | "gb" | "gibibytes" => 30,
            "t" | "tb" | "tebibytes" => 40,
            _ => return None,
        };
        number.checked_mul(1 << shift).map(Self)
    }

    fn render(&self) -> String {
        format!("{} bytes", self.0)
    }
}

impl ConfigValue for bool {
    fn allowed() -> String {
        "true or false".into()
    }

    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    fn render(&self) -> String {
        self.to_string()
    }
}

impl ConfigValue for String {
    fn allowed() -> String {
        "a text that is not empty".into()
    }

    fn parse(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn render(&self) -> String {
        self.clone()
    }
}

impl ConfigValue for Fraction {
    fn allowed() -> String {
        "a share from 0 to 1".into()
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).map(Self)
    }

    fn render(&self) -> String {
        self.0.to_string()
    }
}

/// Numbers that parse as Rust's do.
macro_rules! number {
    ($type:ty, $allowed:expr, $good:expr) => {
        impl ConfigValue for $type {
            fn allowed() -> String {
                $allowed.into()
            }

            fn parse(text: &str) -> Option<Self> {
                text.parse().ok().filter($good)
            }

            fn render(&self) -> String {
                self.to_string()
            }
        }
    };
}

number!(u32, "a whole number from 0 to 2147483647", |&n: &u32| n <= i32::MAX as u32);
number!(u16, "a whole number from 0 to 65535", |_: &u16| true);
number!(i32, "a whole number", |_: &i32| true);
number!(NonZeroU32, "a whole number from 1 to 2147483647", |n: &NonZeroU32| n.get() <= i32::MAX as u32);
number!(f64, "a number from 1 up", |&n: &f64| n.is_finite() && n >= 1.0);

/// Enums by their names; upper and lower case and dashes for underscores as one likes.
macro_rules! enumeration {
    ($type:ty, $($value:expr => $first:literal $(| $other:literal)*),+ $(,)?) => {
        impl $crate::config::ConfigValue for $type {
            fn allowed() -> String {
                concat!("one of" $(, " ", $first)+).into()
            }

            fn parse(text: &str) -> Option<Self> {
                let text = text.to_ascii_lowercase().replace('_', "-");
                $(
                    let names = [$first $(, $other)*];
                    if names.iter().any(|name| name.to_ascii_lowercase().replace('_', "-") == text) {
                        return Some($value);
                    }
                )+
                None
            }

            fn render(&self) -> String {
                $(if *self == $value { return $first.into(); })+
                unreachable!("every value has a name")
            }
        }
    };
}
pub(super) use enumeration;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_duration_is_written_flinks_ways_then_it_is_read() {
        let millis = |text| Duration::parse(text).map(|duration| duration.as_millis());
        for (text, expected) in [
            ("10 s", 10_000),
            ("200ms", 200),
            ("5 min", 300_000),
            ("5", 5),
            ("1 h", 3_600_000),
            ("2 d", 172_800_000),
            ("1 DAY", 86_400_000),
            ("1500 µs", 1),
            ("PT1M30S", 90_000),
            ("P1DT2H", 93_600_000),
            ("PT0.5S", 500),
            ("P2D", 172_800_000),
            ("0", 0),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
        for text in ["", "abc", "10 parsecs", "-1", "1.5 s", "P", "PT", "PT5", "P1M", "PTS", "PT1e3S", "s"] {
            assert_eq!(millis(text), None, "{text}");
        }
    }

    #[test]
    fn when_a_size_is_written_flinks_ways_then_it_is_read() {
        let bytes = |text| MemorySize::parse(text).map(|size| size.0);
        for (text, expected) in
            [("32kb", 32 << 10), ("1 gb", 1 << 30), ("64 MB", 64 << 20), ("7", 7), ("2t", 2 << 40), ("5 bytes", 5)]
        {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for text in ["", "kb", "-1", "1.5gb", "1 pb", "99999999999 tb"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn when_a_value_is_written_out_then_it_reads_back() {
        fn back<T: ConfigValue + PartialEq + std::fmt::Debug>(value: T) {
            assert_eq!(T::parse(&value.render()), Some(value));
        }
        back(Duration::from_millis(1234));
        back(Duration::from_secs(60));
        back(MemorySize(12345));
        back(true);
        back(Fraction(0.25));
        back(NonZeroU32::new(3).unwrap());
        back(-1);
        assert_eq!(NonZeroU32::parse("0"), None);
        assert_eq!(Fraction::parse("1.1"), None);
        assert_eq!(bool::parse("yes"), None);
        assert_eq!(bool::parse("TRUE"), Some(true));
    }
}
