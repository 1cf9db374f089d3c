//! `Value`: any record's value, without its type.

use std::{fmt, sync::Arc};

use rkyv::util::AlignedVec;

use super::{ReadError, read};
use crate::{EncodeScratch, Record, record::encode_large};

/// Most bytes of a record that is made a [`Value`] of: those that an archived value can refer to.
const MAX_RECORD_BYTES: usize = 1 << 31;

/// The value of a record, as text formats such as JSON have it.
///
/// Structs are objects, tuples and tuple structs arrays, a tuple struct of one field is that field, `()` and unit structs
/// are null. A variant without fields is its name; any other an object of its name and its fields. An option is null or
/// its value; where that value may be null itself, an array of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing: none, `()`, a unit struct.
    Null,
    /// A `bool`.
    Bool(bool),
    /// An integer.
    Int(i128),
    /// An integer above the largest `i128`.
    Large(u128),
    /// An `f32`.
    F32(f32),
    /// An `f64`.
    F64(f64),
    /// A `String`, a `char`, or a variant without fields.
    String(String),
    /// A vector, a tuple or a tuple struct.
    Array(Vec<Value>),
    /// Names and values, in the order of the fields.
    Object(Vec<(Arc<str>, Value)>),
}

/// A value is not one of the type it is wanted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError {
    /// The field, by its path: `line.price`. Empty for the value itself.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
}

impl Value {
    /// The value of a record.
    ///
    /// # Panics
    /// Where the record takes 2 GiB or more.
    pub fn of<T: Record>(record: &T) -> Self {
        Self::of_view::<T>(record.view())
    }

    /// The value of a record's view.
    ///
    /// # Panics
    /// As [`Self::of`].
    pub fn of_view<T: Record>(view: T::View<'_>) -> Self {
        let bytes: AlignedVec<16> = encode_large::<T>(view, MAX_RECORD_BYTES, &mut EncodeScratch::default())
            .expect("a record takes less than 2 GiB");
        let value: Result<Self, ReadError> = read(&T::schema(), &bytes);
        value.expect("a record's bytes are as its schema says")
    }

    /// An integer.
    pub fn unsigned(number: u128) -> Self {
        i128::try_from(number).map_or(Self::Large(number), Self::Int)
    }

    /// The field of that name of an object.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(fields) = self else { return None };
        fields.iter().find(|(field, _)| **field == *name).map(|(_, value)| value)
    }

    /// What kind of value it is, for messages.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a bool",
            Self::Int(_) | Self::Large(_) => "an integer",
            Self::F32(_) | Self::F64(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

impl ValueError {
    /// An error of the value itself.
    pub fn new(what: impl Into<String>) -> Self {
        Self { path: String::new(), what: what.into() }
    }

    /// The same error, seen from the value that has this field.
    #[must_use]
    pub fn within(mut self, field: &str) -> Self {
        self.path = if self.path.is_empty() { field.to_owned() } else { format!("{field}.{}", self.path) };
        self
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.what) } else { write!(f, "field `{}`: {}", self.path, self.what) }
    }
}

impl std::error::Error for ValueError {}
