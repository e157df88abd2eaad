//! Which of many candidates a node links to: near ones in different directions.
//!
//! The rule of the relative neighbourhood graph, relaxed: a candidate is left out when it is nearer to a
//! chosen neighbour, by the factor alpha, than to the node itself (Subramanya and others: *DiskANN*, NeurIPS
//! 2019, algorithm 2). Alpha applies to distances that are not squared, so the cosine and the squared
//! euclidean distance take its square; for the dot product it has no meaning and is 1.
//!
//! Equal vectors would take all places, and a search that meets them would not find out again: a node links to at
//! most `TWINS_MAX` others at distance zero.

use super::{
    coarse::Mark,
    graph::Graph,
    options::LINKS_BASE,
    pool::Found,
    quantize::{Metric, Probe},
    steps::{Budget, CODED_DISTANCES},
};

/// Links to nodes with the same code.
const TWINS_MAX: usize = 4;
/// A node that has fewer is linked to the nearest of those that the rule leaves out as well: in two dimensions it
/// leaves two or three, and a graph with so few links falls apart when nodes are removed.
const LINKS_LEAST: usize = 8;
/// A candidate is compared with chosen ones around other centres while it has so few codes for that, as they are made in one
/// go; after that with those around its own centre only.
const MADE_FOR_ONE: usize = 8;
/// The same for all candidates of a node that is linked back to, which is done in one go.
const MADE_AT_ONCE: usize = 16;
/// Chosen neighbours that a candidate is compared with at a time.
const COMPARED_AT_ONCE: usize = 4;

impl Graph {
    /// Chooses at most `links_max` of what `work` found, which is in the order of its rank from the node, and
    /// which the `node` does not itself belong to. False when the budget ended before.
    #[expect(clippy::too_many_arguments, reason = "each is another thing")]
    pub(super) fn choose(
        &self,
        work: &mut Work,
        choice: &mut Choice,
        node: u32,
        alpha: f32,
        links_max: usize,
        other: &mut Probe,
        budget: &mut Budget,
    ) -> bool {
        let Work { found, chosen, .. } = work;
        let own_term = self.terms[node as usize].term;
        let alpha = if self.coding.metric == Metric::Dot { 1.0 } else { alpha * alpha };
        for candidate in &found[choice.next..] {
            if chosen.len() == links_max {
                break;
            }
            if budget.is_spent() {
                return false;
            }
            budget.spend(1 + chosen.len() / 2);
            choice.next += 1;
            let slot = candidate.slot();
            let distance = candidate.rank() + own_term;
            if self.are_twins(distance, node, slot) {
                if choice.twins < TWINS_MAX {
                    choice.twins += 1;
                    chosen.push(slot);
                }
                continue;
            }
            self.decode(slot, other);
            let may_make = choice.may_make.min(MADE_FOR_ONE);
            if !self.is_occluded(other, distance, alpha, chosen, may_make) {
                chosen.push(slot);
            }
            let made = other.take_made();
            choice.may_make = choice.may_make.saturating_sub(made);
            budget.spend(made * CODED_DISTANCES);
        }
        if chosen.len() < LINKS_LEAST.min(links_max) {
            self.keep_nearest(node, found, chosen);
        }
        true
    }

    /// Fills up with the nearest of those that were left out, but for twins.
    fn keep_nearest(&self, node: u32, found: &[Found], chosen: &mut Vec<u32>) {
        for candidate in found {
            if chosen.len() == LINKS_LEAST {
                break;
            }
            let slot = candidate.slot();
            let distance = candidate.rank() + self.terms[node as usize].term;
            if !chosen.contains(&slot) && !self.are_twins(distance, node, slot) {
                chosen.push(slot);
            }
        }
    }

    pub(super) fn are_twins(&self, distance: f32, a: u32, b: u32) -> bool {
        // Codes around different centres round off different things, also of the same vector.
        if self.nodes[a as usize].centre != self.nodes[b as usize].centre {
            return false;
        }
        let (a_terms, b_terms) = (self.terms[a as usize], self.terms[b as usize]);
        match self.coding.metric {
            Metric::Dot => a_terms == b_terms && self.codes.get(a) == self.codes.get(b),
            Metric::Cosine | Metric::Euclidean => self.coding.are_twins(distance, a_terms, b_terms),
        }
    }

    /// Whether a chosen neighbour is nearer to the candidate than the candidate is to the node.
    fn is_occluded(
        &self,
        candidate: &mut Probe,
        distance: f32,
        alpha: f32,
        chosen: &[u32],
        may_make: usize,
    ) -> bool {
        let own = candidate.centre;
        chosen.chunks(COMPARED_AT_ONCE).any(|chosen| {
            let is_own = |&slot: &u32| self.nodes[slot as usize].centre == own;
            let mut own_ones = [0; COMPARED_AT_ONCE];
            let chosen = if candidate.made() < may_make || chosen.iter().all(is_own) {
                chosen
            } else {
                let own = chosen.iter().copied().filter(is_own);
                let count = own_ones.iter_mut().zip(own).map(|(at, slot)| *at = slot).count();
                &own_ones[..count]
            };
            let mut ranks = [0.0; COMPARED_AT_ONCE];
            self.ranks(candidate, chosen, &mut ranks);
            let mut ranks = ranks[..chosen.len()].iter();
            ranks.any(|rank| alpha * (rank + candidate.terms.term) < distance)
        })
    }

    /// Adds a link from `slot` to `link`; when all places are taken, chooses which ones stay.
    #[expect(clippy::too_many_arguments, reason = "each is another thing")]
    pub(super) fn link(
        &mut self,
        slot: u32,
        link: u32,
        layer: usize,
        alpha: f32,
        other: &mut Probe,
        work: &mut Work,
        budget: &mut Budget,
    ) {
        let links_max = links_max(layer);
        let links = self.links(slot, layer);
        let count = links.len();
        if links.contains(&link) {
            return;
        }
        if count < links_max {
            self.links_mut(slot, layer)[count] = link;
            return;
        }
        work.slots.clear();
        work.slots.extend_from_slice(links);
        work.slots.push(link);
        self.decode(slot, other);
        self.rank_all(other, &work.slots, &mut work.found);
        budget.spend(work.slots.len());
        budget.spend_coded(other);
        let mut choice = Choice { may_make: MADE_AT_ONCE, ..Choice::begin(work) };
        // At most 33 candidates: no reason to stop half-way.
        let mut all = Budget::unlimited();
        self.choose(work, &mut choice, slot, alpha, links_max, other, &mut all);
        budget.spend(all.spent().max(work.found.len() * work.chosen.len() / 2));
        self.set_links(slot, layer, &work.chosen);
    }

    /// Slots in the order of their rank.
    pub(super) fn rank_all(&self, probe: &mut Probe, slots: &[u32], found: &mut Vec<Found>) {
        found.clear();
        let mut ranks = [0.0; LINKS_BASE];
        for slots in slots.chunks(LINKS_BASE) {
            slots.iter().for_each(|&slot| self.codes.prefetch(slot));
            self.ranks(probe, slots, &mut ranks);
            found.extend(slots.iter().zip(&ranks).map(|(&slot, &rank)| Found::new(rank, slot)));
        }
        found.sort_unstable_by(|a, b| a.rank().total_cmp(&b.rank()).then(a.slot().cmp(&b.slot())));
    }
}

/// Lists that linking uses again and again.
#[derive(Default)]
pub(super) struct Work {
    /// Whether the node that is linked has a coarse code.
    pub(super) coarse: Mark,
    pub(super) slots: Vec<u32>,
    pub(super) found: Vec<Found>,
    pub(super) chosen: Vec<u32>,
    /// Dead nodes on the way to live ones.
    pub(super) passed: Vec<u32>,
    /// What a node links to, while they are linked back.
    pub(super) neighbours: Vec<u32>,
}

/// How far a choice has come.
pub(super) struct Choice {
    next: usize,
    twins: usize,
    /// So many codes around other centres may be made for it.
    may_make: usize,
}

impl Choice {
    /// Begins with the first of what was found.
    pub(super) fn begin(work: &mut Work) -> Self {
        work.chosen.clear();
        Self { next: 0, twins: 0, may_make: usize::MAX }
    }
}

/// Links of a node on a layer.
pub(super) fn links_max(layer: usize) -> usize {
    if layer == 0 { LINKS_BASE } else { super::options::LINKS_UPPER }
}
