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

use super::{
    block::Block,
    cluster::{Asked, Cluster},
    disk::Disk,
    format::{BLOCK_HEAD_BYTES, BlockHead, BlockKind},
    lane::{LaneEnd, Signals, Told},
    news::Foreign,
    place::Place,
    raft::{self, Event, Fetch, Kind, Outputs, Role, Stored, Write},
    record::Record,
    recovery::{encode_hard_state, point_bytes},
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
use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender},
    },
    time::{Duration, Instant},
};

/// The exit code of a process whose log cannot be written any more.
pub const EXIT_LOG_FAILED: i32 = 70;
/// After this long without a write the last group is sealed.
const SEAL_AFTER: Duration = Duration::from_millis(100);
/// How soon it looks again whether a shard has taken what it was told.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(1);
/// How long after a segment could not be made it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A partition's lane, and what of it is under way.
struct Lane {
    end: LaneEnd,
    /// The term that it leads in; 0 while it follows.
    reign: u64,
    /// What was proposed and is neither committed nor lost, by ticket.
    under_way: VecDeque<(u64, Proposed)>,
    /// A block that could not be proposed yet.
    carried: Option<Block>,
    /// Entries up to this index were told to the shard.
    fed: u64,
    /// Entries up to this index are committed.
    committed: u64,
    /// Its shard has appended again what lived in generations below this.
    moved: u64,
    /// A compaction is proposed and not committed.
    is_compacting: bool,
}

/// What was proposed.
enum Proposed {
    /// A shard's block.
    Block(Block),
    /// A record of this thread.
    Compaction,
}

/// What the log thread is made of.
pub(super) struct Parts<D> {
    pub cluster: Arc<Cluster>,
    pub asked: Receiver<Asked>,
    pub writer: Writer<D>,
    /// Reads what was written.
    pub disk: D,
    pub raft: raft::Driver,
    pub lanes: Vec<LaneEnd>,
    /// Up to which entry each partition was told at the start.
    pub told: Vec<u64>,
    pub bell: Doorbell,
    pub stop: Arc<AtomicBool>,
    pub signals: Arc<Signals>,
    pub jobs: Sender<Job>,
    pub results: Receiver<io::Result<()>>,
}

/// The log thread's state.
pub(super) struct Keeper<D> {
    cluster: Arc<Cluster>,
    asked: Receiver<Asked>,
    writer: Writer<D>,
    disk: D,
    raft: raft::Driver,
    outputs: Outputs,
    lanes: Vec<Lane>,
    last_ticket: u64,
    bell: Doorbell,
    stop: Arc<AtomicBool>,
    signals: Arc<Signals>,
    jobs: Sender<Job>,
    results: Receiver<io::Result<()>>,
    began: Instant,
    wrote_at: Instant,
    retry_at: Option<Instant>,
}

impl<D: Disk> Keeper<D> {
    /// A keeper of these parts.
    pub fn new(parts: Parts<D>) -> Self {
        let Parts { cluster, asked, writer, disk, raft, lanes, told, .. } = parts;
        let Parts { bell, stop, signals, jobs, results, .. } = parts;
        let lane = |(partition, (end, told)): (PartitionIndex, (LaneEnd, u64))| {
            let point = raft.group(partition).map_or(0, |group| group.point().index);
            let fed = told.max(point);
            Lane {
                end,
                reign: 0,
                under_way: VecDeque::new(),
                carried: None,
                fed,
                committed: fed,
                moved: 0,
                is_compacting: false,
            }
        };
        let lanes = (0..).zip(lanes.into_iter().zip(told)).map(lane).collect();
        Self {
            cluster,
            asked,
            writer,
            disk,
            raft,
            outputs: Outputs::default(),
            lanes,
            last_ticket: 0,
            bell,
            stop,
            signals,
            jobs,
            results,
            began: Instant::now(),
            wrote_at: Instant::now(),
            retry_at: None,
        }
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
        // What goes with entries is in the newest segment before anything is told.
        self.raft.restate();
        loop {
            self.take_results();
            self.give_out_work();
            self.tell_shards();
            let is_last = self.stop.load(Ordering::Acquire);
            self.raft.advance(self.began.elapsed().as_millis() as u64);
            self.take_blocks();
            let went_on = self.round()?;
            self.feed()?;
            self.clean()?;
            self.lanes.iter_mut().for_each(|lane| lane.end.flush());
            if went_on {
                continue;
            }
            if self.writer.needs_announcement() {
                self.writer.announce()?;
            } else if is_last && self.lanes.iter().all(Lane::is_quiet) {
                return if self.writer.needs_seal() { self.writer.seal() } else { Ok(()) };
            } else {
                self.rest()?;
            }
        }
    }

    /// Proposes what the shards sent.
    fn take_blocks(&mut self) {
        for (partition, lane) in (0..).zip(&mut self.lanes) {
            while let Some(block) = lane.carried.take().or_else(|| lane.end.incoming.pop()) {
                if block.reign != lane.reign || lane.reign == 0 {
                    lane.end.tell(Told::Lost(block));
                    continue;
                }
                lane.moved = lane.moved.max(block.moved_before);
                if block.is_empty() {
                    lane.end.tell(Told::Committed(block));
                    continue;
                }
                let ticket = self.last_ticket + 1;
                let data = Bytes::copy_from_slice(block.bytes());
                match self.raft.propose(partition, data, ticket) {
                    Ok(()) => {
                        self.last_ticket = ticket;
                        lane.under_way.push_back((ticket, Proposed::Block(block)));
                    }
                    Err(raft::Refused::Busy) => {
                        lane.carried = Some(block);
                        break;
                    }
                    Err(raft::Refused::NotLeader { .. }) => lane.end.tell(Told::Lost(block)),
                }
            }
        }
    }

    /// Does what the groups ask for; false when that was nothing.
    fn round(&mut self) -> Result<bool, Fatal> {
        if !self.raft.has_ready() {
            return Ok(false);
        }
        let mut outputs = std::mem::take(&mut self.outputs);
        self.raft.take_ready(&mut outputs);
        for fetch in outputs.fetches.drain(..) {
            self.fetch(&fetch);
        }
        if !outputs.writes.is_empty() {
            self.write(&outputs.writes)?;
            self.raft.persisted(outputs.batch);
        }
        for (partition, event) in outputs.events.drain(..) {
            self.act(partition, event)?;
        }
        outputs.clear();
        self.outputs = outputs;
        Ok(true)
    }

    fn write(&mut self, writes: &[(PartitionIndex, Write)]) -> Result<(), Fatal> {
        for (partition, write) in writes {
            let partition = *partition;
            match write {
                Write::Entry { term, index, kind, data } => {
                    let kind = match kind {
                        Kind::Normal => BlockKind::Records,
                        Kind::Change => BlockKind::Change,
                    };
                    let head = BlockHead::new(kind, partition, *term, *index, data);
                    let place = self.add(&head, data)?;
                    self.raft.placed(partition, *index, *term, place);
                }
                Write::HardState(state) => {
                    let body = encode_hard_state(*state);
                    self.add(&BlockHead::new(BlockKind::HardState, partition, 0, 0, &body), &body)?;
                }
                Write::Compacted(point) => {
                    let body = point_bytes(point);
                    self.add(&BlockHead::new(BlockKind::Compacted, partition, 0, 0, &body), &body)?;
                }
                Write::Installed(point) => {
                    let body = point_bytes(point);
                    self.add(&BlockHead::new(BlockKind::Installed, partition, 0, 0, &body), &body)?;
                }
            }
        }
        self.writer.write()?;
        self.wrote_at = Instant::now();
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
                let _ = self.bell.wait(Some(LOOK_FOR_ROOM));
            }
            self.bell.parking().awake();
        }
    }

    fn act(&mut self, partition: PartitionIndex, event: Event) -> Result<(), Fatal> {
        let lane = &mut self.lanes[usize::from(partition)];
        match event {
            Event::Committed { index, ticket: Some(ticket), place, .. } => {
                (lane.fed, lane.committed) = (index, index);
                match lane.proposed(ticket) {
                    Proposed::Block(mut block) => {
                        (block.generation, block.offset) = (place.generation, place.offset);
                        lane.end.tell(Told::Committed(block));
                    }
                    Proposed::Compaction => {
                        lane.is_compacting = false;
                        let body = self.read(partition, index)?;
                        self.compact(partition, &body);
                    }
                }
            }
            Event::Committed { index, data, .. } => {
                lane.committed = index;
                let is_next = lane.fed + 1 == index && !lane.end.is_waiting();
                if let Some(data) = data.filter(|_| is_next) {
                    self.feed_one(partition, index, data);
                }
            }
            Event::Lost { ticket } => match lane.proposed(ticket) {
                Proposed::Block(block) => lane.end.tell(Told::Lost(block)),
                Proposed::Compaction => lane.is_compacting = false,
            },
            Event::Role(Role::Leader { term }) => {
                lane.reign = term;
                self.cluster.leaders.set(partition, Some(self.cluster.leaders.me()));
                // Everything before was committed before, and the shard hears of it first.
                while self.lanes[usize::from(partition)].is_behind() {
                    self.feed_next(partition)?;
                }
                self.lanes[usize::from(partition)].end.tell(Told::Lead { reign: term });
            }
            Event::Role(Role::Follower { leader }) => {
                self.cluster.leaders.set(partition, leader);
                if lane.reign > 0 {
                    let point = self.raft.group(partition).map_or(0, |group| group.point().index);
                    lane.begin_again(point);
                }
            }
            Event::Installed { index } => {
                lane.committed = index;
                lane.begin_again(index);
            }
            Event::Membership(_) | Event::Read { .. } | Event::ReadLost { .. } => {}
        }
        Ok(())
    }

    /// Tells shards of committed entries that they were not told of, as fast as they take them.
    fn feed(&mut self) -> Result<(), Fatal> {
        for partition in 0..self.lanes.len() {
            while self.lanes[partition].is_behind() && !self.lanes[partition].end.is_waiting() {
                self.feed_next(partition as PartitionIndex)?;
                self.lanes[partition].end.flush();
            }
        }
        Ok(())
    }

    fn feed_next(&mut self, partition: PartitionIndex) -> Result<(), Fatal> {
        let index = self.lanes[usize::from(partition)].fed + 1;
        let body = self.read(partition, index)?;
        self.feed_one(partition, index, body);
        Ok(())
    }

    fn feed_one(&mut self, partition: PartitionIndex, index: u64, body: Bytes) {
        let (kind, stored) = self.stored(partition, index);
        self.lanes[usize::from(partition)].fed = index;
        if kind == Kind::Normal && !body.is_empty() && !self.compact(partition, &body) {
            let foreign = Foreign::new(body, stored.place);
            self.lanes[usize::from(partition)].end.tell(Told::Foreign(foreign));
        }
    }

    /// What is known of an entry that is committed and not compacted.
    fn stored(&self, partition: PartitionIndex, index: u64) -> (Kind, Stored) {
        let stored = self.raft.group(partition).and_then(|group| group.stored(index));
        stored.expect("what is committed and not compacted is stored")
    }

    /// Forgets the entries that a committed record says are not needed; whether it is one.
    fn compact(&mut self, partition: PartitionIndex, body: &[u8]) -> bool {
        match Record::decode(body) {
            Ok((Record::Compacted { index, .. }, _)) => {
                self.raft.compact(partition, index);
                true
            }
            _ => false,
        }
    }

    /// The body of an entry, from the disk.
    fn read(&mut self, partition: PartitionIndex, index: u64) -> Result<Bytes, Fatal> {
        let (_, stored) = self.stored(partition, index);
        let body = self.read_stored(stored.place, stored.bytes);
        body.map_err(|source| Fatal::new("an entry of the log cannot be read", source))
    }

    fn read_stored(&mut self, place: Place, bytes: u32) -> io::Result<Bytes> {
        let segment = self.writer.directory().segment(place.generation);
        let segment = segment.ok_or(io::ErrorKind::NotFound)?;
        let mut body = vec![0; bytes as usize];
        let offset = u64::from(place.offset) + BLOCK_HEAD_BYTES as u64;
        self.disk.read(segment, offset, &mut body)?;
        Ok(body.into())
    }

    fn fetch(&mut self, fetch: &Fetch) {
        let data = fetch.entries.iter().map(|entry| self.read_stored(entry.place, entry.bytes));
        let data: io::Result<Vec<Bytes>> = data.collect();
        if let Err(error) = &data {
            tracing::error!(%error, "entries for a follower cannot be read");
        }
        self.raft.fetched(fetch.partition, fetch.id, data.ok());
    }

    /// Compacts the partitions' logs and frees segments, when the writer asks for it.
    fn clean(&mut self) -> Result<(), Fatal> {
        let target = self.writer.move_before();
        if target == 0 {
            return Ok(());
        }
        for partition in 0..self.lanes.len() {
            self.propose_compaction(partition as PartitionIndex, target);
        }
        let begins_behind = |partition: usize| {
            let group = self.raft.group(partition as PartitionIndex);
            let first = group.and_then(|group| group.stored(group.point().index + 1));
            first.is_none_or(|(_, stored)| stored.place.generation >= target)
        };
        if (0..self.lanes.len()).all(begins_behind) {
            // Points and hard states must not lie in what is freed.
            self.raft.restate();
            self.round()?;
            self.writer.release(target);
        }
        Ok(())
    }

    fn propose_compaction(&mut self, partition: PartitionIndex, target: u64) {
        let lane = &mut self.lanes[usize::from(partition)];
        if lane.reign == 0 || lane.is_compacting || lane.moved < target {
            return;
        }
        let Some(group) = self.raft.group(partition) else { return };
        let begin = group.point().index;
        let is_old = |index: u64| {
            group.stored(index).is_some_and(|(_, stored)| stored.place.generation < target)
        };
        let mut index = begin;
        while index < lane.fed && is_old(index + 1) {
            index += 1;
        }
        if index == begin {
            return;
        }
        let mut data = Vec::new();
        Record::Compacted { partition, index }.encode(&mut data);
        let ticket = self.last_ticket + 1;
        if self.raft.propose(partition, data.into(), ticket).is_ok() {
            self.last_ticket = ticket;
            lane.is_compacting = true;
            lane.under_way.push_back((ticket, Proposed::Compaction));
        }
    }

    fn tell_shards(&self) {
        self.signals.has_room.store(self.writer.has_room(), Ordering::Relaxed);
        let move_before = self.writer.move_before();
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
                self.retry_at = Some(Instant::now() + RETRY_AFTER);
            } else if self.retry_at.take().is_some() {
                tracing::info!("the log has room again");
            }
            self.writer.job_done(&result);
        }
        heard
    }

    fn give_out_work(&mut self) {
        let is_due = self.retry_at.is_none_or(|at| at <= Instant::now());
        if is_due && let Some(job) = self.writer.next_job() {
            // The helper ends only after this thread.
            let _ = self.jobs.send(job);
        }
    }

    /// Sleeps until there is work, or seals the log after a while without any.
    fn rest(&mut self) -> Result<(), Fatal> {
        let seal_in =
            self.writer.needs_seal().then(|| SEAL_AFTER.saturating_sub(self.wrote_at.elapsed()));
        if seal_in == Some(Duration::ZERO) {
            return self.writer.seal();
        }
        let retry_in = self.retry_at.map(|at| at.saturating_duration_since(Instant::now()));
        let is_waiting = self.lanes.iter().any(|lane| lane.end.is_waiting());
        let room_in = is_waiting.then_some(LOOK_FOR_ROOM);
        let tick_in = self.raft.next_tick_ms().map(|at| {
            (self.began + Duration::from_millis(at)).saturating_duration_since(Instant::now())
        });
        let limit = [seal_in, retry_in, room_in, tick_in].into_iter().flatten().min();
        self.bell.parking().prepare();
        if !self.has_work() {
            // A bell that cannot be heard is noticed at the next look.
            let _ = self.bell.wait(limit);
        }
        self.bell.parking().awake();
        Ok(())
    }

    /// The last look before sleeping.
    fn has_work(&mut self) -> bool {
        let blocks_wait = |lane: &Lane| lane.carried.is_none() && !lane.end.incoming.is_empty();
        self.take_results()
            || self.stop.load(Ordering::Acquire)
            || self.lanes.iter().any(blocks_wait)
    }
}

impl Lane {
    /// Takes out what was proposed first, which has this ticket.
    fn proposed(&mut self, ticket: u64) -> Proposed {
        let (first, proposed) = self.under_way.pop_front().expect("each ticket is told once");
        assert_eq!(first, ticket, "the fates of proposals are told in their order");
        proposed
    }

    /// Whether there are committed entries that its shard was not told of.
    fn is_behind(&self) -> bool {
        self.fed < self.committed
    }

    /// Its shard begins again behind an entry.
    fn begin_again(&mut self, index: u64) {
        self.reign = 0;
        self.moved = 0;
        self.fed = index;
        self.end.tell(Told::Follow);
    }

    /// Whether nothing of it is under way.
    fn is_quiet(&self) -> bool {
        self.under_way.is_empty() && self.carried.is_none() && self.end.incoming.is_empty()
    }
}
