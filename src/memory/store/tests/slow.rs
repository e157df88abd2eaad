//! How much a step does on a processor on which a distance takes as long as a whole step should.

use super::*;
use crate::memory::index::kernels::{Kernels, Line};
use std::{
    cell::Cell,
    time::{Duration, Instant},
};

const LONG: usize = 64;
const ITEMS: usize = 2_000;
/// Distances between two looks at the clock, and those of one node's links.
const AT_ONCE: usize = 64 + 33;
/// What an insertion may take beyond that: links that are chosen anew.
const BEYOND: usize = 33 + 33 * 32;

thread_local! {
    static COMPUTED: Cell<usize> = const { Cell::new(0) };
}

fn slow(query: &[Line], rows: &[&[Line]], products: &mut [i32]) {
    let began = Instant::now();
    let all = Kernels::available();
    (all.last().expect("it is always there").dot_rows)(query, rows, products);
    COMPUTED.set(COMPUTED.get() + rows.len());
    while began.elapsed() < Duration::from_micros(20) {}
}

fn vector(random: &mut fastrand::Rng) -> Vec<f32> {
    (0..LONG).map(|_| random.f32() - 0.5).collect()
}

#[test]
fn a_step_on_a_slow_processor_computes_fewer_distances() {
    let mut random = fastrand::Rng::with_seed(71);
    let settings = StoreSettings { dimension: LONG, segment_bytes: 1 << 20, ..settings(None) };
    let (mut partition, _store) = open(&settings);
    let named =
        |number: usize, vector| MemoryItem { vector, ..item(&format!("key-{number}"), 0.0) };
    for number in 0..ITEMS {
        while partition.put(&named(number, vector(&mut random)), 0).is_err() {
            partition.settle().unwrap();
        }
    }
    partition.settle().unwrap();
    while partition.take_outcome().is_some() {}
    partition.index.set_kernel(slow);

    let query = MemoryQuery { vector: vector(&mut random), k: 300, ..MemoryQuery::default() };
    let mut search = Search::new(query, 600).unwrap();
    let mut steps = 0;
    let hits = run(&mut partition, |partition| {
        steps += 1;
        COMPUTED.set(0);
        let stepped = search.step(partition);
        assert!(COMPUTED.get() <= AT_ONCE, "{} distances in one step", COMPUTED.get());
        stepped
    });
    assert_eq!(hits.unwrap().len(), 300);
    assert!(steps > 600 / AT_ONCE, "{steps} steps");

    partition.put(&named(ITEMS, vector(&mut random)), 7).unwrap();
    partition.flush();
    let mut steps = 0;
    while partition.take_outcome().is_none_or(|(token, _)| token != 7) {
        steps += 1;
        COMPUTED.set(0);
        assert!(matches!(partition.apply(), Step::Done(true)));
        assert!(COMPUTED.get() <= AT_ONCE + BEYOND, "{} in one step", COMPUTED.get());
    }
    assert!(steps > 1, "an insertion among so many takes several steps");
}
