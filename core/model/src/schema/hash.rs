//! The key hash of a value without type: that of the record that it is the value of.

use super::{Case, Field, Kind, Schema, Style, Value};
use crate::{KeyHash, KeyHasher};

/// The hash that [`record::key_hash`](crate::record::key_hash) gives a record of this schema and value. `None` where the
/// value is none of that schema.
pub fn key_hash(schema: &Schema, value: &Value) -> Option<KeyHash> {
    let mut hasher = KeyHasher::new();
    mix(schema, value, &mut hasher)?;
    Some(hasher.finish())
}

fn mix(schema: &Schema, value: &Value, hasher: &mut KeyHasher) -> Option<()> {
    match (&schema.kind, value) {
        (Kind::Unsigned | Kind::Signed, Value::Int(number)) => integer(*number as u128, schema.size, hasher),
        (Kind::Unsigned, Value::Large(number)) => integer(*number, schema.size, hasher),
        (Kind::Float, Value::F32(number)) if schema.size == 4 => hasher.word(number.to_bits().into()),
        (Kind::Float, Value::F64(number)) if schema.size == 8 => hasher.word(number.to_bits()),
        (Kind::Bool, Value::Bool(value)) => hasher.word((*value).into()),
        (Kind::Char, Value::String(text)) => hasher.word(u32::from(text.chars().next()?).into()),
        (Kind::Unit, Value::Null) => {}
        (Kind::String, Value::String(text)) => hasher.bytes(text.as_bytes()),
        (Kind::Option { .. }, Value::Null) => hasher.word(0),
        (Kind::Option { value: inner, .. }, value) => {
            hasher.word(1);
            let some = match value {
                Value::Array(some) if inner.is_nullable() => some.first()?,
                value => value,
            };
            mix(inner, some, hasher)?;
        }
        (Kind::Vec(element), Value::Array(values)) => {
            hasher.word(values.len() as u64);
            values.iter().try_for_each(|value| mix(element, value, hasher))?;
        }
        (Kind::Tuple(fields), Value::Array(values)) => mix_all(fields, values, hasher)?,
        (Kind::Struct(case), value) => mix_case(case, value, hasher)?,
        (Kind::Enum { variants, .. }, value) => {
            let (name, content) = super::build::variant(value).ok()?;
            let tag = variants.iter().position(|case| *case.name == *name)?;
            hasher.word(tag as u64);
            mix_case(&variants[tag], content, hasher)?;
        }
        _ => return None,
    }
    Some(())
}

fn integer(number: u128, size: u32, hasher: &mut KeyHasher) {
    hasher.word(number as u64);
    if size == 16 {
        hasher.word((number >> 64) as u64);
    }
}

fn mix_all(fields: &[Field], values: &[Value], hasher: &mut KeyHasher) -> Option<()> {
    if fields.len() != values.len() {
        return None;
    }
    fields.iter().zip(values).try_for_each(|(field, value)| mix(&field.schema, value, hasher))
}

fn mix_case(case: &Case, value: &Value, hasher: &mut KeyHasher) -> Option<()> {
    match (case.style, value) {
        (Style::Unit, Value::Null) => Some(()),
        (Style::Tuple, value) if case.fields.len() == 1 => mix(&case.fields[0].schema, value, hasher),
        (Style::Tuple, Value::Array(values)) => mix_all(&case.fields, values, hasher),
        (Style::Named, value) => {
            case.fields.iter().try_for_each(|field| mix(&field.schema, value.get(&field.name)?, hasher))
        }
        _ => None,
    }
}
