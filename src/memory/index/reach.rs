//! Ways to all that lives, and from it.
//!
//! Which links a node has is chosen node by node, so it may happen that all give up their link to one of them, that clusters
//! which lie far from each other are linked to nothing but themselves, or that what is left of many has lost what led to it.
//! A *pass* finds that out and mends it, in steps of whoever has time ([`Index::reach_some`]): on each layer, from above, it
//! follows the links from the entry; what lives there and is not reached gets a link from what is near it and reached. Then
//! it finds out what the entry cannot be reached from, as a search that begins there would not get out again, and links that back
//! to what leads there. Neither takes a way from any other node, where that can be helped ([`splice`](super::splice)); else another
//! pass follows.
//!
//! A pass is due when a sweep has ended, when many have come since the last one or were coded anew, and for what an image has.
//! What comes and goes while it is under way may escape it, and what is linked then may be linked needlessly: that is
//! left to the next one.

mod back;

use super::{
    graph::{Descent, Graph, Index, MARKS_OF_A_DISTANCE, Row, State},
    marks::Marks,
    options::IndexOptions,
    steps::{Budget, Open, Scratch},
};
use std::collections::VecDeque;

/// A pass is due when one in so many rows has come since the last one. A pass takes a row some thousandth of the time that an
/// insertion takes.
const LINKED_PART: usize = 4;
/// But not before so many have come.
const LINKED_LEAST: usize = 64;
/// Or when one in so many was coded anew and no other is to be: rows of a cluster are then linked all at once by other codes.
const RECODED_PART: usize = 64;
/// What following the links of a node takes, in distances.
const NODE_COST: usize = 4;
/// Rows that are looked at in the time of a distance.
const ROWS_OF_A_DISTANCE: usize = 8;
/// Marks that are looked through in the time of a distance.
const MARKED_OF_A_DISTANCE: u32 = 4096;
/// Nodes to be followed that are kept by name; others are found by their marks.
const AHEAD_MAX: usize = if cfg!(test) { 64 } else { 4096 };
/// So many of those that a lost node leads to lead to it then.
const WAYS: usize = 2;
/// And of those that were found for one that leads to none.
const WAYS_FOUND: usize = 4;
/// Places of the walk that finds those, at least: it begins far from them.
const FOUND_LEAST: usize = 100;

/// No pass follows so many that each may have lost a way.
const FOLLOWING_MAX: usize = 8;

/// When a pass is due, and the one that is under way.
#[derive(Default)]
pub(super) struct Reach {
    /// Rows that were linked since the last pass began.
    linked: usize,
    /// Those that were coded anew.
    recoded: usize,
    is_asked: bool,
    /// Passes that followed each other, as each may have lost a way.
    following: usize,
    mended: usize,
    pass: Option<Box<Pass>>,
}

impl Reach {
    /// A row is linked that was not. It may be the entry that a pass looks for.
    pub(super) fn note_linked(&mut self, row: Row, graph: &Graph) {
        self.linked += 1;
        if let Some(Pass { phase: Phase::Enter(highest), .. }) = self.pass.as_deref_mut()
            && highest.is_none_or(|highest| graph.level(highest) < graph.level(row))
        {
            *highest = Some(row);
        }
    }

    pub(super) fn note_recoded(&mut self) {
        self.recoded += 1;
    }

    /// Has a pass begin soon.
    pub(super) fn ask(&mut self) {
        self.is_asked = true;
    }

    pub(super) fn mended(&self) -> usize {
        self.mended
    }

    pub(super) fn bytes(&self) -> usize {
        self.pass.as_ref().map_or(0, |pass| pass.known.bytes() + pass.passed.bytes())
    }
}

/// A pass that is under way.
struct Pass {
    phase: Phase,
    layer: usize,
    /// Rows that there were when the layer was begun: those that came since count as reached.
    rows: usize,
    /// Those that are reached, and then those that lead to the entry.
    known: Marks,
    /// Those whose links were followed, or that this round has met.
    passed: Marks,
    /// Those to be followed, and then the way to one that does not lead to the entry yet.
    ahead: VecDeque<Row>,
    /// Some that are to be followed had no room there; they are looked for from this row on.
    overflow: Option<Row>,
    /// The next row to be looked at.
    next: Row,
    /// Whether some were left by the present round, and whether it got on.
    has_left: bool,
    has_found: bool,
    /// Lost rows that lead to nothing that is reached are looked for now, too.
    walks: bool,
    rounds: usize,
    /// Another pass is to follow, as this one may have lost a way.
    is_to_follow: bool,
    /// Held by a walk, as it names rows.
    open: Option<Open>,
    scratch: Box<Scratch>,
}

enum Phase {
    /// Looks for an entry that lives, the one of the highest level so far.
    Enter(Option<Row>),
    /// Follows the links of what is reached.
    Follow,
    /// Looks for lost rows.
    Look,
    /// Walks to what is near a lost row.
    Descend(Row, Descent),
    Walk(Row),
    /// Looks for rows that do not lead to the entry.
    LookBack,
    /// Links some of those back; what leads there may give up a link if it `must`.
    LinkBack {
        must: bool,
    },
    Over,
}

impl Index {
    /// Whether there is reason to look for vectors that no way leads to, which a search does not find.
    pub fn has_to_reach(&self) -> bool {
        self.reach.pass.is_some() || self.is_pass_due()
    }

    fn is_pass_due(&self) -> bool {
        // The first vectors are all compared.
        if self.first.is_some() || self.graph.entry.is_none() {
            return false;
        }
        let (reach, rows) = (&self.reach, self.graph.nodes.len());
        let is_recoded = reach.recoded > 0 && reach.recoded * RECODED_PART >= rows;
        reach.is_asked
            || reach.linked >= LINKED_LEAST.max(rows / LINKED_PART)
            || is_recoded && !self.has_coarse()
    }

    /// Goes on with looking for them by about as many distances, and links them again; false when there is no reason to.
    pub fn reach_some(&mut self, distances: usize) -> bool {
        let mut pass = match self.reach.pass.take() {
            Some(pass) => pass,
            None if self.is_pass_due() => self.begin_pass(),
            None => return false,
        };
        if pass.go_on(self, &mut Budget::new(distances)) {
            let reach = &mut self.reach;
            let follows = pass.is_to_follow && reach.following < FOLLOWING_MAX;
            reach.is_asked |= follows;
            reach.following = if follows { reach.following + 1 } else { 0 };
            self.scratches.put(pass.scratch);
        } else {
            self.reach.pass = Some(pass);
        }
        true
    }

    fn begin_pass(&mut self) -> Box<Pass> {
        (self.reach.linked, self.reach.recoded, self.reach.is_asked) = (0, 0, false);
        Box::new(Pass {
            phase: Phase::Enter(None),
            layer: 0,
            rows: 0,
            known: Marks::default(),
            passed: Marks::default(),
            ahead: VecDeque::new(),
            overflow: None,
            next: 0,
            has_left: false,
            has_found: false,
            walks: false,
            rounds: 0,
            is_to_follow: false,
            open: None,
            scratch: self.scratches.take(),
        })
    }
}

impl Pass {
    /// False when the budget ended before the pass.
    fn go_on(&mut self, index: &mut Index, budget: &mut Budget) -> bool {
        self.scratch.marks.grow(index.graph.nodes.len());
        loop {
            let next = match &self.phase {
                Phase::Enter(highest) => self.enter(index, *highest, budget),
                Phase::Follow => self.follow(&index.graph, budget),
                Phase::Look => self.look(index, budget),
                Phase::Descend(..) => self.descend(&index.graph, &index.options, budget),
                Phase::Walk(row) => self.walk(index, *row, budget),
                Phase::LookBack => self.look_back(index, budget),
                Phase::LinkBack { must } => self.link_back(index, *must, budget),
                Phase::Over => return true,
            };
            match next {
                Some(phase) => self.phase = phase,
                None => return false,
            }
        }
    }

    /// Where the entry is dead another one is taken, which lives: what is dead may be gone soon, and nothing new leads to it.
    fn enter(
        &mut self,
        index: &mut Index,
        mut highest: Option<Row>,
        budget: &mut Budget,
    ) -> Option<Phase> {
        let is_linked = |graph: &Graph, row: Row| graph.nodes[row as usize].state == State::Live;
        self.rows = index.graph.nodes.len();
        while !index.graph.entry.is_some_and(|entry| is_linked(&index.graph, entry)) {
            if budget.is_spent() {
                self.phase = Phase::Enter(highest);
                return None;
            }
            budget.spend(1);
            for _ in 0..ROWS_OF_A_DISTANCE {
                let graph = &mut index.graph;
                match index.live.next(self.next) {
                    Some(row) => {
                        self.next = row + 1;
                        let level = |row: Row| graph.level(row);
                        let is_higher = highest.is_none_or(|highest| level(highest) < level(row));
                        if is_higher && is_linked(graph, row) {
                            highest = Some(row);
                        }
                    }
                    None => {
                        let Some(entry) = highest.filter(|&row| is_linked(graph, row)) else {
                            // Nothing that lives is linked, or it has gone meanwhile.
                            self.is_to_follow = highest.is_some();
                            return Some(Phase::Over);
                        };
                        graph.entry = Some(entry);
                        break;
                    }
                }
            }
        }
        let top = index.graph.entry.map_or(0, |entry| index.graph.level(entry));
        Some(self.begin_layer(&index.graph, top, budget))
    }

    fn begin_layer(&mut self, graph: &Graph, layer: usize, budget: &mut Budget) -> Phase {
        let Some(entry) = graph.entry else { return Phase::Over };
        self.layer = layer;
        self.rows = graph.nodes.len();
        (self.next, self.has_left, self.has_found, self.walks) = (0, false, false, false);
        self.begin_marks(budget);
        self.reached(entry);
        Phase::Follow
    }

    fn begin_marks(&mut self, budget: &mut Budget) {
        budget.spend(2 * self.rows / MARKS_OF_A_DISTANCE);
        self.known.begin(self.rows);
        self.passed.begin(self.rows);
        self.ahead.clear();
        self.overflow = None;
    }

    /// A row is reached, and where it leads is to be followed.
    fn reached(&mut self, row: Row) {
        if (row as usize) < self.rows {
            self.known.first_visit(row);
            self.note_ahead(row);
        }
    }

    fn note_ahead(&mut self, row: Row) {
        if self.ahead.len() < AHEAD_MAX {
            self.ahead.push_back(row);
        } else if self.overflow.is_none() {
            self.overflow = Some(0);
        }
    }

    fn follow(&mut self, graph: &Graph, budget: &mut Budget) -> Option<Phase> {
        loop {
            if budget.is_spent() {
                return None;
            }
            let Some(row) = self.ahead.pop_front() else {
                if self.find_overflow(budget) {
                    continue;
                }
                return self.overflow.is_none().then_some(Phase::Look);
            };
            if !self.passed.first_visit(row) {
                continue;
            }
            budget.spend(NODE_COST);
            for &link in graph.links(row, self.layer) {
                if (link as usize) < self.rows && self.known.first_visit(link) {
                    self.note_ahead(link);
                    graph.base.prefetch(link);
                }
            }
        }
    }

    /// Finds the next one that had no room among those to be followed; false when there is none, or the budget ended before.
    fn find_overflow(&mut self, budget: &mut Budget) -> bool {
        while let Some(from) = self.overflow
            && !budget.is_spent()
        {
            let end = (from + MARKED_OF_A_DISTANCE).min(self.rows as Row);
            if let Some(row) = self.known.next_beyond(&self.passed, from..end) {
                (self.overflow, self.has_found) = (Some(row), true);
                self.ahead.push_back(row);
                return true;
            }
            budget.spend(1);
            let is_whole = end as usize == self.rows;
            // What was followed since may have led to others before it.
            let goes_on = !is_whole || std::mem::take(&mut self.has_found);
            self.overflow = goes_on.then_some(if is_whole { 0 } else { end });
        }
        false
    }

    /// Whether a row is linked on the layer and may have links there that stay.
    fn is_on_layer(&self, graph: &Graph, row: Row) -> bool {
        graph.nodes[row as usize].state == State::Live && graph.level(row) >= self.layer
    }

    /// The next row that lives, of those that there were.
    fn next_live(&mut self, index: &Index) -> Option<Row> {
        let row = index.live.next(self.next).filter(|row| (*row as usize) < self.rows)?;
        self.next = row + 1;
        Some(row)
    }

    fn look(&mut self, index: &mut Index, budget: &mut Budget) -> Option<Phase> {
        loop {
            for _ in 0..ROWS_OF_A_DISTANCE {
                let Some(row) = self.next_live(index) else {
                    if !self.has_left || self.walks {
                        return Some(self.begin_back(&index.graph, budget));
                    }
                    (self.walks, self.next) = (true, 0);
                    break;
                };
                if self.known.has(row) || !self.is_on_layer(&index.graph, row) {
                    continue;
                }
                if let Some(phase) = self.find_way(index, row, budget) {
                    return Some(phase);
                }
            }
            budget.spend(1);
            if budget.is_spent() {
                return None;
            }
        }
    }

    /// Finds a way to a lost row from those that it leads to itself; nothing where it is to be looked for again.
    fn find_way(&mut self, index: &mut Index, row: Row, budget: &mut Budget) -> Option<Phase> {
        budget.spend(NODE_COST);
        let Index { graph, reach, options, generations, .. } = index;
        let Scratch { other, work, .. } = &mut *self.scratch;
        let links = graph.links(row, self.layer).iter().copied();
        let is_reached = |link: &Row| {
            let node = &graph.nodes[*link as usize];
            (*link as usize) < self.rows && self.known.has(*link) && node.state == State::Live
        };
        work.slots.clear();
        work.slots.extend(links.filter(is_reached));
        if work.slots.iter().any(|&slot| graph.links(slot, self.layer).contains(&row)) {
            // It came, or was linked, since those were followed.
            self.reached(row);
            return Some(Phase::Follow);
        }
        if work.slots.is_empty() {
            if self.walks {
                graph.decode(row, options.metric.of_links(), &mut self.scratch.probe);
                let descent = graph.begin_descent(&mut self.scratch, self.layer);
                self.open = Some(generations.open());
                return Some(Phase::Descend(row, descent));
            }
            self.has_left = true;
            return None;
        }
        graph.decode(row, options.metric.of_links(), other);
        graph.rank_all(other, &work.slots, &mut work.found);
        budget.spend(work.slots.len());
        budget.spend_coded(other);
        reach.mended += 1;
        Some(self.mend(graph, row, WAYS))
    }

    /// Has the nearest of what was found lead to a row.
    fn mend(&mut self, graph: &mut Graph, row: Row, ways: usize) -> Phase {
        for (place, near) in self.scratch.work.found.iter().take(ways).enumerate() {
            graph.lead_to(near.slot(), row, self.layer, &self.known, place == 0);
        }
        let leads_back =
            |link: &Row| self.known.has(*link) && graph.nodes[*link as usize].state != State::Dying;
        if !graph.links(row, self.layer).iter().any(leads_back) {
            let nearest = self.scratch.work.found[0].slot();
            if !graph.push_link(row, nearest, self.layer) {
                // Whatever it leads to is lost as well, and will be looked for.
                *graph.links_mut(row, self.layer).last_mut().expect("there are places") = nearest;
            }
        }
        self.reached(row);
        Phase::Follow
    }

    fn descend(
        &mut self,
        graph: &Graph,
        options: &IndexOptions,
        budget: &mut Budget,
    ) -> Option<Phase> {
        let Phase::Descend(row, descent) = &mut self.phase else { unreachable!("it descends") };
        let (row, scratch) = (*row, &mut *self.scratch);
        if !graph.descend(scratch, descent, budget) {
            return None;
        }
        // What is reached leads to nothing else.
        scratch.pool.retain(|found| self.known.has(found.slot()));
        if let Some(entry) = graph.entry.filter(|_| scratch.pool.found().is_empty()) {
            scratch.pool.begin(1);
            let rank = graph.rank(&mut scratch.probe, entry);
            scratch.pool.offer(&[rank], &[entry]);
        }
        graph.begin_walk(scratch, options.ef_construction.max(FOUND_LEAST), budget);
        Some(Phase::Walk(row))
    }

    fn walk(&mut self, index: &mut Index, row: Row, budget: &mut Budget) -> Option<Phase> {
        let Index { graph, reach, .. } = index;
        if !graph.walk(&mut self.scratch, self.layer, budget) {
            return None;
        }
        self.open = None;
        let Scratch { pool, work, .. } = &mut *self.scratch;
        work.found.clear();
        for states in [&[State::Live][..], &[State::Dead]] {
            let found = pool.found().iter().filter(|found| {
                let slot = found.slot();
                let is_there = states.contains(&graph.nodes[slot as usize].state);
                let is_on_layer = is_there && graph.level(slot) >= self.layer;
                is_on_layer && slot != row && self.known.has(slot)
            });
            work.found.extend(found);
            if !work.found.is_empty() {
                break;
            }
        }
        if work.found.is_empty() || !self.is_on_layer(graph, row) {
            return Some(Phase::Look);
        }
        reach.mended += 1;
        Some(self.mend(graph, row, WAYS_FOUND))
    }

    fn end_layer(&mut self, graph: &Graph, budget: &mut Budget) -> Phase {
        match self.layer.checked_sub(1) {
            Some(below) => self.begin_layer(graph, below, budget),
            None => Phase::Over,
        }
    }
}
