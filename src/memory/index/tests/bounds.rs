//! No step computes many more distances than it was given, whatever is done.

use super::{super::kernels::Line, *};
use std::cell::Cell;

const DIMENSIONS: usize = 16;
const COUNT: usize = 4000;
/// What a step is given.
const STEP: usize = 128;
/// What one decision may take beyond that: the links of a full node are chosen anew at once, 33 of them
/// compared with each other.
const BEYOND: usize = 33 + 33 * 32;

thread_local! {
    static COMPUTED: Cell<usize> = const { Cell::new(0) };
}

/// The product of codes, counted.
fn counting(query: &[Line], rows: &[&[Line]], products: &mut [i32]) {
    COMPUTED.set(COMPUTED.get() + rows.len());
    let portable = super::super::kernels::Kernels::available();
    (portable.last().expect("it is always there").dot_rows)(query, rows, products);
}

/// Does something, which must compute no more than a step may.
fn bounded<T>(what: &str, beyond: usize, work: impl FnOnce() -> T) -> T {
    COMPUTED.set(0);
    let result = work();
    let computed = COMPUTED.get();
    assert!(computed <= STEP + beyond, "{what}: {computed} distances in one step");
    result
}

fn insert(index: &mut Index, vector: &[f32]) {
    let mut insertion = bounded("begin_insert", 0, || index.begin_insert(vector)).expect("well");
    while bounded("insertion", BEYOND, || insertion.step(index, STEP)).is_none() {}
}

fn search(index: &mut Index, query: &[f32], k: usize, ef: usize, part: Row) -> usize {
    let mut search = bounded("begin_search", 0, || index.begin_search(query, k, ef)).expect("well");
    let step =
        |index: &mut Index, search: &mut Search| search.step(index, STEP, |row| row % part == 0);
    let hits = std::iter::from_fn(|| Some(bounded("search", 33, || step(index, &mut search))));
    hits.flatten().next().expect("it comes to an end").len()
}

#[test]
fn no_step_computes_much_more_than_it_was_given() {
    let mut random = Rng::with_seed(67);
    let all = vectors(&mut random, COUNT, DIMENSIONS);
    let options = IndexOptions { seed: 67, ..IndexOptions::new(DIMENSIONS, Metric::Cosine) };
    let mut index = Index::new(options).expect("the options are well");
    index.graph.coding.kernels.dot_rows = counting;
    all.iter().for_each(|vector| insert(&mut index, vector));
    for (at, query) in all.iter().step_by(400).enumerate() {
        let (k, ef, part) = [(10, 50, 1), (1000, 4096, 1), (10, 50, 1000)][at % 3];
        search(&mut index, query, k, ef, part);
    }
    // All around one vector go, so that the nodes that the sweep passes lose many links at once.
    let near = index.search(&all[7], 1500, 1500, |_| true).expect("the query is well");
    for hit in near {
        assert!(bounded("removal", 0, || index.begin_remove(hit.row)));
        while bounded("sweep", 2 * 33, || index.sweep_some(STEP)) {}
    }
    assert_eq!(index.stats().live, COUNT - 1500);
    all.iter().take(1500).for_each(|vector| insert(&mut index, vector));
    super::graph::check(&index);
}
