//! Limits of what a checkpoint may hold: what is beyond them is refused, on the way out and on the way in.

/// What direct writes are multiples of, in memory, in length and in the file.
pub const PAGE_BYTES: usize = 4096;
/// Smallest block of a block file. Real writers use 256 KiB and more; small ones are for tests.
pub const MIN_BLOCK_BYTES: usize = PAGE_BYTES;
/// Largest block of a block file: what a reader has to hold at once.
pub const MAX_BLOCK_BYTES: usize = 1 << 20;
/// Block size where none is chosen.
pub const DEFAULT_BLOCK_BYTES: usize = 1 << 20;
/// Largest payload of one block file: 16 TiB.
pub const MAX_PAYLOAD_BYTES: u64 = 1 << 44;

/// Largest `_metadata` file. Inline state is below [`MAX_INLINE_BYTES`] each, so this is a great many subtasks.
pub const MAX_METADATA_BYTES: u64 = 1 << 30;
/// State below this many bytes is kept in `_metadata` itself (20 kB, Flink's
/// `execution.checkpointing.data-inline-threshold`).
pub const INLINE_THRESHOLD_BYTES: usize = 20 << 10;
/// Largest state that `_metadata` may hold inline (1 MiB, the largest that Flink lets one configure).
pub const MAX_INLINE_BYTES: usize = 1 << 20;
/// Longest name: of a job, an operator, a state, or a property.
pub const MAX_NAME_BYTES: usize = 4 << 10;
/// Longest relative path of a file.
pub const MAX_PATH_BYTES: usize = 1 << 10;
/// Longest schema of one state.
pub const MAX_SCHEMA_BYTES: usize = 1 << 20;
/// Most files that one checkpoint may name.
pub const MAX_FILES: usize = 1 << 22;
/// Most operators of one job.
pub const MAX_OPERATORS: usize = 1 << 16;
/// Most named states of one subtask.
pub const MAX_STATES: usize = 1 << 12;
/// Most parts of one state: bases and increments, times files.
pub const MAX_PARTS: usize = 1 << 16;
/// Most properties of one checkpoint, and largest value of one.
pub const MAX_PROPERTIES: usize = 1 << 12;
/// Most levels that a file's path may go up from the directory of its `_metadata`.
pub const MAX_PATH_UPS: usize = 2;

const _: () = assert!(MIN_BLOCK_BYTES.is_multiple_of(PAGE_BYTES) && MAX_BLOCK_BYTES.is_multiple_of(PAGE_BYTES));
const _: () = assert!(MIN_BLOCK_BYTES <= DEFAULT_BLOCK_BYTES && DEFAULT_BLOCK_BYTES <= MAX_BLOCK_BYTES);
const _: () = assert!(INLINE_THRESHOLD_BYTES <= MAX_INLINE_BYTES && (MAX_INLINE_BYTES as u64) < MAX_METADATA_BYTES);
