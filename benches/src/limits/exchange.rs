//! The bare exchange: frames of 24-byte records from one pinned thread to another, in 32 KiB buffers over a ring.

use std::time::{Duration, Instant};

use super::memory::{HugeSlice, Plain};
use super::pinned::on_cores;
use super::ring::{Consumer, Producer, RING_SLOTS, ring};
use crate::workloads::event::{Event, plain};

const BUFFER_FRAMES: usize = 1024;

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
struct Parcel {
    frames: *mut Frame,
    len: usize,
}

// SAFETY: whoever holds the parcel owns the frames; their memory outlives both threads.
unsafe impl Send for Parcel {}

/// How it went.
#[derive(Clone, Copy, Debug)]
pub struct Exchanged {
    /// From the first record made to the last one read.
    pub seconds: f64,
    /// Time in which the sender was making and sending records, not waiting for buffers.
    pub sender_busy_s: f64,
    /// Time in which the receiver was reading, not waiting for buffers.
    pub receiver_busy_s: f64,
    /// Of what was read.
    pub checksum: u64,
}

enum Side {
    Sender(Producer<Parcel>, Consumer<Parcel>, HugeSlice<Frame>),
    Receiver(Consumer<Parcel>, Producer<Parcel>),
}

// SAFETY: its pointers are lent by parcels.
unsafe impl Send for Side {}

/// Sends records `0..records` from the first core to the second.
pub fn run(cores: &[usize], records: u64) -> Exchanged {
    let ((there, arrives), (back, returned)) = (ring(), ring());
    let buffers = HugeSlice::<Frame>::new(RING_SLOTS * BUFFER_FRAMES);
    let line = std::sync::Barrier::new(2);
    let sides = vec![Side::Sender(there, returned, buffers), Side::Receiver(arrives, back)];
    let done = on_cores(cores, sides, |_, side| {
        line.wait();
        let started = Instant::now();
        match side {
            Side::Sender(there, returned, buffers) => {
                let (busy, buffers) = send(records, there, returned, buffers);
                // The buffers live until the receiver is done.
                line.wait();
                drop(buffers);
                (started, Instant::now(), busy, 0)
            }
            Side::Receiver(arrives, back) => {
                let (busy, checksum) = receive(arrives, back);
                let ended = Instant::now();
                line.wait();
                (started, ended, busy, checksum)
            }
        }
    });
    Exchanged {
        seconds: (done[1].1 - done[0].0.min(done[1].0)).as_secs_f64(),
        sender_busy_s: done[0].2.as_secs_f64(),
        receiver_busy_s: done[1].2.as_secs_f64(),
        checksum: done[1].3,
    }
}

fn send(
    records: u64,
    mut there: Producer<Parcel>,
    mut returned: Consumer<Parcel>,
    mut buffers: HugeSlice<Frame>,
) -> (Duration, HugeSlice<Frame>) {
    let memory = buffers.as_mut_slice().as_mut_ptr();
    // SAFETY: the buffers lie one after another.
    let mut free: Vec<_> = (0..RING_SLOTS).map(|n| unsafe { memory.add(n * BUFFER_FRAMES) }).collect();
    let (mut n, mut busy) = (0, Duration::ZERO);
    while n < records {
        let frames = loop {
            while let Some(parcel) = returned.pop() {
                free.push(parcel.frames);
            }
            match free.pop() {
                Some(frames) => break frames,
                None => std::hint::spin_loop(),
            }
        };
        let started = Instant::now();
        let len = (records - n).min(BUFFER_FRAMES as u64);
        for index in 0..len {
            let event = plain(n + index);
            // SAFETY: a buffer has that many frames, and this thread owns it.
            unsafe { frames.add(index as usize).write(Frame { len: size_of::<Event>() as u32, hash: 0, event }) };
        }
        n += len;
        let pushed = there.push(Parcel { frames, len: len as usize });
        assert!(pushed, "the ring holds as many buffers as there are");
        busy += started.elapsed();
    }
    while !there.push(Parcel { frames: std::ptr::null_mut(), len: 0 }) {
        std::hint::spin_loop();
    }
    (busy, buffers)
}

fn receive(mut arrives: Consumer<Parcel>, mut back: Producer<Parcel>) -> (Duration, u64) {
    let (mut busy, mut checksum) = (Duration::ZERO, 0u64);
    loop {
        let Some(parcel) = arrives.pop() else {
            std::hint::spin_loop();
            continue;
        };
        if parcel.frames.is_null() {
            return (busy, checksum);
        }
        let started = Instant::now();
        // SAFETY: the parcel is so many written frames, which this thread owns until it sends them back.
        for frame in unsafe { std::slice::from_raw_parts(parcel.frames, parcel.len) } {
            std::hint::black_box(&frame.event);
            checksum = checksum.wrapping_add(frame.event.key ^ frame.event.value);
        }
        let pushed = back.push(parcel);
        assert!(pushed, "the ring back holds as many buffers as there are");
        busy += started.elapsed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::pinned::available_cores;

    #[test]
    fn when_exchanged_then_every_record_arrives() {
        for records in [0, 1, 1024, 100_000] {
            let expected = (0..records).map(plain).fold(0u64, |sum, e| sum.wrapping_add(e.key ^ e.value));
            assert_eq!(run(&available_cores(), records).checksum, expected);
        }
    }
}
