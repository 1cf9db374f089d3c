//! The rows that queries answer, with the field names of the reference as their JSON form.

use serde::{Deserialize, Serialize};
use thalweg::Record;

use super::{
    digest::{DigestRow, RowHasher},
    json::{JsonObject, WriteJson},
};

/// A row of q0: a bid as it came.
#[derive(Record, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BidRow {
    /// The auction.
    pub auction: u64,
    /// Who bids.
    pub bidder: u64,
    /// The price, in cents.
    pub price: u64,
    /// When, event time in milliseconds.
    pub date_time: i64,
    /// Padding.
    pub extra: String,
}

/// A row of q1: a bid with its price converted.
#[derive(Record, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConvertedBidRow {
    /// The auction.
    pub auction: u64,
    /// Who bids.
    pub bidder: u64,
    /// The converted price in thousandths; as JSON a number named `price` with three decimals.
    #[serde(rename = "price", with = "thousandths")]
    pub price_thousandths: u128,
    /// When, event time in milliseconds.
    pub date_time: i64,
    /// Padding.
    pub extra: String,
}

/// A row of q2: what was bid in a selected auction.
#[derive(Record, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuctionPriceRow {
    /// The auction.
    pub auction: u64,
    /// The price, in cents.
    pub price: u64,
}

/// A row of q5: an auction with the most bids of a window.
#[derive(Record, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuctionCountRow {
    /// The auction.
    pub auction: u64,
    /// Its bids in the window.
    pub num: u64,
}

/// A row of q7: a bid with the highest price of its window.
#[derive(Record, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HighestBidRow {
    /// The auction.
    pub auction: u64,
    /// The price, in cents.
    pub price: u64,
    /// Who bids.
    pub bidder: u64,
    /// When, event time in milliseconds.
    pub date_time: i64,
    /// Padding.
    pub extra: String,
}

/// A row of q8: a person who opened an auction in the window of the registration.
#[derive(Record, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSellerRow {
    /// The person.
    pub id: u64,
    /// The person's name.
    pub name: String,
    /// Start of the window, event time in milliseconds.
    pub starttime: i64,
}

/// The JSON form of thousandths.
mod thousandths {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};
    use serde_json::value::RawValue;

    pub(super) fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = Vec::with_capacity(32);
        crate::nexmark::json::push_thousandths(&mut text, *value);
        serde_json::from_slice::<&RawValue>(&text).map_err(S::Error::custom)?.serialize(serializer)
    }

    /// From the digits themselves: a double could not hold all of them.
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        parse(text.get()).ok_or_else(|| D::Error::custom("a price must be a number from 0 with at most three decimals"))
    }

    fn parse(text: &str) -> Option<u128> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        if decimals.is_empty() || decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let whole = whole.parse::<u128>().ok()?.checked_mul(1000)?;
        whole.checked_add(format!("{decimals:0<3}").parse().ok()?)
    }
}

/// Implements digest and JSON for the view of a row and the row itself. The first hashed word is that of the kind.
macro_rules! row {
    ($kind:literal $row:ident $view:ty: $($write:ident $hash:ident $field:ident $key:literal),+) => {
        impl DigestRow for $view {
            #[inline]
            fn row_hash(&self) -> u64 {
                RowHasher::new().word($kind)$(.$hash(self.$field))+.finish()
            }
        }
        impl WriteJson for $view {
            fn write_json(&self, out: &mut Vec<u8>) {
                JsonObject::begin(out)$(.$write($key, self.$field))+.end();
            }
        }
        impl DigestRow for $row {
            fn row_hash(&self) -> u64 {
                self.view().row_hash()
            }
        }
        impl WriteJson for $row {
            fn write_json(&self, out: &mut Vec<u8>) {
                self.view().write_json(out);
            }
        }
    };
}

row!(0 BidRow BidRowView<'_>: unsigned word auction "auction", unsigned word bidder "bidder", unsigned word price "price",
    signed signed date_time "dateTime", text text extra "extra");
row!(1 ConvertedBidRow ConvertedBidRowView<'_>: unsigned word auction "auction", unsigned word bidder "bidder",
    thousandths wide price_thousandths "price", signed signed date_time "dateTime", text text extra "extra");
row!(2 AuctionPriceRow AuctionPriceRowView: unsigned word auction "auction", unsigned word price "price");
row!(5 AuctionCountRow AuctionCountRowView: unsigned word auction "auction", unsigned word num "num");
row!(7 HighestBidRow HighestBidRowView<'_>: unsigned word auction "auction", unsigned word price "price",
    unsigned word bidder "bidder", signed signed date_time "dateTime", text text extra "extra");
row!(8 NewSellerRow NewSellerRowView<'_>: unsigned word id "id", text text name "name", signed signed starttime "starttime");

/// The view of any query's row.
#[derive(Clone, Copy, Debug)]
pub enum RowView<'a> {
    /// Of q0.
    Q0(BidRowView<'a>),
    /// Of q1.
    Q1(ConvertedBidRowView<'a>),
    /// Of q2.
    Q2(AuctionPriceRowView),
    /// Of q5.
    Q5(AuctionCountRowView),
    /// Of q7.
    Q7(HighestBidRowView<'a>),
    /// Of q8.
    Q8(NewSellerRowView<'a>),
}

/// The same call on the row of every query.
macro_rules! each_row {
    ($self:ident, $row:ident => $call:expr) => {
        match $self {
            RowView::Q0($row) => $call,
            RowView::Q1($row) => $call,
            RowView::Q2($row) => $call,
            RowView::Q5($row) => $call,
            RowView::Q7($row) => $call,
            RowView::Q8($row) => $call,
        }
    };
}

impl DigestRow for RowView<'_> {
    fn row_hash(&self) -> u64 {
        each_row!(self, row => row.row_hash())
    }
}

impl WriteJson for RowView<'_> {
    fn write_json(&self, out: &mut Vec<u8>) {
        each_row!(self, row => row.write_json(out));
    }
}
