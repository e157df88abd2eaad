//! A search of one partition, in steps.
//!
//! The index finds candidates by their codes, in a small namespace among all that it has; their records are read, checked, and order them by the
//! true vectors. A filter of metadata is asked about records alone: so many candidates are taken
//! that enough pass, and not only among the last, at last all rows one after the other, so that a filter which lets few pass finds
//! them all the same.
//!
//! Invariants:
//! - A step does no more than one [`Portion`], however many hits are asked for.
//! - Between two steps rows may be freed, taken by others and moved: a hit is answered with the record that
//!   gave its distance, or not at all.

use super::{
    damage::Damage,
    filter::Filter,
    job::Piece,
    partition::{Partition, Step, item_of},
    portion::Portion,
    table::{Place, Row},
};
use crate::{
    memory::index::{self, EF_MAX, Hit},
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
/// Candidates of which it is found out whether their records are in memory, until the clock is looked at.
const LOOKS_AT_ONCE: usize = 16;
/// Records that are brought into memory at a time, where it is not known how many will be wanted.
const AHEAD: usize = 32;
/// Records that are ordered at a time, and their bytes, until the clock is looked at; the last one may go beyond.
const ORDERED_AT_ONCE: (usize, usize) = (8, 16 << 10);
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

/// A hit with its true distance, and the record that has the vector.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranked {
    pub(super) hit: Hit,
    place: Place,
}

enum Phase {
    /// The index is to be asked for so many.
    Walk(usize),
    /// The index looks for so many, of which so many will be reliable.
    Walking(usize, usize, Box<index::Search>),
    /// Candidates, nearest first; so many of them are all that is as near. How many were looked at, and those that passed.
    Sift { hits: Vec<Hit>, reliable: usize, looked_at: usize, passed: Vec<Hit>, may_be_more: bool },
    /// All rows are looked at from this one on; the best so far.
    Scan { from: Row, best: Vec<Ranked> },
    /// Candidates whose records must be in memory; how many were looked at, and what is missing of them.
    Gather { hits: Vec<Hit>, looked_at: usize, missing: Vec<Piece> },
    /// Candidates are ordered by their vectors: how many were, how many of those are gone, and the best.
    Rank { hits: Vec<Hit>, ranked: usize, gone: usize, best: Vec<Ranked> },
    /// The hits, and those that were read for the answer; the bytes of their text and metadata.
    Answer { hits: Vec<Ranked>, read: usize, answer: Vec<MemoryHit>, bytes: usize },
}

/// How far a phase came.
enum Next {
    Phase(Phase),
    Wait(Phase, Vec<Piece>),
    Ranked(Vec<Ranked>),
    Answered(Vec<MemoryHit>),
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

    /// What one step may read.
    fn portion(&self) -> Portion {
        if self.filter.is_some() { Portion::filtered() } else { Portion::new() }
    }

    /// Goes on; the hits when it has come to an end, nearest first.
    pub fn step(
        &mut self,
        partition: &mut Partition,
    ) -> Step<Option<Result<Vec<MemoryHit>, Error>>> {
        let mut portion = self.portion();
        loop {
            match self.go_on(partition, &mut portion) {
                Ok(Next::Wait(phase, pieces)) => {
                    self.phase = phase;
                    return Step::Wait(pieces);
                }
                Ok(Next::Answered(answer)) => return Step::Done(Some(Ok(answer))),
                Ok(Next::Ranked(hits)) => {
                    let answer = Vec::with_capacity(hits.len());
                    self.phase = Phase::Answer { hits, read: 0, answer, bytes: 0 };
                }
                Ok(Next::Phase(phase)) => self.phase = phase,
                Err(error) => return Step::Done(Some(Err(error))),
            }
            if portion.is_spent() || portion.is_over() {
                return Step::Done(None);
            }
        }
    }

    /// The same, with the rows as hits.
    pub(super) fn step_rows(
        &mut self,
        partition: &mut Partition,
    ) -> Step<Option<Result<Vec<Ranked>, Error>>> {
        let mut portion = self.portion();
        loop {
            match self.go_on(partition, &mut portion) {
                Ok(Next::Wait(phase, pieces)) => {
                    self.phase = phase;
                    return Step::Wait(pieces);
                }
                Ok(Next::Ranked(hits)) => return Step::Done(Some(Ok(hits))),
                Ok(Next::Answered(_)) => unreachable!("nothing is answered before it is ranked"),
                Ok(Next::Phase(phase)) => self.phase = phase,
                Err(error) => return Step::Done(Some(Err(error))),
            }
            if portion.is_spent() || portion.is_over() {
                return Step::Done(None);
            }
        }
    }

    /// Goes on with the present phase.
    fn go_on(&mut self, partition: &mut Partition, portion: &mut Portion) -> Result<Next, Error> {
        let number = match &self.namespace {
            None => None,
            Some(name) => match partition.table.namespaces.find(name) {
                None => return Ok(Next::Answered(Vec::new())),
                number => number,
            },
        };
        let nothing = Phase::Walk(0);
        Ok(match std::mem::replace(&mut self.phase, nothing) {
            Phase::Walk(wanted) => Next::Phase(self.begin_walk(partition, wanted, number)?),
            Phase::Walking(wanted, reliable, search) => {
                Next::Phase(self.walk(partition, portion, wanted, reliable, search, number))
            }
            Phase::Sift { hits, reliable, looked_at, passed, may_be_more } => {
                self.sift(partition, portion, hits, reliable, looked_at, passed, may_be_more)
            }
            Phase::Scan { from, best } => self.scan(partition, portion, from, best, number)?,
            Phase::Gather { hits, looked_at, missing } => {
                gather(partition, portion, hits, looked_at, missing)
            }
            Phase::Rank { hits, ranked, gone, best } => {
                self.rank(partition, portion, hits, ranked, gone, best, number)?
            }
            Phase::Answer { hits, read, answer, bytes } => {
                self.answer(partition, portion, hits, read, answer, bytes)?
            }
        })
    }

    /// Among the rows of a namespace that knows them, and otherwise through the graph.
    fn begin_walk(
        &self,
        partition: &mut Partition,
        wanted: usize,
        number: Option<u16>,
    ) -> Result<Phase, Error> {
        let Partition { index, table, .. } = partition;
        let (vector, ef) = (&self.vector, self.ef);
        let rows = number.and_then(|number| table.namespaces.rows(number));
        let count = number.map(|number| table.namespaces.count(number) as usize);
        let begun = match (rows, count) {
            (Some(rows), _) => index.begin_search_among(vector, wanted, rows),
            (_, Some(count)) if count < table.live() => {
                index.begin_filtered_search(vector, wanted, ef, count)
            }
            _ => index.begin_search(vector, wanted, ef),
        };
        let search = begun.map_err(|error| Error::Invalid(format!("vector: {error}")))?;
        // What a walk finds last is some of what is as near.
        let reliable = if rows.is_some() { wanted } else { ef.max(wanted) / 2 };
        Ok(Phase::Walking(wanted, reliable, Box::new(search)))
    }

    fn walk(
        &self,
        partition: &mut Partition,
        portion: &mut Portion,
        wanted: usize,
        reliable: usize,
        mut search: Box<index::Search>,
        number: Option<u16>,
    ) -> Phase {
        let Partition { index, table, .. } = partition;
        let accepts = |row| {
            let namespace = table.get(row).map(|entry| entry.namespace);
            namespace.is_some_and(|namespace| number.is_none_or(|number| number == namespace))
        };
        let distances = index.step_distances();
        let hits = loop {
            if let Some(hits) = search.step(index, distances, accepts) {
                break hits;
            }
            if portion.is_over() {
                return Phase::Walking(wanted, reliable, search);
            }
        };
        if self.filter.is_none() {
            return Phase::gather(hits);
        }
        let may_be_more = hits.len() == wanted;
        let reliable = if may_be_more { reliable } else { hits.len() };
        Phase::Sift { hits, reliable, looked_at: 0, passed: Vec::new(), may_be_more }
    }

    /// Asks the filter about candidates. Where it refuses what is near the query, those that pass may all be among the
    /// last of the candidates, so as many as hits are asked for must be among the reliable ones.
    #[expect(clippy::too_many_arguments, reason = "the parts of its phase")]
    fn sift(
        &self,
        partition: &mut Partition,
        portion: &mut Portion,
        hits: Vec<Hit>,
        reliable: usize,
        mut looked_at: usize,
        mut passed: Vec<Hit>,
        may_be_more: bool,
    ) -> Next {
        let enough = 2 * self.k;
        let end = (looked_at + AHEAD).min(hits.len());
        let pieces = missing(partition, &hits[looked_at..end]);
        if !pieces.is_empty() {
            let phase = Phase::Sift { hits, reliable, looked_at, passed, may_be_more };
            return Next::Wait(phase, pieces);
        }
        while looked_at < end && passed.len() < enough {
            let hit = hits[looked_at];
            if !portion.take(bytes_of(partition, hit.row)) {
                break;
            }
            looked_at += 1;
            if self.passes(partition, hit.row) {
                passed.push(hit);
            }
        }
        let last = passed.get(self.k - 1).map(|hit| hit.row);
        let are_reliable = || hits.iter().take(reliable).any(|hit| Some(hit.row) == last);
        let is_full = passed.len() >= enough;
        Next::Phase(if is_full && are_reliable() || looked_at == hits.len() && !may_be_more {
            Phase::gather(passed)
        } else if looked_at < hits.len() && !is_full {
            Phase::Sift { hits, reliable, looked_at, passed, may_be_more }
        } else if may_be_more && hits.len() < EF_MAX {
            // All that were wanted were found, so more are now.
            Phase::Walk((hits.len() * WIDER).min(EF_MAX))
        } else {
            Phase::Scan { from: 0, best: Vec::new() }
        })
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
        portion: &mut Portion,
        from: Row,
        mut best: Vec<Ranked>,
        number: Option<u16>,
    ) -> Result<Next, Error> {
        let end = partition.table.rows().min(from.saturating_add(ROWS_A_STEP));
        let (count, mut left) = self.ordered_at_once();
        let mut rows = Vec::with_capacity(count);
        let mut next = from;
        while next < end && rows.len() < count && left > 0 {
            let entry = partition.table.get(next);
            let is_wanted = |of: u16| number.is_none_or(|number| number == of);
            if entry.is_some_and(|entry| is_wanted(entry.namespace)) {
                let bytes = bytes_of(partition, next);
                if !portion.take(bytes + self.computed_bytes(partition)) {
                    break;
                }
                left = left.saturating_sub(bytes);
                rows.push(Hit { row: next, distance: f32::INFINITY });
            }
            next += 1;
        }
        let pieces = missing(partition, &rows);
        if !pieces.is_empty() {
            return Ok(Next::Wait(Phase::Scan { from, best }, pieces));
        }
        self.order(partition, rows, &mut best)?;
        let is_end = next >= partition.table.rows();
        Ok(match is_end {
            true => Next::Phase(Phase::gather(best.iter().map(|ranked| ranked.hit).collect())),
            false => Next::Phase(Phase::Scan { from: next, best }),
        })
    }

    /// Adds those of some rows that pass to the best, which are in the order of their true vectors; damaged
    /// ones are left out.
    fn order(
        &self,
        partition: &mut Partition,
        mut rows: Vec<Hit>,
        best: &mut Vec<Ranked>,
    ) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut damages: Vec<(Row, Damage)> = Vec::new();
        rows.retain(|hit| {
            let place = place_of(partition, hit.row);
            match place.map(|place| partition.log.read(place)) {
                Some(Ok(record)) => {
                    self.filter.as_ref().is_none_or(|it| it.accepts(record.metadata()))
                }
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
            .rerank(&self.vector, vector, self.k, &mut rows)
            .map_err(|error| Error::Invalid(format!("vector: {error}")))?;
        for hit in rows {
            let Some(entry) = table.get(hit.row) else { continue };
            let is_nearer = |other: &Ranked| {
                let other = other.hit;
                other.distance.total_cmp(&hit.distance).then(other.row.cmp(&hit.row)).is_lt()
            };
            let at = best.partition_point(is_nearer);
            if at < self.k {
                best.truncate(self.k - 1);
                best.insert(at, Ranked { hit, place: entry.place });
            }
        }
        Ok(())
    }

    /// Rows that are ordered at once, and about how many bytes of them. A filter may look at a thousand fields of each, so
    /// with one the clock is looked at behind each.
    fn ordered_at_once(&self) -> (usize, usize) {
        if self.filter.is_some() { (1, ORDERED_AT_ONCE.1) } else { ORDERED_AT_ONCE }
    }

    /// Bytes that take as long to read as a vector's exact distance to compute, where that is more than reading
    /// it: the cosine is computed in 64 bits.
    fn computed_bytes(&self, partition: &Partition) -> usize {
        if partition.metric == Metric::Cosine { size_of_val(&self.vector[..]) } else { 0 }
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of its phase")]
    fn rank(
        &mut self,
        partition: &mut Partition,
        portion: &mut Portion,
        hits: Vec<Hit>,
        mut ranked: usize,
        mut gone: usize,
        mut best: Vec<Ranked>,
        number: Option<u16>,
    ) -> Result<Next, Error> {
        let (count, mut left) = self.ordered_at_once();
        let mut rows = Vec::with_capacity(count);
        let mut pieces = Vec::new();
        while let Some(hit) = hits.get(ranked)
            && rows.len() < count
            && left > 0
        {
            // While records were brought into memory rows may have been freed, and taken by others.
            let entry = partition.table.get(hit.row);
            let is_wanted = |of: u16| number.is_none_or(|number| number == of);
            if let Some(entry) = entry.filter(|entry| is_wanted(entry.namespace)) {
                pieces.extend(partition.log.missing(entry.place));
                let bytes = bytes_of(partition, hit.row);
                let computed = self.computed_bytes(partition);
                if !pieces.is_empty() || !portion.take(bytes + computed) {
                    break;
                }
                left = left.saturating_sub(bytes);
                rows.push(*hit);
            } else {
                gone += 1;
            }
            ranked += 1;
        }
        self.order(partition, rows, &mut best)?;
        if ranked < hits.len() {
            let phase = Phase::Rank { hits, ranked, gone, best };
            return Ok(match pieces.is_empty() {
                true => Next::Phase(phase),
                false => Next::Wait(phase, pieces),
            });
        }
        let before = hits.len();
        if before - gone < self.k.min(before) && self.walks_again > 0 {
            return Ok(Next::Phase(self.walk_again(before)));
        }
        Ok(Next::Ranked(best))
    }

    fn walk_again(&mut self, wanted: usize) -> Phase {
        self.walks_again -= 1;
        Phase::Walk(wanted.max(self.k))
    }

    /// Reads hits the way a door shows them.
    fn answer(
        &mut self,
        partition: &mut Partition,
        portion: &mut Portion,
        hits: Vec<Ranked>,
        mut read: usize,
        mut answer: Vec<MemoryHit>,
        mut bytes: usize,
    ) -> Result<Next, Error> {
        while let Some(Ranked { hit, place }) = hits.get(read) {
            if !portion.take(bytes_of(partition, hit.row)) {
                return Ok(Next::Phase(Phase::Answer { hits, read, answer, bytes }));
            }
            read += 1;
            let Some(found) = place_of(partition, hit.row) else { continue };
            if let Some(piece) = partition.log.missing(found) {
                let phase = Phase::Answer { hits, read: read - 1, answer, bytes };
                return Ok(Next::Wait(phase, vec![piece]));
            }
            let Ok(record) = partition.log.read(found) else { continue };
            // Moved since it was ranked, or another item that has the row now.
            if found != *place && record.head.moved_from != Some(*place) {
                continue;
            }
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
        if answer.len() < hits.len() && self.walks_again > 0 {
            return Ok(Next::Phase(self.walk_again(hits.len())));
        }
        Ok(Next::Answered(answer))
    }
}

impl Phase {
    fn gather(hits: Vec<Hit>) -> Self {
        Self::Gather { hits, looked_at: 0, missing: Vec::new() }
    }
}

/// Finds out which of the candidates' records are not in memory, to wait for all of them at once.
fn gather(
    partition: &Partition,
    portion: &mut Portion,
    hits: Vec<Hit>,
    mut looked_at: usize,
    mut pieces: Vec<Piece>,
) -> Next {
    while looked_at < hits.len() {
        let end = (looked_at + LOOKS_AT_ONCE).min(hits.len());
        pieces.extend(missing(partition, &hits[looked_at..end]));
        looked_at = end;
        if looked_at < hits.len() && portion.is_over() {
            return Next::Phase(Phase::Gather { hits, looked_at, missing: pieces });
        }
    }
    if !pieces.is_empty() {
        return Next::Wait(Phase::gather(hits), pieces);
    }
    Next::Phase(Phase::Rank { hits, ranked: 0, gone: 0, best: Vec::new() })
}

fn place_of(partition: &Partition, row: Row) -> Option<Place> {
    partition.table.get(row).map(|entry| entry.place)
}

/// Bytes of a row's record; none that are known while it is not in memory.
fn bytes_of(partition: &Partition, row: Row) -> usize {
    let Some(place) = place_of(partition, row) else { return 0 };
    if partition.log.missing(place).is_some() {
        return 0;
    }
    partition.log.head(place).map_or(0, |head| head.length)
}

/// What of the hits' records is not in memory.
fn missing(partition: &Partition, hits: &[Hit]) -> Vec<Piece> {
    let places = hits.iter().filter_map(|hit| place_of(partition, hit.row));
    places.filter_map(|place| partition.log.missing(place)).collect()
}

/// Larger is nearer.
fn score(metric: Metric, distance: f32) -> f32 {
    match metric {
        Metric::Cosine => 1.0 - distance,
        Metric::Euclidean => -distance.max(0.0).sqrt(),
        Metric::Dot => -distance,
    }
}
