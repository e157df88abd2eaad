//! Who a node is among which others, and what their signatures are bound to.
//!
//! Invariants worth naming
//! - The genesis follows from all that makes a cluster the one that it is: its name, its partitions,
//!   its nodes with their keys, its terms, and which of their lives it is. Nodes that differ in any of these have
//!   another one, and what they sign says nothing to each other.

use super::keys::{Identity, Keys, Ring, hash};

/// What nodes must have in common beside that, since what they agree on follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long a key stands for a task, milliseconds.
    pub key_ttl_ms: u64,
    /// Bytes of a payload at most.
    pub payload_bytes_max: u64,
}

/// Who a node is among which others.
#[derive(Clone, Debug)]
pub struct Company {
    /// This node.
    pub node: u64,
    /// Its key.
    pub identity: Identity,
    /// Everybody's keys: those of all nodes, and of clients beside them.
    pub ring: Ring,
    /// The number of the cluster's name and partitions.
    pub cluster: u128,
    /// Which life of these nodes it is: one that begins again with empty logs has a higher number.
    pub generation: u64,
    /// All nodes: 3f + 1.
    pub nodes: Vec<u64>,
    /// What they have in common.
    pub terms: Terms,
}

impl Company {
    /// The nodes in the order of their numbers, each with its public key; zeros for one that has none,
    /// which no group begins with.
    pub fn members(&self) -> Vec<(u64, [u8; 32])> {
        let member = |node: &u64| (*node, self.ring.key(*node).unwrap_or_default());
        let mut members: Vec<_> = self.nodes.iter().map(member).collect();
        members.sort_unstable();
        members
    }

    /// What all that is signed is bound to: the number of this life of this cluster.
    pub fn genesis(&self) -> u128 {
        let (cluster, generation) = (self.cluster.to_le_bytes(), self.generation.to_le_bytes());
        let members = self.members();
        let member = |(node, key): &(u64, [u8; 32])| [&node.to_le_bytes()[..], key].concat();
        let members: Vec<u8> = members.iter().flat_map(member).collect();
        let Terms { key_ttl_ms, payload_bytes_max } = self.terms;
        let terms = [key_ttl_ms, payload_bytes_max].map(u64::to_le_bytes).concat();
        let digest = hash(&[b"coreflow genesis 2\0", &cluster, &generation, &terms, &members]);
        u128::from_be_bytes(*digest.first_chunk().expect("a digest has 32 bytes"))
    }

    /// What this node signs and verifies the statements of a partition with.
    pub fn keys(&self, partition: u16) -> Keys {
        Keys::new(self.identity.clone(), self.ring.clone(), self.genesis(), partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::pbft::keys::Statement;

    const TERMS: Terms = Terms { key_ttl_ms: 1000, payload_bytes_max: 1000 };

    fn company(nodes: &[u64]) -> Company {
        let identity = |node: u64| Identity::from_secret(&[node as u8; 32]);
        let keys = nodes.iter().map(|node| (*node, identity(*node).public()));
        Company {
            node: 1,
            identity: identity(1),
            ring: Ring::new(keys).expect("keys"),
            cluster: 7,
            generation: 1,
            nodes: nodes.to_vec(),
            terms: TERMS,
        }
    }

    #[test]
    fn what_was_signed_in_another_life_says_nothing() {
        let first = company(&[1, 2, 3, 4]);
        let statement = Statement::Prepare { view: 3, seq: 9, chain: &[5; 32] };
        let signature = first.keys(0).sign(statement);
        let believes = |company: &Company| company.keys(0).has_signed(1, statement, &signature);
        assert!(believes(&first));
        assert!(believes(&company(&[4, 2, 3, 1])), "the order of a list says nothing");
        assert!(!believes(&Company { generation: 2, ..first.clone() }));
        assert!(!believes(&Company { cluster: 8, ..first.clone() }));
        for terms in [Terms { key_ttl_ms: 9, ..TERMS }, Terms { payload_bytes_max: 9, ..TERMS }] {
            assert!(!believes(&Company { terms, ..first.clone() }));
        }
        assert!(!believes(&company(&[1, 2, 3, 5])), "another node");
        let mut other = company(&[1, 2, 3, 4]);
        let keys = [1, 2, 3, 9].map(|secret| Identity::from_secret(&[secret; 32]).public());
        other.ring = Ring::new((1..).zip(keys)).expect("keys");
        assert!(!believes(&other), "another key of a node");
        // A client in the ring is no node.
        let keys = [1, 2, 3, 4, 9].map(|secret| Identity::from_secret(&[secret; 32]).public());
        let ring = Ring::new((1..).zip(keys)).expect("keys");
        assert!(believes(&Company { ring, ..first }));
    }
}
