//! How much searches find: some of what is stored is searched for, with the index and without.

use super::{
    partition::{Partition, Step},
    search::Search,
    table::Row,
};
use crate::wire::memory::MemoryQuery;
use fastrand::Rng;

/// Hits of each search, but for the stored vector itself.
const K: usize = 10;
/// Rows that are looked at for one that is taken; many may be free after many deletions.
const LOOKED_AT: u32 = 4096;

/// What searches found of what they should have found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Searches.
    pub queries: u32,
    /// True neighbours that were found.
    pub found: u64,
    /// True neighbours.
    pub wanted: u64,
}

/// A measurement that is under way.
pub struct Recall {
    left: u32,
    ef: usize,
    random: Rng,
    tally: Tally,
    sample: Option<Sample>,
}

struct Sample {
    row: Row,
    vector: Vec<f32>,
    /// Filled in when the pass over all rows has come to its end.
    truth: Option<Vec<Row>>,
    search: Search,
}

impl Recall {
    /// Hits of each search.
    pub const K: usize = K;

    /// A measurement with so many searches of that width.
    pub fn new(queries: u32, ef: usize, seed: u64) -> Self {
        let random = Rng::with_seed(seed);
        Self { left: queries, ef, random, tally: Tally::default(), sample: None }
    }

    /// Goes on; the tally when it has come to its end.
    pub fn step(&mut self, partition: &mut Partition) -> Step<Option<Tally>> {
        if self.sample.is_none() {
            match self.draw(partition) {
                Step::Wait(pieces) => return Step::Wait(pieces),
                Step::Done(None) => return Step::Done(Some(self.tally)),
                Step::Done(sample) => self.sample = sample,
            }
        }
        let Some(sample) = &mut self.sample else { return Step::Done(None) };
        let hits = match sample.search.step_rows(partition) {
            Step::Wait(pieces) => return Step::Wait(pieces),
            Step::Done(None) => return Step::Done(None),
            // What is stored can be asked for: only a vector that is gone meanwhile cannot.
            Step::Done(Some(hits)) => hits.unwrap_or_default(),
        };
        let rows =
            hits.iter().map(|ranked| ranked.hit.row).filter(|row| *row != sample.row).take(K);
        let rows: Vec<Row> = rows.collect();
        match sample.truth.take() {
            None => {
                sample.truth = Some(rows);
                let query = MemoryQuery {
                    vector: std::mem::take(&mut sample.vector),
                    k: K as u32 + 1,
                    ..MemoryQuery::default()
                };
                match Search::new(query, self.ef) {
                    Ok(search) => sample.search = search,
                    Err(_) => self.sample = None,
                }
            }
            Some(truth) => {
                self.tally.queries += 1;
                self.tally.wanted += truth.len() as u64;
                self.tally.found += truth.iter().filter(|row| rows.contains(row)).count() as u64;
                self.sample = None;
            }
        }
        Step::Done(None)
    }

    /// The next stored vector to search for; nothing when there were enough.
    fn draw(&mut self, partition: &mut Partition) -> Step<Option<Sample>> {
        let rows = partition.table.rows();
        if self.left == 0 || rows == 0 {
            return Step::Done(None);
        }
        let start = self.random.u32(..rows);
        let mut looked_at = (0..rows.min(LOOKED_AT))
            .map(|at| ((u64::from(start) + u64::from(at)) % u64::from(rows)) as Row);
        let Some((row, entry)) = looked_at.find_map(|row| Some((row, partition.table.get(row)?)))
        else {
            return Step::Done(None);
        };
        if let Some(piece) = partition.log.missing(entry.place) {
            return Step::Wait(vec![piece]);
        }
        self.left -= 1;
        match partition.log.read(entry.place) {
            Ok(record) => {
                let vector = record.vector();
                let search = Search::exhaustive(vector.clone(), K + 1);
                Step::Done(Some(Sample { row, vector, truth: None, search }))
            }
            Err(damage) => {
                partition.lose_row(row, damage);
                Step::Done(None)
            }
        }
    }
}
