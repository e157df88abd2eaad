//! Orders of a node that leads which say what lives: where nodes may lie, the partition's shard finds out
//! whether it does before this node takes part in them.
//!
//! Invariants worth naming
//! - A task or a key that this node does not know to live is in no log for its vote: names of what other
//!   nodes once asked for are not used again to take up their shares.
//! - A claim is looked at when the shard was told all entries before, and what is not true then is dropped: by
//!   an earlier table what has ended would live, and a key stand for another task. A shard that is told its
//!   log again looks at it by the table that it had, which goes on meanwhile; one whose log was replaced
//!   confirms nothing until it has read.
//! - One claim is looked at at a time. Each node has room of its own for those that wait, and a time. What is
//!   dropped is sent again when this node has told how far it is.

use super::Keeper;
use crate::consensus::{
    disk::Disk,
    engine::Engine,
    lane::{BLOCKS_UNDER_WAY, LaneEnd, Told},
    links::Links,
    news::Claimed,
    peers::NodeId,
};
use crate::planted::{self, Bug};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Messages of one node that wait for their claims to be looked at: all blocks that a shard has under way.
const WAITING_MAX: usize = BLOCKS_UNDER_WAY;
/// Bytes of those claims, but for a single one.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// How long one waits at most for the entries before.
const WAITING_TIME: Duration = Duration::from_secs(2);

/// It is said so often at most that what others claim of a partition is not true here.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// A message and what it claims.
pub(super) struct Claim<M> {
    from: NodeId,
    message: M,
    /// The entry behind which that is so.
    behind: u64,
    blocks: Vec<Bytes>,
    until: Instant,
}

impl<M> Claim<M> {
    /// What a node says in a message that lives behind an entry, block by block.
    pub fn new(from: NodeId, message: M, behind: u64, blocks: Vec<Bytes>, now: Instant) -> Self {
        Self { from, message, behind, blocks, until: now + WAITING_TIME }
    }

    fn bytes(&self) -> usize {
        self.blocks.iter().map(Bytes::len).sum()
    }
}

/// What others claim of a partition.
pub(super) struct Claims<M> {
    waiting: VecDeque<Claim<M>>,
    /// The one that the shard was asked about.
    asked: Option<Claim<M>>,
    /// The number of the last one that was.
    last: u64,
    /// Until then nothing is said of those that are not true.
    silent_until: Option<Instant>,
}

impl<M> Default for Claims<M> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), asked: None, last: 0, silent_until: None }
    }
}

impl<M> Claims<M> {
    /// Keeps a claim until it was looked at, where there is room for it.
    pub fn take(&mut self, claim: Claim<M>) {
        let known = self.waiting.iter().filter(|known| known.from == claim.from);
        let (mut count, mut bytes) = (0, claim.bytes());
        for known in known {
            (count, bytes) = (count + 1, bytes + known.bytes());
        }
        if count == 0 || count < WAITING_MAX && bytes <= WAITING_BYTES_MAX {
            self.waiting.push_back(claim);
        }
    }

    /// Asks a shard that was told everything up to an entry about the next claim that it can know, unless
    /// it was asked about another.
    pub fn ask(&mut self, shard: &mut LaneEnd, known: u64, now: Instant) {
        if self.asked.is_some() {
            return;
        }
        // What stands where something is committed already is of no interest, and what lived then may have ended.
        self.waiting.retain(|claim| claim.until > now && claim.behind >= known);
        let Some(next) = self.waiting.iter().position(|claim| claim.behind == known) else {
            return;
        };
        self.asked = self.waiting.remove(next);
        self.last += 1;
        let blocks = self.asked.iter().flat_map(|claim| claim.blocks.clone()).collect();
        shard.tell(Told::Claimed(Claimed::new(self.last, blocks)));
    }

    /// Whether the shard has answered.
    pub fn is_answered(&self, shard: &LaneEnd) -> bool {
        self.asked.is_some() && shard.answered().0 == self.last
    }

    /// Whether it is to be said now that one is not true.
    fn is_to_say(&mut self, now: Instant) -> bool {
        let is_silent = self.silent_until.is_some_and(|until| now < until);
        if !is_silent {
            self.silent_until = Some(now + SAY_EVERY);
        }
        !is_silent
    }

    /// Takes out the claim that the shard has looked at; whether it is true.
    fn next(&mut self, shard: &LaneEnd) -> Option<(Claim<M>, bool)> {
        if !self.is_answered(shard) {
            return None;
        }
        Some((self.asked.take()?, shard.answered().1))
    }
}

impl<D: Disk, L: Links<E::Message>, E: Engine> Keeper<D, L, E> {
    /// Takes what others sent whose claims are true.
    pub(super) fn heed_claims(&mut self) {
        let Self { claims, lanes, engine, now, .. } = self;
        for ((partition, claims), lane) in (0..).zip(claims).zip(lanes) {
            if let Some((Claim { from, message, behind, .. }, is_true)) = claims.next(&lane.end) {
                if !is_true && !planted::has(Bug::UncheckedClaim) {
                    // It may have looked when it was told more.
                    if behind == lane.known() && claims.is_to_say(*now) {
                        tracing::warn!(
                            partition,
                            from,
                            "what a node that leads says lives is another thing here, and this node takes no part \
                             in that: it lies, or has other tasks.timeout_ms, tasks.max_attempts or \
                             tasks.retry_max_ms"
                        );
                    }
                } else if let Err(why) = engine.step(partition, from, message) {
                    tracing::debug!(partition, from, %why, "a message is dropped");
                }
            }
            let known = lane.known();
            claims.ask(&mut lane.end, known, *now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        consensus::{
            News,
            lane::{LaneLog, LaneSettings, Signals, lane},
        },
        runtime::doorbell::Doorbell,
    };
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    };

    fn ends() -> (LaneLog, LaneEnd) {
        let signals = Signals { has_room: AtomicBool::new(true), move_before: AtomicU64::new(0) };
        let bell = Doorbell::new().expect("there are descriptors");
        let (block_bytes, record_bytes_max, signals) = (1000, 5000, Arc::new(signals));
        let settings = LaneSettings { block_bytes, record_bytes_max, bell: bell.clone(), signals };
        lane(3, &settings, None, bell)
    }

    /// The number of what the shard is asked about, if it is.
    fn asked(log: &mut LaneLog, end: &mut LaneEnd) -> Option<u64> {
        end.flush();
        match log.next_news()? {
            News::Claimed(claimed) => Some(claimed.number),
            news => panic!("{news:?}"),
        }
    }

    fn claim(from: NodeId, behind: u64, message: &str, now: Instant) -> Claim<&str> {
        Claim::new(from, message, behind, Vec::new(), now)
    }

    #[test]
    fn claims_are_looked_at_one_at_a_time_in_the_order_in_which_they_came() {
        let ((mut log, mut end), mut claims, now) = (ends(), Claims::default(), Instant::now());
        for message in ["one", "two", "three"] {
            claims.take(claim(2, 7, message, now));
            claims.ask(&mut end, 7, now);
        }
        let mut heeded = Vec::new();
        for is_true in [true, false, true] {
            let number = asked(&mut log, &mut end).expect("there is one more");
            assert_eq!(asked(&mut log, &mut end), None, "it was not answered");
            assert!(!claims.is_answered(&end) && claims.next(&end).is_none());
            log.answer(number, is_true);
            assert!(claims.is_answered(&end));
            let (claim, is_true) = claims.next(&end).expect("it is answered");
            heeded.push((claim.from, claim.message, is_true));
            assert!(claims.next(&end).is_none(), "an answer is heard once");
            claims.ask(&mut end, 7, now);
        }
        assert_eq!(heeded, [(2, "one", true), (2, "two", false), (2, "three", true)]);
        assert_eq!(asked(&mut log, &mut end), None);
    }

    #[test]
    fn a_claim_is_looked_at_when_the_shard_was_told_all_before_it_or_dropped_in_time() {
        let ((mut log, mut end), mut claims, now) = (ends(), Claims::default(), Instant::now());
        claims.take(claim(2, 9, "later", now));
        claims.take(claim(3, 8, "next", now));
        let mut look = |claims: &mut Claims<_>, fed, now| {
            claims.ask(&mut end, fed, now);
            let number = asked(&mut log, &mut end)?;
            log.answer(number, true);
            claims.next(&end).map(|(claim, _)| claim.from)
        };
        assert_eq!(look(&mut claims, 7, now), None);
        assert_eq!(look(&mut claims, 8, now), Some(3), "it holds nobody up");
        assert_eq!(look(&mut claims, 8, now), None);
        assert_eq!(look(&mut claims, 9, now), Some(2));
        claims.take(claim(2, 8, "committed", now));
        assert_eq!(look(&mut claims, 9, now), None, "it is told what stands there");
        claims.take(claim(2, 11, "late", now));
        assert_eq!(look(&mut claims, 11, now + WAITING_TIME), None, "it was dropped");
    }

    #[test]
    fn that_claims_are_not_true_is_said_once_in_a_time() {
        let (mut claims, now) = (Claims::<&str>::default(), Instant::now());
        let said = (0..25).filter(|seconds| claims.is_to_say(now + Duration::from_secs(*seconds)));
        assert_eq!(said.collect::<Vec<_>>(), [0, 10, 20]);
    }

    #[test]
    fn a_node_that_claims_much_takes_no_room_from_others() {
        let ((mut log, mut end), mut claims, now) = (ends(), Claims::default(), Instant::now());
        (0..100).for_each(|_| claims.take(claim(4, 7, "much", now)));
        // The first one is taken however long it is.
        for _ in 0..2 {
            let long = vec![vec![0; WAITING_BYTES_MAX + 1].into()];
            claims.take(Claim::new(3, "long", 7, long, now));
        }
        claims.take(claim(2, 7, "little", now));
        let mut looked_at = Vec::new();
        claims.ask(&mut end, 7, now);
        while let Some(number) = asked(&mut log, &mut end) {
            log.answer(number, false);
            looked_at.extend(claims.next(&end).map(|(claim, _)| claim.from));
            claims.ask(&mut end, 7, now);
        }
        assert_eq!(looked_at, [vec![4; WAITING_MAX], vec![3, 2]].concat());
    }
}
