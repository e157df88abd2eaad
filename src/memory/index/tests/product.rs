//! The largest dot products, which lie where all links would lead.

use super::{
    super::image::WITH_NEAR,
    coarse::{Shape, far_clusters, grown, recode},
    graph::{check, check_links},
    recall::{numbered, recall},
    *,
};
use crate::memory::cases::cases;
use proptest::{
    prelude::{Just, Strategy, any, prop_assert, prop_oneof, proptest},
    sample::select,
};

const EF: usize = 100;
/// The byte of a chunk that says what its codes are.
const KIND: usize = 23;

/// What goes.
#[derive(Clone, Copy, Debug)]
enum Gone {
    Cluster,
    Any(f64),
    Longest(f64),
    AllBut(usize),
}

/// What is there.
#[derive(Clone, Copy, Debug)]
enum Set {
    Far(Shape),
    /// One cluster at the origin, another one far away.
    AtOrigin,
    /// In all directions, the longest many times as long as the others.
    Lengths,
}

fn set() -> impl Strategy<Value = Set> {
    prop_oneof![
        (2..6_usize).prop_map(|clusters| Set::Far(Shape::Line(clusters))),
        (2..12_usize).prop_map(|clusters| Set::Far(Shape::Anywhere(clusters))),
        Just(Set::AtOrigin),
        Just(Set::Lengths),
    ]
}

impl Set {
    /// The number of its cluster with each vector.
    fn vectors(self, random: &mut Rng, count: usize, dimensions: usize) -> Vec<(usize, Vec<f32>)> {
        match self {
            Set::Far(shape) => far_clusters(random, shape, count, dimensions, Metric::Dot),
            Set::AtOrigin => {
                let place: Vec<f32> =
                    (0..dimensions).map(|_| 1000.0 * (random.f32() - 0.5)).collect();
                let far = |(at, mut vector): (usize, Vec<f32>)| {
                    let moves = if at % 2 == 0 { 0.0 } else { 1.0 };
                    vector
                        .iter_mut()
                        .zip(&place)
                        .for_each(|(value, place)| *value += moves * place);
                    (at % 2, vector)
                };
                vectors(random, count, dimensions).into_iter().enumerate().map(far).collect()
            }
            Set::Lengths => {
                let one = |_| {
                    let length = (3.0 * (random.f32() - 0.5)).exp();
                    (0, (0..dimensions).map(|_| length * (random.f32() - 0.5)).collect())
                };
                (0..count).map(one).collect()
            }
        }
    }
}

fn gone() -> impl Strategy<Value = Gone> {
    prop_oneof![
        Just(Gone::Cluster),
        select(vec![0.5, 0.9]).prop_map(Gone::Any),
        select(vec![0.2, 0.5, 0.9]).prop_map(Gone::Longest),
        select(vec![1, 2, 30]).prop_map(Gone::AllBut),
    ]
}

impl Gone {
    fn rows(self, random: &mut Rng, all: &[(usize, Vec<f32>)]) -> Vec<Row> {
        let length =
            |row: &Row| distance(Metric::Dot, &all[*row as usize].1, &all[*row as usize].1);
        let mut rows: Vec<Row> = (0..all.len() as Row).collect();
        rows.sort_by(|a, b| length(a).total_cmp(&length(b)));
        let cluster = all[rows[0] as usize].0;
        match self {
            Gone::Cluster => rows.retain(|row| all[*row as usize].0 == cluster),
            Gone::Longest(part) => rows.truncate((part * all.len() as f64) as usize),
            Gone::Any(part) => rows.retain(|_| random.f64() < part),
            Gone::AllBut(count) => {
                random.shuffle(&mut rows);
                rows.truncate(all.len() - count);
            }
        }
        // The longest first, or any.
        if random.bool() {
            random.shuffle(&mut rows);
        }
        rows
    }
}

/// What searches find with as many places as usual, and with four times as many.
type Recalls = [f64; 2];

fn both(index: &mut Index, stored: &[(Row, Vec<f32>)], queries: &[Vec<f32>]) -> Recalls {
    [EF, 4 * EF].map(|ef| recall(index, stored, queries, Metric::Dot, ef))
}

/// Recall before some go, at once when they have gone, and when what has coarse codes was coded anew; nothing where nothing is
/// left of what is asked for.
fn recalls(
    seed: u64,
    dimensions: usize,
    set: Set,
    gone: Gone,
    in_steps: bool,
) -> Option<[Recalls; 3]> {
    const COUNT: usize = 1500;
    let mut random = Rng::with_seed(seed);
    let mut all = set.vectors(&mut random, COUNT + 40, dimensions);
    random.shuffle(&mut all[COUNT..]);
    let gone = gone.rows(&mut random, &all[..COUNT]);
    let (clusters, mut vectors): (Vec<usize>, Vec<Vec<f32>>) = all.into_iter().unzip();
    let queries = vectors.split_off(COUNT);
    let mut index = grown(Metric::Dot, &vectors, seed);
    let mut stored = numbered(vectors.clone());
    let before = both(&mut index, &stored, &queries);
    for &row in &gone {
        if in_steps {
            assert!(index.begin_remove(row));
            while index.sweep_some(32) {}
        } else {
            assert!(index.remove(row));
        }
    }
    check_links(&index);
    stored.retain(|(row, _)| index.contains(*row));
    let left = |row: usize| stored.iter().any(|it| clusters[it.0 as usize] == clusters[row]);
    let asked = (COUNT..COUNT + queries.len()).filter(|&row| left(row));
    let queries: Vec<_> = asked.map(|row| queries[row - COUNT].clone()).collect();
    if queries.is_empty() {
        return None;
    }
    let at_once = both(&mut index, &stored, &queries);
    recode(&mut index, &vectors);
    index.reach.ask();
    while index.reach_some(usize::MAX) {}
    check_links(&index);
    Some([before, at_once, both(&mut index, &stored, &queries)])
}

/// Of what has been removed a tenth may wait for a sweep, and all of it may be nearer to a query than what is left.
#[test]
fn what_was_removed_does_not_take_the_places_of_what_is_left() {
    let (set, gone) = (Set::Far(Shape::Line(3)), Gone::Longest(0.5));
    let recalls = recalls(3882114538801249898, 7, set, gone, true).expect("half is left");
    println!("{recalls:.3?}");
    assert!(recalls[1][0] >= 0.95, "{recalls:?}");
}

/// One cluster has more products than a search has places that are larger than most of another one, whose best are
/// better.
#[test]
fn a_search_does_not_stay_in_the_cluster_where_it_begins() {
    for (seed, clusters, gone) in [
        (1187, 3, Gone::Any(0.5)),
        (1191, 2, Gone::Longest(0.5)),
        (1253, 2, Gone::Longest(0.5)),
        (1575, 2, Gone::Longest(0.5)),
    ] {
        let set = Set::Far(Shape::Line(clusters));
        let recalls = recalls(seed, 200, set, gone, false).expect("half is left");
        println!("{seed}: {recalls:.3?}");
        assert!(recalls.as_flattened().iter().all(|recall| *recall >= 0.9), "{seed}: {recalls:?}");
    }
}

/// Only where vectors differ in length a search looks around, also in an index that was loaded.
#[test]
fn a_search_for_products_looks_around_where_lengths_differ() {
    let mut random = Rng::with_seed(197);
    for (dimensions, clusters) in [(8, 1), (64, 1), (64, 8), (384, 8)] {
        let mut all = vectors(&mut random, 300, dimensions);
        let places = vectors(&mut random, clusters, dimensions);
        for (at, vector) in all.iter_mut().enumerate() {
            // The first are all of one cluster, which the first centre is chosen by.
            let place = &places[if at < 50 { 0 } else { at % clusters }];
            vector.iter_mut().zip(place).for_each(|(value, place)| *value += 5.0 * place);
            let length = distance(Metric::Dot, vector, vector).abs().sqrt() as f32;
            vector.iter_mut().for_each(|value| *value /= length);
        }
        let mut index = filled(Metric::Dot, &all, 7);
        assert!(!index.graph.lengths.differ(), "{dimensions} dimensions");
        let longer: Vec<f32> = all[3].iter().map(|value| 1.1 * value).collect();
        for differ in [false, true] {
            let mut loader = Loader::new(index.options.clone()).expect("the options are well");
            let (mut image, mut chunk) = (index.begin_image(), Vec::new());
            while image.chunk(&index, &mut chunk).is_some() {
                loader.chunk(&std::mem::take(&mut chunk)).expect("the chunk is well");
            }
            let rows = index.stats().rows as Row;
            let (loaded, _) = loader.finish(rows, |_| Wanted::Same).expect("there is room");
            assert_eq!(loaded.graph.lengths.differ(), differ, "{dimensions} dimensions");
            index.insert(&longer).expect("there is room");
            assert!(index.graph.lengths.differ(), "{dimensions} dimensions");
        }
    }
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn what_is_left_is_found_when_the_largest_products_go(
        seed in any::<u64>(),
        dimensions in prop_oneof![2..17_usize, 17..100_usize, Just(200)],
        set in set(),
        gone in gone(),
        in_steps in any::<bool>(),
    ) {
        let Some(found) = recalls(seed, dimensions, set, gone, in_steps) else { return Ok(()) };
        println!("{set:?} {gone:?} {dimensions}: {found:.3?}");
        // Where lengths differ and the longest go, few lead to those that are the longest then: 0.74 was seen.
        let is_hard = matches!((set, gone), (Set::Lengths, Gone::Longest(_)));
        for (when, [usual, wide]) in ["before", "at once", "then"].into_iter().zip(found) {
            // Where all queries have one answer, one that is missed is a tenth of all.
            let is_found = usual >= if is_hard { 0.6 } else { 0.9 };
            // One set in some hundreds has a cluster from which a walk of so few places does not come to another one.
            prop_assert!(is_found || wide >= 0.95, "{}: {}, {}", when, usual, wide);
        }
    }
}

#[test]
fn lengths_may_differ() {
    let mut random = Rng::with_seed(173);
    for dimensions in [8, 64, 200] {
        let all = Set::Lengths.vectors(&mut random, 3050, dimensions);
        let mut all: Vec<_> = all.into_iter().map(|it| it.1).collect();
        let queries = all.split_off(3000);
        let mut index = filled(Metric::Dot, &all, 3);
        let recall = recall(&mut index, &numbered(all), &queries, Metric::Dot, EF);
        println!("{dimensions} dimensions: {recall:.3}");
        assert!(recall >= 0.98, "{dimensions} dimensions: {recall}");
    }
}

/// Rows of an image of before nodes linked to near ones first have links by products alone: they stay what they are.
#[test]
fn an_image_says_whether_there_are_links_to_near_ones() {
    let mut random = Rng::with_seed(167);
    for dimensions in [8, 64] {
        let all = vectors(&mut random, 600, dimensions);
        let index = filled(Metric::Dot, &all, 5);
        let open = |index: &Index, is_old: bool| {
            let mut loader = Loader::new(index.options.clone()).expect("the options are well");
            let (mut image, mut kinds) = (index.begin_image(), Vec::new());
            loop {
                let mut chunk = Vec::new();
                if image.chunk(index, &mut chunk).is_none() {
                    break;
                }
                kinds.push(chunk[KIND] & WITH_NEAR);
                if is_old {
                    chunk[KIND] &= !WITH_NEAR;
                    let checksum = crc32fast::hash(&chunk[8..]);
                    chunk[4..8].copy_from_slice(&checksum.to_le_bytes());
                }
                loader.chunk(&chunk).expect("the chunk is well");
            }
            let (loaded, again) = loader.finish(600, |_| Wanted::Same).expect("there is room");
            assert!(again.is_empty(), "nothing is inserted again");
            (loaded, kinds)
        };
        let (loaded, kinds) = open(&index, false);
        assert!(loaded.graph.has_near && kinds.iter().all(|kind| *kind == WITH_NEAR));
        let (mut loaded, _) = open(&index, true);
        assert!(!loaded.graph.has_near);
        let (again, kinds) = open(&loaded, false);
        assert!(!again.graph.has_near && kinds.iter().all(|kind| *kind == 0));
        (0..600).for_each(|row| assert!(loaded.remove(row)));
        assert!(loaded.graph.has_near, "an index that was emptied begins anew");
    }
}

/// Rows that are the same take no more places for being linked by distance and by products.
#[test]
fn links_to_the_same_vector_are_few() {
    let mut many = 0;
    let mut random = Rng::with_seed(4);
    let twin: Vec<f32> = (0..20).map(|_| 3.0 * (random.f32() - 0.5)).collect();
    let mut all = vectors(&mut random, 2000, 20);
    all.iter_mut().step_by(10).for_each(|vector| vector.clone_from(&twin));
    let index = filled(Metric::Dot, &all, 4);
    for row in (0..2000).step_by(10) {
        let links = index.graph.links(row, 0).iter();
        let twins = links.filter(|&&link| link.is_multiple_of(10)).count();
        many += usize::from(twins > 4);
    }
    // Some have places left for all that link back to them.
    assert!(many <= 10, "{many} of 200 rows lead to more than four that are the same");
}

/// A row that is coded anew keeps what it was linked to until it has other links.
#[test]
fn a_recoding_that_is_dropped_leaves_links() {
    let mut random = Rng::with_seed(163);
    let all = Set::AtOrigin.vectors(&mut random, 2000, 64);
    let all: Vec<_> = all.into_iter().map(|it| it.1).collect();
    let mut index = filled(Metric::Dot, &all, 3);
    let mut dropped = 0;
    while index.has_coarse() && dropped < 30 {
        let Some(row) = index.take_coarse() else { continue };
        let before = index.graph.links(row, 0).len();
        let recoding = index.begin_recode(row, &all[row as usize]).expect("the vector is well");
        let Some(mut recoding) = recoding else { continue };
        dropped += 1;
        while recoding.step(&mut index, 1).is_none() {
            let links = index.graph.links(row, 0).len();
            assert!(links >= before.min(20), "{links} links of {before}");
        }
    }
    assert_eq!(dropped, 30);
    check(&mut index);
}

/// A sweep ends before as many have gone again as it began with, whatever goes first.
#[test]
fn sweeps_keep_up_with_what_goes() {
    for set in [Set::Lengths, Set::Far(Shape::Line(3))] {
        for part in [0.8, 0.3] {
            let mut random = Rng::with_seed(191);
            let all = set.vectors(&mut random, 3000, 64);
            let vectors: Vec<_> = all.iter().map(|it| it.1.clone()).collect();
            let mut index = filled(Metric::Dot, &vectors, 5);
            let mut most = 0.0;
            for row in Gone::Longest(part).rows(&mut random, &all) {
                assert!(index.remove(row));
                let stats = index.stats();
                most = f64::max(most, stats.dead as f64 / stats.rows as f64);
            }
            println!("{set:?} {part}: {most:.3}");
            assert!(most <= 0.2, "{set:?} {part}: {most}");
        }
    }
}

/// What comes while all that has the largest products waits for a sweep is linked by products to what is left. All point about the
/// same way, so the longest, which are more than a walk has places, have the largest products with any.
#[test]
fn what_comes_when_the_longest_have_gone_is_linked_by_products() {
    let mut random = Rng::with_seed(193);
    let mut one = |_| {
        let length = (3.0 * (random.f32() - 0.5)).exp();
        (0, (0..64).map(|_| length * (1.0 + 0.1 * random.f32())).collect())
    };
    let all: Vec<(usize, Vec<f32>)> = (0..4000).map(&mut one).collect();
    let vectors: Vec<_> = all.iter().map(|it| it.1.clone()).collect();
    let (stored, coming) = vectors.split_at(3900);
    let options = IndexOptions { ef_construction: 32, ..IndexOptions::new(64, Metric::Dot) };
    let mut index = Index::new(options).expect("the options are well");
    stored.iter().for_each(|vector| assert!(index.insert(vector).is_ok()));
    for row in Gone::Longest(0.095).rows(&mut random, &all[..3900]) {
        assert!(index.remove(row));
    }
    assert!(index.stats().dead > 350, "they wait for a sweep");
    for vector in coming {
        let row = index.insert(vector).expect("there is room");
        let links = index.graph.links(row, 0).len();
        assert!(links > 10, "{links} links");
        while index.sweep_some(usize::MAX) {}
    }
    // The first ones looked at all rows for that, and had them swept so that others need not.
    assert_eq!(index.stats().dead, 0);
    check(&mut index);
}
