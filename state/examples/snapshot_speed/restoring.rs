//! The sweep alone, and restoring what it wrote: beside copying the same bytes, and reading them from a file.

use std::{
    fs::File,
    io::Write,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use thalweg_state::{ImageIndex, Progress, Restorer, SnapshotKind, Snapshots, snapshot_to_vec};

use crate::{beside::Forget, clock::busy, shapes::Shape, shapes::config};

const ROUNDS: usize = 5;
/// Bytes that are read from a file at once.
const READ_BYTES: usize = 4 << 20;

pub fn measure<S: Shape>(mut table: S::Table, file: Option<&str>) {
    table.abort_snapshot();
    let len = S::len(&table);
    let sweep = median(|| {
        let mut sink = Forget::new();
        table.begin_snapshot(SnapshotKind::Full).unwrap();
        let start = busy();
        while table.snapshot_step(1 << 20, &mut sink) != Progress::Done {}
        busy() - start
    });
    let image = snapshot_to_vec(&mut table, SnapshotKind::Full).unwrap();
    drop(table);
    let per_gib = |time: Duration| time.as_secs_f64() / (image.len() as f64 / (1u64 << 30) as f64);
    let index = ImageIndex::of(&image).unwrap();
    let mut memory_bytes = 0;
    let restore = median(|| {
        let start = busy();
        let mut restorer = Restorer::<S::Table>::new(config(), vec![index.clone()]).unwrap();
        while let Some((_, extent)) = restorer.wanted() {
            let begin = extent.offset as usize;
            restorer.give(&image[begin..begin + extent.bytes as usize]).unwrap();
        }
        let restored = restorer.finish().unwrap();
        let took = busy() - start;
        assert_eq!(S::len(&restored), len);
        memory_bytes = S::memory_bytes(&restored);
        took
    });
    let copy = median(|| {
        let start = busy();
        let copy = std::hint::black_box(image.to_vec());
        let took = busy() - start;
        drop(copy);
        took
    });
    println!(
        "  alone: image of {} MiB, sweep {:.2} s/GiB, restore {:.2} s/GiB to {} MiB, copy {:.2} s/GiB{}",
        image.len() >> 20,
        per_gib(sweep),
        per_gib(restore),
        memory_bytes >> 20,
        per_gib(copy),
        file.map_or(String::new(), |path| format!(", read from the file {:.2} s/GiB", per_gib(read(path, &image)))),
    );
}

fn median(mut run: impl FnMut() -> Duration) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS).map(|_| run()).collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

/// Writes the image to a file, and answers how long reading it takes past the page cache, by the wall.
fn read(path: &str, image: &[u8]) -> Duration {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = File::create(path).unwrap();
    file.write_all(image).unwrap();
    file.sync_all().unwrap();
    let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    let mut room = vec![1u8; READ_BYTES + 4096];
    let skip = room.as_ptr().align_offset(4096);
    let room = &mut room[skip..skip + READ_BYTES];
    let took = median(|| {
        let (start, mut at) = (Instant::now(), 0);
        while at < image.len() {
            // SAFETY: the room is as long as is said, and aligned as the file wants it.
            let read = unsafe { libc::pread(file.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), at as i64) };
            assert!(read > 0, "{}", std::io::Error::last_os_error());
            at += read as usize;
        }
        start.elapsed()
    });
    std::fs::remove_file(path).unwrap();
    took
}
