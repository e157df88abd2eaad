//! Opens the durable log when a node starts and brings every partition to where it was.

use crate::{
    config::{Config, Realtime},
    consensus::{
        MemoryLog, TaskLog,
        cluster::Cluster,
        open::{self, OpenError, Seat, Settings},
        reader::SegmentReader,
        thread::LogThread,
    },
    runtime::{doorbell::Doorbell, topology::Topology},
    shard::{
        core::Partitions,
        partition::Beginning,
        recovering::{Recovering, among},
        types::Types,
    },
    task::{Origin, TableLimits, TaskTable},
    wire::id::{CoreIndex, PartitionIndex},
};
use std::sync::Arc;

/// What the cores of a node begin with.
pub(super) struct Recovered {
    /// One log and one table for each partition, in their order.
    pub tables: Vec<Beginning>,
    /// How many partitions there are.
    pub partitions: Partitions,
    /// What writes the logs and what reads them; `None` in memory.
    pub durable: Option<(LogThread, SegmentReader)>,
    /// Who leads what; `None` in memory.
    pub cluster: Option<Arc<Cluster>>,
    /// Whether this node leads everything and shares it with nobody.
    pub is_alone: bool,
}

/// Partitions that keep nothing, one for each core.
pub(super) fn in_memory(config: &Config, cores: CoreIndex, unix_ms: u64) -> Recovered {
    let beginning = |partition| {
        let origin = Origin {
            partition,
            first_token: 1,
            durable: false,
            zero_unix_ms: unix_ms,
            among: None,
        };
        Beginning {
            log: TaskLog::Memory(MemoryLog::default()),
            table: TaskTable::new(origin, TableLimits::from(&config.tasks)),
        }
    };
    Recovered {
        tables: (0..cores).map(beginning).collect(),
        partitions: Partitions { keyed: cores, all: cores, clustered: false, agreed: false },
        durable: None,
        cluster: None,
        is_alone: true,
    }
}

/// Opens the log and reads it. Types that tasks of the log name and the configuration does not are
/// added, as ones whose workers are not there yet: nothing that was accepted is dropped.
///
/// # Errors
/// Those of the log; nothing was changed in its folder.
pub(super) fn from_log(
    config: &Config,
    seat: &Seat,
    topology: &Topology,
    bells: &[Doorbell],
    types: &mut Types,
    unix_ms: u64,
) -> Result<Recovered, OpenError> {
    let settings = Settings {
        folder: config.log.folder.clone().into(),
        segment_bytes: config.log.segment_mib << 20,
        keep_bytes: config.log.keep_mib << 20,
        block_bytes: config.log.block_kib << 10,
        cpu: topology.raft.first().copied(),
        realtime: config.log.realtime == Realtime::Auto,
    };
    let cores = bells.len() as CoreIndex;
    let configured = types.len();
    let limits = TableLimits::from(&config.tasks);
    let among = seat.company.as_ref().and_then(among);
    let mut recovering = Recovering::new(types, cores, unix_ms, limits, among);
    let opened = open::open(settings, seat, bells, &mut |replayed| recovering.take(replayed))?;
    let beginnings = recovering.finish(opened.lanes);
    let tables = || beginnings.iter().map(|beginning| &beginning.table);
    let recovered: usize = tables().map(TaskTable::unended).sum();
    for (type_index, added) in types.iter().skip(configured) {
        let waiting: usize = tables().map(|table| table.count_cold(type_index)).sum();
        if waiting > 0 {
            tracing::warn!(
                agent_type = added.name,
                waiting,
                "tasks in the log are of a type that is not configured; they wait for workers of it"
            );
        }
    }
    if recovered > 0 {
        tracing::info!(tasks = recovered, "unended tasks were found in the log and go on");
    }
    let partitions = Partitions {
        keyed: opened.first_partitions,
        all: beginnings.len() as PartitionIndex,
        clustered: seat.links.is_some(),
        agreed: seat.company.is_some(),
    };
    Ok(Recovered {
        tables: beginnings,
        partitions,
        durable: Some((opened.thread, opened.reader)),
        cluster: Some(opened.cluster),
        is_alone: seat.links.is_none(),
    })
}
