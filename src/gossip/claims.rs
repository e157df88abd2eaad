//! Which claim of a node stands, and how this node refutes what is wrong of it.

use super::{
    Gossip, NodeId,
    counters::Refused,
    datagram::Known,
    entries::Version,
    record::{Claim, Incoming, Status},
    state::{Event, Suspected},
};
use crate::planted::{self, Bug};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Rounds between two times that a node begins its map again: others have to fetch it whole meanwhile.
const REBIRTH_ROUNDS: u64 = 20;

impl Gossip {
    /// Takes over a claim when it is greater than what stands; gives whether anything changed.
    pub(super) fn believe(
        &mut self,
        node: NodeId,
        claim: Claim,
        address: Option<SocketAddr>,
        now: Duration,
    ) -> bool {
        if node == self.me {
            self.defend(claim, 0, None);
            return false;
        }
        let Some(old) = self.roster.get(node).map(|record| record.claim) else { return false };
        let mut claim = claim;
        let is_told_dead = claim.status == Status::Dead && old != Claim::UNHEARD;
        if is_told_dead {
            claim.status = self.doubt(node, claim, now);
        }
        if claim <= old {
            return false;
        }
        if let Some(address) = address.filter(|_| !self.settings.closed) {
            self.roster.change(node, |record| record.moved_to(address));
        }
        self.counters.claims += 1;
        self.settle(node, claim, now);
        if let Some(suspected) = self.suspects.get_mut(&node).filter(|_| is_told_dead) {
            suspected.is_short = true;
        }
        true
    }

    /// A death that is told of a node which was no suspect makes it one: it may still refute, though
    /// for a shorter time.
    fn doubt(&mut self, node: NodeId, claim: Claim, now: Duration) -> Status {
        match self.suspects.get_mut(&node) {
            Some(suspected) if suspected.incarnation == claim.incarnation => {
                suspected.is_short = true;
                let is_over = now >= suspected.until(self.settings.suspicion);
                if is_over { Status::Dead } else { Status::Suspect }
            }
            _ => {
                let old = self.roster.get(node).map(|record| record.claim);
                let is_dead = old.is_some_and(|old| {
                    old.status == Status::Dead && old.generation == claim.generation
                });
                if is_dead { Status::Dead } else { Status::Suspect }
            }
        }
    }

    /// Refutes what is said of this node, when it is wrong.
    pub(super) fn defend(&mut self, claim: Claim, version: Version, check: Option<u32>) {
        let mine = self.my_claim();
        if self.has_left {
            return;
        }
        if claim.is_absurd(self.highest_incarnation()) {
            return self.counters.refuse(Refused::Incarnation);
        }
        let is_same_life = claim.generation == mine.generation;
        let mine_known = Known::of(self.roster.get(self.me).expect("a node knows itself"));
        let has_false_entries =
            version == mine_known.version && check.is_some_and(|check| check != mine_known.check);
        let is_forged = is_same_life && (version > mine_known.version || has_false_entries);
        if is_forged {
            // Seldom, so that a liar costs no more than that.
            if self.counters.rebirths == 0 || self.round >= self.reborn + REBIRTH_ROUNDS {
                self.begin_again(claim.incarnation);
            }
        } else if claim > mine {
            // Of another life as well: this one's map is what it was, and others still have it.
            let incarnation = match planted::has(Bug::WeakRefutation) {
                true => mine.incarnation,
                false => claim.incarnation + 1,
            };
            self.counters.refutations += 1;
            self.roster.stand(self.me, Claim { incarnation, ..mine });
            let version = self.mine().version();
            self.note(self.me, version, false);
        }
    }

    /// Makes a claim stand.
    pub(super) fn settle(&mut self, node: NodeId, claim: Claim, now: Duration) {
        let Some(record) = self.roster.get(node) else { return };
        let (old, before, had_entries) = (record.claim, record.version(), record.entries.is_some());
        let is_other_life = old.generation != claim.generation;
        // Others may say what is not so: what the node had is shown until its new map holds.
        let is_kept = had_entries
            && (old.status.is_present() && claim.status.is_present())
            && (!is_other_life || self.hold(node));
        if !is_other_life {
            self.roster.stand(node, claim);
        } else {
            self.roster.change(node, |record| {
                let shown = record.shown();
                record.claim = claim;
                let is_back = shown == claim.generation;
                let incoming = (is_kept && !is_back).then(|| Arc::new(Incoming::begin(shown)));
                record.incoming = incoming;
                record.entries = record.entries.take().filter(|_| is_kept);
            });
            if had_entries && !is_kept {
                self.tell(Event::Reset { node });
            }
            let was_there = old != Claim::UNHEARD && old.status.is_present();
            if was_there && !self.held.contains_key(&node) {
                self.tell_new_process(node, Duration::ZERO);
            }
            if self.roster.get(node).is_some_and(|record| record.incoming.is_none()) {
                self.held.remove(&node);
            }
        }
        if old == Claim::UNHEARD || old.status != claim.status || is_other_life {
            self.tell(Event::Status { node, status: claim.status });
        }
        self.counters.deaths += u64::from(claim.status == Status::Dead);
        let suspected = self.suspects.remove(&node);
        if claim.status == Status::Suspect {
            let mut next = Suspected {
                incarnation: claim.incarnation,
                since: now,
                is_short: false,
                is_mine: false,
            };
            if let Some(same) = suspected.filter(|old| old.incarnation == claim.incarnation) {
                next = same;
            }
            self.suspects.insert(node, next);
        }
        if claim.status == Status::Alive && old != Claim::UNHEARD && old.status != Status::Alive {
            self.counters.returns += 1;
            if suspected.is_some_and(|suspected| suspected.is_mine) && !is_other_life {
                self.watch.excuse(node);
            }
            self.watch.begin_again(node, &self.settings, now);
        }
        self.note(node, if is_other_life { 0 } else { before }, is_other_life);
    }
}
