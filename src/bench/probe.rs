//! How fast the machine is right now: two pinned threads and a bare ring.

use crate::{
    metrics::{Latency, Probe},
    runtime::{executor::pin_thread, ring::ring},
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Round trips that are measured.
const ROUND_TRIPS: u64 = 50_000;
/// Round trips before those, while caches and clocks warm up.
const WARM_UP: u64 = 5_000;
/// Messages that are sent one by one.
const MESSAGES: u64 = 2_000_000;
/// Messages that a ring holds.
const DEPTH: usize = 1024;

/// Measures between the first two of `cpus`, for less than half a second; on a single processor
/// there is nothing to measure and all figures are 0.
pub(super) fn measure(cpus: &[usize]) -> Probe {
    let &[here, there, ..] = cpus else { return Probe::default() };
    let work = move || {
        pin_thread(here);
        let (round_trips, elapsed) = (round_trips(there), one_way(there));
        let ns = |quantile| round_trips.quantile_ms(quantile) * 1e6;
        Probe {
            ring_p50_ns: ns(0.5),
            ring_p99_ns: ns(0.99),
            ring_msgs_per_s: MESSAGES as f64 / elapsed.as_secs_f64(),
        }
    };
    thread::spawn(work).join().expect("the probe does not panic")
}

fn round_trips(there: usize) -> Latency {
    let (mut ask, mut asked) = ring::<u64>(DEPTH);
    let (mut answer, mut answered) = ring::<u64>(DEPTH);
    let total = WARM_UP + ROUND_TRIPS;
    let echo = thread::spawn(move || {
        pin_thread(there);
        for _ in 0..total {
            let value = spin(|| asked.pop());
            answer.push(value).expect("the ring is empty");
        }
    });
    let mut latency = Latency::new();
    for value in 0..total {
        let began = Instant::now();
        ask.push(value).expect("the ring is empty");
        assert_eq!(spin(|| answered.pop()), value);
        if value >= WARM_UP {
            latency.record(began.elapsed().as_nanos() as u64);
        }
    }
    echo.join().expect("the echo does not panic");
    latency
}

fn one_way(there: usize) -> Duration {
    let (mut sender, mut receiver) = ring::<u64>(DEPTH);
    let receive = thread::spawn(move || {
        pin_thread(there);
        for expected in 0..MESSAGES {
            assert_eq!(spin(|| receiver.pop()), expected);
        }
    });
    let began = Instant::now();
    for value in 0..MESSAGES {
        let mut value = Some(value);
        spin(|| match sender.push(value.take()?) {
            Ok(()) => Some(()),
            Err(refused) => {
                value = Some(refused);
                None
            }
        });
    }
    receive.join().expect("the receiver does not panic");
    began.elapsed()
}

fn spin<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = look() {
            return found;
        }
        std::hint::spin_loop();
    }
}
