//! `_metadata`: what is written reads back; what is hostile is refused.

use std::path::Path;

use proptest::{collection::vec, prelude::*};
use thalweg_model::{CheckpointId, JobId, OperatorId};

use super::{
    Damage, FileId, FileRef, GroupSpan, Metadata, NamedState, OperatorState, Place, SnapshotKind, StateKind, StatePart,
    SubtaskState, Written, metadata_check::is_path_allowed,
};

fn place(files: usize) -> BoxedStrategy<Place> {
    let inline = vec(any::<u8>(), 0..40).prop_map(Place::Inline).boxed();
    if files == 0 {
        return inline;
    }
    let file =
        (0..files as u32, 0u64..100, 0u64..900).prop_map(|(file, offset, bytes)| Place::File { file, offset, bytes });
    prop_oneof![inline, file].boxed()
}

fn part(files: usize) -> impl Strategy<Value = StatePart> {
    (place(files), any::<u64>(), vec((0u16..4, 0u16..4), 0..6)).prop_map(|(place, rows, steps)| {
        let mut next = 0;
        let bytes = place.bytes();
        let spans = steps.into_iter().map(|(skip, more)| {
            let (first, last) = (next + skip, next + skip + more);
            next = last + 1;
            GroupSpan { first, last, offset: bytes / 2, bytes: bytes / 3, rows: u64::from(last) }
        });
        StatePart { increment: 0, rows, groups: spans.collect(), place }
    })
}

fn subtasks(files: usize) -> impl Strategy<Value = Vec<SubtaskState>> {
    let state = ("[a-z]{0,5}", 0usize..9, vec(any::<u8>(), 0..9), vec(part(files), 0..4));
    vec((any::<bool>(), vec(state, 0..4)), 0..4).prop_map(|subtasks| {
        (0..)
            .zip(subtasks)
            .map(|(index, (finished, states))| SubtaskState {
                index,
                finished,
                states: (0u32..)
                    .zip(states)
                    .map(|(number, (name, kind, schema, mut parts))| {
                        (0..).zip(&mut parts).for_each(|(increment, part)| part.increment = increment);
                        NamedState { name: format!("{name}{number}"), kind: StateKind::ALL[kind], schema, parts }
                    })
                    .collect(),
            })
            .collect()
    })
}

fn operators(files: usize) -> impl Strategy<Value = Vec<OperatorState>> {
    vec((".{0,8}", any::<bool>(), vec(any::<u8>(), 0..9), subtasks(files)), 0..4).prop_map(|operators| {
        (0u8..)
            .zip(operators)
            .map(|(id, (name, finished, coordinator, subtasks))| OperatorState {
                id: OperatorId([id; 16]),
                uid: name.clone(),
                name,
                parallelism: 4,
                max_parallelism: 128,
                finished,
                coordinator,
                subtasks,
            })
            .collect()
    })
}

prop_compose! {
    pub(super) fn metadata()(files in 0usize..4)(
        files in Just(files),
        checkpoint in any::<u64>(),
        timestamp_ms in any::<i64>(),
        flags in any::<[bool; 2]>(),
        job_name in ".{0,12}",
        properties in vec((".{0,5}", vec(any::<u8>(), 0..9)), 0..3),
        operators in operators(files),
    ) -> Metadata {
        let written = Written { file: FileId([5; 16]), payload_bytes: 1000, file_bytes: 4096, digest: 77 };
        let kind = if flags[0] { SnapshotKind::Savepoint } else { SnapshotKind::Checkpoint };
        Metadata {
            checkpoint: CheckpointId(checkpoint),
            timestamp_ms,
            kind,
            incremental: flags[1],
            job: JobId::from_name(&job_name),
            job_name,
            max_parallelism: 128,
            properties,
            files: (0..files).map(|at| FileRef { path: format!("../shared/{at}"), written }).collect(),
            operators,
        }
    }
}

fn decode(bytes: &[u8]) -> Result<Metadata, super::BadFile> {
    Metadata::decode(bytes, Path::new("chk-1/_metadata"))
}

/// Makes the checksum fit, so that what is behind it is reached.
fn reseal(bytes: &mut [u8]) {
    if bytes.len() >= 24 {
        let body = (bytes.len() - 24) as u64;
        bytes[16..24].copy_from_slice(&body.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn when_encoded_then_it_decodes_to_the_same(metadata in metadata()) {
        let bytes = metadata.encode().unwrap();
        prop_assert_eq!(decode(&bytes).unwrap(), metadata);
    }

    #[test]
    fn when_flipped_or_cut_then_it_is_refused(
        metadata in metadata(),
        at in any::<prop::sample::Index>(),
        bit in 0u32..8,
        cut in any::<prop::sample::Index>(),
    ) {
        let good = metadata.encode().unwrap();
        let mut bad = good.clone();
        bad[at.index(good.len())] ^= 1 << bit;
        prop_assert!(decode(&bad).is_err());
        prop_assert!(decode(&good[..cut.index(good.len())]).is_err());
        let longer = [&good[..], &[0]].concat();
        prop_assert!(decode(&longer).is_err());
    }

    /// Hostile bytes under a checksum that fits: refused, or something that could have been written.
    #[test]
    fn when_hostile_bytes_have_a_right_checksum_then_nothing_bad_comes_of_it(
        metadata in metadata(),
        changes in vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), Just(0xff), Just(0)]), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = metadata.encode().unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        reseal(&mut bytes);
        if let Ok(read) = decode(&bytes) {
            prop_assert_eq!(read.encode().unwrap(), bytes);
        }
    }

    #[test]
    fn when_rubbish_is_decoded_then_it_is_refused(mut bytes in vec(any::<u8>(), 0..300), sealed in any::<bool>()) {
        if sealed && bytes.len() >= 24 {
            bytes[..12].copy_from_slice(b"THALWEGM\x01\0\0\0");
            reseal(&mut bytes);
        }
        // Sealed rubbish may by luck be an empty checkpoint; it must not be more than its bytes.
        if let Ok(read) = decode(&bytes) {
            prop_assert!(sealed && read.encode().unwrap() == bytes);
        }
    }
}

#[test]
fn when_a_count_is_huge_then_nothing_is_allocated_for_it() {
    let metadata = Metadata {
        checkpoint: CheckpointId(1),
        timestamp_ms: 0,
        kind: SnapshotKind::Checkpoint,
        incremental: false,
        job: JobId([0; 16]),
        job_name: String::new(),
        max_parallelism: 1,
        properties: Vec::new(),
        files: Vec::new(),
        operators: Vec::new(),
    };
    let mut bytes = metadata.encode().unwrap();
    let at = bytes.len() - 4;
    bytes[at..].fill(0xff);
    reseal(&mut bytes);
    let error = decode(&bytes).unwrap_err();
    assert!(matches!(error.damage, Damage::TooMany { found: 0xffff_ffff, .. }), "{error}");

    let mut newer = metadata.encode().unwrap();
    newer[8] = 9;
    reseal(&mut newer);
    let error = decode(&newer).unwrap_err().to_string();
    assert!(error.contains("version 9") && error.contains("chk-1/_metadata"), "{error}");

    let bad = Metadata { max_parallelism: 0, ..metadata.clone() };
    assert!(matches!(bad.encode(), Err(Damage::Malformed { .. })));
    let bad = Metadata { job_name: "x".repeat(5000), ..metadata };
    assert!(matches!(bad.encode(), Err(Damage::TooMany { found: 5000, limit: 4096, .. })));
}

#[test]
fn when_a_path_leaves_its_place_then_it_is_refused() {
    for good in ["a", "../shared/a", "../../job/shared/a", "dir/a"] {
        assert!(is_path_allowed(good), "{good}");
    }
    for bad in ["", "/etc/passwd", "..", "../..", "../../../a", "a/../../b", "a//b", "./a", "_metadata", "a\0"] {
        assert!(!is_path_allowed(bad), "{bad:?}");
    }
}
