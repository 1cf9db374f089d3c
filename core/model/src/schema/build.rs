//! What the derived `Record::from_value` calls to take a value apart.

use std::{any::type_name, fmt::Display};

use super::{Style, Value, ValueError};
use crate::Record;

/// A type's name without its path.
fn short_name<T>() -> &'static str {
    let name = type_name::<T>();
    // Of generic types, the path before the first bracket.
    let end = name.find('<').unwrap_or(name.len());
    &name[name[..end].rfind("::").map_or(0, |at| at + 2)..]
}

/// The error of a value that is no `T`.
pub fn unexpected<T>(value: &Value) -> ValueError {
    ValueError::new(format!("`{}` is wanted, {} is there", short_name::<T>(), value.kind()))
}

/// The error of a number that no `T` is.
pub fn out_of_range<T>(number: impl Display) -> ValueError {
    ValueError::new(format!("{number} is no `{}`", short_name::<T>()))
}

/// The fields of a struct or variant, by their order in the type.
pub struct Fields<'v> {
    values: Vec<&'v Value>,
    names: &'static [&'static str],
}

impl<'v> Fields<'v> {
    /// Takes a value apart.
    ///
    /// # Errors
    /// Where it has other fields than these.
    pub fn of(value: &'v Value, style: Style, names: &'static [&'static str]) -> Result<Self, ValueError> {
        let values = match (style, value) {
            (Style::Unit, Value::Null) => Vec::new(),
            (Style::Tuple, value) if names.len() == 1 => vec![value],
            (Style::Tuple, Value::Array(values)) if values.len() == names.len() => values.iter().collect(),
            (Style::Tuple, Value::Array(values)) => {
                return Err(ValueError::new(format!("{} values are wanted, {} are there", names.len(), values.len())));
            }
            (Style::Named, Value::Object(fields)) => {
                if let Some((name, _)) = fields.iter().find(|(name, _)| !names.contains(&&**name)) {
                    return Err(ValueError::new(format!("there is a field `{name}`, which is not wanted")));
                }
                let value = |name: &&str| value.get(name).ok_or_else(|| ValueError::new("it is missing").within(name));
                names.iter().map(value).collect::<Result<_, _>>()?
            }
            (style, value) => {
                let wanted = match style {
                    Style::Unit => "null",
                    Style::Tuple => "an array",
                    Style::Named => "an object",
                };
                return Err(ValueError::new(format!("{wanted} is wanted, {} is there", value.kind())));
            }
        };
        Ok(Self { values, names })
    }

    /// A field's value.
    ///
    /// # Errors
    /// Where it is no `T`.
    ///
    /// # Panics
    /// Where the type has not so many fields.
    pub fn field<T: Record>(&self, index: usize) -> Result<T, ValueError> {
        T::from_value(self.values[index]).map_err(|error| error.within(self.names[index]))
    }
}

/// The fields of a tuple.
///
/// # Errors
/// Where the value is not an array of so many.
pub(crate) fn tuple<'v, T>(value: &'v Value, names: &'static [&'static str]) -> Result<Fields<'v>, ValueError> {
    match value {
        Value::Array(values) if values.len() == names.len() => Ok(Fields { values: values.iter().collect(), names }),
        value => Err(unexpected::<T>(value)),
    }
}

/// The name of a variant, and what it holds.
///
/// # Errors
/// Where the value is not one of an enum.
pub fn variant(value: &Value) -> Result<(&str, &Value), ValueError> {
    match value {
        Value::String(name) => Ok((name, &Value::Null)),
        Value::Object(fields) if fields.len() == 1 => Ok((&fields[0].0, &fields[0].1)),
        value => Err(ValueError::new(format!("a variant is wanted, {} is there", value.kind()))),
    }
}

/// The error of a name that no variant has.
pub fn unknown_variant(name: &str) -> ValueError {
    ValueError::new(format!("there is no variant `{name}`"))
}
