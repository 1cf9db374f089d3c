//! Block files: opened, read from end to end, and verified; each as it is, and once more with the checksums that it ought
//! to have.

#![no_main]

#[path = "../reseal.rs"]
mod reseal;

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use thalweg_io::checkpoint::{BlockFile, LocalDisk};

fn read(bytes: &[u8]) {
    // In memory, one for each process: some thousand files a second on a disk would wear it.
    let path = format!("/dev/shm/thalweg-fuzz-{}", std::process::id());
    let path = Path::new(&path);
    std::fs::write(path, bytes).expect("room in memory");
    if let Ok(mut file) = BlockFile::open(&LocalDisk, path) {
        let sound = file.verify().is_ok();
        let mut at = 0;
        while let Ok(chunk) = file.chunk(at) {
            if chunk.is_empty() {
                break;
            }
            at += chunk.len() as u64;
        }
        assert!(at <= bytes.len() as u64, "more was read than there is");
        assert!(!sound || at == file.written().payload_bytes, "a file is sound and cannot be read to its end");
    }
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    let mut bytes = bytes.to_vec();
    reseal::reseal(&mut bytes);
    read(&bytes);
});
