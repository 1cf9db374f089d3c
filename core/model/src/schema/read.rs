//! Reading archived bytes by their schema: a `Value`, or an error where the bytes are not of that schema.
//!
//! Bytes that `encode` wrote never share what lies out of line. Hostile ones may, to make a small input a huge value;
//! so everything out of line together may not be longer than the bytes are.

use std::fmt;

use super::{Case, Field, Kind, Schema, Style, Value};

/// Most values within one value. More are refused: nobody could look at them.
pub const MAX_VALUES: u32 = 1 << 24;

/// Bytes that a short string has room for in its place, and the length of a reference to what lies out of line.
const REFERENCE_BYTES: usize = 8;

/// Archived bytes are not what their schema says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// Where, from the begin of the bytes.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bytes are not what their schema says: {} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for ReadError {}

/// The value of bytes that [`encode`](crate::record::encode) wrote for a type of this schema. They may lie anywhere.
///
/// # Errors
/// Where they are not of this schema, or hold more than [`MAX_VALUES`] values.
pub fn read(schema: &Schema, bytes: &[u8]) -> Result<Value, ReadError> {
    let mut reader = Reader { bytes, spare_bytes: bytes.len(), values_left: MAX_VALUES };
    let root = bytes.len().checked_sub(schema.size as usize).ok_or(ReadError { at: 0, what: "too few bytes" })?;
    reader.value(schema, root)
}

struct Reader<'a> {
    bytes: &'a [u8],
    /// Bytes that may still lie out of line.
    spare_bytes: usize,
    values_left: u32,
}

impl Reader<'_> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], ReadError> {
        let bytes = at.checked_add(N).and_then(|end| self.bytes.get(at..end));
        let bytes = bytes.ok_or(ReadError { at, what: "a value beyond the end" })?;
        Ok(bytes.try_into().expect("as many bytes as were asked for"))
    }

    fn byte(&self, at: usize) -> Result<u8, ReadError> {
        self.array(at).map(|[byte]| byte)
    }

    /// Bytes out of line: `offset` from `at`.
    fn outside(&mut self, at: usize, offset: i32, len: usize) -> Result<usize, ReadError> {
        let begin =
            at.checked_add_signed(offset as isize).ok_or(ReadError { at, what: "a reference out of bounds" })?;
        if begin.checked_add(len).is_none_or(|end| end > self.bytes.len()) {
            return Err(ReadError { at, what: "a reference out of bounds" });
        }
        self.spare_bytes =
            self.spare_bytes.checked_sub(len).ok_or(ReadError { at, what: "a reference to bytes of others" })?;
        Ok(begin)
    }

    fn value(&mut self, schema: &Schema, at: usize) -> Result<Value, ReadError> {
        self.values_left =
            self.values_left.checked_sub(1).ok_or(ReadError { at, what: "more values than can be shown" })?;
        match &schema.kind {
            Kind::Unsigned => self.unsigned(schema.size, at).map(Value::unsigned),
            Kind::Signed => {
                // From the top of the number down, so that the sign goes with it.
                let shift = 128u32.saturating_sub(schema.size * 8);
                self.unsigned(schema.size, at).map(|number| Value::Int((number << shift) as i128 >> shift))
            }
            Kind::Float if schema.size == 4 => self.array(at).map(|bytes| Value::F32(f32::from_le_bytes(bytes))),
            Kind::Float => self.array(at).map(|bytes| Value::F64(f64::from_le_bytes(bytes))),
            Kind::Bool => match self.byte(at)? {
                byte @ 0..=1 => Ok(Value::Bool(byte == 1)),
                _ => Err(ReadError { at, what: "a bool that is neither 0 nor 1" }),
            },
            Kind::Char => {
                let char = char::from_u32(u32::from_le_bytes(self.array(at)?));
                char.map(|char| Value::String(char.into())).ok_or(ReadError { at, what: "a number of no char" })
            }
            Kind::Unit => Ok(Value::Null),
            Kind::String => self.string(at).map(Value::String),
            Kind::Option { offset, value } => match self.byte(at)? {
                0 => Ok(Value::Null),
                1 => {
                    let some = self.value(value, at + *offset as usize)?;
                    Ok(if value.is_nullable() { Value::Array(vec![some]) } else { some })
                }
                _ => Err(ReadError { at, what: "an option that is neither none nor some" }),
            },
            Kind::Vec(element) => self.vec(element, at),
            Kind::Tuple(fields) => self.fields(fields, at).map(Value::Array),
            Kind::Struct(case) => self.case(case, at),
            Kind::Enum { variants, .. } => {
                let tag = self.byte(at)? as usize;
                let case = variants.get(tag).ok_or(ReadError { at, what: "the tag of no variant" })?;
                if case.style == Style::Unit {
                    return Ok(Value::String(case.name.to_string()));
                }
                Ok(Value::Object(vec![(case.name.clone(), self.case(case, at)?)]))
            }
        }
    }

    fn unsigned(&self, size: u32, at: usize) -> Result<u128, ReadError> {
        match size {
            1 => self.byte(at).map(u128::from),
            2 => self.array(at).map(|bytes| u16::from_le_bytes(bytes).into()),
            4 => self.array(at).map(|bytes| u32::from_le_bytes(bytes).into()),
            8 => self.array(at).map(|bytes| u64::from_le_bytes(bytes).into()),
            16 => self.array(at).map(u128::from_le_bytes),
            _ => Err(ReadError { at, what: "an integer of no known size" }),
        }
    }

    /// A short string lies in its place and ends before the first byte 255; a long one has the bits 10 on top of the
    /// first byte of its length.
    fn string(&mut self, at: usize) -> Result<String, ReadError> {
        let place: [u8; REFERENCE_BYTES] = self.array(at)?;
        let (begin, len) = if place[0] & 0xc0 == 0x80 {
            let [len, offset] = halves(place);
            let len = (len & 0x3f | (len & !0xff) >> 2) as usize;
            (self.outside(at, offset as i32, len)?, len)
        } else {
            (at, place.iter().position(|byte| *byte == 0xff).unwrap_or(REFERENCE_BYTES))
        };
        let text = std::str::from_utf8(&self.bytes[begin..begin + len]);
        text.map(str::to_owned).map_err(|_| ReadError { at: begin, what: "text that is not UTF-8" })
    }

    fn vec(&mut self, element: &Schema, at: usize) -> Result<Value, ReadError> {
        let [offset, count] = halves(self.array(at)?);
        let size = element.size as usize;
        if count == 0 {
            return Ok(Value::Array(Vec::new()));
        }
        if count > self.values_left {
            return Err(ReadError { at, what: "more values than can be shown" });
        }
        let bytes =
            size.checked_mul(count as usize).ok_or(ReadError { at, what: "a vector that is longer than memory" })?;
        let begin = self.outside(at, offset as i32, bytes)?;
        (0..count as usize).map(|n| self.value(element, begin + n * size)).collect::<Result<_, _>>().map(Value::Array)
    }

    fn fields(&mut self, fields: &[Field], at: usize) -> Result<Vec<Value>, ReadError> {
        fields.iter().map(|field| self.value(&field.schema, at + field.offset as usize)).collect()
    }

    fn case(&mut self, case: &Case, at: usize) -> Result<Value, ReadError> {
        let mut values = self.fields(&case.fields, at)?;
        Ok(match case.style {
            Style::Unit => Value::Null,
            Style::Tuple if values.len() == 1 => values.remove(0),
            Style::Tuple => Value::Array(values),
            Style::Named => Value::Object(case.fields.iter().map(|field| field.name.clone()).zip(values).collect()),
        })
    }
}

/// Two numbers of four bytes each.
fn halves([a, b, c, d, e, f, g, h]: [u8; REFERENCE_BYTES]) -> [u32; 2] {
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}
