//! A node's place among others, from its configuration.

use crate::{
    config::{ClusterStart, Config, SecretError},
    consensus::{
        cluster::Address,
        open::Seat,
        peers::{self, Limits, Timing},
    },
};
use sha2::{Digest, Sha256};

/// Bytes of a frame between nodes beside the block that it carries.
const FRAME_ENVELOPE_BYTES: usize = 1 << 20;

/// The place that a configuration gives its node.
///
/// # Errors
/// What is wrong with the file of the cluster's secret.
pub(super) fn seat(config: &Config) -> Result<Seat, SecretError> {
    let cluster = &config.cluster;
    let Some(me) = config.node.iter().find(|node| node.id == cluster.node) else {
        return Ok(Seat::alone());
    };
    let voters = match cluster.start {
        ClusterStart::New => config.node.iter().map(|node| node.id).collect(),
        ClusterStart::Join => Vec::new(),
    };
    let addresses =
        config.node.iter().map(|node| (node.id, Address { peers: node.peers, rpc: node.rpc }));
    Ok(Seat {
        node: me.id,
        voters,
        partitions: Some(cluster.partitions as u16),
        tick_ms: cluster.tick_ms,
        nodes: addresses.collect(),
        links: Some(peers::Config {
            cluster: cluster_id(&cluster.name, cluster.partitions),
            node: me.id,
            listen: me.peers,
            secret: config.cluster_secret()?,
            signing: None,
            seed: fastrand::u64(..),
            limits: limits(config),
            timing: Timing::default(),
        }),
    })
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
