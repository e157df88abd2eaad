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
use std::{collections::VecDeque, hint};

/// Most nodes that are news at the same time; the oldest of more are left to comparisons.
const RUMORS_MAX: usize = 1_024;
/// How many of the oldest make room together, so that a death of many costs no search for each.
const ROOM: usize = RUMORS_MAX / 8;
/// Most versions of one node from which its changes may be told.
const STEPS_MAX: usize = 8;

/// Rounds of changes, and the versions before them.
#[derive(Clone, Debug, Default)]
struct Later(VecDeque<(u64, Version)>);

/// News of one node.
#[derive(Clone, Debug, Default)]
pub struct Rumor {
    /// Of which.
    pub node: NodeId,
    /// Identifies what is known of it, among news.
    pub name: u32,
    /// The round of a change, and the version before it,
    first: (u64, Version),
    /// and of changes since, which most news has none of.
    later: Option<Box<Later>>,
    /// Rounds for which it is pushed on.
    left: u16,
    /// Times that it came again since that was counted down.
    repeats: u16,
    /// The round of the last change.
    round: u64,
}

// Of each datagram of news each piece is looked up here.
const _: () = assert!(size_of::<Rumor>() <= 48);

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
    places: Places,
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
        let place = self.places.find(node, &self.rumors).unwrap_or_else(|| {
            if self.rumors.len() == RUMORS_MAX {
                self.make_room();
            }
            let first = (round, before);
            self.rumors.push(Rumor {
                node,
                name: 0,
                first,
                later: None,
                left: 0,
                repeats: 0,
                round,
            });
            self.places.add(&self.rumors);
            self.rumors.len() - 1
        });
        let rumor = &mut self.rumors[place];
        if begins_again {
            rumor.first = (round, before);
            rumor.later = None;
        }
        let last = rumor.later.as_ref().and_then(|later| later.0.back());
        let (at, version) = *last.unwrap_or(&rumor.first);
        if at != round && version != before {
            rumor.later.get_or_insert_default().0.push_back((round, before));
        }
        let horizon = u64::from(rounds_hot);
        if let Some(later) = &mut rumor.later {
            while later.0.len() >= STEPS_MAX || rumor.first.0 + horizon < round {
                let Some(next) = later.0.pop_front() else { break };
                rumor.first = next;
            }
            rumor.later = rumor.later.take().filter(|later| !later.0.is_empty());
        }
        rumor.left = u16::try_from(rounds_hot).unwrap_or(u16::MAX);
        (rumor.repeats, rumor.round) = (0, round);
    }

    /// Lets the newest be the first, and forgets the oldest.
    fn make_room(&mut self) {
        self.rumors.sort_by_key(|rumor| std::cmp::Reverse((rumor.round, rumor.left)));
        self.rumors.truncate(RUMORS_MAX - ROOM);
        self.places.find_all(&self.rumors);
    }

    /// What is known of a node has this fingerprint now.
    pub fn name(&mut self, node: NodeId, fingerprint: u64) {
        if let Some(place) = self.places.find(node, &self.rumors) {
            self.rumors[place].name = fingerprint as u32;
        }
    }

    /// Touches the news of some nodes, so that memory brings it all at the same time.
    pub fn touch(&self, nodes: impl Iterator<Item = NodeId>) {
        let touched = nodes.filter_map(|node| self.places.find(node, &self.rumors));
        hint::black_box(touched.fold(0, |all, place| all ^ place));
    }

    /// Somebody told what is known already; enough of that counts as so many rounds of pushing.
    pub fn repeat(&mut self, node: NodeId, enough: u16, less: u16) {
        if let Some(place) = self.places.find(node, &self.rumors) {
            let rumor = &mut self.rumors[place];
            rumor.repeats += 1;
            if rumor.repeats >= enough {
                (rumor.left, rumor.repeats) = (rumor.left.saturating_sub(less), 0);
            }
        }
    }

    /// Ends a round: what was pushed is pushed one time less, what is old is no news.
    pub fn age(&mut self, pushed: &[NodeId], round: u64, rounds_kept: u32) {
        for node in pushed {
            if let Some(place) = self.places.find(*node, &self.rumors) {
                self.rumors[place].left = self.rumors[place].left.saturating_sub(1);
            }
        }
        let count = self.rumors.len();
        self.rumors.retain(|rumor| rumor.left > 0 || rumor.round + u64::from(rounds_kept) > round);
        if self.rumors.len() < count {
            self.places.find_all(&self.rumors);
        }
    }

    /// What is to be pushed, the newest first: of what is equally new that of `me`, which nobody else can
    /// tell, and then by `lot`. When there is more than a round can tell, another lot each round lets
    /// every node have its turn.
    pub fn hot(&mut self, me: NodeId, lot: u64) -> impl Iterator<Item = &Rumor> {
        // The place is the last of a key: no two are equal.
        let key = |(rumor, place): (&Rumor, u64)| {
            let first = u128::from(u16::MAX - rumor.left) << 1 | u128::from(rumor.node != me);
            first << 80 | u128::from(mix(rumor.node ^ lot)) << 16 | u128::from(place)
        };
        let mut keys: Vec<_> = self.rumors.iter().zip(0..).map(key).collect();
        if !keys.is_sorted() {
            keys.sort_unstable();
            let mut before = std::mem::take(&mut self.rumors);
            let places = keys.iter().map(|key| usize::from(*key as u16));
            self.rumors = places.map(|place| std::mem::take(&mut before[place])).collect();
            self.places.find_all(&self.rumors);
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
        self.places.find_all(&self.rumors);
    }
}

/// Where each node's news is among all: open places, found by a permutation of the node's id, of which less than
/// half are taken.
#[derive(Clone, Debug, Default)]
struct Places(Vec<u16>);

/// Nothing is there.
const FREE: u16 = u16::MAX;
const _: () = assert!(RUMORS_MAX < FREE as usize);
/// Fewest open places.
const PLACES_MIN: usize = 16;

impl Places {
    fn find(&self, node: NodeId, rumors: &[Rumor]) -> Option<usize> {
        let last = self.0.len().checked_sub(1)?;
        let mut open = mix(node) as usize & last;
        loop {
            match self.0[open] {
                FREE => return None,
                place if rumors[usize::from(place)].node == node => return Some(place.into()),
                _ => open = (open + 1) & last,
            }
        }
    }

    /// Adds the last one.
    fn add(&mut self, rumors: &[Rumor]) {
        if 2 * rumors.len() > self.0.len() {
            return self.find_all(rumors);
        }
        self.put(rumors.len() - 1, rumors);
    }

    fn put(&mut self, place: usize, rumors: &[Rumor]) {
        let last = self.0.len() - 1;
        let mut open = mix(rumors[place].node) as usize & last;
        while self.0[open] != FREE {
            open = (open + 1) & last;
        }
        self.0[open] = place as u16;
    }

    fn find_all(&mut self, rumors: &[Rumor]) {
        let places = (2 * rumors.len()).next_power_of_two().max(PLACES_MIN);
        self.0.clear();
        self.0.resize(places, FREE);
        (0..rumors.len()).for_each(|place| self.put(place, rumors));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cmp::Reverse, collections::HashMap};

    #[test]
    fn news_is_found_whatever_was_told_forgotten_and_sorted_before() {
        let mut rng = fastrand::Rng::with_seed(5);
        let mut rumors = Rumors::default();
        let mut most = 0;
        for round in 0..400 {
            for _ in 0..rng.usize(..160) {
                let node = rng.u64(1..2_000);
                rumors.note(node, rng.u64(..5), false, round, 7);
                rumors.name(node, node);
                rumors.repeat(rng.u64(1..2_000), 3, 2);
            }
            rumors.forget(rng.u64(1..2_000));
            let me = rng.u64(1..2_000);
            let hot: Vec<_> = rumors.hot(me, round).map(|rumor| (rumor.left, rumor.node)).collect();
            let order =
                |(left, node): &(u16, u64)| (Reverse(*left), *node != me, mix(node ^ round));
            assert!(hot.is_sorted_by_key(order));
            let pushed: Vec<_> = hot.iter().take(40).map(|(_, node)| *node).collect();
            rumors.age(&pushed, round, 14);
            let found: HashMap<_, _> = (1..2_000)
                .filter_map(|node| Some((node, rumors.places.find(node, &rumors.rumors)?)))
                .collect();
            assert_eq!(found.len(), rumors.len());
            for (node, place) in found {
                let rumor = &rumors.rumors[place];
                assert_eq!((rumor.node, rumor.name), (node, node as u32));
            }
            most = most.max(rumors.len());
        }
        assert!(most > RUMORS_MAX / 2, "{most} at the same time");
    }

    #[test]
    fn the_oldest_news_makes_room() {
        let mut rumors = Rumors::default();
        let newest = RUMORS_MAX as NodeId + 1;
        (1..=newest).for_each(|node| rumors.note(node, 0, false, node / 100, 7));
        assert_eq!(rumors.len(), RUMORS_MAX - ROOM + 1);
        assert!(rumors.places.find(1, &rumors.rumors).is_none(), "the oldest");
        assert!(rumors.places.find(newest, &rumors.rumors).is_some());
    }
}
