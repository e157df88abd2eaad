//! Requests about tasks that other nodes of the cluster lead: they go there and the answers come
//! back, so that a client may ask any node.
//!
//! ```text
//! client ──► core ──► led here? shard ──► answer
//!                 └─► led elsewhere: link ═══ MessagePack-RPC ═══► `here.…` at the leader ──► answer
//! ```
//!
//! Each core has three connections of its own to each other node: one for requests that wait for the
//! end of a task, one for attempts that it lends, and one for everything else, so that waits hold up
//! nothing.
//!
//! Invariants worth naming:
//! - Nothing is forwarded twice: what travels asks the other node itself.
//! - A submission without a key is sent again only when the one before was surely not done.
//! - Everything is bounded: requests and bytes under way, the time until an answer, the time in
//!   which something is tried again.
//!
//! The files: `channel.rs` is a connection's requests, `backoff.rs` when a node is dialled again and
//! `tries.rs` when a request is tried again, all pure;
//! `encode.rs` what travels; `link.rs` moves the bytes; `route.rs` decides which request goes where,
//! `submit.rs` does so for submissions; `lend.rs` asks for attempts of tasks.

mod backoff;
pub(super) mod channel;
mod encode;
mod lend;
pub(super) mod link;
mod route;
#[cfg(test)]
mod said;
mod submit;
mod tries;

use crate::{
    client::Params,
    config::{Config, SecretError},
    consensus::{cluster::Cluster, peers::NodeId, raft::group::ELECTION_TICKS},
    node::greeting::Credentials,
    wire::{api::Error, id::PartitionIndex, secret::Secret},
};
use channel::{Answered, Bounds, Request};
use link::{Link, Target};
use std::{
    cell::RefCell,
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long an answer may take on top of what the request itself waits for.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The longest wait at another node: longer ones are made of several, so that a client that has gone
/// away is not waited for.
const WAIT_SLICE: Duration = Duration::from_secs(2);

/// What forwarding may cost.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) bounds: Bounds,
    /// What other nodes ask of their clients, and of this one.
    pub(super) token: Option<Secret>,
    /// What the nodes of the cluster prove to each other to know.
    pub(super) secret: Option<Secret>,
    /// How long something is tried again that nobody takes.
    patience: Duration,
}

impl Settings {
    /// Those of a configuration: nodes have the same limits for each other as for their clients.
    ///
    /// # Errors
    /// What is wrong with the file of the token, or of the cluster's secret.
    pub fn of(config: &Config) -> Result<Self, SecretError> {
        let server = &config.server;
        let bounds = Bounds {
            in_flight: server.max_in_flight,
            waiting_bytes: server.write_buffer_bytes,
            frame_bytes: server.max_frame_bytes,
        };
        // An election takes one to two times this long, and a second one may be needed.
        let election = Duration::from_millis(config.cluster.tick_ms) * ELECTION_TICKS as u32;
        let patience = 4 * election + Duration::from_secs(1);
        let (token, secret) = (config.token()?, config.cluster_secret()?);
        let me = config.node.iter().find(|node| node.id == config.cluster.node);
        if let Some(me) = me.filter(|me| secret.is_none() && !me.rpc.ip().is_loopback()) {
            tracing::warn!(
                rpc = %me.rpc,
                "nodes prove nothing to each other, though others can reach them: whoever takes connections \
                 at a node's address is believed, and told the token; set cluster.secret_file"
            );
        }
        Ok(Self { bounds, token, secret, patience })
    }

    /// What a node says to another one before its requests.
    pub(super) fn credentials(&self, from: NodeId, to: NodeId) -> Credentials {
        Credentials::of(from, to, self.token.as_ref(), self.secret.as_ref())
    }
}

/// Which connection a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lane {
    /// That of requests which are answered at once.
    Work,
    /// That of requests which wait for the end of a task.
    Waits,
    /// That of attempts which the other node runs: those that wait for tasks must not keep the tasks
    /// from running.
    Runs,
}

/// A request that another node should do itself.
struct Call<'a> {
    lane: Lane,
    method: &'a str,
    params: Params,
    /// How long the other node waits before it answers.
    wait: Duration,
    /// Set when the request may be repeated: it is given up when another node leads the partition.
    as_long_as_led: Option<PartitionIndex>,
}

impl<'a> Call<'a> {
    /// A request that is answered at once and may not be repeated.
    fn once(method: &'a str, params: Params) -> Self {
        Self { lane: Lane::Work, method, params, wait: Duration::ZERO, as_long_as_led: None }
    }
}

/// A core's connections to the other nodes.
pub struct Forwarder {
    cluster: Arc<Cluster>,
    settings: Settings,
    links: RefCell<HashMap<(NodeId, Lane), Rc<Link>>>,
}

impl Forwarder {
    /// No connection yet.
    pub fn new(cluster: Arc<Cluster>, settings: Settings) -> Self {
        Self { cluster, settings, links: RefCell::default() }
    }

    /// Asks another node.
    async fn call(&self, node: NodeId, call: Call<'_>) -> Answered {
        let Call { lane, method, params, wait, as_long_as_led } = call;
        let link = self.link(node, lane)?;
        let deadline = Instant::now() + wait + ANSWER_LIMIT;
        link.call(&Request { method, params: &params, deadline, as_long_as_led }).await
    }

    fn link(&self, node: NodeId, lane: Lane) -> Result<Rc<Link>, Error> {
        let Some(address) = self.cluster.address(node) else {
            let text = format!("nobody has said where node {node} takes requests");
            return Err(Error::Unavailable(text));
        };
        let target = Target { node, address: address.rpc };
        let credentials = self.settings.credentials(self.cluster.leaders.me(), node);
        let bounds = self.settings.bounds;
        let dial = || Link::new(target, bounds, credentials, self.cluster.clone());
        let mut links = self.links.borrow_mut();
        match links.get(&(node, lane)).filter(|link| link.target() == target) {
            Some(link) => Ok(link.clone()),
            None => {
                let link = dial();
                links.insert((node, lane), link.clone());
                Ok(link)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{said::Said, *};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn nodes_that_others_can_reach_and_that_prove_nothing_are_warned_of_at_start() {
        let path = std::env::temp_dir().join(format!("coreflow-warn-{}", std::process::id()));
        std::fs::write(&path, "0123456789abcdef").expect("a file of the test's own");
        let owner = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, owner).expect("a file of the test's own");
        let file = path.display();
        let token = format!("server.token_file={file}");
        let secret = format!("cluster.secret_file={file}");
        let said = |rpc: &str, keys: &[&String]| {
            let text = format!(
                "[[node]]\nid = 1\npeers = \"127.0.0.1:1\"\nrpc = \"{rpc}\"\nhttp = \"127.0.0.1:3\"\n\
                 [[node]]\nid = 2\npeers = \"127.0.0.1:4\"\nrpc = \"10.0.0.2:5\"\nhttp = \"127.0.0.1:6\"\n"
            );
            let node = ["cluster.node=1".to_owned()];
            let keys: Vec<_> = node.iter().chain(keys.iter().copied()).cloned().collect();
            let config = Config::parse(&text, "the test", &keys).expect("its keys are right");
            let said = Said::default();
            let settings =
                tracing::subscriber::with_default(said.listener(), || Settings::of(&config));
            settings.expect("its files can be read");
            said.text()
        };
        let warned = said("10.0.0.1:2", &[&token]);
        assert!(warned.contains("set cluster.secret_file"), "{warned:?}");
        assert_eq!(said("10.0.0.1:2", &[&token, &secret]), "", "they prove the secret");
        assert_eq!(said("127.0.0.1:2", &[&token]), "", "nobody else can reach it");
        std::fs::remove_file(path).expect("it is there");
    }
}
