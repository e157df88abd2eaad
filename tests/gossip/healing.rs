//! How long it takes after a partition until every node is alive again to every other one.
//!
//! Only nodes count that ran all the time since the partition began: who was killed meanwhile, or started
//! again, is another question.

use coreflow::gossip::{NodeId, Status};

/// Who is not alive to whom.
#[derive(Default)]
pub struct Healing {
    /// Bits a row, and a row for each node: what is not alive to it.
    gone: Vec<u64>,
    words: usize,
    /// Which nodes ran all the time.
    steady: Vec<bool>,
    /// Pairs of them of which the second is not alive to the first.
    wrong: usize,
    /// When the network was whole again, while not all is well.
    joined_ms: Option<u64>,
}

impl Healing {
    /// A partition begins; these run.
    pub fn begin(nodes: usize, running: impl Iterator<Item = NodeId>) -> Self {
        let words = nodes.div_ceil(64);
        let mut steady = vec![false; nodes];
        running.for_each(|node| steady[node as usize - 1] = true);
        Self { gone: vec![0; words * nodes], words, steady, wrong: 0, joined_ms: None }
    }

    /// The partition ends.
    pub fn join(&mut self, now_ms: u64) {
        self.joined_ms = Some(now_ms);
    }

    /// Whether the partition has ended and not all are alive to all yet.
    pub fn is_under_way(&self) -> bool {
        self.joined_ms.is_some()
    }

    /// Something is said of a node at another.
    pub fn hear(&mut self, at: NodeId, node: NodeId, status: Status) {
        let (at, node) = (at as usize - 1, node as usize - 1);
        if self.steady.is_empty() || !self.steady[at] || !self.steady[node] {
            return;
        }
        let (word, bit) = (&mut self.gone[at * self.words + node / 64], 1_u64 << (node % 64));
        let was_gone = *word & bit != 0;
        *word = if status == Status::Alive { *word & !bit } else { *word | bit };
        self.wrong = self.wrong + usize::from(*word & bit != 0) - usize::from(was_gone);
    }

    /// A node is killed: it does not count any more.
    pub fn drop(&mut self, node: NodeId) {
        for at in 1..=self.steady.len() as NodeId {
            self.hear(at, node, Status::Alive);
            self.hear(node, at, Status::Alive);
        }
        if let Some(steady) = self.steady.get_mut(node as usize - 1) {
            *steady = false;
        }
    }

    /// Milliseconds since the partition's end when all are alive to all now, once.
    pub fn healed(&mut self, now_ms: u64) -> Option<u64> {
        let joined_ms = self.joined_ms.filter(|_| self.wrong == 0)?;
        *self = Self::default();
        Some(now_ms - joined_ms)
    }
}
