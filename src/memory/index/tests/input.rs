//! Wrong input is an error, and the index is as before.

use super::*;

fn index(metric: Metric) -> Index {
    let mut index = Index::new(IndexOptions::new(3, metric)).expect("the options are well");
    assert_eq!(index.insert(&[1.0, 2.0, 3.0]), Ok(0));
    index
}

#[test]
fn vectors_that_are_no_vectors_are_refused() {
    let mut index = index(Metric::Cosine);
    let before = index.stats();
    let cases: [(&[f32], Invalid); 7] = [
        (&[1.0, 2.0], Invalid::Dimensions { given: 2, expected: 3 }),
        (&[], Invalid::Dimensions { given: 0, expected: 3 }),
        (&[1.0; 4], Invalid::Dimensions { given: 4, expected: 3 }),
        (&[1.0, f32::NAN, 0.0], Invalid::NotFinite { position: 1 }),
        (&[1.0, 0.0, f32::NEG_INFINITY], Invalid::NotFinite { position: 2 }),
        (&[2e17, 0.0, 0.0], Invalid::NotFinite { position: 0 }),
        (&[0.0, -0.0, 0.0], Invalid::ZeroNorm),
    ];
    for (vector, error) in cases {
        assert_eq!(index.insert(vector), Err(error));
        assert_eq!(index.search(vector, 1, 10, |_| true), Err(error));
    }
    assert_eq!(index.stats(), before);
    let hits = index.search(&[1.0, 2.0, 3.0], 2, 10, |_| true).expect("the query is well");
    assert_eq!(hits.iter().map(|hit| hit.row).collect::<Vec<_>>(), [0]);
}

#[test]
fn zero_is_a_vector_where_lengths_count() {
    for metric in [Metric::Euclidean, Metric::Dot] {
        let mut index = index(metric);
        index.insert(&[0.0; 3]).expect("zero is a point");
        let hits = index.search(&[0.0; 3], 2, 10, |_| true).expect("zero is a query");
        assert_eq!(hits.len(), 2, "{metric:?}");
    }
}

#[test]
fn k_of_zero_and_searches_that_are_too_wide_are_refused() {
    let mut index = index(Metric::Cosine);
    let query = [1.0; 3];
    assert_eq!(index.search(&query, 0, 10, |_| true), Err(Invalid::ZeroK));
    let wide = EF_MAX + 1;
    let error = Invalid::TooWide { name: "k", given: wide, max: EF_MAX };
    assert_eq!(index.search(&query, wide, 10, |_| true), Err(error));
    let error = Invalid::TooWide { name: "ef", given: wide, max: EF_MAX };
    assert_eq!(index.search(&query, 1, wide, |_| true), Err(error));
    let mut hits = index.search(&query, EF_MAX, 0, |_| true).expect("ef is k at least");
    assert_eq!(hits.len(), 1);
    assert_eq!(index.rerank(&query, |_| Some(&query[..]), 0, &mut hits), Err(Invalid::ZeroK));
    let error = Invalid::Dimensions { given: 2, expected: 3 };
    assert_eq!(index.rerank(&query, |_| Some(&query[..2]), 1, &mut hits), Err(error));
    assert_eq!(index.rerank(&query, |_| None, 1, &mut hits), Err(Invalid::Missing { row: 0 }));
}

#[test]
fn options_out_of_range_are_refused() {
    let well = || IndexOptions::new(3, Metric::Cosine);
    for options in [
        IndexOptions { dimensions: 0, ..well() },
        IndexOptions { dimensions: DIMENSIONS_MAX + 1, ..well() },
        IndexOptions { ef_construction: 15, ..well() },
        IndexOptions { alpha: 0.9, ..well() },
        IndexOptions { alpha: f32::NAN, ..well() },
        IndexOptions { vectors_max: 0, ..well() },
    ] {
        assert!(matches!(Index::new(options), Err(Invalid::Options { .. })));
    }
}

#[test]
fn a_full_partition_refuses_until_something_goes() {
    let options = IndexOptions { vectors_max: 40, ..IndexOptions::new(3, Metric::Euclidean) };
    let mut index = Index::new(options).expect("the options are well");
    for key in 0..40_u32 {
        index.insert(&[key as f32, 1.0, 0.0]).expect("there is room");
    }
    assert_eq!(index.insert(&[0.0; 3]), Err(Invalid::Full { max: 40 }));
    assert!(index.remove(3));
    assert_eq!(index.insert(&[40.0, 1.0, 0.0]), Ok(3));
    assert_eq!(index.insert(&[0.0; 3]), Err(Invalid::Full { max: 40 }));
    let hits = index.search(&[39.8, 1.0, 0.0], 3, 10, |_| true).expect("the query is well");
    assert_eq!(hits.iter().map(|hit| hit.row).collect::<Vec<_>>(), [3, 39, 38]);
}

#[test]
fn what_points_nowhere_is_the_last_hit() {
    let vectors = vectors(&mut Rng::with_seed(5), 20, 48);
    let mut index = filled(Metric::Cosine, &vectors, 5);
    let mut hits = index.search(&vectors[7], 20, 50, |_| true).expect("the query is well");
    let (nothing, not_numbers) = ([0.0; 48], [f32::NAN; 48]);
    // As a file would give them in which bits have flipped.
    let row = |row: Row| match row {
        3 => Some(&nothing[..]),
        9 => Some(&not_numbers[..]),
        _ => Some(&vectors[row as usize][..]),
    };
    index.rerank(&vectors[7], row, 20, &mut hits).expect("the hits are there");
    assert_eq!((hits[0].row, hits.len()), (7, 20));
    assert_eq!([hits[18].row, hits[19].row], [3, 9]);
}
