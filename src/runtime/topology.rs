//! Which processor does what.

use crate::config::{CoreSet, Cores};

/// The node's cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Processors that run agents, by the kernel's number; the position is the core's index.
    pub workers: Vec<usize>,
    /// Processors of the raft core group.
    pub raft: Vec<usize>,
}

/// The tuning file asks for processors that this process may not use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TopologyError {
    /// A listed processor is not there.
    #[error(
        "cores.{group} names processor {cpu}, but this process may use only {allowed:?}; \
         change cores.{group} or the affinity mask"
    )]
    NotAllowed {
        /// `workers` or `raft`.
        group: &'static str,
        /// The processor.
        cpu: usize,
        /// What may be used.
        allowed: Vec<usize>,
    },
    /// The affinity mask could not be read or is empty.
    #[error("the kernel tells no processor that this process may use")]
    NoProcessor,
}

impl Topology {
    /// Chooses cores from those that this process may use.
    pub fn detect(cores: &Cores) -> Result<Self, TopologyError> {
        let allowed = core_affinity::get_core_ids().unwrap_or_default();
        Self::choose(cores, allowed.into_iter().map(|core| core.id).collect())
    }

    /// Chooses from `allowed`. With three processors or more the last one is the raft group's
    /// own; with fewer the groups share.
    pub fn choose(cores: &Cores, allowed: Vec<usize>) -> Result<Self, TopologyError> {
        let Some(&last) = allowed.last() else { return Err(TopologyError::NoProcessor) };
        let check = |group, list: &[usize]| match list.iter().find(|cpu| !allowed.contains(cpu)) {
            Some(&cpu) => Err(TopologyError::NotAllowed { group, cpu, allowed: allowed.clone() }),
            None => Ok(list.to_vec()),
        };
        let without = |taken: &[usize]| -> Vec<usize> {
            let rest: Vec<_> = allowed.iter().copied().filter(|cpu| !taken.contains(cpu)).collect();
            if rest.is_empty() { allowed.clone() } else { rest }
        };
        let (workers, raft) = match (&cores.workers, &cores.raft) {
            (CoreSet::List(workers), CoreSet::List(raft)) => {
                (check("workers", workers)?, check("raft", raft)?)
            }
            (CoreSet::Auto, CoreSet::List(raft)) => {
                let raft = check("raft", raft)?;
                (without(&raft), raft)
            }
            (CoreSet::List(workers), CoreSet::Auto) => {
                let workers = check("workers", workers)?;
                let free = allowed.iter().rev().find(|cpu| !workers.contains(cpu));
                let raft = vec![free.copied().unwrap_or(workers[0])];
                (workers, raft)
            }
            (CoreSet::Auto, CoreSet::Auto) if allowed.len() >= 3 => (without(&[last]), vec![last]),
            (CoreSet::Auto, CoreSet::Auto) => (allowed.clone(), vec![allowed[0]]),
        };
        Ok(Self { workers, raft })
    }

    /// The raft group's processors that also run agents.
    pub fn shared(&self) -> Vec<usize> {
        self.raft.iter().copied().filter(|cpu| self.workers.contains(cpu)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(workers: CoreSet, raft: CoreSet, allowed: &[usize]) -> Topology {
        Topology::choose(&Cores { workers, raft }, allowed.to_vec()).unwrap()
    }

    #[test]
    fn the_raft_group_gets_the_last_of_three_cores_for_itself() {
        let topology = choose(CoreSet::Auto, CoreSet::Auto, &[0, 1, 2, 5]);
        assert_eq!(topology, Topology { workers: vec![0, 1, 2], raft: vec![5] });
        assert_eq!(topology.shared(), Vec::<usize>::new());
    }

    #[test]
    fn on_one_or_two_cores_the_groups_share() {
        for allowed in [&[3][..], &[0, 1]] {
            let topology = choose(CoreSet::Auto, CoreSet::Auto, allowed);
            assert_eq!(topology.workers, allowed);
            assert_eq!(topology.shared(), [allowed[0]]);
        }
    }

    #[test]
    fn a_list_for_one_group_leaves_the_rest_to_the_other() {
        let topology = choose(CoreSet::Auto, CoreSet::List(vec![1]), &[0, 1, 2]);
        assert_eq!(topology.workers, [0, 2]);
        let topology = choose(CoreSet::List(vec![2]), CoreSet::Auto, &[0, 1, 2]);
        assert_eq!(topology.raft, [1]);
        let topology = choose(CoreSet::List(vec![0, 1]), CoreSet::Auto, &[0, 1]);
        assert_eq!(topology.raft, [0]);
    }

    #[test]
    fn a_processor_that_is_not_there_is_named() {
        let cores = Cores { workers: CoreSet::List(vec![7]), raft: CoreSet::Auto };
        let error = Topology::choose(&cores, vec![0, 1]).unwrap_err();
        assert!(error.to_string().starts_with("cores.workers names processor 7"), "{error}");
    }
}
