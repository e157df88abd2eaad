//! The partitions of pattern memory that a core keeps: what is asked of them goes on in steps.
//!
//! In each turn items are recorded, changes that are on the disk are applied and searches go on, one step
//! after the other, each of which looks at the clock after every few comparisons, until [`TURN`] is over; then
//! messages are looked at again.
//! All that is asked takes its turns, so that a long search delays no short one. What must wait for the
//! disk is given to the memory threads ([`Desk`]), and what waits for records that are cold stands aside.
//!
//! Invariants:
//! - No step is long, however much is asked for at once, so messages wait for a turn and one step at most.
//! - A put is answered when it is on the disk and in the index.
//! - Everything asked is answered once: with what was asked for, or with why not.

mod changes;
mod kept;
#[cfg(test)]
mod tests;

use self::{
    changes::{Arrival, Arriving, Changes},
    kept::Kept,
};
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

/// A turn with memory ends with the step that is under way when it is over.
const TURN: Duration = Duration::from_micros(35);
/// What may be asked of one core and not be answered yet, puts and deletes apart.
const OPERATIONS_MAX: usize = 1024;
/// When to come back when there are so many, milliseconds.
const RETRY_MS: u64 = 20;
/// How soon records that could not be read are tried again, when that must be.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// Rows that one step of a list looks at.
const LIST_ROWS: usize = 256;
/// Changes that an answer to a put can tell apart.
const ITEMS_MAX: usize = 1 << 16;

/// What takes turns for each partition: applying, moving, saving, looking, tidying; and for all: recording, what is asked.
const CHORES_OF_A_PARTITION: usize = 5;
const CHORES_OF_ALL: usize = 2;

const _: () = assert!(CHORES_OF_ALL <= CHORES_OF_A_PARTITION);

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
    /// A report, and the namespace from which on they are missing in it.
    Report(Box<PartitionReport>, usize),
}

/// Who waits for cold records.
enum Waits {
    Operation(Operation),
    /// The changes of a partition, the moving of its oldest segment, the look at all records, or what can wait.
    Apply(u16),
    Move(u16),
    Look(u16),
    Tidy(u16),
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
    /// What could not be read, and when it is tried again.
    unreadable: Vec<(Instant, Waits)>,
    next_wait: u64,
    /// Changes that wait for their partition's first file.
    early: VecDeque<(Asker, Request)>,
    /// Changes that are not recorded yet, oldest first.
    arrivals: VecDeque<Arrival>,
    /// Answers that are to be given.
    answers: Vec<(Asker, Response)>,
    /// Which chore is next.
    next_chore: usize,
    /// The last turn found something to do.
    has_turned: bool,
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
            unreadable: Vec::new(),
            next_wait: 0,
            early: VecDeque::new(),
            arrivals: VecDeque::new(),
            answers: Vec::new(),
            next_chore: 0,
            has_turned: false,
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
            || !self.arrivals.is_empty()
            || !self.answers.is_empty()
            || self.kept.iter().any(Kept::has_work)
    }

    /// Whether a job waits for room in a queue, or for the time to be tried again.
    pub fn has_departures(&self) -> bool {
        !self.unreadable.is_empty() || self.desk.as_ref().is_some_and(Desk::is_waiting)
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
            self.ask(asker.core, asker.correlation, request);
        }
    }

    /// Records were brought into memory: who waits for them looks again. When they cannot be read, who
    /// asked is told, and what must be done all the same is tried again after a while.
    fn go_on_after(&mut self, token: u64, result: io::Result<()>) {
        let Some(waits) = self.waits.remove(&token) else { return };
        let Err(error) = result else { return self.go_on(waits) };
        tracing::error!(%error, "records of pattern memory cannot be read");
        match waits {
            Waits::Operation(operation) => {
                let text = format!("records of pattern memory cannot be read: {error}");
                let response = Response::Failed(Error::Unavailable(text));
                self.answers.push((operation.asker, response));
            }
            waits => self.unreadable.push((Instant::now() + READ_AGAIN, waits)),
        }
    }

    /// Tries again what could not be read a while ago.
    fn read_again(&mut self) {
        if self.unreadable.is_empty() {
            return;
        }
        let now = Instant::now();
        let (due, later) =
            std::mem::take(&mut self.unreadable).into_iter().partition(|it| it.0 <= now);
        self.unreadable = later;
        let due: Vec<(Instant, Waits)> = due;
        due.into_iter().for_each(|(_, waits)| self.go_on(waits));
    }

    fn go_on(&mut self, waits: Waits) {
        match waits {
            Waits::Operation(operation) => self.operations.push_back(operation),
            Waits::Apply(place) => self.kept[usize::from(place)].applying_waits = false,
            Waits::Move(place) => self.kept[usize::from(place)].moving_waits = false,
            Waits::Look(place) => self.kept[usize::from(place)].looking_waits = false,
            Waits::Tidy(place) => self.kept[usize::from(place)].tidying_waits = false,
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
        let applied = kept.partition.apply();
        if let Some(desk) = &mut self.desk
            && let Some(pages) = kept.partition.take_ahead()
        {
            desk.give(place, Job::Populate(pages));
        }
        match applied {
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

    /// Goes on with what can wait of a partition by a step; false when there is nothing to do.
    fn tidy(&mut self, place: u16) -> bool {
        let kept = &mut self.kept[usize::from(place)];
        if kept.tidying_waits {
            return false;
        }
        match kept.partition.tidy_some() {
            Step::Done(worked) => worked,
            Step::Wait(pieces) => {
                kept.tidying_waits = true;
                self.load(place, pieces, Waits::Tidy(place));
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

    /// Goes on with an operation by a step.
    fn step(&mut self, mut operation: Operation) {
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
                    operation.what = What::Report(Box::new(report), 0);
                    Step::Done(None)
                }
            },
            What::Report(report, from) => {
                let kept = &self.kept[usize::from(operation.partition)];
                match kept.add_namespaces(report, *from) {
                    Some(next) => {
                        *from = next;
                        Step::Done(None)
                    }
                    None => {
                        let report = std::mem::take(&mut **report);
                        Step::Done(Some(Ok(Response::MemoryReport(report))))
                    }
                }
            }
        };
        match stepped {
            Step::Wait(pieces) => {
                let place = operation.partition;
                self.load(place, pieces, Waits::Operation(operation));
            }
            Step::Done(None) => self.operations.push_back(operation),
            Step::Done(Some(answer)) => {
                let answer = answer.unwrap_or_else(Response::Failed);
                self.answers.push((operation.asker, answer));
            }
        }
    }

    /// Takes in what a core asks, which a turn answers, this one or a later one.
    pub fn ask(&mut self, core: CoreIndex, correlation: u64, request: Request) {
        let asker = Asker { core, correlation };
        if let Err(error) = self.take_in(asker, request) {
            self.answers.push((asker, Response::Failed(error)));
        }
    }

    fn take_in(&mut self, asker: Asker, request: Request) -> Result<(), Error> {
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
            return Ok(());
        }
        let what = match request {
            Request::MemoryPut(_, items) => {
                if items.len() > ITEMS_MAX {
                    return Err(Error::TooLarge(format!("more than {ITEMS_MAX} items at once")));
                }
                self.check_changes()?;
                self.begin_changes(asker, partition, Arriving::Put(items.into_iter()));
                return Ok(());
            }
            Request::MemoryDelete(_, namespace, key) => {
                self.check_changes()?;
                self.begin_changes(asker, partition, Arriving::Delete(namespace, key));
                return Ok(());
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
        Ok(())
    }

    /// Goes on until [`TURN`] is over or nothing is left to do, and gives what is to be answered to
    /// `answer`: the core that asked, its correlation and the answer. False when there was nothing to do.
    #[inline]
    pub fn turn(&mut self, mut answer: impl FnMut(CoreIndex, u64, Response)) -> bool {
        if !self.has_work() && !self.has_departures() && !self.is_filling() {
            return false;
        }
        let begun = Instant::now();
        let mut worked = self.take_answers();
        self.read_again();
        let chores = CHORES_OF_A_PARTITION * self.kept.len() + CHORES_OF_ALL;
        let mut in_vain = 0;
        while in_vain < chores {
            let has_stepped = self.do_chore(self.next_chore);
            self.next_chore = (self.next_chore + 1) % chores;
            for (asker, response) in self.answers.drain(..) {
                answer(asker.core, asker.correlation, response);
                worked = true;
            }
            in_vain = if has_stepped { 0 } else { in_vain + 1 };
            worked |= has_stepped;
            if has_stepped && begun.elapsed() >= TURN {
                break;
            }
        }
        self.flush();
        worked
    }

    /// Does a step of one of the things that take turns; false when there was nothing to do.
    fn do_chore(&mut self, chore: usize) -> bool {
        let (place, of_partition) = (chore / CHORES_OF_A_PARTITION, chore % CHORES_OF_A_PARTITION);
        let is_one_of_all = place == self.kept.len();
        match (is_one_of_all, of_partition) {
            (false, 0) => {
                let worked = self.apply(place as u16);
                self.take_outcomes(place as u16);
                worked
            }
            (false, 1) => self.move_some(place as u16),
            (false, 2) => self.save(place as u16),
            (false, 3) => self.look(place as u16),
            (false, _) => self.tidy(place as u16),
            (true, 0) => self.record_some(),
            (true, _) => match self.operations.pop_front() {
                Some(operation) => {
                    self.step(operation);
                    true
                }
                None => false,
            },
        }
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

    /// Does what a core asks of pattern memory; a turn answers it, this one or a later one.
    pub(super) fn ask_memory(&mut self, core: CoreIndex, correlation: u64, request: Request) {
        match &mut self.memory {
            Some(memory) => memory.ask(core, correlation, request),
            None => {
                let response = Response::Failed(not_configured());
                self.kernel.answer(core, correlation, &response);
            }
        }
    }

    /// Goes on with pattern memory for a while; false when there was nothing to do.
    #[inline]
    pub(super) fn run_memory(&mut self) -> bool {
        let Self { memory, kernel, .. } = self;
        let Some(memory) = memory else { return false };
        memory.has_turned = memory
            .turn(|core, correlation, response| kernel.answer_beside(core, correlation, response));
        memory.has_turned
    }

    /// A turn passes without pattern memory.
    pub(super) fn rest_memory(&mut self) -> bool {
        if let Some(memory) = &mut self.memory {
            memory.has_turned = false;
        }
        false
    }

    /// Whether the last turn went on with pattern memory.
    #[inline]
    pub(super) fn memory_has_turned(&self) -> bool {
        self.memory.as_ref().is_some_and(|memory| memory.has_turned)
    }
}
