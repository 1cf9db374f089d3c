//! The ring: a bounded queue between one producer and one consumer, on one core or two.
//!
//! Owns the hand-over of items between the two ends, and nothing else: who may send how much is the channel's matter.
//! Neither end ever waits. Each end keeps its own index, and a copy of the other's that it refreshes only when the copy
//! says "full" or "empty"; the producer's shared line also carries a *note*, one word for the consumer to read
//! beside the tail, so that both come with one cache miss.

use std::mem::MaybeUninit;

use crate::sync::{Arc, AtomicU32, CachePadded, Ordering, UnsafeCell};

/// Written by the producer, read by the consumer.
struct ProducerLine {
    tail: AtomicU32,
    note: AtomicU32,
}

struct Shared<T> {
    producer: CachePadded<ProducerLine>,
    /// The head. Written by the consumer, read by the producer.
    consumer: CachePadded<AtomicU32>,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: a slot is touched by one end at a time: by the producer between the consumer's release of the head and its own
// release of the tail, by the consumer between that and its next release of the head.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let tail = self.producer.0.tail.load(Ordering::Relaxed);
        let mut head = self.consumer.0.load(Ordering::Relaxed);
        while head != tail {
            let slot = &self.slots[head as usize & (self.slots.len() - 1)];
            // SAFETY: both ends are gone, and the slots from head to tail hold items.
            slot.with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

/// The sending end.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: u32,
    head_seen: u32,
}

/// The receiving end.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: u32,
    tail_seen: u32,
}

/// A ring of `slots` places.
///
/// # Panics
/// Where `slots` is not a power of two, or above 2^30.
pub fn ring<T: Send>(slots: usize) -> (Producer<T>, Consumer<T>) {
    assert!(slots.is_power_of_two() && slots <= 1 << 30, "a ring has a power of two of slots, not {slots}");
    let shared = Arc::new(Shared {
        producer: CachePadded(ProducerLine { tail: AtomicU32::new(0), note: AtomicU32::new(0) }),
        consumer: CachePadded(AtomicU32::new(0)),
        slots: (0..slots).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
    });
    (Producer { shared: shared.clone(), tail: 0, head_seen: 0 }, Consumer { shared, head: 0, tail_seen: 0 })
}

impl<T> Producer<T> {
    /// Whether [`push`](Self::push) has a place.
    #[inline]
    pub fn has_place(&mut self) -> bool {
        let slots = self.shared.slots.len() as u32;
        if self.tail.wrapping_sub(self.head_seen) < slots {
            return true;
        }
        self.head_seen = self.shared.consumer.0.load(Ordering::Acquire);
        self.tail.wrapping_sub(self.head_seen) < slots
    }

    /// Puts an item into the ring and shows it to the consumer.
    ///
    /// # Errors
    /// The item, if the ring is full.
    #[inline]
    pub fn push(&mut self, item: T) -> Result<(), T> {
        if !self.has_place() {
            return Err(item);
        }
        let slots = &self.shared.slots;
        // SAFETY: there is a place, so the consumer is done with this slot (acquired with the head), and it will not look
        // at it before the tail is released below.
        slots[self.tail as usize & (slots.len() - 1)].with_mut(|slot| unsafe {
            (*slot).write(item);
        });
        self.tail = self.tail.wrapping_add(1);
        self.shared.producer.0.tail.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Whether there is a place this moment, whatever was seen before.
    pub fn has_place_now(&self) -> bool {
        let head = self.shared.consumer.0.load(Ordering::Acquire);
        self.tail.wrapping_sub(head) < self.shared.slots.len() as u32
    }

    /// Sets the word that the consumer reads with [`Consumer::note`]. What was pushed before is visible with it.
    #[inline]
    pub fn set_note(&mut self, note: u32) {
        self.shared.producer.0.note.store(note, Ordering::Release);
    }

    /// The number of places.
    pub fn slots(&self) -> usize {
        self.shared.slots.len()
    }
}

impl<T> Consumer<T> {
    /// Whether [`pop`](Self::pop) has an item.
    #[inline]
    pub fn has_item(&mut self) -> bool {
        if self.head != self.tail_seen {
            return true;
        }
        self.tail_seen = self.shared.producer.0.tail.load(Ordering::Acquire);
        self.head != self.tail_seen
    }

    /// The next item, left in its place.
    #[inline]
    pub fn peek(&mut self) -> Option<&T> {
        if !self.has_item() {
            return None;
        }
        let slots = &self.shared.slots;
        // SAFETY: the slot is between head and tail (acquired), so it holds an item, and stays so while `self` is borrowed.
        Some(slots[self.head as usize & (slots.len() - 1)].with(|slot| unsafe { (*slot).assume_init_ref() }))
    }

    /// Takes the next item.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if !self.has_item() {
            return None;
        }
        let slots = &self.shared.slots;
        // SAFETY: the slot is between head and tail (acquired), so it holds an item; the head moves past it, so it is read
        // out once.
        let item = slots[self.head as usize & (slots.len() - 1)].with_mut(|slot| unsafe { (*slot).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        self.shared.consumer.0.store(self.head, Ordering::Release);
        Some(item)
    }

    /// The producer's note. Read it before [`has_item`](Self::has_item) to learn whether a last word was followed by items.
    #[inline]
    pub fn note(&self) -> u32 {
        self.shared.producer.0.note.load(Ordering::Acquire)
    }

    /// Items waiting, as the producer's line says this moment.
    #[inline]
    pub fn len(&self) -> usize {
        self.shared.producer.0.tail.load(Ordering::Acquire).wrapping_sub(self.head) as usize
    }

    /// The items waiting this moment, left in their places.
    pub fn waiting(&self) -> impl Iterator<Item = &T> {
        let slots = &self.shared.slots;
        (0..self.len() as u32).map(move |ahead| {
            let at = self.head.wrapping_add(ahead) as usize & (slots.len() - 1);
            // SAFETY: the slot is between head and tail (acquired), so it holds an item, and stays so while `self` is borrowed.
            slots[at].with(|slot| unsafe { (*slot).assume_init_ref() })
        })
    }

    /// Whether nothing is waiting this moment.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn when_full_then_the_item_comes_back_and_order_is_kept_around_the_end() {
        let (mut producer, mut consumer) = ring::<String>(4);
        for round in 0..10 {
            for n in 0..4 {
                assert_eq!(producer.push(format!("{round}.{n}")), Ok(()));
            }
            assert_eq!(producer.push("more".into()), Err("more".into()));
            assert!(!producer.has_place_now());
            assert_eq!(consumer.len(), 4);
            for n in 0..4 {
                assert_eq!(consumer.peek(), Some(&format!("{round}.{n}")));
                assert_eq!(consumer.pop(), Some(format!("{round}.{n}")));
            }
            assert!(consumer.pop().is_none() && consumer.is_empty());
        }
    }

    #[test]
    fn when_both_ends_go_then_what_is_left_is_dropped_once() {
        let (mut producer, mut consumer) = ring::<std::sync::Arc<()>>(8);
        let item = std::sync::Arc::new(());
        (0..5).for_each(|_| assert!(producer.push(item.clone()).is_ok()));
        drop(consumer.pop());
        drop(consumer);
        drop(producer);
        assert_eq!(std::sync::Arc::strong_count(&item), 1);
    }

    #[test]
    fn when_two_threads_use_it_then_all_items_pass_in_order() {
        let (mut producer, mut consumer) = ring::<u64>(8);
        let count = 20_000;
        let sending = std::thread::spawn(move || {
            for n in 0..count {
                while producer.push(n).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        for n in 0..count {
            let item = loop {
                match consumer.pop() {
                    Some(item) => break item,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(item, n);
        }
        sending.join().expect("no panic");
    }
}

/// Explored by loom: every order in which two cores may see each other's stores.
#[cfg(all(test, loom))]
mod loom_tests {
    use loom::{model, thread};

    use super::*;

    fn push<T>(producer: &mut Producer<T>, mut item: T) {
        while let Err(back) = producer.push(item) {
            item = back;
            thread::yield_now();
        }
    }

    fn pop<T>(consumer: &mut Consumer<T>) -> T {
        loop {
            match consumer.pop() {
                Some(item) => return item,
                None => thread::yield_now(),
            }
        }
    }

    #[test]
    fn loom_when_items_pass_then_each_is_seen_whole_and_in_order() {
        model(|| {
            let (mut producer, mut consumer) = ring::<Box<u32>>(2);
            let sending = thread::spawn(move || (0..3).for_each(|n| push(&mut producer, Box::new(n))));
            (0..3).for_each(|n| assert_eq!(*pop(&mut consumer), n));
            sending.join().unwrap();
        });
    }

    #[test]
    fn loom_when_a_page_is_handed_back_then_it_may_be_written_again() {
        model(|| {
            let (mut data, mut received) = ring::<usize>(2);
            let (mut returns, mut returned) = ring::<usize>(2);
            let page = Arc::new(UnsafeCell::new(0));
            let pages = page.clone();
            let sending = thread::spawn(move || {
                for n in 1..=2 {
                    // SAFETY: loom checks that it is this thread's turn.
                    pages.with_mut(|page| unsafe { *page = n });
                    push(&mut data, n);
                    assert_eq!(pop(&mut returned), n);
                }
            });
            for n in 1..=2 {
                assert_eq!(pop(&mut received), n);
                // SAFETY: loom checks that it is this thread's turn.
                page.with(|page| assert_eq!(unsafe { *page }, n));
                push(&mut returns, n);
            }
            sending.join().unwrap();
        });
    }

    #[test]
    fn loom_when_a_last_note_is_seen_then_all_items_before_it_are_too() {
        model(|| {
            let (mut producer, mut consumer) = ring::<u32>(2);
            let sending = thread::spawn(move || {
                assert!(producer.push(7).is_ok());
                producer.set_note(1);
            });
            if consumer.note() == 1 {
                assert_eq!(consumer.pop(), Some(7));
            }
            sending.join().unwrap();
        });
    }

    #[test]
    fn loom_when_an_end_goes_early_then_what_is_left_is_dropped_once() {
        model(|| {
            let item = std::sync::Arc::new(());
            let (mut producer, mut consumer) = ring(2);
            let sent = item.clone();
            let sending = thread::spawn(move || assert!(producer.push(sent).is_ok()));
            drop(consumer.pop());
            drop(consumer);
            sending.join().unwrap();
            assert_eq!(std::sync::Arc::strong_count(&item), 1);
        });
    }
}
