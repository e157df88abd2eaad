//! A search of one partition, in steps.
//!
//! The index finds candidates by their codes; their records are read, checked, and order them by the
//! true vectors. A filter of metadata is asked about records alone: so many candidates are taken
//! that enough pass, at last all rows one after the other, so that a filter which lets few pass finds
//! them all the same.

use super::{
    damage::Damage,
    filter::Filter,
    job::Piece,
    partition::{Partition, Step, item_of},
    table::{Place, Row},
};
use crate::{
    memory::index::{self, EF_MAX, Hit, STEP_DISTANCES},
    wire::{
        api::Error,
        memory::{K_MAX, MemoryHit, MemoryQuery, Metric},
    },
};

/// Candidates at least: codes that are about as near tell little of which vector is nearest.
const CANDIDATES_LEAST: usize = 16;
/// Candidates that a search with a filter begins with, for each hit.
const FILTERED_FOR_A_HIT: usize = 8;
/// How many times more candidates each further try takes.
const WIDER: usize = 4;
/// How often a search begins again whose hits were replaced before they were read.
const WALKS_AGAIN: u32 = 2;
/// Rows that one step of a pass over all rows looks at.
const ROWS_A_STEP: Row = 256;
/// Records that one step reads.
const RECORDS_A_STEP: usize = 32;
/// Bytes of text and metadata in one partition's hits.
const HITS_BYTES_MAX: usize = 8 << 20;

/// A search that is under way.
pub struct Search {
    vector: Vec<f32>,
    k: usize,
    ef: usize,
    namespace: Option<String>,
    filter: Option<Filter>,
    phase: Phase,
    /// How often it may begin again because what it found was replaced meanwhile.
    walks_again: u32,
}

enum Phase {
    /// The index is to be asked for so many.
    Walk(usize),
    /// The index looks for so many.
    Walking(usize, Box<index::Search>),
    /// Candidates, nearest first; how many were looked at, and those of them that passed.
    Sift { hits: Vec<Hit>, looked_at: usize, passed: Vec<Hit>, may_be_more: bool },
    /// All rows are looked at from this one on; the best so far.
    Scan { from: Row, best: Vec<Hit> },
    /// These are ordered by their vectors, and are the answer.
    Rank(Vec<Hit>),
}

/// Finds out whether a query can be asked.
///
/// # Errors
/// [`Error::Invalid`] names the field.
pub fn check_query(query: &MemoryQuery) -> Result<Option<Filter>, Error> {
    if !(1..=K_MAX).contains(&query.k) {
        return Err(Error::Invalid(format!("k: it is {}; allowed: 1 to {K_MAX}", query.k)));
    }
    if query.ef.is_some_and(|ef| !(1..=EF_MAX as u32).contains(&ef)) {
        return Err(Error::Invalid(format!("ef: allowed: 1 to {EF_MAX}")));
    }
    Filter::new(&query.filter).map_err(Error::Invalid)
}

impl Search {
    /// A search that has not begun.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the field.
    pub fn new(query: MemoryQuery, ef_default: usize) -> Result<Self, Error> {
        let filter = check_query(&query)?;
        let k = query.k as usize;
        let ef = query.ef.map_or(ef_default, |ef| ef as usize);
        let for_a_hit = if filter.is_some() { FILTERED_FOR_A_HIT } else { 2 };
        let phase = Phase::Walk((k * for_a_hit).clamp(CANDIDATES_LEAST, EF_MAX));
        Ok(Self {
            vector: query.vector,
            k,
            ef,
            namespace: query.namespace,
            filter,
            phase,
            walks_again: WALKS_AGAIN,
        })
    }

    /// A search for the true nearest of all rows, with no index.
    pub(super) fn exhaustive(vector: Vec<f32>, k: usize) -> Self {
        let phase = Phase::Scan { from: 0, best: Vec::new() };
        Self { vector, k, ef: k, namespace: None, filter: None, phase, walks_again: 0 }
    }

    /// Goes on; the hits when it has come to an end, nearest first.
    pub fn step(
        &mut self,
        partition: &mut Partition,
    ) -> Step<Option<Result<Vec<MemoryHit>, Error>>> {
        match self.step_rows(partition) {
            Step::Wait(pieces) => Step::Wait(pieces),
            Step::Done(None) => Step::Done(None),
            Step::Done(Some(ranked)) => {
                Step::Done(Some(ranked.and_then(|hits| answer(partition, &hits))))
            }
        }
    }

    /// The same, with the rows as hits.
    pub(super) fn step_rows(
        &mut self,
        partition: &mut Partition,
    ) -> Step<Option<Result<Vec<Hit>, Error>>> {
        let number = match &self.namespace {
            None => None,
            Some(name) => match partition.table.namespaces.find(name) {
                None => return Step::Done(Some(Ok(Vec::new()))),
                number => number,
            },
        };
        let stepped = match std::mem::replace(&mut self.phase, Phase::Rank(Vec::new())) {
            Phase::Walk(wanted) => {
                self.begin_walk(partition, wanted).map(|phase| (phase, Vec::new()))
            }
            Phase::Walking(wanted, search) => {
                Ok((self.walk(partition, wanted, search, number), Vec::new()))
            }
            Phase::Sift { hits, looked_at, passed, may_be_more } => {
                self.sift(partition, hits, looked_at, passed, may_be_more)
            }
            Phase::Scan { from, best } => self.scan(partition, from, best, number),
            Phase::Rank(mut hits) => return self.rank(partition, &mut hits, number),
        };
        match stepped {
            Ok((phase, pieces)) => {
                self.phase = phase;
                if pieces.is_empty() { Step::Done(None) } else { Step::Wait(pieces) }
            }
            Err(error) => Step::Done(Some(Err(error))),
        }
    }

    fn begin_walk(&self, partition: &mut Partition, wanted: usize) -> Result<Phase, Error> {
        let begun = partition.index.begin_search(&self.vector, wanted, self.ef);
        let search = begun.map_err(|error| Error::Invalid(format!("vector: {error}")))?;
        Ok(Phase::Walking(wanted, Box::new(search)))
    }

    fn walk(
        &self,
        partition: &mut Partition,
        wanted: usize,
        mut search: Box<index::Search>,
        number: Option<u16>,
    ) -> Phase {
        let Partition { index, table, .. } = partition;
        let accepts = |row| {
            let namespace = table.get(row).map(|entry| entry.namespace);
            namespace.is_some_and(|namespace| number.is_none_or(|number| number == namespace))
        };
        let Some(hits) = search.step(index, STEP_DISTANCES, accepts) else {
            return Phase::Walking(wanted, search);
        };
        if self.filter.is_none() {
            return Phase::Rank(hits);
        }
        let may_be_more = hits.len() == wanted;
        Phase::Sift { hits, looked_at: 0, passed: Vec::new(), may_be_more }
    }

    /// Asks the filter about candidates.
    fn sift(
        &self,
        partition: &mut Partition,
        hits: Vec<Hit>,
        mut looked_at: usize,
        mut passed: Vec<Hit>,
        may_be_more: bool,
    ) -> Result<(Phase, Vec<Piece>), Error> {
        let enough = 2 * self.k;
        let end = (looked_at + RECORDS_A_STEP).min(hits.len());
        let pieces = missing(partition, &hits[looked_at..end]);
        if !pieces.is_empty() {
            return Ok((Phase::Sift { hits, looked_at, passed, may_be_more }, pieces));
        }
        while looked_at < end && passed.len() < enough {
            let hit = hits[looked_at];
            looked_at += 1;
            if self.passes(partition, hit.row) {
                passed.push(hit);
            }
        }
        let phase = if passed.len() >= enough || looked_at == hits.len() && !may_be_more {
            Phase::Rank(passed)
        } else if looked_at < hits.len() {
            Phase::Sift { hits, looked_at, passed, may_be_more }
        } else if hits.len() < EF_MAX {
            Phase::Walk((hits.len() * WIDER).min(EF_MAX))
        } else {
            Phase::Scan { from: 0, best: Vec::new() }
        };
        Ok((phase, Vec::new()))
    }

    /// Whether an item's metadata are wanted; a damaged one's are not.
    fn passes(&self, partition: &mut Partition, row: Row) -> bool {
        let Some(place) = place_of(partition, row) else { return false };
        match partition.log.read(place) {
            Ok(record) => self.filter.as_ref().is_none_or(|it| it.accepts(record.metadata())),
            Err(damage) => {
                partition.lose_row(row, damage);
                false
            }
        }
    }

    /// Looks at the next rows, whatever the index thinks of them.
    fn scan(
        &self,
        partition: &mut Partition,
        from: Row,
        mut best: Vec<Hit>,
        number: Option<u16>,
    ) -> Result<(Phase, Vec<Piece>), Error> {
        let end = partition.table.rows().min(from.saturating_add(ROWS_A_STEP));
        let mut rows = Vec::with_capacity(RECORDS_A_STEP);
        let mut next = from;
        while next < end && rows.len() < RECORDS_A_STEP {
            let entry = partition.table.get(next);
            let is_wanted = |of: u16| number.is_none_or(|number| number == of);
            if entry.is_some_and(|entry| is_wanted(entry.namespace)) {
                rows.push(Hit { row: next, distance: f32::INFINITY });
            }
            next += 1;
        }
        let pieces = missing(partition, &rows);
        if !pieces.is_empty() {
            return Ok((Phase::Scan { from, best }, pieces));
        }
        rows.retain(|hit| self.passes(partition, hit.row));
        best.append(&mut rows);
        self.order(partition, self.k, &mut best)?;
        let is_end = next >= partition.table.rows();
        Ok((if is_end { Phase::Rank(best) } else { Phase::Scan { from: next, best } }, Vec::new()))
    }

    /// Orders hits by their true vectors; damaged ones are left out.
    fn order(&self, partition: &mut Partition, k: usize, hits: &mut Vec<Hit>) -> Result<(), Error> {
        let mut damages: Vec<(Row, Damage)> = Vec::new();
        hits.retain(|hit| {
            let place = place_of(partition, hit.row);
            let read = place.map(|place| partition.log.read(place));
            match read {
                Some(Ok(_)) => true,
                Some(Err(damage)) => {
                    damages.push((hit.row, damage));
                    false
                }
                None => false,
            }
        });
        damages.into_iter().for_each(|(row, damage)| partition.lose_row(row, damage));
        let Partition { index, table, log, .. } = partition;
        let vector = |row| {
            let place = table.get(row)?.place;
            Some(log.vector(place, &log.head(place)?))
        };
        index
            .rerank(&self.vector, vector, k, hits)
            .map_err(|error| Error::Invalid(format!("vector: {error}")))
    }

    fn rank(
        &mut self,
        partition: &mut Partition,
        hits: &mut Vec<Hit>,
        number: Option<u16>,
    ) -> Step<Option<Result<Vec<Hit>, Error>>> {
        let before = hits.len();
        // While records were brought into memory rows may have been freed, and taken by others.
        hits.retain(|hit| {
            let entry = partition.table.get(hit.row);
            entry.is_some_and(|entry| number.is_none_or(|number| number == entry.namespace))
        });
        let pieces = missing(partition, hits);
        if !pieces.is_empty() {
            self.phase = Phase::Rank(std::mem::take(hits));
            return Step::Wait(pieces);
        }
        if hits.len() < self.k.min(before) && self.walks_again > 0 {
            self.walks_again -= 1;
            self.phase = Phase::Walk(before.max(self.k));
            return Step::Done(None);
        }
        if self.filter.is_some() {
            hits.retain(|hit| self.passes(partition, hit.row));
        }
        let ordered = self.order(partition, self.k, hits);
        Step::Done(Some(ordered.map(|()| std::mem::take(hits))))
    }
}

fn place_of(partition: &Partition, row: Row) -> Option<Place> {
    partition.table.get(row).map(|entry| entry.place)
}

/// What of the hits' records is not in memory.
fn missing(partition: &Partition, hits: &[Hit]) -> Vec<Piece> {
    let places = hits.iter().filter_map(|hit| place_of(partition, hit.row));
    places.filter_map(|place| partition.log.missing(place)).collect()
}

/// The hits as a door shows them.
fn answer(partition: &Partition, hits: &[Hit]) -> Result<Vec<MemoryHit>, Error> {
    let mut bytes = 0;
    let mut answer = Vec::with_capacity(hits.len());
    for hit in hits {
        let Some(place) = place_of(partition, hit.row) else { continue };
        let Ok(record) = partition.log.read(place) else { continue };
        let item = item_of(&record);
        bytes += item.metadata.len() + item.text.as_ref().map_or(0, String::len);
        if bytes > HITS_BYTES_MAX {
            return Err(Error::TooLarge(format!(
                "the hits have more than {} MiB of text and metadata: ask for fewer",
                HITS_BYTES_MAX >> 20
            )));
        }
        answer.push(MemoryHit {
            key: item.key,
            namespace: item.namespace,
            score: score(partition.metric, hit.distance),
            text: item.text,
            metadata: item.metadata,
        });
    }
    Ok(answer)
}

/// Larger is nearer.
fn score(metric: Metric, distance: f32) -> f32 {
    match metric {
        Metric::Cosine => 1.0 - distance,
        Metric::Euclidean => -distance.max(0.0).sqrt(),
        Metric::Dot => -distance,
    }
}
