//! JSON lines written straight from views, without allocation.

use super::model::{AuctionView, BidView, EventView, PersonView};

/// What can be written as a JSON object.
pub trait WriteJson {
    /// Appends the object, without a line end.
    fn write_json(&self, out: &mut Vec<u8>);
}

/// An object being written: fields one after the other, then [`end`](Self::end).
#[derive(Debug)]
pub struct JsonObject<'a> {
    out: &'a mut Vec<u8>,
    before: u8,
}

impl<'a> JsonObject<'a> {
    /// Begins an object.
    #[inline]
    pub const fn begin(out: &'a mut Vec<u8>) -> Self {
        Self { out, before: b'{' }
    }

    #[inline]
    fn key(&mut self, key: &str) {
        self.out.push(self.before);
        self.before = b',';
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// A number.
    #[inline]
    pub fn unsigned(mut self, key: &str, value: u64) -> Self {
        self.key(key);
        push_decimal(self.out, value);
        self
    }

    /// A number that may be negative.
    #[inline]
    pub fn signed(mut self, key: &str, value: i64) -> Self {
        self.key(key);
        if value < 0 {
            self.out.push(b'-');
        }
        push_decimal(self.out, value.unsigned_abs());
        self
    }

    /// A number of thousandths, always with three decimals.
    #[inline]
    pub fn thousandths(mut self, key: &str, value: u128) -> Self {
        self.key(key);
        push_thousandths(self.out, value);
        self
    }

    /// A string.
    #[inline]
    pub fn text(mut self, key: &str, value: &str) -> Self {
        self.key(key);
        push_string(self.out, value);
        self
    }

    /// Ends the object.
    #[inline]
    pub fn end(self) {
        if self.before == b'{' {
            self.out.push(b'{');
        }
        self.out.push(b'}');
    }
}

fn push_decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends thousandths as a number with three decimals.
pub(super) fn push_thousandths(out: &mut Vec<u8>, value: u128) {
    let rest = match u64::try_from(value) {
        Ok(value) => {
            push_decimal(out, value / 1000);
            value % 1000
        }
        // Hardly ever, and division of 128 bits is slow.
        Err(_) => {
            out.extend_from_slice((value / 1000).to_string().as_bytes());
            (value % 1000) as u64
        }
    };
    out.extend_from_slice(&[b'.', b'0' + (rest / 100) as u8, b'0' + (rest / 10 % 10) as u8, b'0' + (rest % 10) as u8]);
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    // Counted without a branch, so that the compiler can look at many bytes at a time.
    let special = text.bytes().map(|byte| u8::from(needs_escape(byte))).fold(0, |any, this| any | this);
    if special == 0 {
        out.extend_from_slice(text.as_bytes());
    } else {
        for byte in text.bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(b"\\n"),
                byte if needs_escape(byte) => {
                    out.extend_from_slice(b"\\u00");
                    out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
                }
                byte => out.push(byte),
            }
        }
    }
    out.push(b'"');
}

const fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

impl WriteJson for EventView<'_> {
    fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            EventView::Person(person) => {
                out.extend_from_slice(b"{\"Person\":");
                person.write_json(out);
            }
            EventView::Auction(auction) => {
                out.extend_from_slice(b"{\"Auction\":");
                auction.write_json(out);
            }
            EventView::Bid(bid) => {
                out.extend_from_slice(b"{\"Bid\":");
                bid.write_json(out);
            }
        }
        out.push(b'}');
    }
}

impl WriteJson for PersonView<'_> {
    fn write_json(&self, out: &mut Vec<u8>) {
        JsonObject::begin(out)
            .unsigned("id", self.id)
            .text("name", self.name)
            .text("emailAddress", self.email_address)
            .text("creditCard", self.credit_card)
            .text("city", self.city)
            .text("state", self.state)
            .signed("dateTime", self.date_time)
            .text("extra", self.extra)
            .end();
    }
}

impl WriteJson for AuctionView<'_> {
    fn write_json(&self, out: &mut Vec<u8>) {
        JsonObject::begin(out)
            .unsigned("id", self.id)
            .text("itemName", self.item_name)
            .text("description", self.description)
            .unsigned("initialBid", self.initial_bid)
            .unsigned("reserve", self.reserve)
            .signed("dateTime", self.date_time)
            .signed("expires", self.expires)
            .unsigned("seller", self.seller)
            .unsigned("category", self.category)
            .text("extra", self.extra)
            .end();
    }
}

impl WriteJson for BidView<'_> {
    fn write_json(&self, out: &mut Vec<u8>) {
        JsonObject::begin(out)
            .unsigned("auction", self.auction)
            .unsigned("bidder", self.bidder)
            .unsigned("price", self.price)
            .text("channel", self.channel)
            .text("url", self.url)
            .signed("dateTime", self.date_time)
            .text("extra", self.extra)
            .end();
    }
}
