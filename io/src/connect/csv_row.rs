//! A CSV row cut into fields (RFC 4180): quotes around a field, a quote within them doubled.

/// Where a row's fields are. Kept between rows, so that cutting allocates nothing once warm.
#[derive(Debug, Default)]
pub(super) struct CsvRow {
    fields: Vec<Field>,
    /// Fields that had doubled quotes, without the doubling.
    unescaped: String,
}

#[derive(Debug, Clone, Copy)]
struct Field {
    start: usize,
    end: usize,
    /// The byte of the row at which the field starts, its quote included.
    at: usize,
    is_unescaped: bool,
}

/// Why a row could not be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowFault {
    /// The quote at this byte has no partner.
    Unclosed { at: usize },
    /// Something other than a delimiter follows a closing quote, at this byte.
    AfterQuote { at: usize },
}

impl CsvRow {
    /// Cuts a row. `delimiter` and `quote` are ASCII.
    pub fn cut(&mut self, row: &str, delimiter: u8, quote: u8) -> Result<(), RowFault> {
        self.fields.clear();
        self.unescaped.clear();
        let bytes = row.as_bytes();
        let mut at = 0;
        loop {
            let next = if bytes.get(at) == Some(&quote) {
                self.cut_quoted(row, at, delimiter, quote)?
            } else {
                let end = memchr::memchr(delimiter, &bytes[at..]).map_or(bytes.len(), |found| at + found);
                self.fields.push(Field { start: at, end, at, is_unescaped: false });
                end
            };
            if next == bytes.len() {
                return Ok(());
            }
            at = next + 1;
        }
    }

    /// Cuts the field whose opening quote is at `at`; answers where it ends, which is a delimiter or the row's end.
    fn cut_quoted(&mut self, row: &str, at: usize, delimiter: u8, quote: u8) -> Result<usize, RowFault> {
        let bytes = row.as_bytes();
        let (start, unescaped_start) = (at + 1, self.unescaped.len());
        let (mut from, mut has_doubled) = (start, false);
        let close = loop {
            let found = memchr::memchr(quote, &bytes[from..]).ok_or(RowFault::Unclosed { at })?;
            let close = from + found;
            if bytes.get(close + 1) != Some(&quote) {
                break close;
            }
            has_doubled = true;
            self.unescaped.push_str(&row[from..=close]);
            from = close + 2;
        };
        if bytes.get(close + 1).is_some_and(|next| *next != delimiter) {
            return Err(RowFault::AfterQuote { at: close + 1 });
        }
        self.fields.push(if has_doubled {
            self.unescaped.push_str(&row[from..close]);
            Field { start: unescaped_start, end: self.unescaped.len(), at, is_unescaped: true }
        } else {
            Field { start, end: close, at, is_unescaped: false }
        });
        Ok(close + 1)
    }

    /// The number of fields of the latest row.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// A field of the latest row, which `row` must be.
    pub fn field<'a>(&'a self, row: &'a str, index: usize) -> &'a str {
        let field = self.fields[index];
        if field.is_unescaped { &self.unescaped[field.start..field.end] } else { &row[field.start..field.end] }
    }

    /// The byte of the row at which a field starts.
    pub fn field_at(&self, index: usize) -> usize {
        self.fields.get(index).map_or(0, |field| field.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(row: &str) -> Result<Vec<String>, RowFault> {
        let mut cut = CsvRow::default();
        cut.cut(row, b',', b'"')?;
        Ok((0..cut.len()).map(|index| cut.field(row, index).to_string()).collect())
    }

    #[test]
    fn when_a_row_is_cut_then_quotes_are_taken_off_and_doubled_ones_halved() {
        assert_eq!(cut("a,b").unwrap(), ["a", "b"]);
        assert_eq!(cut("").unwrap(), [""]);
        assert_eq!(cut(",").unwrap(), ["", ""]);
        assert_eq!(cut("\"a,b\",c").unwrap(), ["a,b", "c"]);
        assert_eq!(cut("\"\",\"\"\"\",\"a\"\"b\"\"\"").unwrap(), ["", "\"", "a\"b\""]);
        assert_eq!(cut("a\"b,é").unwrap(), ["a\"b", "é"]);
        assert_eq!(cut("\"x\ny\"").unwrap(), ["x\ny"]);
    }

    #[test]
    fn when_a_quote_is_wrong_then_its_place_is_told() {
        assert_eq!(cut("a,\"b"), Err(RowFault::Unclosed { at: 2 }));
        assert_eq!(cut("a,\"b\"\""), Err(RowFault::Unclosed { at: 2 }));
        assert_eq!(cut("\"a\"b,c"), Err(RowFault::AfterQuote { at: 3 }));
    }
}
