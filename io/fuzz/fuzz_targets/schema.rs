//! Stored schemas, and values read by them: the bytes after the schema's own are the value's.

#![no_main]

use libfuzzer_sys::fuzz_target;
use thalweg_model::{StateSchema, schema::read};

fuzz_target!(|bytes: &[u8]| {
    let Ok(schema) = StateSchema::decode(bytes) else { return };
    // What is read is written again as the same schema.
    let again = StateSchema::decode(&schema.encode().expect("it was read")).expect("it was written");
    assert_eq!(schema, again);
    assert_eq!(schema.fingerprint(), again.fingerprint());
    // A strange one may be refused even by itself.
    let _ = schema.compare(&again);
    for part in [&schema.key, &schema.user_key, &schema.value].into_iter().flatten() {
        let _ = read(part, bytes);
    }
});
