//! The lock-free files of coreflow, compiled with loom's atomics.
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release` in this folder.

#[path = "../../../src/runtime/parking.rs"]
pub mod parking;
#[path = "../../../src/runtime/ring.rs"]
pub mod ring;
#[path = "../../../src/runtime/sync.rs"]
pub mod sync;

#[cfg(all(test, loom))]
mod tests {
    use super::{parking::Parking, ring::ring};
    use loom::{
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicUsize, Ordering},
        },
        thread,
    };

    #[test]
    fn values_arrive_once_and_in_order_through_a_ring_that_fills_up() {
        loom::model(|| {
            let (mut producer, mut consumer) = ring::<Box<usize>>(2);
            let sender = thread::spawn(move || {
                for value in 0..3 {
                    let mut value = Box::new(value);
                    while let Err(refused) = producer.push(value) {
                        value = refused;
                        thread::yield_now();
                    }
                }
            });
            for expected in 0..3 {
                let value = loop {
                    match consumer.pop() {
                        Some(value) => break value,
                        None => thread::yield_now(),
                    }
                };
                assert_eq!(*value, expected);
            }
            assert!(consumer.pop().is_none());
            sender.join().unwrap();
        });
    }

    struct Counted(Arc<AtomicUsize>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn values_left_in_a_ring_are_dropped_once_whichever_end_goes_first() {
        loom::model(|| {
            let drops = Arc::new(AtomicUsize::new(0));
            let (mut producer, mut consumer) = ring(2);
            let sent = drops.clone();
            let sender = thread::spawn(move || {
                for _ in 0..2 {
                    assert!(producer.push(Counted(sent.clone())).is_ok());
                }
            });
            drop(consumer.pop());
            drop(consumer);
            sender.join().unwrap();
            assert_eq!(drops.load(Ordering::Relaxed), 2);
        });
    }

    #[test]
    fn a_drained_ring_has_handed_over_everything() {
        loom::model(|| {
            let (mut producer, mut consumer) = ring::<usize>(2);
            assert!(producer.is_drained());
            producer.push(7).unwrap();
            let taker = thread::spawn(move || {
                while consumer.pop().is_none() {
                    thread::yield_now();
                }
                consumer
            });
            while !producer.is_drained() {
                thread::yield_now();
            }
            assert!(taker.join().unwrap().is_empty());
        });
    }

    #[test]
    fn work_published_while_a_core_parks_is_seen_or_rung_for() {
        loom::model(|| {
            let parking = Arc::new(Parking::default());
            let (mut producer, consumer) = ring::<usize>(2);
            let rung = Arc::new(AtomicBool::new(false));
            let (theirs, bell) = (parking.clone(), rung.clone());
            let publisher = thread::spawn(move || {
                producer.push(1).unwrap();
                if theirs.bell_needed() {
                    bell.store(true, Ordering::Release);
                }
                producer
            });
            parking.prepare();
            let seen = !consumer.is_empty();
            let _producer = publisher.join().unwrap();
            assert!(seen || rung.load(Ordering::Acquire), "slept through published work");
        });
    }
}
