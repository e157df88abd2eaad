//! The distance of two codes is near that of their vectors, and exact where it must be.

use super::super::{
    kernels::Line,
    quantize::{Coding, Metric, Probe, Terms},
};
use super::distance;
use proptest::{collection::vec, prelude::*};

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Euclidean, Metric::Dot];

/// A vector's code, and how it is coded.
fn code(vector: &[f32], metric: Metric) -> (Coding, Probe) {
    let coding = Coding::new(vector.len(), metric);
    let mut probe = Probe::new(coding.lines());
    coding.encode(vector, coding.metric, &mut probe).expect("the vector is well");
    (coding, probe)
}

/// The distance as the index computes it, from either side.
fn of_codes(coding: &Coding, a: &Probe, b: &Probe) -> f32 {
    let mut row = vec![Line::ZERO; b.code.len()];
    coding.store(b, &mut row);
    let mut rank = [0.0];
    coding.ranks(a, &[&row], |_| b.terms, &mut rank);
    rank[0] + a.terms.term
}

/// Two vectors of one length; no component so small that the whole could be zero.
fn two_vectors() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
    let component = || prop_oneof![-1.0_f32..-0.01, 0.01_f32..1.0];
    (1..200_usize).prop_flat_map(move |n| (vec(component(), n), vec(component(), n)))
}

proptest! {
    #[test]
    fn distances_of_codes_are_near_the_true_ones((a, b) in two_vectors(), size in 1e-3_f32..1e3) {
        let b: Vec<f32> = b.iter().map(|value| value * size).collect();
        let norm = |v: &[f32]| distance(Metric::Dot, v, v).abs().sqrt();
        for metric in METRICS {
            let (coding, code_a) = code(&a, metric);
            let of_codes = f64::from(of_codes(&coding, &code_a, &code(&b, metric).1));
            let exact = distance(metric, &a, &b);
            // Half a step in each component, and the steps are a 127th of the largest.
            let step = |v: &[f32]| 0.5 / 127.0 * (v.len() as f64).sqrt() * v.iter().fold(0.0, |m, x| f64::max(m, f64::from(x.abs())));
            let (off_a, off_b) = (step(&a), step(&b));
            let slack = match metric {
                Metric::Cosine => 2.0 * (off_a / norm(&a) + off_b / norm(&b)),
                Metric::Euclidean => 2.0 * (off_a + off_b) * (norm(&a) + norm(&b) + off_a + off_b),
                Metric::Dot => off_a * norm(&b) + off_b * norm(&a) + off_a * off_b,
            };
            let slack = slack + 1e-6 * (1.0 + norm(&a) * norm(&b));
            prop_assert!((of_codes - exact).abs() <= slack, "{metric:?}: {of_codes} {exact} ±{slack}");
        }
    }

    #[test]
    fn both_sides_see_one_distance((a, b) in two_vectors()) {
        for metric in METRICS {
            let ((coding, a), (_, b)) = (code(&a, metric), code(&b, metric));
            let there = of_codes(&coding, &a, &b);
            let back = of_codes(&coding, &b, &a);
            prop_assert!((there - back).abs() <= 1e-5 * (1.0 + there.abs() + a.terms.term + b.terms.term));
        }
    }

    #[test]
    fn a_stored_row_read_back_is_the_same_probe((a, b) in two_vectors()) {
        for metric in METRICS {
            let ((coding, a), (_, b)) = (code(&a, metric), code(&b, metric));
            let mut row = vec![Line::ZERO; a.code.len()];
            coding.store(&a, &mut row);
            let mut back = Probe::new(a.code.len());
            coding.decode(&row, a.terms, 0, coding.metric, &mut back);
            prop_assert_eq!(&back.code, &a.code);
            prop_assert_eq!(of_codes(&coding, &back, &b), of_codes(&coding, &a, &b));
        }
    }

    #[test]
    fn equal_vectors_have_distance_zero((a, _) in two_vectors()) {
        for metric in [Metric::Cosine, Metric::Euclidean] {
            let (coding, code) = code(&a, metric);
            let distance = of_codes(&coding, &code, &code);
            prop_assert!(coding.are_twins(distance, code.terms, code.terms), "{}", distance);
        }
    }
}

#[test]
fn the_smallest_and_the_largest_vectors_have_codes() {
    for size in [f32::from_bits(1), 1e-30, 1e17] {
        for (metric, length) in METRICS.into_iter().flat_map(|metric| [(metric, 3), (metric, 30)]) {
            let vector: Vec<_> =
                [size, -size, size / 2.0].into_iter().cycle().take(length).collect();
            let (coding, code) = code(&vector, metric);
            assert!(code.terms.scale.is_finite() && code.terms.term.is_finite());
            assert!(of_codes(&coding, &code, &code).is_finite(), "{metric:?} of {size}");
        }
    }
    let (_, zero) = code(&[0.0; 30], Metric::Euclidean);
    assert_eq!(zero.terms, Terms { scale: 0.0, term: 0.0 });
}
