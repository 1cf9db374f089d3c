//! The queries, their names and what they ask.

use std::{fmt, str::FromStr};

/// A Nexmark query that there is an engine job and a reference evaluation for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Query {
    /// All bids, as they are.
    Q0,
    /// All bids, with the price converted.
    Q1,
    /// The bids of every 123rd auction.
    Q2,
    /// The auctions with the most bids of a sliding window.
    Q5,
    /// The highest bids of a tumbling window.
    Q7,
    /// Persons who registered and opened an auction in the same tumbling window.
    Q8,
}

/// No query has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no Nexmark query `{0}`: choose among q0, q1, q2, q5, q7, q8")]
pub struct UnknownQuery(pub String);

impl Query {
    /// All queries, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Q0, Self::Q1, Self::Q2, Self::Q5, Self::Q7, Self::Q8];

    /// The name, such as `q5`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q0 => "q0",
            Self::Q1 => "q1",
            Self::Q2 => "q2",
            Self::Q5 => "q5",
            Self::Q7 => "q7",
            Self::Q8 => "q8",
        }
    }

    /// What it asks, in one line.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Q0 => "all bids, passed through",
            Self::Q1 => "all bids, the price times 0.908",
            Self::Q2 => "auction and price of the bids whose auction is divisible by 123",
            Self::Q5 => "per sliding window (10 s, every 2 s), the auctions with the most bids",
            Self::Q7 => "per tumbling window (10 s), the bids with the highest price",
            Self::Q8 => "per tumbling window (10 s), persons who registered and opened an auction",
        }
    }

    /// The fields of its result rows, in order.
    pub const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Q0 | Self::Q1 => &["auction", "bidder", "price", "dateTime", "extra"],
            Self::Q2 => &["auction", "price"],
            Self::Q5 => &["auction", "num"],
            Self::Q7 => &["auction", "price", "bidder", "dateTime", "extra"],
            Self::Q8 => &["id", "name", "starttime"],
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Query {
    type Err = UnknownQuery;

    fn from_str(name: &str) -> Result<Self, UnknownQuery> {
        let known = Self::ALL.into_iter().find(|query| query.name().eq_ignore_ascii_case(name));
        known.ok_or_else(|| UnknownQuery(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_name_is_parsed_then_it_is_the_query_or_the_error_lists_all() {
        for query in Query::ALL {
            assert_eq!(query.to_string().parse(), Ok(query));
            assert!(UnknownQuery(String::new()).to_string().contains(query.name()));
        }
        assert_eq!("Q5".parse(), Ok(Query::Q5));
        assert!("q3".parse::<Query>().unwrap_err().to_string().starts_with("there is no Nexmark query `q3`"));
    }
}
