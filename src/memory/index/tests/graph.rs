//! The graph after any sequence of operations.

use super::super::{
    graph::{Node, State},
    options::LEVEL_MAX,
    rows::NONE,
    steps::Budget,
};
use super::*;
use crate::memory::cases::cases;
use proptest::{
    collection::vec,
    prelude::{Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest},
};
use std::collections::BTreeSet;

const ROWS_MAX: u32 = 130;

/// Checks the invariants of the room's page, and that behind a pass ways lead to all that is linked, and from it.
pub(super) fn check(index: &mut Index) {
    check_links(index);
    // What a sweep has in hand is a way that ends with it.
    if index.sweep.is_under_way() {
        let mut scratch = index.scratches.take();
        index.sweep_on(&mut scratch, &mut Budget::unlimited());
    }
    index.reach.ask();
    while index.reach_some(usize::MAX) {}
    check_links(index);
    check_ways(index);
}

/// Checks that on each layer ways lead from the entry to all that lives there and is linked, and from that to the entry; through
/// nodes in any state. The first vectors are compared without a way.
pub(super) fn check_ways(index: &Index) {
    if index.first.is_none() {
        let live = index.live.len();
        let (lost, stuck) = (lost(index), stuck(index));
        assert!(lost.is_empty(), "no way leads to {lost:?} (layer, row) of {live}");
        assert!(stuck.is_empty(), "no way leads from {stuck:?} (layer, row) of {live}");
    }
}

/// Checks the invariants of the room's page.
pub(super) fn check_links(index: &Index) {
    let graph = &index.graph;
    let nodes = &graph.nodes;
    let state = |slot: u32| nodes[slot as usize].state;
    for (slot, node) in (0..).zip(nodes.iter()) {
        if matches!(node.state, State::Free | State::Promised) {
            assert_eq!(node.tower, NONE);
            continue;
        }
        assert!(usize::from(node.level) <= LEVEL_MAX);
        assert_eq!(node.tower == NONE, node.level == 0);
        assert_eq!(index.contains(slot), matches!(node.state, State::Live | State::Late));
        for layer in 0..=usize::from(node.level) {
            let links = graph.links(slot, layer);
            let distinct: BTreeSet<_> = links.iter().collect();
            assert_eq!(distinct.len(), links.len(), "a link twice");
            for &link in links {
                assert_ne!(link, slot, "a link to itself");
                // Dying nodes are freed one after the other, and nothing leads to the last ones.
                if node.state != State::Dying {
                    assert_ne!(state(link), State::Free, "a link to a free slot");
                    assert!(graph.level(link) >= layer, "a link above its target");
                }
            }
        }
    }
    let towers = nodes.iter().filter(|node| node.tower != NONE).map(|node| node.tower);
    let towers: Vec<_> = towers.chain(graph.towers_free.iter().copied()).collect();
    let distinct: BTreeSet<_> = towers.iter().collect();
    assert_eq!(distinct.len(), towers.len(), "a tower twice");
    assert_eq!(towers.len(), graph.towers.len(), "a tower is lost");

    let used = || nodes.iter().filter(|node| !matches!(node.state, State::Free | State::Promised));
    match graph.entry {
        // Dying nodes are being freed: nothing begins there any more.
        None => {
            assert!(
                used().all(|node| matches!(node.state, State::Coming | State::Late | State::Dying))
            );
        }
        Some(entry) => {
            assert_ne!(state(entry), State::Free);
            let mut live = nodes.iter().filter(|node| node.state == State::Live);
            assert!(live.all(|node| usize::from(node.level) <= graph.level(entry)));
        }
    }
    let stats = index.stats();
    let is_live = |node: &&Node| matches!(node.state, State::Live | State::Late);
    assert_eq!(used().filter(is_live).count(), stats.live);
    assert!(used().filter(|node| node.state == State::Late).count() <= index.late());
    let is_dead = |node: &&Node| matches!(node.state, State::Dead | State::Dying);
    assert_eq!(used().filter(is_dead).count(), stats.dead);
    let coming = used().filter(|node| node.state == State::Coming).count();
    assert_eq!(coming, index.coming.len());
}

/// The layers of a graph.
fn layers(index: &Index) -> std::ops::RangeInclusive<usize> {
    0..=index.graph.entry.map_or(0, |entry| index.graph.level(entry))
}

/// Nodes of a layer that live and are linked, but for some.
fn others(index: &Index, layer: usize, some: &[bool]) -> Vec<(usize, Row)> {
    let node = |slot: Row| &index.graph.nodes[slot as usize];
    let is_on =
        |slot: &Row| node(*slot).state == State::Live && usize::from(node(*slot).level) >= layer;
    let rows = 0..index.graph.nodes.len() as Row;
    let rows = rows.filter(|slot| is_on(slot) && !some[*slot as usize]);
    rows.map(|slot| (layer, slot)).collect()
}

/// On which layer no way leads to which nodes.
pub(super) fn lost(index: &Index) -> Vec<(usize, Row)> {
    let graph = &index.graph;
    let of_layer = |layer| {
        let mut is_reached = vec![false; graph.nodes.len()];
        let mut ahead: Vec<Row> = graph.entry.into_iter().collect();
        ahead.iter().for_each(|&slot| is_reached[slot as usize] = true);
        while let Some(slot) = ahead.pop() {
            for &link in graph.links(slot, layer) {
                if !std::mem::replace(&mut is_reached[link as usize], true) {
                    ahead.push(link);
                }
            }
        }
        others(index, layer, &is_reached)
    };
    layers(index).flat_map(of_layer).collect()
}

/// On which layer no way leads to the entry from which nodes.
pub(super) fn stuck(index: &Index) -> Vec<(usize, Row)> {
    let graph = &index.graph;
    let of_layer = |layer| {
        let mut leads = vec![false; graph.nodes.len()];
        graph.entry.into_iter().for_each(|entry| leads[entry as usize] = true);
        let mut goes_on = true;
        while std::mem::take(&mut goes_on) {
            for slot in 0..graph.nodes.len() as Row {
                let mut links = graph.links(slot, layer).iter();
                if !leads[slot as usize] && links.any(|&link| leads[link as usize]) {
                    (leads[slot as usize], goes_on) = (true, true);
                }
            }
        }
        others(index, layer, &leads)
    };
    layers(index).flat_map(of_layer).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Insert([i8; 3]),
    /// Removes a row, if something is there.
    Remove(Row),
    /// Removes every row that leaves this remainder by three.
    RemoveThird(Row),
    Search([i8; 3]),
}

/// Few rows and few values: rows are taken again, and vectors are often equal.
fn step() -> impl Strategy<Value = Step> {
    let vector = || [-2_i8..3, -2_i8..3, 1_i8..3];
    prop_oneof![
        12 => vector().prop_map(Step::Insert),
        8 => (0..ROWS_MAX).prop_map(Step::Remove),
        1 => (0..3_u32).prop_map(Step::RemoveThird),
        2 => vector().prop_map(Step::Search),
    ]
}

fn floats(vector: [i8; 3]) -> [f32; 3] {
    vector.map(f32::from)
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn invariants_hold_after_any_operations(steps in vec(step(), 1..500), seed in any::<u64>()) {
        let options = IndexOptions {
            seed, ef_construction: 16, vectors_max: ROWS_MAX, ..IndexOptions::new(3, Metric::Cosine)
        };
        let mut index = Index::new(options).expect("the options are well");
        let mut model = BTreeSet::new();
        for (count, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(vector) => match index.insert(&floats(vector)) {
                    Ok(row) => prop_assert!(model.insert(row), "the row was taken"),
                    Err(error) => {
                        prop_assert_eq!(error, Invalid::Full { max: ROWS_MAX });
                        prop_assert_eq!(model.len(), ROWS_MAX as usize);
                    }
                },
                Step::Remove(row) => prop_assert_eq!(index.remove(row), model.remove(&row)),
                Step::RemoveThird(third) => for row in (third..ROWS_MAX).step_by(3) {
                    prop_assert_eq!(index.remove(row), model.remove(&row));
                },
                Step::Search(query) => {
                    let hits = index.search(&floats(query), 5, 16, |_| true).expect("well");
                    prop_assert_eq!(hits.len(), model.len().min(5));
                    prop_assert!(hits.iter().all(|hit| model.contains(&hit.row)));
                }
            }
            if count % 16 == 0 {
                check(&mut index);
            }
        }
        check(&mut index);
        prop_assert_eq!(index.stats().live, model.len());
    }
}

#[test]
fn rows_of_removed_vectors_are_taken_again() {
    let mut random = Rng::with_seed(19);
    let all = vectors(&mut random, 1000, 8);
    let mut index = filled(Metric::Cosine, &all, 19);
    let mut rows: Vec<Row> = (0..1000).collect();
    for round in 0..2_000 {
        let at = random.usize(..1000);
        assert!(index.remove(rows[at]));
        rows[at] = index.insert(&all[random.usize(..1000)]).expect("the vector is well");
        let stats = index.stats();
        // At most what waits when a sweep begins, and as many that die while it goes on.
        let dead_max = 2 * (stats.rows / 10).max(DEAD_LEAST) + 2;
        assert!(stats.dead <= dead_max, "round {round}: {} dead", stats.dead);
        assert!(stats.rows <= 1000 + 2 * dead_max, "round {round}: {} rows", stats.rows);
    }
    check(&mut index);
}

#[test]
fn an_index_that_was_emptied_begins_anew() {
    let mut random = Rng::with_seed(23);
    let all = vectors(&mut random, 300, 8);
    let mut index = filled(Metric::Cosine, &all, 23);
    let empty = Index::new(IndexOptions::new(8, Metric::Cosine)).expect("well").stats();
    for row in 0..300 {
        assert!(index.remove(row));
        assert!(!index.remove(row));
    }
    check(&mut index);
    let stats = index.stats();
    assert_eq!((stats.live, stats.dead, stats.rows), (empty.live, empty.dead, empty.rows));
    assert_eq!(index.insert(&all[0]), Ok(0));
    check(&mut index);
}

#[test]
fn the_same_calls_make_the_same_graph() {
    let mut random = Rng::with_seed(29);
    let all = vectors(&mut random, 500, 24);
    let [mut a, mut b] = [29, 29].map(|seed| filled(Metric::Cosine, &all, seed));
    let links = |index: &Index| -> Vec<Vec<u32>> {
        (0..500).map(|slot| index.graph.links(slot, 0).to_vec()).collect()
    };
    assert_eq!(links(&a), links(&b));
    let [a, b] = [&mut a, &mut b].map(|index| index.search(&all[3], 10, 50, |_| true));
    assert_eq!(a, b);
}
