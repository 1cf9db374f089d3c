//! Migrations: what a user declares so that state of an older type becomes state of a new one.
//!
//! A migration is declared with the state and used when what is restored was stored with another schema. It is planned
//! once, against that schema, before anything runs: whatever has changed must have been declared, and whatever is
//! declared must be what has changed. Keys cannot be migrated: their hashes say where their rows belong.

mod plan;
mod tables;
mod within;

use std::{fmt, sync::Arc};

use thalweg_model::{
    Record, Schema, Value,
    record::decode_checked,
    schema::{ReadError, SchemaMismatch, ValueError},
};

use crate::{
    elements::{AlignedBytes, element_bytes},
    image::ImageError,
};
use plan::Edit;
pub use tables::{Migrate, Migrator, migrate, migrate_elements};
use within::Planning;

/// How values of an older type become values of `V`.
///
/// ```
/// # use thalweg_state::Migration;
/// # use thalweg_model::Record;
/// # fn of<V: Record>() -> Migration<V> {
/// Migration::new().add_field("currency", "EUR".to_string()).remove_field("note").widen("price")
/// # }
/// ```
///
/// Fields are named by their path: `lines.price` is field `price` of the records in field `lines`, in options and
/// vectors too; a variant's field is `Variant.field`; fields of tuples are `0`, `1` and so on; the value itself is the
/// empty path. Fields may change their order, types their names, and enums may get new variants, without a declaration
/// beyond an empty migration.
pub struct Migration<V: Record> {
    how: How<V>,
}

enum How<V: Record> {
    Changes(Vec<Change>),
    Convert {
        old: fn() -> Schema,
        convert: Convert<V>,
    },
    /// Of what lies within; for messages, what it does there.
    Within {
        what: String,
        plan: Planning<V>,
    },
}

/// Makes a value of bytes of the old type; `None` where they are none of it.
type Convert<V> = Arc<dyn Fn(&[u8]) -> Option<V> + Send + Sync>;

/// A declared change.
#[derive(Clone, Debug)]
struct Change {
    path: String,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Add(Value),
    Remove,
    Widen,
}

/// State cannot be migrated.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum MigrateError {
    /// The key, or a map's user key, has changed.
    Keys(SchemaMismatch),
    /// The stored type is not the one that the conversion takes.
    OtherOld(SchemaMismatch),
    /// Something has changed otherwise than was declared.
    Undeclared {
        /// The field, by its path; empty for the value itself.
        path: String,
        /// What has changed, and what to do.
        what: String,
    },
    /// The state was stored without its types.
    NoSchema,
    /// A stored value cannot be one of the new type.
    Value(ValueError),
    /// A stored value is not what its schema says.
    Damaged(ReadError),
    /// An image cannot be read.
    Image(ImageError),
}

impl MigrateError {
    /// Whether what was stored is at fault, not what it is to become: then another checkpoint may do.
    pub const fn is_damage(&self) -> bool {
        match self {
            Self::Damaged(_) => true,
            Self::Image(error) => error.is_damage(),
            _ => false,
        }
    }
}

impl<V: Record> Clone for Migration<V> {
    fn clone(&self) -> Self {
        let how = match &self.how {
            How::Changes(changes) => How::Changes(changes.clone()),
            How::Convert { old, convert } => How::Convert { old: *old, convert: convert.clone() },
            How::Within { what, plan } => How::Within { what: what.clone(), plan: plan.clone() },
        };
        Self { how }
    }
}

impl<V: Record> fmt::Debug for Migration<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.how {
            How::Changes(changes) => f.debug_list().entries(changes).finish(),
            How::Convert { old, .. } => write!(f, "convert from {}", old()),
            How::Within { what, .. } => f.write_str(what),
        }
    }
}

impl<V: Record> Default for Migration<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: Record> Migration<V> {
    /// A migration that declares nothing so far.
    pub const fn new() -> Self {
        Self { how: How::Changes(Vec::new()) }
    }

    /// A migration by a function from the old type, which must be that of the stored state, field by field.
    ///
    /// Give the old type its old name: `mod v1 { #[derive(Record)] pub struct Bid { .. } }`.
    pub fn convert<Old: Record>(convert: impl Fn(Old::View<'_>) -> V + Send + Sync + 'static) -> Self {
        let convert = move |bytes: &[u8]| decode_checked::<Old>(AlignedBytes::default().of(bytes)).map(&convert);
        Self { how: How::Convert { old: Old::schema, convert: Arc::new(convert) } }
    }

    /// The new type has a field that the old one has not: all values get `default`.
    ///
    /// # Panics
    /// As the other changes, on a [conversion](Self::convert), which makes the whole value, and on what was made for values
    /// within others.
    #[must_use]
    pub fn add_field<D: Record>(self, path: &str, default: D) -> Self {
        self.change(path, What::Add(Value::of(&default)))
    }

    /// The old type has a field that the new one has not: its values are dropped.
    #[must_use]
    pub fn remove_field(self, path: &str) -> Self {
        self.change(path, What::Remove)
    }

    /// A number that is of a wider type now: `u32` to `u64` or `i64`, `f32` to `f64`, integers of up to 32 bits to `f64`.
    #[must_use]
    pub fn widen(self, path: &str) -> Self {
        self.change(path, What::Widen)
    }

    fn change(mut self, path: &str, what: What) -> Self {
        match &mut self.how {
            How::Changes(changes) => changes.push(Change { path: path.to_owned(), what }),
            How::Convert { .. } => panic!("a conversion makes the whole value: add, remove and widen fields in it"),
            How::Within { .. } => panic!("declare changes before `in_option` and `beside_time`"),
        }
        self
    }

    /// How values of the stored type become those of `V`.
    ///
    /// # Errors
    /// Where the stored type and `V` differ in what was not declared, or do not differ in what was.
    pub fn plan(&self, stored: &Schema) -> Result<Plan<V>, MigrateError> {
        let how = match &self.how {
            How::Changes(changes) => PlannedHow::Edit(plan::plan(stored, &V::schema(), changes)?),
            How::Convert { old, convert } => {
                let elements =
                    |value: Schema| thalweg_model::StateSchema { key: None, user_key: None, value: Some(value) };
                elements(stored.clone()).compare(&elements(old())).map_err(MigrateError::OtherOld)?;
                PlannedHow::Convert(convert.clone())
            }
            How::Within { plan, .. } => plan(stored)?,
        };
        Ok(Plan { stored: stored.clone(), how })
    }
}

/// A migration from one stored type.
pub struct Plan<V: Record> {
    stored: Schema,
    how: PlannedHow<V>,
}

enum PlannedHow<V: Record> {
    Edit(Edit),
    Convert(Convert<V>),
}

impl<V: Record> Plan<V> {
    /// The value that an archived one of the stored type becomes. A conversion copies bytes that are not aligned to 16.
    ///
    /// # Errors
    /// Where the bytes are not of the stored type, or the value is none of the new one.
    pub fn apply(&self, bytes: &[u8]) -> Result<V, MigrateError> {
        match &self.how {
            PlannedHow::Edit(edit) => {
                let value = thalweg_model::schema::read(&self.stored, bytes).map_err(MigrateError::Damaged)?;
                V::from_value(&edit.apply(value)).map_err(MigrateError::Value)
            }
            PlannedHow::Convert(convert) => convert(bytes).ok_or(MigrateError::Image(ImageError::Damaged)),
        }
    }

    /// Hands the elements of a part of operator state to `f`, each as [`apply`](Self::apply) makes it, and answers how many
    /// there are.
    ///
    /// # Errors
    /// Where the bytes are damaged, or an element cannot be migrated; elements before that have been handed over.
    pub fn apply_to_elements(&self, bytes: &[u8], mut f: impl FnMut(V)) -> Result<u64, MigrateError> {
        let (mut count, mut aligned) = (0, AlignedBytes::default());
        for element in element_bytes(bytes) {
            f(self.apply(aligned.of(element?))?);
            count += 1;
        }
        Ok(count)
    }
}

impl From<ImageError> for MigrateError {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

impl fmt::Display for MigrateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(mismatch) => mismatch.fmt(f),
            Self::OtherOld(SchemaMismatch { stored, current, .. }) => {
                let [stored, current] = [stored, current].map(|text| text.as_deref().unwrap_or("nothing of that name"));
                write!(
                    f,
                    "state was written with `{stored}`, its migration converts from `{current}`: \
                     convert from the type that the state was written with"
                )
            }
            Self::Undeclared { path, what } if path.is_empty() => write!(f, "state cannot be migrated: {what}"),
            Self::Undeclared { path, what } => write!(f, "state cannot be migrated: field `{path}`: {what}"),
            Self::NoSchema => f.write_str("state was written without its types: it cannot be migrated"),
            Self::Value(error) => write!(f, "a value of the state cannot be migrated: {error}"),
            Self::Damaged(error) => write!(f, "a value of the state is damaged, use an older checkpoint: {error}"),
            Self::Image(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for MigrateError {}
