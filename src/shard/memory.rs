//! The partitions of pattern memory that a core keeps: what is asked of them goes on in steps.
//!
//! In each turn changes that are on the disk are applied and searches go on, one step of some tens of
//! microseconds after the other, for at most [`TURN`]; then messages are looked at again. All that is
//! asked takes its turns, so that a long search delays no short one. What must wait for the disk is
//! given to the memory threads ([`Desk`]), and what waits for records that are cold stands aside.
//!
//! Invariants:
//! - A put is answered when it is on the disk and in the index.
//! - Everything asked is answered once: with what was asked for, or with why not.

mod changes;
mod kept;
#[cfg(test)]
mod tests;

use self::{changes::Changes, kept::Kept};
use super::core::Shard;
use crate::{
    memory::{
        store::{Done, Job, Load, Partition, Recall, Search, Step},
        thread::Desk,
    },
    wire::{
        api::Error,
        id::CoreIndex,
        letter::{Request, Response},
        memory::{PartitionReport, not_configured},
    },
};
use std::{
    collections::{HashMap, VecDeque},
    io,
    time::{Duration, Instant},
};

/// How long a turn goes on with memory.
const TURN: Duration = Duration::from_micros(100);
/// What may be asked of one core and not be answered yet, puts and deletes apart.
const OPERATIONS_MAX: usize = 1024;
/// When to come back when there are so many, milliseconds.
const RETRY_MS: u64 = 20;
/// Rows that one step of a list looks at.
const LIST_ROWS: usize = 256;
/// Changes that an answer to a put can tell apart.
const ITEMS_MAX: usize = 1 << 16;

/// Who asked, and how the answer finds it.
#[derive(Clone, Copy)]
struct Asker {
    core: CoreIndex,
    correlation: u64,
}

/// Something that is under way.
struct Operation {
    asker: Asker,
    partition: u16,
    what: What,
}

enum What {
    Get(String, String),
    Search(Box<Search>),
    List {
        namespace: Option<String>,
        from: u32,
        max: u32,
        items: Vec<crate::wire::memory::MemoryItem>,
    },
    Stats(Box<Recall>),
}

/// Who waits for cold records.
enum Waits {
    Operation(Operation),
    /// The changes of a partition, the moving of its oldest segment, or the look at all records.
    Apply(u16),
    Move(u16),
    Look(u16),
}

/// What a core keeps of pattern memory.
pub struct Memory {
    index: CoreIndex,
    cores: CoreIndex,
    kept: Vec<Kept>,
    ef_search: usize,
    /// The way to the threads that wait for the disk; none for memory alone.
    desk: Option<Desk>,
    operations: VecDeque<Operation>,
    changes: HashMap<u32, Changes>,
    next_change: u32,
    waits: HashMap<u64, Waits>,
    next_wait: u64,
    /// Changes that wait for their partition's first file.
    early: VecDeque<(Asker, Request)>,
    /// Answers that they were given.
    answers: Vec<(Asker, Response)>,
}

impl Memory {
    /// The partitions of a core, in order: those whose number leaves the core's when it is divided by
    /// the number of cores.
    pub fn new(
        index: CoreIndex,
        cores: CoreIndex,
        partitions: Vec<Partition>,
        ef_search: usize,
        desk: Option<Desk>,
    ) -> Self {
        Self {
            index,
            cores,
            kept: partitions.into_iter().map(Kept::new).collect(),
            ef_search,
            desk,
            operations: VecDeque::new(),
            changes: HashMap::new(),
            next_change: 0,
            waits: HashMap::new(),
            next_wait: 0,
            early: VecDeque::new(),
            answers: Vec::new(),
        }
    }

    /// The place of a partition among those of this core.
    fn place_of(&self, partition: u16) -> Option<u16> {
        let place = partition / self.cores;
        let is_here = partition % self.cores == self.index && usize::from(place) < self.kept.len();
        is_here.then_some(place)
    }

    /// Whether another turn would find something to do.
    pub fn has_work(&self) -> bool {
        self.desk.as_ref().is_some_and(Desk::has_answers)
            || !self.operations.is_empty()
            || self.kept.iter().any(Kept::has_work)
    }

    /// Whether a job waits for room in a queue.
    pub fn has_departures(&self) -> bool {
        self.desk.as_ref().is_some_and(Desk::is_waiting)
    }

    /// Whether records wait to be given to the threads.
    fn is_filling(&self) -> bool {
        self.kept.iter().any(|kept| kept.partition.log().is_filling())
    }

    /// Writes and applies what waits, and seals the files, after the threads have ended: for a node
    /// that stops. Waits for the disk.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn close(mut self) -> io::Result<()> {
        while let Some((place, done)) = self.desk.as_ref().and_then(Desk::take) {
            self.kept[usize::from(place)].partition.done(done);
        }
        for (place, job) in self.desk.iter_mut().flat_map(Desk::take_waiting) {
            job.perform().into_iter().for_each(|done| {
                self.kept[usize::from(place)].partition.done(done);
            });
        }
        self.kept.iter_mut().try_for_each(|kept| kept.partition.close())
    }

    /// Takes what the threads have done.
    fn take_answers(&mut self) -> bool {
        let mut worked = false;
        while let Some((place, done)) = self.desk.as_ref().and_then(Desk::take) {
            worked = true;
            match done {
                Done::Loaded(token, result) => self.go_on_after(token, result),
                Done::Saved(result) => self.kept[usize::from(place)].saved(result),
                Done::Made(result) => {
                    self.kept[usize::from(place)].partition.done(Done::Made(result));
                    self.ask_early();
                }
                done => self.kept[usize::from(place)].partition.done(done),
            }
        }
        worked
    }

    /// A file was made: who waited for the first one of a partition asks again.
    fn ask_early(&mut self) {
        for (asker, request) in std::mem::take(&mut self.early) {
            match self.ask(asker, request) {
                Ok(None) => {}
                Ok(Some(response)) => self.answers.push((asker, response)),
                Err(error) => self.answers.push((asker, Response::Failed(error))),
            }
        }
    }

    /// Records were brought into memory, or cannot be read: who waits for them looks again, and
    /// meets what the disk says.
    fn go_on_after(&mut self, token: u64, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::error!(%error, "records of pattern memory cannot be read");
        }
        match self.waits.remove(&token) {
            Some(Waits::Operation(operation)) => self.operations.push_back(operation),
            Some(Waits::Apply(place)) => self.kept[usize::from(place)].applying_waits = false,
            Some(Waits::Move(place)) => self.kept[usize::from(place)].moving_waits = false,
            Some(Waits::Look(place)) => self.kept[usize::from(place)].looking_waits = false,
            None => {}
        }
    }

    fn load(&mut self, place: u16, pieces: Vec<crate::memory::store::Piece>, waits: Waits) {
        let Some(desk) = &mut self.desk else {
            unreachable!("what lies in memory alone is never waited for");
        };
        let token = self.next_wait;
        self.next_wait += 1;
        self.waits.insert(token, waits);
        desk.give(place, Job::Load(Load { token, pieces }));
    }

    /// Goes on with one partition's changes by a step; false when there is nothing to do.
    fn apply(&mut self, place: u16) -> bool {
        let kept = &mut self.kept[usize::from(place)];
        if kept.applying_waits {
            return false;
        }
        match kept.partition.apply() {
            Step::Done(worked) => worked,
            Step::Wait(pieces) => {
                kept.applying_waits = true;
                self.load(place, pieces, Waits::Apply(place));
                true
            }
        }
    }

    /// Goes on with freeing a partition's oldest segment by a step, when that is wanted.
    fn move_some(&mut self, place: u16) -> bool {
        let kept = &mut self.kept[usize::from(place)];
        if kept.moving_waits {
            return false;
        }
        match kept.partition.move_some() {
            Step::Done(worked) => {
                kept.is_moving = worked;
                worked
            }
            Step::Wait(pieces) => {
                kept.moving_waits = true;
                self.load(place, pieces, Waits::Move(place));
                true
            }
        }
    }

    /// Goes on with looking at a partition's records by a step; false when there is nothing to do.
    fn look(&mut self, place: u16) -> bool {
        let kept = &mut self.kept[usize::from(place)];
        if kept.looking_waits {
            return false;
        }
        match kept.partition.look() {
            Step::Done(worked) => worked,
            Step::Wait(pieces) => {
                kept.looking_waits = true;
                self.load(place, pieces, Waits::Look(place));
                true
            }
        }
    }

    /// Goes on with a partition's checkpoint by a step; false when there is nothing to do.
    fn save(&mut self, place: u16) -> bool {
        let mut jobs = Vec::new();
        let worked = self.kept[usize::from(place)].save(&mut jobs);
        if let Some(desk) = &mut self.desk {
            jobs.into_iter().for_each(|job| desk.give(place, job));
        }
        worked
    }

    /// Gives what is to be written and made to the threads.
    fn flush(&mut self) {
        for (place, kept) in self.kept.iter_mut().enumerate() {
            kept.partition.flush();
            let jobs = kept.partition.take_jobs();
            if let Some(desk) = &mut self.desk {
                jobs.into_iter().for_each(|job| desk.give(place as u16, job));
            }
        }
        if let Some(desk) = &mut self.desk {
            desk.hand_in();
        }
    }

    /// Goes on with an operation by a step: its answer, or nothing yet.
    fn step(&mut self, mut operation: Operation) -> Option<(Asker, Response)> {
        if let Some(desk) = &self.desk {
            desk.note_use();
        }
        let partition = &mut self.kept[usize::from(operation.partition)].partition;
        let stepped = match &mut operation.what {
            What::Get(namespace, key) => match partition.get(namespace, key) {
                Step::Wait(pieces) => Step::Wait(pieces),
                Step::Done(result) => Step::Done(Some(result.map(Response::MemoryItem))),
            },
            What::Search(search) => match search.step(partition) {
                Step::Wait(pieces) => Step::Wait(pieces),
                Step::Done(hits) => Step::Done(hits.map(|hits| hits.map(Response::MemoryHits))),
            },
            What::List { namespace, from, max, items } => {
                let left = *max as usize - items.len();
                match partition.list(namespace.as_deref(), *from, left, LIST_ROWS) {
                    Step::Wait(pieces) => Step::Wait(pieces),
                    Step::Done((more, next)) => {
                        items.extend(more);
                        let is_end = next.is_none() || items.len() >= *max as usize;
                        *from = next.unwrap_or(0);
                        let items = is_end.then(|| std::mem::take(items));
                        Step::Done(items.map(|items| Ok(Response::MemoryItems(items, next))))
                    }
                }
            }
            What::Stats(recall) => match recall.step(partition) {
                Step::Wait(pieces) => Step::Wait(pieces),
                Step::Done(None) => Step::Done(None),
                Step::Done(Some(tally)) => {
                    let sample = (tally.queries, tally.found, tally.wanted);
                    let kept = &self.kept[usize::from(operation.partition)];
                    let report = PartitionReport { sample, ..kept.report() };
                    Step::Done(Some(Ok(Response::MemoryReport(report))))
                }
            },
        };
        match stepped {
            Step::Wait(pieces) => {
                let place = operation.partition;
                self.load(place, pieces, Waits::Operation(operation));
                None
            }
            Step::Done(None) => {
                self.operations.push_back(operation);
                None
            }
            Step::Done(Some(answer)) => {
                Some((operation.asker, answer.unwrap_or_else(Response::Failed)))
            }
        }
    }

    /// Takes in what is asked: an answer at once, or nothing yet.
    fn ask(&mut self, asker: Asker, request: Request) -> Result<Option<Response>, Error> {
        let (Request::MemoryPut(partition, _)
        | Request::MemoryGet(partition, ..)
        | Request::MemoryDelete(partition, ..)
        | Request::MemorySearch(partition, _)
        | Request::MemoryList(partition, ..)
        | Request::MemoryStats(partition, _)) = &request
        else {
            unreachable!("nothing else is asked of memory");
        };
        let there_is_none = || Error::NotFound(format!("there is no partition {partition} here"));
        let partition = self.place_of(*partition).ok_or_else(there_is_none)?;
        let place = usize::from(partition);
        if matches!(request, Request::MemoryPut(..)) && !self.kept[place].partition.prepare() {
            self.check_changes()?;
            self.early.push_back((asker, request));
            return Ok(None);
        }
        let what = match request {
            Request::MemoryPut(_, items) => {
                if items.len() > ITEMS_MAX {
                    return Err(Error::TooLarge(format!("more than {ITEMS_MAX} items at once")));
                }
                self.check_changes()?;
                let put = |it: &mut Self, at: usize, token| {
                    it.kept[place].partition.put(&items[at], token)
                };
                return Ok(self.begin_changes(asker, false, items.len(), put));
            }
            Request::MemoryDelete(_, namespace, key) => {
                self.check_changes()?;
                let delete = |it: &mut Self, _, token| {
                    it.kept[place].partition.delete(&namespace, &key, token)
                };
                return Ok(self.begin_changes(asker, true, 1, delete));
            }
            Request::MemoryGet(_, namespace, key) => What::Get(namespace, key),
            Request::MemorySearch(_, query) => {
                What::Search(Box::new(Search::new(query, self.ef_search)?))
            }
            Request::MemoryList(_, namespace, from, max) => {
                What::List { namespace, from, max, items: Vec::new() }
            }
            Request::MemoryStats(_, sample) => {
                What::Stats(Box::new(Recall::new(sample, self.ef_search, asker.correlation)))
            }
            _ => unreachable!("all that is asked of memory is above"),
        };
        if self.operations.len() + self.waits.len() >= OPERATIONS_MAX {
            return Err(Error::Backpressure(RETRY_MS));
        }
        self.operations.push_back(Operation { asker, partition, what });
        Ok(None)
    }
}

impl Shard {
    /// Gives the core the partitions of pattern memory that it keeps.
    pub fn keep_memory(&mut self, memory: Memory) {
        self.memory = Some(Box::new(memory));
    }

    /// Takes them back: for a node that stops.
    pub fn take_memory(&mut self) -> Option<Box<Memory>> {
        self.memory.take()
    }

    /// Does what a core asks of pattern memory and answers it, at once or in a later turn.
    pub(super) fn ask_memory(&mut self, core: CoreIndex, correlation: u64, request: Request) {
        let asker = Asker { core, correlation };
        let asked = match &mut self.memory {
            Some(memory) => memory.ask(asker, request),
            None => Err(not_configured()),
        };
        let response = match asked {
            Ok(None) => return,
            Ok(Some(response)) => response,
            Err(error) => Response::Failed(error),
        };
        self.kernel.answer(core, correlation, &response);
    }

    /// Goes on with pattern memory for a while; false when there was nothing to do.
    #[inline]
    pub(super) fn run_memory(&mut self) -> bool {
        let Some(memory) = &mut self.memory else { return false };
        if !memory.has_work() && !memory.has_departures() && !memory.is_filling() {
            return false;
        }
        let mut worked = memory.take_answers();
        for (asker, response) in std::mem::take(&mut memory.answers) {
            self.kernel.answer(asker.core, asker.correlation, &response);
        }
        let begun = Instant::now();
        loop {
            let mut stepped = false;
            for place in 0..memory.kept.len() as u16 {
                stepped |= memory.apply(place);
                stepped |= memory.move_some(place);
                stepped |= memory.save(place);
                stepped |= memory.look(place);
            }
            for (asker, response) in memory.take_outcomes() {
                stepped = true;
                self.kernel.answer(asker.core, asker.correlation, &response);
            }
            if let Some(operation) = memory.operations.pop_front() {
                stepped = true;
                if let Some((asker, response)) = memory.step(operation) {
                    self.kernel.answer(asker.core, asker.correlation, &response);
                }
            }
            worked |= stepped;
            if !stepped || begun.elapsed() >= TURN {
                break;
            }
        }
        memory.flush();
        worked
    }
}
