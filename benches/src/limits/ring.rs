//! The bare ring: a bounded queue of small values between two threads, and pairs of them that buffers travel on.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A value on cache lines of its own (two, since the processor fetches them in pairs).
#[repr(align(128))]
struct Padded<T>(T);

/// Places of a ring.
pub const RING_SLOTS: usize = 64;
const MASK: usize = RING_SLOTS - 1;

struct Shared<T> {
    /// Written by the consumer, read by the producer.
    head: Padded<AtomicUsize>,
    /// Written by the producer, read by the consumer.
    tail: Padded<AtomicUsize>,
    slots: [UnsafeCell<MaybeUninit<T>>; RING_SLOTS],
}

// SAFETY: a slot is written by the producer before the tail passes it (release), and read by the consumer after it has
// seen that (acquire); the other way round with the head. The values are `Copy`: none is dropped.
unsafe impl<T: Send + Copy> Sync for Shared<T> {}

/// The sending end.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    head_seen: usize,
}

/// The receiving end.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    tail_seen: usize,
}

/// A ring.
pub fn ring<T: Send + Copy>() -> (Producer<T>, Consumer<T>) {
    let shared = Arc::new(Shared {
        head: Padded(AtomicUsize::new(0)),
        tail: Padded(AtomicUsize::new(0)),
        slots: [const { UnsafeCell::new(MaybeUninit::uninit()) }; RING_SLOTS],
    });
    (Producer { shared: shared.clone(), tail: 0, head_seen: 0 }, Consumer { shared, head: 0, tail_seen: 0 })
}

impl<T: Send + Copy> Producer<T> {
    /// Sends a value. False if there is no place.
    #[inline(always)]
    pub fn push(&mut self, value: T) -> bool {
        if self.tail - self.head_seen == RING_SLOTS {
            self.head_seen = self.shared.head.0.load(Ordering::Acquire);
            if self.tail - self.head_seen == RING_SLOTS {
                return false;
            }
        }
        // SAFETY: the consumer is done with the slot: the head has passed it.
        unsafe { (*self.shared.slots[self.tail & MASK].get()).write(value) };
        self.tail += 1;
        self.shared.tail.0.store(self.tail, Ordering::Release);
        true
    }
}

impl<T: Send + Copy> Consumer<T> {
    /// Takes a value, if there is one.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.tail_seen {
            self.tail_seen = self.shared.tail.0.load(Ordering::Acquire);
            if self.head == self.tail_seen {
                return None;
            }
        }
        // SAFETY: the producer has written the slot: the tail has passed it.
        let value = unsafe { (*self.shared.slots[self.head & MASK].get()).assume_init_read() };
        self.head += 1;
        self.shared.head.0.store(self.head, Ordering::Release);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_full_then_push_says_so_and_order_is_kept() {
        let (mut producer, mut consumer) = ring::<u64>();
        for round in 0..3u64 {
            assert!((0..RING_SLOTS as u64).all(|n| producer.push(round + n)));
            assert!(!producer.push(0));
            assert!((0..RING_SLOTS as u64).all(|n| consumer.pop() == Some(round + n)));
            assert_eq!(consumer.pop(), None);
        }
    }

    #[test]
    fn when_two_threads_use_it_then_everything_arrives_in_order() {
        let (mut producer, mut consumer) = ring::<u64>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for n in 0..20_000u64 {
                    while !producer.push(n) {
                        std::thread::yield_now();
                    }
                }
            });
            for n in 0..20_000u64 {
                let value = loop {
                    match consumer.pop() {
                        Some(value) => break value,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(value, n);
            }
        });
    }
}
