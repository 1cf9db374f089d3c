//! What a user gets to see when something is wrong: one line that says what, and an exit status.
//!
//! Jobs run as processes of their own: this test binary, started again with a job's name in its environment.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde::Deserialize;
use thalweg::{clap, entry::main_with_args, model::metrics::MetricValue, prelude::*};

/// Names the job that a child is to run.
const JOB: &str = "THALWEG_TEST_JOB";
/// Its command line, one argument a line.
const ARGS: &str = "THALWEG_TEST_ARGS";

#[derive(Record, Deserialize, Clone, Debug)]
struct Reading {
    sensor: String,
    value: u32,
}

/// Flags of the jobs.
#[derive(clap::Args)]
struct JobArgs {
    #[arg(long)]
    input: Option<String>,
    #[arg(long)]
    output: Option<String>,
}

fn build(job: &str, env: &Environment, args: JobArgs) -> thalweg::entry::BuildResult {
    let input = args.input.into_iter();
    match job {
        "csv" => {
            let files = FileSource::new(CsvFormat::<Reading>::new(CsvOptions::default()), input);
            env.from_files(files)?.sink(discard().0);
        }
        "ndjson" => {
            let files = FileSource::new(NdjsonFormat::<Reading>::default(), input);
            env.from_files(files)?.sink(discard().0);
        }
        "count" => match args.output {
            Some(output) => drop(env.generate(10, |n| n).sink(ndjson_file(output))),
            None => drop(env.generate(10, |n| n).sink(discard().0)),
        },
        "panic" => drop(
            env.generate(1_000, |n| n)
                .rebalance()
                .map(|n| if n == 500 { panic!("no halves of {n}") } else { n / 2 })
                .name("Halve")
                .sink(discard().0),
        ),
        "print" => drop(env.generate(u64::MAX, |n| n).sink(print())),
        "endless" => drop(env.generate(u64::MAX, |n| n).rebalance().sink(discard().0)),
        other => return Err(format!("no job {other:?}").into()),
    }
    Ok(())
}

/// Does nothing unless this process is a child.
#[test]
fn when_started_as_a_child_then_the_job_runs() {
    let Ok(job) = std::env::var(JOB) else { return };
    let args = std::env::var(ARGS).unwrap();
    let status = main_with_args(["job"].into_iter().chain(args.lines()), |env, args| build(&job, env, args));
    std::process::exit(status.into());
}

fn command(job: &str, args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "when_started_as_a_child_then_the_job_runs", "--nocapture"])
        .env(JOB, job)
        .env(ARGS, args.join("\n"))
        .env_remove("RUST_BACKTRACE")
        .env_remove("RUST_LOG");
    command
}

/// Asserts that a child says one line about the error, and all of `parts` in it.
fn assert_error(output: &Output, status: i32, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{text}");
    for part in parts {
        assert!(errors[0].contains(part), "{part:?} is not in {text}");
    }
    assert_eq!(output.status.code(), Some(status), "{text}");
}

fn assert_fails(job: &str, args: &[&str], parts: &[&str]) {
    assert_error(&command(job, args).output().unwrap(), 1, parts);
}

fn file(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const BAD_CSV: &str = "sensor,value\na,1\nb,many\nc,3\nd,-4\n";
const BAD_NDJSON: &str = "{\"sensor\":\"a\",\"value\":1}\n{\"sensor\":\"b\",\"value\":\"many\"}\n{\"sensor\":\"c\"\n";

#[test]
fn when_nothing_is_wrong_then_nothing_is_said_to_be() {
    let output = command("count", &["-p", "2", "--oversubscribe"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.starts_with("job: 10 records in ") && text.lines().count() == 1, "{text}");
}

#[test]
fn when_a_line_is_bad_then_the_error_names_file_line_and_column() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "bad.csv", BAD_CSV);
    assert_fails("csv", &["-p", "1", "--input", &path], &["Source: Files", &format!("{path}:3:3: "), "\"value\""]);
    let path = file(directory.path(), "bad.ndjson", BAD_NDJSON);
    assert_fails("ndjson", &["-p", "1", "--input", &path], &["Source: Files", &format!("{path}:2:28: "), "u32"]);
}

#[test]
fn when_bad_lines_are_to_be_skipped_then_they_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let csv = CsvOptions { on_bad_record: OnBadRecord::Skip, ..CsvOptions::default() };
    let path = file(directory.path(), "bad.csv", BAD_CSV);
    for split_bytes in [5, u64::MAX] {
        let env = Environment::new();
        env.parallelism(2).configure_runtime(|config| config.oversubscribe = true);
        let (sink, out) = collect();
        let files = FileSource::new(CsvFormat::<Reading>::new(csv.clone()), [&path]).split_bytes(split_bytes);
        env.from_files(files).unwrap().sink(sink);
        env.execute().unwrap();
        let mut read: Vec<(String, u32)> = out.take().into_iter().map(|row| (row.sensor, row.value)).collect();
        read.sort();
        assert_eq!(read, [("a".to_owned(), 1), ("c".to_owned(), 3)]);
        let mut skipped = 0;
        env.metrics().visit(0, |sample| {
            if let ("numRecordsInErrors", MetricValue::Counter(count)) = (sample.name, &sample.value) {
                skipped += count;
            }
        });
        assert_eq!(skipped, 2);
    }
}

#[test]
fn when_a_file_is_missing_then_the_error_names_it() {
    assert_fails("csv", &["--input", "no/such.csv"], &["there is no file no/such.csv"]);
}

#[test]
fn when_the_output_cannot_be_written_then_the_error_names_it() {
    assert_fails("count", &["-p", "1", "--output", "/no/such/folder/rows"], &["cannot create /no/such/folder/rows"]);
}

#[test]
fn when_a_flag_is_wrong_then_the_error_names_it_and_the_status_is_two() {
    for (args, part) in [
        (&["--parallelsm", "2"][..], "--parallelsm"),
        (&["-p", "0"], "--parallelism"),
        (&["--cores", "0,zwei"], "\"zwei\" is neither a core nor a range"),
        (&["--cores", "3-1"], "write 1-3"),
        (&["--metrics-port", "65536"], "--metrics-port"),
    ] {
        assert_error(&command("count", args).output().unwrap(), 2, &[part]);
    }
}

/// A core that this process may use.
fn first_core() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    list.split([',', '-']).next().unwrap().to_owned()
}

#[test]
fn when_a_core_is_not_there_then_the_error_names_it_and_those_that_are() {
    let output = command("count", &["-p", "1", "--cores", "4095"]).output().unwrap();
    assert_error(&output, 2, &["core 4095", "it may use", &first_core()]);
}

#[test]
fn when_there_are_fewer_cores_than_slots_then_the_error_names_the_flag() {
    let output = command("count", &["-p", "2", "--cores", &first_core()]).output().unwrap();
    assert_error(&output, 2, &["2 slots", "1 core", "--oversubscribe"]);
}

#[test]
fn when_the_port_is_in_use_then_the_error_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    assert_fails("count", &["--metrics-port", &port], &[&port, "in use", "--metrics-port"]);
}

#[test]
fn when_a_user_function_panics_then_the_error_names_operator_and_subtask() {
    assert_fails("panic", &["-p", "2", "--oversubscribe"], &["Halve", "subtask 1/2", "panicked: no halves of 500"]);
}

/// What a server of metrics shows.
fn metrics(address: &str) -> String {
    let mut page = String::new();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    stream.read_to_string(&mut page).unwrap();
    page
}

#[test]
fn when_a_running_job_is_interrupted_then_it_is_cancelled_and_says_so() {
    let mut command = command("endless", &["-p", "2", "--oversubscribe", "--metrics-port", "0"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("metrics: http://").unwrap_or_else(|| panic!("{line}"));
    let address = address.split('/').next().unwrap();
    // Its tasks have metrics once they are being set up, which is after signals are taken care of.
    while !metrics(address).contains("numRecordsIn") {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // SAFETY: a plain system call; the child has not been waited for, so its number is its own.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) }, 0);
    let mut rest = String::new();
    errors.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert_eq!(rest.lines().filter(|line| line.starts_with("error: ") && line.contains("cancel")).count(), 1, "{rest}");
}

/// How a job ends that counts to ten with a limit of the system set as low as this.
macro_rules! limited {
    ($resource:expr, $limit:expr) => {{
        let mut command = command("count", &["-p", "2", "--oversubscribe"]);
        let limit = libc::rlimit { rlim_cur: $limit, rlim_max: $limit };
        // SAFETY: setrlimit is a plain system call, which may be made between fork and exec.
        unsafe {
            command.pre_exec(move || match libc::setrlimit($resource, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        command.output().unwrap()
    }};
}

#[test]
fn when_memlock_is_too_low_then_the_error_says_ulimit() {
    assert_error(&limited!(libc::RLIMIT_MEMLOCK, 64 << 10), 1, &["locked memory", "ulimit -l"]);
}

#[test]
fn when_too_few_files_may_be_open_then_the_error_says_which_limit_to_raise() {
    assert_error(&limited!(libc::RLIMIT_NOFILE, 12), 1, &["open files", "ulimit -n"]);
}

#[test]
fn when_the_reader_of_the_output_goes_away_then_the_job_ends_quietly() {
    let mut command = command("print", &["-p", "2", "--oversubscribe"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The first lines are the test harness's.
    assert!(lines.any(|line| line.unwrap().contains("> ")));
    drop(lines);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*text), (Some(0), ""));
}

/// Lets the calling thread, and what it executes, live on a kernel without io_uring.
fn without_io_uring() -> std::io::Result<()> {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut filter = [
        // The number of the system call, the first word of what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, libc::SYS_io_uring_setup as u32)
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: plain system calls; the filter outlives them, the kernel copies it.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1_u64, 0_u64, 0_u64, 0_u64) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, u64::from(libc::SECCOMP_MODE_FILTER), &raw const program) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[test]
fn when_the_kernel_has_no_io_uring_then_the_error_says_what_to_use() {
    let mut command = command("count", &["-p", "1"]);
    // SAFETY: two plain system calls between fork and exec, no allocation.
    unsafe { command.pre_exec(without_io_uring) };
    assert_error(&command.output().unwrap(), 1, &["io_uring is not usable here", "Linux 5.8", "seccomp"]);
}
