//! Brings the tables of a node's partitions to where the log left them.

use super::{
    partition::{Beginning, replay},
    types::Types,
};
use crate::{
    consensus::{TaskLog, agreement::Rules, lane::LaneLog, pbft::Company, recovery::Replayed},
    task::{Among, Origin, TableLimits, TaskTable},
    wire::id::{CoreIndex, PartitionIndex},
};

/// Tables that are read out of a log.
pub struct Recovering<'a> {
    tables: Vec<TaskTable>,
    types: &'a mut Types,
    cores: CoreIndex,
    unix_ms: u64,
    limits: TableLimits,
    among: Option<Among>,
}

/// Whom a node is among that agrees with others which may lie.
pub fn among(company: &Company) -> Option<Among> {
    let naming = Rules::new(company).naming(company.node, 0)?;
    let nodes = u8::try_from(company.nodes.len()).ok()?;
    Some(Among { names: naming.names, me: naming.asker, nodes })
}

impl<'a> Recovering<'a> {
    /// No tables yet, of a node of so many cores that starts at that Unix time, milliseconds, `among` others
    /// that may lie, if it is. Types
    /// that tasks of the log name and `types` lacks are added, as ones whose workers are not there
    /// yet: nothing that was accepted is dropped.
    pub fn new(
        types: &'a mut Types,
        cores: CoreIndex,
        unix_ms: u64,
        limits: TableLimits,
        among: Option<Among>,
    ) -> Self {
        Self { tables: Vec::new(), types, cores, unix_ms, limits, among }
    }

    /// Takes what the log says next.
    pub fn take(&mut self, replayed: Replayed<'_>) {
        match replayed {
            Replayed::Record(place, partition, record) => {
                self.grow_to(usize::from(partition) + 1);
                let type_of = |name: &str| self.types.find_or_add(name, self.cores);
                replay(&mut self.tables[usize::from(partition)], type_of, place, &record, 0);
            }
            Replayed::Anew(partition) => {
                self.grow_to(usize::from(partition) + 1);
                let table = &mut self.tables[usize::from(partition)];
                *table = table.anew();
            }
        }
    }

    fn grow_to(&mut self, count: usize) {
        while self.tables.len() < count {
            let partition = self.tables.len() as PartitionIndex;
            let (durable, zero_unix_ms, among) = (true, self.unix_ms, self.among);
            let origin = Origin { partition, first_token: 1, durable, zero_unix_ms, among };
            self.tables.push(TaskTable::new(origin, self.limits));
        }
    }

    /// The partitions, each with its lane of the log.
    pub fn finish(mut self, lanes: Vec<LaneLog>) -> Vec<Beginning> {
        self.grow_to(lanes.len());
        let beginning = |(lane, table)| Beginning { log: TaskLog::Durable(lane), table };
        lanes.into_iter().zip(self.tables).map(beginning).collect()
    }
}
