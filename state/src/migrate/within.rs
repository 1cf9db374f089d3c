//! Migrations of values that lie within others: in options, and beside a time.
//!
//! A declaration is about the value, wherever an operator keeps it; so its paths, and the messages about it, are those of
//! the value and not of what is around it.

use std::sync::Arc;

use thalweg_model::{
    Record, Schema,
    record::decode_checked,
    schema::{Field, Kind},
};

use super::{How, MigrateError, Migration, PlannedHow, plan::Edit};

/// Plans the migration of a stored type.
pub(super) type Planning<V> = Arc<dyn Fn(&Schema) -> Result<PlannedHow<V>, MigrateError> + Send + Sync>;

impl<V: Record> Migration<V> {
    /// The same for options of such values.
    #[must_use]
    pub fn in_option(&self) -> Migration<Option<V>> {
        let inner = self.clone();
        let plan: Planning<Option<V>> = Arc::new(move |stored| {
            let Kind::Option { offset, value } = &stored.kind else { return Err(other(stored, "an option")) };
            Ok(match inner.plan(value)?.how {
                PlannedHow::Edit(edit) => {
                    PlannedHow::Edit(Edit::Inside { in_array: value.is_nullable(), edit: Box::new(edit) })
                }
                PlannedHow::Convert(convert) => {
                    let (whole, some) = (stored.size, Place { offset: *offset, bytes: value.size });
                    PlannedHow::Convert(Arc::new(move |bytes| match bytes.get(root(bytes, whole)?)? {
                        0 => Some(None),
                        1 => convert(some.of(bytes, whole)?).map(Some),
                        _ => None,
                    }))
                }
            })
        });
        Migration { how: How::Within { what: format!("{self:?} in options"), plan } }
    }

    /// The same for pairs of a time, or another `i64`, and such a value.
    #[must_use]
    pub fn beside_time(&self) -> Migration<(i64, V)> {
        let inner = self.clone();
        let plan: Planning<(i64, V)> = Arc::new(move |stored| {
            let pair = match &stored.kind {
                Kind::Tuple(fields) => <&[Field; 2]>::try_from(&fields[..]).ok(),
                _ => None,
            };
            let pair = pair.filter(|[time, _]| time.schema == i64::schema());
            let Some([time, value]) = pair else { return Err(other(stored, "a pair of a time and a value")) };
            Ok(match inner.plan(&value.schema)?.how {
                PlannedHow::Edit(edit) => PlannedHow::Edit(Edit::Places(vec![Edit::Keep, edit])),
                PlannedHow::Convert(convert) => {
                    let (whole, [time, value]) = (stored.size, [time, value].map(Place::of_field));
                    PlannedHow::Convert(Arc::new(move |bytes| {
                        let time = decode_checked::<i64>(time.of(bytes, whole)?)?;
                        Some((time, convert(value.of(bytes, whole)?)?))
                    }))
                }
            })
        });
        Migration { how: How::Within { what: format!("{self:?} beside a time"), plan } }
    }
}

fn other(stored: &Schema, wanted: &str) -> MigrateError {
    let what = format!("it is `{stored}`, and {wanted} is wanted: the state was written by another operator");
    MigrateError::Undeclared { path: String::new(), what }
}

/// Where a value lies in an archived one.
#[derive(Clone, Copy)]
struct Place {
    offset: u32,
    bytes: u32,
}

/// Where an archived value of this size begins: it lies behind everything that it refers to.
fn root(bytes: &[u8], size: u32) -> Option<usize> {
    bytes.len().checked_sub(size as usize)
}

impl Place {
    fn of_field(field: &Field) -> Self {
        Self { offset: field.offset, bytes: field.schema.size }
    }

    /// The bytes of the value with all that it may refer to, which lies before it, given those of the whole and its size.
    fn of(self, bytes: &[u8], whole: u32) -> Option<&[u8]> {
        bytes.get(..root(bytes, whole)? + self.offset as usize + self.bytes as usize)
    }
}
