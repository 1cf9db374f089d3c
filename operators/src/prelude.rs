//! What almost every job needs.

pub use thalweg_io::connect::{CsvFormat, CsvOptions, NdjsonFormat, OnBadRecord};
pub use thalweg_model::{
    Seq,
    config::{
        CheckpointRetention, CheckpointingMode, ExponentialDelay, FailureRate, FixedDelay, RestartStrategyOptions,
    },
};

pub use crate::{
    Environment, Error, JobClient, JobHandle, Record,
    aggregate::{AggregateFunction, Count, Sum},
    connect::{CoProcessFunction, KeyedCoProcessFunction},
    file_sink::{committed_csv_files, committed_ndjson_files},
    file_source::FileSource,
    fuse::Out,
    handle::{InputHandle, ResultReceiver, results},
    keyed_context::{KeyContext, ListState, MapState, StateContext, ValueState},
    pipe::Emit,
    process::{KeyedProcessFunction, TimeDomain},
    side::{Collector, OutputTag},
    sink::{Sink, collect, csv_file, discard, for_each, ndjson_file, print},
    source::Source,
    two_phase::{TwoPhaseCommitSink, two_phase},
    watermark::{WatermarkGenerator, WatermarkStrategy},
    window::{SlidingEventTimeWindows, TimeWindow, TumblingEventTimeWindows, WindowElements},
};
