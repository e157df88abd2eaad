//! The nodes of a cluster: started together, asked who leads, killed and started again.

use crate::{
    bench::{
        Effort,
        served::{self, Plan, Scratch, Served},
        work::{LIMIT, REMOTE_TYPE, failed},
    },
    client::{Client, Params, View},
    config::{AgentKind, ClusterStart, Config, NodeEntry},
};
use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// How long anything that is waited for may take.
const WAIT_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether it is so.
const LOOK: Duration = Duration::from_millis(10);
/// How long leaders that stay are the same: several looks of those who would change them.
const SETTLED: Duration = Duration::from_secs(2);
/// What a node may take to answer a question about the cluster.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// A partition as a node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who leads it.
    pub leader: Option<u64>,
    /// The latest term that the node knows.
    pub term: u64,
}

/// Nodes in processes of their own, numbered from 1.
pub struct Nodes {
    entries: Vec<NodeEntry>,
    plans: Vec<Plan>,
    served: Vec<Option<Served>>,
    // Goes last: the nodes have their logs in it.
    _scratch: Scratch,
}

impl Nodes {
    /// Starts so many nodes and waits until all name the same leaders. `way` tells where the first
    /// node finds the second one, which is at the given address.
    ///
    /// # Errors
    /// When a node does not start, or they do not find each other.
    pub fn start(
        config: &Config,
        count: usize,
        folder: &Path,
        way: impl Fn(u64, &NodeEntry) -> io::Result<SocketAddr>,
    ) -> io::Result<Self> {
        let scratch = Scratch::new(folder, &format!("cluster-{count}"))?;
        let entries = entries(count)?;
        let mut plans = Vec::new();
        for own in &entries {
            let mut seen = entries.clone();
            for other in seen.iter_mut().filter(|other| other.id != own.id) {
                other.peers = way(own.id, other)?;
            }
            plans.push(plan(config, own.id, seen, scratch.path())?);
        }
        let served = plans.iter().map(|plan| plan.start().map(Some)).collect::<io::Result<_>>()?;
        let nodes = Self { entries, plans, served, _scratch: scratch };
        nodes.until_led()?;
        Ok(nodes)
    }

    /// Where clients reach a node, whether it runs or not.
    pub fn rpc(&self, node: u64) -> SocketAddr {
        self.entries[node as usize - 1].rpc
    }

    /// The numbers of the nodes that run.
    pub fn running(&self) -> impl Iterator<Item = u64> {
        let runs = |node: &NodeEntry| self.served[node.id as usize - 1].is_some();
        self.entries.iter().filter(move |node| runs(node)).map(|node| node.id)
    }

    /// Kills a node with SIGKILL.
    pub fn kill(&mut self, node: u64) -> io::Result<()> {
        let served = self.served[node as usize - 1].take();
        served.map_or(Ok(()), Served::kill)
    }

    /// Starts a node that was killed.
    pub fn restart(&mut self, node: u64) -> io::Result<()> {
        let place = node as usize - 1;
        self.served[place] = Some(self.plans[place].start()?);
        Ok(())
    }

    /// How a node sees the partitions.
    pub fn seen_by(&self, node: u64) -> io::Result<Vec<Seen>> {
        let mut client = Client::connect(self.rpc(node), ANSWER_LIMIT).map_err(failed)?;
        let status = client.call("cluster.status", &Params::new()).map_err(failed)?;
        let partitions = status.get("partitions").into_iter().flat_map(View::items);
        let seen = partitions.map(|it| Seen {
            leader: it.get("leader").and_then(View::uint),
            term: it.get("term").and_then(View::uint).unwrap_or(0),
        });
        Ok(seen.collect())
    }

    /// Waits until the nodes that run name the same leaders, each of which runs; tells them.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn until_led(&self) -> io::Result<Vec<u64>> {
        self.until_led_among(&self.running().collect::<Vec<_>>())
    }

    /// The same for some of the nodes.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn until_led_among(&self, nodes: &[u64]) -> io::Result<Vec<u64>> {
        self.until("the nodes name the same leaders", || self.leaders_among(nodes))
    }

    /// Waits until all nodes lead as many partitions, but for one, and leaders have not changed for a
    /// while, as it comes to be by itself; at quick effort that does not matter.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn until_spread(&self, effort: &Effort) -> io::Result<()> {
        if effort.quick {
            return Ok(());
        }
        let nodes: Vec<u64> = self.running().collect();
        let (mut known, mut since) = (Vec::new(), Instant::now());
        self.until("leaders are spread over the nodes", || {
            let leaders = self.leaders_among(&nodes)?;
            let led = |node: &u64| leaders.iter().filter(|leader| *leader == node).count();
            let (least, most) = (nodes.iter().map(led).min()?, nodes.iter().map(led).max()?);
            if leaders != known || most > least + 1 {
                (known, since) = (leaders, Instant::now());
            }
            (since.elapsed() >= SETTLED).then_some(())
        })
    }

    fn leaders_among(&self, nodes: &[u64]) -> Option<Vec<u64>> {
        let mut agreed: Option<Vec<u64>> = None;
        for node in nodes {
            let seen = self.seen_by(*node).ok()?;
            let leaders: Vec<u64> = seen.iter().map(|seen| seen.leader).collect::<Option<_>>()?;
            let is_other = agreed.as_ref().is_some_and(|agreed| *agreed != leaders);
            if leaders.is_empty() || is_other || !leaders.iter().all(|it| nodes.contains(it)) {
                return None;
            }
            agreed = Some(leaders);
        }
        agreed
    }

    /// Waits until something is so.
    ///
    /// # Errors
    /// When it takes too long; the text ends with what the first node said.
    pub fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> io::Result<T> {
        let deadline = Instant::now() + WAIT_LIMIT;
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                let late = format!("it did not come to be within {WAIT_LIMIT:?} that {what}");
                return Err(self.explain(io::Error::other(late)));
            }
            thread::sleep(LOOK);
        }
    }

    /// The error with the last that the first node said.
    pub fn explain(&self, error: io::Error) -> io::Error {
        self.plans[0].explain(error)
    }

    /// A connection to a node that waits as long as a benchmark does.
    ///
    /// # Errors
    /// When nobody takes it.
    pub fn connect(&self, node: u64) -> io::Result<Client> {
        Client::connect(self.rpc(node), LIMIT).map_err(failed)
    }
}

/// Nodes at addresses that the system has for them. Their host is one that no connection comes
/// from, so that none takes the port of a node that is away for a moment.
pub(in crate::bench) fn entries(count: usize) -> io::Result<Vec<NodeEntry>> {
    let byte = || fastrand::u8(1..255);
    let host = Ipv4Addr::new(127, byte(), byte(), byte());
    // All at the same time, so that they differ.
    let bind = |_| TcpListener::bind((host, 0));
    let listeners = (0..3 * count).map(bind).collect::<io::Result<Vec<_>>>()?;
    let addresses =
        listeners.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
    let entry = |(id, at): (u64, &[SocketAddr])| NodeEntry {
        id,
        peers: at[0],
        rpc: at[1],
        http: at[2],
        public_key: None,
    };
    Ok((1..).zip(addresses.chunks_exact(3)).map(entry).collect())
}

/// How a node is started: tasks wait for ever in it, and its log is never cleaned.
fn plan(config: &Config, id: u64, node: Vec<NodeEntry>, folder: &Path) -> io::Result<Plan> {
    let folder = folder.join(format!("node-{id}"));
    fs::create_dir(&folder)?;
    let mut config = Config { node, ..config.clone() };
    config.cluster.start = ClusterStart::New;
    config.cluster.secret_file = None;
    config.tasks.queue_overflow = 10_000_000;
    config.log.keep_mib = config.log.keep_mib.max(64 << 10);
    let agent = served::agent_type(REMOTE_TYPE, AgentKind::Remote, 60, 1);
    Plan::of_node(&config, id, agent, &folder)
}
