//! A vector as a code of one byte a component, and the distance of two of them.
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
//!
//! Codes may be of the difference to a *centre* instead, where the vectors lie far from the origin and near each other
//! (`centre`). The euclidean distance of two vectors is that of their differences to any third one; the cosine is half
//! of it where they are made one long, so that is done before. The dot product of *a* and *b* is that of their
//! differences to *c*, and what each has in common with *c*, which is its term:
//!
//! | metric, around a centre | scale | term | weight |
//! |---|---|---|---|
//! | cosine, of vectors made one long | max/127 | ‖scale · a‖² / 2 | 1 |
//! | euclidean | max/127 | ‖scale · a‖² | 2 |
//! | dot product | max/127 | ‖c‖² / 2 − c · a | 1 |
//!
//! A partition may have several centres ([`Coding::further`]), and each row's code is around one of them. A probe then
//! has a code of its vector around each centre that it has met a row of, so the formula holds for any two. Rows may lie far
//! from their own centre and near the probe, and then what one code rounds off would count: it has a second one, of what the
//! first rounded off, and its term is that of the vector itself. The dot product of the probe with a row around another centre is that with the centre and that
//! with the row's difference to it.
//!
//! A row is whole lines of the cache, so short vectors need no rounding: with at most [`FLOATS_MAX`]
//! components the code is the float32 vector itself, made one long for the cosine, and the distance is computed
//! from the differences of components: half their squares for the cosine. Many vectors of two or three components lie nearer
//! to each other than bytes can tell.

use super::{
    error::Invalid,
    kernels::{FINER, Kernels, Line, OFFSET},
};

/// Vectors of so many components are their own codes: as many float32 as a line has.
pub(super) const FLOATS_MAX: usize = Line::BYTES / size_of::<f32>();

/// The largest component: the squared distance of two vectors of them is finite in float32.
pub(super) const COMPONENT_MAX: f32 = 1e17;

/// What float32 leaves of the distance of two equal codes, as a part of their terms.
const TWIN_DISTANCE: f32 = 4e-7;
/// And of two directions that are the same, where codes are float32.
const TWIN_DIRECTIONS: f32 = 1e-13;

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
    /// The negated dot product. It is no distance: nodes are linked to near ones as well ([`prune`](super::prune)).
    Dot = 2,
}

/// What belongs to a code in the formula.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Terms {
    pub(super) scale: f32,
    pub(super) term: f32,
}

/// A code as the one side of many distances.
pub(super) struct Probe {
    /// What it is compared by: the metric, or that of links ([`Metric::of_links`]).
    pub(super) metric: Metric,
    /// The components as signed bytes, or as float32; filled up with zeros.
    pub(super) code: Vec<Line>,
    pub(super) terms: Terms,
    /// The term of a row with this code, by the metric; [`terms`](Self::terms) may be by that of links.
    pub(super) row_term: f32,
    /// The number of the centre that the code is around.
    pub(super) centre: u8,
    /// `weight · scale`.
    factor: f32,
    /// What the rows' offset adds to each product.
    correction: i32,
    /// Codes around other centres by their numbers, made when they are needed.
    around: Vec<Around>,
    /// Counts what the probe was made of.
    edition: u64,
    /// How many codes around other centres were made since that was asked.
    made: usize,
    /// The difference to a centre, while it is coded.
    apart: Vec<f32>,
}

/// What a probe compares with rows around another centre than its own: a code of its difference to that centre, or, for the
/// dot product, of itself: what a row has in common with its centre would have to be taken away again from what the
/// probe has in common with it.
#[derive(Default)]
struct Around {
    /// The edition of the probe that this was made of.
    edition: u64,
    code: Vec<Line>,
    factor: f32,
    correction: i32,
    /// A code of what `code` rounded off, whose steps are finer by [`FINER`].
    rest: Vec<Line>,
    rest_correction: i32,
    /// What the term has more than the probe's own.
    more: f32,
}

/// How the vectors of a partition are coded.
pub(super) struct Coding {
    pub(super) metric: Metric,
    pub(super) kernels: Kernels,
    pub(super) dimensions: usize,
    /// What codes of bytes are the difference to; empty for the origin.
    pub(super) centre: Vec<f32>,
    /// Centres that came later, for vectors whose codes would be coarse around the first: their numbers begin at one.
    pub(super) further: Vec<Box<[f32]>>,
    /// Counts the first centres: codes of different ones cannot be compared.
    pub(super) edition: u32,
}

/// The components of the origin.
static ORIGIN: [f32; super::DIMENSIONS_MAX] = [0.0; super::DIMENSIONS_MAX];

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

/// The length of a vector, in 64 bits. Every eighth component has a sum of its own, so that none waits for the one
/// before.
pub(super) fn length(vector: &[f32]) -> f64 {
    let square = |value: f32| f64::from(value) * f64::from(value);
    let mut sums = [0.0; 8];
    let (chunks, rest) = vector.as_chunks::<8>();
    for chunk in chunks {
        sums.iter_mut().zip(chunk).for_each(|(sum, &value)| *sum += square(value));
    }
    let rest: f64 = rest.iter().map(|&value| square(value)).sum();
    (sums.iter().sum::<f64>() + rest).sqrt()
}

impl Metric {
    /// What nodes are linked by.
    pub(super) fn of_links(self) -> Metric {
        if self == Metric::Dot { Metric::Euclidean } else { self }
    }

    pub(super) fn weight(self) -> f32 {
        if self == Metric::Euclidean { 2.0 } else { 1.0 }
    }
}

impl Probe {
    pub(super) fn new(lines: usize) -> Self {
        Self {
            metric: Metric::Euclidean,
            code: vec![Line::ZERO; lines],
            terms: Terms::default(),
            row_term: 0.0,
            centre: 0,
            factor: 0.0,
            correction: 0,
            around: Vec::new(),
            // Nothing was made of the first.
            edition: 1,
            made: 0,
            apart: Vec::new(),
        }
    }

    /// Bytes of the codes around other centres.
    pub(super) fn bytes(&self) -> usize {
        let around = self.around.iter().map(|around| 2 * size_of_val(&around.code[..]));
        around.sum::<usize>() + self.around.capacity() * size_of::<Around>()
    }

    /// How many codes around other centres were made since they were taken.
    pub(super) fn made(&self) -> usize {
        self.made
    }

    /// The same, and takes them.
    #[inline(always)]
    pub(super) fn take_made(&mut self) -> usize {
        std::mem::take(&mut self.made)
    }

    fn set(&mut self, terms: Terms, sum: i32) {
        self.edition += 1;
        self.terms = terms;
        self.factor = self.metric.weight() * terms.scale;
        self.correction = OFFSET * sum;
    }

    fn take_floats(&mut self, vector: &[f32]) {
        let length = if self.metric == Metric::Cosine { length(vector) } else { 1.0 };
        for (place, &value) in self.code[0].floats_mut().iter_mut().zip(vector) {
            *place = (f64::from(value) / length) as f32;
        }
    }

    /// Rounds components, none of which is larger than `largest`. Their terms are made of the size of a step and the
    /// square of the code.
    fn round(
        &mut self,
        components: impl Iterator<Item = f32>,
        largest: f32,
        terms: impl FnOnce(f32, f32) -> Terms,
    ) {
        // In 64 bits, so that the smallest numbers have an inverse.
        let inverse = if largest == 0.0 { 0.0 } else { 127.0 / f64::from(largest) };
        let (mut sum, mut squared) = (0, 0);
        let places = self.code.iter_mut().flat_map(|line| &mut line.0);
        for (place, value) in places.zip(components) {
            let component = ((f64::from(value) * inverse + ROUNDING) - ROUNDING) as i8;
            *place = component as u8;
            sum += i32::from(component);
            squared += i32::from(component) * i32::from(component);
        }
        self.set(terms(largest / 127.0, squared as f32), sum);
    }

    /// The distance to a row but for this probe's own term, from the kernel's product.
    #[inline(always)]
    fn rank(&self, product: i32, row: Terms) -> f32 {
        row.term - self.factor * row.scale * (product - self.correction) as f32
    }
}

impl Coding {
    pub(super) fn new(dimensions: usize, metric: Metric) -> Self {
        let (kernels, centre, further) = (Kernels::detect(), Vec::new(), Vec::new());
        Self { metric, kernels, dimensions, centre, further, edition: 0 }
    }

    /// Whether another centre than the origin may be chosen.
    pub(super) fn has_choice(&self) -> bool {
        !self.has_floats()
    }

    pub(super) fn set_centre(&mut self, centre: Vec<f32>) {
        self.edition += u32::from(centre != self.centre || self.has_several());
        self.centre = centre;
        self.further.clear();
    }

    /// Whether rows name their centres.
    #[inline(always)]
    pub(super) fn has_several(&self) -> bool {
        !self.further.is_empty()
    }

    /// How many centres there are, the first included.
    pub(super) fn centres(&self) -> u8 {
        1 + self.further.len() as u8
    }

    pub(super) fn centres_bytes(&self) -> usize {
        let further = self.further.iter().map(|centre| size_of_val(&centre[..]));
        size_of_val(&self.centre[..]) + further.sum::<usize>()
    }

    fn centre_of(&self, number: u8) -> &[f32] {
        match number.checked_sub(1) {
            Some(place) => &self.further[usize::from(place)],
            None if self.centre.is_empty() => &ORIGIN[..self.dimensions],
            None => &self.centre,
        }
    }

    /// The centre that is nearest to a vector.
    fn nearest_centre(&self, vector: &[f32], apart: &mut Vec<f32>) -> u8 {
        if !self.has_several() {
            return 0;
        }
        let distance = self.kernels.squared_distance;
        let vector = if self.metric == Metric::Cosine {
            let part = length(vector).recip();
            apart.clear();
            apart.extend(vector.iter().map(|&value| (f64::from(value) * part) as f32));
            &apart[..]
        } else {
            vector
        };
        let mut best = (distance(vector, self.centre_of(0)), 0);
        for (number, centre) in (1..).zip(&self.further) {
            let apart = distance(vector, centre);
            if apart < best.0 {
                best = (apart, number);
            }
        }
        best.1
    }

    /// Whether vectors are their own codes.
    pub(super) fn has_floats(&self) -> bool {
        self.dimensions <= FLOATS_MAX
    }

    /// Lines of a code.
    pub(super) fn lines(&self) -> usize {
        self.dimensions.div_ceil(Line::BYTES)
    }

    /// Bytes of a code; its last line is filled up behind them.
    pub(super) fn bytes(&self) -> usize {
        self.dimensions * if self.has_floats() { size_of::<f32>() } else { 1 }
    }

    /// Makes the probe the code of a vector.
    ///
    /// # Errors
    ///
    /// The vector has no code, and the probe is as it was.
    pub(super) fn encode(
        &self,
        vector: &[f32],
        metric: Metric,
        probe: &mut Probe,
    ) -> Result<(), Invalid> {
        let largest = largest_component(vector, self.metric)?;
        probe.metric = metric;
        probe.code.fill(Line::ZERO);
        if self.has_floats() {
            probe.take_floats(vector);
            return Ok(());
        }
        probe.centre = self.nearest_centre(vector, &mut probe.apart);
        if probe.centre == 0 && self.centre.is_empty() {
            let terms = |step: f32, squared: f32| match metric {
                Metric::Cosine => Terms { scale: squared.sqrt().recip(), term: 0.5 },
                Metric::Euclidean => Terms { scale: step, term: step * step * squared },
                Metric::Dot => Terms { scale: step, term: 0.0 },
            };
            probe.round(vector.iter().copied(), largest, terms);
            probe.row_term = if self.metric == Metric::Dot { 0.0 } else { probe.terms.term };
        } else {
            self.encode_around_centre(vector, probe);
        }
        Ok(())
    }

    fn encode_around_centre(&self, vector: &[f32], probe: &mut Probe) {
        let part = if self.metric == Metric::Cosine { length(vector).recip() } else { 1.0 };
        let (centre, probe_metric) = (self.centre_of(probe.centre), probe.metric);
        let pairs = || vector.iter().zip(centre);
        let apart = || {
            pairs().map(|(&value, centre)| (f64::from(value) * part - f64::from(*centre)) as f32)
        };
        let largest = apart().fold(0.0, |largest, value| f32::max(largest, value.abs()));
        let common = || {
            let common = pairs().map(|(&value, &centre)| {
                f64::from(centre) * (0.5 * f64::from(centre) - f64::from(value))
            });
            common.sum::<f64>() as f32
        };
        let terms = |step: f32, squared: f32| match probe_metric {
            Metric::Cosine => Terms { scale: step, term: 0.5 * step * step * squared },
            Metric::Euclidean => Terms { scale: step, term: step * step * squared },
            Metric::Dot => Terms { scale: step, term: common() },
        };
        probe.round(apart(), largest, terms);
        probe.row_term = if self.metric == Metric::Dot { common() } else { probe.terms.term };
    }

    /// Makes the probe a stored row, which is around the centre of that number.
    pub(super) fn decode(
        &self,
        row: &[Line],
        terms: Terms,
        centre: u8,
        metric: Metric,
        probe: &mut Probe,
    ) {
        probe.metric = metric;
        if self.has_floats() {
            probe.code.copy_from_slice(row);
            return;
        }
        for (line, stored) in probe.code.iter_mut().zip(row) {
            *line = stored.turned();
        }
        probe.centre = centre;
        let sum = self.sum_of(&probe.code);
        probe.set(terms, sum);
    }

    /// Has a probe compared by another metric, in which its code has these terms.
    pub(super) fn turn(&self, probe: &mut Probe, metric: Metric, terms: Terms) {
        probe.metric = metric;
        if !self.has_floats() {
            let sum = probe.correction / OFFSET;
            probe.set(terms, sum);
        }
    }

    /// The sum of a code's components.
    fn sum_of(&self, code: &[Line]) -> i32 {
        // As many lines of ones as the longest code has.
        static ONES: [Line; super::DIMENSIONS_MAX / Line::BYTES] =
            [Line([1; Line::BYTES]); super::DIMENSIONS_MAX / Line::BYTES];
        let mut sum = [0];
        (self.kernels.dot_rows)(code, &[&ONES[..code.len()]], &mut sum);
        sum[0]
    }

    /// The squared length of a stored row's code, in steps.
    pub(super) fn squared_code(&self, row: &[Line]) -> f32 {
        let component = |&stored: &u8| i32::from((stored ^ OFFSET as u8) as i8);
        let components = row.iter().flat_map(|line| &line.0).map(component);
        components.map(|component| component * component).sum::<i32>() as f32
    }

    /// Sees to it that the probe has a code around a centre.
    fn code_around(&self, probe: &mut Probe, centre: u8) {
        let place = usize::from(centre);
        if probe.around.len() <= place {
            probe.around.resize_with(place + 1, Around::default);
        }
        if centre == probe.centre || probe.around[place].edition == probe.edition {
            return;
        }
        self.make_code_around(probe, centre);
    }

    #[inline(never)]
    fn make_code_around(&self, probe: &mut Probe, centre: u8) {
        let (from, centre_of) = (self.centre_of(probe.centre), self.centre_of(centre));
        let metric = probe.metric;
        let is_dot = metric == Metric::Dot;
        let to = if is_dot { &ORIGIN[..self.dimensions] } else { centre_of };
        let step = probe.terms.scale;
        let Probe { code, apart, .. } = probe;
        apart.resize(self.dimensions, 0.0);
        let largest = (self.kernels.apart)(code, step, from, to, apart);
        let around = &mut probe.around[usize::from(centre)];
        around.code.resize(code.len(), Line::ZERO);
        around.rest.resize(code.len(), Line::ZERO);
        // The smallest numbers have no inverse, and no code.
        let inverse = Some(127.0 / largest).filter(|it| it.is_finite()).unwrap_or(0.0);
        (self.kernels.round_twice)(apart, inverse, &mut around.code, &mut around.rest);
        let (common, squared) = match metric {
            Metric::Dot => ((self.kernels.products)(apart, centre_of).0, 0.0),
            _ => (0.0, (self.kernels.products)(apart, apart).1),
        };
        let term = match metric {
            Metric::Cosine => 0.5 * squared,
            Metric::Euclidean => squared,
            Metric::Dot => -common,
        };
        around.edition = probe.edition;
        around.factor = metric.weight() * largest / 127.0;
        around.correction = OFFSET * self.sum_of(&around.code);
        around.rest_correction = OFFSET * self.sum_of(&around.rest);
        around.more = (term - f64::from(probe.terms.term)) as f32;
        probe.made += 1;
    }

    /// The distances from a probe to at most `N` rows, which are around the centre of that number, as in
    /// [`ranks`](Self::ranks).
    pub(super) fn ranks_around<const N: usize>(
        &self,
        probe: &mut Probe,
        centre: u8,
        rows: &[&[Line]],
        terms: impl Fn(usize) -> Terms,
        ranks: &mut [f32],
    ) {
        self.code_around(probe, centre);
        let mut products = [0; N];
        if centre == probe.centre {
            (self.kernels.dot_rows)(&probe.code, rows, &mut products[..rows.len()]);
            for (position, rank) in ranks.iter_mut().enumerate().take(rows.len()) {
                *rank = probe.rank(products[position], terms(position));
            }
            return;
        }
        let around = &probe.around[usize::from(centre)];
        (self.kernels.dot_rows)(&around.code, rows, &mut products[..rows.len()]);
        let mut rest = [0; N];
        (self.kernels.dot_rows)(&around.rest, rows, &mut rest[..rows.len()]);
        // What a row has in common with its centre counts between two around it only.
        let has_terms = probe.metric != Metric::Dot;
        for (position, rank) in ranks.iter_mut().enumerate().take(rows.len()) {
            let Terms { scale, term } = terms(position);
            let common = if has_terms { around.more + term } else { around.more };
            let rest = (rest[position] - around.rest_correction) as f32 / FINER;
            let product = (products[position] - around.correction) as f32 + rest;
            *rank = common - around.factor * scale * product;
        }
    }

    /// The squared distance of a probe from a row around a centre, by their codes, under any metric.
    pub(super) fn squared_apart(
        &self,
        probe: &Probe,
        row: &[Line],
        terms: Terms,
        centre: u8,
    ) -> f32 {
        let (own, others) = (self.centre_of(probe.centre), self.centre_of(centre));
        let lines = own.chunks(Line::BYTES).zip(others.chunks(Line::BYTES));
        let mut squared = 0.0;
        for ((own, others), (line, stored)) in lines.zip(probe.code.iter().zip(row)) {
            let mut lanes = [0.0_f32; 8];
            let bytes = line.0.chunks(8).zip(stored.0.chunks(8));
            for ((own, others), (bytes, stored)) in own.chunks(8).zip(others.chunks(8)).zip(bytes) {
                let ends = own.iter().zip(others).zip(bytes.iter().zip(stored));
                for (lane, ((own, others), (&byte, &stored))) in lanes.iter_mut().zip(ends) {
                    let stored = (stored ^ OFFSET as u8) as i8;
                    let codes =
                        probe.terms.scale * f32::from(byte as i8) - terms.scale * f32::from(stored);
                    *lane += (own - others + codes).powi(2);
                }
            }
            squared += lanes.iter().sum::<f32>();
        }
        squared
    }

    /// Writes the probe's code the way rows are stored.
    pub(super) fn store(&self, probe: &Probe, row: &mut [Line]) {
        if self.has_floats() {
            row.copy_from_slice(&probe.code);
            return;
        }
        for (stored, line) in row.iter_mut().zip(&probe.code) {
            *stored = line.turned();
        }
    }

    /// The distances from a probe to at most `N` rows, but for the probe's own term; `terms` are those of the
    /// row at each position.
    #[inline(always)]
    pub(super) fn ranks<const N: usize>(
        &self,
        probe: &Probe,
        rows: &[&[Line]],
        terms: impl Fn(usize) -> Terms,
        ranks: &mut [f32; N],
    ) {
        if self.has_floats() {
            return self.float_ranks(probe, rows, ranks);
        }
        let mut products = [0; N];
        (self.kernels.dot_rows)(&probe.code, rows, &mut products[..rows.len()]);
        for (position, rank) in ranks.iter_mut().enumerate().take(rows.len()) {
            *rank = probe.rank(products[position], terms(position));
        }
    }

    /// Whether two codes at this distance are as good as the same. Of the dot product it is the distance that nodes are linked by.
    pub(super) fn are_twins(&self, distance: f32, a: Terms, b: Terms) -> bool {
        match self.metric.of_links() {
            Metric::Cosine if self.has_floats() => distance <= TWIN_DIRECTIONS,
            _ if self.has_floats() => distance == 0.0,
            _ => distance <= TWIN_DISTANCE * (a.term + b.term),
        }
    }

    fn float_ranks(&self, probe: &Probe, rows: &[&[Line]], ranks: &mut [f32]) {
        let vector = &probe.code[0].floats()[..self.dimensions];
        for (rank, row) in ranks.iter_mut().zip(rows) {
            let row = &row[0].floats()[..self.dimensions];
            *rank = match probe.metric {
                Metric::Cosine => 0.5 * (self.kernels.squared_distance)(vector, row),
                Metric::Euclidean => (self.kernels.squared_distance)(vector, row),
                Metric::Dot => -(self.kernels.dot)(vector, row),
            };
        }
    }
}
