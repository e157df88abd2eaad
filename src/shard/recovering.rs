//! Brings the tables of a node's partitions to where the log left them.

use super::{
    partition::{Beginning, replay},
    types::Types,
};
use crate::{
    consensus::{TaskLog, lane::LaneLog, recovery::Replayed},
    task::{Origin, TableLimits, TaskTable},
    wire::id::{CoreIndex, PartitionIndex},
};

/// Tables that are read out of a log.
pub struct Recovering<'a> {
    tables: Vec<TaskTable>,
    types: &'a mut Types,
    cores: CoreIndex,
    unix_ms: u64,
    limits: TableLimits,
    is_agreed: bool,
}

impl<'a> Recovering<'a> {
    /// No tables yet, of a node of so many cores that starts at that Unix time, milliseconds. Types
    /// that tasks of the log name and `types` lacks are added, as ones whose workers are not there
    /// yet: nothing that was accepted is dropped.
    pub fn new(
        types: &'a mut Types,
        cores: CoreIndex,
        unix_ms: u64,
        limits: TableLimits,
        is_agreed: bool,
    ) -> Self {
        Self { tables: Vec::new(), types, cores, unix_ms, limits, is_agreed }
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
            let (durable, zero_unix_ms, is_agreed) = (true, self.unix_ms, self.is_agreed);
            let origin = Origin { partition, first_token: 1, durable, zero_unix_ms, is_agreed };
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
