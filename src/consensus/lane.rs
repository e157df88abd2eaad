//! A shard's way to the log thread and back: a ring of blocks each way.
//!
//! Invariants worth naming
//! - A record is encoded once, into the block that carries it; blocks go round and are not
//!   allocated again.
//! - At most [`BLOCKS_UNDER_WAY`] blocks are out, and the log thread never waits for a shard: what
//!   the ring back has no room for waits at its own end.
//! - A block comes back after it was committed, or as lost when its reign is over; one with records
//!   that are asked for as soon as the engine has them.
//! - Blocks that are asked for are numbered in the order in which they leave, and each is the node's next
//!   request: so the names of the tasks in it are known before it leaves.

use super::{
    block::Block,
    news::{Claimed, Committed, Compacted, Foreign, News},
    place::{Place, Position},
    record::Record,
};
use crate::{
    runtime::{
        doorbell::Doorbell,
        ring::{Consumer, Producer, ring},
    },
    wire::{
        id::TaskId,
        names::{Crowd, Named, Naming},
    },
};
use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
};

/// Blocks of one shard that may be out at the same time.
pub const BLOCKS_UNDER_WAY: usize = 8;

/// What the log thread may have told a shard that has not heard it.
const TOLD_UNDER_WAY: usize = 64;

/// What the log thread tells all shards.
#[derive(Debug)]
pub(crate) struct Signals {
    pub has_room: AtomicBool,
    pub move_before: AtomicU64,
}

/// What the log thread tells a shard.
#[derive(Debug)]
pub(crate) enum Told {
    /// A block is committed.
    Committed(Block),
    /// A block of a reign that is over: what becomes of it is told as [`Told::Foreign`], if
    /// anything does.
    Lost(Block),
    /// The records of a block are asked for. Those that are committed are told as [`Told::Foreign`].
    Asked(Block),
    /// A block of somebody else is committed, or one that was asked for.
    Foreign(Foreign),
    /// The same beside those that are told anew, as [`News::Beside`].
    Beside(Foreign),
    /// All that was told anew was, as [`News::CaughtUp`].
    CaughtUp,
    /// The partition leads, in a reign that no other has the number of.
    Lead {
        /// The number.
        reign: u64,
    },
    /// Whoever leads says that entries are not needed, as [`News::Compacted`].
    Compacted(Compacted),
    /// Whoever leads says that things live, as [`News::Claimed`].
    Claimed(Claimed),
    /// A read that the shard asked for, as [`News::Read`].
    Read(u64),
    /// The partition follows.
    Follow {
        /// Its log was replaced: entries between may never be told.
        is_replaced: bool,
    },
}

/// The log thread's end of a lane.
pub(crate) struct LaneEnd {
    pub incoming: Consumer<Block>,
    outgoing: Producer<Told>,
    /// What the ring had no room for, oldest first.
    waiting: VecDeque<Told>,
    /// Wakes the shard.
    bell: Doorbell,
    crowd: Arc<AtomicU16>,
    answered: Arc<AtomicU64>,
}

impl LaneEnd {
    /// What the shard has answered to the last claim that it was asked about, and whether it is true.
    pub fn answered(&self) -> (u64, bool) {
        let answered = self.answered.load(Ordering::Acquire);
        (answered >> 1, answered & 1 == 1)
    }

    /// Nodes that take up much, as the shard last said.
    pub fn crowd(&self) -> Crowd {
        Crowd::from_bits(self.crowd.load(Ordering::Relaxed))
    }

    /// Tells the shard something, as soon as the ring has room.
    pub fn tell(&mut self, told: Told) {
        self.waiting.push_back(told);
    }

    /// Sends what the ring has room for, and wakes the shard for it.
    pub fn flush(&mut self) {
        while let Some(told) = self.waiting.pop_front() {
            if let Err(told) = self.outgoing.push(told) {
                self.waiting.push_front(told);
                break;
            }
        }
        if !self.outgoing.is_drained() {
            self.bell.ring_if_parked();
        }
    }

    /// Whether something waits for room in the ring.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Wakes the shard.
    pub fn wake(&self) {
        self.bell.ring_if_parked();
    }
}

/// The shard's end of a lane.
pub struct LaneLog {
    partition: u16,
    /// A block is sent before a record would make it longer than this.
    block_bytes: usize,
    /// No record may be longer than this.
    record_bytes_max: usize,
    filling: Block,
    /// Records that are asked for, whoever leads.
    asking: Block,
    /// What names their tasks, with the number of that block; `None` where nobody lies.
    naming: Option<Naming>,
    /// Closed blocks that found no room, oldest first.
    waiting: VecDeque<Block>,
    spare: Vec<Block>,
    under_way: usize,
    outgoing: Producer<Block>,
    returned: Consumer<Told>,
    reign: u64,
    /// Wakes the log thread.
    bell: Doorbell,
    signals: Arc<Signals>,
    last: Position,
    moved: u64,
    /// Nodes that take up much, as the log thread is told.
    crowd: Arc<AtomicU16>,
    /// The number of the last claim that was looked at, and in the lowest bit whether it is true.
    answered: Arc<AtomicU64>,
}

impl fmt::Debug for LaneLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, last, under_way, .. } = self;
        write!(
            formatter,
            "LaneLog {{ partition {partition}, last {last:?}, {under_way} under way }}"
        )
    }
}

/// What a lane needs to know of the log.
#[derive(Clone)]
pub(crate) struct LaneSettings {
    pub block_bytes: usize,
    pub record_bytes_max: usize,
    pub bell: Doorbell,
    pub signals: Arc<Signals>,
}

/// The two ends of a shard's lane; `naming` names what it asks for, where nodes may lie, and `shard_bell`
/// wakes the shard.
pub(crate) fn lane(
    shard: u16,
    settings: &LaneSettings,
    naming: Option<Naming>,
    shard_bell: Doorbell,
) -> (LaneLog, LaneEnd) {
    let (outgoing, incoming) = ring(BLOCKS_UNDER_WAY);
    let (told, returned) = ring(TOLD_UNDER_WAY);
    let LaneSettings { block_bytes, record_bytes_max, bell, signals } = settings.clone();
    let log = LaneLog {
        partition: shard,
        block_bytes,
        record_bytes_max,
        filling: Block::new(0),
        asking: Block::new(0),
        naming,
        waiting: VecDeque::new(),
        spare: Vec::with_capacity(BLOCKS_UNDER_WAY),
        under_way: 0,
        outgoing,
        returned,
        reign: 0,
        bell,
        signals,
        last: Position::default(),
        moved: 0,
        crowd: Arc::default(),
        answered: Arc::default(),
    };
    let end = LaneEnd {
        incoming,
        outgoing: told,
        waiting: VecDeque::new(),
        bell: shard_bell,
        crowd: log.crowd.clone(),
        answered: log.answered.clone(),
    };
    (log, end)
}

impl LaneLog {
    /// As [`TaskLog::append`](super::log::TaskLog::append).
    ///
    /// # Panics
    /// When the record does not fit into a segment: a configuration that allows such payloads is
    /// refused.
    #[inline]
    pub fn append(&mut self, record: Record<'_>) -> (Position, u32) {
        self.make_room(record.encoded_bytes());
        self.push(record)
    }

    /// As [`TaskLog::append_both`](super::log::TaskLog::append_both).
    ///
    /// # Panics
    /// When both together do not fit into a segment.
    pub fn append_both(&mut self, both: [Record<'_>; 2]) -> [(Position, u32); 2] {
        self.make_room(both.iter().map(Record::encoded_bytes).sum());
        both.map(|record| self.push(record))
    }

    /// As [`TaskLog::ask`](super::log::TaskLog::ask).
    ///
    /// # Panics
    /// As [`LaneLog::append`], and where nobody lies.
    pub fn ask(&mut self, record: Record<'_>) -> TaskId {
        let bytes = record.encoded_bytes();
        assert!(bytes <= self.record_bytes_max, "{bytes} bytes of records fit no segment");
        if !self.asking.is_empty() && self.asking.bytes().len() + bytes > self.block_bytes {
            self.close_asking();
            self.flush_closed();
        }
        let Naming { names, asker, next } = self.naming.expect("nobody asks where nobody lies");
        let partition = self.partition;
        let named = Named { asker, partition, request: next, place: self.asking.records() };
        let id = TaskId { partition, random: names.name(named) };
        self.asking.push(Position::default(), record.named(id));
        id
    }

    /// Closes the block that is being filled when so many bytes more make it too long.
    #[inline]
    fn make_room(&mut self, bytes: usize) {
        assert!(bytes <= self.record_bytes_max, "{bytes} bytes of records fit no segment");
        if !self.filling.is_empty() && self.filling.bytes().len() + bytes > self.block_bytes {
            self.close();
            self.flush_closed();
        }
    }

    #[inline]
    fn push(&mut self, record: Record<'_>) -> (Position, u32) {
        self.last.0 += 1;
        (self.last, self.filling.push(self.last, record))
    }

    /// The position of the last record that was appended.
    pub fn append_position(&self) -> Position {
        self.last
    }

    /// As [`TaskLog::read`](super::log::TaskLog::read); of several numbers that leave together only
    /// the last is told.
    pub fn read(&mut self, number: u64) {
        self.filling.read = number;
    }

    /// Whether the block that is being filled says anything.
    fn says_something(&self) -> bool {
        let Block { moved_before, read, .. } = self.filling;
        !self.filling.is_empty() || moved_before > 0 || read > 0
    }

    /// Whether the block of what is asked for says anything.
    fn asks_something(&self) -> bool {
        !self.asking.is_empty() || self.asking.cleared > 0
    }

    /// As [`TaskLog::crowd`](super::log::TaskLog::crowd).
    #[inline]
    pub fn crowd(&self, crowd: Crowd) {
        let bits = crowd.to_bits();
        if self.crowd.load(Ordering::Relaxed) != bits {
            self.crowd.store(bits, Ordering::Relaxed);
        }
    }

    /// As [`TaskLog::answer`](super::log::TaskLog::answer).
    pub fn answer(&mut self, number: u64, is_true: bool) {
        self.answered.store(number << 1 | u64::from(is_true), Ordering::Release);
        self.bell.ring_if_parked();
    }

    /// As [`TaskLog::cleared`](super::log::TaskLog::cleared).
    pub fn cleared(&mut self, index: u64) {
        self.asking.cleared = self.asking.cleared.max(index);
    }

    /// As [`TaskLog::flush`](super::log::TaskLog::flush).
    #[inline]
    pub fn flush(&mut self) {
        let has_something = self.says_something();
        if has_something && self.waiting.len() + self.under_way < BLOCKS_UNDER_WAY {
            self.close();
        }
        if self.asks_something() && self.waiting.len() + self.under_way < BLOCKS_UNDER_WAY {
            self.close_asking();
        }
        self.flush_closed();
    }

    /// Puts the block that is being filled behind those that wait, and begins another.
    fn close(&mut self) {
        let next = self.spare.pop().unwrap_or_else(|| Block::new(0));
        let mut block = std::mem::replace(&mut self.filling, next);
        block.reign = self.reign;
        self.waiting.push_back(block);
    }

    fn close_asking(&mut self) {
        if let Some(naming) = self.naming.as_mut().filter(|_| !self.asking.is_empty()) {
            naming.next += 1;
        }
        let next = self.spare.pop().unwrap_or_else(|| Block::new(0));
        let mut block = std::mem::replace(&mut self.asking, next);
        block.is_request = true;
        self.waiting.push_back(block);
    }

    fn flush_closed(&mut self) {
        let before = self.under_way;
        while self.under_way < BLOCKS_UNDER_WAY
            && let Some(block) = self.waiting.pop_front()
        {
            if let Err(block) = self.outgoing.push(block) {
                // The log thread has it in its ring still: fewer are under way than fit.
                unreachable!("the ring holds {BLOCKS_UNDER_WAY} blocks and refuses {block:?}");
            }
            self.under_way += 1;
        }
        if self.under_way > before {
            self.bell.ring_if_parked();
        }
    }

    /// As [`TaskLog::next_news`](super::log::TaskLog::next_news).
    #[inline]
    pub fn next_news(&mut self) -> Option<News> {
        loop {
            match self.returned.pop()? {
                Told::Committed(block) => {
                    let place = Place { generation: block.generation, offset: block.offset };
                    let committed = Committed { upto: block.last(), block: place };
                    let holds_records = !block.is_empty();
                    self.take_back(block);
                    if holds_records {
                        return Some(News::Committed(committed));
                    }
                }
                Told::Lost(block) | Told::Asked(block) => self.take_back(block),
                Told::Foreign(foreign) => return Some(News::Foreign(foreign)),
                Told::Beside(foreign) => return Some(News::Beside(foreign)),
                Told::CaughtUp => return Some(News::CaughtUp),
                Told::Compacted(compacted) => return Some(News::Compacted(compacted)),
                Told::Claimed(claimed) => return Some(News::Claimed(claimed)),
                Told::Read(number) => return Some(News::Read(number)),
                Told::Lead { reign } => {
                    self.reign = reign;
                    return Some(News::Lead);
                }
                Told::Follow { is_replaced } => {
                    self.forget();
                    return Some(News::Follow { is_replaced });
                }
            }
        }
    }

    fn take_back(&mut self, mut block: Block) {
        self.under_way -= 1;
        block.clear(self.block_bytes);
        if self.spare.len() < BLOCKS_UNDER_WAY {
            self.spare.push(block);
        }
    }

    /// Forgets what did not leave yet: its reign is over. What is asked for is asked of whoever leads.
    fn forget(&mut self) {
        (self.reign, self.moved) = (0, 0);
        self.filling.clear(self.block_bytes);
        self.waiting.retain(|block| block.is_request);
    }

    /// As [`TaskLog::has_news`](super::log::TaskLog::has_news).
    #[inline]
    pub fn has_news(&self) -> bool {
        !self.returned.is_empty()
    }

    /// As [`TaskLog::has_room`](super::log::TaskLog::has_room).
    #[inline]
    pub fn has_room(&self) -> bool {
        self.waiting.is_empty() && self.signals.has_room.load(Ordering::Relaxed)
    }

    /// As [`TaskLog::move_before`](super::log::TaskLog::move_before).
    #[inline]
    pub fn move_before(&self) -> u64 {
        let generation = self.signals.move_before.load(Ordering::Acquire);
        if generation > self.moved { generation } else { 0 }
    }

    /// As [`TaskLog::moved_before`](super::log::TaskLog::moved_before).
    pub fn moved_before(&mut self, generation: u64) {
        self.moved = self.moved.max(generation);
        self.filling.moved_before = self.moved;
    }

    /// As [`TaskLog::has_departures`](super::log::TaskLog::has_departures).
    #[inline]
    pub fn has_departures(&self) -> bool {
        !self.waiting.is_empty() || self.asks_something() || self.says_something()
    }
}
