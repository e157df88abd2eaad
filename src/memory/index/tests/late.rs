//! Vectors that are found before they are linked.

use super::{graph::check, *};
use std::collections::BTreeSet;

const DIMENSIONS: usize = 24;
const LINKED: usize = 1500;
const LATE: usize = 700;
const K: usize = 10;

/// How many of the true nearest are found.
fn recall(index: &mut Index, metric: Metric, all: &[Vec<f32>]) -> f64 {
    let (mut found, mut wanted) = (0, 0);
    for query in all.iter().step_by(23) {
        let mut live: Vec<Row> = (0..all.len() as Row).filter(|&row| index.contains(row)).collect();
        let to: Vec<f64> = all.iter().map(|vector| distance(metric, query, vector)).collect();
        live.sort_by(|a, b| to[*a as usize].total_cmp(&to[*b as usize]));
        let truth: BTreeSet<Row> = live.into_iter().take(K).collect();
        let hits = index.search(query, K, 60, |_| true).expect("the query is well");
        let rows: BTreeSet<Row> = hits.iter().map(|hit| hit.row).collect();
        assert_eq!(rows.len(), hits.len(), "a row was found twice");
        (found, wanted) = (found + truth.intersection(&rows).count(), wanted + truth.len());
    }
    f64::from(found as u32) / f64::from(wanted as u32)
}

#[test]
fn late_vectors_are_found_before_while_and_after_they_are_linked() {
    for metric in [Metric::Cosine, Metric::Euclidean] {
        let mut random = Rng::with_seed(71);
        let all = vectors(&mut random, LINKED + LATE, DIMENSIONS);
        let mut index = filled(metric, &all[..LINKED], 71);
        for (row, vector) in (0..).zip(&all).skip(LINKED) {
            assert_eq!(index.insert_late(vector), Ok(row));
        }
        assert_eq!((index.late(), index.stats().live), (LATE, LINKED + LATE));
        check(&mut index);
        assert!(recall(&mut index, metric, &all) > 0.95);
        // Some go before they are linked, one while it is.
        let mut gone = 0;
        while index.link_some(1 + random.usize(..300)) {
            let row = (LINKED + random.usize(..LATE)) as Row;
            if gone < LATE / 4 && index.remove(row) {
                gone += 1;
            }
            if random.usize(..100) == 0 {
                check(&mut index);
            }
            if random.usize(..400) == 0 {
                assert!(recall(&mut index, metric, &all) > 0.95);
            }
        }
        assert_eq!((index.late(), index.stats().live), (0, LINKED + LATE - gone));
        assert!(!index.link_some(usize::MAX));
        check(&mut index);
        let recall = recall(&mut index, metric, &all);
        assert!(recall > 0.95, "recall {recall:.3} when all are linked");
    }
}

/// However many late ones are near, a walk finds what is linked.
#[test]
fn late_vectors_do_not_keep_a_walk_from_what_is_linked() {
    let mut random = Rng::with_seed(83);
    let (linked, late) = (16, 5000);
    let all = vectors(&mut random, linked + late, DIMENSIONS);
    let mut index = filled(Metric::Cosine, &all[..linked], 83);
    all[linked..].iter().for_each(|vector| assert!(index.insert_late(vector).is_ok()));
    for filter in [1, 7] {
        for (row, query) in all[..linked].iter().enumerate() {
            let accepts = |hit: Row| hit as usize == row || hit.is_multiple_of(filter);
            let hits = index.search(query, K, 30, accepts).expect("the query is well");
            assert_eq!((hits[0].row, hits.len()), (row as Row, K));
        }
    }
    // All are one topic, and a few of another are linked.
    let mut index = filled(Metric::Cosine, &all[..linked], 83);
    let topic: Vec<Vec<f32>> = (0..late)
        .map(|_| all[0].iter().map(|value| value + 0.01 * random.f32()).collect())
        .collect();
    topic.iter().for_each(|vector| assert!(index.insert_late(vector).is_ok()));
    for (row, query) in all[..linked].iter().enumerate().skip(1) {
        let hits = index.search(query, 1, 30, |_| true).expect("the query is well");
        assert_eq!(hits[0].row, row as Row);
    }
    // Removing late ones costs the same however many there are, and what is gone is passed over.
    for row in linked..linked + late - 1 {
        assert!(index.remove(row as Row));
    }
    assert_eq!(index.late(), 1);
    while index.link_some(usize::MAX) {}
    check(&mut index);
    let hits = index.search(&topic[late - 1], 1, 30, |_| true).expect("the query is well");
    assert_eq!(hits[0].row as usize, linked + late - 1);
}

/// A search goes on where it was, and meets by its walk what was linked meanwhile.
#[test]
fn a_search_misses_no_late_vector_that_is_linked_meanwhile() {
    let mut random = Rng::with_seed(73);
    let all = vectors(&mut random, 1000, DIMENSIONS);
    let mut index = filled(Metric::Cosine, &all[..500], 73);
    all[500..].iter().for_each(|vector| assert!(index.insert_late(vector).is_ok()));
    let mut at = 500;
    while index.late() > 0 {
        let mut search = index.begin_search(&all[at], 1, 30).expect("the query is well");
        let hits = loop {
            index.link_some(40);
            if let Some(hits) = search.step(&mut index, 8, |_| true) {
                break hits;
            }
        };
        assert_eq!(hits[0].row, at as Row);
        at = 500 + (at - 499) % 500;
    }
}

#[test]
fn an_image_leaves_late_vectors_to_be_inserted_again() {
    let mut random = Rng::with_seed(79);
    let all = vectors(&mut random, 600, DIMENSIONS);
    let mut index = filled(Metric::Cosine, &all[..500], 79);
    all[500..].iter().for_each(|vector| assert!(index.insert_late(vector).is_ok()));
    index.link_some(300);
    let options = IndexOptions::new(DIMENSIONS, Metric::Cosine);
    let mut loader = Loader::new(options).expect("the options are well");
    let (mut image, mut bytes) = (index.begin_image(), Vec::new());
    while image.chunk(&index, &mut bytes).is_some() {
        loader.chunk(&std::mem::take(&mut bytes)).expect("the chunk is well");
    }
    let (mut loaded, again) = loader.finish(600, |_| Wanted::Same).expect("there is room");
    assert!((500..600).all(|row| again.contains(&row)) && again.len() < 150, "{again:?}");
    for &row in &again {
        assert_eq!(loaded.insert_late_at(row, &all[row as usize]), Ok(()));
        assert!(loaded.insert_late_at(row, &all[row as usize]).is_err());
    }
    check(&mut loaded);
    assert!(recall(&mut loaded, Metric::Cosine, &all) > 0.95);
    while loaded.link_some(100) {}
    check(&mut loaded);
    assert!(recall(&mut loaded, Metric::Cosine, &all) > 0.95);
}
