//! Which partition a new task goes to.
//!
//! A node that is alone keeps every partition: a task without a key goes to the least loaded core
//! that has agents of its type. In a cluster it goes to a partition that this node leads, so that it
//! is accepted and run here; only when there is none, another node takes it.
//!
//! Where nodes may lie a durable task goes to no other node: this one asks all of them for it, whoever
//! leads.
//!
//! Invariants worth naming:
//! - The partition of a key follows from the key, the type's `max` and the number of partitions
//!   alone, so that all nodes agree on it, whatever cores they have.
//! - A type that only other nodes have configured has the `max` that the first of them tells.
//! - A task waits only where agents of its type may live. Agents of a type with fewer of them than a
//!   node has cores live on its first cores, and so do the first partitions, on every node.

use super::kernel::Kernel;
use crate::{
    consensus::{cluster::Leaders, peers::NodeId},
    registry::{TypeIndex, hash_of},
    wire::id::{CoreIndex, PartitionIndex},
};

/// Where a new task goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// To a partition of this node.
    Here(PartitionIndex),
    /// To another node, if one is known to lead what takes it.
    Elsewhere(Option<NodeId>),
}

impl Kernel {
    /// Where a new task of a type goes.
    #[inline]
    pub(super) fn home_of(&mut self, type_index: TypeIndex, key: Option<&str>) -> Home {
        if self.cluster.is_some() {
            return self.home_in_cluster(type_index, key);
        }
        Home::Here(match key {
            // One partition knows all tasks of a key.
            Some(key) => self.partition_of_key(type_index, key),
            None => {
                let core = self.choose_home(type_index);
                self.partition_on(core)
            }
        })
    }

    /// The partition that a new durable task is asked for in, where nodes may lie.
    pub(super) fn home_to_ask(
        &mut self,
        type_index: TypeIndex,
        key: Option<&str>,
    ) -> PartitionIndex {
        self.spread_of(type_index, key, |spread, home, turn| match key {
            Some(key) => spread.partition_of(key),
            None => spread.one_of_all(home, turn),
        })
    }

    fn home_in_cluster(&mut self, type_index: TypeIndex, key: Option<&str>) -> Home {
        self.spread_of(type_index, key, |spread, home, turn| match key {
            Some(key) => spread.of_key(key),
            None => spread.of_any(home, turn),
        })
    }

    /// Chooses among the partitions of a cluster that take tasks of a type: by them, the core to prefer,
    /// and whose turn it is.
    fn spread_of<T>(
        &mut self,
        type_index: TypeIndex,
        key: Option<&str>,
        choose: impl FnOnce(&Spread<'_>, CoreIndex, PartitionIndex) -> T,
    ) -> T {
        let home = if key.is_none() { self.choose_home(type_index) } else { self.index };
        self.next_partition = self.next_partition.wrapping_add(1);
        let Some(cluster) = &self.cluster else { unreachable!("only a cluster is asked for this") };
        let spec = self.types.get(type_index);
        let cores = self.links.cores() as CoreIndex;
        let told_max = match self.types.is_configured(type_index) {
            true => None,
            false => self.told_max(&spec.name),
        };
        let spread = Spread {
            leaders: &cluster.leaders,
            cores,
            few: told_max.unwrap_or(spec.max),
            // Of cores elsewhere this node knows nothing.
            is_everywhere: told_max.is_none() && spec.hosts.len() == usize::from(cores),
        };
        choose(&spread, home, self.next_partition)
    }
}

/// The partitions of a cluster that take tasks of a type.
struct Spread<'a> {
    leaders: &'a Leaders,
    /// Cores of this node.
    cores: CoreIndex,
    /// The most agents of the type on a node.
    few: usize,
    /// Whether every core of this node may have some.
    is_everywhere: bool,
}

impl Spread<'_> {
    /// Partitions that any node keeps on a core that may have agents of the type.
    fn first(&self) -> PartitionIndex {
        self.leaders.partitions().min(self.few.try_into().unwrap_or(PartitionIndex::MAX)).max(1)
    }

    /// A key's partition, at whoever leads it.
    fn of_key(&self, key: &str) -> Home {
        self.at(self.partition_of(key))
    }

    fn partition_of(&self, key: &str) -> PartitionIndex {
        let hash = hash_of(key.as_bytes()) as usize;
        (hash % usize::from(self.first())) as PartitionIndex
    }

    fn at(&self, partition: PartitionIndex) -> Home {
        match self.leaders.of(partition) {
            Some(leader) if leader == self.leaders.me() => Home::Here(partition),
            leader => Home::Elsewhere(leader),
        }
    }

    /// A partition that is led here, on the core `home` if one is; else somebody who leads one.
    /// Partitions take turns.
    fn of_any(&self, home: CoreIndex, turn: PartitionIndex) -> Home {
        if let Some(partition) = self.led_here(home, turn) {
            return Home::Here(partition);
        }
        let first = self.first();
        let others = (0..first).filter_map(|step| self.leaders.of((turn % first + step) % first));
        Home::Elsewhere(others.into_iter().next())
    }

    /// The same where every node takes what is for any partition: partitions take turns.
    fn one_of_all(&self, home: CoreIndex, turn: PartitionIndex) -> PartitionIndex {
        self.led_here(home, turn).unwrap_or(turn % self.first())
    }

    /// A partition that is led here, on the core `home` if one is.
    fn led_here(&self, home: CoreIndex, turn: PartitionIndex) -> Option<PartitionIndex> {
        let all = self.leaders.partitions();
        let upto = if self.is_everywhere { all } else { self.first() };
        let on_home = (home..upto).step_by(usize::from(self.cores));
        let led_there = on_home.filter(|partition| self.leaders.is_here(*partition));
        let led = || (0..upto).filter(|partition| self.leaders.is_here(*partition));
        take_turns(led_there, turn).or_else(|| take_turns(led(), turn))
    }
}

/// One of some partitions: another one with each turn.
fn take_turns(
    some: impl Iterator<Item = PartitionIndex> + Clone,
    turn: PartitionIndex,
) -> Option<PartitionIndex> {
    let count = some.clone().count();
    some.clone().nth(usize::from(turn).checked_rem(count)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = 1;

    /// Twelve partitions, led by these nodes in turn.
    fn led_by(nodes: &[NodeId]) -> Leaders {
        let leaders = Leaders::new(ME, 12);
        for (partition, node) in (0..12).zip(nodes.iter().cycle()) {
            leaders.set(partition, (*node != 0).then_some(*node));
        }
        leaders
    }

    fn spread(leaders: &Leaders, cores: CoreIndex, max: usize) -> Spread<'_> {
        Spread { leaders, cores, few: max, is_everywhere: max >= usize::from(cores) }
    }

    fn homes(spread: &Spread<'_>, home: CoreIndex) -> Vec<Home> {
        (0..24).map(|turn| spread.of_any(home, turn)).collect()
    }

    #[test]
    fn tasks_stay_with_the_partitions_that_are_led_here() {
        let leaders = led_by(&[1, 2, 3]);
        // Led here: 0, 3, 6, 9; core 1 of 2 keeps 3 and 9.
        let homes = homes(&spread(&leaders, 2, 60), 1);
        assert!(homes.iter().all(|home| matches!(home, Home::Here(3 | 9))), "{homes:?}");
        assert!(homes.contains(&Home::Here(3)) && homes.contains(&Home::Here(9)));
    }

    #[test]
    fn a_core_that_leads_nothing_gives_tasks_to_one_that_does() {
        let leaders = led_by(&[1, 2]);
        // Led here: the even ones, all on core 0 of 2.
        let homes = homes(&spread(&leaders, 2, 60), 1);
        assert!(homes.iter().all(|home| matches!(home, Home::Here(p) if p % 2 == 0)), "{homes:?}");
        assert!((0..6).all(|half| homes.contains(&Home::Here(half * 2))), "{homes:?}");
    }

    #[test]
    fn who_leads_nothing_sends_tasks_to_all_who_do() {
        let leaders = led_by(&[2, 3, 0]);
        let homes = homes(&spread(&leaders, 2, 60), 0);
        let known = [Home::Elsewhere(Some(2)), Home::Elsewhere(Some(3))];
        assert!(homes.iter().all(|home| known.contains(home)), "{homes:?}");
        assert!(known.iter().all(|home| homes.contains(home)));
        let leaders = led_by(&[0]);
        assert_eq!(spread(&leaders, 2, 60).of_any(0, 7), Home::Elsewhere(None));
    }

    #[test]
    fn tasks_of_few_agents_stay_where_any_node_has_them() {
        // One agent a node, on core 0: partition 0 is there on nodes with any number of cores.
        let leaders = led_by(&[2, 1]);
        let homes = homes(&spread(&leaders, 2, 1), 0);
        assert!(homes.iter().all(|home| *home == Home::Elsewhere(Some(2))), "{homes:?}");
        let leaders = led_by(&[1, 2]);
        assert_eq!(spread(&leaders, 2, 1).of_any(0, 9), Home::Here(0));
    }

    #[test]
    fn all_nodes_agree_on_the_partition_of_a_key() {
        for max in [1, 2, 5, 60] {
            for number in 0..200 {
                let key = format!("order-{number}");
                let of = |me: NodeId, cores| {
                    let leaders = Leaders::new(me, 12);
                    // Each partition has a leader of its own, whose number tells it.
                    (0..12)
                        .for_each(|partition| leaders.set(partition, Some(100 + partition as u64)));
                    let Home::Elsewhere(Some(leader)) = spread(&leaders, cores, max).of_key(&key)
                    else {
                        panic!("nobody leads anything here")
                    };
                    leader - 100
                };
                let partition = of(1, 1);
                assert_eq!((of(2, 2), of(3, 7)), (partition, partition), "{key}");
                assert!((partition as usize) < max.min(12));
                // A core that may have agents, on any node: they are on its first `max` cores.
                for cores in 1..=16 {
                    assert!(partition % cores < max as u64, "{key} with {cores} cores");
                }
            }
        }
    }
}
