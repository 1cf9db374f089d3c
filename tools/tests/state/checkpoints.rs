//! Checkpoints of a small job: every kind of state, two subtasks, a base and an increment on it.

use std::{path::Path, process::Command, sync::Arc};

use thalweg::{
    Record,
    model::{CheckpointId, JobId, KeyGroupRange, KeyHash, MaxParallelism, OperatorId, StateSchema, record::key_hash},
};
use thalweg_io::checkpoint::{
    BlockFile, BlockLayout, CheckpointStore, FileIds, FileRef, GroupSpan, LocalDisk, Metadata, NamedState,
    OperatorState, Place, SnapshotKind as Taken, StateKind, StatePart, SubtaskState, encode_block_file,
};
use thalweg_state::{
    ImageIndex, ListTable, MapTable, RowTable, SnapshotKind, Snapshots, TableConfig, TimerQueue, encode_elements,
    snapshot_to_vec,
};

#[derive(Record, Clone, Debug, PartialEq)]
pub struct Bid {
    pub price: u64,
    pub channel: Option<String>,
    pub kind: Kind,
}

#[derive(Record, Clone, Debug, PartialEq)]
pub enum Kind {
    Plain,
    Limit(f32),
    Until { ts: i64 },
}

pub const GROUPS: u32 = 16;
pub const SUBTASKS: u32 = 2;
/// Keys of the table `bids`.
pub const KEYS: u64 = 100;

pub fn job() -> JobId {
    JobId::from_name("orders")
}

fn max_parallelism() -> MaxParallelism {
    MaxParallelism::new(GROUPS).expect("in range")
}

fn hash<K: thalweg::model::Record>(key: &K) -> KeyHash {
    key_hash::<K>(key.view())
}

fn bid(n: u64) -> Bid {
    let kind = match n % 3 {
        0 => Kind::Plain,
        1 => Kind::Limit(0.1),
        _ => Kind::Until { ts: -1 },
    };
    Bid { price: n * 10, channel: n.is_multiple_of(2).then(|| format!("channel {n}")), kind }
}

/// The tables of one subtask.
struct Tables {
    range: KeyGroupRange,
    bids: RowTable<u64, Bid>,
    windows: RowTable<(String, i64), u32>,
    lists: ListTable<String, (u8, String)>,
    maps: MapTable<u64, String, f64>,
    timers: TimerQueue<u64>,
}

impl Tables {
    fn new(subtask: u32) -> Self {
        let range = max_parallelism().range_of(subtask, SUBTASKS);
        let config = TableConfig::new(range, max_parallelism());
        Self {
            range,
            bids: RowTable::new(config),
            windows: RowTable::new(config),
            lists: ListTable::new(config),
            maps: MapTable::new(config),
            timers: TimerQueue::new(config),
        }
    }

    fn is_mine(&self, hash: KeyHash) -> bool {
        self.range.contains(max_parallelism().key_group(hash))
    }

    fn fill(&mut self) {
        for n in (0..KEYS).filter(|n| self.is_mine(hash(n))).collect::<Vec<_>>() {
            self.bids.insert(hash(&n), n, bid(n).view());
            self.maps.put(hash(&n), n, "one", 1.5);
            self.maps.put(hash(&n), n, "nan", f64::NAN);
            self.timers.register(hash(&n), n, 0, 1000 + n as i64);
        }
        for name in ["a", "b", "c"].map(str::to_owned) {
            if self.is_mine(hash(&name)) {
                self.windows.insert(hash(&name), (&name, 60_000), 7);
                self.lists.append_all(hash(&name), &name, [(1, "x"), (2, "longer than what lies in place")]);
            }
        }
    }

    /// What the second checkpoint finds: a new row, one that is gone, and one that is another.
    fn change(&mut self) {
        if self.is_mine(hash(&KEYS)) {
            self.bids.insert(hash(&KEYS), KEYS, bid(KEYS).view());
        }
        if self.is_mine(hash(&1u64)) {
            self.bids.remove(hash(&1u64), 1);
            self.timers.delete(hash(&1u64), 1, 0, 1001);
        }
        if self.is_mine(hash(&2u64)) {
            self.bids.insert(hash(&2u64), 2, bid(3).view());
        }
    }

    fn snapshot(&mut self, kind: SnapshotKind) -> Vec<(&'static str, StateKind, StateSchema, Vec<u8>)> {
        fn image(table: &mut dyn Snapshots, kind: SnapshotKind) -> Vec<u8> {
            let image = snapshot_to_vec(table, kind).expect("none is running");
            table.confirm_snapshot(ImageIndex::of(&image).expect("an image").epoch());
            image
        }
        let rows = StateSchema::rows::<(String, i64), u32>();
        vec![
            ("bids", StateKind::KeyedTable, StateSchema::rows::<u64, Bid>(), image(&mut self.bids, kind)),
            ("windows", StateKind::KeyedTable, rows, image(&mut self.windows, kind)),
            ("lists", StateKind::KeyedList, StateSchema::lists::<String, (u8, String)>(), image(&mut self.lists, kind)),
            ("maps", StateKind::KeyedMap, StateSchema::maps::<u64, String, f64>(), image(&mut self.maps, kind)),
            ("timers", StateKind::Timers, StateSchema::timers::<u64>(), image(&mut self.timers, kind)),
        ]
    }
}

fn operator_states(subtask: u32) -> Vec<NamedState> {
    let elements = encode_elements::<(u32, String)>([(subtask, "first"), (subtask, "second, which is longer")]);
    let state = |name: &str, kind, bytes: &[u8], schema: Vec<u8>| NamedState {
        name: name.to_owned(),
        kind,
        schema,
        parts: vec![StatePart { increment: 0, rows: 2, place: Place::Inline(bytes.to_vec()), groups: Vec::new() }],
    };
    let schema = StateSchema::elements::<(u32, String)>().encode().expect("small");
    vec![
        state("offsets", StateKind::SourcePosition, &elements, schema.clone()),
        state("rules", StateKind::Broadcast, &elements, schema.clone()),
        state("parts", StateKind::OperatorList, &elements, schema),
        state("untyped", StateKind::Union, &elements, Vec::new()),
        state("in flight", StateKind::ChannelState, b"frames", Vec::new()),
    ]
}

/// Takes checkpoints of the job into a directory.
pub struct Job {
    store: CheckpointStore,
    ids: FileIds,
    tables: Vec<Tables>,
    /// Parts and files of the last checkpoint, by subtask and state.
    parts: Vec<Vec<Vec<StatePart>>>,
    files: Vec<FileRef>,
}

impl Job {
    pub fn new(dir: &Path) -> Self {
        let (store, _) = CheckpointStore::open(Arc::new(LocalDisk), dir, job()).expect("a directory");
        let mut tables: Vec<_> = (0..SUBTASKS).map(Tables::new).collect();
        tables.iter_mut().for_each(Tables::fill);
        Self { store, ids: FileIds::seeded(7), tables, parts: Vec::new(), files: Vec::new() }
    }

    pub fn change(&mut self) {
        self.tables.iter_mut().for_each(Tables::change);
    }

    /// Takes checkpoint `n`: a full one, or an increment on the one before.
    pub fn checkpoint(&mut self, n: u64) {
        let (id, base) = (CheckpointId(n), self.store.retained().last().copied());
        let files = self.store.begin(id, base).expect("a new number");
        let kind = if base.is_some() { SnapshotKind::Increment } else { SnapshotKind::Base };
        self.parts.resize_with(SUBTASKS as usize, Vec::new);
        let mut subtasks = Vec::new();
        for (index, tables) in self.tables.iter_mut().enumerate() {
            let new = files.shared(self.ids.make());
            let (mut payload, mut states) = (Vec::new(), operator_states(index as u32));
            let images = tables.snapshot(kind);
            self.parts[index].resize_with(images.len(), Vec::new);
            for ((name, kind, schema, image), parts) in images.into_iter().zip(&mut self.parts[index]) {
                let of = ImageIndex::of(&image).expect("an image");
                let span = |extent: &thalweg_state::Extent| GroupSpan {
                    first: extent.groups.start,
                    last: extent.groups.end,
                    offset: extent.offset,
                    bytes: extent.bytes,
                    rows: extent.rows,
                };
                // Removals come first, of any groups: only ascending spans may be named.
                let mut groups: Vec<GroupSpan> = of.extents().iter().map(span).collect();
                if !groups.is_sorted_by(|a, b| a.last < b.first) {
                    groups.clear();
                }
                let place = Place::File {
                    file: self.files.len() as u32,
                    offset: payload.len() as u64,
                    bytes: image.len() as u64,
                };
                parts.push(StatePart { increment: parts.len() as u32, rows: of.rows(), place, groups });
                payload.extend_from_slice(&image);
                let schema = schema.encode().expect("small");
                states.push(NamedState { name: name.to_owned(), kind, schema, parts: parts.clone() });
            }
            let layout = BlockLayout::new(4096).expect("a block size");
            std::fs::write(&new.path, encode_block_file(new.file, id, layout, &payload)).expect("written");
            let written = BlockFile::open(&LocalDisk, &new.path).expect("sound").written();
            self.files.push(new.reference(written));
            subtasks.push(SubtaskState { index: index as u32, finished: false, states });
        }
        let operator = OperatorState {
            id: OperatorId::from_name("bids"),
            uid: "bids".into(),
            name: "Bids per auction".into(),
            parallelism: SUBTASKS,
            max_parallelism: GROUPS,
            finished: false,
            coordinator: b"splits".to_vec(),
            subtasks,
        };
        let metadata = Metadata {
            checkpoint: id,
            timestamp_ms: 1_700_000_000_000 + n as i64,
            kind: Taken::Checkpoint,
            incremental: base.is_some(),
            job: job(),
            job_name: "orders".into(),
            max_parallelism: GROUPS,
            properties: Vec::new(),
            files: self.files.clone(),
            operators: vec![operator],
        };
        self.store.publish(&metadata).expect("published");
    }
}

/// A directory with checkpoints 1 and 2 of the job, and where they lie.
pub fn two() -> (tempfile::TempDir, [String; 2]) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut job = Job::new(dir.path());
    job.checkpoint(1);
    job.change();
    job.checkpoint(2);
    let path = |n: u32| dir.path().join(self::job().to_string()).join(format!("chk-{n}")).display().to_string();
    let paths = [path(1), path(2)];
    (dir, paths)
}

/// Runs `thalweg state`: standard output, standard error, exit code.
pub fn run(args: &[&str]) -> (String, String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg"));
    let output = command.arg("state").args(args).env_remove("RUST_LOG").output().expect("the command starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (text(output.stdout), text(output.stderr), output.status.code())
}

/// Runs it where it must succeed.
pub fn good(args: &[&str]) -> String {
    let (out, err, code) = run(args);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{args:?}: {out}");
    out
}

/// The same, for JSON.
pub fn json(args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&good(args)).expect("JSON")
}
