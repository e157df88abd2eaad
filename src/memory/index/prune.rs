//! Which of many candidates a node links to: near ones in different directions.
//!
//! The rule of the relative neighbourhood graph, relaxed: a candidate is left out when it is nearer to a
//! chosen neighbour, by the factor alpha, than to the node itself (Subramanya and others: *DiskANN*, NeurIPS
//! 2019, algorithm 2). Alpha applies to distances that are not squared, so the cosine and the squared
//! euclidean distance take its square; for the dot product it has no meaning and is 1.
//!
//! By the dot product alone nearly all nodes would link to the few with the largest products, as those are what is searched for,
//! and nothing would lead to the others when those go. So on the lowest layer a node links to some that are near by the euclidean
//! distance first, and then to those of the largest products (ip-NSW+ has two graphs for that; Liu and others, *Understanding and
//! Improving Proximity Graph Based Maximum Inner Product Search*, AAAI 2020). The layers above, which lead to a beginning
//! only, are linked by the euclidean distance.
//!
//! Equal vectors would take all places, and a search that meets them would not find out again: a node links to at
//! most `TWINS_MAX` others at distance zero.

use super::{
    coarse::Mark,
    graph::Graph,
    options::{LINKS_BASE, LINKS_NEAR},
    pool::Found,
    quantize::{Metric, Probe},
    steps::{Budget, CODED_DISTANCES},
};

/// Links to nodes with the same code.
const TWINS_MAX: usize = 4;
/// A node that has fewer is linked to the nearest of those that the rule leaves out as well: in two dimensions it
/// leaves two or three, and a graph with so few links falls apart when nodes are removed. By the dot product it may leave the largest
/// alone, which all others of the largest are nearer to than to the node.
const LINKS_LEAST: usize = 8;
/// A candidate is compared with chosen ones around other centres while it has so few codes for that, as they are made in one
/// go; after that with those around its own centre only.
const MADE_FOR_ONE: usize = 8;
/// The same for all candidates of a node that is linked back to, of which there are many for one that comes.
const MADE_FOR_LINKS: usize = 16;
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
        let (metric, kept) = (choice.metric, choice.kept);
        let own_term = self.terms_by(metric)[node as usize].term;
        let alpha = if metric == Metric::Dot { 1.0 } else { alpha * alpha };
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
            if chosen[..kept].contains(&slot) {
                continue;
            }
            let distance = candidate.rank() + own_term;
            if self.are_twins(metric, distance, node, slot) {
                if choice.twins < TWINS_MAX {
                    choice.twins += 1;
                    chosen.push(slot);
                }
                continue;
            }
            self.decode(slot, metric, other);
            let may_make = choice.may_make.min(MADE_FOR_ONE);
            if !self.is_occluded(other, distance, alpha, &chosen[kept..], may_make) {
                chosen.push(slot);
            }
            let made = other.take_made();
            choice.may_make = choice.may_make.saturating_sub(made);
            budget.spend(made * CODED_DISTANCES);
        }
        let least = (kept + LINKS_LEAST).min(links_max);
        if chosen.len() < least {
            self.keep_nearest(node, metric, least, found, chosen);
        }
        true
    }

    /// Fills up with the nearest of those that were left out, but for twins.
    fn keep_nearest(
        &self,
        node: u32,
        metric: Metric,
        least: usize,
        found: &[Found],
        chosen: &mut Vec<u32>,
    ) {
        for candidate in found {
            if chosen.len() == least {
                break;
            }
            let slot = candidate.slot();
            let distance = candidate.rank() + self.terms_by(metric)[node as usize].term;
            if !chosen.contains(&slot) && !self.are_twins(metric, distance, node, slot) {
                chosen.push(slot);
            }
        }
    }

    pub(super) fn are_twins(&self, metric: Metric, distance: f32, a: u32, b: u32) -> bool {
        // Codes around different centres round off different things, also of the same vector.
        if self.nodes[a as usize].centre != self.nodes[b as usize].centre {
            return false;
        }
        let terms = self.terms_by(metric);
        let (a_terms, b_terms) = (terms[a as usize], terms[b as usize]);
        match metric {
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

    /// Adds a link from `slot` to `link`; when all places are taken, chooses which ones stay. False when the budget ended
    /// before: `choice` and `work` have what was chosen so far, for the next call.
    #[expect(clippy::too_many_arguments, reason = "each is another thing")]
    pub(super) fn link(
        &mut self,
        slot: u32,
        link: u32,
        layer: usize,
        alpha: f32,
        other: &mut Probe,
        work: &mut Work,
        choice: &mut Option<Choice>,
        budget: &mut Budget,
    ) -> bool {
        let mut under_way = match choice.take() {
            Some(under_way) => under_way,
            None => {
                let links = self.links(slot, layer);
                let count = links.len();
                if links.contains(&link) {
                    return true;
                }
                if count < links_max(layer) {
                    self.links_mut(slot, layer)[count] = link;
                    return true;
                }
                work.slots.clear();
                work.slots.extend_from_slice(links);
                work.slots.push(link);
                let begun = Choice::begin(work, self.coding.metric.of_links());
                let begun = Choice { may_make: MADE_FOR_LINKS, ..begun };
                self.rank_slots(work, &begun, slot, other, budget);
                begun
            }
        };
        loop {
            let is_near = self.links_products(layer) && under_way.metric != self.coding.metric;
            let most = if is_near { LINKS_NEAR } else { links_max(layer) };
            if !self.choose(work, &mut under_way, slot, alpha, most, other, budget) {
                *choice = Some(under_way);
                return false;
            }
            if !is_near {
                break;
            }
            under_way.go_on_by(self.coding.metric, work);
            self.rank_slots(work, &under_way, slot, other, budget);
        }
        if self.links(slot, layer) == &work.slots[..work.slots.len() - 1] {
            self.set_links(slot, layer, &work.chosen);
        } else if self.is_linkable(slot) {
            // Another operation linked it meanwhile, or a sweep took links that were chosen: at once, so that this has an end.
            let mut all = Budget::unlimited();
            self.link(slot, link, layer, alpha, other, work, &mut None, &mut all);
            budget.spend(all.spent());
        }
        true
    }

    /// Puts the slots of `work`, at most 33, in the order of their rank from a node.
    fn rank_slots(
        &self,
        work: &mut Work,
        choice: &Choice,
        slot: u32,
        other: &mut Probe,
        budget: &mut Budget,
    ) {
        self.decode(slot, choice.metric, other);
        self.rank_all(other, &work.slots, &mut work.found);
        budget.spend(work.slots.len());
        budget.spend_coded(other);
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
    /// What candidates are compared by.
    metric: Metric,
    next: usize,
    /// So many of the chosen were chosen by another metric before: they say nothing of the candidates.
    kept: usize,
    twins: usize,
    /// So many codes around other centres may be made for it.
    may_make: usize,
}

impl Choice {
    /// Begins with the first of what was found.
    pub(super) fn begin(work: &mut Work, metric: Metric) -> Self {
        work.chosen.clear();
        Self { metric, next: 0, kept: 0, twins: 0, may_make: usize::MAX }
    }

    /// Begins behind those that are linked already, so many of them twins.
    pub(super) fn behind(work: &mut Work, metric: Metric, linked: &[u32], twins: usize) -> Self {
        let choice = Self::begin(work, metric);
        work.chosen.extend_from_slice(linked);
        Self { kept: linked.len(), twins, ..choice }
    }

    /// How many of the chosen were linked before.
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    /// Goes on with candidates in the order of another metric.
    fn go_on_by(&mut self, metric: Metric, work: &Work) {
        (self.metric, self.next, self.kept) = (metric, 0, work.chosen.len());
    }
}

/// Links of a node on a layer.
pub(super) fn links_max(layer: usize) -> usize {
    if layer == 0 { LINKS_BASE } else { super::options::LINKS_UPPER }
}
