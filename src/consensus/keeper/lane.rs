//! A partition's lane as the log thread keeps it: what is under way of it, and what its shard was told.
//!
//! Invariants worth naming
//! - A shard is told of its own blocks, of those of others and that it may read in the order of the log: what
//!   comes too early is held back.
//! - Where nodes may lie, a shard that is told its log anew goes on with the table that it had, beside that: so
//!   what others say lives is looked at meanwhile, and nobody waits for the reading.

use super::removal::Doubting;
use crate::consensus::{
    block::Block,
    engine::Duty,
    lane::{LaneEnd, Told},
};
use std::{collections::VecDeque, time::Instant};

/// A partition's lane, and what of it is under way.
pub(super) struct Lane {
    pub end: LaneEnd,
    /// The term that its shard leads in; 0 while it follows.
    pub reign: u64,
    /// The term that it leads in, until its shard was told everything that was committed before.
    pub crowned: Option<u64>,
    /// What was proposed and is neither committed nor lost, by ticket.
    pub under_way: VecDeque<(u64, Proposed)>,
    /// A block that could not be proposed yet.
    pub carried: Option<Block>,
    /// Nothing is asked for any more: a block was not that would have had the next number.
    pub is_mute: bool,
    /// A read that could not be asked for yet; 0 for none.
    pub read: u64,
    /// Committed blocks of the shard, and reads, that entries before them hold back which the shard was not
    /// told of; each with its index.
    pub held: VecDeque<(u64, Held)>,
    /// Entries up to this index were told to the shard.
    pub fed: u64,
    /// The shard is told its log anew: its new table is of no use before it has read as much as the one that it
    /// had, or all that is committed where that one does not go on.
    pub is_anew: bool,
    /// Entries up to this index were told to the table that it had before, if it goes on with that.
    pub beside: Option<u64>,
    /// Entries up to this index are committed.
    pub committed: u64,
    /// Its shard has appended again what lived in generations below this.
    pub moved: u64,
    /// A follower wants the log to begin behind entries that lie below this generation here; 0
    /// for none.
    pub wanted: u64,
    /// What its leader owes, as its group was told.
    pub owed: Option<Duty>,
    /// Until then no other node's wish is heeded, where nodes may lie.
    pub heeds_at: Instant,
    /// A compaction is proposed and not committed.
    pub is_compacting: bool,
    /// Nodes that want to know whether they are members.
    pub doubts: VecDeque<Doubting>,
    pub last_doubt: u64,
}

/// What was proposed.
pub(super) enum Proposed {
    /// A shard's block.
    Block(Block),
    /// A record of this thread, of what is not needed.
    Compaction {
        /// The last entry of that.
        upto: u64,
    },
}

/// What a shard is told when it was told of the entries before.
pub(super) enum Held {
    /// Its block is committed, in this entry.
    Block(Block),
    /// It may read, behind this entry.
    Read(u64),
}

impl Lane {
    /// A lane whose shard was told everything up to an entry, which is committed.
    pub fn new(end: LaneEnd, fed: u64, now: Instant) -> Self {
        Self {
            end,
            reign: 0,
            crowned: None,
            under_way: VecDeque::new(),
            carried: None,
            is_mute: false,
            read: 0,
            held: VecDeque::new(),
            fed,
            is_anew: false,
            beside: None,
            committed: fed,
            moved: 0,
            wanted: 0,
            owed: None,
            heeds_at: now,
            is_compacting: false,
            doubts: VecDeque::new(),
            last_doubt: 0,
        }
    }

    /// Takes out what was proposed first, which has this ticket.
    pub fn proposed(&mut self, ticket: u64) -> Proposed {
        let (first, proposed) = self.under_way.pop_front().expect("each ticket is told once");
        assert_eq!(first, ticket, "the fates of proposals are told in their order");
        proposed
    }

    /// Whether there are committed entries that its shard was not told of.
    pub fn is_behind(&self) -> bool {
        self.fed < self.committed
    }

    /// The last entry before which its shard knows what lives.
    pub fn known(&self) -> u64 {
        self.beside.unwrap_or(self.fed)
    }

    /// The next entry that the table is to be told which the shard goes on with, beside those that it is told
    /// anew.
    pub fn next_beside(&self) -> Option<u64> {
        let next = self.beside? + 1;
        (next <= self.committed && !self.end.is_waiting()).then_some(next)
    }

    /// Tells its shard that it was told all anew, when it was.
    pub fn end_anew(&mut self) {
        // Where its log was replaced, what came with that is committed only after it began again.
        if self.is_anew && self.fed >= self.beside.unwrap_or(self.committed) {
            (self.is_anew, self.beside) = (false, None);
            self.end.tell(Told::CaughtUp);
        }
    }

    /// Its shard begins again behind an entry; `goes_on` with the table that it has, where nodes may lie.
    pub fn begin_again(&mut self, index: u64, is_replaced: bool, goes_on: bool) {
        if goes_on {
            self.beside = match self.is_anew {
                _ if is_replaced => None,
                true => self.beside,
                false => Some(self.fed),
            };
            self.is_anew = true;
        }
        (self.reign, self.crowned, self.read) = (0, None, 0);
        (self.moved, self.wanted) = (0, 0);
        self.fed = index;
        // What is held back is told as anybody's now, and nobody waits for a read.
        for (_, held) in std::mem::take(&mut self.held) {
            if let Held::Block(block) = held {
                self.end.tell(Told::Lost(block));
            }
        }
        self.end.tell(Told::Follow { is_replaced });
    }

    /// Whether nothing of it is under way.
    pub fn is_quiet(&self) -> bool {
        self.under_way.is_empty() && self.carried.is_none() && self.end.incoming.is_empty()
    }

    /// Tells its shard that its block is committed, or that it may read, if that comes next in the order
    /// of the log; whether it did.
    pub fn tell_held(&mut self) -> bool {
        let fed = self.fed;
        let is_next = |(index, held): &(u64, Held)| match held {
            Held::Block(_) => *index == fed + 1,
            Held::Read(_) => *index <= fed,
        };
        if !self.held.front().is_some_and(is_next) {
            return false;
        }
        match self.held.pop_front() {
            Some((index, Held::Block(block))) => {
                self.fed = index;
                self.end.tell(Told::Committed(block));
                true
            }
            Some((_, Held::Read(context))) => {
                self.end.tell(Told::Read(context));
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        consensus::{
            Foreign, News, Place, Record,
            lane::{LaneLog, LaneSettings, Signals, lane},
        },
        runtime::doorbell::Doorbell,
        wire::id::TaskId,
    };
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    };

    /// A shard and its lane, which was told everything up to entry 3.
    fn ends() -> (LaneLog, Lane) {
        let signals = Signals { has_room: AtomicBool::new(true), move_before: AtomicU64::new(0) };
        let bell = Doorbell::new().expect("there are descriptors");
        let (block_bytes, record_bytes_max, signals) = (1000, 5000, Arc::new(signals));
        let settings = LaneSettings { block_bytes, record_bytes_max, bell: bell.clone(), signals };
        let (log, end) = lane(3, &settings, None, bell);
        (log, Lane::new(end, 3, Instant::now()))
    }

    /// A block of the shard, which proposes it.
    fn block(log: &mut LaneLog, lane: &mut Lane) -> Block {
        log.append(Record::Requeued { id: TaskId { partition: 3, random: 1 } });
        log.flush();
        lane.end.incoming.pop().expect("it left")
    }

    /// What the shard was told, each by a letter.
    fn told(log: &mut LaneLog, lane: &mut Lane) -> String {
        lane.end.flush();
        let letter = |news| match news {
            News::Committed(_) => 'c',
            News::Foreign(_) => 'f',
            News::Read(_) => 'r',
            News::Follow { .. } => 'F',
            news => panic!("{news:?}"),
        };
        std::iter::from_fn(|| log.next_news()).map(letter).collect()
    }

    /// The shard is told of an entry of somebody else.
    fn feed(lane: &mut Lane, index: u64) {
        assert_eq!(lane.fed + 1, index);
        lane.fed = index;
        lane.end.tell(Told::Foreign(Foreign::new(Vec::new().into(), Place::default())));
    }

    #[test]
    fn what_is_held_back_is_told_in_the_order_of_the_log() {
        let (mut log, mut lane) = ends();
        lane.committed = 7;
        // Entries 4 and 6 are of others, 5 and 7 its own; it may read behind 5, and behind 7.
        let [first, second] = [block(&mut log, &mut lane), block(&mut log, &mut lane)];
        lane.held.push_back((5, Held::Block(first)));
        lane.held.push_back((5, Held::Read(1)));
        lane.held.push_back((7, Held::Block(second)));
        lane.held.push_back((7, Held::Read(2)));
        assert!(!lane.tell_held() && lane.is_behind(), "entry 4 comes before");
        feed(&mut lane, 4);
        assert!(lane.tell_held());
        assert_eq!(lane.fed, 5);
        assert!(lane.tell_held(), "what it reads is as new as its block");
        assert!(!lane.tell_held(), "entry 6 comes before");
        assert_eq!(told(&mut log, &mut lane), "fcr");
        feed(&mut lane, 6);
        assert!(lane.tell_held() && lane.tell_held() && !lane.tell_held());
        assert_eq!(told(&mut log, &mut lane), "fcr");
        assert!(!lane.is_behind() && lane.held.is_empty());
    }

    #[test]
    fn a_read_waits_for_the_entries_before_it_and_for_no_other() {
        let (mut log, mut lane) = ends();
        lane.held.push_back((3, Held::Read(1)));
        assert!(lane.tell_held(), "all before was told");
        lane.held.push_back((4, Held::Read(2)));
        assert!(!lane.tell_held());
        feed(&mut lane, 4);
        feed(&mut lane, 5);
        assert!(lane.tell_held());
        assert_eq!(told(&mut log, &mut lane), "rffr");
    }

    #[test]
    fn what_is_held_back_when_a_shard_begins_again_is_lost_and_comes_as_anybodys() {
        let (mut log, mut lane) = ends();
        lane.committed = 5;
        let own = block(&mut log, &mut lane);
        lane.held.push_back((5, Held::Block(own)));
        lane.held.push_back((5, Held::Read(1)));
        lane.begin_again(1, false, false);
        assert!(lane.held.is_empty() && lane.fed == 1);
        assert!(!lane.tell_held(), "nobody waits for the read");
        (2..=5).for_each(|index| feed(&mut lane, index));
        assert_eq!(told(&mut log, &mut lane), "Fffff");
    }

    #[test]
    fn a_shard_that_is_told_its_log_anew_is_told_what_is_new_beside_that() {
        let (mut log, mut lane) = ends();
        lane.committed = 5;
        lane.begin_again(0, false, true);
        lane.end.flush();
        assert_eq!((lane.known(), lane.next_beside()), (3, Some(4)));
        lane.beside = Some(4);
        feed(&mut lane, 1);
        lane.end_anew();
        // It ceases to lead again before it has read all: the table before goes on.
        lane.begin_again(0, false, true);
        lane.end.flush();
        assert_eq!((lane.known(), lane.next_beside()), (4, Some(5)));
        lane.beside = Some(5);
        (1..=4).for_each(|index| feed(&mut lane, index));
        lane.end_anew();
        assert_eq!((lane.known(), lane.next_beside()), (5, None));
        feed(&mut lane, 5);
        lane.end_anew();
        assert_eq!((lane.known(), lane.is_anew), (5, false));
        lane.end_anew();
        let told: Vec<_> = {
            lane.end.flush();
            std::iter::from_fn(|| log.next_news()).collect()
        };
        let count = told.iter().filter(|news| matches!(news, News::CaughtUp)).count();
        assert!(count == 1 && matches!(told.last(), Some(News::CaughtUp)));
        // A log that is replaced says nothing of what is between: no table goes on.
        // It begins behind a point, and what came with that is committed then.
        lane.committed = 7;
        lane.begin_again(7, true, true);
        lane.committed = 9;
        lane.end_anew();
        lane.end.flush();
        assert_eq!((lane.known(), lane.next_beside()), (7, None));
        feed(&mut lane, 8);
        lane.end_anew();
        assert!(lane.is_anew, "an entry is missing");
        feed(&mut lane, 9);
        lane.end_anew();
        assert!(!lane.is_anew);
        lane.end.flush();
        let told = std::iter::from_fn(|| log.next_news());
        assert_eq!(told.filter(|news| matches!(news, News::CaughtUp)).count(), 1);
    }
}
