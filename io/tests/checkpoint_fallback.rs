//! The writer where the system refuses io_uring, or locked memory. One test, since it changes limits of the process.

use thalweg_io::checkpoint::{
    Appended, BlockFile, Event, Fallback, FileId, LocalDisk, SlotWriter, StreamSpec, WriterConfig,
};
use thalweg_model::CheckpointId;

fn write_one(writer: &mut SlotWriter) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let spec = StreamSpec { path: path.clone(), file: FileId([1; 16]), checkpoint: CheckpointId(1), expected_bytes: 0 };
    let stream = writer.open(spec).unwrap();
    assert_eq!(writer.try_append(stream, &[3; 30_000]), Appended::All);
    writer.finish(stream);
    let mut events = Vec::new();
    while events.is_empty() {
        writer.poll_wait(&mut events);
    }
    let Event::Finished { written, .. } = &events[0] else { panic!("{events:?}") };
    BlockFile::open_written(&LocalDisk, &path, written).unwrap().verify().unwrap();
}

/// From now on this thread may not make rings.
fn forbid_rings() {
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    // Load the number of the system call; if it is io_uring_setup, fail with EPERM; else allow.
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its filter live through the call, which copies them.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program), 0);
    }
}

/// From now on this thread may lock no more than so much memory, whoever runs it.
fn limit_locking(bytes: u64) {
    #[repr(C)]
    struct Header(u32, i32);
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Sets {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    const VERSION_3: u32 = 0x2008_0522;
    const IPC_LOCK: u32 = 14;
    let (mut header, mut sets) = (Header(VERSION_3, 0), [Sets::default(); 2]);
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: header and sets have the layout of version 3 of the interface and live through the calls.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, &mut header, sets.as_mut_ptr()), 0);
        sets[0].effective &= !(1 << IPC_LOCK);
        assert_eq!(libc::syscall(libc::SYS_capset, &mut header, sets.as_ptr()), 0);
        assert_eq!(libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit), 0);
    }
}

#[test]
fn when_the_system_refuses_then_the_writer_does_without_and_says_what_to_do() {
    let usual = SlotWriter::new(WriterConfig::default()).unwrap();
    if let Some(fallback @ Fallback::HelperThread(_)) = usual.fallback() {
        return println!("there is no io_uring here anyway: {fallback}");
    }
    drop(usual);

    // Enough for the ring and not for the buffers; then not even for the ring, which newer kernels count too.
    for (bytes, words) in [(256 << 10, ["ulimit -l", "7168 KiB"]), (0, ["ulimit -l", ""])] {
        let locked = std::thread::spawn(move || {
            limit_locking(bytes);
            let mut writer = SlotWriter::new(WriterConfig::default()).unwrap();
            write_one(&mut writer);
            writer.fallback().map(ToString::to_string)
        });
        let said = locked.join().unwrap().expect("memory was locked all the same");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }

    let filtered = std::thread::spawn(|| {
        forbid_rings();
        let mut writer = SlotWriter::new(WriterConfig::default()).unwrap();
        write_one(&mut writer);
        writer.fallback().map(ToString::to_string)
    });
    let said = filtered.join().unwrap().expect("a ring was made all the same");
    assert!(said.contains("helper thread") && said.contains("seccomp"), "{said}");
}
