//! The second half of a pass on a layer: from which rows no way leads to the entry, and how one is made.

use super::{
    super::graph::{Graph, Index, MARKS_OF_A_DISTANCE, Row, State},
    AHEAD_MAX, Budget, NODE_COST, Pass, Phase, ROWS_OF_A_DISTANCE,
};

/// Rounds that look for ways back on a layer; after so many all that are left are linked back.
const ROUNDS_MAX: usize = 16;
/// And then so many more, and no others.
const ROUNDS_MORE: usize = 64;

impl Pass {
    /// All is reached; now what leads to the entry is looked for.
    pub(super) fn begin_back(&mut self, graph: &Graph, budget: &mut Budget) -> Phase {
        let Some(entry) = graph.entry.filter(|entry| (*entry as usize) < self.rows) else {
            // Another one came, and what does not lead there is left to the next pass.
            self.is_to_follow = true;
            return self.end_layer(graph, budget);
        };
        self.begin_marks(budget);
        self.known.first_visit(entry);
        self.rounds = 0;
        self.begin_round(budget);
        Phase::LookBack
    }

    fn begin_round(&mut self, budget: &mut Budget) {
        budget.spend(self.rows / MARKS_OF_A_DISTANCE);
        self.passed.begin(self.rows);
        self.ahead.clear();
        (self.next, self.has_left, self.has_found) = (0, false, false);
        self.rounds += 1;
    }

    /// Goes from each row along links until one of them leads to the entry: all on the way do so as well. A row whose links lead to
    /// others on that way alone is met again in the next round.
    pub(super) fn look_back(&mut self, index: &Index, budget: &mut Budget) -> Option<Phase> {
        let graph = &index.graph;
        loop {
            if budget.is_spent() {
                return None;
            }
            if let Some(&row) = self.ahead.back() {
                self.follow_back(graph, row, budget);
                continue;
            }
            budget.spend(1);
            for _ in 0..ROWS_OF_A_DISTANCE {
                let Some(row) = self.next_live(index) else {
                    return Some(self.end_round(graph, budget));
                };
                if self.known.has(row) || !self.is_on_layer(graph, row) {
                    continue;
                }
                if self.passed.first_visit(row) {
                    self.ahead.push_back(row);
                    break;
                }
                self.has_left = true;
            }
        }
    }

    fn follow_back(&mut self, graph: &Graph, row: Row, budget: &mut Budget) {
        let links = graph.links(row, self.layer);
        budget.spend(NODE_COST);
        if links.iter().any(|&link| self.known.has(link)) {
            budget.spend(self.ahead.len() / ROWS_OF_A_DISTANCE);
            let known = &mut self.known;
            for row in self.ahead.drain(..) {
                known.first_visit(row);
            }
            self.has_found = true;
            return;
        }
        let mut links = links.iter().copied().filter(|link| (*link as usize) < self.rows);
        match links.find(|&link| self.passed.first_visit(link)) {
            Some(link) => {
                if self.ahead.len() == AHEAD_MAX {
                    self.ahead.pop_front();
                    self.has_left = true;
                }
                self.ahead.push_back(link);
            }
            None => {
                self.ahead.pop_back();
                self.has_left = true;
            }
        }
    }

    fn end_round(&mut self, graph: &Graph, budget: &mut Budget) -> Phase {
        if !self.has_left || self.rounds > ROUNDS_MAX + ROUNDS_MORE {
            return self.end_layer(graph, budget);
        }
        if self.has_found && self.rounds <= ROUNDS_MAX {
            self.begin_round(budget);
            return Phase::LookBack;
        }
        self.begin_round(budget);
        Phase::LinkBack { must: false }
    }

    /// Looks for a row that leads to the entry and to one that does not, and links that back. All that does not is reached,
    /// so there is such a row.
    pub(super) fn link_back(
        &mut self,
        index: &mut Index,
        must: bool,
        budget: &mut Budget,
    ) -> Option<Phase> {
        let Index { graph, reach, .. } = index;
        loop {
            if budget.is_spent() {
                return None;
            }
            budget.spend(1);
            for _ in 0..ROWS_OF_A_DISTANCE {
                let row = self.next;
                if row as usize == self.rows {
                    if self.has_found {
                        self.begin_round(budget);
                        return Some(Phase::LookBack);
                    }
                    if must {
                        return Some(self.end_layer(graph, budget));
                    }
                    self.next = 0;
                    return Some(Phase::LinkBack { must: true });
                }
                self.next = row + 1;
                // What is dead is on the way to others, until a sweep has it in hand.
                let is_in =
                    |row: Row| matches!(graph.nodes[row as usize].state, State::Live | State::Dead);
                if !self.known.has(row) || !is_in(row) || graph.level(row) < self.layer {
                    continue;
                }
                budget.spend(NODE_COST);
                let links = graph.links(row, self.layer).iter();
                let mut links = links.copied().filter(|link| (*link as usize) < self.rows);
                let stuck = links.find(|&link| !self.known.has(link) && is_in(link));
                let Some(stuck) = stuck else { continue };
                if !graph.lead_back(stuck, row, self.layer, must) {
                    continue;
                }
                self.known.first_visit(stuck);
                self.has_found = true;
                reach.mended += 1;
                // What it gave up its link to may be lost then.
                self.is_to_follow |= must;
                if self.rounds <= ROUNDS_MAX {
                    self.begin_round(budget);
                    return Some(Phase::LookBack);
                }
            }
        }
    }
}
