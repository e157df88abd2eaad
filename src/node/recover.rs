//! Opens the durable log when a node starts, and closes it when the node has stopped.

use crate::{
    config::{Config, Realtime},
    consensus::{
        MemoryLog, TaskLog,
        open::{self, OpenError, Settings},
        thread::LogThread,
    },
    runtime::{doorbell::Doorbell, topology::Topology},
};

/// What the shards of a node begin with.
pub(super) struct Recovered {
    /// One log for each shard, in their order.
    pub logs: Vec<TaskLog>,
    /// What writes them; `None` in memory.
    pub thread: Option<LogThread>,
}

/// Logs that keep nothing.
pub(super) fn in_memory(shards: usize) -> Recovered {
    let logs = (0..shards).map(|_| TaskLog::Memory(MemoryLog::default()));
    Recovered { logs: logs.collect(), thread: None }
}

/// Opens the log and brings every shard to where it was.
///
/// # Errors
/// Those of the log; nothing was changed in its folder.
pub(super) fn from_log(
    config: &Config,
    topology: &Topology,
    bells: Vec<Doorbell>,
) -> Result<Recovered, OpenError> {
    let settings = Settings {
        folder: config.log.folder.clone().into(),
        segment_bytes: config.log.segment_mib << 20,
        keep_bytes: config.log.keep_mib << 20,
        block_bytes: config.log.block_kib << 10,
        cpu: topology.raft.first().copied(),
        realtime: config.log.realtime == Realtime::Auto,
    };
    let shards = bells.len();
    let opened = open::open(settings, shards, bells, &mut |_, _, _| {})?;
    let logs = opened.lanes.into_iter().map(TaskLog::Durable).collect();
    Ok(Recovered { logs, thread: Some(opened.thread) })
}
