//! What a node does in every round.

use super::{
    Gossip, NodeId,
    datagram::Section,
    record::{Claim, Record, Status},
};
use crate::planted::{self, Bug};
use std::{net::SocketAddr, time::Duration};

/// Most news that a question names.
pub(super) const NEWS_MAX: usize = 64;
/// Most peers that are pushed to when there is more news than that.
const FANOUT_OF_MUCH: usize = 3;
/// Times that changes are asked for without any coming; later comparisons find them again.
const TRIES_MAX: u32 = 3;
/// Among so many nodes peers are drawn from a list, among more until they fit.
const LISTED_MAX: usize = 64;
/// Rounds for which news is kept for those that ask, in rounds for which it is pushed.
const KEPT: u32 = 2;

impl Gossip {
    /// Does what is due. The caller runs it at [`Self::next_wake`]; when it comes late, the time is
    /// nobody's silence.
    pub fn tick(&mut self, now: Duration, out: &mut impl FnMut(NodeId, SocketAddr, &[u8])) {
        let now = self.advance(now);
        if now < self.due {
            return;
        }
        let interval = self.settings.interval;
        self.due = if now - self.due > interval { now + interval } else { self.due + interval };
        if self.has_left {
            return;
        }
        self.forgive_pause(now);
        self.ticked = now;
        self.round += 1;
        self.counters.rounds += 1;
        self.allowance = self.settings.round_bytes;
        self.collect();
        self.judge(now);
        self.release_old();
        let asked = self.ask(out);
        self.push(&asked, out);
        self.compare(now, out);
        self.want_again(out);
        self.tell_owners(out);
    }

    /// Says goodbye. From then on the node says nothing.
    pub fn leave(&mut self, now: Duration, out: &mut impl FnMut(NodeId, SocketAddr, &[u8])) {
        self.advance(now);
        if std::mem::replace(&mut self.has_left, true) {
            return;
        }
        let version = self.mine().version();
        self.roster.stand(self.me, Claim { status: Status::Left, ..self.my_claim() });
        let mut pack = self.pack(1);
        let record = self.roster.get(self.me).expect("a node knows itself");
        pack.add_delta(record, version, true);
        let goodbye = pack.finish(&self.seal);
        let mut peers: Vec<_> = self.watch.nodes().collect();
        self.draw(2 * self.settings.fanout_max, &mut peers);
        for peer in peers {
            self.send(peer, &goodbye[0], out);
        }
    }

    /// Never lets time go back: when the caller's clock does, time goes on from where it was.
    pub(super) fn advance(&mut self, now: Duration) -> Duration {
        let now = now + self.set_back;
        let back = self.clock.saturating_sub(now);
        if back > Duration::ZERO {
            self.counters.clock_jumps += 1;
            self.set_back += back;
        }
        self.clock = now + back;
        self.clock
    }

    /// Time in which this node did not run, or by which its clock jumped ahead, is nobody's silence.
    pub(super) fn forgive_pause(&mut self, now: Duration) {
        // Counted from the last round, not from when the next one was due: rounds that are all late by
        // as much come as often as others.
        let interval = self.settings.interval;
        let stood = now.saturating_sub(self.ticked + interval);
        if stood > interval / 2 {
            self.counters.late_rounds += 1;
            // What is forgiven before a round is not forgiven in it.
            self.ticked += stood;
            if !planted::has(Bug::CountedPause) {
                self.forgive(stood);
            }
        }
    }

    fn forgive(&mut self, time: Duration) {
        self.watch.forgive(time);
        for suspected in self.suspects.values_mut() {
            suspected.since += time;
        }
    }

    /// Accuses the silent, and buries suspects that did not refute.
    fn judge(&mut self, now: Duration) {
        let silent: Vec<_> = self.watch.silent(&self.settings, now).collect();
        for node in silent {
            let record = self.roster.get(node).filter(|of| of.claim.status == Status::Alive);
            if let Some(claim) = record.map(|record| record.claim) {
                self.counters.suspicions += 1;
                self.believe(node, Claim { status: Status::Suspect, ..claim }, None, now);
                if let Some(suspected) = self.suspects.get_mut(&node) {
                    suspected.is_mine = true;
                }
            }
        }
        let suspicion = self.settings.suspicion;
        let over = self.suspects.iter().filter(|(_, suspected)| suspected.until(suspicion) <= now);
        let mut over: Vec<_> = over.map(|(node, _)| *node).collect();
        // In an order that is the same in every run.
        over.sort_unstable();
        for node in over {
            let claim = self.roster.get(node).map(|record| record.claim);
            if let Some(claim) = claim.filter(|claim| claim.status == Status::Suspect) {
                self.settle(node, Claim { status: Status::Dead, ..claim }, now);
            }
            self.suspects.remove(&node);
        }
        if self.suspects.is_empty() {
            self.suspects.shrink_to_fit();
        }
    }

    /// Asks the watched nodes, and others by chance, whether they live and know something new; gives
    /// whom. Where nothing happens the watched are enough, and each is asked in every other round: whoever
    /// has news pushes it, and one of them that knows other things is noticed.
    fn ask(&mut self, out: &mut impl FnMut(NodeId, SocketAddr, &[u8])) -> Vec<NodeId> {
        let present = self.roster.present();
        let is_present = |record: &Record<'_>| record.claim.status.is_present();
        let before = self.roster.before(self.me).filter(is_present);
        let watched: Vec<_> =
            before.take(self.settings.watchers(present)).map(|record| record.node).collect();
        self.watch.turn_to(&watched, self.clock);
        let is_settled = self.is_settled();
        self.counters.quiet_rounds += u64::from(is_settled);
        let questions: Vec<_> = self.watch.questions(is_settled).collect();

        let mut pack = self.pack(1);
        let recent = self.rumors.recent().take(NEWS_MAX);
        let news = recent.flat_map(|rumor| rumor.name.to_le_bytes());
        let news: Vec<_> = news.collect();
        let (nonce, root) = (self.nonce(self.round), self.roster.root());
        pack.add(&Section::Ask { nonce, root, news: &news });
        let question = pack.finish(&self.seal);
        for (node, copies) in questions {
            (0..copies).for_each(|_| self.send(node, &question[0], out));
            self.remind(node, out);
        }
        let mut asked = watched;
        let watched = asked.len();
        if !is_settled {
            self.draw(self.settings.fanout(present).max(watched), &mut asked);
        }
        for &node in &asked[watched..] {
            self.send(node, &question[0], out);
        }
        // Whoever is taken for dead may live behind a partition that has ended.
        if self.roster.len() > present {
            let dead = self.roster.count(Status::Dead);
            let number = if dead > 0 { self.rng.usize(..dead) } else { 0 };
            let drawn = self.roster.nth_of(Status::Dead, number);
            drawn.into_iter().for_each(|node| self.send(node, &question[0], out));
        }
        asked
    }

    /// Tells a suspect what it is accused of.
    fn remind(&mut self, node: NodeId, out: &mut impl FnMut(NodeId, SocketAddr, &[u8])) {
        let record = self.roster.get(node).filter(|of| of.claim.status == Status::Suspect);
        let Some(record) = record else { return };
        let mut pack = self.pack(1);
        pack.add_delta(record, record.version(), false);
        self.send_packed(node, pack, out);
    }

    /// Adds present nodes by chance until there are so many, or no others.
    pub(super) fn draw(&mut self, count: usize, drawn: &mut Vec<NodeId>) {
        let others = self.roster.present().saturating_sub(1);
        if others <= LISTED_MAX {
            let is_free = |record: &Record<'_>| {
                let is_drawn = record.node == self.me || drawn.contains(&record.node);
                record.claim.status.is_present() && !is_drawn
            };
            let mut free: Vec<_> =
                self.roster.iter().filter(is_free).map(|record| record.node).collect();
            while drawn.len() < count && !free.is_empty() {
                drawn.push(free.swap_remove(self.rng.usize(..free.len())));
            }
            return;
        }
        // Where most are gone a node is found in some tries, or not in this round.
        for _ in 0..20 * count {
            if drawn.len() >= count {
                return;
            }
            let number = self.rng.usize(..self.roster.len());
            let record = self.roster.nth(number).expect("a number below the length");
            let is_drawn = record.node == self.me || drawn.contains(&record.node);
            if record.claim.status.is_present() && !is_drawn {
                drawn.push(record.node);
            }
        }
    }

    /// Pushes news to peers by chance, to such as were not asked when there are enough.
    fn push(&mut self, asked: &[NodeId], out: &mut impl FnMut(NodeId, SocketAddr, &[u8])) {
        let present = self.roster.present();
        let fanout = self.fanout();
        let mut pack = self.pack(self.settings.burst);
        let mut pushed = Vec::new();
        let turn = if self.rumors.len() > NEWS_MAX { self.round } else { 0 };
        for rumor in self.rumors.hot(self.me, self.nonce_key.wrapping_add(turn)) {
            if pack.is_full() {
                break;
            }
            let Some(record) = self.roster.get(rumor.node) else { continue };
            if pack.add_delta(record, record.since(rumor.from(), 0), true) {
                pushed.push(rumor.node);
            }
        }
        if !pushed.is_empty() {
            let datagrams = pack.finish(&self.seal);
            let mut peers = asked.to_vec();
            self.draw(asked.len() + fanout, &mut peers);
            peers.drain(..asked.len());
            let mut asked = asked.to_vec();
            while peers.len() < fanout && !asked.is_empty() {
                peers.push(asked.swap_remove(self.rng.usize(..asked.len())));
            }
            for peer in peers {
                datagrams.iter().for_each(|datagram| self.send(peer, datagram, out));
            }
        }
        let rounds_kept = KEPT * super::Settings::rounds_hot(present);
        self.rumors.age(&pushed, self.round, rounds_kept);
    }

    /// Asks again for changes that did not come.
    fn want_again(&mut self, out: &mut impl FnMut(NodeId, SocketAddr, &[u8])) {
        let waiting: Vec<_> = self.wants.keys().copied().collect();
        for node in waiting {
            let version = self.roster.get(node).map(|record| record.version());
            let Some(wanted) = self.wants.get_mut(&node) else { continue };
            wanted.tries = if version == Some(wanted.version) { wanted.tries + 1 } else { 0 };
            let peer = wanted.peer;
            if wanted.tries > TRIES_MAX {
                self.wants.remove(&node);
                continue;
            }
            let mut pack = self.pack(1);
            self.want(node, peer, &mut pack);
            self.send_packed(peer, pack, out);
        }
    }

    /// Peers that are pushed to: fewer when there is more news than a question names, as after the death
    /// of many. Then it is the bytes that take time, and most of those to many peers are repeats.
    pub(super) fn fanout(&self) -> usize {
        let fanout = self.settings.fanout(self.roster.present());
        if self.rumors.len() > NEWS_MAX { fanout.min(FANOUT_OF_MUCH) } else { fanout }
    }
}
