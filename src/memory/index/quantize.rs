//! A vector as eight bits a component, and the distance of two of them.
//!
//! Each vector has a scale of its own, its largest component over 127, and components are rounded to the
//! nearest step: on real sentence vectors that keeps half as many false neighbours as one scale for
//! all. With *a*, *b* the codes, every metric is one formula in their dot product:
//!
//! > distance = term(a) + term(b) − weight · scale(a) · scale(b) · (a·b)
//!
//! | metric | scale | term | weight |
//! |---|---|---|---|
//! | cosine | 1 / ‖a‖ | 1/2 | 1 |
//! | euclidean (squared) | max/127 | ‖scale · a‖² | 2 |
//! | dot product | max/127 | 0 | 1 |
//!
//! Scale and term come from the code, not from the vector, so that equal codes have distance zero, but
//! for float32 rounding. Vectors are normalised for the cosine by that: their length does not enter.

use super::{
    error::Invalid,
    kernels::{Kernels, Line, OFFSET},
};

/// The largest component: the squared distance of two vectors of them is finite in float32.
pub(super) const COMPONENT_MAX: f32 = 1e17;

/// Added and taken away again, it leaves the nearest integer of a small number: one and a half times the
/// number from which float64 has no fractions. Unlike `round`, that is no call for each component.
const ROUNDING: f64 = 1.5 * (1_u64 << 52) as f64;

/// What near means. The numbers stand in images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// One minus the cosine of the angle: 0 to 2.
    Cosine = 0,
    /// The squared euclidean distance.
    Euclidean = 1,
    /// The negated dot product. It is no distance: the graph serves it as well as its vectors' lengths are
    /// alike.
    Dot = 2,
}

/// What belongs to a code in the formula.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Terms {
    pub(super) scale: f32,
    pub(super) term: f32,
}

/// A code as the one side of many dot products.
pub(super) struct Probe {
    /// The components as signed bytes, filled up with zeros.
    pub(super) code: Vec<Line>,
    pub(super) terms: Terms,
    /// `weight · scale`.
    factor: f32,
    /// What the rows' offset adds to each product.
    correction: i32,
}

/// The largest component of a vector that has a code, without its sign.
pub(super) fn largest_component(vector: &[f32], metric: Metric) -> Result<f32, Invalid> {
    let mut largest = 0.0_f32;
    for (position, value) in vector.iter().enumerate() {
        if !value.is_finite() || value.abs() > COMPONENT_MAX {
            return Err(Invalid::NotFinite { position });
        }
        largest = largest.max(value.abs());
    }
    if largest == 0.0 && metric == Metric::Cosine {
        return Err(Invalid::ZeroNorm);
    }
    Ok(largest)
}

impl Metric {
    pub(super) fn weight(self) -> f32 {
        if self == Metric::Euclidean { 2.0 } else { 1.0 }
    }

    fn terms(self, step: f32, code_squared: i32) -> Terms {
        match self {
            Metric::Cosine => Terms { scale: (code_squared as f32).sqrt().recip(), term: 0.5 },
            Metric::Euclidean => Terms { scale: step, term: step * step * code_squared as f32 },
            Metric::Dot => Terms { scale: step, term: 0.0 },
        }
    }
}

impl Probe {
    pub(super) fn new(lines: usize) -> Self {
        let terms = Terms::default();
        Self { code: vec![Line::ZERO; lines], terms, factor: 0.0, correction: 0 }
    }

    /// Becomes the code of a vector.
    pub(super) fn encode(&mut self, vector: &[f32], metric: Metric) -> Result<(), Invalid> {
        let largest = largest_component(vector, metric)?;
        // In 64 bits, so that the smallest numbers have an inverse.
        let inverse = if largest == 0.0 { 0.0 } else { 127.0 / f64::from(largest) };
        let (mut sum, mut squared) = (0, 0);
        self.code.fill(Line::ZERO);
        let places = self.code.iter_mut().flat_map(|line| &mut line.0);
        for (place, value) in places.zip(vector) {
            let component = ((f64::from(*value) * inverse + ROUNDING) - ROUNDING) as i8;
            *place = component as u8;
            sum += i32::from(component);
            squared += i32::from(component) * i32::from(component);
        }
        self.set(metric, metric.terms(largest / 127.0, squared), sum);
        Ok(())
    }

    /// Becomes a stored row.
    pub(super) fn decode(&mut self, row: &[Line], terms: Terms, metric: Metric, kernels: Kernels) {
        for (line, stored) in self.code.iter_mut().zip(row) {
            *line = Line(stored.0.map(|byte| byte ^ OFFSET as u8));
        }
        let mut sum = [0];
        // As many lines of ones as the longest code has.
        static ONES: [Line; super::DIMENSIONS_MAX / Line::BYTES] =
            [Line([1; Line::BYTES]); super::DIMENSIONS_MAX / Line::BYTES];
        (kernels.dot_rows)(&self.code, &[&ONES[..self.code.len()]], &mut sum);
        self.set(metric, terms, sum[0]);
    }

    fn set(&mut self, metric: Metric, terms: Terms, sum: i32) {
        self.terms = terms;
        self.factor = metric.weight() * terms.scale;
        self.correction = OFFSET * sum;
    }

    /// Writes the code the way rows are stored.
    pub(super) fn store(&self, row: &mut [Line]) {
        for (stored, line) in row.iter_mut().zip(&self.code) {
            *stored = Line(line.0.map(|byte| byte ^ OFFSET as u8));
        }
    }

    /// The distance to a row but for this probe's own term, from the kernel's product.
    #[inline(always)]
    pub(super) fn rank(&self, product: i32, row: Terms) -> f32 {
        row.term - self.factor * row.scale * (product - self.correction) as f32
    }
}
