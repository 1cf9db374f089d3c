//! `Schema`: how a record lies in its archived bytes, told so that others than its own code can read them.
//!
//! A schema is stored with every state. From it, bytes can be read without the job ([`read`]), a job whose types have
//! changed is stopped before it runs ([`StateSchema::compare`]), and a declared migration is applied. Nothing here is on
//! the record path: schemas are made when a state is opened or restored.
//!
//! Records own their fields by value, and a type that would contain itself does not compile, so a schema is a tree.
//! Everything here is safe code: whatever the bytes are, reading them gives a value or an error.

pub mod build;
mod compare;
mod encoding;
mod format;
mod hash;
mod read;
mod state;
mod value;

use std::{fmt, sync::Arc};

use crate::{KeyHasher, Record};

pub use compare::{Part, SchemaMismatch};
pub use encoding::{MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH, MAX_SCHEMA_NODES, SCHEMA_VERSION, SchemaError};
pub use format::ArchiveFormat;
pub use hash::key_hash;
pub use read::{MAX_VALUES, ReadError, read};
pub use state::StateSchema;
pub use value::{Value, ValueError};

/// The archived form of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Bytes of the archived value itself, without what lies out of line.
    pub size: u32,
    /// Alignment of the archived value, in bytes.
    pub align: u32,
    /// What it is.
    pub kind: Kind,
}

/// Kinds of types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `u8` to `u128`, by the schema's size.
    Unsigned,
    /// `i8` to `i128`, by the schema's size.
    Signed,
    /// `f32` or `f64`, by the schema's size.
    Float,
    /// `bool`.
    Bool,
    /// `char`.
    Char,
    /// `()`.
    Unit,
    /// `String`.
    String,
    /// `Option`: a byte that is 0 for none and 1 for some, and the value.
    Option {
        /// Where the value lies, in bytes.
        offset: u32,
        /// What it is.
        value: Box<Schema>,
    },
    /// `Vec` of elements, one after another, each of their schema's size.
    Vec(Box<Schema>),
    /// A tuple; its fields are called `0`, `1` and so on.
    Tuple(Vec<Field>),
    /// A struct.
    Struct(Case),
    /// An enum: a byte with the index of the variant, and the variant's fields.
    Enum {
        /// The type's name, without path.
        name: Arc<str>,
        /// The variants, by their index.
        variants: Vec<Case>,
    },
}

/// A struct, or a variant of an enum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Name of the type, without path, or of the variant.
    pub name: Arc<str>,
    /// How it is written.
    pub style: Style,
    /// Its fields, as they are declared.
    pub fields: Vec<Field>,
}

/// How the fields of a [`Case`] are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `{ a: u64 }`
    Named,
    /// `(u64)`; fields are called `0`, `1` and so on.
    Tuple,
    /// Nothing.
    Unit,
}

/// A field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: Arc<str>,
    /// Where it lies in the archived value, in bytes.
    pub offset: u32,
    /// What it is.
    pub schema: Schema,
}

impl Schema {
    /// A type that is archived as `A`.
    #[doc(hidden)]
    pub const fn archived_as<A>(kind: Kind) -> Self {
        Self { size: size_of::<A>() as u32, align: align_of::<A>() as u32, kind }
    }

    /// A number for everything that the schema says, and for the format of archived values: types with the same number
    /// have the same bytes and the same names.
    pub fn fingerprint(&self) -> u64 {
        fingerprint(&encoding::encode_parts([None, None, Some(self)]))
    }

    /// Whether all of an archived value lies in its [`size`](Self::size) bytes.
    pub fn is_fixed(&self) -> bool {
        match &self.kind {
            Kind::String | Kind::Vec(_) => false,
            Kind::Option { value, .. } => value.is_fixed(),
            _ => self.cases().iter().flat_map(|case| case.iter()).all(|field| field.schema.is_fixed()),
        }
    }

    /// Whether the [`Value`] may be [`Value::Null`]. An option of such a type is an array of one, or null.
    pub fn is_nullable(&self) -> bool {
        match &self.kind {
            Kind::Unit | Kind::Option { .. } => true,
            Kind::Struct(Case { style: Style::Unit, .. }) => true,
            Kind::Struct(Case { style: Style::Tuple, fields, .. }) if fields.len() == 1 => {
                fields[0].schema.is_nullable()
            }
            _ => false,
        }
    }

    /// The same without the names of structs and enums: what a type that was only renamed has in common with itself.
    #[must_use]
    pub fn without_type_names(&self) -> Self {
        let fields = |fields: &[Field]| {
            let one = |field: &Field| Field { schema: field.schema.without_type_names(), ..field.clone() };
            fields.iter().map(one).collect::<Vec<_>>()
        };
        let kind = match &self.kind {
            Kind::Option { offset, value } => {
                Kind::Option { offset: *offset, value: Box::new(value.without_type_names()) }
            }
            Kind::Vec(element) => Kind::Vec(Box::new(element.without_type_names())),
            Kind::Tuple(all) => Kind::Tuple(fields(all)),
            Kind::Struct(case) => {
                Kind::Struct(Case { name: "".into(), style: case.style, fields: fields(&case.fields) })
            }
            Kind::Enum { variants, .. } => {
                let variant = |case: &Case| Case { fields: fields(&case.fields), ..case.clone() };
                Kind::Enum { name: "".into(), variants: variants.iter().map(variant).collect() }
            }
            plain => plain.clone(),
        };
        Self { kind, ..*self }
    }

    /// The fields that may lie in a value, by variant; one list for structs and tuples, none for other types.
    fn cases(&self) -> Vec<&[Field]> {
        match &self.kind {
            Kind::Tuple(fields) => vec![fields],
            Kind::Struct(case) => vec![&case.fields],
            Kind::Enum { variants, .. } => variants.iter().map(|case| &case.fields[..]).collect(),
            _ => Vec::new(),
        }
    }
}

impl Kind {
    /// An enum without variants so far.
    #[doc(hidden)]
    pub fn enumeration(name: &str) -> Self {
        Self::Enum { name: name.into(), variants: Vec::new() }
    }

    /// An enum with one more variant.
    #[doc(hidden)]
    #[must_use]
    pub fn variant(mut self, case: Case) -> Self {
        if let Self::Enum { variants, .. } = &mut self {
            variants.push(case);
        }
        self
    }
}

impl Case {
    /// A case without fields.
    pub fn new(name: &str, style: Style) -> Self {
        Self { name: name.into(), style, fields: Vec::new() }
    }

    /// With one more field of type `T`.
    #[must_use]
    pub fn field<T: Record>(mut self, name: &str, offset: usize) -> Self {
        self.fields.push(Field { name: name.into(), offset: offset as u32, schema: T::schema() });
        self
    }
}

/// The type as it is written in Rust, without paths.
impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.size * 8;
        match &self.kind {
            Kind::Unsigned => write!(f, "u{bits}"),
            Kind::Signed => write!(f, "i{bits}"),
            Kind::Float => write!(f, "f{bits}"),
            Kind::Bool => f.write_str("bool"),
            Kind::Char => f.write_str("char"),
            Kind::Unit => f.write_str("()"),
            Kind::String => f.write_str("String"),
            Kind::Option { value, .. } => write!(f, "Option<{value}>"),
            Kind::Vec(element) => write!(f, "Vec<{element}>"),
            Kind::Struct(case) => f.write_str(&case.name),
            Kind::Enum { name, .. } => f.write_str(name),
            Kind::Tuple(fields) => {
                f.write_str("(")?;
                for (n, field) in fields.iter().enumerate() {
                    write!(f, "{}{}", if n > 0 { ", " } else { "" }, field.schema)?;
                }
                f.write_str(if fields.len() == 1 { ",)" } else { ")" })
            }
        }
    }
}

/// Mixes encoded schemas into a number.
fn fingerprint(encoded: &[u8]) -> u64 {
    let mut hasher = KeyHasher::new();
    hasher.bytes(encoded);
    // One multiplication leaves the last bytes badly mixed; a second spreads them.
    hasher.word(encoded.len() as u64);
    hasher.finish64()
}
