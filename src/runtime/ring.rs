//! A bounded single-producer single-consumer ring.
//!
//! Invariants worth naming:
//! - What one side puts in comes out at the other side once, in order, or is dropped with the ring.
//! - A full ring refuses and hands the value back; nothing is overwritten.
//! - The two ends share nothing but the slots: each end's position is its own, and whether a slot
//!   is full is told by a flag in the slot's own cache line. Handing over a value moves one line
//!   between the cores, where rings with shared indices move two (this is FastForward's layout:
//!   Giacomoni, Moseley, Vachharajani, PPoPP 2008).
//!
//! The same file is checked under loom by the package in `tests/loom`, which is why the atomics
//! come from `super::sync`.

#![allow(unsafe_code)]

use super::sync::{Arc, AtomicBool, Ordering, UnsafeCell};
use std::mem::MaybeUninit;

/// One value's place. 128 bytes keep neighbours out of the pair of lines that the hardware
/// fetches together.
#[repr(align(128))]
struct Slot<T> {
    full: AtomicBool,
    value: UnsafeCell<MaybeUninit<T>>,
}

struct Shared<T> {
    slots: Box<[Slot<T>]>,
    /// Set by the end that was dropped first.
    closed: AtomicBool,
}

// SAFETY: a slot's value is touched by one side at a time: the producer while `full` is false,
// the consumer while it is true, and the flag is handed over with release and acquire. There is
// one producer and one consumer because neither end can be cloned and both need `&mut self`.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; the values themselves may move between threads because `T: Send`.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        for slot in &mut self.slots {
            if slot.full.load(Ordering::Acquire) {
                // SAFETY: both ends are gone, and a full slot holds a value that was written.
                slot.value.with_mut(|value| unsafe { (*value).assume_init_drop() });
            }
        }
    }
}

/// The end that puts values in.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    next: usize,
}

/// The end that takes values out.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    next: usize,
}

/// A ring for `capacity` values, a power of two.
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    assert!(capacity.is_power_of_two(), "a ring's capacity is a power of two");
    let slots = (0..capacity)
        .map(|_| Slot {
            full: AtomicBool::new(false),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        })
        .collect();
    let shared = Arc::new(Shared { slots, closed: AtomicBool::new(false) });
    (Producer { shared: shared.clone(), next: 0 }, Consumer { shared, next: 0 })
}

impl<T> Producer<T> {
    fn slot(&self, position: usize) -> &Slot<T> {
        &self.shared.slots[position & (self.shared.slots.len() - 1)]
    }

    /// Puts a value in, or hands it back when the ring is full.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        let slot = self.slot(self.next);
        if slot.full.load(Ordering::Acquire) {
            return Err(value);
        }
        // SAFETY: the slot is empty, so the consumer does not touch it until `full` is set, and
        // this is the only producer.
        slot.value.with_mut(|place| unsafe { (*place).write(value) });
        slot.full.store(true, Ordering::Release);
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// Whether the next [`Producer::push`] would be refused.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.slot(self.next).full.load(Ordering::Acquire)
    }

    /// Whether the consumer has taken everything that was put in.
    #[inline]
    pub fn is_drained(&self) -> bool {
        !self.slot(self.next.wrapping_sub(1)).full.load(Ordering::Acquire)
    }

    /// Whether the consumer is gone, so that nobody will ever take a value out.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }
}

impl<T> Consumer<T> {
    fn slot(&self) -> &Slot<T> {
        &self.shared.slots[self.next & (self.shared.slots.len() - 1)]
    }

    /// Takes the oldest value out.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let slot = self.slot();
        if !slot.full.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: `full` was set after the value was written, and the producer does not touch
        // the slot until the flag is cleared below; the value is read once.
        let value = slot.value.with(|place| unsafe { (*place).assume_init_read() });
        slot.full.store(false, Ordering::Release);
        self.next = self.next.wrapping_add(1);
        Some(value)
    }

    /// Whether there is nothing to take now.
    #[inline]
    pub fn is_empty(&self) -> bool {
        !self.slot().full.load(Ordering::Acquire)
    }

    /// Whether the producer is gone; what it put in before can still be taken.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn two_threads_hand_over_every_value_once_and_in_order() {
        const VALUES: usize = if cfg!(miri) { 200 } else { 50_000 };
        let (mut producer, mut consumer) = ring::<Box<usize>>(4);
        let feed = std::thread::spawn(move || {
            for number in 0..VALUES {
                let mut value = Box::new(number);
                while let Err(refused) = producer.push(value) {
                    value = refused;
                    std::thread::yield_now();
                }
            }
        });
        for number in 0..VALUES {
            let value = loop {
                match consumer.pop() {
                    Some(value) => break value,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(*value, number);
        }
        feed.join().unwrap();
        assert!(consumer.is_empty() && consumer.is_closed());
    }
}
