//! The point that codes of bytes are the difference to, so that vectors which lie far from the origin and near
//! each other keep their bits for what tells them apart.
//!
//! It is the mean of the first vectors, made one long for the cosine, where those lie much nearer to it than to the
//! origin, and the origin otherwise. The first ones are kept until there are enough, and
//! searches compare the query with each of them; their codes are made anew then, and each is linked to all. Operations that are open at that moment begin again
//! ([`Coding::edition`](super::quantize::Coding)): they have met no more than the first vectors. After that the centre
//! stays until the partition is empty or made anew from its vectors.
//!
//! Further centres are *born* of vectors that lie far from all that there are and near others, so that codes tell them
//! apart badly (`coarse`). They stay as long as the first one; what none of them is near stays coarse when there are as
//! many as there may be.

use super::{
    error::Invalid,
    graph::{Graph, Index, Row},
    options::LINKS_UPPER,
    quantize::{COMPONENT_MAX, Coding, Metric, Probe, length},
    rerank::Exact,
    search::Hit,
    steps::Scratch,
};

/// So many vectors tell the centre: their mean is off by a quarter of what is between them and it.
pub(super) const FIRST: usize = 16;
/// Fewer where vectors are long, but so many.
const FIRST_LEAST: usize = 4;
/// Components of the first vectors in all: making their codes anew is one step.
const FIRST_COMPONENTS: usize = 1 << 14;
/// The centre is worth it where the mean has more than this part of the vectors' squared lengths: it leaves at most half
/// their length then.
const WORTH: f64 = 0.75;

/// No component of a centre is larger: the difference to it must have a code, too.
const CENTRE_MAX: f32 = COMPONENT_MAX / 4.0;

/// Further centres, at most: a row names its in a byte, and a few numbers there have other meanings (`coarse`).
pub(super) const FURTHER_MAX: usize = 250;
/// And fewer where they are long: half a megabyte in all, and each probe may have as many codes.
const FURTHER_COMPONENTS: usize = 1 << 17;
/// There is room for some in any case.
const FURTHER_LEAST: usize = 32;

const _: () = assert!(FURTHER_LEAST * super::DIMENSIONS_MAX <= FURTHER_COMPONENTS);

/// The first vectors of a partition that has no centre yet.
#[derive(Default)]
pub(super) struct First(Vec<(Row, Box<[f32]>)>);

impl First {
    /// What a partition begins with; nothing where there is no centre to be chosen.
    pub(super) fn of(coding: &Coding) -> Option<Self> {
        coding.has_choice().then(Self::default)
    }

    /// How many there are when the centre is chosen.
    pub(super) fn enough(dimensions: usize) -> usize {
        (FIRST_COMPONENTS / dimensions).clamp(FIRST_LEAST, FIRST)
    }

    pub(super) fn forget(&mut self, row: Row) {
        self.0.retain(|(first, _)| *first != row);
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|(_, vector)| size_of_val(&vector[..])).sum()
    }

    /// All that live and are accepted, at their distance from the query, nearest first, as long as codes tell them
    /// apart badly.
    pub(super) fn search(
        &self,
        query: &[f32],
        k: usize,
        graph: &Graph,
        mut filter: impl FnMut(Row) -> bool,
    ) -> Vec<Hit> {
        let found = self.0.iter().filter(|(row, _)| graph.is_live(*row) && filter(*row));
        let exact = Exact::new(graph, query);
        let hit =
            |(row, vector): &(Row, Box<[f32]>)| Hit { row: *row, distance: exact.distance(vector) };
        let mut hits: Vec<Hit> = found.map(hit).collect();
        hits.sort_unstable_by(|a, b| a.distance.total_cmp(&b.distance));
        hits.truncate(k);
        hits
    }

    /// Their mean, if it is worth it.
    fn centre(&self, metric: Metric) -> Option<Vec<f32>> {
        let part = 1.0 / self.0.len() as f64;
        let mut mean = vec![0.0_f64; self.0.first()?.1.len()];
        let mut squared = 0.0;
        for (_, vector) in &self.0 {
            let own = if metric == Metric::Cosine { length(vector).recip() } else { 1.0 };
            for (mean, &value) in mean.iter_mut().zip(vector) {
                let value = f64::from(value) * own;
                *mean += value * part;
                squared += value * value * part;
            }
        }
        let is_worth_it = mean.iter().map(|mean| mean * mean).sum::<f64>() > WORTH * squared;
        let is_within = mean.iter().all(|mean| mean.abs() < f64::from(CENTRE_MAX));
        (is_worth_it && is_within).then(|| mean.into_iter().map(|mean| mean as f32).collect())
    }
}

impl Index {
    /// Scratch for an operation with a vector, which is coded.
    ///
    /// # Errors
    ///
    /// The vector has no code.
    pub(super) fn begin_scratch(
        &mut self,
        vector: &[f32],
        metric: Metric,
    ) -> Result<Box<Scratch>, Invalid> {
        let mut scratch = self.scratches.take();
        if let Err(error) = self.graph.coding.encode(vector, metric, &mut scratch.probe) {
            self.scratches.put(scratch);
            return Err(error);
        }
        scratch.edition = self.graph.coding.edition;
        scratch.vector.clear();
        if self.graph.coding.has_choice() {
            scratch.vector.extend_from_slice(vector);
        }
        Ok(scratch)
    }

    /// Takes note of the vector that a row was given. It may be the last of the first ones.
    pub(super) fn note_first(&mut self, row: Row, vector: &[f32]) {
        let Some(first) = &mut self.first else { return };
        first.0.push((row, vector.into()));
        if first.0.len() < First::enough(self.options.dimensions) {
            return;
        }
        let first = self.first.take().expect("it was there above");
        let Some(centre) = first.centre(self.options.metric) else { return };
        self.graph.coding.set_centre(centre);
        let (mut probe, metric) =
            (Probe::new(self.graph.coding.lines()), self.options.metric.of_links());
        for (row, vector) in &first.0 {
            self.graph.coding.encode(vector, metric, &mut probe).expect("it had a code before");
            self.graph.set_code(&probe, *row);
        }
        self.graph.link_all(&first.0.iter().map(|(row, _)| *row).collect::<Vec<_>>());
    }

    /// Makes room for others in the place of further centres that no row is around, while nothing is open.
    pub(super) fn forget_unused_centres(&mut self) {
        let Graph { coding, nodes, .. } = &mut self.graph;
        let mut numbers = [0; FURTHER_MAX + 1];
        for row in 0..nodes.len() {
            numbers[usize::from(nodes[row].centre)] = 1;
        }
        let (mut place, mut next) = (0, 0);
        coding.further.retain(|_| {
            place += 1;
            let is_used = numbers[place] > 0;
            next += u8::from(is_used);
            numbers[place] = next;
            is_used
        });
        numbers[0] = 0;
        for row in 0..nodes.len() {
            let centre = &mut nodes[row].centre;
            *centre = numbers[usize::from(*centre)];
        }
    }

    /// Begins without a centre, as an index that holds nothing does.
    pub(super) fn forget_centre(&mut self) {
        self.graph.coding.set_centre(Vec::new());
        self.first = First::of(&self.graph.coding);
    }
}

impl Coding {
    /// Makes a vector that has a code another centre; false when there is no room, or its components are too large.
    pub(super) fn bear_centre(&mut self, vector: &[f32]) -> bool {
        let room = (FURTHER_COMPONENTS / self.dimensions).clamp(FURTHER_LEAST, FURTHER_MAX);
        let part = if self.metric == Metric::Cosine { length(vector).recip() } else { 1.0 };
        let centre = vector.iter().map(|&value| (f64::from(value) * part) as f32);
        let centre: Box<[f32]> = centre.collect();
        let is_within = centre.iter().all(|component| component.abs() < CENTRE_MAX);
        let is_born = is_within && self.further.len() < room;
        if is_born {
            self.further.push(centre);
        }
        is_born
    }
}

impl Graph {
    /// Links nodes to each other, instead of what they were linked to: links that came of other codes are no
    /// choice.
    fn link_all(&mut self, rows: &[Row]) {
        const _: () = assert!(FIRST <= LINKS_UPPER + 1);
        for &row in rows {
            for layer in 0..=self.level(row) {
                let links = rows.iter().copied();
                let links = links.filter(|&link| link != row && self.level(link) >= layer);
                self.set_links(row, layer, &links.collect::<Vec<_>>());
            }
        }
    }

    /// Codes the operation's vector anew, to be compared by a metric, where the centre has changed since it began; true when
    /// it has, and the operation begins again.
    pub(super) fn has_moved(&self, scratch: &mut Scratch, metric: Metric) -> bool {
        let Scratch { vector, probe, edition, .. } = scratch;
        if *edition == self.coding.edition {
            return false;
        }
        *edition = self.coding.edition;
        self.coding.encode(vector, metric, probe).expect("it had a code before");
        true
    }
}
