//! Keyed state: heap tables, slabs, timers.
//!
//! A table belongs to one subtask and one thread: nothing here locks, waits or reads a clock. Keys and values are
//! [`Record`](thalweg_model::Record)s kept in their archived form; rows hold no pointers, only offsets into slabs, so
//! that the memory of a table is what a snapshot of it writes. Every key comes with the hash that travelled in its
//! record's frame; no table hashes a key again.
//!
//! Tables can be snapshotted while they are changed ([`Snapshots`]) and restored from the images for any range of key
//! groups ([`Restorer`]); [`image`] has the format.
//!
//! Running out of memory, or of a slab's 64 GiB, panics with a message that says so; the task that owns the table
//! fails with it. A closure that panics leaves its table as it was.

mod ahead;
mod arena;
mod cell;
mod detached;
pub mod elements;
mod entries;
mod extents;
mod grow;
mod handover;
mod heap;
mod home;
pub mod image;
mod limbo;
mod list;
mod list_image;
mod map;
mod map_image;
mod memory;
mod migrate;
mod order;
mod place;
mod read;
mod release;
mod removed;
mod restore;
mod room;
mod row;
mod saved;
mod scan;
mod segment;
mod size_class;
mod slab;
mod snapshot;
mod sweep;
mod table;
mod tail;
mod timer;
mod watch;

pub use ahead::{LOCATE_AHEAD, PINPOINT_AHEAD, Place};
pub use elements::{decode_elements, element_bytes, encode_elements};
pub use entries::{Content, Entries, Entry, live_entries};
pub use image::{Extent, ImageError, ImageIndex, Structure};
pub use list::{ListIter, ListTable};
pub use map::{MapIter, MapTable};
pub use memory::MemoryReserve;
pub use migrate::{Migrate, MigrateError, Migration, Migrator, Plan, migrate, migrate_elements};
pub use place::{NamespaceSalt, NoSalt, Salt, TableConfig};
pub use restore::{Restore, Restorer, restore};
pub use scan::Cursor;
pub use snapshot::{Begun, ImageSink, Progress, SnapshotKind, SnapshotRunning, Snapshots, snapshot_to_vec};
pub use table::RowTable;
pub use timer::{Timer, TimerQueue, TimerView};
