//! One node's gossip: what it has, and what its owner does with it.

use super::{
    NodeId, Settings,
    counters::Counters,
    datagram::{Header, Known},
    entries::{Entries, KEY_BYTES_MAX, SetError, TOMBSTONES_MAX, VALUE_BYTES_MAX, Version},
    pack::{Datagram, Pack},
    record::{Claim, INCARNATION_START_MAX, Life, Record, Status, highest_incarnation, mix},
    roster::Roster,
    rumors::Rumors,
    seal::Seal,
    watch::Watch,
};
use crate::{
    planted::{self, Bug},
    wire::secret::Secret,
};
use foldhash::HashMap;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

/// Most events that wait to be fetched.
pub const EVENTS_MAX: usize = 65_536;

// Two events of each node are kept beyond that, so that there is room for others.
const _: () = assert!(EVENTS_MAX >= 2 * 2 * super::settings::NODES_MAX);

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A node has a new value for a key.
    Set {
        /// Which node.
        node: NodeId,
        /// The key.
        key: Arc<[u8]>,
    },
    /// A node has no value for a key any more.
    Removed {
        /// Which node.
        node: NodeId,
        /// The key.
        key: Arc<[u8]>,
    },
    /// A node began its map again: nothing of what it had holds.
    Reset {
        /// Which node.
        node: NodeId,
    },
    /// A node that was there all the time is of another process now: nothing that the one before did goes
    /// on. It is told when the new life is confirmed.
    BeganAgain {
        /// Which node.
        node: NodeId,
        /// How long ago that was first heard.
        ago: Duration,
    },
    /// A node was heard of for the first time, or its status changed.
    Status {
        /// Which node.
        node: NodeId,
        /// What it is thought to be now.
        status: Status,
    },
    /// Events were not fetched in time and are lost: all has to be looked at. Those before this one which
    /// say that a node was gone, or is another process, are not lost.
    Missed,
}

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Which.
    pub node: NodeId,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is thought to be.
    pub status: Status,
    /// Its incarnation; 0 when it was never heard of.
    pub incarnation: u64,
    /// The incarnation in which it began its map.
    pub generation: u64,
    /// Up to which version its changes are known.
    pub version: Version,
    /// Its entries that are shown.
    pub entries: usize,
    /// Whether no map is on its way that will take the place of the one that is shown.
    pub is_complete: bool,
}

/// Since when a node is suspect, and until when it may refute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspected {
    pub incarnation: u64,
    pub since: Duration,
    /// Others took it for dead already: it has half of the time.
    pub is_short: bool,
    /// This node accused it.
    pub is_mine: bool,
}

impl Suspected {
    /// Until when it may refute.
    pub fn until(&self, suspicion: Duration) -> Duration {
        self.since + if self.is_short { suspicion / 2 } else { suspicion }
    }
}

/// Changes that are asked for until they come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub peer: NodeId,
    /// What was known when they were asked for.
    pub version: Version,
    pub round: u64,
    pub tries: u32,
}

/// One node's gossip.
pub struct Gossip {
    pub(super) settings: Settings,
    pub(super) me: NodeId,
    pub(super) seal: Seal,
    pub(super) rng: fastrand::Rng,
    /// Every node, this one among them.
    pub(super) roster: Roster,
    pub(super) rumors: Rumors,
    pub(super) watch: Watch,
    pub(super) suspects: HashMap<NodeId, Suspected>,
    pub(super) wants: BTreeMap<NodeId, Wanted>,
    /// Maps of which this node or another has false entries, to be told to their owners.
    pub(super) doubtful: Vec<Known>,
    /// Nodes of which others told a new life, and the round in which that was.
    pub(super) held: BTreeMap<NodeId, u64>,
    /// Nodes of which this one was told a floor, or a version, that nobody else knows.
    pub(super) disputed: BTreeSet<NodeId>,
    /// The tombstones of this node's own map, and when they were made.
    graves: VecDeque<(Version, Duration)>,
    /// The time, which never goes back.
    pub(super) clock: Duration,
    /// The time of day, in milliseconds since 1970, as this node's clock said it last, and the time then.
    day: (u64, Duration),
    /// By how much the caller's clock was set back, all in all.
    pub(super) set_back: Duration,
    /// When the next round is due.
    pub(super) due: Duration,
    /// When the last round was.
    pub(super) ticked: Duration,
    pub(super) reconcile_at: Duration,
    pub(super) round: u64,
    pub(super) nonce_key: u64,
    /// Bytes that may be sent until the next round.
    pub(super) allowance: usize,
    /// A peer that knew other things than this node, in this round.
    pub(super) differing: Option<NodeId>,
    /// Rounds in a row that had one.
    pub(super) differing_rounds: u32,
    /// The round in which this node's map last began again.
    pub(super) reborn: u64,
    pub(super) events: VecDeque<Event>,
    pub(super) counters: Counters,
    pub(super) has_left: bool,
}

impl Gossip {
    /// A node that knows nobody. The time of day, in milliseconds since 1970, is its incarnation, and higher
    /// than any that it had before; when it is not, the others tell, and the node goes above that. The seed
    /// decides whom it speaks to; nodes have different ones.
    ///
    /// # Panics
    /// When the settings cannot be used.
    pub fn new(
        settings: Settings,
        me: NodeId,
        unix_ms: u64,
        address: SocketAddr,
        secret: Option<Secret>,
        seed: u64,
        now: Duration,
    ) -> Self {
        settings.validate().expect("settings that can be used");
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut roster = Roster::new();
        let mut life = Life::new(me, address);
        let incarnation = unix_ms.clamp(1, INCARNATION_START_MAX).next_multiple_of(2);
        life.entries = Some(Arc::default());
        let claim = Claim { incarnation, generation: incarnation, status: Status::Alive };
        roster.insert(claim, life);
        // Nodes that start together do not all speak at the same time.
        let mut part = |of: Duration| of.mul_f64(rng.f64());
        let (due, reconcile_at) = (now + part(settings.interval), now + part(settings.reconcile));
        Self {
            seal: Seal::new(secret.as_ref()),
            me,
            roster,
            rumors: Rumors::default(),
            watch: Watch::default(),
            suspects: HashMap::default(),
            wants: BTreeMap::new(),
            doubtful: Vec::new(),
            held: BTreeMap::new(),
            disputed: BTreeSet::new(),
            graves: VecDeque::new(),
            clock: now,
            day: (unix_ms, now),
            set_back: Duration::ZERO,
            due,
            ticked: now,
            reconcile_at,
            round: 0,
            nonce_key: rng.u64(..),
            allowance: settings.round_bytes,
            differing: None,
            differing_rounds: 0,
            reborn: 0,
            events: VecDeque::new(),
            counters: Counters::default(),
            has_left: false,
            rng,
            settings,
        }
    }

    /// Makes a node a member and says where it listens; of a member that is known, the address.
    /// A node that has not spoken counts as alive until it has been silent for too long.
    pub fn learn(&mut self, node: NodeId, address: SocketAddr) {
        if node != self.me && self.roster.get(node).is_none() {
            self.roster.insert(Claim::UNHEARD, Life::new(node, address));
        }
        self.roster.change(node, |record| record.moved_to(address));
    }

    /// Forgets a node that is no member any more.
    pub fn forget(&mut self, node: NodeId) {
        if node == self.me {
            return;
        }
        self.roster.remove(node);
        self.rumors.forget(node);
        self.suspects.remove(&node);
        self.wants.remove(&node);
        self.held.remove(&node);
        self.disputed.remove(&node);
    }

    /// Gives a key of this node a value; false when it has that value already. The change leaves with
    /// the next round.
    ///
    /// # Errors
    /// The key or value has no allowed size, or the map is full.
    pub fn set(&mut self, key: &[u8], value: &[u8]) -> Result<bool, SetError> {
        if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
            return Err(SetError::Key);
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(SetError::Value);
        }
        let entries = self.mine();
        if entries.value(key).is_some_and(|known| **known == *value) {
            return Ok(false);
        }
        if entries.is_full_for(key) {
            return Err(SetError::Full);
        }
        self.write(key, Some(value));
        Ok(true)
    }

    /// How many keys of this node have a value.
    pub fn len(&self) -> usize {
        self.mine().len()
    }

    /// Whether no key of this node has a value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a key of this node may be given a value: it has one, or there are not too many.
    pub fn has_room_for(&self, key: &[u8]) -> bool {
        !self.mine().is_full_for(key)
    }

    /// Deletes a key of this node; false when it had none.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        if self.mine().value(key).is_none() {
            return false;
        }
        self.write(key, None);
        let version = self.mine().version();
        if planted::has(Bug::EarlyCollection) {
            #[cfg(feature = "planted-bugs")]
            self.change_mine(|entries| entries.forget_tombstones(version));
            return true;
        }
        self.graves.push_back((version, self.clock));
        true
    }

    fn write(&mut self, key: &[u8], value: Option<&[u8]>) {
        let before = self.mine().version();
        self.change_mine(|entries| entries.write(key, value));
        self.note(self.me, before, false);
    }

    /// This node's map.
    pub(super) fn mine(&self) -> &Entries {
        let record = self.roster.get(self.me).expect("a node knows itself");
        record.life().entries.as_deref().expect("a node has a map")
    }

    pub(super) fn change_mine(&mut self, how: impl FnOnce(&mut Entries)) {
        self.roster
            .change(self.me, |record| how(Arc::make_mut(record.entries.get_or_insert_default())));
    }

    /// Tells the time of day, in milliseconds since 1970; once a round is often enough. A node whose clock
    /// was wrong when it started is not for ever bound by that.
    pub fn set_time_of_day(&mut self, unix_ms: u64) {
        self.day = (unix_ms, self.clock);
    }

    /// The highest incarnation that is believed by now.
    pub(super) fn highest_incarnation(&self) -> u64 {
        let (unix_ms, at) = self.day;
        highest_incarnation(unix_ms.saturating_add(millis(self.clock.saturating_sub(at))))
    }

    /// What this node says of itself.
    pub(super) fn my_claim(&self) -> Claim {
        self.roster.get(self.me).expect("a node knows itself").claim
    }

    /// Collects this node's own tombstones that are old, or too many.
    pub(super) fn collect(&mut self) {
        let mut floor = 0;
        while let Some(&(version, made)) = self.graves.front() {
            let is_old = made + self.settings.tombstone <= self.clock;
            if !is_old && self.graves.len() <= TOMBSTONES_MAX {
                break;
            }
            floor = version;
            self.graves.pop_front();
        }
        if floor > 0 {
            self.change_mine(|entries| entries.raise_floor(floor));
        }
    }

    /// Begins this node's map again under a higher incarnation than any that was heard.
    pub(super) fn begin_again(&mut self, heard: u64) {
        // An odd one: the process goes on.
        let incarnation = (heard.max(self.my_claim().incarnation) + 1) | 1;
        self.graves.clear();
        self.roster.change(self.me, |record| {
            record.claim = Claim { incarnation, generation: incarnation, status: Status::Alive };
            record.entries = record.entries.take().map(|entries| Arc::new(entries.begun_again()));
        });
        self.reborn = self.round;
        self.counters.rebirths += 1;
        self.note(self.me, 0, true);
    }

    /// Makes a node news.
    pub(super) fn note(&mut self, node: NodeId, before: Version, begins_again: bool) {
        let rounds_hot = Settings::rounds_hot(self.roster.present());
        self.rumors.note(node, before, begins_again, self.round, rounds_hot);
        self.name_news(node);
    }

    /// Names a node's news, if it is any, by what is known now.
    pub(super) fn name_news(&mut self, node: NodeId) {
        if let Some(print) = self.roster.print(node) {
            self.rumors.name(node, print);
        }
    }

    /// When the next round is due, by the caller's clock.
    pub fn next_wake(&self) -> Duration {
        self.due.saturating_sub(self.set_back)
    }

    /// What happened since this was asked last.
    pub fn events(&mut self) -> impl Iterator<Item = Event> + '_ {
        self.events.drain(..)
    }

    pub(super) fn tell(&mut self, event: Event) {
        if self.events.len() >= EVENTS_MAX {
            self.miss_events();
        }
        self.events.push_back(event);
    }

    /// Gives up events that nobody fetched in time, but for those that no look at what is now would find: that
    /// what a node did before does not go on. The last one of each sort and node is kept.
    fn miss_events(&mut self) {
        let mut told = BTreeSet::new();
        let mut kept = VecDeque::new();
        for event in std::mem::take(&mut self.events).into_iter().rev() {
            let what = match event {
                Event::BeganAgain { node, .. } => Some((node, true)),
                Event::Status { node, status } if !status.is_present() => Some((node, false)),
                _ => None,
            };
            match what.is_some_and(|what| told.insert(what)) {
                true => kept.push_front(event),
                false => self.counters.missed_events += u64::from(event != Event::Missed),
            }
        }
        self.events = kept;
        self.events.push_back(Event::Missed);
    }

    /// Every known node, this one among them.
    pub fn nodes(&self) -> impl Iterator<Item = NodeView> + '_ {
        self.roster.iter().map(view)
    }

    /// What is known of a node.
    pub fn node(&self, node: NodeId) -> Option<NodeView> {
        self.roster.get(node).map(view)
    }

    /// A node's keys and values, by key.
    pub fn entries(&self, node: NodeId) -> impl Iterator<Item = (&[u8], &[u8])> + '_ {
        let entries = self.roster.get(node).and_then(|record| record.life().entries.as_deref());
        entries.into_iter().flat_map(Entries::iter).map(|(key, value)| (&**key, &**value))
    }

    /// A node's value for a key.
    pub fn value(&self, node: NodeId, key: &[u8]) -> Option<&[u8]> {
        let entries = self.roster.get(node)?.life().entries.as_deref()?;
        entries.value(key).map(|value| &**value)
    }

    /// Identifies all that is known: of two nodes that know the same it is the same.
    pub fn root(&self) -> u64 {
        self.roster.root()
    }

    /// Whether nothing is being passed on or asked for.
    pub fn is_quiet(&self) -> bool {
        self.rumors.is_quiet() && self.wants.is_empty()
    }

    /// Whether a round is enough that looks whether the watched live: nothing is passed on or asked for,
    /// nobody is suspect, of no node a new life waits to be confirmed by its word, and nobody knew other things
    /// lately.
    pub(super) fn is_settled(&self) -> bool {
        let agrees = self.differing.is_none() && self.differing_rounds == 0;
        let is_sure = self.suspects.is_empty() && self.held.is_empty() && self.disputed.is_empty();
        self.is_quiet() && is_sure && agrees
    }

    /// What happened since the node was made.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The number by which the answers to a round's questions are known.
    pub(super) fn nonce(&self, round: u64) -> u32 {
        mix(self.nonce_key ^ round) as u32
    }

    /// Datagrams in the making, at most so many.
    pub(super) fn pack(&self, datagrams_max: usize) -> Pack {
        let Settings { cluster, .. } = self.settings;
        let header = Header { cluster, sender: self.me, claim: self.my_claim() };
        Pack::new(&header, &self.settings, &self.seal, datagrams_max)
    }

    /// Sends a datagram to a node that is known.
    pub(super) fn send(
        &mut self,
        node: NodeId,
        datagram: &Datagram,
        out: &mut impl FnMut(NodeId, SocketAddr, &[u8]),
    ) {
        let Some(life) = self.roster.life(node) else { return };
        self.counters.datagrams_out += 1;
        self.counters.bytes_out += datagram.bytes.len() as u64;
        for (sum, bytes) in self.counters.bytes_out_of.iter_mut().zip(datagram.of) {
            *sum += u64::from(bytes);
        }
        out(node, life.address(), &datagram.bytes);
    }

    /// Datagrams that what is left of the round's bytes allows.
    pub(super) fn affordable(&self) -> usize {
        self.settings.burst.min(self.allowance / self.settings.datagram)
    }

    /// Sends datagrams that count against the round's bytes.
    pub(super) fn send_packed(
        &mut self,
        node: NodeId,
        pack: Pack,
        out: &mut impl FnMut(NodeId, SocketAddr, &[u8]),
    ) {
        self.counters.deferred += u64::from(pack.is_cut());
        for datagram in pack.finish(&self.seal) {
            self.allowance = self.allowance.saturating_sub(datagram.bytes.len());
            self.send(node, &datagram, out);
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn view(record: Record<'_>) -> NodeView {
    NodeView {
        node: record.node,
        address: record.address(),
        status: record.claim.status,
        incarnation: record.claim.incarnation,
        generation: record.claim.generation,
        version: record.version(),
        entries: record.entries.as_deref().map_or(0, Entries::len),
        is_complete: record.incoming.is_none(),
    }
}
