//! What others tell of a node that may be false: a life that it did not begin, and versions that its map
//! never had.
//!
//! Invariants worth naming
//! - What a node had is shown until another life of it is confirmed: by its own answer to a question that
//!   was sent to its address alone, or by silence for as long as a refutation takes. That a datagram names
//!   a node as its sender confirms nothing. A node that refutes goes on with the map that is shown.
//! - A map that waits for what nobody has is told to its owner, who begins its map again when it is false.
//!   Of a node that is gone it is given up, and what lacks is fetched anew.

use super::{
    Gossip, NodeId,
    datagram::Section,
    pack::Pack,
    receive::{ROUNDS_OPEN, show},
    record::{Incoming, Record, mix},
    state::Event,
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Rounds in which a node may refute a life that others tell of it.
const HELD_ROUNDS: u64 = 20;
/// Most nodes whose lives are held; of more they are believed at once.
const HELD_MAX: usize = 1_024;
/// Most owners that are told in a round what is said of their maps.
const DISPUTED_MAX: usize = 16;

impl Gossip {
    /// Notes that another life of a node was told; false when there are too many.
    pub(super) fn hold(&mut self, node: NodeId) -> bool {
        if self.held.len() >= HELD_MAX && !self.held.contains_key(&node) {
            return false;
        }
        self.held.entry(node).or_insert(self.round);
        true
    }

    /// Whether a node's life is held that is this one.
    fn is_held(&self, node: NodeId, generation: u64) -> bool {
        let is_so = |of: Record<'_>| of.claim.generation == generation;
        self.held.contains_key(&node) && self.roster.get(node).is_some_and(is_so)
    }

    /// A datagram names a node as its sender, in a life that is held: asks that node whether it is so.
    pub(super) fn challenge(&mut self, node: NodeId, generation: u64, pack: &mut Pack) {
        if self.is_held(node, generation) {
            let (nonce, root) = (self.nonce_for(node, self.round), self.roster.root());
            pack.add(&Section::Ask { nonce, root, news: &[] });
        }
    }

    /// Confirms a life that is held when an answer repeats what only the node itself was asked; tells
    /// whether it does.
    pub(super) fn release(&mut self, node: NodeId, generation: u64, nonce: u32) -> bool {
        let is_so = self.is_held(node, generation)
            && (0..ROUNDS_OPEN.min(self.round + 1))
                .any(|ago| self.nonce_for(node, self.round - ago) == nonce);
        if is_so {
            self.confirm(node);
        }
        is_so
    }

    /// What an answer repeats that confirms a life: each node is asked with a number of its own.
    fn nonce_for(&self, node: NodeId, round: u64) -> u32 {
        mix(mix(self.nonce_key ^ round).wrapping_add(node)) as u32
    }

    /// Believes the lives that were not refuted.
    pub(super) fn release_old(&mut self) {
        let round = self.round;
        let old = self.held.iter().filter(|(_, since)| round >= **since + HELD_ROUNDS);
        old.map(|(node, _)| *node).collect::<Vec<_>>().into_iter().for_each(|it| self.confirm(it));
    }

    /// A life that was held is that of the node.
    fn confirm(&mut self, node: NodeId) {
        let since = self.held.remove(&node).unwrap_or(self.round);
        self.show_new(node);
        let rounds = u32::try_from(self.round - since).unwrap_or(u32::MAX);
        self.tell_new_process(node, self.settings.interval * rounds);
    }

    /// Tells that a node's process is another one than before, unless it only began its map again.
    pub(super) fn tell_new_process(&mut self, node: NodeId, ago: Duration) {
        if self.roster.get(node).is_some_and(|record| !record.claim.goes_on()) {
            self.tell(Event::BeganAgain { node, ago });
        }
    }

    /// Ends what a node had in another life, unless its process goes on and its map is still on its way.
    fn show_new(&mut self, node: NodeId) {
        let mut events = Vec::new();
        self.roster.change(node, |record| {
            let Some(incoming) = &record.incoming else { return };
            let has_begun = incoming.entries.version() > 0;
            if incoming.is_whole() && has_begun {
                show(record, &mut events);
            } else if !record.claim.goes_on() {
                let has_shown = record.entries.take().is_some();
                record.incoming = record.incoming.take().filter(|_| has_begun);
                events.extend(has_shown.then_some(Event::Reset { node }));
            }
        });
        self.name_news(node);
        events.into_iter().for_each(|event| self.tell(event));
    }

    /// Notes that a node's map may be waiting for what there is not.
    pub(super) fn dispute(&mut self, node: NodeId) {
        if self.disputed.len() < DISPUTED_MAX {
            self.disputed.insert(node);
        }
    }

    /// Disputes the maps that are not whole and that nobody is asked for.
    pub(super) fn dispute_unfinished(&mut self) {
        let is_stuck = |record: &Record<'_>| {
            record.incoming.is_some() && !self.wants.contains_key(&record.node)
        };
        let stuck: Vec<_> = self.roster.iter().filter(is_stuck).map(|record| record.node).collect();
        stuck.into_iter().for_each(|node| self.dispute(node));
    }

    /// Tells the owners of disputed maps up to which version they are said to go.
    pub(super) fn tell_disputed(&mut self, out: &mut impl FnMut(NodeId, SocketAddr, &[u8])) {
        for node in std::mem::take(&mut self.disputed) {
            let Some(record) = self.roster.get(node).filter(|of| of.incoming.is_some()) else {
                continue;
            };
            if record.claim.status.is_present() {
                let mut pack = self.pack(1);
                pack.add_delta(record, record.version(), false);
                self.send_packed(node, pack, out);
            } else {
                self.roster.change(node, |record| {
                    let (shown, life) = (record.shown(), record.claim.generation);
                    let may_stay = record.entries.is_some() && shown == life;
                    record.incoming = (!may_stay).then(|| Arc::new(Incoming::begin(shown)));
                });
                self.name_news(node);
            }
        }
    }
}
