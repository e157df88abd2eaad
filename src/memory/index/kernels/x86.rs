//! The kernels in AVX-512 (with VNNI) and AVX2 (with FMA).
//!
//! Every function with `target_feature` is reached only through a table that [`available`] gives out, after it
//! has asked the processor for all features that the table's functions name.

#![allow(unsafe_code)]

use super::{Kernels, Line};
use std::arch::x86_64::*;

/// Rows that are multiplied at a time: a line of the query is loaded once for all of them.
const ROWS_AT_ONCE: usize = 4;

/// What this processor has of the kernels here, the widest first.
pub(super) fn available() -> Vec<Kernels> {
    let mut all = Vec::new();
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        all.push(Kernels {
            name: "AVX-512 VNNI",
            // SAFETY (all three): the features that the functions name were detected above.
            dot_rows: |query, rows, products| unsafe { dot_rows_avx512(query, rows, products) },
            dot: |a, b| unsafe { dot_avx512(a, b) },
            squared_distance: |a, b| unsafe { squared_distance_avx512(a, b) },
        });
    }
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        all.push(Kernels {
            name: "AVX2",
            // SAFETY (all three): the features that the functions name were detected above.
            dot_rows: |query, rows, products| unsafe { dot_rows_avx2(query, rows, products) },
            dot: |a, b| unsafe { dot_avx2(a, b) },
            squared_distance: |a, b| unsafe { squared_distance_avx2(a, b) },
        });
    }
    all
}

#[inline(always)]
pub(super) fn prefetch<T>(values: &[T]) {
    let start = values.as_ptr().cast::<i8>();
    for byte in (0..size_of_val(values)).step_by(Line::BYTES) {
        // SAFETY: the address lies inside the slice, and prefetching accesses nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(byte)) };
    }
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
    for (row, product) in rows.iter().zip(products) {
        let mut sums = _mm256_setzero_si256();
        for (query, row) in query.iter().zip(row.iter()) {
            for part in 0..4 {
                // Products of bytes are summed in 32 bits: in 16 bits two of them would overflow.
                let query = _mm256_cvtepi8_epi16(load_128(query, part));
                let row = _mm256_cvtepu8_epi16(load_128(row, part));
                sums = _mm256_add_epi32(sums, _mm256_madd_epi16(query, row));
            }
        }
        *product = sum_epi32(sums);
    }
}

#[target_feature(enable = "avx2")]
fn load_128(line: &Line, part: usize) -> __m128i {
    let part = &line.0[part * 16..][..16];
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

#[target_feature(enable = "avx512f")]
fn dot_avx512(a: &[f32], b: &[f32]) -> f32 {
    fold_avx512::<false>(a, b)
}

#[target_feature(enable = "avx512f")]
fn squared_distance_avx512(a: &[f32], b: &[f32]) -> f32 {
    fold_avx512::<true>(a, b)
}

/// The sum of products or, with `SQUARED`, of squared differences.
#[inline]
#[target_feature(enable = "avx512f")]
fn fold_avx512<const SQUARED: bool>(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let length = a.len().min(b.len());
    let mut sums = [_mm512_setzero_ps(); 2];
    for (turn, start) in (0..length).step_by(LANES).enumerate() {
        let mask = ((1_u32 << (length - start).min(LANES)) - 1) as __mmask16;
        // SAFETY: the mask leaves out what lies behind `length`, and masked lanes are not accessed.
        let (a, b) = unsafe {
            (
                _mm512_maskz_loadu_ps(mask, a.as_ptr().add(start)),
                _mm512_maskz_loadu_ps(mask, b.as_ptr().add(start)),
            )
        };
        let sum = &mut sums[turn % 2];
        *sum = if SQUARED {
            let difference = _mm512_sub_ps(a, b);
            _mm512_fmadd_ps(difference, difference, *sum)
        } else {
            _mm512_fmadd_ps(a, b, *sum)
        };
    }
    _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]))
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
    let mut sums = [_mm256_setzero_ps(); 2];
    for (turn, (a, b)) in a_parts.iter().zip(b_parts).enumerate() {
        // SAFETY: both parts are eight values long, and any alignment will do.
        let (a, b) = unsafe { (_mm256_loadu_ps(a.as_ptr()), _mm256_loadu_ps(b.as_ptr())) };
        let sum = &mut sums[turn % 2];
        *sum = if SQUARED {
            let difference = _mm256_sub_ps(a, b);
            _mm256_fmadd_ps(difference, difference, *sum)
        } else {
            _mm256_fmadd_ps(a, b, *sum)
        };
    }
    let mut lanes = [0.0_f32; LANES];
    // SAFETY: the array is eight values long, and any alignment will do.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), _mm256_add_ps(sums[0], sums[1])) };
    let rest = a_rest.iter().zip(b_rest);
    let rest = rest.map(|(a, b)| if SQUARED { (a - b) * (a - b) } else { a * b });
    lanes.iter().sum::<f32>() + rest.sum::<f32>()
}
