//! The network: a namespace for each node, and one in the middle with two switches.
//!
//! ```text
//!   node 1 ── v1 ─┐                      a node's cable is in one of the switches;
//!   node 2 ── v2 ─┤ br0     br1 ── v3 ── node 3       nothing joins the two
//!   …             │
//!      the test is in the middle and reaches both: clients, proxies
//! ```

use std::{fs, path::Path, process::Command};

/// Nodes, numbered from 1.
pub const NODES: u64 = 5;
/// The address of the middle.
pub const MIDDLE: &str = "10.77.0.254";
/// Both switches have it, so that a node that changes its switch finds the middle where it was.
const HARDWARE: &str = "02:00:00:00:77:fe";

/// The address of a node.
pub fn address(node: u64) -> String {
    format!("10.77.0.{node}")
}

/// The namespaces; they go, with all that runs in them, when the one who made them goes.
pub struct Network {
    name: String,
    is_owner: bool,
}

impl Network {
    /// Makes the network; the text says why it cannot be made.
    pub fn make() -> Result<Self, String> {
        let network = Self { name: format!("coreflow-{}", std::process::id()), is_owner: true };
        network.build()?;
        Ok(network)
    }

    /// The network that somebody else made.
    pub fn of(name: &str) -> Self {
        Self { name: name.to_owned(), is_owner: false }
    }

    /// The namespace in the middle.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace of a node.
    pub fn of_node(&self, node: u64) -> String {
        format!("{}-{node}", self.name)
    }

    fn build(&self) -> Result<(), String> {
        let middle = self.name();
        ip(&format!("netns add {middle}"))?;
        ip(&format!("-n {middle} link set lo up"))?;
        for switch in ["br0", "br1"] {
            ip(&format!("-n {middle} link add {switch} address {HARDWARE} type bridge"))?;
            ip(&format!("-n {middle} link set {switch} up"))?;
        }
        ip(&format!("-n {middle} addr add {MIDDLE}/24 dev br0"))?;
        ip(&format!("-n {middle} addr add {MIDDLE}/32 dev br1"))?;
        for node in 1..=NODES {
            let of_node = self.of_node(node);
            ip(&format!("netns add {of_node}"))?;
            ip(&format!(
                "link add v{node} netns {middle} type veth peer name eth0 netns {of_node}"
            ))?;
            ip(&format!("-n {middle} link set v{node} master br0 up"))?;
            ip(&format!("-n {of_node} addr add {}/24 dev eth0", address(node)))?;
            ip(&format!("-n {of_node} link set eth0 up"))?;
            ip(&format!("-n {of_node} link set lo up"))?;
        }
        Ok(())
    }

    /// Nodes that nobody else reaches but each other and the middle.
    pub fn part(&self, minority: &[u64]) {
        for node in minority {
            self.must(&format!("link set v{node} master br1"));
            self.must(&format!("route add {}/32 dev br1 src {MIDDLE}", address(*node)));
        }
    }

    /// Ends [`Network::part`].
    pub fn join(&self, minority: &[u64]) {
        for node in minority {
            self.must(&format!("route del {}/32 dev br1", address(*node)));
            self.must(&format!("link set v{node} master br0"));
        }
    }

    /// Pulls a node's cable, or puts it back.
    pub fn set_cable(&self, node: u64, is_in: bool) {
        self.must(&format!("link set v{node} {}", if is_in { "up" } else { "down" }));
    }

    fn must(&self, words: &str) {
        ip(&format!("-n {} {words}", self.name())).expect("the network can be changed");
    }

    /// Ends every process in a namespace, by its number.
    fn clear(&self, namespace: &str) {
        let listed = Command::new("ip").args(["netns", "pids", namespace]).output();
        let text = listed.map(|listed| listed.stdout).unwrap_or_default();
        for pid in String::from_utf8_lossy(&text).split_whitespace() {
            // It may have ended by itself.
            let _ = Command::new("kill").args(["-KILL", pid]).output();
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if !self.is_owner {
            return;
        }
        let nodes = (1..=NODES).map(|node| self.of_node(node));
        for namespace in nodes.chain([self.name.clone()]) {
            if Path::new("/run/netns").join(&namespace).exists() {
                self.clear(&namespace);
                if let Err(why) = ip(&format!("netns del {namespace}")) {
                    println!("cluster: {why}");
                }
            }
        }
    }
}

fn ip(words: &str) -> Result<(), String> {
    let output = Command::new("ip").args(words.split(' ')).output();
    let output = output.map_err(|error| format!("ip {words}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip {words}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

/// A small disk of its own for a folder. It goes with the processes of the test, which share a view
/// of the file systems that nobody else has.
pub fn small_disk(folder: &Path, mib: u64) {
    fs::create_dir_all(folder).expect("the folder can be made");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "coreflow-test"])
        .arg(folder)
        .status();
    assert!(mounted.expect("mount runs").success(), "a small disk cannot be made");
}
