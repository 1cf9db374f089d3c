//! Events as text, one JSON object a line.

use std::io::{self, BufRead, Write};

use super::{Generator, json::WriteJson, model::Event, scratch::EventScratch};

/// Text is handed to the writer in pieces of about this size.
const CHUNK_BYTES: usize = 256 << 10;
/// What some editors begin UTF-8 with; no part of the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A line that is no event, or an input that could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The line is not one event in JSON. Lines and columns (in bytes) count from 1.
    #[error("line {line}, column {column}: {reason}")]
    Invalid {
        /// Number of the line.
        line: u64,
        /// Column where the text stops being an event.
        column: usize,
        /// What was expected or found.
        reason: String,
    },
    /// The input could not be read on.
    #[error("line {line}: the input cannot be read: {source}")]
    Io {
        /// Number of the line that was to be read.
        line: u64,
        /// The reason.
        source: io::Error,
    },
}

/// The event of one line.
///
/// # Errors
/// [`ReadError::Invalid`] with `line` as given.
pub fn parse_event(text: &[u8], line: u64) -> Result<Event, ReadError> {
    serde_json::from_slice(text).map_err(|error| invalid(&error, line))
}

fn invalid(error: &serde_json::Error, line: u64) -> ReadError {
    let message = error.to_string();
    // serde_json puts its own position behind the reason.
    let reason = message.rsplit_once(" at line ").map_or(message.as_str(), |(reason, _)| reason).to_owned();
    ReadError::Invalid { line, column: error.column().max(1), reason }
}

/// Reads events line by line. Empty lines are passed over.
#[derive(Debug)]
pub struct EventReader<R> {
    input: R,
    line: u64,
    text: Vec<u8>,
    failed: bool,
}

impl<R: BufRead> EventReader<R> {
    /// A reader at the start of its input.
    pub const fn new(input: R) -> Self {
        Self { input, line: 0, text: Vec::new(), failed: false }
    }
}

/// Goes on behind an invalid line; ends after an error of the input.
impl<R: BufRead> Iterator for EventReader<R> {
    type Item = Result<Event, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.failed {
            self.text.clear();
            self.line += 1;
            match self.input.read_until(b'\n', &mut self.text) {
                Ok(0) => return None,
                Ok(_) => {
                    let text = match self.text.strip_prefix(BYTE_ORDER_MARK) {
                        Some(rest) if self.line == 1 => rest,
                        _ => &self.text,
                    };
                    if !text.trim_ascii().is_empty() {
                        return Some(parse_event(text.trim_ascii_end(), self.line));
                    }
                }
                Err(source) => {
                    self.failed = true;
                    return Some(Err(ReadError::Io { line: self.line, source }));
                }
            }
        }
        None
    }
}

/// Writes the first `events` events of a generator, one a line, and flushes. Answers the number of bytes.
///
/// # Errors
/// Those of the writer.
pub fn generate_ndjson(generator: &Generator, events: u64, out: &mut impl Write) -> io::Result<u64> {
    let mut scratch = EventScratch::new();
    let mut text = Vec::with_capacity(CHUNK_BYTES + 4096);
    let mut bytes = 0;
    for n in 0..events {
        generator.event(n, &mut scratch).write_json(&mut text);
        text.push(b'\n');
        if text.len() >= CHUNK_BYTES {
            out.write_all(&text)?;
            bytes += text.len() as u64;
            text.clear();
        }
    }
    out.write_all(&text)?;
    out.flush()?;
    Ok(bytes + text.len() as u64)
}

#[cfg(test)]
mod tests {
    use thalweg::Record as _;

    use super::*;
    use crate::nexmark::EventView;

    #[test]
    fn when_events_are_written_then_they_are_read_back() {
        const EVENTS: u64 = 5_000;
        let generator = Generator::new(11);
        let mut text = Vec::new();
        let bytes = generate_ndjson(&generator, EVENTS, &mut text).unwrap();
        assert_eq!(bytes, text.len() as u64);
        let mut scratch = EventScratch::new();
        let mut read = EventReader::new(&text[..]);
        for n in 0..EVENTS {
            let event = read.next().expect("a line for each event").unwrap();
            assert_eq!(event, Event::from_view(generator.event(n, &mut scratch)));
        }
        assert!(read.next().is_none());
    }

    #[test]
    fn when_serde_writes_an_event_then_the_text_is_the_same() {
        let generator = Generator::new(12);
        let mut scratch = EventScratch::new();
        for n in 0..200 {
            let event = Event::from_view(generator.event(n, &mut scratch));
            let mut text = Vec::new();
            event.view().write_json(&mut text);
            assert_eq!(serde_json::to_vec(&event).unwrap(), text);
        }
    }

    #[test]
    fn when_strings_need_escapes_then_they_are_read_back() {
        let line = br#"{"Bid":{"auction":1,"bidder":2,"price":3,"channel":"a\"\\\n\u0001","url":"","dateTime":-5,"extra":"\u00e9"}}"#;
        let event = parse_event(line, 1).unwrap();
        let EventView::Bid(bid) = event.view() else { panic!("a bid") };
        assert_eq!((bid.channel, bid.date_time, bid.extra), ("a\"\\\n\u{1}", -5, "é"));
        let mut text = Vec::new();
        event.view().write_json(&mut text);
        assert_eq!(parse_event(&text, 1).unwrap(), event);
    }

    #[test]
    fn when_the_input_begins_with_a_byte_order_mark_then_it_is_no_part_of_the_first_line() {
        let mark = "\u{feff}";
        let good = r#"{"Bid":{"auction":1,"bidder":2,"price":3,"channel":"","url":"","dateTime":5,"extra":""}}"#;
        let read = |text: String| EventReader::new(text.as_bytes()).map(|event| event.is_ok()).collect::<Vec<_>>();
        assert_eq!(read(format!("{mark}{good}\n{good}\n")), [true, true]);
        assert_eq!(read(format!("{mark}\r\n{good}")), [true]);
        // Anywhere else it is what it is.
        assert_eq!(read(format!("{good}\n{mark}{good}\n")), [true, false]);
    }

    #[test]
    fn when_a_line_is_invalid_then_the_error_says_where_and_why_and_reading_goes_on() {
        let good = r#"{"Bid":{"auction":1,"bidder":2,"price":3,"channel":"","url":"","dateTime":5,"extra":""}}"#;
        let lines = [
            good,
            "",
            "{\"Bid\":{\"auction\":1}}\r",
            "{\"Bit\":{}}",
            "{\"Bid\":{\"auction\":\"x\"}}",
            "nonsense",
            "{\"Bid\":{\"auction\":1",
            good,
        ];
        let text = lines.join("\n");
        let seen: Vec<String> = EventReader::new(text.as_bytes())
            .map(|read| read.map_or_else(|error| error.to_string(), |_| "ok".into()))
            .collect();
        assert_eq!(
            seen,
            [
                "ok",
                "line 3, column 20: missing field `bidder`",
                "line 4, column 6: unknown variant `Bit`, expected one of `Person`, `Auction`, `Bid`",
                "line 5, column 21: invalid type: string \"x\", expected u64",
                "line 6, column 1: expected value",
                "line 7, column 19: EOF while parsing an object",
                "ok",
            ]
        );
    }

    #[test]
    fn when_the_input_fails_then_the_error_is_passed_on_once() {
        struct Broken;
        impl io::Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the cable is out"))
            }
        }
        let mut read = EventReader::new(io::BufReader::new(Broken));
        let error = read.next().expect("an error").unwrap_err();
        assert_eq!(error.to_string(), "line 1: the input cannot be read: the cable is out");
        assert!(read.next().is_none());
    }
}
