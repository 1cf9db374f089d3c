//! Values and entries as JSON, fields in the order of the type; and JSON as a value of a type.

use std::{borrow::Cow, sync::Arc};

use serde::{
    Serialize, Serializer,
    ser::{SerializeMap as _, SerializeSeq as _},
};
use thalweg::model::{
    Schema, Value,
    schema::{Case, Field, Kind, Style, read},
};
use thalweg_state::Content;

use super::{entries::Found, error::StateError};
use crate::commands::state::checkpoint::State;

/// A value that is written as JSON. Numbers that JSON has not are strings.
#[derive(Clone, Debug, PartialEq)]
pub struct Json(pub Value);

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Borrowed(&self.0).serialize(serializer)
    }
}

struct Borrowed<'v>(&'v Value);

impl Serialize for Borrowed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(number) => serializer.serialize_i128(*number),
            Value::Large(number) => serializer.serialize_u128(*number),
            Value::F32(number) if number.is_finite() => serializer.serialize_f32(*number),
            Value::F32(number) => serializer.collect_str(number),
            Value::F64(number) if number.is_finite() => serializer.serialize_f64(*number),
            Value::F64(number) => serializer.collect_str(number),
            Value::String(text) => serializer.serialize_str(text),
            Value::Array(values) => {
                let mut seq = serializer.serialize_seq(Some(values.len()))?;
                values.iter().try_for_each(|value| seq.serialize_element(&Borrowed(value)))?;
                seq.end()
            }
            Value::Object(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(name, value)| map.serialize_entry(&**name, &Borrowed(value)))?;
                map.end()
            }
        }
    }
}

/// An entry of a state.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum EntryJson {
    /// A value by key.
    Row {
        /// The key.
        key: Json,
        /// The value.
        value: Json,
    },
    /// A list by key.
    List {
        /// The key.
        key: Json,
        /// The elements.
        values: Vec<Json>,
    },
    /// A map by key.
    Map {
        /// The key.
        key: Json,
        /// The entries.
        entries: Vec<MapEntry>,
    },
    /// A timer.
    Timer {
        /// The key.
        key: Json,
        /// What else it belongs to.
        namespace: Json,
        /// When it is due.
        timestamp: Json,
    },
    /// An element without key.
    Element {
        /// The element.
        value: Json,
    },
}

/// An entry of a map.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MapEntry {
    /// The user key.
    pub key: Json,
    /// The value.
    pub value: Json,
}

/// One entry of a map by key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OfMap {
    /// The key.
    pub key: Json,
    /// The user key.
    pub user_key: Json,
    /// The value.
    pub value: Json,
}

/// The value of archived bytes; without a type, their hexadecimal digits.
fn value_of(schema: Option<&Schema>, bytes: &[u8]) -> Result<Json, StateError> {
    match schema {
        Some(schema) => read(schema, bytes).map(Json).map_err(|error| StateError::Value(error.to_string())),
        None => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            Ok(Json(Value::String(format!("0x{digits}"))))
        }
    }
}

/// An entry with its values.
pub fn entry_json(state: &State<'_>, found: &Found<'_>) -> Result<EntryJson, StateError> {
    let types = state.types();
    let key_type = types.and_then(|types| types.key.as_ref());
    let user_key_type = types.and_then(|types| types.user_key.as_ref());
    let value_type = types.and_then(|types| types.value.as_ref());
    let value = |bytes: &Cow<'_, [u8]>| value_of(value_type, bytes);
    let entry = match found {
        Found::Element(bytes) => return Ok(EntryJson::Element { value: value_of(value_type, bytes)? }),
        Found::Entry(entry) => entry,
    };
    let key = value_of(key_type, &entry.key)?;
    Ok(match &entry.content {
        Content::Value(bytes) => match key {
            Json(Value::Array(mut parts))
                if state.kind == thalweg_io::checkpoint::StateKind::Timers && parts.len() == 3 =>
            {
                let (timestamp, namespace) = (parts.pop().map(Json), parts.pop().map(Json));
                let [Some(key), Some(namespace), Some(timestamp)] = [parts.pop().map(Json), namespace, timestamp]
                else {
                    unreachable!("there are three")
                };
                EntryJson::Timer { key, namespace, timestamp }
            }
            key => EntryJson::Row { key, value: value(bytes)? },
        },
        Content::List(all) => EntryJson::List { key, values: all.iter().map(value).collect::<Result<_, _>>()? },
        Content::Map(all) => {
            let pair = |(k, v): &(Cow<'_, [u8]>, Cow<'_, [u8]>)| {
                Ok(MapEntry { key: value_of(user_key_type, k)?, value: value(v)? })
            };
            EntryJson::Map { key, entries: all.iter().map(pair).collect::<Result<_, StateError>>()? }
        }
        Content::Removed => return Err(StateError::Value("a key that was removed".to_owned())),
    })
}

/// The entry of a map whose user key `is_it`, if there is one. The map's other values are not looked at.
pub fn entry_of_map(
    state: &State<'_>,
    found: &Found<'_>,
    mut is_it: impl FnMut(&Value) -> bool,
) -> Result<Option<OfMap>, StateError> {
    let Found::Entry(entry) = found else { return Ok(None) };
    let Content::Map(all) = &entry.content else { return Ok(None) };
    let types = state.types();
    for (user_key, value) in all {
        let user_key = value_of(types.and_then(|types| types.user_key.as_ref()), user_key)?;
        if is_it(&user_key.0) {
            let key = value_of(types.and_then(|types| types.key.as_ref()), &entry.key)?;
            let value = value_of(types.and_then(|types| types.value.as_ref()), value)?;
            return Ok(Some(OfMap { key, user_key, value }));
        }
    }
    Ok(None)
}

/// JSON as a value of a type. `None` where it is none.
pub fn typed(json: &serde_json::Value, schema: &Schema) -> Option<Value> {
    use serde_json::Value as J;
    Some(match (&schema.kind, json) {
        (Kind::Unsigned | Kind::Signed, json) => integer(json, schema)?,
        (Kind::Float, json) => {
            let number = match json {
                J::Number(number) => number.as_f64()?,
                J::String(text) => text.parse().ok()?,
                _ => return None,
            };
            if schema.size == 4 { Value::F32(number as f32) } else { Value::F64(number) }
        }
        (Kind::Bool, J::Bool(value)) => Value::Bool(*value),
        (Kind::Char, J::String(text)) if text.chars().count() == 1 => Value::String(text.clone()),
        (Kind::String, J::String(text)) => Value::String(text.clone()),
        (Kind::Unit | Kind::Option { .. }, J::Null) => Value::Null,
        (Kind::Option { value, .. }, J::Array(some)) if value.is_nullable() && some.len() == 1 => {
            Value::Array(vec![typed(&some[0], value)?])
        }
        (Kind::Option { value, .. }, json) if !value.is_nullable() => typed(json, value)?,
        (Kind::Vec(element), J::Array(values)) => {
            Value::Array(values.iter().map(|value| typed(value, element)).collect::<Option<_>>()?)
        }
        (Kind::Tuple(fields), J::Array(values)) => Value::Array(typed_all(values, fields)?),
        (Kind::Struct(case), json) => typed_case(json, case)?,
        (Kind::Enum { variants, .. }, J::String(name)) => {
            variants.iter().find(|case| *case.name == **name && case.style == Style::Unit)?;
            Value::String(name.clone())
        }
        (Kind::Enum { variants, .. }, J::Object(fields)) if fields.len() == 1 => {
            let (name, content) = fields.iter().next()?;
            let case = variants.iter().find(|case| *case.name == **name)?;
            Value::Object(vec![(case.name.clone(), typed_case(content, case)?)])
        }
        _ => return None,
    })
}

fn integer(json: &serde_json::Value, schema: &Schema) -> Option<Value> {
    let text = match json {
        serde_json::Value::Number(number) => number.to_string(),
        serde_json::Value::String(text) => text.clone(),
        _ => return None,
    };
    let bits = schema.size * 8;
    if schema.kind == Kind::Signed {
        let number: i128 = text.parse().ok()?;
        return matches!(number >> (bits - 1), 0 | -1).then_some(Value::Int(number));
    }
    let number: u128 = text.parse().ok()?;
    (bits == 128 || number >> bits == 0).then(|| Value::unsigned(number))
}

fn typed_all(values: &[serde_json::Value], fields: &[Field]) -> Option<Vec<Value>> {
    if values.len() != fields.len() {
        return None;
    }
    values.iter().zip(fields).map(|(value, field)| typed(value, &field.schema)).collect()
}

fn typed_case(json: &serde_json::Value, case: &Case) -> Option<Value> {
    use serde_json::Value as J;
    match (case.style, json) {
        (Style::Unit, J::Null) => Some(Value::Null),
        (Style::Tuple, json) if case.fields.len() == 1 => typed(json, &case.fields[0].schema),
        (Style::Tuple, J::Array(values)) => typed_all(values, &case.fields).map(Value::Array),
        (Style::Named, J::Object(fields)) if fields.len() == case.fields.len() => {
            let field = |field: &Field| -> Option<(Arc<str>, Value)> {
                Some((field.name.clone(), typed(fields.get(&*field.name)?, &field.schema)?))
            };
            case.fields.iter().map(field).collect::<Option<_>>().map(Value::Object)
        }
        _ => None,
    }
}
