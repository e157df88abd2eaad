//! The kernels in NEON: with the dot product instructions (`dotprod`) where the processor has them, else
//! with widening products.
//!
//! The processor multiplies signed bytes with signed ones, so a row's bytes are moved back by [`OFFSET`]
//! first, which flips their highest bit; what that takes away from the product is added at the end.
//!
//! Every function with `target_feature` is reached only through a table that [`available`] gives out, after it
//! has asked the processor for all features that the table's functions name.

#![allow(unsafe_code)]

use super::{Kernels, Line, OFFSET};
use std::{
    arch::{aarch64::*, is_aarch64_feature_detected},
    array::from_fn,
};

/// Bytes of a register.
const BYTES: usize = 16;
/// Registers of a line.
const PARTS: usize = Line::BYTES / BYTES;

/// What this processor has of the kernels here, the widest first.
pub(super) fn available() -> Vec<Kernels> {
    let mut all = Vec::new();
    if is_aarch64_feature_detected!("neon") {
        if is_aarch64_feature_detected!("dotprod") {
            all.push(Kernels {
                name: "NEON dotprod",
                // SAFETY (all three): the features that the functions name were detected above.
                dot_rows: |query, rows, products| unsafe {
                    dot_rows_dotprod(query, rows, products)
                },
                dot: |a, b| unsafe { fold::<false>(a, b) },
                squared_distance: |a, b| unsafe { fold::<true>(a, b) },
                products: super::portable::products,
                apart: super::portable::apart,
                round_twice: super::portable::round_twice,
            });
        }
        all.push(Kernels {
            name: "NEON",
            // SAFETY (all three): the feature that the functions name was detected above.
            dot_rows: |query, rows, products| unsafe { dot_rows_neon(query, rows, products) },
            dot: |a, b| unsafe { fold::<false>(a, b) },
            squared_distance: |a, b| unsafe { fold::<true>(a, b) },
            products: super::portable::products,
            apart: super::portable::apart,
            round_twice: super::portable::round_twice,
        });
    }
    all
}

#[inline(always)]
pub(super) fn prefetch_line(line: *const Line) {
    // SAFETY: the instruction accesses nothing, whatever the address: it is a hint that changes neither memory nor
    // flags.
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{address}]",
            address = in(reg) line,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// What the moved rows' products lack: the sum of the query's components times [`OFFSET`].
#[inline]
#[target_feature(enable = "neon")]
fn correction(query: &[Line]) -> i32 {
    let mut sums = vdupq_n_s32(0);
    for line in query {
        for part in parts(line) {
            sums = vpadalq_s16(sums, vpaddlq_s8(part));
        }
    }
    OFFSET * vaddvq_s32(sums)
}

/// A line as signed bytes, in registers.
#[inline]
#[target_feature(enable = "neon")]
fn parts(line: &Line) -> [int8x16_t; PARTS] {
    // SAFETY: each part is 16 bytes inside the line, and any alignment will do.
    from_fn(|part| unsafe { vld1q_s8(line.0.as_ptr().add(part * BYTES).cast()) })
}

/// A line of a row, moved back.
#[inline]
#[target_feature(enable = "neon")]
fn row_parts(line: &Line) -> [int8x16_t; PARTS] {
    let flip = vdupq_n_s8(OFFSET as u8 as i8);
    let stored = parts(line);
    from_fn(|part| veorq_s8(stored[part], flip))
}

#[target_feature(enable = "neon,dotprod")]
fn dot_rows_dotprod(query: &[Line], rows: &[&[Line]], products: &mut [i32]) {
    let correction = correction(query);
    for (row, product) in rows.iter().zip(products) {
        let mut sums = [vdupq_n_s32(0); PARTS];
        for (query, row) in query.iter().zip(row.iter()) {
            let (query, row) = (parts(query), row_parts(row));
            for (sum, (query, row)) in sums.iter_mut().zip(query.into_iter().zip(row)) {
                *sum = dot_of_four(*sum, query, row);
            }
        }
        *product = sum_of(sums) + correction;
    }
}

/// Adds to each sum the products of its four bytes (`sdot`), which has no stable name in the standard
/// library yet.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_of_four(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction belongs to `dotprod`, which the caller has; it touches the named registers
    // alone.
    unsafe {
        std::arch::asm!(
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

#[target_feature(enable = "neon")]
fn dot_rows_neon(query: &[Line], rows: &[&[Line]], products: &mut [i32]) {
    let correction = correction(query);
    for (row, product) in rows.iter().zip(products) {
        let mut sums = [vdupq_n_s32(0); PARTS];
        for (query, row) in query.iter().zip(row.iter()) {
            let (query, row) = (parts(query), row_parts(row));
            for (sum, (query, row)) in sums.iter_mut().zip(query.into_iter().zip(row)) {
                // Two products of the smallest bytes do not fit 16 bits, so each half is summed in 32.
                *sum = vpadalq_s16(*sum, vmull_s8(vget_low_s8(query), vget_low_s8(row)));
                *sum = vpadalq_s16(*sum, vmull_high_s8(query, row));
            }
        }
        *product = sum_of(sums) + correction;
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn sum_of(sums: [int32x4_t; PARTS]) -> i32 {
    vaddvq_s32(vaddq_s32(vaddq_s32(sums[0], sums[1]), vaddq_s32(sums[2], sums[3])))
}

/// The sum of products or, with `SQUARED`, of squared differences.
#[target_feature(enable = "neon")]
fn fold<const SQUARED: bool>(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 4;
    const AT_ONCE: usize = 4;
    let (a_parts, a_rest) = a.as_chunks::<LANES>();
    let (b_parts, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [vdupq_n_f32(0.0); AT_ONCE];
    for (turn, (a, b)) in a_parts.iter().zip(b_parts).enumerate() {
        // SAFETY: both parts are four values long, and any alignment will do.
        let (a, b) = unsafe { (vld1q_f32(a.as_ptr()), vld1q_f32(b.as_ptr())) };
        let sum = &mut sums[turn % AT_ONCE];
        *sum = if SQUARED {
            let difference = vsubq_f32(a, b);
            vfmaq_f32(*sum, difference, difference)
        } else {
            vfmaq_f32(*sum, a, b)
        };
    }
    let sums = vaddq_f32(vaddq_f32(sums[0], sums[1]), vaddq_f32(sums[2], sums[3]));
    let rest = a_rest.iter().zip(b_rest);
    let rest = rest.map(|(a, b)| if SQUARED { (a - b) * (a - b) } else { a * b });
    vaddvq_f32(sums) + rest.sum::<f32>()
}
