//! Records in flight: the first byte says where the two parts of a channel meet.

#![no_main]

use libfuzzer_sys::fuzz_target;
use thalweg_io::InFlight;

fuzz_target!(|bytes: &[u8]| {
    let _ = InFlight::read(&[bytes]);
    if let Some((&at, rest)) = bytes.split_first() {
        let (queued, unsent) = rest.split_at(usize::from(at).min(rest.len()));
        let _ = InFlight::read(&[queued, unsent]);
    }
});
