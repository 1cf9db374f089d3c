//! Configuration as a job meets it: where settings come from, which of them counts, what is refused and what is warned of.
//!
//! What is said on standard error, and what `THALWEG_CONF_DIR` does, is seen in processes of their own: this test binary,
//! started again with a command line in its environment.

use std::{
    cell::RefCell,
    fs,
    path::Path,
    process::{Command, Output},
    rc::Rc,
    time::Duration,
};

use thalweg::{
    NoArgs,
    entry::{CONF_DIR, main_with_args},
    model::{
        JobId,
        config::{
            CheckpointStorage, CheckpointingOptions, Configuration, MemoryOptions, RecoveryOptions, RestoreFrom, keys,
        },
    },
    prelude::*,
    runtime::{BufferTimeout, PhysicalPlan},
};

/// The command line that a child is to run, one argument a line.
const ARGS: &str = "THALWEG_TEST_ARGS";

/// What a job has been told.
#[derive(Clone)]
struct Seen {
    plan: PhysicalPlan,
    checkpointing: CheckpointingOptions,
    recovery: RecoveryOptions,
    memory: MemoryOptions,
}

fn job(env: &Environment) {
    env.generate(1_000, |n| n).key_by(|n| n % 7).reduce(|a, b| a + b).map(|n| n).sink(discard().0);
}

fn seen(env: &Environment) -> Result<Seen, thalweg::BuildError> {
    let plan = env.plan()?;
    let (mut checkpointing, mut recovery, mut memory) = Default::default();
    env.checkpoint_config(|options| checkpointing = options.clone());
    env.recovery(|options| recovery = options.clone());
    env.memory_options(|options| memory = options.clone());
    Ok(Seen { plan, checkpointing, recovery, memory })
}

/// Explains the job with these flags, as far as that goes, and answers the exit status and what the job has been told.
fn run(args: &[&str], program: impl FnOnce(&Environment)) -> (u8, Option<Seen>) {
    let kept: Rc<RefCell<Option<Environment>>> = Rc::default();
    let keep = kept.clone();
    let all = ["/bin/orders"].into_iter().chain(args.iter().copied()).chain(["--explain"]);
    let status = main_with_args(all, |env, _: NoArgs| {
        job(env);
        program(env);
        env.plan()?;
        keep.replace(Some(env.clone()));
        Ok(())
    });
    let env = kept.take();
    (status, env.map(|env| seen(&env).unwrap()))
}

fn told(args: &[&str]) -> Seen {
    told_with(args, |_| {})
}

fn told_with(args: &[&str], program: impl FnOnce(&Environment)) -> Seen {
    let (status, seen) = run(args, program);
    assert_eq!(status, 0, "{args:?}");
    seen.unwrap()
}

fn file(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn parallelism(seen: &Seen) -> u32 {
    seen.plan.tasks[0].parallelism
}

/// Does nothing unless this process is a child.
#[test]
fn when_started_as_a_child_then_the_job_runs() {
    let Ok(args) = std::env::var(ARGS) else { return };
    let status = main_with_args(["job"].into_iter().chain(args.lines()), |env, _: NoArgs| {
        job(env);
        Ok(())
    });
    std::process::exit(status.into());
}

/// Runs the job in a process of its own.
fn child(args: &[&str], directory: Option<&Path>) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "when_started_as_a_child_then_the_job_runs", "--nocapture"])
        .env(ARGS, args.join("\n"))
        .env_remove("RUST_LOG")
        .env_remove(CONF_DIR);
    if let Some(directory) = directory {
        command.env(CONF_DIR, directory);
    }
    command.output().unwrap()
}

/// What a child says on standard error; it ends with `status`.
fn says(args: &[&str], directory: Option<&Path>, status: i32) -> String {
    let output = child(args, directory);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{args:?}: {text}");
    text
}

/// Asserts that a child says one line about the error, and all of `parts` in it.
fn assert_fails(args: &[&str], directory: Option<&Path>, status: i32, parts: &[&str]) {
    let text = says(args, directory, status);
    let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{text}");
    for part in parts {
        assert!(errors[0].contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn when_layers_disagree_then_the_program_counts_most_then_flags_then_definitions_then_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "settings.yaml", "parallelism.default: 2\nexecution.checkpointing.timeout: 2 s");
    let of_file = ["--config", path.as_str()];
    let of_line = [&of_file[..], &["-D", "parallelism.default=3", "-Dexecution.checkpointing.timeout=3s"]].concat();
    let of_flag = [&of_line[..], &["-p", "4"]].concat();
    assert_eq!(parallelism(&told(&of_file)), 2);
    assert_eq!(parallelism(&told(&of_line)), 3);
    assert_eq!(parallelism(&told(&of_flag)), 4);
    let by_program = told_with(&of_flag, |env| {
        env.parallelism(5).checkpoint_config(|options| options.timeout = Duration::from_secs(5));
    });
    assert_eq!((parallelism(&by_program), by_program.checkpointing.timeout.as_secs()), (5, 5));
    let timeout = |args| told(args).checkpointing.timeout.as_secs();
    assert_eq!([timeout(&[]), timeout(&of_file), timeout(&of_line)], [600, 2, 3]);
    assert_eq!(timeout(&["-D", "execution.checkpointing.timeout=1", "-D", "execution.checkpointing.timeout=7s"]), 7);
}

#[test]
fn when_nothing_is_configured_then_there_is_a_subtask_per_core() {
    let cores = std::thread::available_parallelism().unwrap().get() as u32;
    assert_eq!(parallelism(&told(&[])), cores);
    assert_eq!(parallelism(&told(&["--cores", "0"])), 1);
    let configured = told(&["--cores", "0", "--oversubscribe", "-D", "parallelism.default=2"]);
    assert_eq!(parallelism(&configured), 2, "what is said counts more than what follows from the cores");
}

#[test]
fn when_a_file_sets_the_runtime_then_the_plan_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let text = "
parallelism.default: 2
pipeline:
  name: from the file
  max-parallelism: 64
  auto-watermark-interval: 50 ms
execution.buffer-timeout.interval: 7 ms
metrics.latency.interval: 2 s
taskmanager:
  numberOfTaskSlots: 3
  memory.segment-size: 4kb
  network.memory: {buffers-per-channel: 3, floating-buffers-per-gate: 5, max-buffers-per-channel: 9}
";
    let path = file(directory.path(), "settings.yaml", text);
    let Seen { plan, memory, .. } = told(&["--config", &path]);
    assert_eq!((plan.job_name.as_str(), plan.slots, plan.tasks.len()), ("from the file", 2, 2));
    assert!(plan.tasks.iter().flat_map(|task| &task.segments).all(|segment| segment.max_parallelism.get() == 64));
    assert!(plan.edges.iter().all(|edge| edge.buffer_timeout == BufferTimeout::Millis(7)));
    let config = &plan.config;
    assert_eq!((config.auto_watermark_interval_ms, config.latency_interval_ms), (50, 2_000));
    assert_eq!((config.page_bytes, config.exclusive_buffers_per_channel), (4096, 3));
    assert_eq!((config.floating_buffers_per_gate, config.max_buffers_per_channel), (5, 9));
    assert_eq!(memory.slots, Some(3));
    let never = told(&["-D", "execution.buffer-timeout.enabled=false"]);
    assert!(never.plan.edges.iter().all(|edge| edge.buffer_timeout == BufferTimeout::WhenFull));
}

#[test]
fn when_buffers_are_few_and_small_then_the_job_still_gives_its_results() {
    let (configuration, _) = Configuration::builder()
        .set(&keys::SEGMENT_SIZE, thalweg::model::config::MemorySize(256))
        .set(&keys::BUFFERS_PER_CHANNEL, 0)
        .set(&keys::FLOATING_BUFFERS_PER_GATE, 0)
        .set(&keys::MAX_BUFFERS_PER_CHANNEL, 1)
        .build()
        .unwrap();
    let env = Environment::new();
    env.parallelism(2).configure_runtime(|config| config.oversubscribe = true).configure(&configuration);
    let (sink, out) = collect();
    env.generate(10_000, |n| n).key_by(|n| n % 7).reduce(|a, b| a.max(b)).sink(sink);
    env.execute().unwrap();
    let rows = out.take();
    assert_eq!((rows.len(), rows.into_iter().max()), (10_000, Some(9_999)));
}

#[test]
fn when_chaining_is_switched_off_then_tasks_are_not_joined() {
    let tasks = |key: &str| {
        let (configuration, _) = Configuration::builder().define(&format!("{key}=false")).unwrap().build().unwrap();
        let env = Environment::new();
        env.parallelism(1).max_parallelism(16).configure(&configuration);
        env.generate(10, |n| n).max_parallelism(8).map(|n| n).max_parallelism(16).sink(discard().0);
        env.plan().unwrap().tasks.len()
    };
    assert_eq!(tasks("pipeline.object-reuse"), 1);
    assert_eq!(tasks("pipeline.operator-chaining.chain-operators-with-different-max-parallelism"), 2);
    assert_eq!(tasks("pipeline.operator-chaining"), 3);
}

#[test]
fn when_checkpoints_are_asked_for_by_flags_then_the_options_say_so() {
    let told = told(&[
        "--checkpoint-dir",
        "/data/checkpoints",
        "--checkpoint-interval",
        "250",
        "--savepoint-dir",
        "/data/savepoints",
        "-D",
        "execution.checkpointing.dir=/elsewhere",
    ]);
    let checkpointing = told.checkpointing;
    assert_eq!(checkpointing.interval, Some(Duration::from_millis(250)));
    assert_eq!(checkpointing.checkpoint_dir.as_deref(), Some("/data/checkpoints"));
    assert_eq!(checkpointing.savepoint_dir.as_deref(), Some("/data/savepoints"));
    let by_program = told_with(&["--checkpoint-interval", "250"], |env| {
        env.enable_checkpointing(Duration::from_secs(9));
    });
    assert_eq!(by_program.checkpointing.interval, Some(Duration::from_secs(9)));
    assert_eq!(told_with(&["--checkpoint-interval", "0"], |_| {}).checkpointing.interval, None);
}

#[test]
fn when_the_job_starts_from_somewhere_then_the_command_line_counts_most() {
    let path = |path: &str| Some(RestoreFrom::Path(path.to_owned()));
    let configured = told(&["-D", "execution.savepoint.path=/old"]).recovery;
    assert_eq!((configured.restore_from, configured.ignore_unclaimed_state), (path("/old"), false));
    let flags = ["--restore", "/new", "--allow-non-restored-state", "-D", "execution.state-recovery.path=/old"];
    let by_flags = told_with(&flags, |env| {
        env.recovery(|recovery| *recovery = RecoveryOptions::default());
    });
    assert_eq!((by_flags.recovery.restore_from, by_flags.recovery.ignore_unclaimed_state), (path("/new"), true));
    let latest = told(&["--restore", "latest", "--checkpoint-dir", "/data/checkpoints"]);
    assert_eq!(latest.recovery.restore_from, Some(RestoreFrom::Latest));
    assert_eq!(told(&[]).recovery, RecoveryOptions::default());
    assert_fails(&["--restore", "latest"], None, 2, &["execution.checkpointing.dir", "--checkpoint-dir"]);
}

#[test]
fn when_no_id_is_given_then_the_job_has_that_of_its_name() {
    let id = |args: &[&str]| told(args).plan.job_id;
    assert_eq!(id(&[]), JobId::from_name("orders").to_string());
    assert_eq!(id(&["--job-name", "invoices"]), JobId::from_name("invoices").to_string());
    assert_eq!(id(&["-D", "pipeline.name=invoices"]), JobId::from_name("invoices").to_string());
    let given = "0123456789abcdef0123456789ABCDEF";
    assert_eq!(id(&["--job-id", given]), given.to_lowercase());
    let by_program = told_with(&["--job-id", given], |env| {
        env.job_id(JobId([7; 16]));
    });
    assert_eq!(by_program.plan.job_id, given.to_lowercase());
}

#[test]
fn when_channels_need_more_than_the_network_memory_then_the_job_is_refused_with_keys_and_numbers() {
    // Two senders, each with two channels of two buffers and eight that they share.
    let needs = ["insufficient number of network buffers", "need 24", "taskmanager.memory.network.max"];
    for key in ["taskmanager.memory.network.max", "taskmanager.network.memory.max"] {
        let definition = format!("{key}=512kb");
        assert_fails(
            &["-p", "2", "--oversubscribe", "-D", &definition],
            None,
            2,
            &[&needs[..], &["524288", "16"]].concat(),
        );
    }
    let fraction = ["-D", "taskmanager.memory.network.fraction=0.25", "-D", "taskmanager.memory.network.min=1kb"];
    let total = |bytes: &str| format!("taskmanager.memory.process.size={bytes}");
    let status = |bytes: &str| run(&[&["-p", "2", "-D", &total(bytes)], &fraction[..]].concat(), |_| {}).0;
    assert_eq!([status("3 mb"), status("2 mb")], [0, 2], "a quarter holds 24 buffers of 32 kB, or not");
    assert_eq!(run(&["-p", "2", "-D", "taskmanager.memory.network.min=1mb"], |_| {}).0, 0);
    assert_fails(
        &["-D", "taskmanager.memory.network.min=2mb", "-D", "taskmanager.memory.network.max=1mb"],
        None,
        2,
        &["taskmanager.memory.network.min", "2097152", "taskmanager.memory.network.max", "1048576"],
    );
}

#[test]
fn when_the_process_has_too_few_slots_then_the_job_is_refused() {
    assert_fails(
        &["-p", "3", "--oversubscribe", "-D", "taskmanager.numberOfTaskSlots=2"],
        None,
        2,
        &["3 slots", "has 2", "taskmanager.numberOfTaskSlots"],
    );
}

#[test]
fn when_something_is_not_built_yet_then_the_job_is_refused() {
    let rocksdb = "state.backend.type: rocksdb is not available in this build; use hashmap";
    assert_fails(&["-D", "state.backend=rocksdb"], None, 2, &[rocksdb]);
    assert_fails(&["--checkpoint-dir", "s3://bucket/c"], None, 2, &["s3://bucket/c", "file:///data/checkpoints"]);
    let env = Environment::new();
    job(&env);
    env.checkpoint_storage(CheckpointStorage::Directory("hdfs://nn:8020/c".into()));
    assert!(env.plan().unwrap_err().to_string().contains("hdfs://nn:8020/c"));
    env.checkpoint_storage(CheckpointStorage::Directory("file:///c".into()));
    env.plan().unwrap();
}

#[test]
fn when_a_key_or_value_is_wrong_then_the_message_says_where_and_the_status_is_two() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(directory.path(), "settings.yaml", "parallelism:\n  defualt: 2\n");
    let place = format!("{path}:2: unknown key parallelism.defualt; did you mean parallelism.default?");
    assert_fails(&["--config", &path], None, 2, &[&place]);
    for (args, parts) in [
        (&["-D", "execution.checkpointing.intervall=1s"][..], &["did you mean execution.checkpointing.interval?"][..]),
        (&["-D", "parallelism.default=0"], &["-D on the command line", "parallelism.default", "from 1 to"]),
        (&["-D", "execution.checkpointing.mode=twice"], &["EXACTLY_ONCE AT_LEAST_ONCE"]),
        (&["-D", "taskmanager.memory.segment-size=100"], &["taskmanager.memory.segment-size", "a multiple of 64"]),
        (&["-D", "parallelism.default"], &["key=value"]),
        (&["--config", "no/such.yaml"], &["no/such.yaml", "No such file"]),
        (&["--job-id", "12"], &["--job-id", "32 hexadecimal digits"]),
        (&["--restore", ""], &["--restore"]),
        (&["--checkpoint-dir", ""], &["--checkpoint-dir"]),
        (&["--checkpoint-interval", "soon"], &["--checkpoint-interval"]),
    ] {
        assert_fails(args, None, 2, parts);
    }
}

#[test]
fn when_a_directory_is_named_then_its_yaml_counts_and_else_its_flat_file() {
    let directory = tempfile::tempdir().unwrap();
    let explained = |args: &[&str]| {
        let output = child(&[args, &["--explain"]].concat(), Some(directory.path()));
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_fails(&[], Some(directory.path()), 2, &[CONF_DIR, "config.yaml", "flink-conf.yaml"]);
    file(directory.path(), "flink-conf.yaml", "# old\nparallelism.default: 5 # five\npipeline.name: flat\n");
    let flat = explained(&[]);
    assert!(flat.contains("job flat:") && flat.contains("parallelism 5,"), "{flat}");
    file(directory.path(), "config.yaml", "parallelism:\n  default: 6\npipeline: {name: nested}\n");
    let nested = explained(&[]);
    assert!(nested.contains("job nested:") && nested.contains("parallelism 6,"), "{nested}");
    let other = file(directory.path(), "other.yaml", "pipeline.name: named\n");
    let named = explained(&["--config", &other]);
    assert!(named.contains("job named:") && !named.contains("parallelism 6,"), "{named}");
    let line = explained(&["-D", "parallelism.default=7"]);
    assert!(line.contains("job nested:") && line.contains("parallelism 7,"), "{line}");
}

#[test]
fn when_a_key_is_old_or_means_nothing_here_then_a_warning_names_it_and_the_job_runs() {
    let directory = tempfile::tempdir().unwrap();
    let text = "state.checkpoints.num-retained: 2\njobmanager.memory.heap.size: 1 gb\n";
    let path = file(directory.path(), "settings.yaml", text);
    let text = says(&["--config", &path, "-p", "1"], None, 0);
    let warnings: Vec<&str> = text.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 2, "{text}");
    assert!(!text.contains('\u{1b}'), "colours where nobody looks: {text:?}");
    let (old, new) = ("state.checkpoints.num-retained", "execution.checkpointing.num-retained");
    assert!(warnings.iter().any(|line| line.contains(&format!("{path}:1: {old} is now written {new}"))), "{text}");
    let ignored = format!("{path}:2: jobmanager.memory.heap.size has no effect here");
    assert!(warnings.iter().any(|line| line.contains(&ignored)), "{text}");
    let seen = told(&["--config", &path]);
    assert_eq!(seen.checkpointing.retained_count, 2);
}

#[test]
fn when_help_is_asked_for_then_configuration_is_explained_by_example() {
    let output = child(&["--help"], None);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    for part in
        ["--config <FILE>", "-D <KEY=VALUE>", CONF_DIR, "--restore <latest|PATH>", "Examples:", "--restore latest"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn when_state_outgrows_its_share_of_memory_then_the_task_fails_and_says_what_to_raise() {
    let env = Environment::new();
    env.parallelism(1).memory_options(|memory| memory.managed_size_bytes = Some(1 << 20));
    env.generate(u64::MAX, |n| n)
        .key_by(|n| n)
        .aggregate(Count, |key, count| (key, count))
        .name("Count all")
        .sink(discard().0);
    let error = env.execute().unwrap_err().to_string();
    assert!(error.contains("Count all") && error.contains("taskmanager.memory.managed.size"), "{error}");
}
