//! Configuration as a user meets it: layers, spellings, messages, and what comes out for the engine.

use std::time::Duration;

use thalweg_model::config::{
    CheckpointRetention, CheckpointStorage, CheckpointingMode, CheckpointingOptions, ClaimMode, ConfigError,
    Configuration, EngineOptions, ExponentialDelay, FailureRate, FixedDelay, MemoryOptions, RecoveryOptions,
    RestartStrategyOptions, RestoreFrom, StateBackend, StateOptions, Warning, keys,
};

fn yaml(text: &str) -> Result<(Configuration, Vec<Warning>), ConfigError> {
    Configuration::builder().yaml("config.yaml", text)?.build()
}

fn good(text: &str) -> Configuration {
    yaml(text).unwrap().0
}

fn message(text: &str) -> String {
    yaml(text).unwrap_err().to_string()
}

const FULL: &str = "
# as a user would write it
parallelism:
  default: 4
pipeline.max-parallelism: 256
execution:
  buffer-timeout.interval: 5 ms
  checkpointing:
    interval: 1 s
    mode: at-least-once
    min-pause: PT0.5S
    unaligned:
      enabled: true
    num-retained: 3
    externalized-checkpoint-retention: RETAIN_ON_CANCELLATION
    dir: 'file:///tmp/checkpoints'
taskmanager:
  numberOfTaskSlots: 2
  memory:
    segment-size: 16kb
    network: {fraction: 0.2, min: 1 mb, max: 2 mb}
    managed.size: 1 gb
restart-strategy:
  type: failure-rate
  failure-rate.max-failures-per-interval: 5
";

#[test]
fn when_nothing_is_set_then_defaults_are_flinks_and_agree_with_the_options() {
    let config = good("");
    assert_eq!(CheckpointingOptions::from(&config), CheckpointingOptions::default());
    assert_eq!(RestartStrategyOptions::from(&config), RestartStrategyOptions::None);
    let with = |strategy| good(&format!("restart-strategy.type: {strategy}"));
    let of = |strategy| RestartStrategyOptions::from(&with(strategy));
    assert_eq!(of("fixed-delay"), RestartStrategyOptions::FixedDelay(FixedDelay::default()));
    assert_eq!(of("failure-rate"), RestartStrategyOptions::FailureRate(FailureRate::default()));
    assert_eq!(of("exponential-delay"), RestartStrategyOptions::ExponentialDelay(ExponentialDelay::default()));
    let checkpointed = good("execution.checkpointing.interval: 1 s");
    assert_eq!(RestartStrategyOptions::from(&checkpointed), RestartStrategyOptions::default_for(true));
    assert_eq!(EngineOptions::from(&config), EngineOptions::default());
    assert_eq!(StateOptions::resolve(&config, None).unwrap().storage, CheckpointStorage::Memory);
    assert_eq!(RecoveryOptions::from(&config), RecoveryOptions::default());
}

#[test]
fn when_keys_are_nested_or_dotted_then_both_are_read() {
    let (config, warnings) = yaml(FULL).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let checkpointing = CheckpointingOptions::from(&config);
    assert_eq!(checkpointing.interval, Some(Duration::from_secs(1)));
    assert_eq!(checkpointing.mode, CheckpointingMode::AtLeastOnce);
    assert_eq!(checkpointing.min_pause, Duration::from_millis(500));
    assert_eq!(checkpointing.retention, CheckpointRetention::RetainOnCancellation);
    assert_eq!((checkpointing.unaligned, checkpointing.retained_count), (true, 3));
    let engine = EngineOptions::from(&config);
    assert_eq!((engine.parallelism, engine.max_parallelism), (Some(4), Some(Some(256))));
    let memory = MemoryOptions::from(&config);
    assert_eq!((memory.slots, engine.segment_bytes), (Some(2), Some(16 << 10)));
    assert_eq!(memory.managed_bytes(0), 1 << 30);
    assert_eq!([memory.network_bytes(0), memory.network_bytes(8 << 20)], [1 << 20, 1677721]);
    assert_eq!(memory.network_bytes(1 << 40), 2 << 20);
    match RestartStrategyOptions::from(&config) {
        RestartStrategyOptions::FailureRate(rate) => assert_eq!(rate.max_failures_per_interval, 5),
        other => panic!("{other:?}"),
    }
}

#[test]
fn when_layers_disagree_then_the_program_wins_over_the_command_line_over_files() {
    let build = |program: bool, line: bool| {
        let mut builder = Configuration::builder();
        if program {
            builder = builder.set(&keys::CHECKPOINTING_TIMEOUT, Duration::from_secs(3));
        }
        if line {
            builder = builder.define("execution.checkpointing.timeout=2 s").unwrap();
        }
        builder.yaml("config.yaml", "execution.checkpointing.timeout: 1 s").unwrap().build().unwrap().0
    };
    let timeout = |config: &Configuration| config.value(&keys::CHECKPOINTING_TIMEOUT).as_secs();
    assert_eq!([timeout(&build(false, false)), timeout(&build(false, true)), timeout(&build(true, true))], [1, 2, 3]);
    let source = |config: &Configuration| config.source(&keys::CHECKPOINTING_TIMEOUT).unwrap().to_string();
    assert_eq!(source(&build(false, false)), "config.yaml:1");
    assert_eq!(source(&build(false, true)), "-D on the command line");
    assert_eq!(build(true, true).settings().count(), 1);
    assert_eq!(Configuration::default().explicit(&keys::CHECKPOINTING_TIMEOUT), None);
}

#[test]
fn when_a_spelling_is_older_then_it_works_with_a_note_and_the_current_one_takes_precedence() {
    let (config, warnings) = yaml("state.checkpoints.dir: /a\nrestart-strategy: none").unwrap();
    assert_eq!(config.get(&keys::CHECKPOINT_DIR).as_deref(), Some("/a"));
    let notes: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "config.yaml:1: state.checkpoints.dir is now written execution.checkpointing.dir",
            "config.yaml:2: restart-strategy is now written restart-strategy.type"
        ]
    );
    for text in [
        "state.checkpoints.dir: /old\nexecution.checkpointing.dir: /new\nstate.backend.fs.checkpointdir: /oldest",
        "execution.checkpointing.dir: /new\nstate.backend.fs.checkpointdir: /oldest\nstate.checkpoints.dir: /old",
    ] {
        let (config, warnings) = yaml(text).unwrap();
        assert_eq!(config.get(&keys::CHECKPOINT_DIR).as_deref(), Some("/new"));
        let shadowed = warnings.iter().filter(|warning| matches!(warning, Warning::Shadowed { .. })).count();
        assert_eq!(shadowed, 2, "{warnings:?}");
    }
    // A later layer wins, however it spells the key.
    let builder = Configuration::builder().yaml("config.yaml", "execution.checkpointing.num-retained: 2").unwrap();
    let (config, _) = builder.define("state.checkpoints.num-retained=7").unwrap().build().unwrap();
    assert_eq!(config.value(&keys::NUM_RETAINED).get(), 7);
}

#[test]
fn when_a_key_means_nothing_here_then_a_warning_names_it() {
    let (_, warnings) =
        yaml("jobmanager:\n  memory:\n    heap.size: 1 gb\nmetrics.reporter.prom.port: 9249\n").unwrap();
    let notes: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "config.yaml:3: jobmanager.memory.heap.size has no effect here",
            "config.yaml:4: metrics.reporter.prom.port has no effect here"
        ]
    );
}

#[test]
fn when_a_key_is_unknown_then_the_nearest_is_suggested() {
    assert_eq!(
        message("\nexecution.checkpointing.intervall: 1 s"),
        "config.yaml:2: unknown key execution.checkpointing.intervall; did you mean execution.checkpointing.interval?"
    );
    assert_eq!(message("foo: 1"), "config.yaml:1: unknown key foo");
    let error = Configuration::builder().define("paralelism.default=2").unwrap().build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "-D on the command line: unknown key paralelism.default; did you mean parallelism.default?"
    );
}

#[test]
fn when_a_value_is_wrong_then_the_message_says_what_is_allowed() {
    assert_eq!(
        message("execution:\n  checkpointing:\n    mode: exactly-twice"),
        "config.yaml:3: execution.checkpointing.mode cannot be \"exactly-twice\"; allowed: one of EXACTLY_ONCE \
         AT_LEAST_ONCE"
    );
    for (text, part) in [
        ("execution.checkpointing.timeout: soon", "a duration such as 10 s"),
        ("parallelism.default: 0", "from 1 to"),
        ("taskmanager.memory.segment-size: 3 parrots", "a size such as"),
        ("execution.checkpointing.unaligned: maybe", "true or false"),
        ("taskmanager.memory.network.fraction: 2", "a share from 0 to 1"),
        ("state.backend: forst", "one of hashmap rocksdb"),
        ("pipeline.max-parallelism: 0", "from 1 to 32768, or -1"),
        ("pipeline.max-parallelism: -2", "from 1 to 32768, or -1"),
        ("pipeline.max-parallelism: 32769", "config.yaml:1: pipeline.max-parallelism cannot be \"32769\""),
    ] {
        assert!(message(text).contains(part), "{}", message(text));
    }
}

#[test]
fn when_the_number_of_key_groups_is_at_a_bound_or_to_be_derived_then_it_is_taken() {
    let groups = |text| EngineOptions::from(&good(&format!("pipeline.max-parallelism: {text}"))).max_parallelism;
    assert_eq!([groups("1"), groups("32768"), groups("-1")], [Some(Some(1)), Some(Some(32_768)), Some(None)]);
}

#[test]
fn when_a_file_is_not_what_it_should_be_then_the_line_is_named() {
    assert!(message("a: [1, 2").starts_with("config.yaml:"), "{}", message("a: [1, 2"));
    assert_eq!(message("- 1\n- 2"), "config.yaml:1: expected `key: value`, not a list");
    assert!(message("parallelism.default: 1\nparallelism:\n  default: 2").contains("also set at config.yaml:1"));
    let flat = |text| Configuration::builder().flat("flink-conf.yaml", text).and_then(|builder| builder.build());
    let (config, _) = flat(
        "# old\n\nparallelism.default: 3 # three\nstate.backend: filesystem\n\
                            state.checkpoints.dir: hdfs://nn:8020/x\n",
    )
    .unwrap();
    assert_eq!(config.value(&keys::PARALLELISM).get(), 3);
    assert_eq!(config.get(&keys::CHECKPOINT_DIR).as_deref(), Some("hdfs://nn:8020/x"));
    assert!(flat("a: 1\nb=2").unwrap_err().to_string().starts_with("flink-conf.yaml:2: expected `key: value`"));
    let by_name = Configuration::builder().file("conf/flink-conf.yaml", "parallelism.default: 3 # x").unwrap();
    assert_eq!(by_name.build().unwrap().0.value(&keys::PARALLELISM).get(), 3);
    assert!(Configuration::builder().define("no-equals-sign").is_err());
}

#[test]
fn when_a_backend_has_an_older_name_then_it_is_the_heap_and_the_storage_it_implies() {
    let resolved = |text| {
        let config = good(text);
        StateOptions::resolve(&config, config.get(&keys::CHECKPOINT_DIR))
    };
    let state = |text| resolved(text).unwrap();
    assert_eq!(state("state.backend: filesystem\nstate.checkpoints.dir: /c").storage, directory("/c"));
    assert_eq!(state("state.backend: jobmanager\nstate.checkpoints.dir: /c").storage, CheckpointStorage::Memory);
    assert_eq!(state("state.backend: jobmanager").backend, StateBackend::Heap);
    assert_eq!(state("state.backend.type: rocksdb").backend, StateBackend::RocksDb);
    assert_eq!(state("execution.checkpointing.dir: /c").storage, directory("/c"));
    assert_eq!(
        resolved("state.backend: filesystem").unwrap_err().to_string(),
        "checkpoints are to lie in files: set execution.checkpointing.dir too"
    );
}

fn directory(name: &str) -> CheckpointStorage {
    CheckpointStorage::Directory(name.into())
}

#[test]
fn when_a_job_starts_from_somewhere_then_older_spellings_say_so_too() {
    let config = good("execution.savepoint.path: /s\nexecution.savepoint-restore-mode: claim");
    let expected = RecoveryOptions {
        restore_from: Some(RestoreFrom::Path("/s".into())),
        ignore_unclaimed_state: false,
        claim_mode: ClaimMode::Claim,
    };
    assert_eq!(RecoveryOptions::from(&config), expected);
}
