//! The fields of a CSV row as a serde value: by column name into structs and maps, by place into tuples.
//!
//! A deserializer of our own, since a field may be missing in more ways than one: a field that reads as one of the
//! configured null strings is `None` for an `Option`, and keeps its text for a `String`.

use std::fmt::{self, Display};

use serde::{
    Deserialize,
    de::{
        self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor, value::StrDeserializer,
    },
    forward_to_deserialize_any,
};

use super::csv_row::CsvRow;

/// A row that does not fit the type: what is wrong, and in which field if one is to blame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MisfitError {
    pub field: Option<usize>,
    pub message: String,
}

impl Display for MisfitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for MisfitError {}

impl de::Error for MisfitError {
    fn custom<M: Display>(message: M) -> Self {
        Self { field: None, message: message.to_string() }
    }
}

/// One row, cut.
#[derive(Clone, Copy)]
pub(super) struct RowDeserializer<'a> {
    pub text: &'a str,
    pub row: &'a CsvRow,
    /// Column names, one a field; none in a file without a header.
    pub names: Option<&'a [String]>,
    pub nulls: &'a [String],
}

impl<'a> RowDeserializer<'a> {
    pub fn read<T: Deserialize<'a>>(self) -> Result<T, MisfitError> {
        T::deserialize(self)
    }

    fn field(&self, index: usize) -> FieldDeserializer<'a> {
        FieldDeserializer { text: self.row.field(self.text, index), nulls: self.nulls }
    }

    fn blame(&self, index: usize) -> impl FnOnce(MisfitError) -> MisfitError {
        let name = match self.names {
            Some(names) => format!("field \"{}\"", names[index]),
            None => format!("field {}", index + 1),
        };
        move |error| MisfitError { field: Some(index), message: format!("{name}: {}", error.message) }
    }
}

impl<'de> Deserializer<'de> for RowDeserializer<'de> {
    type Error = MisfitError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, MisfitError> {
        match self.names {
            Some(_) => visitor.visit_map(Fields { row: self, next: 0 }),
            None => visitor.visit_seq(Fields { row: self, next: 0 }),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, MisfitError> {
        visitor.visit_seq(Fields { row: self, next: 0 })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, MisfitError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, MisfitError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, MisfitError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, MisfitError> {
        visitor.visit_some(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct map struct enum identifier ignored_any
    }
}

struct Fields<'a> {
    row: RowDeserializer<'a>,
    next: usize,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = MisfitError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, MisfitError> {
        let Some(name) = self.row.names.and_then(|names| names.get(self.next)) else { return Ok(None) };
        seed.deserialize(<&str as IntoDeserializer<'de, MisfitError>>::into_deserializer(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, MisfitError> {
        let index = self.next;
        self.next += 1;
        seed.deserialize(self.row.field(index)).map_err(|error| self.row.blame(index)(error))
    }
}

impl<'de> SeqAccess<'de> for Fields<'de> {
    type Error = MisfitError;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, MisfitError> {
        let index = self.next;
        if index == self.row.row.len() {
            return Ok(None);
        }
        self.next += 1;
        seed.deserialize(self.row.field(index)).map(Some).map_err(|error| self.row.blame(index)(error))
    }
}

/// One field.
#[derive(Clone, Copy)]
struct FieldDeserializer<'a> {
    text: &'a str,
    nulls: &'a [String],
}

impl FieldDeserializer<'_> {
    fn is_null(&self) -> bool {
        self.nulls.iter().any(|null| null == self.text)
    }

    fn parse<P: std::str::FromStr>(&self, what: &str) -> Result<P, MisfitError> {
        self.text.parse().map_err(|_| self.not(what))
    }

    fn not(&self, what: &str) -> MisfitError {
        let hint = if self.is_null() { " (a missing value; an Option may have it)" } else { "" };
        de::Error::custom(format_args!("{:?} is not {what}{hint}", self.text))
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $what:literal),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, MisfitError> {
            visitor.$visit(self.parse($what)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for FieldDeserializer<'de> {
    type Error = MisfitError;

    parsed! {
        deserialize_i8 visit_i8 "an integer of 8 bits",
        deserialize_i16 visit_i16 "an integer of 16 bits",
        deserialize_i32 visit_i32 "an integer of 32 bits",
        deserialize_i64 visit_i64 "an integer of 64 bits",
        deserialize_i128 visit_i128 "an integer of 128 bits",
        deserialize_u8 visit_u8 "an unsigned integer of 8 bits",
        deserialize_u16 visit_u16 "an unsigned integer of 16 bits",
        deserialize_u32 visit_u32 "an unsigned integer of 32 bits",
        deserialize_u64 visit_u64 "an unsigned integer of 64 bits",
        deserialize_u128 visit_u128 "an unsigned integer of 128 bits",
        deserialize_f32 visit_f32 "a number",
        deserialize_f64 visit_f64 "a number",
        deserialize_char visit_char "one character",
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, MisfitError> {
        if self.is_null() {
            visitor.visit_none()
        } else if let Ok(value) = self.text.parse() {
            visitor.visit_bool(value)
        } else if let Ok(value) = self.text.parse() {
            visitor.visit_u64(value)
        } else if let Ok(value) = self.text.parse() {
            visitor.visit_i64(value)
        } else if let Ok(value) = self.text.parse() {
            visitor.visit_f64(value)
        } else {
            visitor.visit_str(self.text)
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, MisfitError> {
        if self.text.eq_ignore_ascii_case("true") {
            visitor.visit_bool(true)
        } else if self.text.eq_ignore_ascii_case("false") {
            visitor.visit_bool(false)
        } else {
            Err(self.not("true or false"))
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, MisfitError> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, MisfitError> {
        if self.is_null() { visitor.visit_unit() } else { Err(self.not("a missing value")) }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, MisfitError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, MisfitError> {
        visitor.visit_str(self.text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, MisfitError> {
        visitor.visit_str(self.text)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, MisfitError> {
        visitor.visit_str(self.text)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, MisfitError> {
        visitor.visit_bytes(self.text.as_bytes())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, MisfitError> {
        visitor.visit_bytes(self.text.as_bytes())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, MisfitError> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, MisfitError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, MisfitError> {
        visitor.visit_enum(StrDeserializer::<MisfitError>::new(self.text))
    }

    // A field holds no further fields: a type that asks for them says so in its own words.
    forward_to_deserialize_any! { seq tuple tuple_struct map struct }
}
