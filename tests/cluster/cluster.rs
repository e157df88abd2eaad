//! Five nodes of one cluster, and what is asked of all of them.

use crate::{
    network::{MIDDLE, NODES, Network, address, small_disk},
    node::{ANSWER_LIMIT, Node},
    proxy::{self, PEERS_PORT},
};
use coreflow::{
    client::{ClientError, Params, View},
    wire::secret::Secret,
};
use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Partitions of the cluster.
pub const PARTITIONS: u64 = 6;
/// How long anything may take that is waited for: several elections on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether something is so.
const LOOK: Duration = Duration::from_millis(20);
/// The node with a small disk, and how small it is.
pub const SMALL: u64 = 5;
const SMALL_MIB: u64 = 256;

/// A folder that disappears with its owner, and the small disk in it.
struct Scratch {
    folder: PathBuf,
    disk: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about what stays behind.
        let _ = Command::new("umount").arg(&self.disk).status();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The nodes.
pub struct Cluster {
    pub nodes: Vec<Node>,
    _scratch: Scratch,
}

impl Cluster {
    /// Starts all nodes and waits until they lead everything; through the proxies of the middle, or
    /// right to each other.
    pub fn start(network: &Network, name: &str, through_proxies: bool) -> Self {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = parent.join(format!("cluster-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).expect("the build's folder is writable");
        let disk = folder.join(format!("node-{SMALL}"));
        small_disk(&disk, SMALL_MIB);
        let scratch = Scratch { folder: folder.clone(), disk };
        let token = format!("{:032x}", fastrand::u128(..));
        for file in ["token", "secret"] {
            let file = folder.join(file);
            fs::write(&file, &token).expect("the folder is writable");
            fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("it is ours");
        }
        let token = Secret::parse(token.as_bytes()).expect("it is long enough");
        let nodes = (1..=NODES).map(|id| {
            let config = config(id, &folder, through_proxies);
            Node::new(id, network, &folder, &config, token.clone())
        });
        let cluster = Self { nodes: nodes.collect(), _scratch: scratch };
        thread::scope(|scope| {
            cluster.nodes.iter().for_each(|node| drop(scope.spawn(|| node.start())));
        });
        cluster.until_led();
        cluster
    }

    /// A node by its number.
    pub fn node(&self, id: u64) -> &Node {
        &self.nodes[id as usize - 1]
    }

    /// A file that fills what is left of the small disk.
    pub fn ballast(&self) -> PathBuf {
        self.node(SMALL).folder.join("ballast")
    }

    /// Who leads each partition, as a node sees it.
    pub fn leaders(&self, asked: &Node) -> Result<Vec<Option<u64>>, ClientError> {
        let mut client = asked.connect()?;
        let status = client.call_within("cluster.status", &Params::new(), ANSWER_LIMIT)?;
        let partitions = status.get("partitions").into_iter().flat_map(View::items);
        Ok(partitions.map(|it| it.get("leader").and_then(View::uint)).collect())
    }

    /// Waits until some nodes say the same of others: `alive` or `dead`.
    pub fn until_seen(&self, by: &[u64], of: &[u64], status: &str) {
        until(&format!("nodes {of:?} are {status} for nodes {by:?}"), || {
            by.iter().all(|by| self.sees(*by, of, status)).then_some(())
        });
    }

    fn sees(&self, by: u64, of: &[u64], status: &str) -> bool {
        let Ok(mut client) = self.node(by).connect() else { return false };
        let asked = client.call_within("cluster.status", &Params::new(), ANSWER_LIMIT);
        let Ok(answer) = asked else { return false };
        let nodes = answer.get("nodes").into_iter().flat_map(View::items);
        let seen = nodes.filter(|node| {
            let id = node.get("id").and_then(View::uint);
            id.is_some_and(|id| of.contains(&id))
                && node.get("status").and_then(View::str) == Some(status)
        });
        seen.count() == of.len()
    }

    /// The node that leads the most, as the nodes that run agree.
    pub fn leader(&self) -> &Node {
        let leaders = self.until_led();
        let mut led: BTreeMap<u64, usize> = BTreeMap::new();
        leaders.iter().for_each(|leader| *led.entry(*leader).or_default() += 1);
        let most = led.iter().max_by_key(|(_, partitions)| **partitions).expect("somebody leads");
        self.node(*most.0)
    }

    /// Waits until all nodes that run name the same leaders, each of which runs.
    pub fn until_led(&self) -> Vec<u64> {
        let runs = self.nodes.iter().filter(|node| node.runs()).map(|node| node.id);
        self.until_led_among(&runs.collect::<Vec<_>>())
    }

    /// Waits until some nodes name the same leaders, each of which is one of them.
    pub fn until_led_among(&self, nodes: &[u64]) -> Vec<u64> {
        until("nodes that can reach each other lead everything", || self.agreed(nodes))
    }

    /// All nodes but some.
    pub fn others(&self, but: &[u64]) -> Vec<u64> {
        self.nodes.iter().map(|node| node.id).filter(|id| !but.contains(id)).collect()
    }

    fn agreed(&self, nodes: &[u64]) -> Option<Vec<u64>> {
        let mut agreed = None;
        for id in nodes {
            let leaders: Vec<u64> =
                self.leaders(self.node(*id)).ok()?.into_iter().collect::<Option<_>>()?;
            let is_whole = leaders.len() as u64 == PARTITIONS;
            let are_among = leaders.iter().all(|leader| nodes.contains(leader));
            if !is_whole || !are_among || agreed.as_ref().is_some_and(|agreed| *agreed != leaders) {
                return None;
            }
            agreed = Some(leaders);
        }
        agreed
    }

    /// The last that every node said, for whoever looks for a reason.
    pub fn tell(&self) {
        for node in &self.nodes {
            let said = node.says();
            let lines: Vec<_> = said.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            println!("-- node {} said last\n{}", node.id, last.join("\n"));
        }
    }
}

/// Waits until something is so, and tells what it is.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not come to be within {LIMIT:?} that {what}");
        thread::sleep(LOOK);
    }
}

/// The configuration of a node: others are where they are for this one.
fn config(id: u64, folder: &Path, through_proxies: bool) -> String {
    let folder = folder.display();
    let mut text = format!(
        "[cores]\nworkers = [{}]\n\
         [server]\ntoken_file = \"{folder}/token\"\ndrain_ms = 2000\n\
         [cluster]\nnode = {id}\npartitions = {PARTITIONS}\nsecret_file = \"{folder}/secret\"\n\
         [log]\nsegment_mib = 8\n\
         [tasks]\nretry_base_ms = 10\nretry_max_ms = 100\ntimeout_ms = 2000\nmax_attempts = 1000\n\
         retained = 1000000\nretained_bytes = 1073741824\n\
         [[agent]]\ntype = \"errand\"\nkind = \"remote\"\nmax = 100\n\
         [[agent]]\ntype = \"echo\"\nkind = \"builtin\"\n",
        id % processors(),
    );
    for other in 1..=NODES {
        let peers = match through_proxies && other != id {
            true => proxy::at(id, other).to_string(),
            false => format!("{}:{PEERS_PORT}", address(other)),
        };
        let at = address(other);
        text += &format!(
            "[[node]]\nid = {other}\npeers = \"{peers}\"\nrpc = \"{at}:7450\"\nhttp = \"{at}:7451\"\n"
        );
    }
    debug_assert!(text.contains(MIDDLE) == through_proxies);
    text
}

fn processors() -> u64 {
    thread::available_parallelism().map_or(1, |count| count.get() as u64)
}
