//! A node's place among others, from its configuration.

use crate::{
    config::{self, ClusterStart, Config, NodeEntry, Protocol, PublicKey, SecretError},
    consensus::{
        agreement::rules,
        assemble::CHECKPOINT_ENTRIES,
        begun,
        cluster::Address,
        open::Seat,
        pbft::{Company, Identity, Ring, Terms, batch, keys::BadKey},
        peers::{self, Limits, Signing, Timing},
    },
    task::KEY_BYTES_MAX,
};
use sha2::{Digest, Sha256};

const _: () = assert!(config::BATCH_BYTES_MAX == batch::BATCH_BYTES_MAX);
// What doors take other nodes take.
const _: () = assert!(rules::TYPE_BYTES_MAX == config::AGENT_NAME_BYTES_MAX);
const _: () = assert!(rules::KEY_BYTES_MAX == KEY_BYTES_MAX);

/// Bytes of a frame between nodes beside the block that it carries.
const FRAME_ENVELOPE_BYTES: usize = 1 << 20;

/// The place that a configuration gives its node.
///
/// # Errors
/// What is wrong with the files of the cluster's secret and the node's key.
pub(super) fn seat(config: &Config) -> Result<Seat, SeatError> {
    let cluster = &config.cluster;
    let Some(me) = config.node.iter().find(|node| node.id == cluster.node) else {
        return Ok(Seat::alone());
    };
    let voters = match cluster.start {
        ClusterStart::New => config.node.iter().map(|node| node.id).collect(),
        ClusterStart::Join => Vec::new(),
    };
    let company = company(config)?;
    let signing = company
        .as_ref()
        .map(|company| Signing { identity: company.identity.clone(), ring: company.ring.clone() });
    let addresses =
        config.node.iter().map(|node| (node.id, Address { peers: node.peers, rpc: node.rpc }));
    Ok(Seat {
        node: me.id,
        voters,
        partitions: Some(cluster.partitions as u16),
        tick_ms: cluster.tick_ms,
        nodes: addresses.collect(),
        links: Some(peers::Config {
            cluster: company
                .as_ref()
                .map_or_else(|| cluster_id(&cluster.name, cluster.partitions), Company::genesis),
            node: me.id,
            listen: me.peers,
            secret: config.cluster_secret()?,
            signing,
            seed: fastrand::u64(..),
            limits: limits(config),
            timing: Timing::default(),
        }),
        company,
        checkpoint_entries: CHECKPOINT_ENTRIES,
        begun_file: config
            .consensus
            .identity_file
            .as_ref()
            .map(|file| begun::file_of(file.as_ref())),
        is_tentative: true,
    })
}

/// Whom a node agrees with, where nodes may lie.
fn company(config: &Config) -> Result<Option<Company>, SeatError> {
    if config.consensus.protocol == Protocol::Raft {
        return Ok(None);
    }
    let node = config.cluster.node;
    let key = |entry: &NodeEntry| Some((entry.id, entry.public_key?.0));
    let ring = Ring::new(config.node.iter().filter_map(key))
        .map_err(|BadKey(node)| SeatError::PublicKey(node))?;
    let identity = config.identity()?.map(|secret| Identity::from_secret(&secret));
    let identity = identity.ok_or(SeatError::NoIdentity)?;
    let own = config.node.iter().find(|entry| entry.id == node);
    if own.and_then(|entry| entry.public_key) != Some(PublicKey(identity.public())) {
        return Err(SeatError::Identity(node));
    }
    Ok(Some(Company {
        node,
        identity,
        ring,
        cluster: cluster_id(&config.cluster.name, config.cluster.partitions),
        generation: config.consensus.generation,
        nodes: config.node.iter().map(|entry| entry.id).collect(),
        terms: Terms {
            key_ttl_ms: config.tasks.key_ttl_ms,
            payload_bytes_max: config.tasks.max_payload_bytes as u64,
        },
    }))
}

/// Why a node cannot take its place.
#[derive(Debug, thiserror::Error)]
pub enum SeatError {
    /// A file with a secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// It has no key.
    #[error("consensus.identity_file names no key, which a node that agrees by PBFT signs with")]
    NoIdentity,
    /// Its key is another one.
    #[error(
        "consensus.identity_file is not the key whose public_key node {0} has in the list of nodes; \
         `coreflow cluster identity FILE` prints the one that belongs to it"
    )]
    Identity(u64),
    /// A key that is none.
    #[error("the public_key of node {0} is none that ed25519 knows, or a weak one")]
    PublicKey(u64),
}

/// The number that the nodes of a cluster have in common: with other partitions they would not agree
/// on where a key belongs.
pub(super) fn cluster_id(name: &str, partitions: usize) -> u128 {
    let digest = Sha256::digest(format!("{name} {partitions}"));
    u128::from_be_bytes(*digest.first_chunk().expect("a digest has 32 bytes"))
}

/// Any block fits into a frame: one record may be as large as a payload and a key that fills a
/// request.
fn limits(config: &Config) -> Limits {
    let record = config.tasks.max_payload_bytes + config.server.max_frame_bytes;
    let block = record.max(config.log.block_kib << 10);
    let limits = Limits::default();
    let frame_bytes = limits.frame_bytes.max(block + FRAME_ENVELOPE_BYTES);
    Limits { frame_bytes, queue_bytes: limits.queue_bytes.max(2 * frame_bytes), ..limits }
}
