//! News that is passed on: which nodes changed lately, and how often that was told.
//!
//! A node is hot for the rounds after its change; its news is pushed until enough rounds have gone or
//! enough receivers had it already (*rumor mongering with feedback*, Demers and others: *Epidemic
//! Algorithms for Replicated Database Maintenance*, 1987). Here the feedback is free of bytes: who
//! is told what it knows already concludes that others know it as well. News that is no longer pushed
//! is kept for a while for those that ask.
//!
//! Invariant: a name is that of what is known now; whoever changes a record names its news anew.

use super::{NodeId, entries::Version, record::mix};
use foldhash::HashMap;
use std::{collections::VecDeque, hint};

/// Most nodes that are news at the same time; the oldest of more are left to comparisons.
const RUMORS_MAX: usize = 1_024;
/// How many of the oldest make room together, so that a death of many costs no search for each.
const ROOM: usize = RUMORS_MAX / 8;
/// Most versions of one node from which its changes may be told.
const STEPS_MAX: usize = 8;

/// News of one node.
#[derive(Clone, Debug)]
pub struct Rumor {
    /// Of which.
    pub node: NodeId,
    /// Identifies what is known of it, among news.
    pub name: u32,
    /// The round of a change, and the version before it,
    first: (u64, Version),
    /// and of changes since.
    later: VecDeque<(u64, Version)>,
    /// Rounds for which it is pushed on.
    left: u32,
    /// Times that it came again since that was counted down.
    repeats: u32,
    /// The round of the last change.
    round: u64,
}

impl Rumor {
    /// The version from which changes are told.
    pub fn from(&self) -> Version {
        self.first.1
    }
}

/// All news.
#[derive(Clone, Debug, Default)]
pub struct Rumors {
    rumors: Vec<Rumor>,
    /// Where each node's news is among them.
    places: HashMap<NodeId, usize>,
}

impl Rumors {
    /// A node changed; until now it was known up to `before`.
    pub fn note(
        &mut self,
        node: NodeId,
        before: Version,
        begins_again: bool,
        round: u64,
        rounds_hot: u32,
    ) {
        let place = self.places.get(&node).copied().unwrap_or_else(|| {
            if self.rumors.len() == RUMORS_MAX {
                self.rumors.sort_by_key(|rumor| std::cmp::Reverse((rumor.round, rumor.left)));
                self.rumors.truncate(RUMORS_MAX - ROOM);
                self.find_places();
            }
            let (first, later) = ((round, before), VecDeque::new());
            self.rumors.push(Rumor { node, name: 0, first, later, left: 0, repeats: 0, round });
            self.places.insert(node, self.rumors.len() - 1);
            self.rumors.len() - 1
        });
        let rumor = &mut self.rumors[place];
        if begins_again {
            rumor.first = (round, before);
            rumor.later.clear();
        }
        let (at, version) = *rumor.later.back().unwrap_or(&rumor.first);
        if at != round && version != before {
            rumor.later.push_back((round, before));
        }
        let horizon = u64::from(rounds_hot);
        while rumor.later.len() >= STEPS_MAX || rumor.first.0 + horizon < round {
            let Some(next) = rumor.later.pop_front() else { break };
            rumor.first = next;
        }
        (rumor.left, rumor.repeats, rumor.round) = (rounds_hot, 0, round);
    }

    /// What is known of a node has this fingerprint now.
    pub fn name(&mut self, node: NodeId, fingerprint: u64) {
        if let Some(place) = self.places.get(&node) {
            self.rumors[*place].name = fingerprint as u32;
        }
    }

    /// Touches the news of some nodes, so that memory brings it all at the same time.
    pub fn touch(&self, nodes: impl Iterator<Item = NodeId>) {
        let touched = nodes.filter_map(|node| Some(self.rumors[*self.places.get(&node)?].left));
        hint::black_box(touched.fold(0, |all, left| all ^ left));
    }

    /// Somebody told what is known already; enough of that counts as so many rounds of pushing.
    pub fn repeat(&mut self, node: NodeId, enough: u32, less: u32) {
        if let Some(place) = self.places.get(&node) {
            let rumor = &mut self.rumors[*place];
            rumor.repeats += 1;
            if rumor.repeats >= enough {
                (rumor.left, rumor.repeats) = (rumor.left.saturating_sub(less), 0);
            }
        }
    }

    /// Ends a round: what was pushed is pushed one time less, what is old is no news.
    pub fn age(&mut self, pushed: &[NodeId], round: u64, rounds_kept: u32) {
        for node in pushed {
            if let Some(place) = self.places.get(node) {
                self.rumors[*place].left = self.rumors[*place].left.saturating_sub(1);
            }
        }
        let count = self.rumors.len();
        self.rumors.retain(|rumor| rumor.left > 0 || rumor.round + u64::from(rounds_kept) > round);
        if self.rumors.len() < count {
            self.find_places();
        }
    }

    fn find_places(&mut self) {
        self.places.clear();
        self.places.extend(self.rumors.iter().map(|rumor| rumor.node).zip(0..));
    }

    /// What is to be pushed, the newest first: of what is equally new that of `me`, which nobody else can
    /// tell, and then by `lot`. When there is more than a round can tell, another lot each round lets
    /// every node have its turn.
    pub fn hot(&mut self, me: NodeId, lot: u64) -> impl Iterator<Item = &Rumor> {
        let order = |rumor: &Rumor| {
            (std::cmp::Reverse(rumor.left), rumor.node != me, mix(rumor.node ^ lot))
        };
        if !self.rumors.is_sorted_by_key(order) {
            self.rumors.sort_by_key(order);
            self.find_places();
        }
        self.rumors.iter().filter(|rumor| rumor.left > 0)
    }

    /// How many nodes are news.
    pub fn len(&self) -> usize {
        self.rumors.len()
    }

    /// Whether nothing is to be pushed.
    pub fn is_quiet(&self) -> bool {
        self.rumors.iter().all(|rumor| rumor.left == 0)
    }

    /// What those are told that ask.
    pub fn recent(&self) -> impl Iterator<Item = &Rumor> {
        self.rumors.iter()
    }

    /// A node is no longer known.
    pub fn forget(&mut self, node: NodeId) {
        self.rumors.retain(|rumor| rumor.node != node);
        self.find_places();
    }
}
