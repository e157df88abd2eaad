//! Vectors that are found before they are linked.
//!
//! A start has many vectors to take in that no image has, and nobody should wait until all are linked. Such a vector
//! comes *late*: it has its row and its code at once, and is linked afterwards, the oldest first, in steps of whoever
//! has time ([`Index::link_some`]). Until then each search compares the codes of all late ones before it walks, so it
//! misses none of them.
//!
//! A late vector may be removed as any other. Nothing leads to it but what it is being linked to, and it is no
//! entry and no target of new links until its own are made.

use super::{
    error::Invalid,
    graph::{Graph, Index, Node, Row, State},
    insert::Linking,
    options::LINKS_BASE,
    rows::NONE,
    steps::{Budget, Open, Scratch},
};
use std::collections::VecDeque;

/// Rows that are late, and the one that is being linked.
#[derive(Default)]
pub(super) struct Late {
    /// Oldest first; [`NONE`] for those that were removed.
    rows: VecDeque<Row>,
    /// How many there were before these, so that a search knows where it is while others are linked.
    before: usize,
    /// How far the first of them has come.
    linking: Option<(Linking, Box<Scratch>, Open)>,
}

impl Late {
    pub(super) fn forget(&mut self, row: Row) {
        if self.rows.front() == Some(&row) {
            self.linking = None;
        }
        if let Some(found) = self.rows.iter_mut().find(|late| **late == row) {
            *found = NONE;
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>()
    }

    /// Takes away the first, and what is gone behind it.
    fn advance(&mut self) {
        self.rows.pop_front();
        self.before += 1;
        if self.rows.is_empty() {
            self.rows = VecDeque::new();
        }
    }
}

impl Index {
    /// Stores a vector that is found at once and linked later. Where that would make searches no slower, it is linked
    /// at once.
    ///
    /// # Errors
    ///
    /// Those of [`insert`](Self::insert).
    pub fn insert_late(&mut self, vector: &[f32]) -> Result<Row, Invalid> {
        self.check_length(vector)?;
        let row = if self.may_be_late() { self.take_row() } else { None };
        match row {
            Some(row) => self.place_late(row, vector).map(|()| row),
            None => self.insert(vector),
        }
    }

    /// The same at a row that a loaded image left to be inserted again.
    ///
    /// # Errors
    ///
    /// Those of [`insert_at`](Self::insert_at).
    pub fn insert_late_at(&mut self, row: Row, vector: &[f32]) -> Result<(), Invalid> {
        self.check_length(vector)?;
        if !self.may_be_late() {
            return self.insert_at(row, vector);
        }
        let node = self.graph.nodes.get(row as usize);
        if node.is_none_or(|node| node.state != State::Promised) {
            return Err(Invalid::NotPromised { row });
        }
        self.place_late(row, vector)?;
        self.promised -= 1;
        Ok(())
    }

    /// There is a graph to link it to later, and its code will stay what it is.
    fn may_be_late(&self) -> bool {
        self.graph.entry.is_some() && self.first.is_none() && self.live > 0
    }

    /// Gives a vector its row; a row that was just taken is free again when the vector has no code.
    fn place_late(&mut self, row: Row, vector: &[f32]) -> Result<(), Invalid> {
        let scratch = match self.begin_scratch(vector) {
            Ok(scratch) => scratch,
            Err(error) => {
                if self.graph.nodes.get(row as usize).is_some_and(|node| node.state == State::Free)
                {
                    self.generations.rest(row);
                }
                return Err(error);
            }
        };
        let node = Node { tower: NONE, level: 0, state: State::Late };
        self.graph.place(&scratch.probe, row, node);
        self.scratches.put(scratch);
        self.live += 1;
        self.late.rows.push_back(row);
        Ok(())
    }

    /// How many vectors are still to be linked, about.
    pub fn late(&self) -> usize {
        self.late.rows.len()
    }

    /// Goes on with linking by about as many distances; false when all vectors are linked.
    pub fn link_some(&mut self, distances: usize) -> bool {
        let Some(&row) = self.late.rows.front() else { return false };
        if row == NONE {
            self.late.advance();
            return true;
        }
        let (mut linking, mut scratch, open) = match self.late.linking.take() {
            Some(begun) => begun,
            None => self.begin_to_link(row),
        };
        scratch.marks.grow(self.graph.nodes.len());
        if linking.go_on(self, &mut scratch, row, &mut Budget::new(distances)) {
            self.arrive(row);
            self.scratches.put(scratch);
            self.late.advance();
        } else {
            self.late.linking = Some((linking, scratch, open));
        }
        true
    }

    fn begin_to_link(&mut self, row: Row) -> (Linking, Box<Scratch>, Open) {
        let (level, tower) = self.draw_level();
        let graph = &mut self.graph;
        graph.nodes[row as usize] = Node { tower, level: level as u8, state: State::Late };
        self.sweep.passes(row, level);
        let mut scratch = self.scratches.take();
        let terms = graph.terms[row as usize];
        graph.coding.decode(graph.codes.get(row), terms, &mut scratch.probe);
        scratch.edition = graph.coding.edition;
        scratch.vector.clear();
        let linking = Linking::begin(graph, &mut scratch, row);
        (linking, scratch, self.generations.open())
    }

    /// Offers a walk the late ones that are accepted, from the place `next` on. False when the budget ended before.
    pub(super) fn offer_late(
        &self,
        scratch: &mut Scratch,
        next: &mut usize,
        accepts: &mut impl FnMut(Row) -> bool,
        budget: &mut Budget,
    ) -> bool {
        let Late { rows, before, .. } = &self.late;
        let graph: &Graph = &self.graph;
        let mut slots = [0; LINKS_BASE];
        let mut ranks = [0.0; LINKS_BASE];
        loop {
            // Those that were linked meanwhile the walk will meet.
            let from = next.saturating_sub(*before);
            let end = (from + LINKS_BASE).min(rows.len());
            if from >= end {
                return true;
            }
            if budget.is_spent() {
                return false;
            }
            let mut count = 0;
            for &slot in rows.range(from..end) {
                if slot != NONE && accepts(slot) && scratch.marks.first_visit(slot) {
                    slots[count] = slot;
                    count += 1;
                }
            }
            graph.ranks(&scratch.probe, &slots[..count], &mut ranks);
            scratch.pool.offer(&ranks[..count], &slots[..count]);
            budget.spend(end - from);
            *next = before + end;
        }
    }
}
