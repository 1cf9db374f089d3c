//! Where settings come from: YAML, flat `flink-conf.yaml`, `-D key=value`, the program.

use std::{fmt, sync::Arc};

use yaml_rust2::{
    parser::{Event, MarkedEventReceiver, Parser},
    scanner::Marker,
};

use super::error::ConfigError;

/// Place of a setting, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File {
        /// Its name as the caller gave it.
        name: Arc<str>,
        /// Line, from 1.
        line: usize,
    },
    /// `-D` on the command line.
    CommandLine,
    /// A call of the program.
    Program,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::CommandLine => f.write_str("-D on the command line"),
            Self::Program => f.write_str("the program"),
        }
    }
}

/// A key as it is written somewhere, and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub key: String,
    pub value: String,
    pub source: Source,
}

/// Editors of some systems begin UTF-8 with a mark, which is no part of the first key.
fn without_byte_order_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Nested and dotted keys alike; a list is its elements with semicolons between them, as Flink writes lists.
pub(super) fn yaml(name: &str, text: &str) -> Result<Vec<Setting>, ConfigError> {
    let text = without_byte_order_mark(text);
    let mut flattener = Flattener { name: name.into(), settings: Vec::new(), open: Vec::new(), error: None };
    Parser::new_from_str(text).load(&mut flattener, true).map_err(|error| {
        let place = Source::File { name: name.into(), line: error.marker().line() };
        ConfigError::Syntax { place, problem: error.info().to_owned() }
    })?;
    match flattener.error {
        Some(error) => Err(error),
        None => Ok(flattener.settings),
    }
}

/// A collection that has been opened and not closed.
enum Open {
    /// With the key whose value comes next.
    Mapping(Option<String>),
    Sequence {
        line: usize,
        elements: Vec<String>,
    },
}

struct Flattener {
    name: Arc<str>,
    settings: Vec<Setting>,
    open: Vec<Open>,
    error: Option<ConfigError>,
}

impl Flattener {
    fn place(&self, line: usize) -> Source {
        Source::File { name: Arc::clone(&self.name), line }
    }

    fn refuse(&mut self, line: usize, problem: &str) {
        let place = self.place(line);
        self.error.get_or_insert(ConfigError::Syntax { place, problem: problem.to_owned() });
    }

    fn scalar(&mut self, text: String, line: usize) {
        match self.open.last_mut() {
            Some(Open::Mapping(key @ None)) => *key = Some(text),
            Some(Open::Mapping(Some(_))) => self.value(text, line),
            Some(Open::Sequence { elements, .. }) => elements.push(text),
            // An empty document is one empty scalar.
            None if text.is_empty() || text == "~" => {}
            None => self.refuse(line, "expected `key: value`"),
        }
    }

    /// The value of the innermost key is complete.
    fn value(&mut self, value: String, line: usize) {
        let keys: Vec<&str> = self
            .open
            .iter()
            .filter_map(|open| match open {
                Open::Mapping(key) => key.as_deref(),
                Open::Sequence { .. } => None,
            })
            .collect();
        let (key, source) = (keys.join("."), self.place(line));
        self.settings.push(Setting { key, value, source });
        if let Some(Open::Mapping(key)) = self.open.last_mut() {
            *key = None;
        }
    }

    fn nest(&mut self, inner: Open, line: usize) {
        match self.open.last() {
            Some(Open::Mapping(None)) => self.refuse(line, "a key must be plain text"),
            Some(Open::Sequence { .. }) => self.refuse(line, "a list may hold plain values only"),
            _ => {}
        }
        self.open.push(inner);
    }

    fn close_mapping(&mut self) {
        self.open.pop();
        if let Some(Open::Mapping(key)) = self.open.last_mut() {
            *key = None;
        }
    }
}

impl MarkedEventReceiver for Flattener {
    fn on_event(&mut self, event: Event, mark: Marker) {
        let line = mark.line();
        match event {
            Event::Scalar(text, style, ..) => {
                // `key:` without a value is written as a null.
                let null = style == yaml_rust2::scanner::TScalarStyle::Plain && matches!(text.as_str(), "~" | "null");
                self.scalar(if null { String::new() } else { text }, line);
            }
            Event::MappingStart(..) => self.nest(Open::Mapping(None), line),
            Event::MappingEnd => self.close_mapping(),
            Event::SequenceStart(..) => self.nest(Open::Sequence { line, elements: Vec::new() }, line),
            Event::SequenceEnd => {
                if let Some(Open::Sequence { line, elements }) = self.open.pop() {
                    match self.open.last() {
                        Some(Open::Mapping(Some(_))) => self.value(elements.join(";"), line),
                        _ => self.refuse(line, "expected `key: value`, not a list"),
                    }
                }
            }
            Event::Alias(_) => self.refuse(line, "aliases are not supported: write the value out"),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart | Event::DocumentEnd => {}
        }
    }
}

/// Flink's older `flink-conf.yaml`: `key: value` on each line, comments after `#`.
pub(super) fn flat(name: &str, text: &str) -> Result<Vec<Setting>, ConfigError> {
    let name: Arc<str> = name.into();
    let mut settings = Vec::new();
    for (index, line) in without_byte_order_mark(text).lines().enumerate() {
        let source = Source::File { name: Arc::clone(&name), line: index + 1 };
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match line.split_once(": ") {
            Some((key, value)) if !key.trim().is_empty() && !value.trim().is_empty() => {
                settings.push(Setting { key: key.trim().into(), value: value.trim().into(), source });
            }
            _ => {
                let problem = format!("expected `key: value`, with a blank after the colon, not {line:?}");
                return Err(ConfigError::Syntax { place: source, problem });
            }
        }
    }
    Ok(settings)
}

/// `key=value`.
pub(super) fn definition(text: &str) -> Result<Setting, ConfigError> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok(Setting { key: key.trim().into(), value: value.trim().into(), source: Source::CommandLine })
        }
        _ => {
            let problem = format!("expected key=value, not {text:?}");
            Err(ConfigError::Syntax { place: Source::CommandLine, problem })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_file_is_nonsense_then_it_is_refused_or_read_but_never_a_panic() {
        let pieces = [
            "a", "b.c", ": ", ":", "\n", "\n  ", "- ", "{", "}", "[", "]", ", ", "? ", "&x ", "*x", "'", "#", "~",
            "---\n",
        ];
        let mut random = 1_u64;
        let (mut read, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push_str(pieces[(random >> 33) as usize % pieces.len()]);
            }
            match yaml("x", &text) {
                Ok(_) => read += 1,
                Err(error) => {
                    assert!(error.to_string().starts_with("x:"), "{error}");
                    refused += 1;
                }
            }
            // The flat reader takes any text too.
            let _ = flat("x", &text);
        }
        assert!(read > 100 && refused > 100, "{read} read, {refused} refused");
    }

    #[test]
    fn when_a_file_begins_with_a_byte_order_mark_then_the_first_key_is_without_it() {
        for read in [yaml, flat] {
            let settings = read("x", "\u{feff}a.b: 1\n# c\nd: 2\n").unwrap();
            let plain: Vec<(&str, &str)> = settings.iter().map(|s| (s.key.as_str(), s.value.as_str())).collect();
            assert_eq!(plain, [("a.b", "1"), ("d", "2")]);
            let Source::File { line, .. } = &settings[1].source else { panic!("a file") };
            assert_eq!(*line, 3);
        }
    }

    #[test]
    fn when_a_list_is_given_then_its_elements_are_joined_as_flink_writes_lists() {
        let settings = yaml("x", "a:\n  b: [1, 2]\n  c:\n  - p\n  - q\n  d:\n").unwrap();
        let plain: Vec<(&str, &str)> = settings.iter().map(|s| (s.key.as_str(), s.value.as_str())).collect();
        assert_eq!(plain, [("a.b", "1;2"), ("a.c", "p;q"), ("a.d", "")]);
    }
}
