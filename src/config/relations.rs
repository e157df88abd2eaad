//! What must hold between two tuning values, each of which is allowed by itself.

use std::net::SocketAddr;

use super::model::{ClusterStart, Config, CoreSet, Embedder, Protocol};

/// What nodes that agree by PBFT order at once at most, bytes: consensus has the same bound.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// Nodes that may begin a cluster together: so many may vote.
const FOUNDERS_MAX: usize = 7;

/// Room in a frame beside a payload: method, type, key and the numbers of a request.
const ENVELOPE_BYTES: usize = 1024;

/// Room in a segment of the log beside a payload and a key: heads, names and numbers.
const SEGMENT_ENVELOPE_BYTES: u64 = 64 * 1024;
/// Fewer segments could not be freed one by one.
const SEGMENTS_MIN: u64 = 4;

/// Rounds of gossip in which an accusation goes round and is refuted, when some datagrams are lost.
const GOSSIP_ROUNDS_MIN: u64 = 5;

/// Something that holds between keys of a valid configuration.
pub(super) struct Relation {
    /// The keys, as `(section, key)`; the first one that a file names is blamed.
    pub keys: &'static [(&'static str, &'static str)],
    /// The sentence, when it does not hold.
    pub broken: fn(&Config) -> Option<String>,
}

/// Every relation between keys outside the lists of entries.
pub(super) static RELATIONS: &[Relation] = &[
    Relation { keys: &[("cores", "raft"), ("cores", "workers")], broken: shared_core },
    Relation {
        keys: &[("mesh", "shared_payload_bytes"), ("mesh", "batch_bytes")],
        broken: |config| {
            let (shared, batch) = (config.mesh.shared_payload_bytes, config.mesh.batch_bytes);
            (shared > batch).then(|| {
                format!(
                    "payloads below {shared} bytes must fit into a batch of {batch} bytes \
                     (mesh.batch_bytes); allowed: shared_payload_bytes up to batch_bytes"
                )
            })
        },
    },
    Relation {
        keys: &[("mesh", "batch_bytes"), ("server", "max_frame_bytes")],
        broken: |config| {
            let (batch, frame) = (config.mesh.batch_bytes, config.server.max_frame_bytes);
            (batch > frame).then(|| {
                format!(
                    "a batch of {batch} bytes (mesh.batch_bytes) is larger than a frame of \
                     {frame} bytes (server.max_frame_bytes); allowed: batch_bytes up to \
                     max_frame_bytes"
                )
            })
        },
    },
    Relation {
        keys: &[("tasks", "max_payload_bytes"), ("server", "max_frame_bytes")],
        broken: |config| {
            let (payload, frame) = (config.tasks.max_payload_bytes, config.server.max_frame_bytes);
            (payload + ENVELOPE_BYTES > frame).then(|| {
                format!(
                    "a payload of {payload} bytes (tasks.max_payload_bytes) does not fit into a \
                     frame of {frame} bytes (server.max_frame_bytes); allowed: max_payload_bytes \
                     up to max_frame_bytes less {ENVELOPE_BYTES}"
                )
            })
        },
    },
    Relation {
        keys: &[("tasks", "retained_bytes"), ("tasks", "max_payload_bytes")],
        broken: |config| {
            let (kept, payload) = (config.tasks.retained_bytes, config.tasks.max_payload_bytes);
            (kept < payload).then(|| {
                format!(
                    "{kept} bytes of results (tasks.retained_bytes) cannot keep one result of \
                     {payload} bytes (tasks.max_payload_bytes); allowed: retained_bytes from \
                     max_payload_bytes"
                )
            })
        },
    },
    Relation {
        keys: &[
            ("log", "segment_mib"),
            ("server", "max_frame_bytes"),
            ("tasks", "max_payload_bytes"),
        ],
        broken: |config| {
            let (payload, frame) = (config.tasks.max_payload_bytes, config.server.max_frame_bytes);
            let segment = config.log.segment_mib;
            // A key may fill a frame.
            let record = (payload + frame) as u64 + SEGMENT_ENVELOPE_BYTES;
            (record > segment << 20).then(|| {
                format!(
                    "a segment of {segment} MiB (log.segment_mib) cannot hold a task with a \
                     payload of {payload} bytes (tasks.max_payload_bytes) and a key of {frame} \
                     bytes (server.max_frame_bytes); allowed: segment_mib from {}",
                    record.div_ceil(1 << 20)
                )
            })
        },
    },
    Relation {
        keys: &[("log", "block_kib"), ("log", "segment_mib")],
        broken: |config| {
            let (block, segment) = (config.log.block_kib, config.log.segment_mib);
            (block as u64 * SEGMENTS_MIN > segment << 10).then(|| {
                format!(
                    "a block of {block} KiB (log.block_kib) is more than a quarter of a segment \
                     of {segment} MiB (log.segment_mib); allowed: block_kib up to a quarter of \
                     segment_mib"
                )
            })
        },
    },
    Relation {
        keys: &[("log", "keep_mib"), ("log", "segment_mib")],
        broken: |config| {
            let (keep, segment) = (config.log.keep_mib, config.log.segment_mib);
            (keep < SEGMENTS_MIN * segment).then(|| {
                format!(
                    "{keep} MiB of log (log.keep_mib) are fewer than {SEGMENTS_MIN} segments of \
                     {segment} MiB (log.segment_mib); allowed: keep_mib from {}",
                    SEGMENTS_MIN * segment
                )
            })
        },
    },
    Relation {
        keys: &[("memory", "embedder_command"), ("memory", "embedder")],
        broken: |config| {
            let memory = &config.memory;
            match (memory.embedder, memory.embedder_command.is_empty()) {
                (Embedder::Exec, true) => Some(
                    "the embedder \"exec\" (memory.embedder) has no program \
                     (memory.embedder_command); allowed: a program and its arguments"
                        .to_owned(),
                ),
                (Embedder::None | Embedder::Lexical, false) => Some(
                    "only the embedder \"exec\" (memory.embedder) has a program \
                     (memory.embedder_command); allowed: []"
                        .to_owned(),
                ),
                _ => None,
            }
        },
    },
    Relation {
        keys: &[("gossip", "suspicion_ms"), ("gossip", "interval_ms")],
        broken: |config| {
            let (time, interval) = (config.gossip.suspicion_ms, config.gossip.interval_ms);
            (time < GOSSIP_ROUNDS_MIN * interval).then(|| {
                format!(
                    "in {time} ms (gossip.suspicion_ms) of rounds of {interval} ms \
                     (gossip.interval_ms) a node may not hear that it is suspect and be heard; \
                     allowed: suspicion_ms from {}",
                    GOSSIP_ROUNDS_MIN * interval
                )
            })
        },
    },
    Relation {
        keys: &[("gossip", "reconcile_ms"), ("gossip", "interval_ms")],
        broken: |config| {
            let (time, interval) = (config.gossip.reconcile_ms, config.gossip.interval_ms);
            (time < GOSSIP_ROUNDS_MIN * interval).then(|| {
                format!(
                    "a comparison every {time} ms (gossip.reconcile_ms) is not done in a round of \
                     {interval} ms (gossip.interval_ms); allowed: reconcile_ms from {}",
                    GOSSIP_ROUNDS_MIN * interval
                )
            })
        },
    },
    Relation {
        keys: &[("server", "write_buffer_bytes"), ("server", "max_frame_bytes")],
        broken: |config| {
            let (buffer, frame) = (config.server.write_buffer_bytes, config.server.max_frame_bytes);
            (buffer < frame).then(|| {
                format!(
                    "a write buffer of {buffer} bytes (server.write_buffer_bytes) cannot hold one \
                     frame of {frame} bytes (server.max_frame_bytes); allowed: write_buffer_bytes \
                     from max_frame_bytes"
                )
            })
        },
    },
    Relation {
        keys: &[("agents", "max_per_core"), ("cores", "workers")],
        broken: |config| {
            let CoreSet::List(workers) = &config.cores.workers else { return None };
            let room = config.agents.max_per_core * workers.len();
            let started: usize = config.agent.iter().map(|agent| agent.min).sum();
            (started > room).then(|| {
                format!(
                    "{started} agents start with the node (the sum of agent.min) and {} cores own \
                     {room} at most; allowed: max_per_core from {}",
                    workers.len(),
                    started.div_ceil(workers.len())
                )
            })
        },
    },
    Relation {
        keys: &[("server", "rpc_address"), ("server", "token_file")],
        broken: |config| guarded(config, config.server.rpc_address),
    },
    Relation {
        keys: &[("server", "http_address"), ("server", "token_file")],
        broken: |config| guarded(config, config.server.http_address),
    },
    Relation {
        keys: &[("server", "http_address"), ("server", "rpc_address")],
        broken: |config| {
            let (http, rpc) = (config.server.http_address, config.server.rpc_address);
            (http == rpc && http.port() != 0).then(|| {
                format!("{http} is the address of both listeners; allowed: two different ports")
            })
        },
    },
];

/// Relations between `[cluster]` and the list of nodes, when nothing in the list was refused.
pub(super) static CLUSTER_RELATIONS: &[Relation] = &[
    Relation {
        keys: &[("cluster", "node")],
        broken: |config| {
            let own = config.cluster.node;
            let known: Vec<_> = config.node.iter().map(|node| node.id.to_string()).collect();
            (own > 0 && !config.node.iter().any(|node| node.id == own)).then(|| {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                format!(
                    "no [[node]] has the id {own}; allowed: 0 for a node that is alone, or an id \
                     of the list: {known}"
                )
            })
        },
    },
    Relation {
        keys: &[("cluster", "start"), ("cluster", "node")],
        broken: |config| {
            let founds = config.cluster.node > 0 && config.cluster.start == ClusterStart::New;
            let listed = config.node.len();
            (founds && listed > FOUNDERS_MAX).then(|| {
                format!(
                    "{listed} nodes cannot begin a cluster together; allowed: a list of up to \
                     {FOUNDERS_MAX} nodes, to which others that start with \"join\" are added later"
                )
            })
        },
    },
];

/// Relations of nodes that may lie.
pub(super) static AGREEMENT_RELATIONS: &[Relation] = &[
    Relation {
        keys: &[("consensus", "protocol"), ("cluster", "node")],
        broken: |config| {
            let listed = config.node.len();
            let fits = AGREEING.contains(&listed);
            (agrees(config) && !fits).then(|| {
                format!(
                    "{listed} nodes cannot agree by PBFT; allowed: a list of 4 nodes, of which one \
                     may lie, or of 7, of which two may"
                )
            })
        },
    },
    Relation {
        keys: &[("tasks", "max_payload_bytes"), ("consensus", "protocol")],
        broken: |config| {
            // A dead letter moves with its payload and its error in one block.
            let most = (BATCH_BYTES_MAX - SEGMENT_ENVELOPE_BYTES as usize) / 2;
            (agrees(config) && config.tasks.max_payload_bytes > most).then(|| {
                format!("nodes that agree by PBFT order less at once; allowed: up to {most}")
            })
        },
    },
    Relation {
        keys: &[("log", "block_kib"), ("consensus", "protocol")],
        broken: |config| {
            let most = BATCH_BYTES_MAX / 1024;
            (agrees(config) && config.log.block_kib > most).then(|| {
                format!("nodes that agree by PBFT order less at once; allowed: up to {most}")
            })
        },
    },
    Relation {
        keys: &[("log", "segment_mib"), ("consensus", "protocol")],
        broken: |config| {
            // Whatever the others order together fits, with who asked for it.
            let least = (BATCH_BYTES_MAX as u64 >> 20) + 1;
            (agrees(config) && config.log.segment_mib < least).then(|| {
                format!(
                    "a segment must hold what nodes that agree by PBFT order at once; allowed: from \
                     {least}"
                )
            })
        },
    },
    Relation {
        keys: &[("cluster", "start"), ("consensus", "protocol")],
        broken: |config| {
            let joins = agrees(config) && config.cluster.start == ClusterStart::Join;
            joins.then(|| {
                "nodes that agree by PBFT never join or leave; allowed: \"new\", with all of them \
                 in the list"
                    .to_owned()
            })
        },
    },
    Relation {
        keys: &[("consensus", "identity_file"), ("consensus", "protocol")],
        broken: |config| {
            let is_missing = agrees(config) && config.consensus.identity_file.is_none();
            is_missing.then(|| {
                "a node that agrees by PBFT signs what it says; allowed: a file that `coreflow \
                 cluster identity FILE` makes"
                    .to_owned()
            })
        },
    },
    Relation {
        keys: &[("consensus", "protocol"), ("cluster", "node")],
        broken: |config| {
            let unknown = config.node.iter().find(|node| node.public_key.is_none());
            unknown.filter(|_| agrees(config)).map(|node| {
                format!(
                    "node {id} has no public_key; allowed: one in every [[node]], as `coreflow \
                     cluster identity FILE` prints, or --set node.{id}.public_key=KEY",
                    id = node.id
                )
            })
        },
    },
];

/// Numbers of nodes of which fewer than a third may lie, and none is one too many for that.
const AGREEING: [usize; 2] = [4, 7];

fn agrees(config: &Config) -> bool {
    config.cluster.node > 0 && config.consensus.protocol == Protocol::Pbft
}

/// Whether clients prove who they are where others can reach the node.
fn guarded(config: &Config, address: SocketAddr) -> Option<String> {
    let is_asked = config.server.token_file.is_some();
    if is_asked { None } else { exposed(address, "server.token_file") }
}

/// The sentence for an address that others can reach though nobody has to prove who he is.
pub(super) fn exposed(address: SocketAddr, guard: &str) -> Option<String> {
    (!address.ip().is_loopback()).then(|| {
        format!(
            "{address} can be reached from other machines; allowed: a loopback address, or any \
             together with {guard}"
        )
    })
}

fn shared_core(config: &Config) -> Option<String> {
    let (CoreSet::List(workers), CoreSet::List(raft)) = (&config.cores.workers, &config.cores.raft)
    else {
        return None;
    };
    let shared = raft.iter().find(|core| workers.contains(core))?;
    Some(format!(
        "core {shared} is in cores.workers and in cores.raft; allowed: different cores, or \
         \"auto\" for one of them on a machine that must share"
    ))
}
