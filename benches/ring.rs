//! The ring between two cores, one `u64` at a time, beside crossbeam-queue's `ArrayQueue`, which is
//! bounded too but lets any number of threads put in and take out.
//!
//! - `ring/one_thread`: a value goes in and comes out again; nothing crosses a core.
//! - `ring/one_way_DEPTH`: a pinned thread sends values to another pinned thread. 64 is what a ring
//!   of the mesh holds by default.
//! - `ring/round_trip`: a value goes to the other thread, which sends it back through a second
//!   ring.
//!
//! `cargo bench --bench ring`, or `cargo bench --bench ring -- --quick one_way` for a first look.
//!
//! The middle one of the three times is the estimate for one value, or for one value there and
//! back. Both threads spin, so another program on the same processors shows as outliers; the
//! machine itself has several speeds, so compare the two queues of one run and nothing else. With a
//! single processor only the first group is measured.

use coreflow::{
    config::Config,
    runtime::{
        executor::pin_thread,
        ring::{Consumer, Producer, ring},
        topology::Topology,
    },
};
use criterion::{Criterion, Throughput};
use crossbeam_queue::ArrayQueue;
use std::{
    hint::{black_box, spin_loop},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// What a ring of the mesh holds by default.
const DEPTH: usize = 64;
/// Deep enough that a sender seldom waits for a receiver that was interrupted.
const DEPTH_LONG: usize = 1024;

/// The end of a queue that puts values in.
trait Push: Send + 'static {
    fn push(&mut self, value: u64) -> Result<(), u64>;
    fn is_drained(&self) -> bool;
}

/// The end of a queue that takes values out.
trait Pop: Send + 'static {
    fn pop(&mut self) -> Option<u64>;
}

impl Push for Producer<u64> {
    fn push(&mut self, value: u64) -> Result<(), u64> {
        Producer::push(self, value)
    }

    fn is_drained(&self) -> bool {
        Producer::is_drained(self)
    }
}

impl Pop for Consumer<u64> {
    fn pop(&mut self) -> Option<u64> {
        Consumer::pop(self)
    }
}

impl Push for Arc<ArrayQueue<u64>> {
    fn push(&mut self, value: u64) -> Result<(), u64> {
        ArrayQueue::push(self, value)
    }

    fn is_drained(&self) -> bool {
        self.is_empty()
    }
}

impl Pop for Arc<ArrayQueue<u64>> {
    fn pop(&mut self) -> Option<u64> {
        ArrayQueue::pop(self)
    }
}

/// Both ends of an `ArrayQueue`.
fn array_queue(depth: usize) -> (Arc<ArrayQueue<u64>>, Arc<ArrayQueue<u64>>) {
    let queue = Arc::new(ArrayQueue::new(depth));
    (queue.clone(), queue)
}

fn spin<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = look() {
            return found;
        }
        spin_loop();
    }
}

fn send(sender: &mut impl Push, value: u64) {
    spin(|| sender.push(value).ok());
}

fn pin(cpu: usize) {
    assert!(pin_thread(cpu), "this process may not use processor {cpu}");
}

/// How long `values` take to the thread on the processor `there`.
fn one_way(
    (mut sender, mut receiver): (impl Push, impl Pop),
    there: usize,
    values: u64,
) -> Duration {
    let receive = thread::spawn(move || {
        pin(there);
        (0..=values).for_each(|expected| assert_eq!(spin(|| receiver.pop()), expected));
    });
    // One value goes ahead: when it is taken, the other thread has started.
    send(&mut sender, 0);
    spin(|| sender.is_drained().then_some(()));
    let began = Instant::now();
    (1..=values).for_each(|value| send(&mut sender, value));
    spin(|| sender.is_drained().then_some(()));
    let elapsed = began.elapsed();
    receive.join().expect("every value arrived in order");
    elapsed
}

/// How long `values` take one after the other to the thread on the processor `there` and back.
fn round_trips<S: Push, R: Pop>(queue: fn(usize) -> (S, R), there: usize, values: u64) -> Duration {
    let (mut ask, mut asked) = queue(DEPTH);
    let (mut answer, mut answered) = queue(DEPTH);
    let echo = thread::spawn(move || {
        pin(there);
        (0..=values).for_each(|_| send(&mut answer, spin(|| asked.pop())));
    });
    let mut trip = |value| {
        send(&mut ask, value);
        assert_eq!(spin(|| answered.pop()), value);
    };
    // One value goes ahead: when it is back, the other thread has started.
    trip(0);
    let began = Instant::now();
    (1..=values).for_each(trip);
    let elapsed = began.elapsed();
    echo.join().expect("the echo does not panic");
    elapsed
}

fn bench_one_thread(criterion: &mut Criterion) {
    fn through((mut sender, mut receiver): (impl Push, impl Pop)) -> impl FnMut() -> Option<u64> {
        move || {
            sender.push(black_box(7)).expect("the queue is empty");
            receiver.pop()
        }
    }
    let (mut ours, mut theirs) = (through(ring(DEPTH)), through(array_queue(DEPTH)));
    let mut group = criterion.benchmark_group("ring/one_thread");
    group.throughput(Throughput::Elements(1));
    group.bench_function("coreflow", |bencher| bencher.iter(&mut ours));
    group.bench_function("array_queue", |bencher| bencher.iter(&mut theirs));
}

fn bench_one_way(criterion: &mut Criterion, there: usize) {
    for depth in [DEPTH, DEPTH_LONG] {
        let mut group = criterion.benchmark_group(format!("ring/one_way_{depth}"));
        group.throughput(Throughput::Elements(1));
        group.bench_function("coreflow", |bencher| {
            bencher.iter_custom(|values| one_way(ring(depth), there, values));
        });
        group.bench_function("array_queue", |bencher| {
            bencher.iter_custom(|values| one_way(array_queue(depth), there, values));
        });
    }
}

fn bench_round_trip(criterion: &mut Criterion, there: usize) {
    let mut group = criterion.benchmark_group("ring/round_trip");
    group.throughput(Throughput::Elements(1));
    group.bench_function("coreflow", |bencher| {
        bencher.iter_custom(|values| round_trips(ring, there, values));
    });
    group.bench_function("array_queue", |bencher| {
        bencher.iter_custom(|values| round_trips(array_queue, there, values));
    });
}

fn main() {
    let mut criterion = Criterion::default()
        .without_plots()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    let topology = Topology::detect(&Config::default().cores).expect("a processor to run on");
    pin(topology.workers[0]);
    bench_one_thread(&mut criterion);
    match topology.workers.get(1) {
        Some(&there) => {
            bench_one_way(&mut criterion, there);
            bench_round_trip(&mut criterion, there);
        }
        None => eprintln!("one processor: nothing is measured between two"),
    }
    criterion.final_summary();
}
