//! Many nodes' gossip in one thread, over a network that a seed moves: it loses, delays, repeats and
//! parts. The simulator, the benchmark and the tests drive it.
//!
//! Time goes in milliseconds. A same seed with the same calls gives the same history.

mod lies;
pub mod measure;

use super::{Event, Gossip, NodeId, Settings, Status, record::Record, roster::Roster};
use crate::wire::secret::Secret;
use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

/// The longest that a datagram may be under way.
pub const DELAY_MS_MAX: u64 = 10_000;

/// What the network does to datagrams.
#[derive(Clone, Debug)]
pub struct Network {
    /// The part that is lost.
    pub loss: f64,
    /// Milliseconds that a datagram is under way.
    pub delay_ms: RangeInclusive<u64>,
    /// The part that comes a second time.
    pub repeated: f64,
    /// Of those, the second comes later by up to so many milliseconds.
    pub repeated_ms: u64,
}

impl Default for Network {
    fn default() -> Self {
        Self { loss: 0.0, delay_ms: 1..=3, repeated: 0.0, repeated_ms: 1_000 }
    }
}

struct Host {
    /// Nothing while the process is dead.
    gossip: Option<Gossip>,
    /// Its clock is ahead of the world's by so much; it may jump.
    ahead: Duration,
    /// It does not run until then.
    paused_until_ms: u64,
    /// What came while it did not run.
    inbox: VecDeque<(SocketAddr, Arc<[u8]>)>,
    /// It reaches only hosts of the same group.
    group: u8,
    /// The incarnation it starts with next.
    next_incarnation: u64,
}

/// Most datagrams that wait for a host that does not run, as a socket's buffer would hold.
const INBOX_MAX: usize = 512;

/// Most datagrams that are recorded.
const RECORDED_MAX: usize = 4_096;

#[derive(Clone)]
struct Delivery {
    from: NodeId,
    to: NodeId,
    datagram: Arc<[u8]>,
}

/// Hosts 1 to N and the network between them.
pub struct World {
    /// What the network does now.
    pub network: Network,
    settings: Settings,
    secret: Option<Secret>,
    hosts: Vec<Host>,
    /// What is under way, by the millisecond at which it arrives.
    under_way: VecDeque<Vec<Delivery>>,
    now_ms: u64,
    rng: fastrand::Rng,
    in_step: bool,
    /// Nothing that the first sends reaches the second.
    cut: Vec<(NodeId, NodeId)>,
    /// The last datagrams that were sent, when they are recorded.
    recorded: Option<VecDeque<Delivery>>,
    /// Datagrams that were sent.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The largest one.
    pub bytes_max: usize,
    /// Identifies all that was delivered.
    pub history: u64,
}

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
            group: 0,
            next_incarnation: 1_000,
        };
        let mut world = Self {
            network: Network::default(),
            settings,
            secret: None,
            hosts: (0..count).map(host).collect(),
            under_way: VecDeque::new(),
            now_ms: 0,
            rng: fastrand::Rng::with_seed(seed),
            in_step,
            cut: Vec::new(),
            recorded: None,
            datagrams: 0,
            bytes: 0,
            bytes_max: 0,
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
            roster.insert(gossip.roster.get(gossip.me).expect("a node knows itself").clone());
        }
        for host in &mut world.hosts {
            host.gossip.as_mut().expect("all hosts run").roster = roster.clone();
        }
        world
    }

    /// Hosts that are members and have not spoken.
    pub fn strangers(count: usize, settings: Settings, seed: u64) -> Self {
        let mut world = Self::new(count, settings, seed, false);
        let mut roster = Roster::new();
        (1..=count as NodeId).for_each(|node| roster.insert(Record::new(node, address_of(node))));
        for host in &mut world.hosts {
            let gossip = host.gossip.as_mut().expect("all hosts run");
            let mine = gossip.roster.get(gossip.me).expect("a node knows itself").clone();
            gossip.roster = roster.clone();
            gossip.roster.remove(gossip.me);
            gossip.roster.insert(mine);
        }
        world
    }

    /// Gives all hosts that start from now on a secret.
    pub fn seal_with(&mut self, secret: Secret) {
        self.secret = Some(secret);
    }

    /// Starts a host's process; it knows nobody. Its incarnation is higher than all before.
    pub fn start(&mut self, node: NodeId) {
        let seed = self.rng.u64(..);
        let index = node as usize - 1;
        let incarnation = self.hosts[index].next_incarnation;
        self.hosts[index].next_incarnation += 1_000_000;
        let now = self.clock(node);
        let secret = self.secret.clone();
        let settings = self.settings.clone();
        let gossip = Gossip::new(settings, node, incarnation, address_of(node), secret, seed, now);
        self.hosts[index].gossip = Some(gossip);
        self.hosts[index].paused_until_ms = 0;
    }

    /// Ends a host's process at once.
    pub fn kill(&mut self, node: NodeId) {
        self.hosts[node as usize - 1].gossip = None;
        self.hosts[node as usize - 1].inbox.clear();
    }

    /// Lets a host not run for some time.
    pub fn pause(&mut self, node: NodeId, time: Duration) {
        self.hosts[node as usize - 1].paused_until_ms = self.now_ms + time.as_millis() as u64;
    }

    /// Moves a host's clock.
    pub fn turn_clock(&mut self, node: NodeId, ahead: Duration) {
        self.hosts[node as usize - 1].ahead = ahead;
    }

    /// By how much a host's clock is ahead of the world's.
    pub fn ahead(&self, node: NodeId) -> Duration {
        self.hosts[node as usize - 1].ahead
    }

    /// Parts the network: hosts reach only those of the same group.
    pub fn part(&mut self, group: impl Fn(NodeId) -> u8) {
        for (node, host) in (1..).zip(&mut self.hosts) {
            host.group = group(node);
        }
    }

    /// Records the last datagrams from now on, for [`Self::replay`].
    pub fn record(&mut self) {
        self.recorded = Some(VecDeque::new());
    }

    /// Lets everything arrive again that a host sent and that is recorded.
    pub fn replay(&mut self, from: NodeId) {
        let recorded = self.recorded.iter().flatten().filter(|of| of.from == from);
        for delivery in recorded.cloned().collect::<Vec<_>>() {
            self.deliver_in(1, delivery);
        }
    }

    /// Cuts the way from a host to another, in this direction.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.push((from, to));
    }

    /// Mends all ways.
    pub fn mend(&mut self) {
        self.cut.clear();
        self.part(|_| 0);
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
        self.deliver_in(1, Delivery { from, to, datagram: datagram.into() });
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

    fn deliver_in(&mut self, delay_ms: u64, delivery: Delivery) {
        let slot = delay_ms.clamp(1, DELAY_MS_MAX) as usize;
        while self.under_way.len() <= slot {
            self.under_way.push_back(Vec::new());
        }
        self.under_way[slot].push(delivery);
    }

    /// Lets a host do something and takes what it sends.
    fn with(
        &mut self,
        node: NodeId,
        what: impl FnOnce(&mut Gossip, &mut dyn FnMut(NodeId, SocketAddr, &[u8])),
    ) {
        let Some(mut gossip) = self.hosts[node as usize - 1].gossip.take() else { return };
        let mut last: Option<Arc<[u8]>> = None;
        let mut out = |_: NodeId, address: SocketAddr, datagram: &[u8]| {
            // The same bytes to many peers are kept once.
            let bytes = match last.take() {
                Some(bytes) if *bytes == *datagram => bytes,
                _ => datagram.into(),
            };
            last = Some(bytes.clone());
            self.post(node, address, bytes);
        };
        what(&mut gossip, &mut out);
        self.hosts[node as usize - 1].gossip = Some(gossip);
    }

    fn post(&mut self, from: NodeId, address: SocketAddr, datagram: Arc<[u8]>) {
        self.datagrams += 1;
        self.bytes += datagram.len() as u64;
        self.bytes_max = self.bytes_max.max(datagram.len());
        let to = node_at(address).filter(|to| (1..=self.hosts.len() as u64).contains(to));
        let Some(to) = to else { return };
        let (from_group, to_group) =
            (self.hosts[from as usize - 1].group, self.hosts[to as usize - 1].group);
        if self.cut.contains(&(from, to)) {
            return;
        }
        if from_group != to_group || self.network.loss > 0.0 && self.rng.f64() < self.network.loss {
            return;
        }
        if let Some(recorded) = &mut self.recorded {
            recorded.push_back(Delivery { from, to, datagram: datagram.clone() });
            if recorded.len() > RECORDED_MAX {
                recorded.pop_front();
            }
        }
        let delay_ms = self.rng.u64(self.network.delay_ms.clone());
        if self.network.repeated > 0.0 && self.rng.f64() < self.network.repeated {
            let later_ms = delay_ms + self.rng.u64(..=self.network.repeated_ms);
            self.deliver_in(later_ms, Delivery { from, to, datagram: datagram.clone() });
        }
        self.deliver_in(delay_ms, Delivery { from, to, datagram });
    }

    /// Lets time go on by a millisecond; `see` hears of every event: at which host, and what.
    pub fn step(&mut self, see: &mut impl FnMut(u64, NodeId, Event)) {
        self.now_ms += 1;
        self.under_way.pop_front();
        let arrived = self.under_way.front_mut().map(std::mem::take).unwrap_or_default();
        for Delivery { from, to, datagram } in arrived {
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
            if self.hosts[index].gossip.is_some()
                && self.hosts[index].paused_until_ms <= self.now_ms
            {
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
        let is_running = |node: NodeId| self.gossip(node).is_some();
        for &node in &running {
            let gossip = self.gossip(node)?;
            if gossip.root() != first.root() {
                let other = |record: &&Record| {
                    let theirs = first.roster.get(record.node).map(Record::fingerprint);
                    theirs != Some(record.fingerprint())
                };
                let views = gossip
                    .roster
                    .iter()
                    .find(other)
                    .map(|record| (gossip.node(record.node), first.node(record.node)));
                return Some(format!("{node} and {} differ: {views:?}", first.me));
            }
            for view in gossip.nodes() {
                let is_alive = view.status == Status::Alive;
                if is_alive != is_running(view.node) {
                    return Some(format!("{} is {:?} to {node}", view.node, view.status));
                }
                if is_alive && !view.is_complete {
                    return Some(format!("the map of {} is not whole at {node}", view.node));
                }
                let owner = self.gossip(view.node);
                if owner
                    .is_some_and(|owner| !owner.entries(view.node).eq(gossip.entries(view.node)))
                {
                    return Some(format!("{node} has other entries of {} than it has", view.node));
                }
            }
            if let Some(unknown) = running.iter().find(|other| gossip.node(**other).is_none()) {
                return Some(format!("{node} does not know {unknown}"));
            }
        }
        None
    }
}
