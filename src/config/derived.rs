//! What a configuration needs from the machine.

use super::model::{AgentKind, Config};

/// Rings that each executor registers its I/O memory with.
const RINGS_PER_EXECUTOR: u64 = 3;
/// Least memory that an executor registers, and the page that it is rounded up to, bytes.
const IO_MEMORY_BYTES_MIN: u64 = 64 * 1024;
/// Descriptors of an executor (rings, doorbell, timers, listeners), rounded up.
const FILES_PER_EXECUTOR: u64 = 32;
/// Descriptors of an exec agent: its three pipes.
const FILES_PER_EXEC_AGENT: u64 = 3;
/// Descriptors of the process itself: standard streams, log files, directories; rounded up.
const FILES_OF_PROCESS: u64 = 64;

impl Config {
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
        FILES_OF_PROCESS
            + executors as u64 * (FILES_PER_EXECUTOR + connections)
            + children * FILES_PER_EXEC_AGENT
    }
}
