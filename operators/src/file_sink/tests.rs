//! Committed files, with crashes at every step.

use std::{collections::BTreeSet, fs, time::Duration};

use thalweg_io::checkpoint::{FaultPlan, FaultyDisk, NamedState, Operation};

use super::*;
use crate::{
    sink::Sink,
    testing::{IsSafe, checkpoint, held_snapshot, restored, sink_context, snapshot},
};

mod behind;

type FileSink = TwoPhase<u64, CommittedFiles<u64>>;

/// A sink whose own thread does what else others do beside it.
fn sink(dir: &Path, disk: Arc<dyn Disk>) -> FileSink {
    sink_with(dir, disk, Workers::Caller)
}

fn sink_with(dir: &Path, disk: Arc<dyn Disk>, workers: Workers) -> FileSink {
    let sink = CommittedFiles::new(dir.to_owned(), Format::Ndjson, disk);
    two_phase(CommittedFiles { workers, ..sink }).roll_bytes(ROLL_BYTES)
}

/// Two or three lines of the numbers below: several files in each transaction.
const ROLL_BYTES: u64 = 5;

/// When things are done that are not the slot's to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    /// As soon as they are asked for.
    AtOnce,
    /// After the next records have been written.
    Late,
    /// When the threads of the process come to it.
    Sometime,
}

const ALL_WAYS: [Beside; 3] = [Beside::AtOnce, Beside::Late, Beside::Sometime];

/// Numbers in committed files, sorted, and the names of what is not committed.
fn output(dir: &Path) -> (Vec<u64>, Vec<String>) {
    let (mut numbers, mut others) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("part-") && name.ends_with(".ndjson") {
            let text = fs::read_to_string(entry.path()).unwrap();
            assert!(!text.is_empty() && text.ends_with('\n'), "{name} is empty or cut");
            numbers.extend(text.lines().map(|line| line.parse::<u64>().unwrap()));
        } else {
            others.push(name);
        }
    }
    numbers.sort_unstable();
    (numbers, others)
}

/// How many committed files are not the first of their subtask and checkpoint.
fn rolled(dir: &Path) -> usize {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let committed: Vec<String> = names.filter(|name| name.starts_with("part-")).collect();
    // part-<subtask>-<checkpoint>-<run>-<number>.ndjson
    let transactions: BTreeSet<Vec<&str>> = committed.iter().map(|name| name.split('-').take(3).collect()).collect();
    committed.len() - transactions.len()
}

/// A checkpoint that was completed: its number, the position of the source, and the state of the sinks.
#[derive(Clone)]
struct Completed {
    number: u64,
    next: u64,
    states: Vec<Vec<NamedState>>,
}

const COUNT: u64 = 36;
const EPOCH: u64 = 12;

/// A checkpoint that was taken, of each sink its state and whether it is safe.
struct Taken {
    checkpoint: Completed,
    safe: Vec<IsSafe>,
}

/// Runs a job whose source makes `0..COUNT` from the latest checkpoint on, with a checkpoint after each epoch. `next_number`
/// is that of the next checkpoint.
fn attempt(
    dir: &Path,
    disk: &Arc<dyn Disk>,
    (parallelism, beside): (u32, Beside),
    latest: &mut Option<Completed>,
    next_number: &mut u64,
) -> Result<(), SinkError> {
    let (queue, lanes) = flume::unbounded();
    let workers = match beside {
        Beside::AtOnce => Workers::Caller,
        Beside::Late => Workers::Queue(queue),
        Beside::Sometime => Workers::of_process(),
    };
    let cut = latest.as_ref().map(|latest| checkpoint(latest.number, latest.states.clone()));
    let mut sinks: Vec<FileSink> = Vec::new();
    for subtask in 0..parallelism {
        let mut sink = sink_with(dir, disk.clone(), workers.clone());
        sink.open(&sink_context(subtask, parallelism, cut.is_some()))?;
        if let Some(cut) = &cut {
            sink.restore(&restored(cut, subtask, parallelism))?;
        }
        sinks.push(sink);
    }
    let mut next = latest.as_ref().map_or(0, |latest| latest.next);
    let mut taken: Option<Taken> = None;
    while next < COUNT || latest.as_ref().is_none_or(|latest| latest.next < COUNT) {
        let until = (next + EPOCH).min(COUNT);
        for n in next..until {
            let sink = &mut sinks[(n % u64::from(parallelism)) as usize];
            sink.write(n, i64::MIN)?;
            sink.flush()?;
            if n == next + EPOCH / 2
                && let Some(taken) = taken.take()
            {
                complete(taken, &mut sinks, &lanes, latest)?;
            }
        }
        next = until;
        if next == COUNT {
            sinks.iter_mut().try_for_each(|sink| sink.finish())?;
        }
        let number = *next_number;
        *next_number += 1;
        let (mut states, mut safe) = (Vec::new(), Vec::new());
        for sink in &mut sinks {
            let (state, is_safe) = held_snapshot(number, |snapshot| sink.snapshot(snapshot))?;
            states.push(state);
            safe.push(is_safe);
        }
        let now = Taken { checkpoint: Completed { number, next, states }, safe };
        if next < COUNT {
            taken = Some(now);
        } else {
            complete(now, &mut sinks, &lanes, latest)?;
        }
    }
    sinks.iter_mut().try_for_each(|sink| sink.settle())
}

/// Waits until a checkpoint is safe, and completes it: every second one comes to nothing instead, but for the last.
fn complete(
    taken: Taken,
    sinks: &mut [FileSink],
    lanes: &flume::Receiver<Lane>,
    latest: &mut Option<Completed>,
) -> Result<(), SinkError> {
    let Taken { checkpoint, safe } = taken;
    lanes.try_iter().for_each(|lane| lane.work());
    for safe in safe {
        let result = loop {
            match safe() {
                Some(result) => break result,
                None => std::thread::sleep(Duration::from_micros(50)),
            }
        };
        if result.is_err() {
            // It is declined, and the sink speaks up at its next call.
            return Ok(());
        }
    }
    let number = CheckpointId(checkpoint.number);
    if !checkpoint.number.is_multiple_of(2) || checkpoint.next == COUNT {
        *latest = Some(checkpoint);
        sinks.iter_mut().try_for_each(|sink| sink.checkpoint_complete(number))?;
    }
    Ok(())
}

#[test]
fn when_the_process_dies_at_any_step_then_every_record_is_committed_once() {
    for beside in ALL_WAYS {
        die_at_any_step(beside);
    }
}

fn die_at_any_step(beside: Beside) {
    let mut steps = 0;
    for step in 1.. {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a/out");
        let plan = FaultPlan::new();
        let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(LocalDisk, plan.clone()));
        plan.crash_at(step);
        let (mut latest, mut next_number) = (None, 1);
        let first = attempt(&out, &disk, (2, beside), &mut latest, &mut next_number);
        if plan.injected() == 0 {
            first.unwrap();
            steps = step - 1;
            break;
        }
        // It dies a second time soon, while it recovers or goes on.
        plan.heal();
        plan.crash_at(1 + step % 7);
        let _ = attempt(&out, &disk, ((step % 3) as u32 + 1, beside), &mut latest, &mut next_number);
        plan.heal();
        attempt(&out, &disk, ((step % 4) as u32 + 1, beside), &mut latest, &mut next_number).unwrap();
        let (numbers, others) = output(&out);
        assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>(), "{beside:?}, step {step}");
        assert!(rolled(&out) >= 8, "{beside:?}, step {step}: {} files too few were begun", 8 - rolled(&out));
        // With no checkpoint to start from, what is pending may belong to one that somebody keeps.
        assert!(others.iter().all(|name| name.ends_with(".pending")), "step {step}: {others:?}");
    }
    assert!(steps > 80, "only {steps} steps were cut");
}

#[test]
fn when_a_crash_is_recovered_from_a_checkpoint_then_nothing_is_left_over() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(LocalDisk, plan.clone()));
    let (mut latest, mut next_number) = (None, 1);
    // After the first checkpoint is complete, with files begun since.
    plan.crash_at(60);
    attempt(dir.path(), &disk, (4, Beside::AtOnce), &mut latest, &mut next_number).unwrap_err();
    assert!(latest.is_some());
    assert!(!output(dir.path()).1.is_empty());
    plan.heal();
    attempt(dir.path(), &disk, (3, Beside::AtOnce), &mut latest, &mut next_number).unwrap();
    assert_eq!(output(dir.path()), ((0..COUNT).collect(), Vec::new()));
}

#[test]
fn when_the_disk_is_full_then_the_error_says_so_and_the_restarted_job_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(LocalDisk, plan.clone()));
    plan.disk_full_after(70);
    let (mut latest, mut next_number) = (None, 1);
    let error = attempt(dir.path(), &disk, (2, Beside::AtOnce), &mut latest, &mut next_number).unwrap_err().to_string();
    assert!(error.contains("check that the disk has room"), "{error}");
    plan.heal();
    attempt(dir.path(), &disk, (2, Beside::AtOnce), &mut latest, &mut next_number).unwrap();
    assert_eq!(output(dir.path()).0, (0..COUNT).collect::<Vec<_>>());
}

#[test]
fn when_any_one_operation_fails_then_the_restarted_job_loses_nothing() {
    use Operation::{Open, Rename, Sync, Unlink, Write};
    let all = [Open, Write, Sync, Rename, Unlink].map(|operation| ALL_WAYS.map(|beside| (operation, beside)));
    for (operation, beside) in all.into_iter().flatten() {
        for nth in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let plan = FaultPlan::new();
            let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(LocalDisk, plan.clone()));
            plan.fail_nth(operation, nth, 5);
            let (mut latest, mut next_number) = (None, 1);
            for _ in 0..3 {
                if attempt(dir.path(), &disk, (2, beside), &mut latest, &mut next_number).is_ok() {
                    break;
                }
            }
            assert_eq!(output(dir.path()).0, (0..COUNT).collect::<Vec<_>>(), "{operation:?} {nth}, {beside:?}");
            if plan.injected() == 0 {
                break;
            }
        }
    }
}

#[test]
fn when_a_file_is_acknowledged_then_it_and_its_name_are_durable() {
    let dir = tempfile::tempdir().unwrap();
    let plan = FaultPlan::new();
    let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(LocalDisk, plan.clone()));
    let mut sink = sink(dir.path(), disk);
    sink.open(&sink_context(0, 1, false)).unwrap();
    plan.start_log();
    sink.write(1, 0).unwrap();
    snapshot(1, |snapshot| sink.snapshot(snapshot)).unwrap();
    let operations =
        |log: Vec<(Operation, PathBuf)>| log.into_iter().map(|(operation, _)| operation).collect::<Vec<_>>();
    use Operation::{Open, Rename, Sync, Write};
    assert_eq!(operations(plan.log()), [Open, Write, Sync, Rename, Sync]);
    assert!(output(dir.path()).0.is_empty());
    plan.start_log();
    sink.checkpoint_complete(CheckpointId(1)).unwrap();
    sink.checkpoint_complete(CheckpointId(1)).unwrap();
    assert_eq!(operations(plan.log()), [Rename, Sync]);
    assert_eq!(output(dir.path()), (vec![1], vec![]));
}

#[test]
fn when_sinks_share_a_directory_then_a_restart_of_one_spares_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let open = |operator_id: &str| {
        let mut sink = sink(dir.path(), Arc::new(LocalDisk));
        sink.open(&SinkContext { operator_id: operator_id.into(), ..sink_context(0, 1, false) }).unwrap();
        sink
    };
    let mut one = open("one");
    one.write(1, 0).unwrap();
    open("other");
    assert_eq!(output(dir.path()).1.len(), 1);
    // Not dropped in order: killed.
    std::mem::forget(one);
    open("one");
    assert_eq!(output(dir.path()).1.len(), 0);
}

#[test]
fn when_files_grow_beyond_what_they_may_then_others_are_begun_in_both_formats() {
    #[derive(Record, Serialize, Clone)]
    struct Row {
        id: u64,
        name: String,
    }
    for make in [committed_csv_files::<Row>, committed_ndjson_files::<Row>] {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = make(dir.path().to_owned()).roll_bytes(1_000);
        sink.open(&sink_context(0, 1, false)).unwrap();
        for id in 0..200 {
            sink.write(RowView { id, name: "a name of 23 characters" }, 0).unwrap();
            sink.flush().unwrap();
        }
        let (_, safe) = held_snapshot::<SinkError>(1, |snapshot| sink.snapshot(snapshot)).unwrap();
        while safe().is_none() {
            std::thread::yield_now();
        }
        sink.checkpoint_complete(CheckpointId(1)).unwrap();
        sink.settle().unwrap();
        let entries: Vec<_> = fs::read_dir(dir.path()).unwrap().map(Result::unwrap).collect();
        assert!((4..=12).contains(&entries.len()), "{} files", entries.len());
        for entry in &entries {
            let bytes = entry.metadata().unwrap().len();
            assert!(bytes <= 1_000 + 100, "{:?} has {bytes} bytes", entry.file_name());
        }
        let texts = entries.iter().map(|entry| fs::read_to_string(entry.path()).unwrap());
        let rows: usize = texts.map(|text| text.lines().filter(|line| !line.starts_with("id")).count()).sum();
        assert_eq!(rows, 200);
    }
}

#[test]
fn when_no_checkpoint_was_ever_complete_then_pending_files_go_where_that_is_known_and_stay_where_it_is_not() {
    // What is known of checkpoints, and whether files for the first one are then left alone.
    for (known, stays) in [(None, true), (Some(0), false), (Some(1), true), (Some(7), true)] {
        let dir = tempfile::tempdir().unwrap();
        let mut killed = sink(dir.path(), Arc::new(LocalDisk));
        killed.open(&sink_context(0, 1, false)).unwrap();
        for number in 0..9 {
            killed.write(number, 0).unwrap();
            killed.flush().unwrap();
        }
        snapshot(1, |snapshot| killed.snapshot(snapshot)).unwrap();
        // Killed, not dropped: the next is of another process.
        std::mem::forget(killed);
        let left = output(dir.path()).1;
        assert!(left.len() > 1 && left.iter().all(|name| name.ends_with(".pending")), "{left:?}");
        let known_checkpoint = known.map(CheckpointId);
        let mut next = sink(dir.path(), Arc::new(LocalDisk));
        next.open(&SinkContext { known_checkpoint, ..sink_context(0, 1, false) }).unwrap();
        assert_eq!(output(dir.path()).1.len(), if stays { left.len() } else { 0 }, "{known:?}");
    }
}

#[test]
fn when_a_job_is_cancelled_then_its_unfinished_files_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = sink(dir.path(), Arc::new(LocalDisk));
    sink.open(&sink_context(0, 1, false)).unwrap();
    for n in 0..100 {
        sink.write(n, 0).unwrap();
        sink.flush().unwrap();
    }
    assert!(!output(dir.path()).1.is_empty());
    drop(sink);
    assert_eq!(output(dir.path()), (vec![], vec![]));
}

#[test]
fn when_a_committed_file_was_moved_away_then_restoring_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = sink(dir.path(), Arc::new(LocalDisk));
    first.open(&sink_context(0, 1, false)).unwrap();
    first.write(1, 0).unwrap();
    let cut = checkpoint(1, vec![snapshot(1, |snapshot| first.snapshot(snapshot)).unwrap()]);
    first.checkpoint_complete(CheckpointId(1)).unwrap();
    let restore = |mut sink: FileSink| {
        sink.open(&sink_context(0, 1, true)).unwrap();
        sink.restore(&restored(&cut, 0, 1))
    };
    restore(sink(dir.path(), Arc::new(LocalDisk))).unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let error = restore(sink(dir.path(), Arc::new(LocalDisk))).unwrap_err().to_string();
    assert!(error.contains("but it is gone") && error.contains("allow_missing_files"), "{error}");
    restore(sink(dir.path(), Arc::new(LocalDisk)).allow_missing_files()).unwrap();
}

#[test]
fn when_no_checkpoints_are_taken_then_files_appear_at_the_end() {
    #[derive(Record, Serialize, Clone)]
    struct Row {
        id: u64,
        name: String,
    }
    let dir = tempfile::tempdir().unwrap();
    let mut sinks: Vec<_> = (0..3).map(|_| committed_csv_files::<Row>(dir.path())).collect();
    for (sink, subtask) in sinks.iter_mut().zip(0..) {
        sink.open(&SinkContext { checkpointing: false, ..sink_context(subtask, 3, false) }).unwrap();
    }
    let row = Row { id: 7, name: "a,b".into() };
    sinks[1].write(row.view(), 0).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    sinks.iter_mut().for_each(|sink| sink.finish().unwrap());
    let names: BTreeSet<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    // One file: subtasks without records have none.
    assert_eq!(names.len(), 1);
    assert_eq!(fs::read_to_string(names.first().unwrap()).unwrap(), "id,name\n7,\"a,b\"\n");
}
