//! Every kernel of this processor computes what the portable one does.

use super::super::kernels::{FINER, Kernels, Line};
use proptest::{collection::vec, prelude::*};

/// Bytes of 1 to 9 lines, so that lengths are no multiple of what kernels take at a time.
fn lines(lines: usize) -> impl Strategy<Value = Vec<Line>> {
    vec(any::<[u8; 32]>(), 2 * lines).prop_map(|halves| {
        let whole = halves.as_chunks::<2>().0.iter();
        whole.map(|halves| Line(halves.as_flattened().try_into().expect("64 bytes"))).collect()
    })
}

/// A query and 0 to 11 rows of one length.
fn query_and_rows() -> impl Strategy<Value = (Vec<Line>, Vec<Vec<Line>>)> {
    (1..10_usize).prop_flat_map(|length| (lines(length), vec(lines(length), 0..12)))
}

fn products(kernels: Kernels, query: &[Line], rows: &[Vec<Line>]) -> Vec<i32> {
    let rows: Vec<&[Line]> = rows.iter().map(|row| &row[..]).collect();
    let mut products = vec![-1; rows.len()];
    (kernels.dot_rows)(query, &rows, &mut products);
    products
}

fn exact(query: &[Line], row: &[Line]) -> i32 {
    let query = query.iter().flat_map(|line| line.0);
    let row = row.iter().flat_map(|line| line.0);
    query.zip(row).map(|(query, row)| i32::from(query as i8) * i32::from(row)).sum()
}

proptest! {
    #[test]
    fn products_of_codes_are_exact((query, rows) in query_and_rows()) {
        let expected: Vec<i32> = rows.iter().map(|row| exact(&query, row)).collect();
        for kernels in Kernels::available() {
            prop_assert_eq!(&products(kernels, &query, &rows), &expected, "{}", kernels.name);
        }
    }

    #[test]
    fn float_products_agree(pairs in vec((-1e3_f32..1e3, -1e3_f32..1e3), 0..200)) {
        let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        let pairs = || a.iter().zip(&b).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let dot: f64 = pairs().map(|(a, b)| a * b).sum();
        let squared: f64 = pairs().map(|(a, b)| (a - b) * (a - b)).sum();
        let squared_b: f64 = pairs().map(|(_, b)| b * b).sum();
        // What rounding may leave grows with the terms, not with their sum.
        let slack = 1e-5 * pairs().map(|(a, b)| (a * a).max(b * b)).sum::<f64>() + 1e-5;
        for kernels in Kernels::available() {
            let off = (f64::from((kernels.dot)(&a, &b)) - dot).abs();
            prop_assert!(off <= slack, "{}: dot off by {off}", kernels.name);
            let off = (f64::from((kernels.squared_distance)(&a, &b)) - squared).abs();
            prop_assert!(off <= 4.0 * slack, "{}: distance off by {off}", kernels.name);
            let (mixed, own) = (kernels.products)(&a, &b);
            let off = (mixed - dot).abs().max((own - squared_b).abs());
            prop_assert!(off <= 1e-9 * slack, "{}: products off by {off}", kernels.name);
        }
    }
}

proptest! {
    /// Around another point a code and a finer one are the vector, and all kernels make the same.
    #[test]
    fn codes_around_another_point_agree(
        code in lines(4),
        ends in vec((-1e3_f32..1e3, -1e3_f32..1e3), 1..257),
        step in 0.0_f32..10.0,
    ) {
        let (from, to): (Vec<f32>, Vec<f32>) = ends.into_iter().unzip();
        let code = &code[..from.len().div_ceil(Line::BYTES)];
        let bytes = code.iter().flat_map(|line| line.0);
        let pairs = from.iter().zip(&to);
        let exact: Vec<f32> =
            bytes.zip(pairs).map(|(byte, (from, to))| (from - to) + step * f32::from(byte as i8)).collect();
        let size = exact.iter().fold(0.0, |all, it| f32::max(all, it.abs()));
        let mut former = None;
        for kernels in Kernels::available() {
            let mut apart = vec![0.0; from.len()];
            prop_assert_eq!((kernels.apart)(code, step, &from, &to, &mut apart), size);
            prop_assert_eq!(&apart, &exact, "{}", kernels.name);
            let mut codes = [vec![Line::ZERO; code.len()], vec![Line::ZERO; code.len()]];
            let [first, finer] = &mut codes;
            let factor = if size > 0.0 { 127.0 / size } else { 0.0 };
            (kernels.round_twice)(&apart, factor, first, finer);
            let bytes = |lines: &[Line]| -> Vec<i8> {
                lines.iter().flat_map(|line| line.0).map(|byte| byte as i8).collect()
            };
            let [first, finer] = [bytes(first), bytes(finer)];
            let back = first.iter().zip(&finer).map(|(&a, &b)| f32::from(a) + f32::from(b) / FINER);
            for (back, exact) in back.clone().zip(&exact) {
                prop_assert!((back - exact * factor).abs() <= 0.51 / FINER + 1e-4, "{}", kernels.name);
            }
            prop_assert!(back.skip(exact.len()).all(|rest| rest == 0.0), "{}", kernels.name);
            prop_assert_eq!(former.get_or_insert_with(|| codes.clone()), &codes, "{}", kernels.name);
        }
    }
}

/// Two products of the largest bytes do not fit 16 bits, and 4,096 dimensions still fit 32.
#[test]
fn the_largest_components_do_not_overflow() {
    let lines = super::super::DIMENSIONS_MAX / Line::BYTES;
    for query in [127_i8, -128] {
        let query = vec![Line([query as u8; 64]); lines];
        let rows = vec![vec![Line([255; 64]); lines]; 5];
        for kernels in Kernels::available() {
            let expected = vec![exact(&query, &rows[0]); 5];
            assert_eq!(products(kernels, &query, &rows), expected, "{}", kernels.name);
        }
    }
}

#[test]
fn the_portable_kernel_is_always_there() {
    assert_eq!(Kernels::available().last().map(|kernels| kernels.name), Some("portable"));
}
