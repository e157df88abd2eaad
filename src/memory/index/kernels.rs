//! Dot products with the widest instructions that the processor has, chosen once at the start.
//!
//! A code lies in whole cache lines. A stored row has each component with 128 added, as an unsigned byte; a
//! query has it as it is, as a signed byte; that is what the processor multiplies at once (VNNI). The query
//! is filled up with zeros, so what a row's last line is filled up with does not count.

#![allow(unsafe_code)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86;

/// What a row's components are moved by.
pub(super) const OFFSET: i32 = 128;

/// A cache line of a code.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line(pub [u8; 64]);

impl Line {
    /// Its size.
    pub const BYTES: usize = 64;
    pub(super) const ZERO: Line = Line([0; 64]);
    /// What a stored row's last line is filled up with.
    pub(super) const REST: Line = Line([OFFSET as u8; 64]);

    /// The line as a stored row has it, or back. A loop, since `map` of an array is two calls a byte where
    /// less is optimized than in a release.
    pub(super) fn turned(mut self) -> Self {
        for byte in &mut self.0 {
            *byte ^= OFFSET as u8;
        }
        self
    }

    /// The line as float32 numbers, which stand in it as the processor has them.
    pub(super) fn floats(&self) -> &[f32; 16] {
        // SAFETY: both are 64 bytes, a line is aligned to more than a float32, and any bits are one.
        unsafe { &*std::ptr::from_ref(&self.0).cast() }
    }

    pub(super) fn floats_mut(&mut self) -> &mut [f32; 16] {
        // SAFETY: as above, and any bits are bytes.
        unsafe { &mut *std::ptr::from_mut(&mut self.0).cast() }
    }
}

/// Products of a query with each of some rows.
pub type DotRows = fn(&[Line], &[&[Line]], &mut [i32]);
/// One number of two vectors.
pub type Dot = fn(&[f32], &[f32]) -> f32;

/// Two numbers of two vectors.
pub type Products = fn(&[f32], &[f32]) -> (f64, f64);

/// The differences of a code's vector, whose bytes count by the step around the first point, to the second point. The
/// largest of them, without its sign.
pub type Apart = fn(&[Line], f32, &[f32], &[f32], &mut [f32]) -> f32;
/// Rounds numbers, times a factor, to two codes: the second is of what the first rounds off, in [`FINER`] times as fine
/// steps.
pub type RoundTwice = fn(&[f32], f32, &mut [Line], &mut [Line]);

/// Steps of a second code in one of the first: what was rounded off is at most half a step.
pub(super) const FINER: f32 = 252.0;

/// The functions for this processor.
#[derive(Clone, Copy)]
pub struct Kernels {
    /// The name of the instructions behind `dot_rows`.
    pub name: &'static str,
    /// The product of a query's signed bytes with the unsigned bytes of each row, which are as long.
    pub dot_rows: DotRows,
    /// The product of two float32 vectors of one length.
    pub dot: Dot,
    /// The squared distance of two float32 vectors of one length.
    pub squared_distance: Dot,
    /// The product of two float32 vectors of one length, and that of the second with itself, in 64 bits.
    pub products: Products,
    /// What a code is around another point; all are of one length.
    pub apart: Apart,
    /// Two codes of what that gave.
    pub round_twice: RoundTwice,
}

impl Kernels {
    /// The widest that this processor has.
    pub fn detect() -> Self {
        Self::available()[0]
    }

    /// All that this processor has, the widest first and the portable one last.
    pub fn available() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        all.extend(x86::available());
        #[cfg(target_arch = "aarch64")]
        all.extend(aarch64::available());
        all.push(Self {
            name: "portable",
            dot_rows: portable::dot_rows,
            dot: portable::dot,
            squared_distance: portable::squared_distance,
            products: portable::products,
            apart: portable::apart,
            round_twice: portable::round_twice,
        });
        all
    }
}

/// Asks the processor for lines that will be needed soon; a hint, without effect on what is computed.
#[inline(always)]
pub fn prefetch<T>(values: &[T]) {
    let mut at = values.as_ptr().cast::<Line>();
    for _ in 0..size_of_val(values).div_ceil(Line::BYTES) {
        prefetch_line(at);
        at = at.wrapping_add(1);
    }
}

/// The same for one value: the line in which it begins.
#[inline(always)]
pub(super) fn prefetch_value<T>(value: &T) {
    prefetch_line(std::ptr::from_ref(value).cast());
}

#[inline(always)]
fn prefetch_line(line: *const Line) {
    #[cfg(target_arch = "x86_64")]
    x86::prefetch_line(line);
    #[cfg(target_arch = "aarch64")]
    aarch64::prefetch_line(line);
    #[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
    let _ = line;
}

/// For processors without the instructions that the others need, and what the others are tested against.
mod portable {
    use super::{FINER, Line};

    /// What is computed at a time, for which the compiler may use what vector registers there are.
    const LANES: usize = 8;
    /// Added to a small number, it leaves the nearest integer in the lowest bits: one and a half times the number from
    /// which float32 has no fractions.
    const ROUNDING: f32 = 1.5 * (1_u32 << 23) as f32;

    pub(super) fn dot_rows(query: &[Line], rows: &[&[Line]], products: &mut [i32]) {
        for (row, product) in rows.iter().zip(products) {
            let lines = query.iter().zip(row.iter());
            *product = lines.map(|(query, row)| dot_line(query, row)).sum();
        }
    }

    fn dot_line(query: &Line, row: &Line) -> i32 {
        let pairs = query.0.iter().zip(&row.0);
        pairs.map(|(&query, &row)| i32::from(query as i8) * i32::from(row)).sum()
    }

    /// Sums of every eighth product, so that the compiler may use what vector registers there are.
    pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
        fold(a, b, |a, b| a * b)
    }

    pub(super) fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
        fold(a, b, |a, b| (a - b) * (a - b))
    }

    /// Inlined where more instructions are there.
    #[inline(always)]
    pub(super) fn apart(
        code: &[Line],
        step: f32,
        from: &[f32],
        to: &[f32],
        apart: &mut [f32],
    ) -> f32 {
        let mut largest = [0.0_f32; LANES];
        let mut one = |lane: usize, byte: u8, from: f32, to: f32| {
            let apart = (from - to) + step * f32::from(byte as i8);
            let size = apart.abs();
            largest[lane] = if size > largest[lane] { size } else { largest[lane] };
            apart
        };
        let ends = from.chunks(Line::BYTES).zip(to.chunks(Line::BYTES));
        for ((line, (from, to)), apart) in code.iter().zip(ends).zip(apart.chunks_mut(Line::BYTES))
        {
            let (apart, apart_rest) = apart.as_chunks_mut::<LANES>();
            let (from, from_rest) = from.as_chunks::<LANES>();
            let (to, to_rest) = to.as_chunks::<LANES>();
            let (bytes, _) = line.0.as_chunks::<LANES>();
            for (((bytes, from), to), apart) in bytes.iter().zip(from).zip(to).zip(&mut *apart) {
                for lane in 0..LANES {
                    apart[lane] = one(lane, bytes[lane], from[lane], to[lane]);
                }
            }
            let rest = &line.0[apart.len() * LANES..];
            let rest = rest.iter().zip(from_rest).zip(to_rest).zip(apart_rest);
            for (((&byte, &from), &to), apart) in rest {
                *apart = one(0, byte, from, to);
            }
        }
        largest.iter().fold(0.0, |all, &lane| f32::max(all, lane))
    }

    #[inline(always)]
    pub(super) fn round_twice(numbers: &[f32], factor: f32, code: &mut [Line], finer: &mut [Line]) {
        let one = |number: f32, byte: &mut u8, finer: &mut u8| {
            let steps = number * factor;
            let rounded = steps + ROUNDING;
            *byte = rounded.to_bits() as u8;
            let rounded_off = steps - (rounded - ROUNDING);
            *finer = (rounded_off * FINER + ROUNDING).to_bits() as u8;
        };
        for ((line, finer), numbers) in code.iter_mut().zip(finer).zip(numbers.chunks(Line::BYTES))
        {
            if let Ok(numbers) = <&[f32; Line::BYTES]>::try_from(numbers) {
                // With indices: so it is compiled to vectors.
                (0..Line::BYTES).for_each(|at| one(numbers[at], &mut line.0[at], &mut finer.0[at]));
            } else {
                for ((byte, finer), &number) in line.0.iter_mut().zip(&mut finer.0).zip(numbers) {
                    one(number, byte, finer);
                }
            }
        }
    }

    pub(super) fn products(a: &[f32], b: &[f32]) -> (f64, f64) {
        let mut sums = [(0.0, 0.0); LANES];
        let mut add = |lane: usize, a: f32, b: f32| {
            let (mixed, own) = &mut sums[lane];
            *mixed += f64::from(a) * f64::from(b);
            *own += f64::from(b) * f64::from(b);
        };
        let (a_chunks, a_rest) = a.as_chunks::<LANES>();
        let (b_chunks, b_rest) = b.as_chunks::<LANES>();
        for (a, b) in a_chunks.iter().zip(b_chunks) {
            (0..LANES).for_each(|lane| add(lane, a[lane], b[lane]));
        }
        for (lane, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
            add(lane, a, b);
        }
        sums.iter().fold((0.0, 0.0), |all, sum| (all.0 + sum.0, all.1 + sum.1))
    }

    fn fold(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
        let mut sums = [0.0; LANES];
        let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
        let rest: f32 = rest.map(|(&a, &b)| term(a, b)).sum();
        for (a, b) in a_chunks.zip(b_chunks) {
            for (lane, sum) in sums.iter_mut().enumerate() {
                *sum += term(a[lane], b[lane]);
            }
        }
        sums.iter().sum::<f32>() + rest
    }
}
