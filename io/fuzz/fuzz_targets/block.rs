//! Block files: opened, read from end to end, and verified.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use thalweg_io::checkpoint::{BlockFile, LocalDisk};

fuzz_target!(|bytes: &[u8]| {
    // In memory, one for each process: some thousand files a second on a disk would wear it.
    let path = format!("/dev/shm/thalweg-fuzz-{}", std::process::id());
    let path = Path::new(&path);
    std::fs::write(path, bytes).expect("room in memory");
    if let Ok(mut file) = BlockFile::open(&LocalDisk, path) {
        let _ = file.verify();
        let mut at = 0;
        while let Ok(chunk) = file.chunk(at) {
            if chunk.is_empty() {
                break;
            }
            at += chunk.len() as u64;
        }
        assert!(at <= bytes.len() as u64, "more was read than there is");
    }
});
