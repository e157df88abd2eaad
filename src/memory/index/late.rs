//! Vectors that are found before they are linked.
//!
//! A start has many vectors to take in that no image has, and nobody should wait until all are linked. Such a vector
//! comes *late*: it has its row and its code at once, and is linked afterwards, the oldest first, in steps of whoever
//! has time ([`Index::link_some`]). Until then each search compares the codes of all late ones before it walks, so it
//! misses none of them, and joins the best of them to what it found.
//!
//! A late vector may be removed as any other. Hardly anything leads to it but what it is being linked to, and it is no
//! entry and no target of new links until its own are made.

use super::{
    error::Invalid,
    graph::{Graph, Index, Node, PLACES_OF_A_DISTANCE, Row, State},
    insert::Linking,
    options::LINKS_BASE,
    rows::NONE,
    steps::{Budget, Open, Scratch},
};
use std::collections::{HashMap, VecDeque};

/// Rows that are gone which one step passes over.
const GONE_A_STEP: usize = 1024;
/// Late ones that were found are joined in the time of a distance.
const JOINED_OF_A_DISTANCE: usize = 8;

/// Rows that are late, and the one that is being linked.
#[derive(Default)]
pub(super) struct Late {
    /// Oldest first; [`NONE`] for those that were removed.
    rows: VecDeque<Row>,
    /// How many there were before these, so that a search knows where it is while others are linked.
    before: usize,
    /// Where each row is, counted from the first that ever was.
    places: HashMap<Row, usize>,
    /// How far the first of them has come.
    linking: Option<(Linking, Box<Scratch>, Open)>,
}

impl Late {
    fn push(&mut self, row: Row) {
        self.places.insert(row, self.before + self.rows.len());
        self.rows.push_back(row);
    }

    pub(super) fn forget(&mut self, row: Row) {
        if self.rows.front() == Some(&row) {
            self.linking = None;
        }
        if let Some(place) = self.places.remove(&row) {
            self.rows[place - self.before] = NONE;
        }
        self.forget_empty();
    }

    /// Memory is given back when all are linked or gone.
    fn forget_empty(&mut self) {
        if self.places.is_empty() {
            self.before += self.rows.len();
            self.rows = VecDeque::new();
            self.places = HashMap::new();
        }
    }

    /// Takes away the first, which is linked or gone.
    fn advance(&mut self) {
        if let Some(row) = self.rows.pop_front() {
            self.before += 1;
            self.places.remove(&row);
        }
        self.forget_empty();
    }

    /// Passes over some of those that are gone; whether the first is not.
    fn skip_gone(&mut self) -> bool {
        for _ in 0..GONE_A_STEP {
            if self.rows.front() != Some(&NONE) {
                return true;
            }
            self.advance();
        }
        self.rows.front() != Some(&NONE)
    }

    pub(super) fn bytes(&self) -> usize {
        self.rows.capacity() * size_of::<Row>() + self.places.capacity() * size_of::<(Row, usize)>()
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
        self.graph.entry.is_some() && self.first.is_none() && !self.live.is_empty()
    }

    /// Gives a vector its row; a row that was just taken is free again when the vector has no code.
    fn place_late(&mut self, row: Row, vector: &[f32]) -> Result<(), Invalid> {
        let scratch = match self.begin_scratch(vector, self.options.metric.of_links()) {
            Ok(scratch) => scratch,
            Err(error) => {
                if self.graph.nodes.get(row as usize).is_some_and(|node| node.state == State::Free)
                {
                    self.generations.rest(row);
                }
                return Err(error);
            }
        };
        let node = Node::new(NONE, 0, State::Late);
        self.graph.place(&scratch.probe, row, node);
        self.scratches.put(scratch);
        self.live.enter(row);
        self.late.push(row);
        Ok(())
    }

    /// How many vectors are still to be linked.
    pub fn late(&self) -> usize {
        self.late.places.len()
    }

    /// Goes on with linking by about as many distances; false when all vectors are linked.
    pub fn link_some(&mut self, distances: usize) -> bool {
        if self.late() == 0 {
            return false;
        }
        if !self.late.skip_gone() {
            return true;
        }
        let row = self.late.rows[0];
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
        let node = &mut graph.nodes[row as usize];
        *node = Node { tower, level: level as u8, ..*node };
        let mut scratch = self.scratches.take();
        graph.decode(row, self.options.metric.of_links(), &mut scratch.probe);
        scratch.edition = graph.coding.edition;
        scratch.vector.clear();
        let linking = Linking::begin(graph, &mut scratch, row);
        (linking, scratch, self.generations.open())
    }

    /// Compares the late ones that are accepted, from the place `next` on. False when the budget ended before.
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
                if slot != NONE && accepts(slot) {
                    slots[count] = slot;
                    count += 1;
                }
            }
            graph.ranks(&mut scratch.probe, &slots[..count], &mut ranks);
            budget.spend_coded(&mut scratch.probe);
            scratch.late.offer(&ranks[..count], &slots[..count]);
            budget.spend(end - from + count * scratch.late.found().len() / PLACES_OF_A_DISTANCE);
            *next = before + end;
        }
    }
}

impl Scratch {
    /// Offers a walk that has ended the late ones that were found, but for those that it has met, which were linked
    /// meanwhile.
    pub(super) fn join_late(&mut self, budget: &mut Budget) {
        let Self { pool, late, marks, .. } = self;
        for found in late.found() {
            if marks.first_visit(found.slot()) {
                pool.offer(&[found.rank()], &[found.slot()]);
            }
        }
        budget.spend(late.found().len() / JOINED_OF_A_DISTANCE);
    }
}
