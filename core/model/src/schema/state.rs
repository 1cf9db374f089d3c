//! `StateSchema`: the schemas of a state, which checkpoints keep with it.

use super::{
    Schema, SchemaError, SchemaMismatch, compare,
    compare::Part,
    encoding::{decode_parts, encode_checked, encode_parts},
    fingerprint,
};
use crate::Record;

/// The types of a state: what its keys, user keys and values are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSchema {
    /// The key, of keyed state. Of timers: key, namespace and time.
    pub key: Option<Schema>,
    /// The user key, of maps.
    pub user_key: Option<Schema>,
    /// The value; of lists and operator state, an element.
    pub value: Option<Schema>,
}

impl StateSchema {
    /// That of a table of rows.
    pub fn rows<K: Record, V: Record>() -> Self {
        Self { key: Some(K::schema()), user_key: None, value: Some(V::schema()) }
    }

    /// That of a table of lists.
    pub fn lists<K: Record, E: Record>() -> Self {
        Self::rows::<K, E>()
    }

    /// That of a table of maps.
    pub fn maps<K: Record, UK: Record, UV: Record>() -> Self {
        Self { user_key: Some(UK::schema()), ..Self::rows::<K, UV>() }
    }

    /// That of timers by key: they are rows of key, namespace and time, whose value says whether the timer is live.
    pub fn timers<K: Record>() -> Self {
        Self::rows::<(K, i64, i64), bool>()
    }

    /// That of elements without key: operator state.
    pub fn elements<T: Record>() -> Self {
        Self { key: None, user_key: None, value: Some(T::schema()) }
    }

    /// Key, user key and value.
    pub(crate) const fn parts(&self) -> [(Part, Option<&Schema>); 3] {
        [(Part::Key, self.key.as_ref()), (Part::UserKey, self.user_key.as_ref()), (Part::Value, self.value.as_ref())]
    }

    /// The bytes that are stored. Their table is in `io/FORMAT.md`.
    ///
    /// # Errors
    /// Where the types are larger or more deeply nested than could be read back.
    pub fn encode(&self) -> Result<Vec<u8>, SchemaError> {
        encode_checked(self.parts().map(|(_, part)| part))
    }

    /// What [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Where the bytes are something else, of a later release, or of another format of archived values.
    pub fn decode(bytes: &[u8]) -> Result<Self, SchemaError> {
        let [key, user_key, value] = decode_parts(bytes)?;
        Ok(Self { key, user_key, value })
    }

    /// A number for all of it: names, types, places, sizes, and the format of archived values.
    pub fn fingerprint(&self) -> u64 {
        fingerprint(&encode_parts(self.parts().map(|(_, part)| part)))
    }

    /// Whether state that was stored with this schema can be restored, as it is, into a state that has `current`.
    ///
    /// # Errors
    /// The first field that differs; the message says what to do.
    pub fn compare(&self, current: &Self) -> Result<(), SchemaMismatch> {
        compare::compare(self, current)
    }
}
