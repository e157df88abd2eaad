//! The log thread's loop: blocks of the lanes become entries, entries are written, what is
//! committed is told.
//!
//! It mostly sleeps, in a write or on its doorbell. Whatever arrives while one group is written is
//! the next group.
//!
//! Invariants worth naming
//! - A partition is told of each committed entry once, in order: of its own as blocks that come
//!   back, of those of others while it follows.
//! - A segment is freed only after every partition's log begins behind it, and what goes with
//!   entries was written again.

mod claims;
mod control;
mod lane;
mod owed;
mod removal;
mod telling;
mod unreadable;

use self::{
    claims::{Claim, Claims},
    lane::{Held, Lane, Proposed},
    unreadable::Unreadable,
};
use super::{
    book::Book,
    cluster::{Answer, Asked, Cluster},
    disk::Disk,
    engine::{Block as LogBlock, Engine, Outputs, Refused, ToBlock},
    format::BlockHead,
    lane::{LaneEnd, Signals, Told},
    links::{Heard, Links},
    peers::NodeId,
    place::Place,
    raft,
    writer::{Fatal, Job, Writer},
};
use crate::{
    runtime::{
        disk::{self, Placed},
        doorbell::Doorbell,
    },
    wire::id::PartitionIndex,
};
use bytes::Bytes;
use futures_channel::oneshot;
use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender},
    },
    time::{Duration, Instant},
};

pub use owed::Pace;

/// The exit code of a process whose log cannot be written any more.
pub const EXIT_LOG_FAILED: i32 = 70;
/// After this long without a write the last group is sealed.
const SEAL_AFTER: Duration = Duration::from_millis(100);
/// How soon it looks again whether a shard has taken what it was told.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(1);
/// A log that is to end waits so long for others to confirm what it has proposed.
const RESIGN_AFTER: Duration = Duration::from_secs(2);
/// And so long for all that is under way: after it the log ends as a node does that is killed, but sealed.
const END_AFTER: Duration = Duration::from_secs(5);
/// How long after a segment could not be made it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the log thread is made of.
pub(super) struct Parts<D, L, E = raft::Driver> {
    pub cluster: Arc<Cluster>,
    pub asked: Receiver<Asked>,
    pub links: L,
    pub book: Book,
    /// Where the book is kept.
    pub book_file: Option<PathBuf>,
    pub writer: Writer<D>,
    /// Reads what was written.
    pub disk: D,
    pub engine: E,
    pub lanes: Vec<LaneEnd>,
    /// Up to which entry each partition was told at the start.
    pub told: Vec<u64>,
    pub bell: Doorbell,
    pub stop: Arc<AtomicBool>,
    pub signals: Arc<Signals>,
    pub jobs: Sender<Job>,
    pub results: Receiver<io::Result<()>>,
    pub pace: Pace,
    /// The time of its beginning.
    pub now: Instant,
}

/// The log thread's state.
pub struct Keeper<D, L, E: Engine = raft::Driver> {
    cluster: Arc<Cluster>,
    asked: Receiver<Asked>,
    links: L,
    book: Book,
    book_file: Option<PathBuf>,
    /// Nodes that are members of any partition.
    members: BTreeSet<NodeId>,
    status_at: Option<Instant>,
    /// When leaders are told again what this node wants of them.
    want_at: Instant,
    changes: Vec<control::Changing>,
    /// Who waits for records that they asked for, by ticket.
    requests: HashMap<u64, oneshot::Sender<Answer>>,
    writer: Writer<D>,
    disk: D,
    engine: E,
    outputs: Outputs<E::Message, E::Write>,
    lanes: Vec<Lane>,
    unreadable: Unreadable,
    /// What others claim of each partition.
    claims: Vec<Claims<E::Message>>,
    last_ticket: u64,
    bell: Doorbell,
    stop: Arc<AtomicBool>,
    signals: Arc<Signals>,
    jobs: Sender<Job>,
    results: Receiver<io::Result<()>>,
    pace: Pace,
    began: Instant,
    /// The time of this turn.
    now: Instant,
    wrote_at: Instant,
    retry_at: Option<Instant>,
    /// Since when it is to end.
    ending_since: Option<Instant>,
    /// Whether it has given up what it leads since.
    has_resigned: bool,
}

/// What comes after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Another one, at once.
    Turn,
    /// Another one when something arrives, or so long after this one.
    Rest(Option<Duration>),
    /// None: the log is sealed.
    End,
}

impl<D, L, E: Engine> Keeper<D, L, E> {
    /// The groups of all partitions.
    pub fn engine(&self) -> &E {
        &self.engine
    }
}

impl<D: Disk, L: Links<E::Message>, E: Engine> Keeper<D, L, E> {
    /// A keeper of these parts.
    pub(super) fn new(parts: Parts<D, L, E>) -> Self {
        let Parts { cluster, asked, links, book, book_file, writer, disk, .. } = parts;
        let Parts { engine, lanes, told, bell, stop, signals, jobs, results, .. } = parts;
        let Parts { pace, now, .. } = parts;
        let lane = |(partition, (end, told)): (PartitionIndex, (LaneEnd, u64))| {
            Lane::new(end, told.max(engine.begins_behind(partition)), now)
        };
        let lanes: Vec<_> = (0..).zip(lanes.into_iter().zip(told)).map(lane).collect();
        let claims = lanes.iter().map(|_| Claims::default()).collect();
        let mut keeper = Self {
            cluster,
            asked,
            links,
            book,
            book_file,
            members: BTreeSet::new(),
            status_at: None,
            want_at: now,
            changes: Vec::new(),
            requests: HashMap::new(),
            writer,
            disk,
            engine,
            outputs: Outputs::default(),
            lanes,
            unreadable: Unreadable::new(now),
            claims,
            last_ticket: 0,
            bell,
            stop,
            signals,
            jobs,
            results,
            pace,
            began: now,
            now,
            wrote_at: now,
            retry_at: None,
            ending_since: None,
            has_resigned: false,
        };
        // What goes with entries is in the newest segment before anything is told.
        keeper.engine.restate();
        keeper.meet_all();
        keeper.meet_members();
        keeper
    }

    /// Runs until it is told to stop; a log that fails ends the process.
    pub fn run(mut self, placed: Placed) {
        if !placed.realtime {
            tracing::warn!(
                "the log thread may not have a real-time priority: busy cores delay each write by \
                 milliseconds (run with CAP_SYS_NICE, or set log.realtime = \"off\")"
            );
        }
        if !placed.pinned {
            tracing::warn!("the log thread cannot keep to its processor");
        }
        if let Err(fatal) = self.serve() {
            // Written without the log of messages, whose writer may wait for a thread that is
            // stopped here.
            eprintln!("coreflow: fatal: {fatal}; nothing after it was acknowledged");
            disk::exit_now(EXIT_LOG_FAILED);
        }
    }

    fn serve(&mut self) -> Result<(), Fatal> {
        loop {
            match self.turn(Instant::now())? {
                After::Turn => {}
                After::Rest(limit) => self.rest(limit),
                After::End => return Ok(()),
            }
        }
    }

    /// Does what there is to do at a time.
    ///
    /// # Errors
    /// The log cannot be written or read any more: nothing may be told after that.
    pub fn turn(&mut self, now: Instant) -> Result<After, Fatal> {
        self.now = now;
        self.take_results();
        self.give_out_work();
        self.tell_shards();
        self.hear();
        self.answer_changes();
        self.do_what_is_asked();
        let is_last = self.stop.load(Ordering::Acquire);
        self.engine.advance(now.saturating_duration_since(self.began).as_millis() as u64);
        self.take_blocks();
        let mut went_on = self.round()?;
        self.answer_requests();
        went_on |= self.feed()?;
        self.clean()?;
        self.tell_status();
        self.lanes.iter_mut().for_each(|lane| lane.end.flush());
        if is_last && self.is_ending_for(END_AFTER) {
            tracing::warn!(
                "the log ends before all that is under way is confirmed: it may go on after the next start, or not"
            );
            return self.end();
        }
        if went_on {
            return Ok(After::Turn);
        }
        // Handshakes, keepalives, and what a full socket left.
        self.links.flush(now);
        if self.writer.needs_announcement() {
            self.writer.announce()?;
            return Ok(After::Turn);
        }
        let is_due = self.seal_in().is_some_and(|wait| wait.is_zero());
        let is_quiet = self.lanes.iter().all(Lane::is_quiet);
        if is_last && is_quiet {
            return self.end();
        }
        if is_last && !self.has_resigned && self.is_ending_for(RESIGN_AFTER) {
            self.has_resigned = true;
            self.engine.resign();
        }
        if is_due {
            self.writer.seal()?;
            return Ok(After::Turn);
        }
        Ok(After::Rest(self.limit()))
    }

    /// Whether the log that is to end has waited for what is under way for so long.
    fn is_ending_for(&mut self, limit: Duration) -> bool {
        let since = *self.ending_since.get_or_insert(self.now);
        self.now.saturating_duration_since(since) >= limit
    }

    /// Seals the log.
    fn end(&mut self) -> Result<After, Fatal> {
        if self.writer.needs_seal() {
            self.writer.seal()?;
        }
        Ok(After::End)
    }

    /// Takes what other nodes sent.
    fn hear(&mut self) {
        if E::NODES_MAY_LIE {
            for (partition, lane) in (0..).zip(&self.lanes) {
                self.engine.crowd(partition, lane.end.crowd());
            }
            self.heed_claims();
        }
        let now = self.now;
        let Self { links, engine, lanes, claims, .. } = self;
        let (mut connected, mut books, mut notices) = (Vec::new(), Vec::new(), Vec::new());
        links.receive(now, &mut |heard| match heard {
            Heard::Message(partition, from, message) => {
                let place = usize::from(partition);
                match (engine.claims(partition, from, &message), lanes.get_mut(place)) {
                    (Err(why), _) => {
                        tracing::debug!(partition, from, %why, "a message is dropped");
                        return;
                    }
                    (Ok(Some((behind, blocks))), Some(lane)) => {
                        claims[place].take(Claim::new(from, message, behind, blocks, now));
                        let known = lane.known();
                        claims[place].ask(&mut lane.end, known, now);
                        return;
                    }
                    (Ok(_), _) => {}
                }
                if let Err(why) = engine.step(partition, from, message) {
                    tracing::debug!(partition, from, %why, "a message is dropped");
                }
            }
            Heard::Book(book) => books.push(book),
            Heard::Notice(from, notice) => notices.push((from, notice)),
            Heard::Connected(node) => connected.push(node),
            Heard::Lost(node) => engine.unreachable(node),
        });
        for node in connected {
            self.links.send_book(node, &self.book);
        }
        for book in books {
            self.merge_book(&book);
        }
        notices.into_iter().for_each(|(from, notice)| self.take_notice(from, notice));
    }

    /// Proposes what the shards sent.
    fn take_blocks(&mut self) {
        let is_last = self.stop.load(Ordering::Acquire);
        for (partition, lane) in (0..).zip(&mut self.lanes) {
            while let Some(block) = lane.carried.take().or_else(|| lane.end.incoming.pop()) {
                if block.is_request && block.cleared > 0 {
                    // It may have been told its log anew since it said so.
                    self.engine.compact(partition, block.cleared.min(lane.fed));
                }
                if block.is_request && (block.is_empty() || lane.is_mute) {
                    lane.end.tell(Told::Asked(block));
                    continue;
                }
                if block.is_request {
                    let ticket = self.last_ticket + 1;
                    let data = Bytes::copy_from_slice(block.bytes());
                    // Those who wait for what it asks are told nothing any more when this node stops.
                    if self.engine.request(partition, data, ticket).is_err() {
                        if !is_last {
                            lane.carried = Some(block);
                            break;
                        }
                        lane.is_mute = true;
                    }
                    self.last_ticket = ticket;
                    lane.end.tell(Told::Asked(block));
                    continue;
                }
                if block.reign != lane.reign || lane.reign == 0 {
                    lane.end.tell(Told::Lost(block));
                    continue;
                }
                lane.moved = lane.moved.max(block.moved_before);
                lane.read = lane.read.max(block.read);
                if block.is_empty() {
                    lane.end.tell(Told::Committed(block));
                    continue;
                }
                let ticket = self.last_ticket + 1;
                let data = Bytes::copy_from_slice(block.bytes());
                match self.engine.propose(partition, data, ticket) {
                    Ok(()) => {
                        self.last_ticket = ticket;
                        lane.under_way.push_back((ticket, Proposed::Block(block)));
                    }
                    Err(Refused::Busy) => {
                        lane.carried = Some(block);
                        break;
                    }
                    Err(Refused::NotLeader { .. }) => lane.end.tell(Told::Lost(block)),
                }
            }
            // One that is refused because others wait is asked for again; one whose reign is over
            // ends with it.
            if lane.read > 0 && self.engine.read(partition, lane.read).is_ok() {
                lane.read = 0;
            }
        }
    }

    /// Does what the groups ask for; false when that was nothing.
    fn round(&mut self) -> Result<bool, Fatal> {
        if !self.engine.has_ready() {
            return Ok(false);
        }
        let mut outputs = std::mem::take(&mut self.outputs);
        self.engine.take_ready(&mut outputs);
        for (partition, message) in outputs.messages.drain(..) {
            self.links.send(partition, &message);
        }
        for (partition, question) in outputs.questions.drain(..) {
            self.ask_for_membership(partition, question);
        }
        // On its way while this node writes.
        self.links.flush(self.now);
        for fetch in outputs.fetches.drain(..) {
            self.fetch(&fetch)?;
        }
        if !outputs.writes.is_empty() {
            self.write(&outputs.writes)?;
            self.engine.persisted(outputs.batch);
        }
        for (partition, event) in outputs.events.drain(..) {
            self.act(partition, event)?;
        }
        outputs.clear();
        self.outputs = outputs;
        Ok(true)
    }

    fn write(&mut self, writes: &[(PartitionIndex, E::Write)]) -> Result<(), Fatal> {
        for (partition, write) in writes {
            let LogBlock { kind, term, index, body } = write.to_block(*partition);
            let place = self.add(&BlockHead::new(kind, *partition, term, index, &body), &body)?;
            if kind.is_entry() {
                self.engine.placed(*partition, index, term, place);
            }
        }
        self.writer.write()?;
        self.wrote_at = self.now;
        Ok(())
    }

    /// Adds a block to what is written next. What does not fit is written first; where there is no
    /// segment, one is waited for: the log takes part in nothing meanwhile.
    fn add(&mut self, head: &BlockHead, body: &[u8]) -> Result<Place, Fatal> {
        loop {
            if let Some(place) = self.writer.offer(head, body)? {
                return Ok(place);
            }
            if self.writer.has_gathered() {
                self.writer.write()?;
                continue;
            }
            if self.stop.load(Ordering::Acquire) {
                return Err(Fatal::new("the log is full", io::ErrorKind::StorageFull.into()));
            }
            self.take_results();
            self.give_out_work();
            self.tell_shards();
            self.bell.parking().prepare();
            if !self.take_results() {
                // A segment that could not be made is tried again after a time, so time goes on.
                self.now = self.links.pause(LOOK_FOR_ROOM, &self.bell);
            }
            self.bell.parking().awake();
        }
    }

    fn tell_shards(&self) {
        self.signals.has_room.store(self.writer.has_room(), Ordering::Relaxed);
        let wanted = self.lanes.iter().map(|lane| lane.wanted).max().unwrap_or(0);
        let move_before = self.writer.move_before().max(wanted);
        if self.signals.move_before.swap(move_before, Ordering::AcqRel) < move_before {
            self.lanes.iter().for_each(|lane| lane.end.wake());
        }
    }

    /// Hears what the helper did; tells whether there was anything.
    fn take_results(&mut self) -> bool {
        let mut heard = false;
        while let Ok(result) = self.results.try_recv() {
            heard = true;
            if let Err(error) = &result {
                if self.retry_at.is_none() {
                    tracing::error!(
                        "a segment of the log cannot be made or removed: {error}; submissions are \
                         refused when the log is full, and it is tried again each second"
                    );
                }
                self.retry_at = Some(self.now + RETRY_AFTER);
            } else if self.retry_at.take().is_some() {
                tracing::info!("the log has room again");
            }
            self.writer.job_done(&result);
        }
        heard
    }

    fn give_out_work(&mut self) {
        let is_due = self.retry_at.is_none_or(|at| at <= self.now);
        if is_due && let Some(job) = self.writer.next_job() {
            // The helper ends only after this thread.
            let _ = self.jobs.send(job);
        }
    }

    /// When the log is to be sealed.
    fn seal_in(&self) -> Option<Duration> {
        let rested = self.now.saturating_duration_since(self.wrote_at);
        self.writer.needs_seal().then(|| SEAL_AFTER.saturating_sub(rested))
    }

    /// How long after this turn there is something to do, if nothing arrives.
    fn limit(&self) -> Option<Duration> {
        let until = |at: Instant| at.saturating_duration_since(self.now);
        let is_waiting = self.lanes.iter().any(|lane| lane.end.is_waiting());
        let room_in = is_waiting.then_some(LOOK_FOR_ROOM);
        let tick_in =
            self.engine.next_tick_ms().map(|at| until(self.began + Duration::from_millis(at)));
        let patience = if self.has_resigned { END_AFTER } else { RESIGN_AFTER };
        let end_in = self.ending_since.map(|since| until(since + patience));
        let all = [self.seal_in(), self.retry_at.map(until), room_in, tick_in, end_in];
        all.into_iter().flatten().min()
    }

    /// Sleeps until there is work.
    fn rest(&mut self, limit: Option<Duration>) {
        self.bell.parking().prepare();
        if !self.has_work() {
            self.links.wait(self.now, limit, &self.bell);
        }
        self.bell.parking().awake();
    }

    /// The last look before sleeping.
    fn has_work(&mut self) -> bool {
        let blocks_wait = |lane: &Lane| lane.carried.is_none() && !lane.end.incoming.is_empty();
        self.take_results()
            || self.ending_since.is_none() && self.stop.load(Ordering::Acquire)
            || self.lanes.iter().any(blocks_wait)
            || self
                .lanes
                .iter()
                .zip(&self.claims)
                .any(|(lane, claims)| claims.is_answered(&lane.end))
            || self.take_ask()
    }
}
