//! Brings the tables of a node's partitions to where the log left them.

use super::{
    partition::{Beginning, asker_of, replay},
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
    /// that may lie, if it is. Types that tasks of the log name and `types` lacks are added, as ones whose
    /// workers are not there yet, or learned as while it runs, where nodes may lie; tasks of those that are too
    /// many wait. Nothing that was accepted is dropped.
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
            Replayed::Record(place, partition, record, is_over) => {
                self.grow_to(usize::from(partition) + 1);
                let Self { tables, types, cores, .. } = self;
                let table = &mut tables[usize::from(partition)];
                let is_agreed = table.is_agreed();
                let asker = asker_of(table, &record);
                let type_of = |name: &str| match is_agreed {
                    true => types.learn_agreed(asker, is_over, name, *cores),
                    false => types.find_or_add(name, *cores),
                };
                replay(table, type_of, place, &record, 0);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        consensus::{Place, Record},
        shard::{tests::*, types::LEARNED_MAX},
        wire::names::{Named, Names},
    };

    #[test]
    fn a_start_learns_no_more_types_of_a_node_than_its_share_and_none_of_what_is_over() {
        let mut types = Types::new(Vec::new());
        let limits = TableLimits::from(&Config::default().tasks);
        let names = Names::new(LIFE);
        let among = Some(Among { names, me: 0, nodes: 4 });
        let mut recovering = Recovering::new(&mut types, 1, UNIX_MS, limits, among);
        let mut take = |asker: u8, number: usize, name: &str, is_over: bool| {
            let named = Named { asker, partition: 0, request: 1 + number as u64, place: 0 };
            let mut record = submitted(names.name(named), b"x");
            let Record::Submitted { is_asked, agent_type, .. } = &mut record else { panic!() };
            (*is_asked, *agent_type) = (!is_over, name);
            let place = Place { generation: 1, offset: 4096 };
            recovering.take(Replayed::Record(place, 0, record, is_over));
        };
        for number in 0..2 * LEARNED_MAX {
            take(1, number, &format!("of a liar {number}"), false);
            take(2, number, &format!("in the name of another {number}"), true);
        }
        take(2, 3 * LEARNED_MAX, "wanted", false);
        let table = recovering.tables.remove(0);
        assert_eq!(table.unended(), 4 * LEARNED_MAX + 1, "nothing is dropped");
        assert_eq!(types.len(), LEARNED_MAX / 4 + 1);
        assert!(types.find("wanted").is_some());
    }
}
