//! The nodes that are known, in the order of a ring, with sums by which two nodes find out in which
//! part of the ring they differ.
//!
//! Invariants worth naming
//! - A node's place on the ring is a permutation of its id, the same everywhere. The 256 buckets are
//!   equal parts of the ring.
//! - A bucket's sum is the exclusive or of its records' fingerprints, and the root that of the sums:
//!   two rosters that know the same have the same root.
//! - What of a node changes seldom lies apart from what stands of it, and copies share it until one of them
//!   changes it: when thousands refute what was said of them, eight bytes each are touched and no more.

use super::{
    NodeId,
    record::{Changing, Claim, Life, Record, Standing, Status, mix},
};
use std::{hint, sync::Arc};

/// Parts of the ring.
pub const BUCKETS: usize = 256;

/// Where everything is.
#[derive(Clone, Debug, PartialEq)]
struct Ring {
    /// The nodes' places, ascending.
    places: Vec<u64>,
    /// The first node of each bucket, and the end.
    starts: Vec<u32>,
}

impl Ring {
    /// Where a place would be if the distances within its bucket were equal.
    fn guess(&self, place: u64) -> usize {
        let (first, end) = self.bounds((place >> 56) as usize);
        let within = u128::from(place & u64::MAX >> 8);
        first + (((end - first) as u128 * within) >> 56) as usize
    }

    /// Where a place is, or belongs. Places are spread evenly, so it is near the guess.
    fn find(&self, place: u64) -> Result<usize, usize> {
        let mut at = self.guess(place);
        while at > 0 && self.places[at - 1] >= place {
            at -= 1;
        }
        while at < self.places.len() && self.places[at] < place {
            at += 1;
        }
        if self.places.get(at) == Some(&place) { Ok(at) } else { Err(at) }
    }

    /// The first node of a bucket, and the end of it.
    fn bounds(&self, bucket: usize) -> (usize, usize) {
        (self.starts[bucket] as usize, self.starts[bucket + 1] as usize)
    }

    fn insert(&mut self, at: usize, place: u64) {
        self.places.insert(at, place);
        self.starts[(place >> 56) as usize + 1..].iter_mut().for_each(|start| *start += 1);
    }

    fn remove(&mut self, at: usize) {
        let place = self.places.remove(at);
        self.starts[(place >> 56) as usize + 1..].iter_mut().for_each(|start| *start -= 1);
    }
}

/// The nodes of a part of the ring, in its order.
type Bucket = Arc<[Life]>;

/// Known nodes.
#[derive(Clone, Debug)]
pub struct Roster {
    ring: Arc<Ring>,
    lives: Arc<[Bucket]>,
    /// As many as there are nodes.
    standings: Vec<Standing>,
    sums: Vec<u64>,
    root: u64,
    present: usize,
}

impl Roster {
    /// Nobody.
    pub fn new() -> Self {
        Self {
            ring: Arc::new(Ring { places: Vec::new(), starts: vec![0; BUCKETS + 1] }),
            lives: vec![Bucket::default(); BUCKETS].into(),
            standings: Vec::new(),
            sums: vec![0; BUCKETS],
            root: 0,
            present: 0,
        }
    }

    /// How many nodes are known.
    pub fn len(&self) -> usize {
        self.standings.len()
    }

    /// How many of them are alive or suspect.
    pub fn present(&self) -> usize {
        self.present
    }

    /// Identifies all that is known.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// Identifies what is known of a bucket's nodes, in half of the bits.
    pub fn sum(&self, bucket: usize) -> u32 {
        (self.sums[bucket] ^ self.sums[bucket] >> 32) as u32
    }

    /// The nodes of a bucket, in the order of the ring.
    fn bucket(&self, bucket: usize) -> impl DoubleEndedIterator<Item = Record<'_>> {
        let (first, end) = self.ring.bounds(bucket);
        let standings = self.standings[first..end].iter();
        standings.zip(&*self.lives[bucket]).map(|(standing, life)| Record::of(*standing, life))
    }

    /// The nodes of a part of the ring, in its order.
    pub fn range(&self, first: u64, last: u64) -> impl Iterator<Item = Record<'_>> {
        let buckets = (first >> 56) as usize..=(last >> 56) as usize;
        let records = buckets.flat_map(|bucket| self.bucket(bucket));
        records.filter(move |record| (first..=last).contains(&mix(record.node)))
    }

    /// All nodes.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        (0..BUCKETS).flat_map(|bucket| self.bucket(bucket))
    }

    /// What is at a place among all, in a bucket.
    fn at(&self, bucket: usize, at: usize) -> Record<'_> {
        let (first, _) = self.ring.bounds(bucket);
        Record::of(self.standings[at], &self.lives[bucket][at - first])
    }

    /// What is known of a node.
    pub fn get(&self, node: NodeId) -> Option<Record<'_>> {
        let place = mix(node);
        Some(self.at((place >> 56) as usize, self.ring.find(place).ok()?))
    }

    /// What of a node changes seldom: enough to find it.
    pub fn life(&self, node: NodeId) -> Option<&Life> {
        let place = mix(node);
        let (bucket, at) = ((place >> 56) as usize, self.ring.find(place).ok()?);
        let (first, _) = self.ring.bounds(bucket);
        Some(&self.lives[bucket][at - first])
    }

    /// Touches what is known of some nodes, so that memory brings it all at the same time and not one
    /// after the other when it is needed.
    pub fn touch(&self, nodes: impl Iterator<Item = NodeId>) {
        let touched = nodes.filter_map(|node| {
            let place = mix(node);
            let (bucket, at) = ((place >> 56) as usize, self.ring.guess(place));
            let (first, _) = self.ring.bounds(bucket);
            let life = self.lives[bucket].get(at - first)?;
            Some(life.version() ^ self.standings[at].status() as u64)
        });
        hint::black_box(touched.fold(0, |all, one| all ^ one));
    }

    /// The fingerprint of what is known of a node.
    pub fn print(&self, node: NodeId) -> Option<u64> {
        self.get(node).map(|record| record.fingerprint())
    }

    /// Adds a node, unless it is there.
    pub fn insert(&mut self, claim: Claim, mut life: Life) {
        let place = mix(life.node);
        let (bucket, Err(at)) = ((place >> 56) as usize, self.ring.find(place)) else { return };
        life.begin(claim.generation);
        let standing = Standing::of(&claim);
        self.present += usize::from(claim.status.is_present());
        self.turn(bucket, Record::of(standing, &life).fingerprint());
        let (first, _) = self.ring.bounds(bucket);
        let mut lives = self.lives[bucket].to_vec();
        lives.insert(at - first, life);
        Arc::make_mut(&mut self.lives)[bucket] = lives.into();
        Arc::make_mut(&mut self.ring).insert(at, place);
        self.standings.insert(at, standing);
    }

    /// Removes a node.
    pub fn remove(&mut self, node: NodeId) {
        let place = mix(node);
        let (bucket, Ok(at)) = ((place >> 56) as usize, self.ring.find(place)) else { return };
        let record = self.at(bucket, at);
        let (print, was_present) = (record.fingerprint(), record.claim.status.is_present());
        self.present -= usize::from(was_present);
        self.turn(bucket, print);
        let (first, _) = self.ring.bounds(bucket);
        let mut lives = self.lives[bucket].to_vec();
        lives.remove(at - first);
        Arc::make_mut(&mut self.lives)[bucket] = lives.into();
        Arc::make_mut(&mut self.ring).remove(at);
        self.standings.remove(at);
    }

    /// Changes what is known of a node.
    pub fn change<R>(
        &mut self,
        node: NodeId,
        how: impl FnOnce(&mut Changing<'_>) -> R,
    ) -> Option<R> {
        let place = mix(node);
        let (bucket, at) = ((place >> 56) as usize, self.ring.find(place).ok()?);
        let (first, _) = self.ring.bounds(bucket);
        let lives = &mut Arc::make_mut(&mut self.lives)[bucket];
        let life = &mut Arc::make_mut(lives)[at - first];
        let before = Record::of(self.standings[at], life);
        let (print, was_present) = (before.fingerprint(), before.claim.status.is_present());
        let mut changing = Changing::of(self.standings[at], life);
        let result = how(&mut changing);
        let claim = changing.claim;
        life.begin(claim.generation);
        debug_assert_eq!(life.node, node, "a record stays that of its node");
        self.standings[at] = Standing::of(&claim);
        let after = Record::of(self.standings[at], life).fingerprint();
        self.present =
            self.present + usize::from(claim.status.is_present()) - usize::from(was_present);
        self.turn(bucket, print ^ after);
        Some(result)
    }

    /// Takes over a claim of the generation that stands: nothing else is touched.
    pub fn stand(&mut self, node: NodeId, claim: Claim) {
        let place = mix(node);
        let (bucket, Ok(at)) = ((place >> 56) as usize, self.ring.find(place)) else { return };
        let before = self.at(bucket, at);
        assert_eq!(before.claim.generation, claim.generation, "another life is begun by a change");
        let standing = Standing::of(&claim);
        let after = Record::of(standing, before.life());
        let bits = before.fingerprint() ^ after.fingerprint();
        let (was, is) = (before.claim.status.is_present(), claim.status.is_present());
        self.standings[at] = standing;
        self.present = self.present + usize::from(is) - usize::from(was);
        self.turn(bucket, bits);
    }

    fn turn(&mut self, bucket: usize, bits: u64) {
        self.sums[bucket] ^= bits;
        self.root ^= bits;
    }

    /// The node of a number below [`Self::len`].
    pub fn nth(&self, number: usize) -> Option<Record<'_>> {
        let bucket = (*self.ring.places.get(number)? >> 56) as usize;
        Some(self.at(bucket, number))
    }

    /// The nodes that lie before a node on the ring, the nearest first, once around.
    pub fn before(&self, node: NodeId) -> impl Iterator<Item = Record<'_>> {
        let (before, after) = match self.ring.find(mix(node)) {
            Ok(at) => (at, at + 1),
            Err(at) => (at, at),
        };
        let numbers = (0..before).rev().chain((after..self.len()).rev());
        numbers.filter_map(|number| self.nth(number))
    }

    /// How many nodes are of a status.
    pub fn count(&self, status: Status) -> usize {
        self.standings.iter().filter(|standing| standing.status() == status).count()
    }

    /// One of the nodes of a status, by its number among them.
    pub fn nth_of(&self, status: Status, number: usize) -> Option<NodeId> {
        let standings = self.standings.iter().enumerate();
        let mut numbers = standings.filter(|(_, standing)| standing.status() == status);
        let (place, _) = numbers.nth(number)?;
        self.nth(place).map(|record| record.node)
    }

    /// Where two rosters of the same nodes may differ: the others need not be looked at.
    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Record<'a>> {
        let is_same = move |bucket: &usize| {
            let (first, end) = self.ring.bounds(*bucket);
            let standings = (self.standings.get(first..end), other.standings.get(first..end));
            let (mine, theirs) = (&self.lives[*bucket], &other.lives[*bucket]);
            standings.0 == standings.1 && (Arc::ptr_eq(mine, theirs) || mine == theirs)
        };
        let buckets = (0..BUCKETS).filter(move |bucket| !is_same(bucket));
        buckets.flat_map(|bucket| self.bucket(bucket))
    }

    /// Takes the memory of others that have the same content in place of its own.
    pub fn share(&mut self, pool: &mut Pool) {
        take_same(&mut self.ring, &mut pool.rings);
        if pool.lives.iter().any(|known| Arc::ptr_eq(known, &self.lives)) {
            return;
        }
        for known in &pool.lives {
            let mut is_same = true;
            for bucket in 0..BUCKETS {
                if Arc::ptr_eq(&known[bucket], &self.lives[bucket]) {
                    continue;
                }
                match known[bucket] == self.lives[bucket] {
                    true => Arc::make_mut(&mut self.lives)[bucket] = known[bucket].clone(),
                    false => is_same = false,
                }
            }
            if is_same {
                self.lives = known.clone();
                return;
            }
        }
        if pool.lives.len() < VARIANTS_MAX {
            pool.lives.push(self.lives.clone());
        }
    }
}

/// Most variants that are kept for others to share.
const VARIANTS_MAX: usize = 4;

fn take_same(mine: &mut Arc<Ring>, variants: &mut Vec<Arc<Ring>>) {
    if variants.iter().any(|known| Arc::ptr_eq(known, mine)) {
        return;
    }
    match variants.iter().find(|known| *known == mine) {
        Some(known) => *mine = known.clone(),
        None if variants.len() < VARIANTS_MAX => variants.push(mine.clone()),
        None => {}
    }
}

/// What several rosters know alike.
#[derive(Default)]
pub struct Pool {
    rings: Vec<Arc<Ring>>,
    lives: Vec<Arc<[Bucket]>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::BTreeMap,
        net::{Ipv4Addr, SocketAddr},
    };

    const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
    const STATUSES: [Status; 4] = [Status::Alive, Status::Suspect, Status::Dead, Status::Left];

    fn claim(incarnation: u64, generation: u64, status: Status) -> Claim {
        Claim { incarnation, generation, status }
    }

    /// What is known of every node, in the order of the ring.
    fn known(roster: &Roster) -> Vec<(NodeId, Claim)> {
        roster.iter().map(|record| (record.node, record.claim)).collect()
    }

    #[test]
    fn whatever_was_done_a_roster_knows_what_one_knows_that_was_told_only_the_end() {
        let mut rng = fastrand::Rng::with_seed(11);
        let (mut roster, mut model) = (Roster::new(), BTreeMap::new());
        let mut copies = Vec::new();
        for step in 0..20_000 {
            let (node, kind) = (rng.u64(1..700), rng.u8(..8));
            let status = STATUSES[rng.usize(..4)];
            let old: Option<Claim> = model.get(&mix(node)).map(|(_, claim)| *claim);
            match (kind, old) {
                (0..=1, None) => {
                    let claim = claim(rng.u64(2..9), 2, status);
                    roster.insert(claim, Life::new(node, ADDRESS));
                    model.insert(mix(node), (node, claim));
                }
                (2, Some(_)) if rng.u8(..4) == 0 => {
                    roster.remove(node);
                    model.remove(&mix(node));
                }
                (3, Some(_)) => {
                    let generation = rng.u64(2..9);
                    let claim = claim(generation + rng.u64(..3), generation, status);
                    roster.change(node, |record| record.claim = claim);
                    model.insert(mix(node), (node, claim));
                }
                (4.., Some(old)) => {
                    let claim = Claim { incarnation: old.incarnation + 1, status, ..old };
                    roster.stand(node, claim);
                    model.insert(mix(node), (node, claim));
                }
                _ => {}
            }
            assert_eq!(roster.get(node).map(|of| of.claim), model.get(&mix(node)).map(|of| of.1));
            if step % 2_000 == 0 {
                copies.push((roster.clone(), known(&roster)));
            }
        }
        let all: Vec<_> = model.values().copied().collect();
        let mut fresh = Roster::new();
        all.iter().for_each(|(node, claim)| fresh.insert(*claim, Life::new(*node, ADDRESS)));
        assert!(roster.len() > 300 && known(&roster) == all, "{} nodes", roster.len());
        assert_eq!((roster.root(), roster.len()), (fresh.root(), all.len()));
        assert!((0..BUCKETS).all(|bucket| roster.sum(bucket) == fresh.sum(bucket)));
        let present = all.iter().filter(|(_, claim)| claim.status.is_present()).count();
        assert_eq!((roster.present(), fresh.present()), (present, present));
        for (number, (node, _)) in all.iter().enumerate() {
            assert_eq!(roster.nth(number).map(|record| record.node), Some(*node));
            assert_eq!(roster.life(*node).map(|life| life.node), Some(*node));
            let before: Vec<_> = roster.before(*node).map(|record| record.node).collect();
            let around = (1..all.len()).map(|back| all[(number + all.len() - back) % all.len()].0);
            assert!(before.into_iter().eq(around), "before {node}");
        }
        let dead = all.iter().filter(|(_, of)| of.status == Status::Dead).map(|(node, _)| *node);
        let count = roster.count(Status::Dead);
        assert_eq!(count, dead.clone().count());
        let drawn = (0..=count).map_while(|number| roster.nth_of(Status::Dead, number));
        assert!(drawn.eq(dead));
        for (copy, was) in copies {
            assert_eq!(known(&copy), was, "a copy changed with what it is a copy of");
        }
    }

    #[test]
    fn what_two_rosters_know_alike_is_kept_once_and_what_they_do_not_is_found() {
        let roster = || {
            let mut roster = Roster::new();
            let alive = claim(2, 2, Status::Alive);
            (1..=2_000).for_each(|node| roster.insert(alive, Life::new(node, ADDRESS)));
            roster
        };
        let (mut one, mut other, mut pool) = (roster(), roster(), Pool::default());
        other.stand(7, claim(3, 2, Status::Alive));
        other.change(9, |record| record.claim = claim(4, 4, Status::Alive));
        let before = known(&other);
        [&mut one, &mut other].into_iter().for_each(|roster| roster.share(&mut pool));
        assert!(Arc::ptr_eq(&one.ring, &other.ring));
        let shared = (0..BUCKETS).filter(|at| Arc::ptr_eq(&one.lives[*at], &other.lives[*at]));
        assert_eq!(shared.count(), BUCKETS - 1, "all but that of the node that began again");
        assert_eq!(known(&other), before);
        let differing: Vec<_> = other.differing(&one).map(|record| record.node).collect();
        assert!(differing.contains(&7) && differing.contains(&9) && differing.len() < 100);
        one.change(9, |record| record.claim = claim(4, 4, Status::Alive));
        one.stand(7, claim(3, 2, Status::Alive));
        let mut pool = Pool::default();
        [&mut one, &mut other].into_iter().for_each(|roster| roster.share(&mut pool));
        assert!(Arc::ptr_eq(&one.lives, &other.lives), "now they know the same");
        assert_eq!((other.differing(&one).count(), one.root()), (0, other.root()));
    }
}
