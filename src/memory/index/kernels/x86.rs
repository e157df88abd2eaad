//! The kernels in AVX-512 (with VNNI) and AVX2 (with FMA).
//!
//! Every function with `target_feature` is reached only through a table that [`available`] gives out, after it
//! has asked the processor for all features that the table's functions name.

#![allow(unsafe_code)]

use super::{Kernels, Line};
use std::arch::x86_64::*;

/// Rows that are multiplied at a time: a line of the query is loaded once for all of them.
const ROWS_AT_ONCE: usize = 4;
/// Parts of a line whose bytes, made 16 bits wide, fill a register of AVX2.
const PARTS: usize = Line::BYTES / PART_BYTES;
const PART_BYTES: usize = 16;
/// Sums of float32 that do not wait for each other.
const SUMS: usize = 4;

/// What this processor has of the kernels here, the widest first.
pub(super) fn available() -> Vec<Kernels> {
    let mut all = Vec::new();
    let has_avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let has_vnni = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni");
    if has_avx2 && has_vnni {
        all.push(Kernels {
            name: "AVX-512 VNNI",
            // SAFETY (all six): the features that the functions name were detected above.
            dot_rows: |query, rows, products| unsafe { dot_rows_avx512(query, rows, products) },
            // The float32 kernel of AVX-512 took twice the time of this one.
            dot: |a, b| unsafe { dot_avx2(a, b) },
            squared_distance: |a, b| unsafe { squared_distance_avx2(a, b) },
            products: |a, b| unsafe { products_avx2(a, b) },
            apart: |code, step, from, to, apart| unsafe { apart_avx2(code, step, from, to, apart) },
            round_twice: |numbers, factor, code, finer| unsafe {
                round_twice_avx2(numbers, factor, code, finer)
            },
        });
    }
    if has_avx2 {
        all.push(Kernels {
            name: "AVX2",
            // SAFETY (all six): the features that the functions name were detected above.
            dot_rows: |query, rows, products| unsafe { dot_rows_avx2(query, rows, products) },
            dot: |a, b| unsafe { dot_avx2(a, b) },
            squared_distance: |a, b| unsafe { squared_distance_avx2(a, b) },
            products: |a, b| unsafe { products_avx2(a, b) },
            apart: |code, step, from, to, apart| unsafe { apart_avx2(code, step, from, to, apart) },
            round_twice: |numbers, factor, code, finer| unsafe {
                round_twice_avx2(numbers, factor, code, finer)
            },
        });
    }
    all
}

#[inline(always)]
pub(super) fn prefetch_line(line: *const Line) {
    // SAFETY: prefetching accesses nothing, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn dot_rows_avx512(query: &[Line], rows: &[&[Line]], products: &mut [i32]) {
    assert!(rows.iter().all(|row| row.len() == query.len()));
    let (blocks, rest) = rows.as_chunks::<ROWS_AT_ONCE>();
    let (block_products, rest_products) = products.as_chunks_mut::<ROWS_AT_ONCE>();
    for (rows, products) in blocks.iter().zip(block_products) {
        let mut sums = [_mm512_setzero_si512(); ROWS_AT_ONCE];
        for (line, query) in query.iter().enumerate() {
            let query = load_512(query);
            for (sum, row) in sums.iter_mut().zip(rows) {
                // SAFETY: `line` is below the query's length, which is each row's.
                let row = unsafe { row.get_unchecked(line) };
                *sum = _mm512_dpbusd_epi32(*sum, load_512(row), query);
            }
        }
        *products = sum_each(sums);
    }
    for (row, product) in rest.iter().zip(rest_products) {
        let mut sum = _mm512_setzero_si512();
        for (query, row) in query.iter().zip(row.iter()) {
            sum = _mm512_dpbusd_epi32(sum, load_512(row), load_512(query));
        }
        *product = _mm512_reduce_add_epi32(sum);
    }
}

/// The sum of each register's numbers: all four are folded at once.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum_each(sums: [__m512i; ROWS_AT_ONCE]) -> [i32; ROWS_AT_ONCE] {
    let [a, b, c, d] = sums;
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    let all = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let half = _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64::<1>(all));
    let sums = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half));
    let mut products = [0; ROWS_AT_ONCE];
    // SAFETY: the array is four numbers long, and any alignment will do.
    unsafe { _mm_storeu_si128(products.as_mut_ptr().cast(), sums) };
    products
}

#[target_feature(enable = "avx512f")]
fn load_512(line: &Line) -> __m512i {
    // SAFETY: a line is 64 bytes and aligned to 64.
    unsafe { _mm512_load_si512(line.0.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
fn dot_rows_avx2(query: &[Line], rows: &[&[Line]], products: &mut [i32]) {
    assert!(rows.iter().all(|row| row.len() == query.len()));
    // Products of bytes are summed in 32 bits: in 16 bits two of them would overflow.
    let wide = |query: &Line, part| _mm256_cvtepi8_epi16(load_128(query, part));
    let add = |sum: &mut __m256i, query: __m256i, row: &Line, part| {
        let row = _mm256_cvtepu8_epi16(load_128(row, part));
        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(query, row));
    };
    let (blocks, rest) = rows.as_chunks::<ROWS_AT_ONCE>();
    let (block_products, rest_products) = products.as_chunks_mut::<ROWS_AT_ONCE>();
    for (rows, products) in blocks.iter().zip(block_products) {
        let mut sums = [_mm256_setzero_si256(); ROWS_AT_ONCE];
        for (line, query) in query.iter().enumerate() {
            for part in 0..PARTS {
                let query = wide(query, part);
                for (sum, row) in sums.iter_mut().zip(rows) {
                    // SAFETY: `line` is below the query's length, which is each row's.
                    add(sum, query, unsafe { row.get_unchecked(line) }, part);
                }
            }
        }
        *products = sum_each_256(sums);
    }
    for (row, product) in rest.iter().zip(rest_products) {
        let mut sum = _mm256_setzero_si256();
        for (query, row) in query.iter().zip(row.iter()) {
            (0..PARTS).for_each(|part| add(&mut sum, wide(query, part), row, part));
        }
        *product = sum_epi32(sum);
    }
}

/// The sum of each register's numbers.
#[inline]
#[target_feature(enable = "avx2")]
fn sum_each_256([a, b, c, d]: [__m256i; ROWS_AT_ONCE]) -> [i32; ROWS_AT_ONCE] {
    let all = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let sums = _mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
    let mut products = [0; ROWS_AT_ONCE];
    // SAFETY: the array is four numbers long, and any alignment will do.
    unsafe { _mm_storeu_si128(products.as_mut_ptr().cast(), sums) };
    products
}

#[target_feature(enable = "avx2")]
fn load_128(line: &Line, part: usize) -> __m128i {
    let part = &line.0[part * PART_BYTES..][..PART_BYTES];
    // SAFETY: the part is 16 bytes, and any alignment will do.
    unsafe { _mm_loadu_si128(part.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
fn sum_epi32(sums: __m256i) -> i32 {
    let sums = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
    let sums = _mm_add_epi32(sums, _mm_shuffle_epi32::<0b01_00_11_10>(sums));
    let sums = _mm_add_epi32(sums, _mm_shuffle_epi32::<0b10_11_00_01>(sums));
    _mm_cvtsi128_si32(sums)
}

#[target_feature(enable = "avx2,fma")]
fn dot_avx2(a: &[f32], b: &[f32]) -> f32 {
    fold_avx2::<false>(a, b)
}

#[target_feature(enable = "avx2,fma")]
fn squared_distance_avx2(a: &[f32], b: &[f32]) -> f32 {
    fold_avx2::<true>(a, b)
}

/// The sum of products or, with `SQUARED`, of squared differences.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn fold_avx2<const SQUARED: bool>(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let (a_parts, a_rest) = a.as_chunks::<LANES>();
    let (b_parts, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [_mm256_setzero_ps(); SUMS];
    let mut add = |at: usize, a: &[f32; LANES], b: &[f32; LANES]| {
        // SAFETY: both parts are eight values long, and any alignment will do.
        let (a, b) = unsafe { (_mm256_loadu_ps(a.as_ptr()), _mm256_loadu_ps(b.as_ptr())) };
        sums[at] = if SQUARED {
            let difference = _mm256_sub_ps(a, b);
            _mm256_fmadd_ps(difference, difference, sums[at])
        } else {
            _mm256_fmadd_ps(a, b, sums[at])
        };
    };
    let (a_blocks, a_last) = a_parts.as_chunks::<SUMS>();
    let (b_blocks, b_last) = b_parts.as_chunks::<SUMS>();
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        (0..SUMS).for_each(|at| add(at, &a[at], &b[at]));
    }
    for (at, (a, b)) in a_last.iter().zip(b_last).enumerate() {
        add(at, a, b);
    }
    let [a, b, c, d] = sums;
    let sum = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
    let mut lanes = [0.0_f32; LANES];
    // SAFETY: the array is eight values long, and any alignment will do.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) };
    let rest = a_rest.iter().zip(b_rest);
    let rest = rest.map(|(a, b)| if SQUARED { (a - b) * (a - b) } else { a * b });
    lanes.iter().sum::<f32>() + rest.sum::<f32>()
}

#[target_feature(enable = "avx2,fma")]
fn products_avx2(a: &[f32], b: &[f32]) -> (f64, f64) {
    const LANES: usize = 4;
    let (a_parts, a_rest) = a.as_chunks::<LANES>();
    let (b_parts, b_rest) = b.as_chunks::<LANES>();
    let (mut mixed, mut own) = ([_mm256_setzero_pd(); 2], [_mm256_setzero_pd(); 2]);
    let mut add = |at: usize, a: &[f32; LANES], b: &[f32; LANES]| {
        // SAFETY: both parts are four values long, and any alignment will do.
        let (a, b) = unsafe { (_mm_loadu_ps(a.as_ptr()), _mm_loadu_ps(b.as_ptr())) };
        let (a, b) = (_mm256_cvtps_pd(a), _mm256_cvtps_pd(b));
        mixed[at] = _mm256_fmadd_pd(a, b, mixed[at]);
        own[at] = _mm256_fmadd_pd(b, b, own[at]);
    };
    let (a_pairs, a_last) = a_parts.as_chunks::<2>();
    let (b_pairs, b_last) = b_parts.as_chunks::<2>();
    for (a, b) in a_pairs.iter().zip(b_pairs) {
        add(0, &a[0], &b[0]);
        add(1, &a[1], &b[1]);
    }
    a_last.iter().zip(b_last).for_each(|(a, b)| add(0, a, b));
    let sum = |[a, b]: [__m256d; 2]| {
        let mut lanes = [0.0_f64; LANES];
        // SAFETY: the array is four values long, and any alignment will do.
        unsafe { _mm256_storeu_pd(lanes.as_mut_ptr(), _mm256_add_pd(a, b)) };
        lanes.iter().sum::<f64>()
    };
    let (rest_mixed, rest_own) = super::portable::products(a_rest, b_rest);
    (sum(mixed) + rest_mixed, sum(own) + rest_own)
}

#[target_feature(enable = "avx2")]
fn apart_avx2(code: &[Line], step: f32, from: &[f32], to: &[f32], apart: &mut [f32]) -> f32 {
    super::portable::apart(code, step, from, to, apart)
}

#[target_feature(enable = "avx2")]
fn round_twice_avx2(numbers: &[f32], factor: f32, code: &mut [Line], finer: &mut [Line]) {
    super::portable::round_twice(numbers, factor, code, finer);
}
