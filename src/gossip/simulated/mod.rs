//! Many nodes' gossip in one thread, over a network that a seed moves: it loses, delays, repeats and
//! parts. The simulator, the benchmark and the tests drive it.
//!
//! Time goes in milliseconds. A same seed with the same calls gives the same history.

mod lies;
pub mod measure;
mod medium;

pub use medium::{DELAY_MS_MAX, Network};

use super::{
    Event, Gossip, NodeId, Settings, Status,
    record::{Claim, Life, Record},
    roster::{Pool, Roster},
};
use crate::wire::secret::Secret;
use medium::{Delivery, Medium};
use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

struct Host {
    /// Nothing while the process is dead.
    gossip: Option<Gossip>,
    /// Its clock is ahead of the world's by so much; it may jump.
    ahead: Duration,
    /// It does not run until then.
    paused_until_ms: u64,
    /// What came while it did not run.
    inbox: VecDeque<(SocketAddr, Arc<[u8]>)>,
    /// The incarnation that it started with last.
    incarnation: u64,
}

/// Most datagrams that wait for a host that does not run, as a socket's buffer would hold.
const INBOX_MAX: usize = 512;

/// Hosts 1 to N and the network between them.
pub struct World {
    /// What the network does now.
    pub network: Network,
    settings: Settings,
    secret: Option<Secret>,
    hosts: Vec<Host>,
    /// Before it a host has nothing to do but to receive, by its place.
    wake_ms: Vec<u64>,
    medium: Medium,
    /// All hosts as members that have not spoken, once somebody needed that.
    members: Option<Roster>,
    now_ms: u64,
    rng: fastrand::Rng,
    in_step: bool,
    /// Identifies all that was delivered.
    pub history: u64,
}

/// When it all begins, in milliseconds since 1970.
const UNIX_MS: u64 = 1_790_000_000_000;

/// Where a host listens.
pub fn address_of(node: NodeId) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(0x0a00_0000 + node as u32), 7_452))
}

/// The host behind an address.
fn node_at(address: SocketAddr) -> Option<NodeId> {
    match address {
        SocketAddr::V4(v4) => Some(u64::from(u32::from(*v4.ip()).checked_sub(0x0a00_0000)?)),
        SocketAddr::V6(_) => None,
    }
}

impl World {
    /// So many hosts that know nobody. With `in_step` all of them begin their rounds at the same
    /// moments, and otherwise at moments of their own.
    pub fn new(count: usize, settings: Settings, seed: u64, in_step: bool) -> Self {
        let host = |_| Host {
            gossip: None,
            ahead: Duration::ZERO,
            paused_until_ms: 0,
            inbox: VecDeque::new(),
            incarnation: 0,
        };
        let mut world = Self {
            network: Network::default(),
            settings,
            secret: None,
            hosts: (0..count).map(host).collect(),
            wake_ms: vec![u64::MAX; count],
            medium: Medium::between(count),
            members: None,
            now_ms: 0,
            rng: fastrand::Rng::with_seed(seed),
            in_step,
            history: 0,
        };
        for node in 1..=count as NodeId {
            world.start(node);
        }
        world
    }

    /// Hosts that know each other, as after a long quiet time.
    pub fn informed(count: usize, settings: Settings, seed: u64, in_step: bool) -> Self {
        let mut world = Self::new(count, settings, seed, in_step);
        let mut roster = Roster::new();
        for host in &world.hosts {
            let gossip = host.gossip.as_ref().expect("all hosts run");
            let record = gossip.roster.get(gossip.me).expect("a node knows itself");
            roster.insert(record.claim, record.life().clone());
        }
        for host in &mut world.hosts {
            host.gossip.as_mut().expect("all hosts run").roster = roster.clone();
        }
        world
    }

    /// Hosts that are members and have not spoken.
    pub fn strangers(count: usize, settings: Settings, seed: u64) -> Self {
        let mut world = Self::new(count, settings, seed, false);
        (1..=count as NodeId).for_each(|node| world.introduce(node));
        world
    }

    /// Names all hosts to one that has just started.
    pub fn introduce(&mut self, node: NodeId) {
        let count = self.hosts.len() as NodeId;
        let members = self.members.get_or_insert_with(|| {
            let mut members = Roster::new();
            (1..=count)
                .for_each(|node| members.insert(Claim::UNHEARD, Life::new(node, address_of(node))));
            members
        });
        let Some(gossip) = &mut self.hosts[node as usize - 1].gossip else { return };
        let mine = gossip.roster.get(gossip.me).expect("a node knows itself");
        let (claim, life) = (mine.claim, mine.life().clone());
        gossip.roster = members.clone();
        gossip.roster.remove(gossip.me);
        gossip.roster.insert(claim, life);
    }

    /// Keeps once what several hosts know alike. It changes nothing but the memory that the world takes.
    pub fn share(&mut self) {
        let mut pool = Pool::default();
        for gossip in self.hosts.iter_mut().filter_map(|host| host.gossip.as_mut()) {
            gossip.roster.share(&mut pool);
        }
    }

    /// Gives all hosts that start from now on a secret.
    pub fn seal_with(&mut self, secret: Secret) {
        self.secret = Some(secret);
    }

    /// Starts a host's process; it knows nobody. Its incarnation is higher than all before.
    pub fn start(&mut self, node: NodeId) {
        let seed = self.rng.u64(..);
        let index = node as usize - 1;
        let now = self.clock(node);
        let incarnation = (UNIX_MS + now.as_millis() as u64).max(self.hosts[index].incarnation + 2);
        self.hosts[index].incarnation = incarnation;
        let secret = self.secret.clone();
        let settings = self.settings.clone();
        let gossip = Gossip::new(settings, node, incarnation, address_of(node), secret, seed, now);
        self.hosts[index].gossip = Some(gossip);
        self.hosts[index].paused_until_ms = 0;
        self.wake_ms[index] = self.now_ms;
    }

    /// Ends a host's process at once.
    pub fn kill(&mut self, node: NodeId) {
        self.hosts[node as usize - 1].gossip = None;
        self.hosts[node as usize - 1].inbox.clear();
        self.wake_ms[node as usize - 1] = u64::MAX;
    }

    /// Lets a host not run for some time.
    pub fn pause(&mut self, node: NodeId, time: Duration) {
        let until_ms = self.now_ms + time.as_millis() as u64;
        let host = &mut self.hosts[node as usize - 1];
        host.paused_until_ms = until_ms;
        if host.gossip.is_some() {
            self.wake_ms[node as usize - 1] = until_ms;
        }
    }

    /// Moves a host's clock.
    pub fn turn_clock(&mut self, node: NodeId, ahead: Duration) {
        let host = &mut self.hosts[node as usize - 1];
        host.ahead = ahead;
        if host.gossip.is_some() {
            self.wake_ms[node as usize - 1] = host.paused_until_ms;
        }
    }

    /// By how much a host's clock is ahead of the world's.
    pub fn ahead(&self, node: NodeId) -> Duration {
        self.hosts[node as usize - 1].ahead
    }

    /// Parts the network: hosts reach only those of the same group.
    pub fn part(&mut self, group: impl Fn(NodeId) -> u8) {
        self.medium.part(group);
    }

    /// Records the last datagrams from now on, for [`Self::replay`].
    pub fn record(&mut self) {
        self.medium.record();
    }

    /// Lets everything arrive again that a host sent and that is recorded.
    pub fn replay(&mut self, from: NodeId) {
        self.medium.replay(from);
    }

    /// Cuts the way from a host to another, in this direction.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.medium.cut(from, to);
    }

    /// Mends all ways.
    pub fn mend(&mut self) {
        self.medium.mend();
    }

    /// A host's gossip, while its process runs.
    pub fn gossip(&self, node: NodeId) -> Option<&Gossip> {
        self.hosts[node as usize - 1].gossip.as_ref()
    }

    /// A host's gossip, to be changed.
    pub fn gossip_mut(&mut self, node: NodeId) -> Option<&mut Gossip> {
        self.hosts[node as usize - 1].gossip.as_mut()
    }

    /// Says goodbye for a host and ends its process.
    pub fn leave(&mut self, node: NodeId) {
        let clock = self.clock(node);
        self.with(node, |gossip, mut out| gossip.leave(clock, &mut out));
        self.kill(node);
    }

    /// Lets a datagram arrive that nobody sent.
    pub fn inject(&mut self, from: NodeId, to: NodeId, datagram: &[u8]) {
        self.medium.deliver_in(1, Delivery { from, to, datagram: datagram.into() });
    }

    /// Hosts, running or not.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether there are no hosts.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Hosts whose process runs.
    pub fn running(&self) -> impl Iterator<Item = NodeId> + '_ {
        (1..).zip(&self.hosts).filter(|(_, host)| host.gossip.is_some()).map(|(node, _)| node)
    }

    /// Milliseconds since the world began.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// A host's clock.
    fn clock(&self, node: NodeId) -> Duration {
        Duration::from_millis(self.now_ms) + self.hosts[node as usize - 1].ahead
    }

    /// Datagrams that were sent.
    pub fn datagrams(&self) -> u64 {
        self.medium.datagrams
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.medium.bytes
    }

    /// The largest one's.
    pub fn bytes_max(&self) -> usize {
        self.medium.bytes_max
    }

    /// Lets a host do something and takes what it sends.
    fn with(
        &mut self,
        node: NodeId,
        what: impl FnOnce(&mut Gossip, &mut dyn FnMut(NodeId, SocketAddr, &[u8])),
    ) {
        let Some(gossip) = &mut self.hosts[node as usize - 1].gossip else { return };
        let (medium, network, rng) = (&mut self.medium, &self.network, &mut self.rng);
        let mut last: Option<Arc<[u8]>> = None;
        let mut out = |_: NodeId, address: SocketAddr, datagram: &[u8]| {
            // The same bytes to many peers are kept once.
            let bytes = match last.take() {
                Some(bytes) if *bytes == *datagram => bytes,
                _ => datagram.into(),
            };
            last = Some(bytes.clone());
            medium.post(network, rng, node, address, bytes);
        };
        what(gossip, &mut out);
    }

    /// Lets time go on by a millisecond; `see` hears of every event: at which host, and what.
    pub fn step(&mut self, see: &mut impl FnMut(u64, NodeId, Event)) {
        self.now_ms += 1;
        for Delivery { from, to, datagram } in self.medium.arrived() {
            let host = &mut self.hosts[to as usize - 1];
            if host.gossip.is_none() {
                continue;
            }
            if host.paused_until_ms > self.now_ms {
                if host.inbox.len() < INBOX_MAX {
                    host.inbox.push_back((address_of(from), datagram));
                }
                continue;
            }
            self.receive(address_of(from), to, &datagram, see);
        }
        for index in 0..self.hosts.len() {
            if self.wake_ms[index] <= self.now_ms {
                self.run_host(index as NodeId + 1, see);
            }
        }
    }

    fn receive(
        &mut self,
        from: SocketAddr,
        to: NodeId,
        datagram: &[u8],
        see: &mut impl FnMut(u64, NodeId, Event),
    ) {
        let clock = self.clock(to);
        let mark = super::record::mix(datagram.len() as u64 ^ to << 20 ^ self.now_ms << 40);
        self.history = self.history.rotate_left(5) ^ mark;
        self.with(to, |gossip, mut out| gossip.receive(clock, from, datagram, &mut out));
        self.show(to, see);
    }

    /// Runs a host's round when it is due, and what came while it did not run.
    fn run_host(&mut self, node: NodeId, see: &mut impl FnMut(u64, NodeId, Event)) {
        let (clock, index) = (self.clock(node), node as usize - 1);
        let due = self.hosts[index].gossip.as_ref().map_or(Duration::MAX, Gossip::next_wake);
        let interval_ms = self.settings.interval.as_millis() as u64;
        let may_run = !self.in_step || self.now_ms.is_multiple_of(interval_ms);
        if clock >= due && may_run {
            self.with(node, |gossip, mut out| gossip.tick(clock, &mut out));
            self.show(node, see);
        }
        while let Some((from, datagram)) = self.hosts[index].inbox.pop_front() {
            self.receive(from, node, &datagram, see);
        }
        self.wake_ms[index] = self.wake_of(index);
    }

    /// When a host's next round is due, rounded up to the world's time.
    fn wake_of(&self, index: usize) -> u64 {
        let host = &self.hosts[index];
        let due = host.gossip.as_ref().map_or(Duration::MAX, Gossip::next_wake);
        let due = due.saturating_sub(host.ahead).as_nanos().div_ceil(1_000_000) as u64;
        match self.in_step {
            true => due.next_multiple_of(self.settings.interval.as_millis() as u64),
            false => due,
        }
    }

    fn show(&mut self, node: NodeId, see: &mut impl FnMut(u64, NodeId, Event)) {
        let now_ms = self.now_ms;
        let Some(gossip) = self.gossip_mut(node) else { return };
        gossip.events().for_each(|event| see(now_ms, node, event));
    }

    /// Lets time go on until something is so, for at most some milliseconds; gives whether it is.
    pub fn run_until(
        &mut self,
        limit_ms: u64,
        see: &mut impl FnMut(u64, NodeId, Event),
        mut is_so: impl FnMut(&Self) -> bool,
    ) -> bool {
        let end_ms = self.now_ms + limit_ms;
        while self.now_ms < end_ms {
            if is_so(self) {
                return true;
            }
            self.step(see);
        }
        is_so(self)
    }

    /// Lets time go on.
    pub fn run(&mut self, time_ms: u64) {
        self.run_until(time_ms, &mut |_, _, _| (), |_| false);
    }

    /// Where two running hosts disagree, or a running one is not alive to another, or one that does
    /// not run is alive to one that does; nothing when all agree.
    pub fn disagreement(&self) -> Option<String> {
        let running: Vec<_> = self.running().collect();
        let first = self.gossip(*running.first()?)?;
        for &node in &running {
            let gossip = self.gossip(node)?;
            if gossip.root() == first.root() {
                continue;
            }
            let other = |record: &Record<'_>| {
                let theirs = first.roster.get(record.node).map(|record| record.fingerprint());
                theirs != Some(record.fingerprint())
            };
            let views = gossip
                .roster
                .iter()
                .find(other)
                .map(|record| (gossip.node(record.node), first.node(record.node)));
            return Some(format!("{node} and {} differ: {views:?}", first.me));
        }
        if let Some(unknown) = running.iter().find(|other| first.node(**other).is_none()) {
            return Some(format!("{} does not know {unknown}", first.me));
        }
        running.iter().find_map(|node| {
            let roster = &self.gossip(*node)?.roster;
            let is_first = *node == first.me;
            let all = is_first.then(|| roster.iter());
            // What is the same was looked at already.
            let others = (!is_first).then(|| roster.differing(&first.roster));
            let mut records = all.into_iter().flatten().chain(others.into_iter().flatten());
            records.find_map(|record| self.objection(*node, record))
        })
    }

    /// What is wrong with what a host knows of another.
    fn objection(&self, at: NodeId, record: Record<'_>) -> Option<String> {
        let (node, status) = (record.node, record.claim.status);
        let owner = self.gossip(node);
        if (status == Status::Alive) != owner.is_some() {
            return Some(format!("{node} is {status:?} to {at}"));
        }
        let owner = owner?;
        if record.incoming.is_some() {
            return Some(format!("the map of {node} is not whole at {at}"));
        }
        let (mine, known) = (owner.mine(), record.entries.as_deref());
        // Of a node that has no entries none are known.
        let is_same = match known {
            Some(known) => std::ptr::eq(mine, known) || mine.iter().eq(known.iter()),
            None => mine.len() == 0,
        };
        (!is_same).then(|| format!("{at} has other entries of {node} than it has"))
    }
}
