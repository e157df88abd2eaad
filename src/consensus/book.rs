//! Where the nodes of a cluster can be reached.
//!
//! A node knows the addresses of its configuration, and those that it was told: by somebody who asked
//! it to, or by another node.
//!
//! Invariants worth naming:
//! - Where its configuration says that a node is, there it is for this node, whatever it is told: the
//!   way to a node may be another one from each place.
//! - Of what is told, the newer by its version replaces the older, so that all nodes have been told
//!   the same in the end, whatever the order.

use super::{cluster::Address, peers::NodeId};
use std::{collections::BTreeMap, net::SocketAddr};

/// Nodes that a book may hold: far more than a cluster may have members.
pub const NODES_MAX: usize = 256;

/// The addresses of the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    /// What all nodes tell each other, with the version of each address.
    nodes: BTreeMap<NodeId, (u64, Address)>,
    /// What this node's configuration says; it is not told as such.
    configured: BTreeMap<NodeId, Address>,
}

/// Bytes that are no book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a list of nodes cannot be read")]
pub struct Unreadable;

impl Book {
    /// A book of what a configuration says: for other nodes it is older than anything that was told.
    pub fn of_configuration(nodes: &[(NodeId, Address)]) -> Self {
        Self {
            nodes: nodes.iter().map(|(node, address)| (*node, (0, *address))).collect(),
            configured: nodes.iter().copied().collect(),
        }
    }

    /// Takes a newer address of a node, to be told to all; false when the book is full, and when it
    /// has that address.
    pub fn learn(&mut self, node: NodeId, address: Address) -> bool {
        let version = match self.nodes.get(&node) {
            Some((_, known)) if *known == address => return false,
            Some((version, _)) => version + 1,
            None if self.nodes.len() == NODES_MAX => return false,
            None => 1,
        };
        self.nodes.insert(node, (version, address));
        true
    }

    /// Takes what another book knows better; tells which nodes that changed.
    pub fn merge(&mut self, other: &Self) -> Vec<NodeId> {
        let mut changed = Vec::new();
        for (node, (version, address)) in &other.nodes {
            let known = self.nodes.get(node);
            // Of one version the greater address: any rule will do that is the same everywhere.
            let is_better = known.is_none_or(|known| {
                (known.0, known.1.peers, known.1.rpc) < (*version, address.peers, address.rpc)
            });
            if is_better && (known.is_some() || self.nodes.len() < NODES_MAX) {
                self.nodes.insert(*node, (*version, *address));
                changed.push(*node);
            }
        }
        changed
    }

    /// Where a node can be reached from here.
    pub fn address(&self, node: NodeId) -> Option<Address> {
        let told = || self.nodes.get(&node).map(|(_, address)| *address);
        self.configured.get(&node).copied().or_else(told)
    }

    /// All nodes, in the order of their numbers.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, Address)> {
        let here = |node| self.configured.get(node).copied();
        self.nodes.iter().map(move |(node, (_, told))| (*node, here(node).unwrap_or(*told)))
    }

    /// What is told, as a line of text for each node: its number, the version, two addresses.
    pub fn to_text(&self) -> String {
        let line = |(node, (version, Address { peers, rpc })): (&NodeId, &(u64, Address))| {
            format!("{node} {version} {peers} {rpc}\n")
        };
        self.nodes.iter().map(line).collect()
    }

    /// Reads what [`Book::to_text`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn from_text(text: &str) -> Result<Self, Unreadable> {
        let mut nodes = BTreeMap::new();
        for line in text.lines() {
            let (node, entry) = read_line(line).ok_or(Unreadable)?;
            nodes.insert(node, entry);
        }
        match nodes.len() {
            0..=NODES_MAX => Ok(Self { nodes, configured: BTreeMap::new() }),
            _ => Err(Unreadable),
        }
    }
}

fn read_line(line: &str) -> Option<(NodeId, (u64, Address))> {
    let mut words = line.split(' ');
    let node: NodeId = words.next()?.parse().ok()?;
    let version: u64 = words.next()?.parse().ok()?;
    let mut address = || words.next()?.parse::<SocketAddr>().ok();
    let (peers, rpc) = (address()?, address()?);
    // A version is counted on.
    let is_sane = node > 0 && version < u64::MAX / 2 && words.next().is_none();
    is_sane.then_some((node, (version, Address { peers, rpc })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Address {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Address { peers: at(port), rpc: at(port + 1) }
    }

    #[test]
    fn books_that_are_told_in_any_order_become_the_same() {
        let configured = Book::of_configuration(&[(1, address(10)), (2, address(20))]);
        let (mut left, mut right) = (configured.clone(), configured);
        assert!(left.learn(3, address(30)) && left.learn(1, address(40)));
        assert!(right.learn(3, address(50)) && !right.learn(3, address(50)));
        let before = left.clone();
        assert_eq!(left.merge(&right), [3]);
        assert_eq!(right.merge(&before), [1]);
        assert_eq!(left, right);
        assert_eq!(left.address(3), Some(address(50)));
        assert!(left.merge(&right).is_empty());
        let mut stranger = Book::default();
        assert_eq!(stranger.merge(&left), [1, 2, 3]);
        assert_eq!(stranger.address(1), Some(address(40)));
    }

    #[test]
    fn nodes_stay_where_the_configuration_says() {
        let mut here = Book::of_configuration(&[(1, address(10)), (2, address(20))]);
        let mut there = Book::of_configuration(&[(1, address(60)), (2, address(70))]);
        // By a version of its own, and by none.
        there.learn(1, address(80));
        here.merge(&there);
        there.merge(&here);
        assert_eq!(here.to_text(), there.to_text(), "they have been told the same");
        let at = |ports: [u16; 2]| [(1, address(ports[0])), (2, address(ports[1]))];
        assert!(here.nodes().eq(at([10, 20])) && there.nodes().eq(at([60, 70])));
        assert!(here.nodes().all(|(node, known)| here.address(node) == Some(known)));
        // After a restart, too: what was kept is what was told.
        let mut again = Book::of_configuration(&at([10, 20]));
        again.merge(&Book::from_text(&here.to_text()).expect("it is a book"));
        assert_eq!(again, here);
    }

    #[test]
    fn a_book_is_what_its_text_says_and_nothing_else_is_one() {
        let mut book = Book::default();
        assert!(book.learn(7, address(70)) && book.learn(9, address(90)));
        assert_eq!(Book::from_text(&book.to_text()), Ok(book.clone()));
        for text in ["1", "0 1 127.0.0.1:1 127.0.0.1:2", "1 2 127.0.0.1:1", "1 2 a b", "1 2 "] {
            assert_eq!(Book::from_text(text), Err(Unreadable), "{text:?}");
        }
        let many = |count: u64| -> String {
            (1..=count).map(|node| format!("{node} 1 127.0.0.1:1 127.0.0.1:2\n")).collect()
        };
        assert!(Book::from_text(&many(NODES_MAX as u64)).is_ok());
        assert!(Book::from_text(&many(NODES_MAX as u64 + 1)).is_err());
        let mut full = Book::from_text(&many(NODES_MAX as u64)).expect("it fits");
        assert!(!full.learn(9999, address(1)));
        assert!(full.merge(&Book::of_configuration(&[(9999, address(1))])).is_empty());
    }
}
