//! Snapshots of tables that go on being changed: what a driver of one sees.
//!
//! At a barrier, [`Snapshots::begin_snapshot`] starts a new epoch, in microseconds. From then on, a row that is about to
//! be changed for the first time is copied aside, and blocks of the slab that the image still needs are kept. The
//! driver calls [`Snapshots::snapshot_step`] between batches until it answers [`Progress::Done`]; by then it has
//! been handed the [image](crate::image) of the table as it was at the barrier.

/// What a snapshot is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotKind {
    /// All rows, and no increment will go on from it: for savepoints, and where all checkpoints are full.
    Full,
    /// All rows, and increments may go on from it once it is confirmed. Removals are recorded from now on.
    Base,
    /// What has changed since the last snapshot that was confirmed. Where there is none, it is a [`Self::Base`].
    Increment,
}

/// A snapshot that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Begun {
    /// Its number, by which it is confirmed. Numbers wrap.
    pub epoch: u16,
    /// The epoch of the snapshot it goes on from, if it is an increment.
    pub base: Option<u16>,
}

/// Another snapshot of the same table has not been read to its end yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotRunning;

impl std::fmt::Display for SnapshotRunning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a snapshot of this state is still being written: finish or abort it before the next one begins")
    }
}

impl std::error::Error for SnapshotRunning {}

/// How far a step has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The budget is used up; there is more to do.
    More,
    /// The sink has no room; there is more to do once it has.
    Full,
    /// The image is complete and everything that was kept has been given back, or no snapshot is running.
    Done,
}

/// Where the bytes of an image go: a file, in the order in which they come.
pub trait ImageSink {
    /// Where the next bytes may be written, at least one of them; empty while there is no room.
    fn room(&mut self) -> &mut [u8];
    /// Takes the first `bytes` of the room, which have been written.
    fn advance(&mut self, bytes: usize);
}

impl ImageSink for Vec<u8> {
    fn room(&mut self) -> &mut [u8] {
        let len = self.len();
        self.resize(len + (64 << 10), 0);
        &mut self[len..]
    }

    fn advance(&mut self, bytes: usize) {
        // The room is what the last call added.
        self.truncate(self.len() - (64 << 10) + bytes);
    }
}

/// A table of which snapshots can be taken.
///
/// One snapshot at a time is read from a table; any number may wait to be confirmed.
pub trait Snapshots {
    /// Starts a snapshot of the table as it is now.
    ///
    /// # Errors
    /// While another one is running.
    fn begin_snapshot(&mut self, kind: SnapshotKind) -> Result<Begun, SnapshotRunning>;

    /// Goes on with the running snapshot for about `budget_ns`, which is estimated, not measured. Pieces of work that
    /// cannot be divided take a few microseconds at most.
    fn snapshot_step(&mut self, budget_ns: u32, sink: &mut dyn ImageSink) -> Progress;

    /// Ends the running snapshot, if any. What it kept is given back by further steps, or when the next one begins.
    fn abort_snapshot(&mut self);

    /// Says that a snapshot is safe: the next increment goes on from it. False where it cannot, and goes on from what it
    /// would have gone on from before: the epoch is unknown, or one before another that has been confirmed since.
    fn confirm_snapshot(&mut self, epoch: u16) -> bool;

    /// The kind to take next: an increment, unless those since the last full image come to half of it already.
    fn suggested_kind(&self) -> SnapshotKind;

    /// Whether a snapshot is running, an aborted one that has not been cleaned up included.
    fn is_snapshot_running(&self) -> bool;
}

/// Takes a snapshot at once, without slices.
///
/// # Errors
/// While another one is running.
pub fn snapshot_to_vec(table: &mut dyn Snapshots, kind: SnapshotKind) -> Result<Vec<u8>, SnapshotRunning> {
    table.begin_snapshot(kind)?;
    let mut image = Vec::new();
    while table.snapshot_step(u32::MAX, &mut image) != Progress::Done {}
    Ok(image)
}
