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
        });
        all
    }
}

/// Asks the processor for lines that will be needed soon; a hint, without effect on what is computed.
#[inline(always)]
pub fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    x86::prefetch(values);
    #[cfg(target_arch = "aarch64")]
    aarch64::prefetch(values);
    #[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
    let _ = values;
}

/// For processors without the instructions that the others need, and what the others are tested against.
mod portable {
    use super::Line;

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

    pub(super) fn products(a: &[f32], b: &[f32]) -> (f64, f64) {
        const LANES: usize = 8;
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
        const LANES: usize = 8;
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
