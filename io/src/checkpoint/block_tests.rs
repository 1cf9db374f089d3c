//! The block reader against damage of every kind: an error that names file and byte, never a panic, never wrong bytes.

#[path = "../../fuzz/reseal.rs"]
mod reseal;

use std::{fs, path::Path};

use proptest::prelude::*;
use thalweg_model::CheckpointId;

use super::{BadFile, BlockFile, BlockLayout, Damage, FileId, LocalDisk, encode_block_file};

fn layout() -> BlockLayout {
    BlockLayout::new(4096).unwrap()
}

fn image(file: u8, bytes: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..bytes).map(|at| (at * 13) as u8).collect();
    encode_block_file(FileId([file; 16]), CheckpointId(1), layout(), &payload)
}

fn verify(path: &Path, bytes: &[u8]) -> Result<(), BadFile> {
    fs::write(path, bytes).unwrap();
    BlockFile::open(&LocalDisk, path)?.verify()
}

#[test]
fn when_any_single_bit_is_flipped_then_it_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let good = image(1, 4500);
    verify(&path, &good).unwrap();
    // Every byte of the headers, the ends and the padding, and a sample of the payload.
    let interesting = (0..200).chain((200..good.len()).step_by(37)).chain(good.len() - 200..good.len());
    for at in interesting.chain(4096..4096 + 70) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        let error = verify(&path, &bad).expect_err("a flipped bit was not noticed");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn when_truncated_or_grown_anywhere_then_it_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let good = image(1, 9000);
    for length in (0..good.len()).step_by(61).chain([4096, 8192, good.len() - 1, good.len() - 64]) {
        let error = verify(&path, &good[..length]).expect_err("a cut was not noticed");
        assert!(matches!(error.damage, Damage::Length { .. } | Damage::Malformed { .. }), "{length}: {error}");
    }
    for more in [1, 64, 4096] {
        let mut bad = good.clone();
        bad.resize(good.len() + more, 0);
        verify(&path, &bad).expect_err("bytes at the end were not noticed");
    }
    fs::remove_file(&path).unwrap();
    let error = BlockFile::open(&LocalDisk, &path).err().unwrap();
    assert!(matches!(error.damage, Damage::Missing), "{error}");
    assert!(BlockFile::open(&LocalDisk, dir.path()).is_err());
}

#[test]
fn when_sound_blocks_lie_in_the_wrong_place_then_it_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let (good, other) = (image(1, 20_000), image(2, 20_000));
    let mut swapped = good.clone();
    swapped.copy_within(4096..8192, 8192);
    let error = verify(&path, &swapped).unwrap_err();
    assert!(matches!(error.damage, Damage::Misplaced { what: "block" }) && error.offset == 8192, "{error}");
    let mut foreign = good.clone();
    foreign[8192..12288].copy_from_slice(&other[8192..12288]);
    let error = verify(&path, &foreign).unwrap_err();
    assert!(matches!(error.damage, Damage::Misplaced { .. }), "{error}");
    // The same file, the same place, another content: the digest knows.
    let mut stale = good.clone();
    let changed = encode_block_file(FileId([1; 16]), CheckpointId(1), layout(), &[7; 20_000]);
    stale[4096..8192].copy_from_slice(&changed[4096..8192]);
    let error = verify(&path, &stale).unwrap_err();
    assert!(matches!(error.damage, Damage::Checksum { .. }), "{error}");
    // A whole file under another's name.
    fs::write(&path, &good).unwrap();
    let written = BlockFile::open(&LocalDisk, &path).unwrap().written();
    fs::write(&path, &other).unwrap();
    let error = BlockFile::open_written(&LocalDisk, &path, &written).err().unwrap();
    assert!(matches!(error.damage, Damage::Misplaced { .. }), "{error}");
}

#[test]
fn when_from_a_newer_release_then_the_version_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let mut newer = image(1, 100);
    newer[64 + 8] = 2;
    let crc = crc32c::crc32c(&newer[64..124]).to_le_bytes();
    newer[124..128].copy_from_slice(&crc);
    let error = verify(&path, &newer).unwrap_err();
    assert!(matches!(error.damage, Damage::Version { found: 2, newest: 1 }), "{error}");
    assert!(error.to_string().contains("newer release"), "{error}");
}

#[test]
fn when_read_beyond_the_end_then_it_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, image(1, 5000)).unwrap();
    let mut file = BlockFile::open(&LocalDisk, &path).unwrap();
    assert!(file.read_exact_at(4999, &mut [0; 2]).is_err() && file.read_exact_at(u64::MAX, &mut [0; 2]).is_err());
    assert_eq!(file.chunk(5000).unwrap(), &[] as &[u8]);
    let mut tail = [0; 2];
    file.read_exact_at(4998, &mut tail).unwrap();
    assert_eq!(tail, [(4998usize * 13) as u8, (4999usize * 13) as u8]);
}

proptest! {
    /// Hostile bytes: any mess of flips, cuts and rubbish is refused or reads as what was written.
    #[test]
    fn when_bytes_are_hostile_then_reading_is_an_error_or_right(
        bytes in 0usize..9000,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
        reseal in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let good = image(1, bytes);
        let mut bad = good.clone();
        for (at, value) in flips {
            let at = at.index(bad.len());
            bad[at] = value;
        }
        if let Some(cut) = cut {
            bad.truncate(cut.index(bad.len()));
        }
        if reseal {
            // Nonsense under checksums that fit.
            reseal::reseal(&mut bad);
        }
        if verify(&path, &bad).is_ok() {
            let mut file = BlockFile::open(&LocalDisk, &path).unwrap();
            let mut read = vec![0; file.written().payload_bytes as usize];
            file.read_exact_at(0, &mut read).unwrap();
            // Under checksums of its own a changed payload is as good as any other.
            prop_assert!(bad == good || reseal && read.len() <= bad.len());
        }
    }

    /// What the byte table says of checksums is what the writer does.
    #[test]
    fn when_a_sound_file_is_sealed_again_then_nothing_changes(bytes in 0usize..20_000) {
        let good = image(1, bytes);
        let mut again = good.clone();
        reseal::reseal(&mut again);
        prop_assert!(again == good);
    }

    #[test]
    fn when_rubbish_is_opened_then_it_is_an_error(rubbish in prop::collection::vec(any::<u8>(), 0..9000)) {
        let dir = tempfile::tempdir().unwrap();
        prop_assert!(verify(&dir.path().join("file"), &rubbish).is_err());
    }
}
