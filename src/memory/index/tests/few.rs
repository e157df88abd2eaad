//! Few that are left of many: each search compares all of them, whatever leads to them.

use super::*;
use crate::memory::cases::cases;
use proptest::{
    prelude::{any, prop_assert_eq, proptest},
    sample::select,
};

/// The `k` nearest of some rows.
fn nearest(index: &mut Index, query: &[f32], k: usize, rows: &[Row]) -> Vec<Hit> {
    let mut search = index.begin_search_among(query, k, rows).expect("the query is well");
    search.step(index, usize::MAX, |_| true).expect("no end to the budget")
}

proptest! {
    #![proptest_config(cases(32))]

    /// At once, while what has gone waits for a sweep, and when it was swept; and of those that come then.
    #[test]
    fn few_that_are_left_are_all_found(
        seed in any::<u64>(),
        count in 70..400_usize,
        left in 1..40_usize,
        late in 0..20_usize,
        dimensions in select(vec![2, 3, 16, 17, 40]),
        metric in select(vec![Metric::Cosine, Metric::Euclidean, Metric::Dot]),
    ) {
        let mut random = Rng::with_seed(seed);
        let all = vectors(&mut random, count + late + 24, dimensions);
        let options = IndexOptions { seed, ef_construction: 16, ..IndexOptions::new(dimensions, metric) };
        let mut index = Index::new(options).expect("the options are well");
        for vector in &all[..count] {
            index.insert(vector).expect("there is room");
        }
        let after = &all[count..];
        for vector in &after[..late] {
            index.insert_late(vector).expect("there is room");
        }
        let mut rows: Vec<Row> = (0..(count + late) as Row).collect();
        random.shuffle(&mut rows);
        rows.split_off(left).into_iter().for_each(|row| assert!(index.begin_remove(row)));
        for round in 0..3 {
            for query in &all[count + late..] {
                for k in [1, 2, 3, 40] {
                    let expected = nearest(&mut index, query, k, &rows);
                    let hits = index.search(query, k, 16, |_| true).expect("the query is well");
                    prop_assert_eq!(hits, expected, "round {}", round);
                }
                let accepts = |row: Row| row.is_multiple_of(2);
                let accepted: Vec<Row> = rows.iter().copied().filter(|&row| accepts(row)).collect();
                let expected = nearest(&mut index, query, 3, &accepted);
                let mut search = index.begin_filtered_search(query, 3, 16, left / 2).expect("well");
                let hits = std::iter::from_fn(|| Some(search.step(&mut index, 7, accepts)));
                prop_assert_eq!(hits.flatten().next(), Some(expected), "round {}", round);
            }
            match round {
                0 => while index.sweep_some(usize::MAX) {},
                _ => for vector in &all[count + late..] {
                    rows.push(index.insert(vector).expect("there is room"));
                },
            }
            rows.sort_unstable();
        }
    }
}

/// As many come back when some of the best go while a search goes on.
#[test]
fn what_goes_meanwhile_takes_no_place() {
    let mut random = Rng::with_seed(13);
    let all = vectors(&mut random, 300, 24);
    let mut index = filled(Metric::Euclidean, &all, 13);
    let best = index.search(&all[0], 10, 300, |_| true).expect("the query is well");
    let mut search = index.begin_search(&all[0], 10, 300).expect("the query is well");
    assert!(search.step(&mut index, 250, |_| true).is_none());
    // Of those that it has compared already.
    let compared = best.iter().filter(|hit| hit.row < 250);
    let gone = compared.map(|hit| assert!(index.begin_remove(hit.row))).count();
    assert!(gone > 5);
    let hits = search.step(&mut index, usize::MAX, |_| true).expect("no end to the budget");
    assert_eq!(hits.len(), 10);
}

/// The rows that live are told in any order of what comes and goes, at the ends of words of each level too.
#[test]
fn the_next_that_lives_is_told() {
    use super::super::live::Live;
    use std::collections::BTreeSet;

    let mut random = Rng::with_seed(3);
    let (mut live, mut model) = (Live::default(), BTreeSet::new());
    let places = [0, 1, 63, 64, 65, 4095, 4096, 262_143, 262_144, 16_777_215, 16_777_216];
    for _ in 0..4000 {
        let row = places[random.usize(..places.len())] + random.u32(..2);
        if model.remove(&row) {
            live.leave(row);
        } else {
            model.insert(row);
            live.enter(row);
        }
        assert_eq!(live.len(), model.len());
        assert_eq!(live.is_empty(), model.is_empty());
        for from in places.into_iter().chain([u32::MAX]) {
            assert_eq!(live.next(from), model.range(from..).next().copied(), "from {from}");
        }
    }
}
