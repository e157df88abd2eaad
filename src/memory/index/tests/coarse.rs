//! Clusters far from each other: codes tell apart what lies in each.

use super::{
    super::image::AROUND_FURTHER,
    graph::{check, check_links},
    recall::{numbered, recall},
    *,
};
use crate::memory::cases::cases;
use proptest::{
    prelude::{Just, Strategy, any, prop_assert, prop_oneof, proptest},
    sample::select,
};
use std::collections::BTreeSet;

const EF: usize = 100;

/// Where the clusters of a set lie.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// All over, vectors in turns.
    Anywhere(usize),
    /// One behind the other.
    Line(usize),
    /// All but so many are in a second one, and come after the first.
    Grown(usize),
}

/// A set of clusters that are so many times farther from each other than they are wide, or point as differently.
pub(super) fn far_clusters(
    random: &mut Rng,
    shape: Shape,
    count: usize,
    dimensions: usize,
    metric: Metric,
) -> Vec<(usize, Vec<f32>)> {
    let mut way = || -> Vec<f32> {
        let way: Vec<f32> = (0..dimensions).map(|_| random.f32() - 0.5).collect();
        let length = way.iter().map(|x| x * x).sum::<f32>().sqrt();
        way.iter().map(|x| x / length).collect()
    };
    let (clusters, places): (usize, Vec<Vec<f32>>) = match shape {
        Shape::Line(clusters) => {
            let (way, start) = (way(), way());
            let at = |place: usize| {
                let pairs = way.iter().zip(&start);
                // Lengths are alike where they count.
                let on =
                    if metric == Metric::Euclidean { place as f32 } else { 0.1 * place as f32 };
                pairs.map(|(way, start)| start + on * way).collect()
            };
            (clusters, (0..clusters).map(at).collect())
        }
        Shape::Anywhere(clusters) => (clusters, (0..clusters).map(|_| way()).collect()),
        Shape::Grown(_) => (2, vec![way(), way()]),
    };
    let near = vectors(random, count, dimensions);
    let far = 1000.0 * (dimensions as f32).sqrt() / 10.0;
    (0..)
        .zip(near)
        .map(|(at, vector)| {
            let cluster = match shape {
                Shape::Grown(first) => usize::from(at >= first),
                _ if clusters == 2 => at % 2,
                _ => random.usize(..clusters),
            };
            let pairs = vector.iter().zip(&places[cluster]);
            (cluster, pairs.map(|(value, place)| value + far * place).collect())
        })
        .collect()
}

/// Gives codes anew to all that need it, as a caller does; how many have other ones.
pub(super) fn recode(index: &mut Index, vectors: &[Vec<f32>]) -> usize {
    let mut recoded = 0;
    while index.has_coarse() {
        let Some(row) = index.take_coarse() else { continue };
        let is_recoded = index.recode(row, &vectors[row as usize]);
        recoded += usize::from(is_recoded.expect("the vector is well"));
    }
    recoded
}

pub(super) fn grown(metric: Metric, vectors: &[Vec<f32>], seed: u64) -> Index {
    let options = IndexOptions { seed, ..IndexOptions::new(vectors[0].len(), metric) };
    let mut index = Index::new(options).expect("the options are well");
    for (row, vector) in (0..).zip(vectors) {
        assert_eq!(index.insert(vector), Ok(row));
        recode(&mut index, vectors);
    }
    index
}

/// What a start makes of an image, and the chunks' kinds of codes.
fn reopened(index: &Index, rows: Row, skip: usize) -> (Index, Vec<Row>, BTreeSet<u8>) {
    let mut loader = Loader::new(index.options.clone()).expect("the options are well");
    let (mut image, mut kinds, mut chunks) = (index.begin_image(), BTreeSet::new(), 0);
    loop {
        let mut chunk = Vec::new();
        if image.chunk(index, &mut chunk).is_none() {
            break;
        }
        assert_eq!(Loader::chunk_bytes(&chunk), Some(chunk.len()));
        kinds.insert(chunk[23]);
        chunks += 1;
        if chunks != skip {
            loader.chunk(&chunk).expect("the chunk is well");
        }
    }
    let wanted = |row| if index.contains(row) { Wanted::Same } else { Wanted::Nothing };
    let (mut loaded, again) = loader.finish(rows, wanted).expect("there is room");
    check(&mut loaded);
    (loaded, again, kinds)
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Anywhere(2)),
        (3..80_usize).prop_map(Shape::Anywhere),
        (3..64_usize).prop_map(Shape::Line),
        (100..2300_usize).prop_map(Shape::Grown),
    ]
}

proptest! {
    #![proptest_config(cases(12))]

    /// While they come, when a whole cluster has gone, and after a start.
    #[test]
    fn what_lies_in_far_clusters_is_told_apart(
        seed in any::<u64>(),
        shape in shape(),
        dimensions in prop_oneof![17..100_usize, select(vec![200, 384])],
        metric in select(vec![Metric::Cosine, Metric::Euclidean, Metric::Dot]),
    ) {
        let least = 0.95;
        let mut random = Rng::with_seed(seed);
        let mut all = far_clusters(&mut random, shape, 2440, dimensions, metric);
        random.shuffle(&mut all[2400..]);
        let (clusters, mut vectors): (Vec<usize>, Vec<Vec<f32>>) = all.into_iter().unzip();
        let queries = vectors.split_off(2400);
        let mut index = grown(metric, &vectors, seed);
        check(&mut index);
        let mut stored = numbered(vectors.clone());
        let found = recall(&mut index, &stored, &queries, metric, EF);
        prop_assert!(found >= least, "{} of what came", found);

        let (mut loaded, again, _) = reopened(&index, 2400, 0);
        prop_assert!(again.is_empty());
        let recoded = recode(&mut loaded, &vectors);
        // Most have fine codes already. Some at the border had fewer near them when they came.
        prop_assert!(recoded <= 300, "{} of 2400 are coarse after a start", recoded);
        let found = recall(&mut loaded, &stored, &queries, metric, EF);
        prop_assert!(found >= least, "{} after a start", found);

        let gone = clusters[random.usize(..2400)];
        stored.retain(|(row, _)| clusters[*row as usize] != gone);
        for row in (0..2400).filter(|row| clusters[*row as usize] == gone) {
            prop_assert!(loaded.remove(row));
        }
        check(&mut loaded);
        if stored.len() > 100 {
            let left = |cluster: &&(usize, Vec<f32>)| cluster.0 != gone;
            let queries: Vec<_> = clusters[2400..].iter().copied().zip(queries).collect();
            let queries: Vec<_> = queries.iter().filter(left).map(|it| it.1.clone()).collect();
            let found = recall(&mut loaded, &stored, &queries, metric, EF);
            prop_assert!(queries.is_empty() || found >= least, "{} of what is left", found);
        }
        let (loaded, _, _) = reopened(&loaded, 2400, 0);
        let used: BTreeSet<u8> = stored.iter().map(|it| loaded.graph.nodes[it.0 as usize].centre).collect();
        let further = used.iter().filter(|&&centre| centre > 0).count();
        prop_assert!(further == loaded.graph.coding.further.len(), "a centre without rows is kept");
    }
}

/// Two clusters whose codes are equal within each, as all numbers are larger by as much.
#[test]
fn clusters_within_which_all_codes_are_equal_are_told_apart() {
    for metric in [Metric::Euclidean, Metric::Dot] {
        let mut random = Rng::with_seed(89);
        let mut all = vectors(&mut random, 2050, 64);
        for (at, vector) in all.iter_mut().enumerate() {
            let place = [3000.0, -3000.0][at % 2];
            vector.iter_mut().for_each(|value| *value += place);
        }
        let queries = all.split_off(2000);
        let mut index = grown(metric, &all, 3);
        let recall = recall(&mut index, &numbered(all), &queries, metric, EF);
        println!("{metric:?}: {recall:.3}");
        assert!(recall >= 0.95, "{metric:?}: {recall}");
    }
}

/// An image as it was written before there were further centres opens, and its rows come to better codes.
#[test]
fn an_image_with_coarse_codes_is_coded_anew() {
    for metric in [Metric::Cosine, Metric::Euclidean, Metric::Dot] {
        let mut random = Rng::with_seed(97);
        let all = far_clusters(&mut random, Shape::Anywhere(8), 2050, 64, metric);
        let mut all: Vec<_> = all.into_iter().map(|it| it.1).collect();
        let queries = all.split_off(2000);
        let coarse = filled(metric, &all, 5);
        let (mut index, again, kinds) = reopened(&coarse, 2000, 0);
        assert!(again.is_empty() && kinds.iter().all(|kind| kind & AROUND_FURTHER == 0));
        let stored = numbered(all.clone());
        let before = recall(&mut index, &stored, &queries, metric, EF);
        let recoded = recode(&mut index, &all);
        check(&mut index);
        let after = recall(&mut index, &stored, &queries, metric, EF);
        println!("{metric:?}: {before:.3}, {recoded} coded anew, {after:.3}");
        assert!(before < 0.9 && after >= 0.95, "{metric:?}: {before} {after}");
        let (mut index, _, kinds) = reopened(&index, 2000, 0);
        assert!(kinds.iter().all(|kind| kind & AROUND_FURTHER > 0));
        let recoded = recode(&mut index, &all);
        assert_eq!(recoded, 0, "{metric:?}: a start finds something to do");
    }
}

/// Two clusters that came in turns, of which an image has coarse codes.
#[test]
fn clusters_that_came_in_turns_are_all_coded_anew() {
    for seed in 0..5 {
        let mut random = Rng::with_seed(seed);
        let item = |at: usize| -> Vec<f32> {
            let place = [0.0, 1000.0][at % 2];
            (0..32).map(|of| place * (of % 3) as f32 + random.f32()).collect()
        };
        let all: Vec<Vec<f32>> = (0..240).map(item).collect();
        let options =
            IndexOptions { seed, ef_construction: 32, ..IndexOptions::new(32, Metric::Euclidean) };
        let mut index = Index::new(options).expect("the options are well");
        all.iter().for_each(|vector| assert!(index.insert(vector).is_ok()));
        let (mut index, _, _) = reopened(&index, 240, 0);
        let recoded = recode(&mut index, &all);
        let rows = (0..).zip(&all).filter(|(row, vector)| {
            let query: Vec<f32> = vector
                .iter()
                .enumerate()
                .map(|(of, value)| value + 0.1 * (of % 2) as f32)
                .collect();
            let hits = index.search(&query, 1, 50, |_| true).expect("the query is well");
            hits[0].row == *row
        });
        let found = rows.count();
        println!("seed {seed}: {recoded} coded anew, {found} found");
        assert_eq!(found, 240, "seed {seed}");
    }
}

/// The first centre is born while an image is written: some of its chunks name centres, the others do not.
#[test]
fn a_centre_that_is_born_while_an_image_is_written_is_in_it() {
    let mut random = Rng::with_seed(149);
    let all = far_clusters(&mut random, Shape::Grown(1800), 2450, 64, Metric::Euclidean);
    let mut all: Vec<_> = all.into_iter().map(|it| it.1).collect();
    let queries = all.split_off(2400);
    for born_after in [1, 3] {
        let mut index = filled(Metric::Euclidean, &all[..2000], 5);
        let mut loader = Loader::new(index.options.clone()).expect("the options are well");
        let (mut image, mut kinds) = (index.begin_image(), Vec::new());
        loop {
            let mut chunk = Vec::new();
            if image.chunk(&index, &mut chunk).is_none() {
                break;
            }
            kinds.push(chunk[23]);
            loader.chunk(&chunk).expect("the chunk is well");
            if kinds.len() == born_after {
                recode(&mut index, &all);
                for vector in &all[2000..] {
                    index.insert(vector).expect("there is room");
                    recode(&mut index, &all);
                }
            }
        }
        let named = kinds.iter().filter(|kind| *kind & AROUND_FURTHER > 0).count();
        assert_eq!(named, kinds.len() - born_after, "{kinds:?}");
        let (mut loaded, again) = loader.finish(2400, |_| Wanted::Same).expect("there is room");
        assert!(again.is_empty(), "{}", again.len());
        recode(&mut loaded, &all);
        check(&mut loaded);
        let recall = recall(&mut loaded, &numbered(all.clone()), &queries, Metric::Euclidean, EF);
        assert!(recall >= 0.95, "{recall}");
    }
}

/// What opens an image without knowing of further centres refuses the chunks that name some by the kind of their codes.
#[test]
fn chunks_that_name_centres_are_of_a_kind_of_their_own() {
    let mut random = Rng::with_seed(151);
    let all = far_clusters(&mut random, Shape::Anywhere(8), 1000, 64, Metric::Euclidean);
    let all: Vec<_> = all.into_iter().map(|it| it.1).collect();
    let (_, again, kinds) = reopened(&grown(Metric::Euclidean, &all, 5), 1000, 0);
    assert!(again.is_empty() && kinds.iter().all(|kind| [4, 6].contains(kind)), "{kinds:?}");
    let (_, again, kinds) = reopened(&filled(Metric::Euclidean, &all, 5), 1000, 0);
    assert!(again.is_empty() && kinds.iter().all(|kind| [0, 2].contains(kind)), "{kinds:?}");
    let mut chunk = Vec::new();
    let index = filled(Metric::Euclidean, &all, 5);
    assert!(index.begin_image().chunk(&index, &mut chunk).is_some());
    for unknown in [1, 3, 5, 7, 8, 10, 12, 255] {
        chunk[23] = unknown;
        let checksum = crc32fast::hash(&chunk[8..]);
        chunk[4..8].copy_from_slice(&checksum.to_le_bytes());
        let mut loader = Loader::new(index.options.clone()).expect("the options are well");
        assert_eq!(loader.chunk(&chunk), Err(Damaged::Other("kind of codes")), "{unknown}");
    }
}

/// Rows whose centre was in a chunk that is lost come again.
#[test]
fn a_lost_chunk_costs_the_rows_around_its_centres() {
    let mut random = Rng::with_seed(101);
    let all = far_clusters(&mut random, Shape::Anywhere(60), 2050, 200, Metric::Euclidean);
    let mut all: Vec<_> = all.into_iter().map(|it| it.1).collect();
    let queries = all.split_off(2000);
    let index = grown(Metric::Euclidean, &all, 5);
    assert!(index.graph.coding.further.len() >= 40);
    let (mut loaded, again, _) = reopened(&index, 2000, 1);
    assert!(again.len() > 1000, "{}", again.len());
    for row in again {
        loaded.insert_at(row, &all[row as usize]).expect("the row is kept for it");
        recode(&mut loaded, &all);
    }
    check(&mut loaded);
    let recall = recall(&mut loaded, &numbered(all), &queries, Metric::Euclidean, EF);
    assert!(recall >= 0.95, "{recall}");
}

/// More clusters than there may be centres: what finds none is not asked for again and again.
#[test]
fn centres_are_bounded() {
    let mut random = Rng::with_seed(103);
    let places: Vec<Vec<f32>> =
        (0..40).map(|_| (0..4096).map(|_| 3000.0 * (random.f32() - 0.5)).collect()).collect();
    let mut all = vectors(&mut random, 1200, 4096);
    for (at, vector) in all.iter_mut().enumerate() {
        vector.iter_mut().zip(&places[at % 40]).for_each(|(value, place)| *value += place);
    }
    let mut index = grown(Metric::Euclidean, &all, 5);
    assert_eq!(index.graph.coding.further.len(), 32);
    assert!(!index.has_coarse() && recode(&mut index, &all) == 0);
    check(&mut index);
}

#[test]
fn copies_need_no_centre() {
    for metric in [Metric::Cosine, Metric::Euclidean, Metric::Dot] {
        let mut random = Rng::with_seed(107);
        let groups = vectors(&mut random, 30, 64);
        let all: Vec<_> = (0..1500).map(|at| groups[at * at % 30].clone()).collect();
        let index = grown(metric, &all, 5);
        assert_eq!(index.graph.coding.further.len(), 0, "{metric:?}");
    }
}

/// A row that goes while it is linked anew is as any other that goes. Ways to all that come afterwards are not asked for: what
/// comes while all around is dead is linked to one that is left in the other cluster, which need not link back.
#[test]
fn rows_that_are_linked_anew_may_go() {
    for steps in 0..20 {
        let mut random = Rng::with_seed(109);
        let all = far_clusters(&mut random, Shape::Grown(300), 600, 64, Metric::Euclidean);
        let all: Vec<_> = all.into_iter().map(|it| it.1).collect();
        let mut index = filled(Metric::Euclidean, &all, 5);
        let row = index.take_coarse().expect("one is coarse");
        let recoding = index.begin_recode(row, &all[row as usize]).expect("the vector is well");
        let mut recoding = recoding.expect("there is a finer code");
        let mut has_ended = false;
        for _ in 0..steps {
            has_ended = has_ended || recoding.step(&mut index, 20).is_some();
        }
        (0..600).filter(|it| *it != row || steps % 2 == 0).for_each(|it| {
            index.remove(it);
        });
        if !has_ended {
            assert_eq!(recoding.step(&mut index, usize::MAX), Some(Ok(row)));
        }
        drop(recoding);
        check_links(&index);
        assert!(index.begin_recode(9, &all[9]).expect("well").is_none(), "it is gone");
        (0..100).for_each(|at| assert!(index.insert(&all[at]).is_ok()));
        check_links(&index);
    }
}

/// A centre that is born of some that lie very near each other serves what comes near them later, while what was there
/// before, farther apart, keeps its codes around the first one: both are found together.
#[test]
fn a_cluster_around_two_centres_is_told_apart() {
    const DIMENSIONS: usize = 128;
    for metric in [Metric::Cosine, Metric::Euclidean] {
        let mut random = Rng::with_seed(127);
        let near = |random: &mut Rng, place: &[f32], width: f32| -> Vec<f32> {
            place.iter().map(|value| value + width * (random.f32() - 0.5)).collect()
        };
        let place = |random: &mut Rng, far: f32| -> Vec<f32> {
            (0..DIMENSIONS).map(|_| far * (random.f32() - 0.5)).collect()
        };
        // Far, but not so far that codes around the first centre are coarse.
        let (first, second) = (place(&mut random, 10.0), place(&mut random, 10.0));
        let mut all: Vec<Vec<f32>> = Vec::new();
        all.extend((0..600).map(|_| near(&mut random, &first, 1.0)));
        all.extend((0..700).map(|_| near(&mut random, &second, 1.0)));
        let model = all[1000].clone();
        all.extend((0..40).map(|_| near(&mut random, &model, 0.01)));
        all.extend((0..700).map(|_| near(&mut random, &second, 1.0)));
        let queries: Vec<_> = (0..50).map(|_| near(&mut random, &second, 1.0)).collect();
        let index = &mut grown(metric, &all, 5);
        check(index);
        let around = |further: bool, rows: std::ops::Range<usize>| {
            rows.filter(|&row| (index.graph.nodes[row].centre > 0) == further).count()
        };
        let (old, new) = (around(false, 600..1300), around(true, 1340..2040));
        let stored = numbered(all);
        let recall = recall(index, &stored, &queries, metric, EF);
        println!("{metric:?}: {old} around the first, {new} around others, {recall:.3}");
        assert!(old > 300 && new > 300, "{metric:?}: {old} and {new}");
        assert!(recall >= 0.95, "{metric:?}: {recall}");
    }
}

/// The row that is linked anew is the only one that is left, and all lead to it.
#[test]
fn the_last_row_may_be_linked_anew() {
    let mut random = Rng::with_seed(131);
    let all = far_clusters(&mut random, Shape::Anywhere(2), 40, 64, Metric::Euclidean);
    let all: Vec<_> = all.into_iter().map(|it| it.1).collect();
    let mut recoded = 0;
    for seed in 0..40 {
        let mut index = filled(Metric::Euclidean, &all, seed);
        let waits: BTreeSet<Row> = std::iter::from_fn(|| index.take_coarse()).collect();
        let Some(last) = index.graph.entry.filter(|entry| waits.contains(entry)) else { continue };
        (0..40).filter(|row| *row != last).for_each(|row| assert!(index.remove(row)));
        assert_eq!(index.recode(last, &all[last as usize]), Ok(true));
        check(&mut index);
        recoded += 1;
    }
    assert!(recoded > 0);
}

/// A name that was taken before its row was given to another vector makes no centre of that one.
#[test]
fn a_row_that_does_not_wait_is_not_coded_anew() {
    let mut random = Rng::with_seed(137);
    let all = vectors(&mut random, 100, 64);
    let mut index = filled(Metric::Euclidean, &all, 5);
    let far: Vec<f32> = all[7].iter().map(|value| value + 1000.0).collect();
    for vector in [&all[7], &far] {
        assert_eq!(index.recode(7, vector), Ok(false));
        assert_eq!(index.graph.coding.further.len(), 0);
    }
    assert_eq!(index.recode(100, &far), Ok(false), "there is no such row");
}

/// Names of rows that have gone are passed some at a time.
#[test]
fn no_call_passes_all_that_have_gone() {
    let mut random = Rng::with_seed(139);
    let all = far_clusters(&mut random, Shape::Grown(300), 1400, 64, Metric::Euclidean);
    let all: Vec<_> = all.into_iter().map(|it| it.1).collect();
    let mut index = filled(Metric::Euclidean, &all, 5);
    let last = index.take_coarse().expect("one is coarse");
    (0..1400).filter(|row| *row != last).for_each(|row| assert!(index.remove(row)));
    let (mut calls, mut left) = (0, index.coarse.len());
    assert!(left > 600, "{left} wait");
    while index.has_coarse() {
        assert_eq!(index.take_coarse(), None);
        assert!(left - index.coarse.len() <= 256);
        (calls, left) = (calls + 1, index.coarse.len());
    }
    assert!(calls > 2);
}
