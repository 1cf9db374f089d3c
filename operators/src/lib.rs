//! A stateful stream-processing engine, thread-per-core: the DataStream API.
