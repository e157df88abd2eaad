//! No step computes many more distances than it was given, whatever is done.

use super::{super::kernels::Line, *};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

/// More than vectors have that are compared as they are, and not by a kernel of codes.
const DIMENSIONS: usize = 24;
const COUNT: usize = 4000;
/// What a step is given.
const STEP: usize = 128;
/// What one decision may take beyond that: the links of a full node are put in order, 33 of them, or one is compared
/// with all that were chosen before it. A comparison counts as half a distance, as few are with all.
const BEYOND: usize = STEP + 33;
/// Where a search begins.
const ENTRY: usize = 1;

thread_local! {
    static COMPUTED: Cell<usize> = const { Cell::new(0) };
    /// What each sort of step has computed in all.
    static ALL: RefCell<BTreeMap<&'static str, usize>> = const { RefCell::new(BTreeMap::new()) };
}

/// The product of codes, counted.
fn counting(query: &[Line], rows: &[&[Line]], products: &mut [i32]) {
    COMPUTED.set(COMPUTED.get() + rows.len());
    let portable = super::super::kernels::Kernels::available();
    (portable.last().expect("it is always there").dot_rows)(query, rows, products);
}

/// Does something, which must compute no more than that.
fn bounded<T>(what: &'static str, most: usize, work: impl FnOnce() -> T) -> T {
    COMPUTED.set(0);
    let result = work();
    let computed = COMPUTED.get();
    assert!(computed <= most, "{what}: {computed} distances in one step");
    ALL.with_borrow_mut(|all| *all.entry(what).or_default() += computed);
    result
}

fn insert(index: &mut Index, vector: &[f32]) {
    let mut insertion = bounded("begin_insert", 0, || index.begin_insert(vector)).expect("well");
    while bounded("insertion", STEP + BEYOND, || insertion.step(index, STEP)).is_none() {}
}

/// Goes on to the end of a search that accepts one of so many.
fn end(index: &mut Index, what: &'static str, mut search: Search, part: Row) -> usize {
    let mut step = || search.step(index, STEP, |row| row % part == part - 1);
    let hits = std::iter::from_fn(|| Some(bounded(what, STEP + 33, &mut step)));
    hits.flatten().next().expect("it comes to an end").len()
}

fn search(index: &mut Index, query: &[f32], k: usize, ef: usize) {
    let search = bounded("begin_search", ENTRY, || index.begin_search(query, k, ef));
    assert_eq!(end(index, "search", search.expect("well"), 1), k.min(index.stats().live));
    for part in [2, 7, 1000] {
        let accepted = COUNT / part as usize;
        let begin = || index.begin_filtered_search(query, k, ef, accepted);
        let search = bounded("begin_filtered_search", ENTRY, begin).expect("well");
        end(index, "filtered search", search, part);
    }
    let rows: Vec<Row> = (0..COUNT as Row).collect();
    let begin = || index.begin_search_among(query, k, &rows);
    let search = bounded("begin_search_among", 0, begin).expect("well");
    assert_eq!(end(index, "search among", search, 1), k.min(index.stats().live));
}

#[test]
fn no_step_computes_much_more_than_it_was_given() {
    for metric in [Metric::Cosine, Metric::Euclidean, Metric::Dot] {
        ALL.take();
        let mut random = Rng::with_seed(67);
        let all = vectors(&mut random, COUNT, DIMENSIONS);
        let options = IndexOptions { seed: 67, ..IndexOptions::new(DIMENSIONS, metric) };
        let mut index = Index::new(options).expect("the options are well");
        index.graph.coding.kernels.dot_rows = counting;
        all[100..].iter().for_each(|vector| insert(&mut index, vector));
        for vector in &all[..100] {
            let row = bounded("insert_late", 0, || index.insert_late(vector));
            row.expect("the vector is well");
        }
        search(&mut index, &all[3], 10, 50);
        while bounded("link_some", STEP + BEYOND, || index.link_some(STEP)) {}
        for (at, query) in all.iter().step_by(400).enumerate() {
            let (k, ef) = [(10, 50), (1000, EF_MAX), (10, 400)][at % 3];
            search(&mut index, query, k, ef);
        }
        // All around one vector go, so that the nodes that the sweep passes lose many links at once.
        let near = index.search(&all[7], 1500, 1500, |_| true).expect("the query is well");
        for hit in near {
            assert!(bounded("begin_remove", 0, || index.begin_remove(hit.row)));
            while bounded("sweep", STEP + 2 * 33, || index.sweep_some(STEP)) {}
        }
        assert_eq!(index.stats().live, COUNT - 1500);
        search(&mut index, &all[7], 10, 50);
        all.iter().take(1500).for_each(|vector| insert(&mut index, vector));
        // No link leads to some, and none from some of them.
        super::reach::cut(&mut index, |_, link| link % 50 == 0);
        super::reach::cut(&mut index, |row, _| row % 100 == 0);
        index.reach.ask();
        while bounded("reach", STEP + 2 * 33, || index.reach_some(STEP)) {}
        super::graph::check_ways(&index);
        super::graph::check(&mut index);
        let all = ALL.take();
        println!("{metric:?}: {all:?}");
        for what in [
            "insertion",
            "begin_search",
            "search",
            "filtered search",
            "search among",
            "link_some",
            "sweep",
            "reach",
        ] {
            assert!(all[what] > 0, "{metric:?}: no distance of {what} was counted: {all:?}");
        }
    }
}
