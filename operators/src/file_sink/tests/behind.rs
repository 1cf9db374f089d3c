//! What the file sink leaves to other threads: nothing relies on it before it is done.

use super::*;

/// A sink that is open, with what its lane is worked off with, and a disk with faults.
struct Rig {
    sink: FileSink,
    lanes: flume::Receiver<Lane>,
    plan: Arc<FaultPlan>,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let (dir, plan) = (tempfile::tempdir().unwrap(), FaultPlan::new());
        let (queue, lanes) = flume::unbounded();
        let disk = Arc::new(FaultyDisk::new(LocalDisk, plan.clone()));
        let mut sink = sink_with(dir.path(), disk, Workers::Queue(queue));
        sink.open(&sink_context(0, 1, false)).unwrap();
        Self { sink, lanes, plan, dir }
    }

    fn write(&mut self, number: u64) {
        self.sink.write(number, 0).unwrap();
        self.sink.flush().unwrap();
    }

    fn snapshot(&mut self, number: u64) -> (Vec<NamedState>, IsSafe) {
        held_snapshot::<SinkError>(number, |snapshot| self.sink.snapshot(snapshot)).unwrap()
    }

    fn work(&self) {
        self.lanes.try_iter().for_each(|lane| lane.work());
    }

    fn operations(&self) -> Vec<Operation> {
        self.plan.log().into_iter().map(|(operation, _)| operation).collect()
    }
}

#[test]
fn when_a_barrier_passes_then_its_checkpoint_waits_for_the_disk_and_the_sink_does_not() {
    use Operation::{Open, Rename, Sync, Write};
    let mut rig = Rig::new();
    rig.plan.start_log();
    rig.write(1);
    let (_, safe) = rig.snapshot(1);
    rig.write(2);
    assert_eq!((safe(), rig.operations()), (None, vec![Open, Write, Open]));
    rig.work();
    assert_eq!((safe(), rig.operations()), (Some(Ok(())), vec![Open, Write, Open, Sync, Rename, Sync]));

    // Its commit has to be durable before a checkpoint is that does not know of it.
    rig.plan.start_log();
    rig.sink.checkpoint_complete(CheckpointId(1)).unwrap();
    let (_, safe) = rig.snapshot(2);
    let (_, safe_without_records) = rig.snapshot(3);
    assert_eq!((safe(), safe_without_records(), rig.operations()), (None, None, vec![Write]));
    assert!(output(rig.dir.path()).0.is_empty());
    rig.work();
    assert_eq!((safe(), safe_without_records()), (Some(Ok(())), Some(Ok(()))));
    assert_eq!(rig.operations(), [Write, Rename, Sync, Sync, Rename, Sync]);
    assert_eq!(output(rig.dir.path()).0, [1]);
    // With nothing to wait for, nothing waits.
    assert_eq!(rig.snapshot(4).1(), Some(Ok(())));
}

#[test]
fn when_a_sync_fails_then_the_checkpoint_is_declined_and_the_next_call_fails_the_task() {
    let mut rig = Rig::new();
    rig.write(1);
    rig.plan.fail_nth(Operation::Sync, 1, 5);
    let (_, safe) = rig.snapshot(1);
    let (_, safe_later) = rig.snapshot(2);
    rig.work();
    for safe in [safe(), safe_later()] {
        let message = safe.unwrap().unwrap_err();
        assert!(message.contains("cannot make durable the file") && message.contains("the disk is sound"), "{message}");
    }
    let syncs = rig.plan.count(Operation::Sync);
    rig.sink.write(2, 0).unwrap();
    let error = rig.sink.flush().unwrap_err().to_string();
    assert!(error.contains("cannot make durable the file"), "{error}");
    held_snapshot::<SinkError>(3, |snapshot| rig.sink.snapshot(snapshot)).err().unwrap();
    drop(rig.sink);
    assert_eq!(rig.plan.count(Operation::Sync), syncs, "what failed to be synced is never synced again");
    assert!(output(rig.dir.path()).0.is_empty());
}

#[test]
fn when_a_commit_fails_then_no_later_checkpoint_is_safe() {
    let mut rig = Rig::new();
    rig.write(1);
    let (_, safe) = rig.snapshot(1);
    rig.work();
    assert_eq!(safe(), Some(Ok(())));
    rig.plan.fail_nth(Operation::Rename, 1, 5);
    rig.sink.checkpoint_complete(CheckpointId(1)).unwrap();
    let (_, safe) = rig.snapshot(2);
    rig.work();
    assert!(safe().unwrap().is_err());
    let error = rig.sink.settle().unwrap_err().to_string();
    assert!(error.contains("cannot commit the output file"), "{error}");
}

#[test]
fn when_the_last_checkpoint_is_complete_then_settling_waits_for_its_commit() {
    let mut rig = Rig::new();
    rig.write(1);
    rig.sink.finish().unwrap();
    let _ = rig.snapshot(1);
    rig.work();
    rig.sink.checkpoint_complete(CheckpointId(1)).unwrap();
    assert!(output(rig.dir.path()).0.is_empty());
    rig.sink.settle().unwrap();
    assert_eq!(output(rig.dir.path()), (vec![1], vec![]));
}

#[test]
fn when_a_sink_goes_with_work_left_then_it_commits_what_is_complete_and_drops_the_rest() {
    let mut rig = Rig::new();
    rig.write(1);
    let _ = rig.snapshot(1);
    rig.work();
    rig.sink.checkpoint_complete(CheckpointId(1)).unwrap();
    rig.write(2);
    let (_, safe) = rig.snapshot(2);
    rig.write(3);
    drop(rig.sink);
    assert_eq!(rig.lanes.try_iter().map(|lane| lane.is_idle().unwrap()).next(), Some(true));
    assert!(safe().unwrap().is_err(), "nobody makes that checkpoint safe any more");
    let (numbers, left) = output(rig.dir.path());
    assert_eq!((numbers, left.len()), (vec![1], 1), "{left:?}");
    let mut next = sink(rig.dir.path(), Arc::new(LocalDisk));
    next.open(&sink_context(0, 1, false)).unwrap();
    assert_eq!(output(rig.dir.path()), (vec![1], vec![]));
}

#[test]
fn when_the_disk_lags_behind_then_the_sink_holds_the_stream_back() {
    const MANY: u64 = 1_000_000;
    let mut rig = Rig::new();
    let line_count = (0..MANY).take_while(|n| {
        let ready = rig.sink.ready();
        if ready {
            rig.write(*n);
        }
        ready
    });
    assert!(line_count.count() < MANY as usize);
    rig.work();
    assert!(rig.sink.ready());
}

#[test]
fn when_a_file_grows_large_then_most_of_it_is_durable_before_the_barrier() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(LocalDisk, plan.clone()));
    let mut sink = two_phase(CommittedFiles::<String>::new(dir.path().to_owned(), Format::Ndjson, disk));
    sink.open(&sink_context(0, 1, false)).unwrap();
    let line = "x".repeat(64 << 10);
    let before = plan.count(Operation::Sync);
    while plan.count(Operation::Sync) == before {
        sink.write(line.as_str(), 0).unwrap();
        std::thread::sleep(Duration::from_micros(100));
    }
    // A failure there is told to whoever relies on the file.
    plan.fail_from(Operation::Sync, 1, 5);
    while plan.injected() == 0 {
        sink.write(line.as_str(), 0).unwrap();
        std::thread::sleep(Duration::from_micros(100));
    }
    plan.heal();
    let result = held_snapshot::<SinkError>(1, |snapshot| sink.snapshot(snapshot));
    let error = match result {
        Ok((_, safe)) => loop {
            match safe() {
                Some(safe) => break safe.unwrap_err(),
                None => std::thread::yield_now(),
            }
        },
        Err(error) => error.to_string(),
    };
    assert!(error.contains("cannot make durable the file"), "{error}");
}
