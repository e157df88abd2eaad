//! `consensus_log`: what the log threads of 1, 3 and 5 nodes commit together, without tasks. The same for
//! nodes that may lie is in `agreement.rs`.
//!
//! A node is here what a served one has of consensus: its log thread, its folder on the disk, and
//! sockets to the others on the loopback. One thread plays the shards of all nodes: it keeps a window
//! of operations under way in each partition, counts what is committed, and reads what followers are
//! told, so that in the end every node has every operation. An operation is a record with a body of
//! 16 random bytes, which do not compress.
//!
//! Throughput: as many as fit. Finality: operations are appended at a fixed rate whatever becomes of
//! those before, and a latency counts from the time at which its operation should have been appended.

use super::{Effort, Measured, disk, served::Scratch};
use crate::{
    consensus::{
        News, Record,
        assemble::CHECKPOINT_ENTRIES,
        cluster::Address,
        lane::LaneLog,
        open::{self, OpenLog, Seat, Settings},
        pbft::{Company, Identity, Ring, Terms},
        peers::{self, Limits, NodeId, Signing, Timing},
    },
    metrics::Latency,
    runtime::doorbell::Doorbell,
    wire::{
        api::TaskStatus,
        id::{PartitionIndex, TaskId},
    },
};
use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Bytes of an operation's body.
const BODY_BYTES: u64 = 16;
/// Partitions, each with a leader of its own.
pub(super) const PARTITIONS: PartitionIndex = 5;
/// Operations of a partition under way.
pub(super) const WINDOW: u64 = 16_384;
/// Operations in a second while finality is measured.
const PACE: u64 = 100_000;
/// The number of the cluster.
const CLUSTER: u128 = 1;
/// What a node's log keeps, as much as it is by default.
const KEEP_BYTES: u64 = 512 << 20;
/// What nodes count time in: an election must not begin because this machine is busy.
const TICK_MS: u64 = 100;
/// How long nodes may take to agree, or to hear of everything.
const LIMIT: Duration = Duration::from_secs(60);
/// What the seed asks of five nodes, operations in a second.
const TARGET: f64 = 100_000.0;
/// Our own goal.
const GOAL: f64 = 1_000_000.0;

/// Measures 1, 3 and 5 nodes one after the other, and the finality of five.
///
/// # Errors
/// When a log cannot be opened, nobody leads in time, or an operation is lost.
pub(super) fn run(effort: &Effort, folder: &Path) -> io::Result<Measured> {
    let seconds = effort.seconds.min(effort.choose((5.0, 0.5)));
    let scratch = Scratch::new(folder, "consensus-log")?;
    let disk_before = disk::synced_writes(scratch.path())?;
    let measure = |count| {
        let of_these = Scratch::new(scratch.path(), &format!("nodes-{count}"))?;
        let mut nodes = Nodes::start(count, Protocol::Raft, of_these.path())?;
        let rates = effort.rounds(|| nodes.keep_full(seconds))?;
        let finality = nodes.keep_pace(effort.rate.unwrap_or(PACE), seconds)?;
        Ok::<_, io::Error>((rates, finality))
    };
    let ((alone, _), (three, _)) = (measure(1)?, measure(3)?);
    let (five, finality) = measure(5)?;
    let mut disk = disk_before;
    disk.merge(&disk::synced_writes(scratch.path())?);
    let best = |rates: &[f64]| rates.iter().copied().fold(0.0, f64::max).round();
    let goal_ms = 2.0 + 5.0 * disk.quantile_ms(0.5);
    let p99_ms = finality.quantile_ms(0.99);
    let measured = Measured::throughput("consensus_log", "throughput_ops_per_s", five);
    Ok(measured
        .with("nodes", 5)
        .with("operation_bytes", BODY_BYTES)
        .with_value("nodes_1_ops_per_s", best(&alone))
        .with_value("nodes_3_ops_per_s", best(&three))
        .with("finality_rate_per_s", effort.rate.unwrap_or(PACE))
        .with_exact("finality_p50_ms", finality.quantile_ms(0.5))
        .with_exact("finality_p99_ms", p99_ms)
        .with_exact("finality_p99_goal_ms", goal_ms)
        .with_truth("finality_goal_met", p99_ms <= goal_ms)
        .with_exact("disk_p50_ms", disk.quantile_ms(0.5))
        .with_latency(finality)
        .target(TARGET, GOAL))
}

/// A partition, as the thread that plays its shards sees it.
struct Led {
    /// The node that leads it.
    node: usize,
    /// Records of it that were committed.
    committed: u64,
    /// When each record that is under way should have been appended; empty while nobody asks.
    due: VecDeque<Instant>,
}

/// How nodes agree.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Raft,
    /// PBFT; with tentative answers or without.
    Pbft {
        is_tentative: bool,
    },
}

/// Nodes of a cluster.
pub(super) struct Nodes {
    pub(super) logs: Vec<OpenLog>,
    /// By node and partition: records of others that it was told.
    told: Vec<Vec<u64>>,
    /// Those of them that some node asked for.
    pub(super) told_asked: Vec<Vec<u64>>,
    leads: Vec<Vec<bool>>,
    led: Vec<Led>,
    finality: Latency,
}

impl Nodes {
    /// Starts them, and waits until every partition is led by the node whose turn it is.
    pub(super) fn start(count: NodeId, protocol: Protocol, folder: &Path) -> io::Result<Self> {
        let peers = (1..=count).map(|node| Ok((node, free_address()?)));
        let peers: Vec<(NodeId, SocketAddr)> = peers.collect::<io::Result<_>>()?;
        let opened = peers.iter().map(|(node, _)| open_node(*node, protocol, &peers, folder));
        let logs: Vec<OpenLog> = opened.collect::<io::Result<_>>()?;
        let partitions = usize::from(PARTITIONS);
        let mut nodes = Self {
            told: vec![vec![0; partitions]; logs.len()],
            told_asked: vec![vec![0; partitions]; logs.len()],
            leads: vec![vec![false; partitions]; logs.len()],
            logs,
            led: Vec::new(),
            finality: Latency::new(),
        };
        // Leaders that are spread later would take operations with them.
        let settled = |nodes: &Self| {
            (0..partitions).all(|partition| nodes.leads[partition % nodes.logs.len()][partition])
        };
        nodes.until("every partition has the leader that it should have", settled)?;
        for partition in 0..partitions {
            let node = partition % nodes.logs.len();
            let committed = nodes.lane(node, partition).append_position().0;
            nodes.led.push(Led { node, committed, due: VecDeque::new() });
        }
        Ok(nodes)
    }

    /// Ends a node: it says nothing any more.
    pub(super) fn silence(&mut self, node: usize) {
        drop(self.logs.remove(node));
        self.told.remove(node);
        self.told_asked.remove(node);
        self.leads.remove(node);
    }

    pub(super) fn lane(&mut self, node: usize, partition: usize) -> &mut LaneLog {
        &mut self.logs[node].lanes[partition]
    }

    pub(super) fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> io::Result<()> {
        let late = Instant::now() + LIMIT;
        while !holds(self) {
            if Instant::now() >= late {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("not in time: {what}"),
                ));
            }
            self.turn()?;
        }
        Ok(())
    }

    /// Sends what was appended and takes what is told.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        let mut is_quiet = true;
        for node in 0..self.logs.len() {
            for partition in 0..usize::from(PARTITIONS) {
                let lane = self.lane(node, partition);
                // Nothing lives in it: there is nothing to move out of old segments.
                let leaves = lane.move_before();
                if leaves > 0 {
                    lane.moved_before(leaves);
                }
                lane.flush();
                while let Some(news) = self.lane(node, partition).next_news() {
                    is_quiet = false;
                    self.take(node, partition, news)?;
                }
            }
        }
        if is_quiet {
            thread::yield_now();
        }
        Ok(())
    }

    fn take(&mut self, node: usize, partition: usize, news: News) -> io::Result<()> {
        match news {
            News::Committed(committed) => {
                let led = &mut self.led[partition];
                let now = Instant::now();
                let count = (committed.upto.0 - led.committed) as usize;
                led.committed = committed.upto.0;
                for due in led.due.drain(..count.min(led.due.len())) {
                    self.finality.record((now - due).as_nanos() as u64);
                }
            }
            News::Foreign(foreign) => {
                let told = &mut self.told[node][partition];
                let asked = &mut self.told_asked[node][partition];
                let count = |_, record: Record<'_>| {
                    *told += 1;
                    *asked += u64::from(matches!(record, Record::Submitted { is_asked: true, .. }));
                };
                foreign.records(count).map_err(io::Error::other)?;
            }
            News::Lead => self.leads[node][partition] = true,
            News::Follow { .. } => {
                if self.led.get(partition).is_some_and(|led| led.node == node) {
                    let text =
                        "a leader was replaced while it was measured: the machine stood still";
                    return Err(io::Error::other(text));
                }
                self.leads[node][partition] = false;
                self.told[node][partition] = 0;
                self.told_asked[node][partition] = 0;
            }
            // Nothing lives in it.
            News::Compacted(compacted) => self.lane(node, partition).cleared(compacted.upto),
            News::Beside(_) | News::CaughtUp | News::Claimed(_) | News::Read(_) => {}
        }
        Ok(())
    }

    /// Appends an operation where it may be appended; whether it was.
    fn append(&mut self, partition: usize) -> bool {
        let Led { node, committed, .. } = self.led[partition];
        let lane = self.lane(node, partition);
        if lane.append_position().0 - committed >= WINDOW || !lane.has_room() {
            return false;
        }
        let (random, body) = (fastrand::u128(..), fastrand::u128(..).to_le_bytes());
        let id = TaskId { partition: partition as PartitionIndex, random };
        let status = TaskStatus::Done;
        lane.append(Record::Ended { id, status, attempts: 1, ended_unix_ms: 1, body: &body });
        true
    }

    fn committed(&self) -> u64 {
        self.led.iter().map(|led| led.committed).sum()
    }

    /// Keeps as many under way as may be; operations committed in a second.
    pub(super) fn keep_full(&mut self, seconds: f64) -> io::Result<f64> {
        let (before, began, mut appended) = (self.committed(), Instant::now(), false);
        while began.elapsed().as_secs_f64() < seconds {
            for partition in 0..usize::from(PARTITIONS) {
                while self.append(partition) {
                    appended = true;
                }
            }
            self.turn()?;
        }
        let rate = (self.committed() - before) as f64 / began.elapsed().as_secs_f64();
        had_room(appended)?;
        self.settle()?;
        Ok(rate)
    }

    /// Appends at a rate; how long each operation took until it was committed.
    pub(super) fn keep_pace(&mut self, rate: u64, seconds: f64) -> io::Result<Latency> {
        let between = Duration::from_secs_f64(1.0 / rate as f64);
        let count = (rate as f64 * seconds) as u64;
        let (began, mut sent) = (Instant::now(), 0);
        while sent < count {
            while sent < count {
                let due = began + between.mul_f64(sent as f64);
                let partition = (sent % u64::from(PARTITIONS)) as usize;
                if due > Instant::now() || !self.append(partition) {
                    break;
                }
                self.led[partition].due.push_back(due);
                sent += 1;
            }
            self.turn()?;
        }
        self.settle()?;
        Ok(std::mem::take(&mut self.finality))
    }

    /// Waits until everything is committed and every node was told everything.
    fn settle(&mut self) -> io::Result<()> {
        let partitions = 0..usize::from(PARTITIONS);
        let all: Vec<u64> = partitions
            .map(|partition| {
                let node = self.led[partition].node;
                self.lane(node, partition).append_position().0
            })
            .collect();
        self.until("every node has every operation", |nodes| {
            let is_settled = |(partition, all): (usize, &u64)| {
                let led = &nodes.led[partition];
                let has_all = |node: usize| node == led.node || nodes.told[node][partition] >= *all;
                led.committed == *all && (0..nodes.logs.len()).all(has_all)
            };
            all.iter().enumerate().all(is_settled)
        })
    }
}

/// That logs took what was measured.
///
/// # Errors
/// They did not.
pub(super) fn had_room(it: bool) -> io::Result<()> {
    match it {
        true => Ok(()),
        false => Err(io::Error::other("nothing was measured: no log had room all the time")),
    }
}

/// An address of the loopback that nobody listens on: one of 16 million, as somebody else may take a port of
/// 127.0.0.1 before the node does.
fn free_address() -> io::Result<SocketAddr> {
    let [one, two, three] = std::array::from_fn(|_| fastrand::u8(1..=254));
    TcpListener::bind((Ipv4Addr::new(127, one, two, three), 0))?.local_addr()
}

/// The key of a node of a bench: anybody can make it.
fn identity(node: NodeId) -> Identity {
    let mut secret = [0xb3; 32];
    secret[..8].copy_from_slice(&node.to_le_bytes());
    Identity::from_secret(&secret)
}

/// Who a node of a bench is among these, where nodes may lie.
pub(super) fn company(node: NodeId, nodes: &[NodeId]) -> io::Result<Company> {
    let ring = Ring::new(nodes.iter().map(|id| (*id, identity(*id).public())));
    Ok(Company {
        node,
        identity: identity(node),
        ring: ring.map_err(io::Error::other)?,
        cluster: CLUSTER,
        generation: 1,
        nodes: nodes.to_vec(),
        terms: Terms { key_ttl_ms: 1, payload_bytes_max: 1 << 20 },
    })
}

fn open_node(
    node: NodeId,
    protocol: Protocol,
    peers: &[(NodeId, SocketAddr)],
    folder: &Path,
) -> io::Result<OpenLog> {
    let nodes: Vec<NodeId> = peers.iter().map(|(id, _)| *id).collect();
    let company = match protocol {
        Protocol::Raft => None,
        _ => Some(company(node, &nodes)?),
    };
    let signing = company
        .as_ref()
        .map(|company| Signing { identity: company.identity.clone(), ring: company.ring.clone() });
    let listen = peers.iter().find(|(id, _)| *id == node).map(|(_, address)| *address);
    let links = listen.filter(|_| peers.len() > 1).map(|listen| peers::Config {
        cluster: CLUSTER,
        node,
        listen,
        secret: None,
        signing,
        seed: node,
        limits: Limits::default(),
        timing: Timing::default(),
    });
    // Nobody asks anything of these nodes.
    let address = |peers| Address { peers, rpc: peers };
    let seat = Seat {
        node,
        voters: nodes,
        partitions: Some(PARTITIONS),
        tick_ms: TICK_MS,
        nodes: peers.iter().map(|(id, peers)| (*id, address(*peers))).collect(),
        links,
        company,
        checkpoint_entries: CHECKPOINT_ENTRIES,
        begun_file: None,
        is_tentative: protocol == Protocol::Pbft { is_tentative: true },
    };
    let settings = Settings {
        folder: folder.join(format!("node-{node}")),
        segment_bytes: 64 << 20,
        keep_bytes: KEEP_BYTES,
        block_bytes: 1 << 20,
        cpu: None,
        realtime: true,
    };
    let bell = Doorbell::new()?;
    open::open(settings, &seat, &[bell], &mut |_| {}).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_nodes_have_what_was_appended_at_a_rate_and_as_fast_as_they_can() {
        let scratch = Scratch::new(&std::env::temp_dir(), "replicated-log-test").expect("a folder");
        let mut nodes = Nodes::start(3, Protocol::Raft, scratch.path()).expect("they agree");
        assert!(nodes.keep_full(0.2).expect("nothing is lost") > 0.0);
        let finality = nodes.keep_pace(1000, 0.2).expect("nothing is lost");
        assert_eq!(finality.count(), 200);
        assert!(nodes.committed() >= 200);
    }
}
