//! What follows from a configuration: where the node listens, and what it needs of the machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::model::{AgentKind, Config};

/// Rings that each executor registers its I/O memory with.
const RINGS_PER_EXECUTOR: u64 = 3;
/// Least memory that an executor registers, and the page that it is rounded up to, bytes.
const IO_MEMORY_BYTES_MIN: u64 = 64 * 1024;
/// Descriptors of an executor (rings, doorbell, timers, listeners), rounded up.
const FILES_PER_EXECUTOR: u64 = 32;
/// Descriptors of an exec agent: its three pipes.
const FILES_PER_EXEC_AGENT: u64 = 3;
/// Descriptors of a link to another node: its connection and two that may be about to replace it.
const FILES_PER_PEER: u64 = 3;
/// Descriptors of the process itself: standard streams, log files, directories; rounded up.
const FILES_OF_PROCESS: u64 = 64;

/// Where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// MessagePack-RPC.
    pub rpc: SocketAddr,
    /// HTTP.
    pub http: SocketAddr,
    /// Other nodes; `None` when the node is alone.
    pub peers: Option<SocketAddr>,
}

impl Config {
    /// Where this node listens: where its entry in the list of nodes says, else where `[server]`
    /// does.
    pub fn listen(&self) -> Listen {
        let own = self.node.iter().find(|entry| entry.id == self.cluster.node);
        match own {
            Some(entry) => Listen { rpc: entry.rpc, http: entry.http, peers: Some(entry.peers) },
            None => {
                Listen { rpc: self.server.rpc_address, http: self.server.http_address, peers: None }
            }
        }
    }

    /// The folder of pattern memory.
    pub fn memory_folder(&self) -> PathBuf {
        match &self.memory.folder {
            Some(folder) => PathBuf::from(folder),
            None => Path::new(&self.log.folder).join("memory"),
        }
    }

    /// The key that says where one of the node's doors listens: `rpc` or `http`.
    pub fn listen_key(&self, door: &str) -> String {
        match self.cluster.node {
            0 => format!("server.{door}_address"),
            node => format!("node.{node}.{door}"),
        }
    }

    /// Bytes that this many executors lock in memory, to compare with RLIMIT_MEMLOCK.
    pub fn locked_memory_bytes(&self, executors: usize) -> u64 {
        let registered = (self.runtime.io_memory_kib as u64 * 1024).next_multiple_of(4096);
        executors as u64 * RINGS_PER_EXECUTOR * registered.max(IO_MEMORY_BYTES_MIN)
    }

    /// File descriptors that this many executors may open, to compare with RLIMIT_NOFILE.
    pub fn open_files(&self, executors: usize) -> u64 {
        let exec = |kind: &AgentKind| matches!(kind, AgentKind::Exec { .. });
        let children = self.agent.iter().filter(|agent| exec(&agent.kind));
        let children: u64 = children.map(|agent| agent.max as u64).sum();
        let connections = self.server.max_connections as u64;
        let nodes = if self.cluster.node > 0 { self.node.len() as u64 } else { 0 };
        // Each executor asks each other node over a connection of its own.
        FILES_OF_PROCESS
            + executors as u64 * (FILES_PER_EXECUTOR + connections + nodes)
            + nodes * FILES_PER_PEER
            + children * FILES_PER_EXEC_AGENT
    }
}
