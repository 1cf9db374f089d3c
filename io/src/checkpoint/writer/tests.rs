//! The writer against disks that work, that are full, and that fail at the Nth operation.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use proptest::prelude::*;
use thalweg_model::CheckpointId;

use super::*;
use crate::{
    checkpoint::{
        BlockFile, BlockLayout, FaultPlan, FileId, FileIds, LocalDisk, Operation, Written, encode_block_file,
    },
    spare_cores::{self, SlotCores},
};

const ENGINES: [Engine; 2] = [Engine::Auto, Engine::Thread];

fn config(engine: Engine) -> WriterConfig {
    WriterConfig {
        block_bytes: 4096,
        max_streams: 2,
        max_writes_in_flight: 3,
        preallocate_bytes: 5000,
        engine,
        ..WriterConfig::default()
    }
}

fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn spec(path: PathBuf, file: u8) -> StreamSpec {
    StreamSpec { path, file: FileId([file; 16]), checkpoint: CheckpointId(9), expected_bytes: 0 }
}

/// Appends everything and polls until the stream has ended.
fn write(writer: &mut SlotWriter, spec: StreamSpec, bytes: &[u8]) -> Event {
    let mut events = Vec::new();
    let stream = writer.open(spec).unwrap();
    let mut rest = bytes;
    for turn in 0.. {
        assert!(turn < 1_000_000, "no progress");
        match writer.try_append(stream, rest) {
            Appended::Partial(taken) => rest = &rest[taken..],
            Appended::Full => {}
            Appended::All | Appended::Failed => break,
        }
        writer.poll_wait(&mut events);
    }
    writer.finish(stream);
    while events.is_empty() {
        writer.poll_wait(&mut events);
    }
    assert!(writer.is_idle() && events.len() == 1);
    assert_eq!(writer.shared.free.len(), writer.max_streams + writer.shared.max_writes_in_flight, "a buffer is lost");
    events.remove(0)
}

fn written(event: Event) -> Written {
    match event {
        Event::Finished { written, .. } => written,
        other => panic!("{other:?}"),
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn when_written_in_any_size_then_the_bytes_are_those_of_the_format() {
    let dir = tempfile::tempdir().unwrap();
    let layout = BlockLayout::new(4096).unwrap();
    for engine in ENGINES {
        let mut writer = SlotWriter::new(config(engine)).unwrap();
        for bytes in [0, 1, 3839, 3903, 3904, 3905, 3967, 3968, 3969, 7936, 8000, 8001, 50_000] {
            let path = dir.path().join(format!("{engine:?}-{bytes}"));
            let payload = payload(bytes);
            let written = written(write(&mut writer, spec(path.clone(), 3), &payload));
            let expected = encode_block_file(FileId([3; 16]), CheckpointId(9), layout, &payload);
            assert!(fs::read(&path).unwrap() == expected, "{engine:?} {bytes}");
            let mut file = BlockFile::open_written(&LocalDisk, &path, &written).unwrap();
            file.verify().unwrap();
            let mut read = vec![0; bytes];
            file.read_exact_at(0, &mut read).unwrap();
            assert!(read == payload);
        }
    }
}

#[test]
fn when_the_memory_file_system_is_used_then_files_are_the_same() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return println!("there is no /dev/shm") };
    for engine in ENGINES {
        let mut writer = SlotWriter::new(config(engine)).unwrap();
        let path = dir.path().join(format!("{engine:?}"));
        let written = written(write(&mut writer, spec(path.clone(), 1), &payload(20_000)));
        BlockFile::open_written(&LocalDisk, &path, &written).unwrap().verify().unwrap();
    }
}

/// Every operation of a file, made to fail: an event says so, the file is gone, no buffer is, and the next file works.
#[test]
fn when_any_operation_fails_then_the_file_is_given_up_and_the_writer_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let kinds = [Operation::Open, Operation::Write, Operation::Allocate, Operation::Truncate, Operation::Sync];
    for engine in ENGINES {
        let mut seen = BTreeMap::new();
        for kind in kinds {
            for nth in 1.. {
                let plan = FaultPlan::new();
                plan.fail_nth(kind, nth, libc::EIO);
                let config = WriterConfig { faults: Some(Arc::clone(&plan)), ..config(engine) };
                let mut writer = SlotWriter::new(config).unwrap();
                let mut spec_1 = spec(dir.path().join("file"), 1);
                // More was reserved than is needed, so that the file has to be cut.
                spec_1.expected_bytes = if kind == Operation::Truncate { 100_000 } else { 0 };
                let event = write(&mut writer, spec_1, &payload(30_000));
                if plan.injected() == 0 {
                    written(event);
                    fs::remove_file(dir.path().join("file")).unwrap();
                    break;
                }
                let Event::Failed { failure, left_behind: None, .. } = event else {
                    panic!("{kind:?} {nth} {event:?}")
                };
                assert_eq!(failure.source.raw_os_error(), Some(libc::EIO), "{kind:?} {nth}");
                assert_eq!(files(dir.path()), Vec::<PathBuf>::new(), "{kind:?} {nth}");
                let syncs = plan.count(Operation::Sync);
                assert!(syncs <= 1, "a failed sync was tried again");
                written(write(&mut writer, spec(dir.path().join("next"), 2), &payload(9000)));
                fs::remove_file(dir.path().join("next")).unwrap();
                *seen.entry(kind).or_insert(0) += 1;
            }
        }
        assert_eq!(seen.keys().copied().collect::<Vec<_>>(), {
            let mut kinds = kinds.to_vec();
            kinds.sort();
            kinds
        });
        assert!(seen[&Operation::Write] >= 8 && seen[&Operation::Allocate] >= 2, "{seen:?}");
    }
}

#[test]
fn when_the_disk_is_full_then_the_file_fails_and_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    for engine in ENGINES {
        for budget in [0, 4096, 10_000, 30_000] {
            let plan = FaultPlan::new();
            plan.disk_full_after(budget);
            let mut writer =
                SlotWriter::new(WriterConfig { faults: Some(Arc::clone(&plan)), ..config(engine) }).unwrap();
            let event = write(&mut writer, spec(dir.path().join("file"), 1), &payload(50_000));
            let Event::Failed { failure, left_behind: None, .. } = event else { panic!("{event:?}") };
            assert_eq!((failure.doing, failure.source.raw_os_error()), (Doing::Write, Some(libc::ENOSPC)));
            assert!(failure.to_string().contains("cannot write"), "{failure}");
            assert!(files(dir.path()).is_empty());
        }
    }
}

#[test]
fn when_the_failed_file_cannot_be_removed_then_the_event_says_so() {
    let dir = tempfile::tempdir().unwrap();
    for engine in ENGINES {
        let plan = FaultPlan::new();
        plan.fail_nth(Operation::Write, 2, libc::EIO);
        plan.fail_nth(Operation::Unlink, 1, libc::EROFS);
        let mut writer = SlotWriter::new(WriterConfig { faults: Some(plan), ..config(engine) }).unwrap();
        let path = dir.path().join("file");
        let event = write(&mut writer, spec(path.clone(), 1), &payload(50_000));
        assert!(matches!(event, Event::Failed { left_behind: Some(_), .. }), "{event:?}");
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn when_direct_writes_are_refused_then_the_page_cache_takes_them() {
    let dir = tempfile::tempdir().unwrap();
    for engine in ENGINES {
        for (kind, nth) in [(Operation::Open, 1), (Operation::Write, 1), (Operation::Write, 4)] {
            let plan = FaultPlan::new();
            plan.fail_nth(kind, nth, libc::EINVAL);
            let mut writer =
                SlotWriter::new(WriterConfig { faults: Some(Arc::clone(&plan)), ..config(engine) }).unwrap();
            let path = dir.path().join(format!("{engine:?}-{kind:?}-{nth}"));
            let written = written(write(&mut writer, spec(path.clone(), 1), &payload(30_000)));
            assert!(!writer.is_direct() && plan.injected() == 1);
            BlockFile::open_written(&LocalDisk, &path, &written).unwrap().verify().unwrap();
        }
    }
}

#[test]
fn when_a_write_is_short_or_interrupted_then_the_rest_follows() {
    let dir = tempfile::tempdir().unwrap();
    for engine in ENGINES {
        for block_bytes in [4096, 16384] {
            let plan = FaultPlan::new();
            plan.short_write(2);
            plan.fail_nth(Operation::Write, 4, libc::EINTR);
            let faults = Some(Arc::clone(&plan));
            let mut writer = SlotWriter::new(WriterConfig { faults, block_bytes, ..config(engine) }).unwrap();
            let path = dir.path().join(format!("{engine:?}-{block_bytes}"));
            let written = written(write(&mut writer, spec(path.clone(), 1), &payload(70_000)));
            assert_eq!(plan.injected(), 1);
            BlockFile::open_written(&LocalDisk, &path, &written).unwrap().verify().unwrap();
        }
    }
}

#[test]
fn when_the_file_system_cannot_reserve_then_it_is_written_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    for engine in ENGINES {
        let plan = FaultPlan::new();
        plan.fail_from(Operation::Allocate, 1, libc::EOPNOTSUPP);
        let mut writer = SlotWriter::new(WriterConfig { faults: Some(Arc::clone(&plan)), ..config(engine) }).unwrap();
        written(write(&mut writer, spec(dir.path().join(format!("{engine:?}")), 1), &payload(30_000)));
        assert_eq!(plan.count(Operation::Allocate), 1);
    }
}

#[test]
fn when_nothing_is_polled_then_appending_ends_at_the_buffers() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = SlotWriter::new(config(Engine::Auto)).unwrap();
    let stream = writer.open(spec(dir.path().join("file"), 1)).unwrap();
    // Five buffers of 4032 bytes, less the file header.
    assert_eq!(writer.try_append(stream, &[1; 100_000]), Appended::Partial(5 * 4032 - 64));
    assert_eq!(writer.try_append(stream, &[1; 10]), Appended::Full);
    assert_eq!(writer.try_append(stream, &[]), Appended::All);
    assert!(writer.room(stream).is_none());
    assert_eq!(writer.try_append(StreamId(77), &[1]), Appended::Failed);
    writer.open(spec(dir.path().join("other"), 2)).unwrap();
    let third = writer.open(spec(dir.path().join("third"), 2));
    assert!(matches!(third, Err(WriterError::Busy { limit: 2, .. })), "{third:?}");
}

#[test]
fn when_a_file_is_aborted_at_any_time_then_it_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    for engine in ENGINES {
        for polls in 0..6 {
            let mut writer = SlotWriter::new(config(engine)).unwrap();
            let stream = writer.open(spec(dir.path().join("file"), 1)).unwrap();
            let mut events = Vec::new();
            for _ in 0..polls {
                writer.try_append(stream, &[1; 5000]);
                writer.poll(&mut events);
            }
            writer.abort(stream);
            assert_eq!(writer.try_append(stream, &[1]), Appended::Failed);
            while events.is_empty() {
                writer.poll_wait(&mut events);
            }
            assert!(matches!(events[..], [Event::Aborted { left_behind: None, .. }]), "{events:?}");
            assert!(files(dir.path()).is_empty() && writer.is_idle());
        }
    }
}

#[test]
fn when_a_file_of_that_name_exists_then_it_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "mine").unwrap();
    for engine in ENGINES {
        let mut writer = SlotWriter::new(config(engine)).unwrap();
        let event = write(&mut writer, spec(path.clone(), 1), &payload(10_000));
        assert!(matches!(&event, Event::Failed { failure, .. } if failure.doing == Doing::Create), "{event:?}");
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}

#[test]
fn when_things_are_requested_then_they_are_done_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    for engine in ENGINES {
        let mut writer = SlotWriter::new(config(engine)).unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut all = |request| {
            let id = writer.request(request).unwrap();
            let mut events = Vec::new();
            while events.is_empty() {
                writer.poll_wait(&mut events);
            }
            match events.remove(0) {
                Event::Done { request, result } if request == id => result,
                other => panic!("{other:?}"),
            }
        };
        all(Request::MakeDir(at("dir"))).unwrap();
        fs::write(at("dir/a"), "a").unwrap();
        all(Request::Rename { from: at("dir/a"), to: at("dir/b") }).unwrap();
        all(Request::SyncDir(at("dir"))).unwrap();
        all(Request::Unlink(at("dir/b"))).unwrap();
        assert_eq!(all(Request::Unlink(at("dir/b"))).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(all(Request::SyncDir(at("none"))).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::remove_dir(at("dir")).unwrap();
    }
}

fn is_readable(fd: BorrowedFd<'_>, timeout_ms: i32) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry is passed, and it lives through the call.
    unsafe { libc::poll(&mut poll, 1, timeout_ms) == 1 }
}

#[test]
fn when_a_slot_sleeps_on_the_descriptor_then_completions_wake_it_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    for engine in ENGINES {
        let mut writer = SlotWriter::new(config(engine)).unwrap();
        let stream = writer.open(spec(dir.path().join(format!("{engine:?}")), 1)).unwrap();
        assert_eq!(writer.try_append(stream, &[1; 9000]), Appended::All);
        writer.finish(stream);
        let mut events = Vec::new();
        writer.poll(&mut events);
        for turn in 0.. {
            assert!(turn < 1000, "woken again and again");
            if !events.is_empty() {
                break;
            }
            assert!(is_readable(writer.completion_fd(), 10_000), "slept through a completion");
            writer.poll(&mut events);
        }
        for _ in 0..3 {
            writer.poll(&mut events);
        }
        assert!(!is_readable(writer.completion_fd(), 20), "an idle writer wakes its slot");
    }
}

#[test]
fn when_dropped_with_writes_in_flight_then_nothing_is_freed_too_early() {
    let dir = tempfile::tempdir().unwrap();
    for engine in ENGINES {
        for round in 0..20 {
            let mut writer = SlotWriter::new(config(engine)).unwrap();
            let stream = writer.open(spec(dir.path().join(format!("{engine:?}-{round}")), 1)).unwrap();
            let mut events = Vec::new();
            for _ in 0..round {
                writer.try_append(stream, &[1; 10_000]);
                writer.poll(&mut events);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Streams side by side, fed in pieces of any size by copy or in place, are read back as they were written.
    #[test]
    fn when_streams_are_interleaved_then_each_reads_back(
        thread in any::<bool>(),
        blocks in 1usize..4,
        pieces in prop::collection::vec((0usize..3, 0usize..9000, any::<bool>()), 0..60),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let engine = if thread { Engine::Thread } else { Engine::Auto };
        let config = WriterConfig { block_bytes: 4096 * blocks, max_streams: 3, ..config(engine) };
        let mut writer = SlotWriter::new(config).unwrap();
        let (mut ids, mut events) = (FileIds::seeded(1), Vec::new());
        let streams: Vec<(StreamId, PathBuf, FileId)> = (0..3).map(|at| {
            let (path, file) = (dir.path().join(at.to_string()), ids.make());
            let spec = StreamSpec { path: path.clone(), file, checkpoint: CheckpointId(1), expected_bytes: 10_000 };
            (writer.open(spec).unwrap(), path, file)
        }).collect();
        let mut expected = vec![Vec::new(); 3];
        for (to, bytes, in_place) in pieces {
            let start = expected[to].len();
            expected[to].extend((start..start + bytes).map(|at| (at * 31 + to) as u8));
            let mut rest = &expected[to][start..];
            while !rest.is_empty() {
                let taken = if in_place {
                    let Some(room) = writer.room(streams[to].0) else { writer.poll_wait(&mut events); continue };
                    let taken = room.len().min(rest.len());
                    room[..taken].copy_from_slice(&rest[..taken]);
                    writer.commit(streams[to].0, taken);
                    taken
                } else {
                    match writer.try_append(streams[to].0, rest) {
                        Appended::All => rest.len(),
                        Appended::Partial(taken) => taken,
                        Appended::Full => { writer.poll_wait(&mut events); 0 }
                        Appended::Failed => panic!("failed: {events:?}"),
                    }
                };
                rest = &rest[taken..];
            }
        }
        for (stream, ..) in &streams {
            writer.finish(*stream);
        }
        while events.len() < 3 {
            writer.poll_wait(&mut events);
        }
        prop_assert!(writer.is_idle());
        for (at, (stream, path, file)) in streams.iter().enumerate() {
            let of = |event: &Event| match event {
                Event::Finished { stream: finished, written } if finished == stream => Some(*written),
                _ => None,
            };
            let written = events.iter().find_map(of).unwrap();
            prop_assert_eq!(written.file, *file);
            let mut open = BlockFile::open_written(&LocalDisk, path, &written).unwrap();
            open.verify().unwrap();
            let mut read = vec![0; expected[at].len()];
            open.read_exact_at(0, &mut read).unwrap();
            prop_assert!(read == expected[at]);
        }
    }
}

/// A direct write holds up whoever is on the core, and that must not be the slot.
#[test]
fn when_a_slot_is_pinned_then_the_kernel_writes_on_other_cores() {
    let available = spare_cores::of_thread();
    let [own, rest @ ..] = &available[..] else { unreachable!("a thread runs somewhere") };
    if rest.is_empty() {
        return println!("there is one core only");
    }
    let _held = SlotCores::hold(&available, vec![*own]);
    let dir = tempfile::tempdir().unwrap();
    let cores_of_workers = std::thread::scope(|scope| {
        let slot = scope.spawn(|| {
            spare_cores::run_on(&[*own]);
            let mut writer = SlotWriter::new(config(Engine::Auto)).unwrap();
            if let Some(Fallback::HelperThread(error)) = writer.fallback() {
                println!("no io_uring here: {error}");
                return Vec::new();
            }
            written(write(&mut writer, spec(dir.path().join("file"), 1), &payload(50_000)));
            // The kernel's threads are called after the one whose they are, and stay for a few seconds.
            // SAFETY: a plain system call.
            let name = format!("iou-wrk-{}", unsafe { libc::gettid() });
            let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
            let of_slot =
                tasks.filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name));
            let ids = of_slot.map(|task| task.file_name().unwrap().to_str().unwrap().parse().unwrap());
            ids.map(spare_cores::of_task).collect()
        });
        slot.join().unwrap()
    });
    for cores in cores_of_workers {
        assert!(!cores.is_empty() && !cores.contains(own), "{cores:?} with a slot on {own}");
    }
}
