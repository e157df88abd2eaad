//! Ways to all that lives and from it, and when they are looked for.

use super::{
    graph::{check, check_links, check_ways, lost, stuck},
    recall::{numbered, recall},
    *,
};
use crate::memory::cases::cases;
use proptest::{
    prelude::{Just, Strategy, any, prop_assert, prop_oneof, proptest},
    sample::select,
};

/// Takes the links from a row to another one that are said, on all layers.
pub(super) fn cut(index: &mut Index, goes: impl Fn(Row, Row) -> bool) {
    let graph = &mut index.graph;
    for row in 0..graph.nodes.len() as Row {
        for layer in 0..=graph.level(row) {
            let links = graph.links(row, layer).iter().copied();
            let links: Vec<Row> = links.filter(|&link| !goes(row, link)).collect();
            graph.set_links(row, layer, &links);
        }
    }
}

/// What leads nowhere any more.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Nothing leads to one in so many rows.
    To(Row),
    /// One in so many leads to nothing.
    From(Row),
    /// Neither.
    Off(Row),
    /// No links lead from these parts to each other.
    Parts(Row),
    /// Links lead to later parts alone.
    Later(Row),
}

impl Cut {
    fn goes(self, row: Row, link: Row) -> bool {
        match self {
            Cut::To(every) => link.is_multiple_of(every),
            Cut::From(every) => row.is_multiple_of(every),
            Cut::Off(every) => link.is_multiple_of(every) || row.is_multiple_of(every),
            Cut::Parts(parts) => row % parts != link % parts,
            Cut::Later(parts) => row % parts > link % parts,
        }
    }
}

fn cuts() -> impl Strategy<Value = Cut> {
    prop_oneof![
        (2..100_u32).prop_map(Cut::To),
        (2..100_u32).prop_map(Cut::From),
        (2..100_u32).prop_map(Cut::Off),
        (2..100_u32).prop_map(Cut::Parts),
        (2..100_u32).prop_map(Cut::Later),
        Just(Cut::Off(1)),
    ]
}

proptest! {
    #![proptest_config(cases(24))]

    /// Whatever links are missing, and whatever comes and goes while the pass is under way.
    #[test]
    fn a_pass_makes_ways_to_all_that_lives_and_from_it(
        seed in any::<u64>(),
        count in 70..900_usize,
        dimensions in select(vec![2, 3, 17, 40]),
        metric in select(vec![Metric::Cosine, Metric::Euclidean, Metric::Dot]),
        cuts in cuts(),
        step in 1..400_usize,
        changes in any::<bool>(),
    ) {
        let mut random = Rng::with_seed(seed);
        let all = vectors(&mut random, count, dimensions);
        let mut index = filled(metric, &all, seed);
        while index.reach_some(usize::MAX) {}
        check_ways(&index);
        let before: Vec<Vec<Row>> =
            (0..count as Row).map(|row| index.graph.links(row, 0).to_vec()).collect();
        index.reach.ask();
        while index.reach_some(usize::MAX) {}
        let same = |row: Row| before[row as usize] == index.graph.links(row, 0);
        prop_assert!((0..count as Row).all(same), "a pass changes nothing where all is well");
        let mended = index.stats().mended;
        cut(&mut index, |row, link| cuts.goes(row, link));
        let is_whole = lost(&index).is_empty() && stuck(&index).is_empty();
        index.reach.ask();
        while index.reach_some(step) {
            check_links(&index);
            if changes && random.usize(..8) == 0 {
                index.begin_remove(random.u32(..count as Row));
                index.insert(&all[random.usize(..count)]).expect("there is room");
            }
        }
        if changes {
            check(&mut index);
        }
        check_ways(&index);
        prop_assert!(is_whole || index.stats().mended > mended);
    }

    /// Of those that no link led to, the nearest to themselves are found by a short walk.
    #[test]
    fn what_a_pass_has_mended_is_found(
        seed in any::<u64>(),
        dimensions in select(vec![3, 17, 40]),
        metric in select(vec![Metric::Cosine, Metric::Euclidean]),
        every in 2..50_u32,
    ) {
        let mut random = Rng::with_seed(seed);
        let all = vectors(&mut random, 800, dimensions);
        let mut index = filled(metric, &all, seed);
        cut(&mut index, |_, link| link % every == 0);
        check(&mut index);
        let queries: Vec<_> = all.iter().step_by(every as usize).cloned().collect();
        let found = recall(&mut index, &numbered(all), &queries, metric, 50);
        prop_assert!(found >= 0.95, "{}", found);
    }
}

/// Those that are the same lead to few of each other.
#[test]
fn ways_lead_to_each_of_many_that_are_the_same() {
    let mut random = Rng::with_seed(5);
    for metric in [Metric::Cosine, Metric::Euclidean, Metric::Dot] {
        let mut all = vectors(&mut random, 900, 24);
        let same = all[0].clone();
        all[200..].iter_mut().step_by(2).for_each(|vector| vector.clone_from(&same));
        let mut index = filled(metric, &all, 5);
        check(&mut index);
        let others: Vec<Vec<f32>> = all.iter().skip(1).step_by(50).cloned().collect();
        let found = recall(&mut index, &numbered(all), &others, metric, 100);
        assert!(found >= 0.95, "{metric:?}: {found}");
    }
}

fn settle(index: &mut Index) {
    while index.reach_some(usize::MAX) {}
    assert!(!index.has_to_reach() && !index.reach_some(1));
}

/// Each insertion pays for a part of a pass, and so do removals: nothing is looked for without a reason.
#[test]
fn a_pass_is_due_when_much_has_changed() {
    let mut random = Rng::with_seed(7);
    let all = vectors(&mut random, 1000, 24);
    let mut index = Index::new(IndexOptions::new(24, Metric::Cosine)).expect("well");
    assert!(!index.has_to_reach(), "nothing is there");
    let mut passes = Vec::new();
    for (count, vector) in (1..).zip(&all) {
        index.insert(vector).expect("there is room");
        if index.has_to_reach() {
            passes.push(count);
            settle(&mut index);
        }
    }
    assert!(passes.len() >= 8 && passes.len() <= 12, "{passes:?}");
    // It is due when a sweep has ended, and not while it goes on.
    let mut removed = 0;
    while !index.has_to_reach() {
        assert!(index.begin_remove(removed));
        removed += 1;
        while !index.has_to_reach() && index.sweep_some(64) {}
    }
    assert!(removed >= 100, "{removed}");
    settle(&mut index);
    // What an image has was not looked at.
    let mut loader = Loader::new(index.options.clone()).expect("the options are well");
    let (mut image, mut chunk) = (index.begin_image(), Vec::new());
    while image.chunk(&index, &mut chunk).is_some() {
        loader.chunk(&chunk).expect("the chunk is well");
        chunk.clear();
    }
    let wanted = |row| if index.contains(row) { Wanted::Same } else { Wanted::Nothing };
    let (mut loaded, again) = loader.finish(1000, wanted).expect("there is room");
    assert!(again.is_empty() && loaded.has_to_reach());
    settle(&mut loaded);
}

/// An index that is emptied while a pass is under way begins anew.
#[test]
fn a_pass_ends_with_what_it_looks_at() {
    let mut random = Rng::with_seed(11);
    let all = vectors(&mut random, 300, 24);
    let mut index = filled(Metric::Cosine, &all, 11);
    assert!(index.reach_some(1) && index.has_to_reach());
    (0..300).for_each(|row| assert!(index.remove(row)));
    assert!(!index.has_to_reach());
    all.iter().for_each(|vector| assert!(index.insert(vector).is_ok()));
    check(&mut index);
}

/// Entries go, and rows of any level come, while a pass looks for another one.
#[test]
fn the_entry_is_the_highest_whatever_comes_meanwhile() {
    let mut random = Rng::with_seed(17);
    let all = vectors(&mut random, 1200, 8);
    let options = IndexOptions { ef_construction: 16, ..IndexOptions::new(8, Metric::Cosine) };
    let mut index = Index::new(options).expect("the options are well");
    all.iter().for_each(|vector| assert!(index.insert(vector).is_ok()));
    for round in 0..4000 {
        let entry = index.graph.entry.expect("some live");
        index.begin_remove(entry);
        index.reach.ask();
        for _ in 0..random.usize(..60) {
            index.reach_some(1);
        }
        index.insert(&all[round % 1200]).expect("there is room");
        while index.sweep_some(usize::MAX) {}
        if round % 4 == 0 {
            while index.reach_some(usize::MAX) {}
            check_links(&index);
        }
    }
    check(&mut index);
}
