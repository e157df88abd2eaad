//! How two nodes find out what one of them lacks: sums of buckets, digests of those that differ, and
//! deltas.

use super::{
    Gossip, NodeId,
    datagram::{Known, Section, Want},
    pack::Pack,
    record::{Claim, Incoming, mix},
    roster::BUCKETS,
};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

/// Rounds in a row in which a peer differs until that is looked into, though news is under way.
const DIFFERING_ROUNDS: u32 = 4;
/// Most false maps that wait to be told of.
const DOUBTFUL_MAX: usize = 16;
/// Bytes of a node in a digest, mostly; decides only in how many steps rosters are compared.
const KNOWN_BYTES: usize = 24;

impl Gossip {
    /// Compares with a peer that knows other things when no news explains that, and with any peer
    /// now and then.
    pub(super) fn compare(
        &mut self,
        now: Duration,
        out: &mut impl FnMut(NodeId, SocketAddr, &[u8]),
    ) {
        if let Some(peer) = self.differing.take() {
            self.differing_rounds += 1;
            if self.rumors.is_quiet() || self.differing_rounds >= DIFFERING_ROUNDS {
                self.differing_rounds = 0;
                self.compare_with(peer, out);
            }
        } else {
            self.differing_rounds = 0;
        }
        if now >= self.reconcile_at {
            self.reconcile_at = now + self.settings.reconcile;
            self.dispute_unfinished();
            let mut peer = Vec::new();
            self.draw(1, &mut peer);
            if let Some(&peer) = peer.first() {
                self.compare_with(peer, out);
            }
        }
    }

    /// Sends a peer all that this node knows of all nodes, or the sums of it.
    fn compare_with(&mut self, peer: NodeId, out: &mut impl FnMut(NodeId, SocketAddr, &[u8])) {
        self.counters.comparisons += 1;
        let mut pack = self.pack(self.affordable());
        if self.roster.len() * KNOWN_BYTES <= self.settings.datagram {
            pack.add_digest(0, u64::MAX, self.roster.iter());
        } else {
            let sums = (0..BUCKETS).flat_map(|bucket| self.roster.sum(bucket).to_le_bytes());
            pack.add(&Section::Buckets(&sums.collect::<Vec<_>>()));
        }
        self.send_packed(peer, pack, out);
    }

    pub(super) fn answer_want(&mut self, want: &Want, pack: &mut Pack) {
        let Some(record) = self.roster.get(want.node) else { return };
        if record.claim == Claim::UNHEARD {
            return;
        }
        let is_same_life = record.claim.generation == want.generation;
        // Who asks has heard that the owner collected more.
        if is_same_life && want.floor > record.floor() && record.is_whole_above(want.floor) {
            self.roster.change(want.node, |record| record.raise_floor(want.floor));
        }
        let Some(record) = self.roster.get(want.node) else { return };
        let since = if is_same_life { record.since(want.version, want.floor) } else { 0 };
        pack.add_delta(record, since, false);
    }

    pub(super) fn answer_buckets(&mut self, sums: &[u8], pack: &mut Pack) {
        let differs =
            |bucket: usize| sums[bucket * 4..][..4] != self.roster.sum(bucket).to_le_bytes();
        // What does not fit in is different from time to time.
        let start = self.rng.usize(..BUCKETS);
        for (first, last) in runs(differs, start) {
            if !pack.add_digest(first, last, self.roster.range(first, last)) {
                return;
            }
        }
    }

    pub(super) fn answer_digest(
        &mut self,
        sender: NodeId,
        (first, last): (u64, u64),
        known: &[Known],
        pack: &mut Pack,
    ) {
        let theirs: BTreeMap<_, _> = known
            .iter()
            .filter(|known| (first..=last).contains(&mix(known.node)))
            .map(|known| (known.node, known))
            .collect();
        // What they have first: a question is short.
        for (node, known) in &theirs {
            if *node == self.me {
                self.defend(known.claim, known.version, Some(known.check));
                continue;
            }
            self.doubt_entries(known);
            let is_newer = match self.roster.get(*node) {
                Some(record) => {
                    let same_life = record.claim.generation == known.claim.generation;
                    known.claim > record.claim || same_life && known.version > record.version()
                }
                None => !self.settings.closed && self.roster.len() < self.settings.nodes_max,
            };
            if is_newer {
                let (generation, version, floor) = self
                    .roster
                    .get(*node)
                    .map_or((0, 0, 0), |of| (of.claim.generation, of.version(), of.floor()));
                self.remember_if_known(*node, sender);
                pack.add(&Section::Want(Want { node: *node, generation, version, floor }));
            }
        }
        for record in self.roster.range(first, last).filter(|of| of.claim != Claim::UNHEARD) {
            let since = match theirs.get(&record.node) {
                None => 0,
                Some(known) if known.claim.generation != record.claim.generation => {
                    if known.claim > record.claim {
                        continue;
                    }
                    0
                }
                Some(known) if known.version < record.version() => record.since(known.version, 0),
                Some(known) if known.claim < record.claim => record.version(),
                Some(_) => continue,
            };
            if !pack.add_delta(record, since, false) {
                return;
            }
        }
    }

    /// Notes that of two maps of the same version one has false entries; their owner knows which. When
    /// the owner is gone nobody does: the map with the lower check is fetched anew, so that all agree.
    fn doubt_entries(&mut self, theirs: &Known) {
        let Some(mine) = self.roster.get(theirs.node).map(Known::of) else { return };
        let is_same =
            (mine.claim.generation, mine.version) == (theirs.claim.generation, theirs.version);
        if !is_same || mine.check == theirs.check {
            return;
        }
        if mine.claim.status.is_present() {
            if self.doubtful.len() + 2 <= DOUBTFUL_MAX {
                self.doubtful.extend([mine, *theirs]);
            }
        } else if mine.check < theirs.check {
            self.roster.change(theirs.node, |record| {
                let begun = Incoming { whole: mine.version, ..Incoming::begin(record.shown()) };
                record.incoming = Some(Arc::new(begun));
            });
            self.name_news(theirs.node);
        }
    }

    /// Tells owners what others have of their maps; whoever finds it false begins its map again.
    pub(super) fn tell_owners(&mut self, out: &mut impl FnMut(NodeId, SocketAddr, &[u8])) {
        for known in std::mem::take(&mut self.doubtful) {
            let (node, place) = (known.node, mix(known.node));
            let mut pack = self.pack(1);
            pack.add(&Section::Digest { first: place, last: place, known: vec![known] });
            self.send_packed(node, pack, out);
        }
        self.tell_disputed(out);
    }

    fn remember_if_known(&mut self, node: NodeId, peer: NodeId) {
        if self.roster.get(node).is_some() {
            self.remember(node, peer);
        }
    }
}

/// Buckets in which two nodes differ, as runs of the ring.
pub(super) fn runs(differs: impl Fn(usize) -> bool, start: usize) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for bucket in
        (0..BUCKETS).map(|step| (start + step) % BUCKETS).filter(|bucket| differs(*bucket))
    {
        let first = (bucket as u64) << 56;
        let last = first | u64::MAX >> 8;
        match runs.last_mut() {
            Some((_, end)) if *end != u64::MAX && *end + 1 == first => *end = last,
            _ => runs.push((first, last)),
        }
    }
    runs
}
