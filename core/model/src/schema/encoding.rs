//! Schemas as bytes, as `_metadata` keeps them. The byte table is in `io/FORMAT.md`.

use std::{fmt, sync::Arc};

use super::{ArchiveFormat, Case, Field, Kind, Schema, Style};

const MAGIC: [u8; 4] = *b"TWSC";
/// Version of the encoding of schemas.
pub const SCHEMA_VERSION: u16 = 1;
/// Deepest nesting of types that can be stored.
pub const MAX_SCHEMA_DEPTH: usize = 64;
/// Most types, each counted wherever it occurs, that can be stored.
pub const MAX_SCHEMA_NODES: usize = 1 << 14;
/// Most bytes of the schemas of one state: as many as `_metadata` takes.
pub const MAX_SCHEMA_BYTES: usize = 1 << 20;
/// Longest name of a type, a variant or a field, in bytes.
const MAX_NAME_BYTES: usize = 1 << 10;
/// Largest archived value without what lies out of line: what one schema can describe.
const MAX_VALUE_BYTES: u32 = 1 << 28;
/// Magic, version, format, parts, and two zeros.
const HEADER_BYTES: usize = 12;

/// Schemas cannot be stored, or bytes are not schemas.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SchemaError {
    /// The bytes do not begin like schemas.
    NotASchema,
    /// They were written by a later release.
    Version {
        /// The version that they have.
        found: u16,
    },
    /// What they describe is archived in another format.
    Format {
        /// That format, if it is one.
        found: Option<ArchiveFormat>,
    },
    /// There is more of something than can be stored.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// The bytes contradict themselves.
    Damaged {
        /// Where, in bytes.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASchema => f.write_str("these bytes are no stored schema: use an older checkpoint"),
            Self::Version { found } => write!(
                f,
                "the schema has version {found}, this release reads up to {SCHEMA_VERSION}: use the release that wrote it"
            ),
            Self::Format { found: Some(found) } => {
                write!(f, "the state is archived in another format, {found:?}: use the release that wrote it")
            }
            Self::Format { found: None } => {
                f.write_str("the state is archived in an unknown format: use a newer release")
            }
            Self::TooMany { what, limit } => {
                write!(f, "a record with more than {limit} {what} cannot be kept in state: make its types simpler")
            }
            Self::Damaged { at, what } => write!(f, "the schema is damaged at byte {at}: {what}"),
        }
    }
}

impl std::error::Error for SchemaError {}

/// The bytes of up to three schemas: of key, user key and value. Says nothing of limits.
pub(crate) fn encode_parts(parts: [Option<&Schema>; 3]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&SCHEMA_VERSION.to_le_bytes());
    out.extend_from_slice(&ArchiveFormat::CURRENT.to_bytes());
    let there = parts.iter().enumerate().fold(0, |bits, (n, part)| bits | (part.is_some() as u8) << n);
    out.extend_from_slice(&[there, 0]);
    for part in parts.into_iter().flatten() {
        put_schema(&mut out, part);
    }
    out
}

/// The same, unless it could not be read back once it is written.
pub(crate) fn encode_checked(parts: [Option<&Schema>; 3]) -> Result<Vec<u8>, SchemaError> {
    let mut nodes = 0;
    parts.into_iter().flatten().try_for_each(|part| check_schema(part, 0, &mut nodes))?;
    let encoded = encode_parts(parts);
    at_most("bytes of names and types", encoded.len(), MAX_SCHEMA_BYTES)?;
    Ok(encoded)
}

/// The schemas of bytes that [`encode_parts`] wrote.
pub(crate) fn decode_parts(bytes: &[u8]) -> Result<[Option<Schema>; 3], SchemaError> {
    if bytes.len() < HEADER_BYTES || bytes[..4] != MAGIC {
        return Err(SchemaError::NotASchema);
    }
    let found = u16::from_le_bytes([bytes[4], bytes[5]]);
    if found != SCHEMA_VERSION {
        return Err(SchemaError::Version { found });
    }
    let found = ArchiveFormat::from_bytes([bytes[6], bytes[7], bytes[8], bytes[9]]);
    if found != Some(ArchiveFormat::CURRENT) {
        return Err(SchemaError::Format { found });
    }
    if bytes[10] > 0b111 || bytes[11] != 0 {
        return Err(SchemaError::Damaged { at: 10, what: "parts that nobody knows" });
    }
    let mut input = Input { bytes, at: HEADER_BYTES, nodes_left: MAX_SCHEMA_NODES };
    let mut parts = [None, None, None];
    for (n, part) in parts.iter_mut().enumerate() {
        if bytes[10] & 1 << n != 0 {
            *part = Some(input.schema(0)?);
        }
    }
    if input.at != bytes.len() { Err(input.damaged("bytes behind the end")) } else { Ok(parts) }
}

fn at_most(what: &'static str, found: usize, limit: usize) -> Result<(), SchemaError> {
    if found <= limit { Ok(()) } else { Err(SchemaError::TooMany { what, limit }) }
}

fn check_schema(schema: &Schema, depth: usize, nodes: &mut usize) -> Result<(), SchemaError> {
    *nodes += 1;
    at_most("types within types", depth, MAX_SCHEMA_DEPTH)?;
    at_most("fields and types in all", *nodes, MAX_SCHEMA_NODES)?;
    at_most("bytes", schema.size as usize, MAX_VALUE_BYTES as usize)?;
    let mut fields = |fields: &[Field]| {
        at_most("fields", fields.len(), u16::MAX.into())?;
        fields.iter().try_for_each(|field| {
            at_most("bytes of a name", field.name.len(), MAX_NAME_BYTES)?;
            check_schema(&field.schema, depth + 1, nodes)
        })
    };
    match &schema.kind {
        Kind::Option { value, .. } => check_schema(value, depth + 1, nodes),
        Kind::Vec(element) => check_schema(element, depth + 1, nodes),
        Kind::Tuple(all) => fields(all),
        Kind::Struct(case) => {
            at_most("bytes of a name", case.name.len(), MAX_NAME_BYTES)?;
            fields(&case.fields)
        }
        Kind::Enum { name, variants } => {
            at_most("bytes of a name", name.len(), MAX_NAME_BYTES)?;
            variants.iter().try_for_each(|case| {
                at_most("bytes of a name", case.name.len(), MAX_NAME_BYTES)?;
                fields(&case.fields)
            })
        }
        _ => Ok(()),
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_schema(out: &mut Vec<u8>, schema: &Schema) {
    out.push(match &schema.kind {
        Kind::Unsigned => 1,
        Kind::Signed => 2,
        Kind::Float => 3,
        Kind::Bool => 4,
        Kind::Char => 5,
        Kind::Unit => 6,
        Kind::String => 7,
        Kind::Option { .. } => 8,
        Kind::Vec(_) => 9,
        Kind::Tuple(_) => 10,
        Kind::Struct(_) => 11,
        Kind::Enum { .. } => 12,
    });
    out.push(schema.align as u8);
    out.extend_from_slice(&schema.size.to_le_bytes());
    match &schema.kind {
        Kind::Option { offset, value } => {
            out.extend_from_slice(&offset.to_le_bytes());
            put_schema(out, value);
        }
        Kind::Vec(element) => put_schema(out, element),
        Kind::Tuple(fields) => put_fields(out, fields),
        Kind::Struct(case) => put_case(out, case),
        Kind::Enum { name, variants } => {
            put_text(out, name);
            out.extend_from_slice(&(variants.len() as u16).to_le_bytes());
            variants.iter().for_each(|case| put_case(out, case));
        }
        _ => {}
    }
}

fn put_case(out: &mut Vec<u8>, case: &Case) {
    put_text(out, &case.name);
    out.push(match case.style {
        Style::Named => 0,
        Style::Tuple => 1,
        Style::Unit => 2,
    });
    put_fields(out, &case.fields);
}

fn put_fields(out: &mut Vec<u8>, fields: &[Field]) {
    out.extend_from_slice(&(fields.len() as u16).to_le_bytes());
    for field in fields {
        put_text(out, &field.name);
        out.extend_from_slice(&field.offset.to_le_bytes());
        put_schema(out, &field.schema);
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes_left: usize,
}

impl Input<'_> {
    fn damaged(&self, what: &'static str) -> SchemaError {
        SchemaError::Damaged { at: self.at, what }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], SchemaError> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk()).ok_or(self.damaged("cut off"))?;
        self.at += N;
        Ok(*taken)
    }

    fn text(&mut self) -> Result<Arc<str>, SchemaError> {
        let len = u16::from_le_bytes(self.take()?) as usize;
        let bytes = self.bytes.get(self.at..self.at + len).filter(|_| len <= MAX_NAME_BYTES);
        let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()).ok_or(self.damaged("no name"))?;
        self.at += len;
        Ok(text.into())
    }

    fn schema(&mut self, depth: usize) -> Result<Schema, SchemaError> {
        self.nodes_left = self.nodes_left.checked_sub(1).ok_or(self.damaged("too many types"))?;
        if depth > MAX_SCHEMA_DEPTH {
            return Err(self.damaged("types nested too deeply"));
        }
        let [kind, align] = self.take()?;
        let (align, size) = (u32::from(align), u32::from_le_bytes(self.take()?));
        if !matches!(align, 1 | 2 | 4 | 8 | 16) || size % align != 0 || size > MAX_VALUE_BYTES {
            return Err(self.damaged("size and alignment that no type has"));
        }
        let kind = match kind {
            1 => Kind::Unsigned,
            2 => Kind::Signed,
            3 => Kind::Float,
            4 => Kind::Bool,
            5 => Kind::Char,
            6 => Kind::Unit,
            7 => Kind::String,
            8 => {
                let offset = u32::from_le_bytes(self.take()?);
                let value = self.schema(depth + 1)?;
                self.inside(size, offset, &value)?;
                Kind::Option { offset, value: Box::new(value) }
            }
            9 => Kind::Vec(Box::new(self.schema(depth + 1)?)),
            10 => Kind::Tuple(self.fields(size, depth)?),
            11 => Kind::Struct(self.case(size, depth)?),
            12 => {
                let name = self.text()?;
                let count = u16::from_le_bytes(self.take()?);
                if count == 0 || count > 256 {
                    return Err(self.damaged("a number of variants that no enum has"));
                }
                Kind::Enum { name, variants: (0..count).map(|_| self.case(size, depth)).collect::<Result<_, _>>()? }
            }
            _ => return Err(self.damaged("no kind of type")),
        };
        let fits = match &kind {
            Kind::Unsigned | Kind::Signed => matches!(size, 1 | 2 | 4 | 8 | 16),
            Kind::Float => matches!(size, 4 | 8),
            Kind::Bool => size == 1,
            Kind::Char => size == 4,
            Kind::Unit => size == 0,
            Kind::String | Kind::Vec(_) => size == 8,
            Kind::Option { .. } | Kind::Enum { .. } => size > 0,
            Kind::Tuple(_) | Kind::Struct(_) => true,
        };
        if fits { Ok(Schema { size, align, kind }) } else { Err(self.damaged("a size that the type has not")) }
    }

    fn case(&mut self, size: u32, depth: usize) -> Result<Case, SchemaError> {
        let name = self.text()?;
        let style = match self.take()? {
            [0] => Style::Named,
            [1] => Style::Tuple,
            [2] => Style::Unit,
            _ => return Err(self.damaged("fields of no style")),
        };
        let fields = self.fields(size, depth)?;
        if style == Style::Unit && !fields.is_empty() {
            return Err(self.damaged("fields where there can be none"));
        }
        Ok(Case { name, style, fields })
    }

    /// Fields of a value of `size` bytes.
    fn fields(&mut self, size: u32, depth: usize) -> Result<Vec<Field>, SchemaError> {
        let count = u16::from_le_bytes(self.take()?);
        let mut fields = Vec::new();
        for _ in 0..count {
            let name = self.text()?;
            let offset = u32::from_le_bytes(self.take()?);
            let schema = self.schema(depth + 1)?;
            self.inside(size, offset, &schema)?;
            fields.push(Field { name, offset, schema });
        }
        Ok(fields)
    }

    /// Checks that a part lies within a value of `size` bytes.
    fn inside(&self, size: u32, offset: u32, part: &Schema) -> Result<(), SchemaError> {
        let end = offset.checked_add(part.size);
        if end.is_some_and(|end| end <= size) { Ok(()) } else { Err(self.damaged("a field outside of its type")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Record, StateSchema};

    fn nested(depth: usize) -> Schema {
        (0..depth).fold(u8::schema(), |value, _| {
            let (size, kind) = (value.size + 1, Kind::Option { offset: 1, value: Box::new(value) });
            Schema { size, align: 1, kind }
        })
    }

    fn elements(value: Schema) -> StateSchema {
        StateSchema { key: None, user_key: None, value: Some(value) }
    }

    #[test]
    fn when_types_are_at_the_limits_then_they_can_be_stored_and_beyond_not() {
        let deepest = elements(nested(MAX_SCHEMA_DEPTH));
        assert_eq!(StateSchema::decode(&deepest.encode().unwrap()), Ok(deepest));
        let deeper = elements(nested(MAX_SCHEMA_DEPTH + 1));
        assert!(deeper.encode().unwrap_err().to_string().contains("more than 64 types within types"));
        let hostile = encode_parts([None, None, Some(&nested(1_000))]);
        assert!(matches!(StateSchema::decode(&hostile), Err(SchemaError::Damaged { .. })));
        let wide = |count: usize| {
            let fields = (0..count).map(|n| Field { name: n.to_string().into(), offset: 0, schema: <()>::schema() });
            elements(Schema { size: 0, align: 1, kind: Kind::Tuple(fields.collect()) })
        };
        assert!(wide(MAX_SCHEMA_NODES - 1).encode().is_ok());
        assert!(wide(MAX_SCHEMA_NODES).encode().unwrap_err().to_string().contains("fields and types in all"));
        let long = |count: u32| {
            let name = |n| format!("{n:0>1000}").into();
            let fields = (0..count).map(|n| Field { name: name(n), offset: 0, schema: <()>::schema() });
            elements(Schema { size: 0, align: 1, kind: Kind::Tuple(fields.collect()) })
        };
        assert!(long(1_000).encode().is_ok());
        assert!(long(1_050).encode().unwrap_err().to_string().contains("1048576 bytes of names and types"));
        let name = |bytes: usize| {
            let case = Case::new(&"x".repeat(bytes), Style::Unit);
            elements(Schema { size: 0, align: 1, kind: Kind::Struct(case) })
        };
        assert!(name(MAX_NAME_BYTES).encode().is_ok() && name(MAX_NAME_BYTES + 1).encode().is_err());
    }

    #[test]
    fn when_bytes_are_of_another_release_or_format_then_the_message_says_what_to_do() {
        let bytes = StateSchema::rows::<u64, String>().encode().unwrap();
        let said = |at: usize, byte: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            StateSchema::decode(&bytes).unwrap_err().to_string()
        };
        assert!(said(0, b'X').contains("no stored schema"));
        assert!(said(4, 2).contains("version 2, this release reads up to 1: use the release that wrote it"));
        assert!(said(8, 64).contains("another format") && said(8, 64).contains("pointer_bits: 64"));
        assert!(said(7, 2).contains("unknown format"));
        assert!(said(10, 8).contains("parts that nobody knows"));
        assert!(StateSchema::decode(&[&bytes[..], &[0]].concat()).unwrap_err().to_string().contains("behind the end"));
    }
}
