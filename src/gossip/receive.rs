//! What a node does with a datagram.

use super::{
    Gossip, NodeId,
    counters::Refused,
    datagram::{self, Delta, Section, Want},
    entries::{ENTRIES_MAX, Entries, TOMBSTONES_MAX},
    pack::Pack,
    record::{Changing, Claim, Incoming, Life, Record},
    round::NEWS_MAX,
    settings::DATAGRAM_BYTES_MAX,
    state::{Event, Wanted},
};
use crate::planted::{self, Bug};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Rounds for which an answer may be under way.
pub(super) const ROUNDS_OPEN: u64 = 16;
/// Most nodes whose changes are asked for at the same time.
const WANTS_MAX: usize = 256;
/// Most news that an answer tells when there is more than a question names.
const TOLD_MAX: usize = 4;

/// Repeats that end a round's pushing, as a part of the peers that are pushed to.
const ENOUGH_SHARE: usize = 2;
/// Rounds that they end when there is more news than a question names: comparisons find what is left.
const LESS_OF_MUCH: u16 = 2;

impl Gossip {
    /// Takes a datagram, and answers it. Of one that is refused nothing has an effect but a counter.
    pub fn receive(
        &mut self,
        now: Duration,
        from: SocketAddr,
        datagram: &[u8],
        out: &mut impl FnMut(NodeId, SocketAddr, &[u8]),
    ) {
        let now = self.advance(now);
        self.counters.datagrams_in += 1;
        self.counters.bytes_in += datagram.len() as u64;
        if self.has_left {
            return;
        }
        self.forgive_pause(now);
        if datagram.len() > DATAGRAM_BYTES_MAX {
            return self.counters.refuse(Refused::Oversized);
        }
        let seal = self.seal.clone();
        let Some(body) = seal.open(datagram) else {
            return self.counters.refuse(Refused::Unsealed);
        };
        let Ok((header, sections)) = datagram::read(body) else {
            return self.counters.refuse(Refused::Malformed);
        };
        let sender = header.sender;
        if header.cluster != self.settings.cluster {
            return self.counters.refuse(Refused::Cluster);
        }
        if sender == self.me {
            return self.counters.refuse(Refused::Mirrored);
        }
        if !self.is_known_or_may_be(sender, from) {
            return self.counters.refuse(Refused::Stranger);
        }
        if header.claim.is_absurd(self.highest_incarnation()) {
            return self.counters.refuse(Refused::Incarnation);
        }
        self.believe(sender, header.claim, None, now);
        let mut pack = self.pack(self.affordable().max(1));
        self.challenge(sender, header.claim.generation, &mut pack);
        self.touch(&sections);
        for section in sections {
            self.handle(sender, header.claim, section, now, &mut pack);
        }
        self.send_packed(sender, pack, out);
    }

    /// Touches what is known of the nodes that a datagram tells of.
    fn touch(&self, sections: &[Section<'_>]) {
        let told = || {
            sections.iter().filter_map(|section| match section {
                Section::Delta(delta) => Some(delta.node),
                _ => None,
            })
        };
        if told().nth(1).is_some() {
            self.roster.touch(told());
            self.rumors.touch(told());
        }
    }

    fn handle(
        &mut self,
        sender: NodeId,
        says: Claim,
        section: Section<'_>,
        now: Duration,
        pack: &mut Pack,
    ) {
        match section {
            Section::Ask { nonce, root, news } => {
                pack.add(&Section::Answer { nonce, root: self.roster.root() });
                self.contradict(sender, says, pack);
                if root != self.roster.root() {
                    self.answer_news(news, pack);
                }
            }
            Section::Answer { nonce, root } => {
                if !self.release(sender, says.generation, nonce) {
                    self.hear(sender, nonce, root, now);
                }
            }
            Section::Delta(delta) => self.apply(sender, &delta, now, pack),
            Section::Buckets(sums) => self.answer_buckets(sums, pack),
            Section::Digest { first, last, known } => {
                self.answer_digest(sender, (first, last), &known, pack);
            }
            Section::Want(want) => self.answer_want(&want, pack),
        }
    }

    /// Whether a node is known; in an open cluster whoever is told of becomes known.
    fn is_known_or_may_be(&mut self, node: NodeId, address: SocketAddr) -> bool {
        if self.roster.get(node).is_some() {
            return true;
        }
        let may_be = !self.settings.closed && self.roster.len() < self.settings.nodes_max;
        if may_be {
            self.roster.insert(Claim::UNHEARD, Life::new(node, address));
        }
        may_be
    }

    /// Tells a sender what is said of it, when that is worse than what it says.
    fn contradict(&mut self, sender: NodeId, says: Claim, pack: &mut Pack) {
        let record = self.roster.get(sender).filter(|record| record.claim > says);
        if let Some(record) = record {
            pack.add_delta(record, record.version(), false);
        }
    }

    /// Tells recent news but for what was named.
    fn answer_news(&mut self, named: &[u8], pack: &mut Pack) {
        let named: Vec<u32> = named
            .chunks_exact(4)
            .map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes")))
            .collect();
        // Of more news than a question names most are known to whoever asks.
        let told_max = if self.rumors.len() > NEWS_MAX { TOLD_MAX } else { NEWS_MAX };
        let mut told = 0;
        for rumor in self.rumors.recent().filter(|rumor| !named.contains(&rumor.name)) {
            let Some(record) = self.roster.get(rumor.node) else { continue };
            let is_added = pack.add_delta(record, record.since(rumor.from(), 0), true);
            told += 1;
            if !is_added || told == told_max {
                return;
            }
        }
    }

    /// Notes an answer.
    fn hear(&mut self, sender: NodeId, nonce: u32, root: u64, now: Duration) {
        let ago =
            (0..ROUNDS_OPEN.min(self.round)).find(|ago| self.nonce(self.round - ago) == nonce);
        let Some(ago) = ago else {
            if planted::has(Bug::BelievedReplay) {
                self.watch.begin_again(sender, &self.settings, now);
            }
            return self.counters.refuse(Refused::Unasked);
        };
        if self.watch.hear(sender, ago, now) == Some(false) {
            return self.counters.refuse(Refused::Unasked);
        }
        if root != self.roster.root() {
            self.differing = Some(sender);
        }
    }

    fn apply(&mut self, sender: NodeId, delta: &Delta<'_>, now: Duration, pack: &mut Pack) {
        let node = delta.node;
        if node == self.me {
            self.defend(delta.claim, delta.latest, None);
            // The sender hears at once what is true.
            return self.contradict_as_me(delta.claim, pack);
        }
        let record = self.roster.get(node);
        if record.is_some_and(|record| is_known(record, delta)) {
            return self.repeat(node);
        }
        if delta.claim.is_absurd(self.highest_incarnation()) {
            return self.counters.refuse(Refused::Incarnation);
        }
        if record.is_none() && !self.is_known_or_may_be(node, delta.address) {
            return self.counters.refuse(Refused::Stranger);
        }
        let is_news = self.believe(node, delta.claim, Some(delta.address), now);
        let Some(record) = self.roster.get(node) else { return };
        if record.claim.generation != delta.claim.generation {
            return self.counters.refuse(Refused::Stale);
        }
        let (known, floor) = (record.version(), record.floor());
        let needs_reset = known < delta.floor && floor < delta.floor;
        let is_gap = delta.from > known || needs_reset && delta.from > 0;
        if is_gap && !planted::has(Bug::UncheckedGap) {
            self.counters.refuse(Refused::Gap);
            return self.want_once(node, sender, pack);
        }
        // Below its floor a map must not take what was deleted before the floor rose: only whoever
        // knows that floor lacks it.
        if known < floor && delta.floor < floor {
            self.dispute(node);
            return self.counters.refuse(Refused::Stale);
        }
        if delta.to <= known && !needs_reset {
            if !is_news {
                self.repeat(node);
            }
            if delta.floor > floor {
                self.roster.change(node, |record| record.raise_floor(delta.floor));
            }
            return;
        }
        if !has_room(record, delta, needs_reset) {
            return self.counters.refuse(Refused::Full);
        }
        self.counters.deltas += 1;
        self.counters.resets += u64::from(needs_reset && known > 0);
        self.take(delta, needs_reset);
        if delta.is_fresh {
            self.note(node, known, needs_reset);
        }
        if delta.to >= delta.latest {
            self.wants.remove(&node);
        } else if delta.is_cut {
            self.want_once(node, sender, pack);
        } else {
            self.remember(node, sender);
        }
    }

    /// Somebody told what is known here.
    fn repeat(&mut self, node: NodeId) {
        self.counters.repeats += 1;
        let enough = u16::try_from(self.fanout() / ENOUGH_SHARE).unwrap_or(u16::MAX).max(1);
        let less = if self.rumors.len() > NEWS_MAX { LESS_OF_MUCH } else { 1 };
        self.rumors.repeat(node, enough, less);
    }

    fn contradict_as_me(&mut self, said: Claim, pack: &mut Pack) {
        let record = self.roster.get(self.me).expect("a node knows itself");
        if record.claim > said {
            pack.add_delta(record, record.version(), true);
        }
    }

    /// Takes changes over, into the map that is shown or into one that is not whole yet.
    fn take(&mut self, delta: &Delta<'_>, begins: bool) {
        let node = delta.node;
        let is_held = self.held.contains_key(&node);
        let mut events = Vec::new();
        self.roster.change(node, |record| {
            if begins || record.latest().is_none() {
                let (entries, shown) = (Entries::above(delta.floor), record.shown());
                let whole = delta.latest.max(delta.floor);
                record.incoming = Some(Arc::new(Incoming { entries, whole, shown }));
            }
            let Some(incoming) = &mut record.incoming else {
                let entries = Arc::make_mut(record.entries.get_or_insert_default());
                put_all(entries, delta, |event| events.push(event));
                return;
            };
            let incoming = Arc::make_mut(incoming);
            incoming.whole = incoming.whole.max(delta.latest);
            put_all(&mut incoming.entries, delta, |_| ());
            if incoming.is_whole() && !is_held || planted::has(Bug::HalfMap) {
                show(record, &mut events);
            }
        });
        self.name_news(node);
        events.into_iter().for_each(|event| self.tell(event));
    }

    /// Remembers that a peer has changes of a node that are missing here.
    pub(super) fn remember(&mut self, node: NodeId, peer: NodeId) -> bool {
        if self.wants.len() >= WANTS_MAX && !self.wants.contains_key(&node) {
            return false;
        }
        let version = self.roster.get(node).map_or(0, |record| record.version());
        let round = self.round;
        let wanted = Wanted { peer, version, round, tries: 0 };
        let before = self.wants.insert(node, wanted);
        if let Some(before) = before {
            let wanted = self.wants.get_mut(&node).expect("just inserted");
            wanted.tries = before.tries;
            return before.version != version || before.round != round;
        }
        true
    }

    /// Asks a peer for a node's changes, unless that was done in this round.
    fn want_once(&mut self, node: NodeId, peer: NodeId, pack: &mut Pack) {
        if self.remember(node, peer) {
            self.want(node, peer, pack);
        }
    }

    /// Asks for a node's changes.
    pub(super) fn want(&mut self, node: NodeId, peer: NodeId, pack: &mut Pack) {
        let Some(record) = self.roster.get(node) else { return };
        let (generation, floor) = (record.claim.generation, record.floor());
        let (version, round) = (record.version(), self.round);
        if let Some(wanted) = self.wants.get_mut(&node) {
            (wanted.peer, wanted.version, wanted.round) = (peer, version, round);
        }
        pack.add(&Section::Want(Want { node, generation, version, floor }));
    }
}

/// Whether a delta tells nothing new, which most do: news comes to a node many times.
fn is_known(record: Record<'_>, delta: &Delta<'_>) -> bool {
    delta.claim.generation == record.claim.generation
        && delta.claim <= record.claim
        && delta.to <= record.version()
        && delta.floor <= record.floor()
}

/// Whether a node's map stays within what a node may have.
fn has_room(record: Record<'_>, delta: &Delta<'_>, begins: bool) -> bool {
    let target = record.latest().filter(|_| !begins);
    let is_new = |key: &[u8]| target.is_none_or(|entries| entries.value(key).is_none());
    let added = delta.changes.iter().filter(|of| of.value.is_some() && is_new(of.key)).count();
    let removed = delta.changes.iter().filter(|change| change.value.is_none()).count();
    let (entries, tombstones) = target.map_or((0, 0), |of| (of.len(), of.tombstones()));
    entries + added <= ENTRIES_MAX && tombstones + removed <= 2 * TOMBSTONES_MAX
}

/// Puts the changes of a delta that are new into a map, and tells of each.
fn put_all(entries: &mut Entries, delta: &Delta<'_>, mut tell: impl FnMut(Event)) {
    let (node, known) = (delta.node, entries.version());
    for change in delta.changes.iter().filter(|change| change.version > known) {
        let had = entries.value(change.key).is_some();
        entries.put(change.version, change.key, change.value);
        let key = change.key.into();
        match change.value {
            Some(_) => tell(Event::Set { node, key }),
            None if had => tell(Event::Removed { node, key }),
            None => {}
        }
    }
    entries.reach(delta.to);
    entries.raise_floor(delta.floor);
}

/// Shows the map that has come.
pub(super) fn show(record: &mut Changing<'_>, events: &mut Vec<Event>) {
    let shown = record.entries.take().unwrap_or_default();
    let whole = record.incoming.take().map(|incoming| incoming.entries.clone());
    let whole = whole.unwrap_or_default();
    tell_difference(record.node, &shown, &whole, events);
    record.entries = Some(Arc::new(whole));
}

/// Tells what changes when a whole map takes the place of the one that is shown.
fn tell_difference(node: NodeId, shown: &Entries, whole: &Entries, events: &mut Vec<Event>) {
    for (key, _) in shown.iter().filter(|(key, _)| whole.value(key).is_none()) {
        events.push(Event::Removed { node, key: key.clone() });
    }
    for (key, version) in whole.versions() {
        let is_same =
            shown.version_of(key) == Some(version) && shown.value(key) == whole.value(key);
        if !is_same {
            events.push(Event::Set { node, key: key.clone() });
        }
    }
}
