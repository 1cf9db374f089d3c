//! The store under failure: after anything at all, storage holds exactly what retained `_metadata` name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use proptest::prelude::*;
use thalweg_model::{CheckpointId, JobId};

use super::{
    BlockLayout, CheckpointFiles, CheckpointStore, Damage, Depth, Disk, DisposeError, Event, FaultPlan, FaultyDisk,
    FileIds, FileRef, LocalDisk, METADATA_NAME, Metadata, NewFile, Operation, SlotWriter, SnapshotKind, StoreError,
    WriterConfig, begin_savepoint, discover, disk::write_all_at, dispose_savepoint, encode_block_file,
    publish_savepoint, verify,
};

fn job() -> JobId {
    JobId::from_name("job")
}

fn describe(id: CheckpointId, files: Vec<FileRef>) -> Metadata {
    Metadata {
        checkpoint: id,
        timestamp_ms: 1,
        kind: SnapshotKind::Checkpoint,
        incremental: true,
        job: job(),
        job_name: "job".into(),
        max_parallelism: 128,
        properties: Vec::new(),
        files,
        operators: Vec::new(),
    }
}

/// Every file below a directory, relative to it.
fn tree(dir: &Path) -> BTreeSet<PathBuf> {
    fn walk(root: &Path, dir: &Path, found: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_path_buf());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(dir, dir, &mut found);
    found
}

/// What should lie there by the `_metadata` that lie there. Every one must be sound to the last byte.
fn named(job_dir: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for found in discover(&LocalDisk, job_dir, Depth::Checksums).unwrap() {
        let chk = PathBuf::from(format!("chk-{}", found.checkpoint));
        let metadata = found.metadata.unwrap_or_else(|bad| panic!("{bad}"));
        files.insert(chk.join(METADATA_NAME));
        files.extend(metadata.files.iter().map(|file| match file.path.strip_prefix("../") {
            Some(shared) => PathBuf::from(shared),
            None => chk.join(&file.path),
        }));
    }
    files
}

fn assert_exact(job_dir: &Path, why: &dyn std::fmt::Debug) {
    assert_eq!(tree(job_dir), named(job_dir), "{why:?}");
    let dirs = fs::read_dir(job_dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let stray = dirs.filter(|name| name.starts_with("chk-") && !job_dir.join(name).join(METADATA_NAME).exists());
    assert_eq!(stray.collect::<Vec<_>>(), Vec::<String>::new(), "{why:?}");
}

/// What a job does with its store: one thread, files written through the same faulty disk.
struct Driver {
    disk: Arc<dyn Disk>,
    store: CheckpointStore,
    ids: FileIds,
    /// Metadata of the checkpoints whose completion was reported, by number.
    complete: BTreeMap<CheckpointId, Metadata>,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    /// Takes a checkpoint, on the newest complete one if there is any.
    Take { own: u8, shared: u8, reuse: u8 },
    /// Writes files and gives up.
    Abort { own: u8, shared: u8 },
    /// Deletes the oldest but so many.
    Keep(usize),
}

impl Driver {
    fn open(disk: Arc<dyn Disk>, dir: &Path, seed: u64) -> Result<Self, StoreError> {
        let (store, found) = CheckpointStore::open(Arc::clone(&disk), dir, job())?;
        let next = found.first().map_or(0, |newest| newest.checkpoint.0) + 1;
        let complete = found.into_iter().filter_map(|one| Some((one.checkpoint, one.metadata.ok()?))).collect();
        Ok(Self { disk, store, ids: FileIds::seeded(seed), complete, next })
    }

    fn write(&self, new: &NewFile) -> std::io::Result<FileRef> {
        let layout = BlockLayout::new(4096).unwrap();
        let bytes = encode_block_file(new.file, new.checkpoint, layout, &[new.file.0[0]; 5000]);
        let file = self.disk.create(&new.path)?;
        write_all_at(&*self.disk, &file, &bytes, 0)?;
        self.disk.sync(&file)?;
        let open = super::BlockFile::open(&LocalDisk, &new.path).expect("just written");
        Ok(new.reference(open.written()))
    }

    fn write_all(&mut self, files: &CheckpointFiles, own: u8, shared: u8) -> std::io::Result<Vec<FileRef>> {
        let mut written = Vec::new();
        for number in 0..own + shared {
            let id = self.ids.make();
            let new = if number < own { files.exclusive(id) } else { files.shared(id) };
            written.push(self.write(&new)?);
        }
        Ok(written)
    }

    fn act(&mut self, act: Act) -> Result<(), StoreError> {
        match act {
            Act::Take { own, shared, reuse } => {
                let id = CheckpointId(self.next);
                self.next += 1;
                let base = self.complete.keys().next_back().copied();
                let files = self.store.begin(id, base)?;
                let Ok(mut written) = self.write_all(&files, own, shared) else { return self.store.abort(id) };
                let old = base.and_then(|base| self.complete.get(&base)).map(|base| base.files.clone());
                let is_shared = |file: &FileRef| file.path.starts_with("../");
                written.extend(old.into_iter().flatten().filter(is_shared).take(reuse.into()));
                let metadata = describe(id, written);
                self.store.publish(&metadata)?;
                self.complete.insert(id, metadata);
                Ok(())
            }
            Act::Abort { own, shared } => {
                let id = CheckpointId(self.next);
                self.next += 1;
                let base = self.complete.keys().next_back().copied();
                let files = self.store.begin(id, base)?;
                let _ = self.write_all(&files, own, shared);
                self.store.abort(id)
            }
            Act::Keep(count) => {
                while self.complete.len() > count {
                    let (oldest, metadata) = self.complete.pop_first().expect("more than some");
                    if let Err(error) = self.store.delete(oldest) {
                        if self.store.retained().contains(&oldest) {
                            self.complete.insert(oldest, metadata);
                        }
                        return Err(error);
                    }
                }
                Ok(())
            }
        }
    }
}

const SCRIPT: [Act; 8] = [
    Act::Take { own: 1, shared: 2, reuse: 0 },
    Act::Take { own: 1, shared: 1, reuse: 1 },
    Act::Keep(1),
    Act::Abort { own: 1, shared: 1 },
    Act::Take { own: 0, shared: 1, reuse: 2 },
    Act::Take { own: 2, shared: 0, reuse: 1 },
    Act::Keep(2),
    Act::Keep(1),
];

/// The power goes at each single change of the disk, in turn.
#[test]
fn when_the_power_goes_anywhere_then_the_next_start_finds_the_last_complete_checkpoint_and_nothing_else() {
    let mut crashes = 0;
    for nth in 1.. {
        let dir = tempfile::tempdir().unwrap();
        let plan = FaultPlan::new();
        plan.crash_at(nth);
        let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(LocalDisk, Arc::clone(&plan)));
        let mut last = None;
        if let Ok(mut driver) = Driver::open(disk, dir.path(), nth) {
            for act in SCRIPT {
                let _ = driver.act(act);
            }
            last = driver.complete.pop_last();
        }
        if plan.injected() == 0 {
            break;
        }
        crashes += 1;
        let driver = Driver::open(Arc::new(LocalDisk), dir.path(), 0).unwrap();
        assert_exact(driver.store.job_dir(), &nth);
        // At least what was reported as complete; one whose completion was not reported may have made it too.
        if let Some((last, metadata)) = last {
            let newest = *driver.store.retained().last().unwrap_or_else(|| panic!("nothing is left at {nth}"));
            assert!(newest >= last, "{nth}");
            assert_eq!(driver.complete.get(&last).unwrap_or(&metadata), &metadata);
            assert!(newest > last || driver.complete.contains_key(&last));
        }
    }
    assert!(crashes > 60, "only {crashes} points to crash at");
}

/// Each single operation fails once; the job goes on in the same process.
#[test]
fn when_any_operation_fails_once_then_the_job_goes_on_and_nothing_is_left_behind() {
    let mut failures = 0;
    for kind in Operation::ALL {
        for nth in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let plan = FaultPlan::new();
            let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(LocalDisk, Arc::clone(&plan)));
            let mut driver = Driver::open(disk, dir.path(), nth).unwrap();
            plan.fail_nth(kind, nth, if kind == Operation::Write { libc::ENOSPC } else { libc::EIO });
            let mut errors = 0;
            for act in SCRIPT {
                errors += u64::from(driver.act(act).is_err());
            }
            if plan.injected() == 0 {
                break;
            }
            failures += 1;
            driver.act(Act::Take { own: 1, shared: 1, reuse: 1 }).unwrap_or_else(|e| panic!("{kind:?} {nth}: {e}"));
            driver.store.sweep().unwrap();
            assert_exact(driver.store.job_dir(), &(kind, nth, errors));
            let retained = driver.store.retained();
            drop(driver);
            let reopened = Driver::open(Arc::new(LocalDisk), dir.path(), 0).unwrap();
            assert_eq!(reopened.store.retained(), retained, "{kind:?} {nth}");
            assert_exact(reopened.store.job_dir(), &(kind, nth));
        }
    }
    assert!(failures > 60, "only {failures} failures");
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0u8..3, 0u8..3, 0u8..4).prop_map(|(own, shared, reuse)| Act::Take { own, shared, reuse }),
        1 => (0u8..2, 0u8..3).prop_map(|(own, shared)| Act::Abort { own, shared }),
        2 => (0usize..3).prop_map(Act::Keep),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Any sequence with any failures, then one sweep: 60 runs of up to 20 failures each.
    #[test]
    fn when_anything_fails_anywhere_then_a_sweep_leaves_what_is_named(
        acts in prop::collection::vec(acts(), 1..15),
        faults in prop::collection::vec((0usize..11, 1u64..60), 0..20),
        crash in prop::option::of(1u64..200),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let plan = FaultPlan::new();
        let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(LocalDisk, Arc::clone(&plan)));
        let mut driver = Driver::open(disk, dir.path(), 5).unwrap();
        for (kind, nth) in faults {
            plan.fail_nth(Operation::ALL[kind], nth, libc::EIO);
        }
        if let Some(nth) = crash {
            plan.crash_at(nth);
        }
        for act in acts {
            let _ = driver.act(act);
        }
        plan.heal();
        if crash.is_some() {
            drop(driver);
            driver = Driver::open(Arc::new(LocalDisk), dir.path(), 6).unwrap();
        }
        // What was reported complete and not deleted is there.
        driver.store.sweep().unwrap();
        let newest = driver.complete.keys().next_back().copied();
        prop_assert!(newest.is_none_or(|newest| driver.store.retained().contains(&newest)));
        drop(driver);
        let driver = Driver::open(Arc::new(LocalDisk), dir.path(), 7).unwrap();
        assert_exact(driver.store.job_dir(), &"after a sweep");
    }
}

/// The order of the durable steps, from the log of a real writer and store.
#[test]
fn when_published_then_everything_that_is_named_was_synced_before_the_rename() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let disk = Arc::new(FaultyDisk::new(LocalDisk, Arc::clone(&plan)));
    let (mut store, _) = CheckpointStore::open(disk, dir.path(), job()).unwrap();
    plan.start_log();
    let files = store.begin(CheckpointId(1), None).unwrap();
    let config = WriterConfig { block_bytes: 4096, faults: Some(Arc::clone(&plan)), ..WriterConfig::default() };
    let mut writer = SlotWriter::new(config).unwrap();
    let mut ids = FileIds::seeded(1);
    let new = [files.exclusive(ids.make()), files.shared(ids.make())];
    let mut events = Vec::new();
    for new in &new {
        let stream = writer.open(new.spec(0)).unwrap();
        writer.try_append(stream, &[1; 10_000]);
        writer.finish(stream);
    }
    while events.len() < 2 {
        writer.poll_wait(&mut events);
    }
    let reference = |event: &Event| match event {
        Event::Finished { written, .. } => new.iter().find(|new| new.file == written.file).unwrap().reference(*written),
        other => panic!("{other:?}"),
    };
    let metadata = describe(CheckpointId(1), events.iter().map(reference).collect());
    store.publish(&metadata).unwrap();
    assert_eq!(verify(&LocalDisk, files.dir(), Depth::Checksums).unwrap(), metadata);

    let log = plan.log();
    let last = |wanted: Operation, path: &Path| log.iter().rposition(|(op, at)| *op == wanted && at == path);
    let rename = last(Operation::Rename, &files.dir().join(METADATA_NAME)).expect("renamed");
    for new in &new {
        let sync = last(Operation::Sync, &new.path).expect("synced");
        assert!(last(Operation::Write, &new.path).expect("written") < sync && sync < rename);
        let dir = new.path.parent().unwrap();
        let created = last(Operation::Open, &new.path).expect("created");
        let dir_synced = log[..rename].iter().rposition(|(op, at)| *op == Operation::Sync && at == dir);
        assert!(dir_synced.is_some_and(|at| at > created), "entries of {}", dir.display());
    }
    let job_dir = log[..rename].iter().rposition(|(op, at)| *op == Operation::Sync && at == store.job_dir());
    assert!(job_dir > last(Operation::MakeDir, files.dir()));
    assert!(last(Operation::Sync, files.dir()).unwrap() > rename);
}

#[test]
fn when_a_file_is_damaged_then_the_checkpoint_before_is_the_latest_sound_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut driver = Driver::open(Arc::new(LocalDisk), dir.path(), 1).unwrap();
    for _ in 0..2 {
        driver.act(Act::Take { own: 1, shared: 1, reuse: 1 }).unwrap();
    }
    let job_dir = driver.store.job_dir().to_path_buf();
    let file = &driver.complete[&CheckpointId(2)].files[0];
    let path = job_dir.join("chk-2").join(&file.path);
    let good = fs::read(&path).unwrap();
    let latest = |depth| {
        let found = discover(&LocalDisk, &job_dir, depth).unwrap();
        let lines = found.iter().filter_map(|one| one.metadata.as_ref().err()).map(ToString::to_string).collect();
        (found.iter().find(|one| one.metadata.is_ok()).unwrap().checkpoint.0, lines)
    };
    let check = |depth: Depth, what: &str| {
        let (newest, lines): (u64, Vec<String>) = latest(depth);
        assert_eq!((newest, lines.len()), (1, 1), "{what}");
        assert!(lines[0].contains(path.to_str().unwrap()) && !lines[0].contains('\n'), "{what}: {}", lines[0]);
    };
    let mut flipped = good.clone();
    flipped[3000] ^= 1;
    fs::write(&path, flipped).unwrap();
    check(Depth::Checksums, "flipped");
    fs::write(&path, &good[..4096]).unwrap();
    check(Depth::References, "truncated");
    fs::remove_file(&path).unwrap();
    check(Depth::References, "missing");
    drop(driver);
    // The damaged one is kept for people to look at, and its shared files with it, until it is deleted.
    let (mut store, _) = CheckpointStore::open(Arc::new(LocalDisk), dir.path(), job()).unwrap();
    assert_eq!((store.retained(), store.unusable()), (vec![CheckpointId(1)], vec![CheckpointId(2)]));
    assert!(matches!(store.begin(CheckpointId(2), None), Err(StoreError::Exists(_))));
    store.delete(CheckpointId(2)).unwrap();
    assert_exact(&job_dir, &"deleted");
}

#[test]
fn when_a_damaged_checkpoint_is_older_than_those_kept_then_it_goes_and_until_then_newer_files_are_collected() {
    let dir = tempfile::tempdir().unwrap();
    let mut driver = Driver::open(Arc::new(LocalDisk), dir.path(), 1).unwrap();
    let take = Act::Take { own: 1, shared: 2, reuse: 0 };
    driver.act(take).unwrap();
    driver.act(take).unwrap();
    let job_dir = driver.store.job_dir().to_path_buf();
    drop(driver);
    let metadata_of = |number: u64| job_dir.join(format!("chk-{number}")).join(METADATA_NAME);
    fs::write(metadata_of(2), &fs::read(metadata_of(2)).unwrap()[..100]).unwrap();
    let mut driver = Driver::open(Arc::new(LocalDisk), dir.path(), 2).unwrap();
    let shared = || fs::read_dir(job_dir.join("shared")).unwrap().count();
    driver.act(take).unwrap();
    assert_eq!(driver.store.unusable(), vec![CheckpointId(2)], "as many as are kept are not newer yet");
    assert_eq!(shared(), 6);
    driver.act(Act::Abort { own: 0, shared: 3 }).unwrap();
    assert_eq!(shared(), 6, "it cannot name what came after it");
    driver.act(Act::Keep(1)).unwrap();
    assert_eq!(driver.store.unusable(), Vec::new(), "it is older than all that are kept");
    assert_exact(&job_dir, &"older than all");
    // As a job that has finished: all of them go, in any order, and the damaged one with them.
    for (newest_first, shows_at_once) in [(false, true), (true, true), (false, false), (true, false)] {
        driver.act(take).unwrap();
        driver.act(take).unwrap();
        let damaged = *driver.complete.keys().next_back().unwrap();
        if shows_at_once {
            drop(driver);
            fs::write(metadata_of(damaged.0), b"x").unwrap();
            driver = Driver::open(Arc::new(LocalDisk), dir.path(), 3).unwrap();
        } else {
            driver.store.note_damaged(damaged);
        }
        assert_eq!(driver.store.unusable(), vec![damaged]);
        driver.act(take).unwrap();
        let mut kept = driver.store.retained();
        assert!(kept.len() > 1 && kept[0] < damaged && damaged < kept[kept.len() - 1]);
        if newest_first {
            kept.reverse();
        }
        kept.into_iter().for_each(|id| driver.store.delete(id).unwrap());
        driver.complete.clear();
        assert_eq!(tree(&job_dir), BTreeSet::new(), "newest first: {newest_first}");
    }
}

#[test]
fn when_a_store_is_open_then_another_is_refused_until_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let open = || CheckpointStore::open(Arc::new(LocalDisk), dir.path(), job());
    let (mut store, _) = open().unwrap();
    store.begin(CheckpointId(1), None).unwrap();
    let error = open().err().unwrap();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains(&job().to_string()) && error.contains("--job-id"), "{error}");
    assert!(store.dir_of(CheckpointId(1)).exists(), "whoever is refused sweeps nothing");
    drop(store);
    open().unwrap();
}

#[test]
fn when_a_pending_checkpoint_builds_on_a_deleted_one_then_its_files_wait_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut driver = Driver::open(Arc::new(LocalDisk), dir.path(), 1).unwrap();
    driver.act(Act::Take { own: 0, shared: 2, reuse: 0 }).unwrap();
    let base = driver.complete[&CheckpointId(1)].clone();
    // Two are under way on the same base; the first to complete shares nothing, and the base goes.
    driver.store.begin(CheckpointId(2), Some(CheckpointId(1))).unwrap();
    driver.store.begin(CheckpointId(3), Some(CheckpointId(1))).unwrap();
    driver.store.publish(&describe(CheckpointId(2), Vec::new())).unwrap();
    driver.store.delete(CheckpointId(1)).unwrap();
    driver.store.publish(&describe(CheckpointId(3), base.files[..1].to_vec())).unwrap();
    assert_exact(driver.store.job_dir(), &"published");
    let shared = driver.store.shared();
    let entry = shared.values().next().unwrap();
    assert_eq!((shared.len(), entry.created_by, entry.last_used), (1, CheckpointId(1), CheckpointId(3)));
    // The other file is gone: nobody may name it any more.
    driver.store.begin(CheckpointId(4), Some(CheckpointId(3))).unwrap();
    let error = driver.store.publish(&describe(CheckpointId(4), base.files[1..].to_vec())).unwrap_err();
    assert!(matches!(error, StoreError::LostShared { .. }), "{error}");
    assert!(matches!(driver.store.publish(&base), Err(StoreError::NotBegun(_))));
}

#[test]
fn when_the_last_sync_and_its_undoing_fail_then_the_outcome_is_called_unknown_and_files_stay() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let disk = Arc::new(FaultyDisk::new(LocalDisk, Arc::clone(&plan)));
    let mut driver = Driver::open(disk, dir.path(), 1).unwrap();
    let files = driver.store.begin(CheckpointId(1), None).unwrap();
    let written = driver.write_all(&files, 1, 1).unwrap();
    // `_metadata`, shared, the job's directory, the checkpoint's, and then the checkpoint's again.
    plan.fail_from(Operation::Sync, 5, libc::EIO);
    plan.fail_from(Operation::Unlink, 1, libc::EIO);
    let error = driver.store.publish(&describe(CheckpointId(1), written)).unwrap_err();
    assert!(matches!(error, StoreError::InDoubt { .. }), "{error}");
    plan.heal();
    driver.store.sweep().unwrap();
    assert_eq!(driver.store.retained(), [CheckpointId(1)]);
    assert_exact(driver.store.job_dir(), &"in doubt");
}

#[test]
fn when_a_savepoint_is_moved_then_it_is_still_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut driver = Driver::open(Arc::new(LocalDisk), &dir.path().join("checkpoints"), 1).unwrap();
    let target = dir.path().join("savepoints/mine");
    let random = driver.ids.make();
    let files = begin_savepoint(&LocalDisk, job(), CheckpointId(1), &target, random).unwrap();
    let name = files.dir().file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(&format!("savepoint-{}-", &job().to_string()[..6])) && name.len() == 29, "{name}");
    let written = driver.write_all(&files, 1, 1).unwrap();
    let savepoint = Metadata { kind: SnapshotKind::Savepoint, ..describe(CheckpointId(1), written) };
    publish_savepoint(&LocalDisk, &files, &savepoint).unwrap();
    let moved = dir.path().join("moved");
    fs::rename(files.dir(), &moved).unwrap();
    verify(&LocalDisk, &moved, Depth::Checksums).unwrap();
    dispose_savepoint(&LocalDisk, &moved.join(METADATA_NAME)).unwrap();
    assert!(!moved.exists());
    assert!(matches!(dispose_savepoint(&LocalDisk, &moved), Err(DisposeError::Unreadable(_))));

    let random = driver.ids.make();
    let files = begin_savepoint(&LocalDisk, job(), CheckpointId(2), &target, random).unwrap();
    let new = CheckpointFiles::of_checkpoint(driver.store.job_dir(), CheckpointId(2)).shared(driver.ids.make());
    let outside = vec![driver.write(&new).unwrap()];
    let error = publish_savepoint(&LocalDisk, &files, &describe(CheckpointId(2), outside)).unwrap_err();
    assert!(matches!(error, StoreError::BadMetadata { damage: Damage::Malformed { .. }, .. }), "{error}");
    assert!(!files.dir().exists());
}
