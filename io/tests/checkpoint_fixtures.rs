//! Files of version 1 that later releases must read. `WRITE_FIXTURES=1` writes them anew, for a new version only.

use std::path::{Path, PathBuf};

use thalweg_io::checkpoint::{
    BlockFile, BlockLayout, FileId, FileRef, GroupSpan, LocalDisk, Metadata, NamedState, OperatorState, Place,
    SnapshotKind, StateKind, StatePart, SubtaskState, Written, encode_block_file,
};
use thalweg_io::{InFlight, InFlightRecord};
use thalweg_model::{
    CheckpointId, JobId, OperatorId, Record as _, StateSchema,
    schema::{Case, Kind, Schema, Style},
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn kept(name: &str, bytes: &[u8]) -> PathBuf {
    let path = fixture(name);
    if std::env::var_os("WRITE_FIXTURES").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    assert!(std::fs::read(&path).unwrap() == bytes, "{name}: this release writes other bytes; raise the version");
    path
}

fn payload() -> Vec<u8> {
    (0..5000u32).map(|at| (at % 251) as u8).collect()
}

#[test]
fn when_a_block_file_of_version_1_is_read_then_it_is_what_was_written() {
    let layout = BlockLayout::new(4096).unwrap();
    let path = kept("block-v1.bin", &encode_block_file(FileId([0xab; 16]), CheckpointId(7), layout, &payload()));
    let mut file = BlockFile::open(&LocalDisk, &path).unwrap();
    file.verify().unwrap();
    let mut read = vec![0; 5000];
    file.read_exact_at(0, &mut read).unwrap();
    assert!(read == payload());
    assert_eq!((file.checkpoint(), file.written().file), (CheckpointId(7), FileId([0xab; 16])));
}

#[test]
fn when_metadata_of_version_1_is_read_then_it_is_what_was_written() {
    let written = Written { file: FileId([0xab; 16]), payload_bytes: 5000, file_bytes: 8192, digest: 0x1234_5678 };
    let span = |first, last, offset| GroupSpan { first, last, offset, bytes: 1000, rows: 10 };
    let place = Place::File { file: 0, offset: 100, bytes: 2000 };
    let part = StatePart { increment: 0, rows: 20, place, groups: vec![span(0, 63, 0), span(64, 127, 1000)] };
    let inline = StatePart { increment: 1, rows: 1, place: Place::Inline(b"row".to_vec()), groups: Vec::new() };
    let states = StateKind::ALL.into_iter().map(|kind| NamedState {
        name: format!("{kind:?}"),
        kind,
        schema: b"schema".to_vec(),
        parts: vec![part.clone(), inline.clone()],
    });
    let operator = OperatorState {
        id: OperatorId([1; 16]),
        uid: "count".into(),
        name: "Count per channel".into(),
        parallelism: 2,
        max_parallelism: 128,
        finished: false,
        coordinator: b"splits".to_vec(),
        subtasks: vec![
            SubtaskState { index: 0, finished: false, states: states.collect() },
            SubtaskState { index: 1, finished: true, states: Vec::new() },
        ],
    };
    let metadata = Metadata {
        checkpoint: CheckpointId(7),
        timestamp_ms: 1_700_000_000_000,
        kind: SnapshotKind::Savepoint,
        incremental: true,
        job: JobId([2; 16]),
        job_name: "fixture".into(),
        max_parallelism: 128,
        properties: vec![("counter".into(), vec![7])],
        files: vec![FileRef { path: "abababab".into(), written }],
        operators: vec![operator],
    };
    let path = kept("metadata-v1.bin", &metadata.encode().unwrap());
    assert_eq!(Metadata::decode(&std::fs::read(&path).unwrap(), &path).unwrap(), metadata);
}

#[test]
fn when_a_schema_of_version_1_is_read_then_it_is_what_was_written() {
    // As the derived `Bid { price: u64, channel: String }` and `enum Side { Buy, Sell(u64), Cancel { note: Option<char> } }`.
    let bid = Case::new("Bid", Style::Named).field::<u64>("price", 0).field::<String>("channel", 8);
    let bid = Schema { size: 16, align: 8, kind: Kind::Struct(bid) };
    let variants = vec![
        Case::new("Buy", Style::Unit),
        Case::new("Sell", Style::Tuple).field::<u64>("0", 8),
        Case::new("Cancel", Style::Named).field::<Option<char>>("note", 4),
    ];
    let side = Schema { size: 16, align: 8, kind: Kind::Enum { name: "Side".into(), variants } };
    let all = <(u8, i16, f32, f64, bool, char, (), Vec<i128>)>::schema();
    let schema = StateSchema { key: Some(side), user_key: Some(all), value: Some(bid) };
    let path = kept("schema-v1.bin", &schema.encode().unwrap());
    let read = StateSchema::decode(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(read, schema);
    // A change of it strands what was stored with it.
    assert_eq!(read.fingerprint(), SCHEMA_FINGERPRINT, "{:#x}", read.fingerprint());
}

#[test]
fn when_a_schema_can_be_stored_then_metadata_takes_it() {
    assert_eq!(thalweg_io::checkpoint::limits::MAX_SCHEMA_BYTES, thalweg_model::schema::MAX_SCHEMA_BYTES);
}

const SCHEMA_FINGERPRINT: u64 = 0x5719_815d_2f0f_e32b;

#[test]
fn when_records_in_flight_of_version_1_are_read_then_they_are_what_was_written() {
    let mut bytes = b"TWFLY\n\x01\0".to_vec();
    let mut frame = |kind: u32, hash: u32, timestamp: i64, payload: &[u8]| {
        bytes.extend_from_slice(&(kind << 28 | payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&hash.to_le_bytes());
        bytes.extend_from_slice(&timestamp.to_le_bytes());
        bytes.extend_from_slice(payload);
    };
    frame(0, 7, -1, b"whole");
    frame(2, 0, i64::MIN, b"in ");
    frame(3, 9, 1_436_918_400_000, b"pieces");
    let path = kept("in-flight-v1.bin", &bytes);
    let record = |hash, timestamp, payload: &[u8]| InFlightRecord { hash, timestamp, payload: payload.to_vec() };
    let records = [record(7, -1, b"whole"), record(9, 1_436_918_400_000, b"in pieces")];
    assert_eq!(InFlight::read(&[&std::fs::read(path).unwrap()]).unwrap(), records);
}
