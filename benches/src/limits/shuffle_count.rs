//! The bare shuffle-and-count loop: what keyed counting costs on this machine with no engine around it.
//!
//! Each pinned thread makes 24-byte records, hashes the key, routes by the hash, writes 32-byte frames (length, hash,
//! record) into 32 KiB buffers, passes full ones over rings with a ring back, and between batches counts what has come
//! in: 16 frames ahead it fetches the row, of 16 bytes, in a table with linear probing in huge pages. There is no flush
//! but at the end, no time, no cancelling, no metrics, and the table is sized beforehand.

use std::sync::Barrier;
use std::time::Instant;

use super::memory::{HugeSlice, Plain};
use super::pinned::on_cores;
use super::ring::{Consumer, Producer, RING_SLOTS, ring};
use crate::report::grouped;
use crate::workloads::event::{Event, enumerated, random};
use crate::workloads::job::BenchError;

/// Frames in a buffer of 32 KiB.
const BUFFER_FRAMES: usize = 1024;
/// Records made between looks at the input.
const BATCH_RECORDS: u64 = 1024;
/// How far ahead rows are fetched.
const AHEAD: usize = 16;

/// What to count.
#[derive(Clone, Debug)]
pub struct ShuffleCount {
    /// Number of threads.
    pub threads: usize,
    /// Where they run, in turn.
    pub cores: Vec<usize>,
    /// Number of keys, below 2^31.
    pub keys: u64,
    /// Records, besides the one per key that fills the tables before time is taken.
    pub records: u64,
}

/// How it went.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// Time of all records but the first of each key.
    pub seconds: f64,
    /// What the tables hold in the end.
    pub sums: CountSums,
}

/// What identifies a result: counts per key, summed up in several ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountSums {
    /// Sum of all counts: the records.
    pub records: u64,
    /// Sum over all records of the count so far of their key, wrapping.
    pub running: u64,
    /// Sum over all records of their key, wrapping.
    pub keys: u64,
}

impl CountSums {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            records: self.records.wrapping_add(other.records),
            running: self.running.wrapping_add(other.running),
            keys: self.keys.wrapping_add(other.keys),
        }
    }
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Frame {
    len: u32,
    hash: u32,
    event: Event,
}

// SAFETY: integers without padding.
unsafe impl Plain for Frame {}

#[derive(Clone, Copy)]
#[repr(C)]
struct Row {
    /// The key plus one; 0 in a free row.
    key: u64,
    count: u64,
}

// SAFETY: integers without padding.
unsafe impl Plain for Row {}

/// A number of frames on their way to another thread; none for the end of a phase.
#[derive(Clone, Copy)]
struct Parcel {
    frames: *mut Frame,
    len: usize,
}

// SAFETY: whoever holds the parcel owns the frames; their memory lives until all threads are done.
unsafe impl Send for Parcel {}

/// The way to another thread, or to the thread itself.
struct Lane {
    at: *mut Frame,
    end: *mut Frame,
    start: *mut Frame,
    free: Vec<*mut Frame>,
    /// None: the thread itself.
    link: Option<(Producer<Parcel>, Consumer<Parcel>)>,
}

/// A thread's part of the work.
struct Worker {
    index: u64,
    threads: u64,
    lanes: Vec<Lane>,
    /// From each other thread: its parcels, and the way back for them.
    inputs: Vec<(Consumer<Parcel>, Producer<Parcel>)>,
    ended: usize,
    rows: HugeSlice<Row>,
    shift: u32,
    _buffers: HugeSlice<Frame>,
}

// SAFETY: its pointers are to its own buffers, and to those lent to it by parcels.
unsafe impl Send for Worker {}

impl ShuffleCount {
    /// Runs it.
    ///
    /// # Errors
    /// The system does not give the memory for the tables.
    ///
    /// # Panics
    /// Where there are no threads, cores or keys.
    pub fn run(&self) -> Result<Counted, BenchError> {
        let workers = self.workers()?;
        let line = Barrier::new(self.threads);
        let (keys, records) = (self.keys, self.records);
        let done = on_cores(&self.cores, workers, |_, mut worker| {
            worker.phase(0, keys, enumerated);
            line.wait();
            let started = Instant::now();
            worker.phase(keys, keys + records, |n| random(n, keys));
            let ended = Instant::now();
            // Others may still be reading this thread's buffers.
            line.wait();
            (started, ended, worker.sums())
        });
        let started = done.iter().map(|&(started, ..)| started).min().expect("a thread");
        let ended = done.iter().map(|&(_, ended, _)| ended).max().expect("a thread");
        let sums = done.iter().fold(CountSums::default(), |all, &(_, _, sums)| all.plus(sums));
        Ok(Counted { seconds: (ended - started).as_secs_f64(), sums })
    }

    fn workers(&self) -> Result<Vec<Worker>, BenchError> {
        let threads = self.threads;
        assert!(threads > 0 && self.keys > 0 && self.keys < 1 << 31, "nothing to do: {self:?}");
        let share = self.keys.div_ceil(threads as u64).max(64);
        // At most two thirds full, with a little more for uneven shares.
        let rows_log2 = (share + share / 2 + share / 50).next_power_of_two().ilog2();
        let mut inputs: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
        let mut workers = Vec::new();
        for index in 0..threads {
            // Not more than the ring back holds.
            let per_lane = RING_SLOTS * BUFFER_FRAMES;
            let mut buffers = HugeSlice::<Frame>::new(threads * per_lane);
            let memory = buffers.as_mut_slice().as_mut_ptr();
            let mut lanes = Vec::new();
            for (to, inputs) in inputs.iter_mut().enumerate() {
                // SAFETY: each lane has its own range of the buffers.
                let buffer = |n: usize| unsafe { memory.add(to * per_lane + n * BUFFER_FRAMES) };
                let link = (to != index).then(|| {
                    let ((there, arrives), (back, returned)) = (ring(), ring());
                    inputs.push((arrives, back));
                    (there, returned)
                });
                let free = if link.is_some() { (1..RING_SLOTS).map(buffer).collect() } else { Vec::new() };
                let mut lane = Lane { at: buffer(0), end: buffer(0), start: buffer(0), free, link };
                lane.open(buffer(0));
                lanes.push(lane);
            }
            let rows = HugeSlice::try_new(1 << rows_log2).ok_or_else(|| self.too_much(1 << rows_log2))?;
            workers.push(Worker {
                index: index as u64,
                threads: threads as u64,
                lanes,
                inputs: Vec::new(),
                ended: 0,
                rows,
                shift: 32 - rows_log2,
                _buffers: buffers,
            });
        }
        for (worker, inputs) in workers.iter_mut().zip(inputs) {
            worker.inputs = inputs;
        }
        Ok(workers)
    }

    fn too_much(&self, rows: u64) -> BenchError {
        let gib = (rows * size_of::<Row>() as u64 * self.threads as u64) as f64 / (1u64 << 30) as f64;
        BenchError::Setting(format!(
            "the tables of the bare loop need {gib:.1} GiB for {} keys, which this machine does not give: lower --keys",
            grouped(self.keys)
        ))
    }
}

/// The upper half of what decides the route and the row.
#[inline(always)]
fn hash(key: u64) -> u32 {
    let wide = u128::from(key ^ 0xa076_1d64_78bd_642f) * 0x9e37_79b9_7f4a_7c15;
    let word = wide as u64 ^ (wide >> 64) as u64;
    (word ^ (word >> 32)) as u32
}

impl Lane {
    fn open(&mut self, buffer: *mut Frame) {
        self.start = buffer;
        self.at = buffer;
        // SAFETY: a buffer has that many frames.
        self.end = unsafe { buffer.add(BUFFER_FRAMES) };
    }
}

impl Worker {
    /// Makes this thread's share of the records `from..to`, and counts what comes in, until all threads are through.
    #[inline(always)]
    fn phase(&mut self, from: u64, to: u64, make: impl Fn(u64) -> Event) {
        let mut n = from + (self.index + self.threads - from % self.threads) % self.threads;
        self.ended = 0;
        while n < to {
            let until = to.min(n + BATCH_RECORDS * self.threads);
            while n < until {
                let event = make(n);
                let hash = hash(event.key);
                let lane = ((u64::from(hash) * self.threads) >> 32) as usize;
                // SAFETY: the product's upper half is below the number of threads, which is that of the lanes.
                let open = unsafe { self.lanes.get_unchecked_mut(lane) };
                // SAFETY: an open buffer has room for a frame: full ones are shipped at once.
                unsafe {
                    open.at.write(Frame { len: size_of::<Event>() as u32, hash, event });
                    open.at = open.at.add(1);
                }
                if open.at == open.end {
                    self.ship(lane);
                }
                n += self.threads;
            }
            self.drain();
        }
        for lane in 0..self.lanes.len() {
            self.ship(lane);
            if self.lanes[lane].link.is_some() {
                self.push(lane, Parcel { frames: std::ptr::null_mut(), len: 0 });
            }
        }
        while self.ended < self.inputs.len() {
            self.drain();
            std::hint::spin_loop();
        }
    }

    /// Sends what is in a lane's buffer and opens another one.
    #[inline(never)]
    fn ship(&mut self, lane: usize) {
        let Lane { start, at, ref link, .. } = self.lanes[lane];
        // SAFETY: both point into the open buffer.
        let len = unsafe { at.offset_from(start) } as usize;
        if link.is_none() {
            self.count(start, len);
            self.lanes[lane].open(start);
            return;
        }
        self.push(lane, Parcel { frames: start, len });
        let next = loop {
            let lane = &mut self.lanes[lane];
            if let Some(buffer) = lane.free.pop() {
                break buffer;
            }
            if let Some((_, returned)) = &mut lane.link {
                while let Some(parcel) = returned.pop() {
                    lane.free.push(parcel.frames);
                }
            }
            if lane.free.is_empty() {
                self.drain();
                std::hint::spin_loop();
            }
        };
        self.lanes[lane].open(next);
    }

    fn push(&mut self, lane: usize, parcel: Parcel) {
        while let Some((there, _)) = &mut self.lanes[lane].link
            && !there.push(parcel)
        {
            self.drain();
            std::hint::spin_loop();
        }
    }

    /// Counts what has come in, and sends the buffers back.
    #[inline(never)]
    fn drain(&mut self) {
        for input in 0..self.inputs.len() {
            while let Some(parcel) = self.inputs[input].0.pop() {
                if parcel.frames.is_null() {
                    self.ended += 1;
                    continue;
                }
                self.count(parcel.frames, parcel.len);
                let returned = self.inputs[input].1.push(parcel);
                assert!(returned, "the ring back holds as many buffers as there are");
            }
        }
    }

    #[inline(never)]
    fn count(&mut self, frames: *const Frame, len: usize) {
        // SAFETY: this thread owns so many written frames there.
        let frames = unsafe { std::slice::from_raw_parts(frames, len) };
        let (threads, shift) = (self.threads as u32, self.shift);
        let rows = self.rows.as_mut_slice();
        let mask = rows.len() - 1;
        let place = |hash: u32| (hash.wrapping_mul(threads) >> shift) as usize;
        for frame in &frames[..len.min(AHEAD)] {
            fetch(&rows[place(frame.hash) & mask]);
        }
        for (index, frame) in frames.iter().enumerate() {
            if let Some(later) = frames.get(index + AHEAD) {
                fetch(&rows[place(later.hash) & mask]);
            }
            let mut at = place(frame.hash) & mask;
            loop {
                let row = &mut rows[at];
                if row.key == frame.event.key + 1 {
                    row.count += 1;
                    break;
                }
                if row.key == 0 {
                    *row = Row { key: frame.event.key + 1, count: 1 };
                    break;
                }
                at = (at + 1) & mask;
            }
        }
    }

    fn sums(&self) -> CountSums {
        let taken = self.rows.as_slice().iter().filter(|row| row.key != 0);
        taken.fold(CountSums::default(), |sums, &Row { key, count }| {
            sums.plus(CountSums {
                records: count,
                running: (u128::from(count) * u128::from(count + 1) / 2) as u64,
                keys: (key - 1).wrapping_mul(count),
            })
        })
    }
}

#[inline(always)]
fn fetch(row: &Row) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program sees.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(row).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::pinned::available_cores;

    /// The same, one record at a time.
    fn plain(keys: u64, records: u64) -> CountSums {
        let mut counts = vec![0u64; keys as usize];
        let mut sums = CountSums::default();
        for event in (0..keys).map(enumerated).chain((keys..keys + records).map(|n| random(n, keys))) {
            let count = &mut counts[event.key as usize];
            *count += 1;
            sums = sums.plus(CountSums { records: 1, running: *count, keys: event.key });
        }
        sums
    }

    #[test]
    fn when_counted_by_any_number_of_threads_then_the_sums_are_those_of_a_plain_loop() {
        for (threads, keys, records) in [(1, 1, 10), (1, 1000, 30_000), (2, 1000, 100_001), (3, 5000, 20_000)] {
            let job = ShuffleCount { threads, cores: available_cores(), keys, records };
            assert_eq!(job.run().unwrap().sums, plain(keys, records), "{job:?}");
        }
    }
}
