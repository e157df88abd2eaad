//! Operations that are open side by side.

use super::{
    super::{centre::FIRST, options::LINKS_BASE, steps::Budget},
    graph::{check, check_links},
    *,
};
use crate::memory::cases::cases;
use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest},
    sample::{Index as Any, select},
    test_runner::TestCaseError,
};
use std::collections::BTreeSet;

const ROWS_MAX: u32 = 130;
const OPEN_MAX: usize = 4;
const K: usize = 5;

#[derive(Clone, Debug)]
enum Act {
    BeginInsert([i8; 3]),
    StepInsert(Any, usize),
    DropInsert(Any),
    BeginSearch([i8; 3]),
    StepSearch(Any, usize),
    DropSearch(Any),
    Remove(Any),
    InsertLate([i8; 3]),
    /// Goes on with linking late ones.
    Link(usize),
    /// Goes on with what removals left to sweep.
    Sweep(usize),
    /// Has a pass begin.
    Ask,
    /// Goes on with a pass, if one is due.
    Reach(usize),
    /// Removes so many of those that live.
    RemoveMany(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let vector = || [-2_i8..3, -2_i8..3, 1_i8..3];
    prop_oneof![
        8 => vector().prop_map(Act::BeginInsert),
        24 => (any::<Any>(), 1..200_usize).prop_map(|(at, n)| Act::StepInsert(at, n)),
        1 => any::<Any>().prop_map(Act::DropInsert),
        4 => vector().prop_map(Act::BeginSearch),
        12 => (any::<Any>(), 1..100_usize).prop_map(|(at, n)| Act::StepSearch(at, n)),
        1 => any::<Any>().prop_map(Act::DropSearch),
        4 => any::<Any>().prop_map(Act::Remove),
        2 => vector().prop_map(Act::InsertLate),
        6 => (1..200_usize).prop_map(Act::Link),
        4 => (1..300_usize).prop_map(Act::Sweep),
        1 => Just(Act::Ask),
        6 => (1..200_usize).prop_map(Act::Reach),
        1 => (0..80_usize).prop_map(Act::RemoveMany),
    ]
}

struct OpenSearch {
    search: Search,
    /// Rows that it may name.
    live_at_begin: BTreeSet<Row>,
    /// Whether the index has changed since it began.
    is_disturbed: bool,
}

struct World {
    /// What is added to the components of all vectors.
    offset: f32,
    index: Index,
    live: BTreeSet<Row>,
    insertions: Vec<Insertion>,
    searches: Vec<OpenSearch>,
}

fn accepts(row: Row) -> bool {
    row % 7 != 3
}

impl World {
    /// A vector as long as the index has them.
    fn vector(&self, components: [i8; 3]) -> Vec<f32> {
        let components = components.map(|component| self.offset + f32::from(component));
        components.into_iter().cycle().take(self.index.options.dimensions).collect()
    }

    fn act(&mut self, act: Act) -> Result<(), TestCaseError> {
        match act {
            Act::BeginInsert(vector) if self.insertions.len() < OPEN_MAX => {
                let vector = self.vector(vector);
                self.insertions.push(self.index.begin_insert(&vector).expect("well"));
            }
            Act::StepInsert(at, distances) if !self.insertions.is_empty() => {
                let at = at.index(self.insertions.len());
                let step = self.insertions[at].step(&mut self.index, distances);
                if let Some(result) = step {
                    self.insertions.swap_remove(at);
                    self.inserted(result)?;
                }
            }
            Act::InsertLate(vector) => {
                let vector = self.vector(vector);
                let inserted = self.index.insert_late(&vector);
                self.inserted(inserted)?;
            }
            Act::Link(distances) => {
                let is_late = self.index.late() > 0;
                prop_assert_eq!(self.index.link_some(distances), is_late);
                self.disturb();
            }
            Act::DropInsert(at) if !self.insertions.is_empty() => {
                self.insertions.swap_remove(at.index(self.insertions.len()));
            }
            Act::BeginSearch(query) if self.searches.len() < OPEN_MAX => {
                let query = self.vector(query);
                let search = self.index.begin_search(&query, K, 8).expect("well");
                let live_at_begin = self.live.clone();
                self.searches.push(OpenSearch { search, live_at_begin, is_disturbed: false });
            }
            Act::StepSearch(at, distances) if !self.searches.is_empty() => {
                let at = at.index(self.searches.len());
                let open = &mut self.searches[at];
                if let Some(hits) = open.search.step(&mut self.index, distances, accepts) {
                    let open = self.searches.swap_remove(at);
                    self.found(&open, &hits)?;
                }
            }
            Act::DropSearch(at) if !self.searches.is_empty() => {
                self.searches.swap_remove(at.index(self.searches.len()));
            }
            Act::Remove(at) if !self.live.is_empty() => {
                let row = *self.live.iter().nth(at.index(self.live.len())).expect("in range");
                self.remove(row)?;
            }
            Act::Sweep(distances) => {
                let owes = self.index.owes_sweep();
                prop_assert_eq!(self.index.sweep_some(distances), owes);
                self.disturb();
            }
            Act::Ask => self.index.reach.ask(),
            Act::Reach(distances) => {
                let is_due = self.index.has_to_reach();
                prop_assert_eq!(self.index.reach_some(distances), is_due);
            }
            Act::RemoveMany(count) => {
                for row in self.live.clone().into_iter().take(count) {
                    self.remove(row)?;
                }
            }
            _ => {}
        }
        check_links(&self.index);
        prop_assert_eq!(self.index.stats().live, self.live.len());
        Ok(())
    }

    fn remove(&mut self, row: Row) -> Result<(), TestCaseError> {
        prop_assert!(self.index.begin_remove(row));
        prop_assert!(!self.index.begin_remove(row));
        self.live.remove(&row);
        self.disturb();
        Ok(())
    }

    fn disturb(&mut self) {
        self.searches.iter_mut().for_each(|open| open.is_disturbed = true);
    }

    fn inserted(&mut self, result: Result<Row, Invalid>) -> Result<(), TestCaseError> {
        match result {
            Ok(row) => {
                for open in &self.searches {
                    prop_assert!(!open.live_at_begin.contains(&row), "an open search names it");
                }
                prop_assert!(self.live.insert(row), "the row was taken");
                self.disturb();
            }
            Err(error) => prop_assert_eq!(error, Invalid::Full { max: ROWS_MAX }),
        }
        Ok(())
    }

    fn found(&self, open: &OpenSearch, hits: &[Hit]) -> Result<(), TestCaseError> {
        let rows: BTreeSet<Row> = hits.iter().map(|hit| hit.row).collect();
        prop_assert_eq!(rows.len(), hits.len(), "a row was found twice");
        prop_assert!(rows.iter().all(|&row| self.live.contains(&row) && accepts(row)));
        prop_assert!(hits.is_sorted_by(|a, b| a.distance <= b.distance));
        if !open.is_disturbed {
            let accepted = self.live.iter().filter(|&&row| accepts(row)).count();
            prop_assert_eq!(hits.len(), accepted.min(K), "fewer hits than there are vectors");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(cases(128))]

    /// Ways to all are not asked for: what comes while nearly nothing lives may have none, and with so few all are compared.
    #[test]
    fn open_operations_keep_the_invariants(
        acts in vec(act(), 1..800),
        seed in any::<u64>(),
        (dimensions, metric, offset) in select(vec![
            (3, Metric::Cosine, 0.0), (20, Metric::Cosine, 0.0), (20, Metric::Euclidean, 100.0),
            (3, Metric::Dot, 0.0), (20, Metric::Dot, 0.0), (20, Metric::Dot, 100.0),
        ]),
    ) {
        let options = IndexOptions {
            seed, ef_construction: 16, vectors_max: ROWS_MAX, ..IndexOptions::new(dimensions, metric)
        };
        let index = Index::new(options).expect("the options are well");
        let (live, insertions, searches) = (BTreeSet::new(), Vec::new(), Vec::new());
        let mut world = World { offset, index, live, insertions, searches };
        for act in acts {
            world.act(act)?;
        }
        // What is open comes to its end.
        while let Some(mut insertion) = world.insertions.pop() {
            let result = insertion.step(&mut world.index, usize::MAX).expect("no end to the budget");
            world.inserted(result)?;
        }
        for mut open in std::mem::take(&mut world.searches) {
            let hits = open.search.step(&mut world.index, usize::MAX, accepts);
            world.found(&open, &hits.expect("no end to the budget"))?;
        }
        check_links(&world.index);
    }
}

/// They have met codes that are no more.
#[test]
fn operations_that_are_open_while_the_centre_is_chosen_begin_again() {
    const BEFORE: usize = FIRST - 4;
    for steps in 0..12 {
        let mut random = Rng::with_seed(steps);
        let mut all = vectors(&mut random, 40, 200);
        all.iter_mut().flatten().for_each(|component| *component += 1000.0);
        let (before, after) = all.split_at(BEFORE);
        let mut index = filled(Metric::Euclidean, before, 3);
        let mut search = index.begin_search(&before[5], 3, 10).expect("the query is well");
        let mut insertion = index.begin_insert(&after[0]).expect("the vector is well");
        for _ in 0..steps {
            assert!(insertion.step(&mut index, 1).is_none());
        }
        for vector in &after[1..] {
            index.insert(vector).expect("the vector is well");
        }
        assert!(!index.graph.coding.centre.is_empty());
        let row = insertion.step(&mut index, usize::MAX).expect("no end to the budget");
        let hits = search.step(&mut index, usize::MAX, |_| true).expect("no end to the budget");
        assert!(hits[0].row == 5 && hits[0].distance < 0.1, "{hits:?}");
        assert!(hits[1].distance > 1.0, "{hits:?}");
        check(&mut index);
        let hits = index.search(&after[0], 3, 10, |_| true).expect("the query is well");
        assert!(Ok(hits[0].row) == row && hits[0].distance < 0.1, "{hits:?}");
    }
}

/// They began when a centre was there, and all that told it goes before they go on.
#[test]
fn operations_that_are_open_when_the_centre_is_forgotten_begin_again() {
    let mut random = Rng::with_seed(113);
    let mut all = vectors(&mut random, 40, 64);
    all.iter_mut().flatten().for_each(|value| *value += 1000.0);
    for metric in [Metric::Euclidean, Metric::Cosine] {
        let mut index = filled(metric, &all[..39], 5);
        assert!(!index.graph.coding.centre.is_empty());
        let mut insertion = index.begin_insert(&all[39]).expect("the vector is well");
        (0..39).for_each(|row| assert!(index.remove(row)));
        assert!(index.graph.coding.centre.is_empty());
        assert_eq!(insertion.step(&mut index, usize::MAX), Some(Ok(0)));
        // Its vector is one of the first, which tell the next centre.
        all[..39].iter().for_each(|vector| assert!(index.insert(vector).is_ok()));
        assert!(!index.graph.coding.centre.is_empty());
        let hits = index.search(&all[39], 3, 50, |_| true).expect("the query is well");
        assert!(hits[0].row == 0 && hits[0].distance < 1e-3, "{hits:?}");
        check(&mut index);
    }
}

#[test]
fn a_search_in_steps_finds_what_it_finds_at_once() {
    let mut random = Rng::with_seed(31);
    let all = vectors(&mut random, 2000, 24);
    let mut index = filled(Metric::Cosine, &all, 31);
    // The last filter has the search walk three times and then compare all.
    for part in [1, 10, 1999] {
        let accepts = |row: Row| row.is_multiple_of(part);
        for (query, distances) in all.iter().step_by(97).zip([1, 7, 64, 1000].iter().cycle()) {
            let at_once = index.search(query, 10, 50, accepts).expect("the query is well");
            let mut search = index.begin_search(query, 10, 50).expect("the query is well");
            let hits = std::iter::from_fn(|| Some(search.step(&mut index, *distances, accepts)));
            assert_eq!(hits.flatten().next(), Some(at_once));
        }
    }
}

/// Rows that were freed or taken by others in between are as any others.
#[test]
fn a_search_among_rows_compares_all_of_them_and_no_others() {
    for (metric, dimensions) in
        [(Metric::Cosine, 24), (Metric::Euclidean, 3), (Metric::Euclidean, 24), (Metric::Dot, 24)]
    {
        let mut random = Rng::with_seed(43);
        let all = vectors(&mut random, 2000, dimensions);
        let mut index = filled(metric, &all, 43);
        let rows: Vec<Row> = (0..2000).step_by(9).chain([5000]).collect();
        for query in all.iter().step_by(97) {
            let mut search = index.begin_search_among(query, 300, &rows).expect("well");
            assert!(search.step(&mut index, 40, |_| true).is_none());
            let gone = rows[random.usize(..rows.len() - 1)];
            index.remove(gone);
            let accepts = |row: Row| row != 18;
            let hits = std::iter::from_fn(|| Some(search.step(&mut index, 40, accepts)));
            let hits = hits.flatten().next().expect("it comes to an end");
            assert!(hits.is_sorted_by(|a, b| a.distance <= b.distance));
            let found: BTreeSet<Row> = hits.iter().map(|hit| hit.row).collect();
            let live = rows.iter().copied().filter(|&row| index.contains(row) && accepts(row));
            assert!(found.iter().copied().eq(live), "{metric:?}");
        }
        assert_eq!(index.begin_search_among(&all[0], 0, &rows).err(), Some(Invalid::ZeroK));
    }
}

#[test]
fn an_insertion_in_steps_makes_the_graph_that_it_makes_at_once() {
    let mut random = Rng::with_seed(37);
    let all = vectors(&mut random, 600, 24);
    for metric in [Metric::Euclidean, Metric::Dot] {
        let at_once = filled(metric, &all, 37);
        let options = IndexOptions { seed: 37, ..IndexOptions::new(24, metric) };
        let mut index = Index::new(options).expect("the options are well");
        for (row, vector) in (0..).zip(&all) {
            let mut insertion = index.begin_insert(vector).expect("the vector is well");
            let rows = std::iter::from_fn(|| Some(insertion.step(&mut index, 1 + row as usize)));
            assert_eq!(rows.flatten().next(), Some(Ok(row)));
        }
        for row in 0..600 {
            for layer in 0..=at_once.graph.level(row) {
                assert_eq!(index.graph.links(row, layer), at_once.graph.links(row, layer));
            }
        }
    }
}

/// While a full node's links are chosen in steps, nodes that it leads to go and a sweep takes the links to them.
#[test]
fn what_a_sweep_took_while_links_were_chosen_stays_away() {
    let mut random = Rng::with_seed(43);
    let all = vectors(&mut random, 500, 24);
    for metric in [Metric::Euclidean, Metric::Dot] {
        let mut index = filled(metric, &all, 43);
        let mut live: Vec<Row> = (0..500).collect();
        for vector in &all[..40] {
            let mut insertion = index.begin_insert(vector).expect("the vector is well");
            let row = loop {
                if let Some(row) = insertion.step(&mut index, 1) {
                    break row.expect("there is room");
                }
                if random.usize(..200) == 0 {
                    for _ in 0..60 {
                        let gone = live.swap_remove(random.usize(..live.len()));
                        assert!(index.begin_remove(gone));
                    }
                    let mut scratch = index.scratches.take();
                    assert!(index.sweep_on(&mut scratch, &mut Budget::unlimited()));
                    let coming = (0..60).map(|_| index.insert(&all[random.usize(..all.len())]));
                    live.extend(coming.map(|row| row.expect("there is room")));
                }
            };
            live.push(row);
            check_links(&index);
        }
        check(&mut index);
    }
}

/// Two insertions choose the links of the same full node in turns, and each is near enough to be among them: whichever ends
/// later finds other links than it began with.
#[test]
fn links_of_a_node_that_are_chosen_by_two_at_once_have_both() {
    let mut random = Rng::with_seed(44);
    let all = vectors(&mut random, 2000, 24);
    let mut index = filled(Metric::Euclidean, &all, 44);
    let is_full = |row: &Row| index.graph.links(*row, 0).len() == LINKS_BASE;
    let full: Vec<Row> = (0..2000).filter(is_full).take(20).collect();
    assert_eq!(full.len(), 20);
    for row in full {
        let way: Vec<f32> = (0..24).map(|_| 0.01 * (random.f32() - 0.5)).collect();
        let mut open = [1.0, -1.0].map(|side| {
            let pairs = all[row as usize].iter().zip(&way);
            let vector: Vec<f32> = pairs.map(|(at, way)| at + side * way).collect();
            index.begin_insert(&vector).expect("the vector is well")
        });
        let mut rows = [None; 2];
        while rows.contains(&None) {
            for (insertion, row) in open.iter_mut().zip(&mut rows).filter(|it| it.1.is_none()) {
                *row = insertion.step(&mut index, 1).map(|row| row.expect("there is room"));
            }
        }
        let links = index.graph.links(row, 0);
        assert!(rows.iter().flatten().all(|row| links.contains(row)), "{rows:?} of {links:?}");
    }
}

/// Searches that overlap without end hold back no row for ever.
#[test]
fn rows_rest_while_searches_are_open_and_no_longer() {
    let mut random = Rng::with_seed(41);
    let all = vectors(&mut random, 400, 8);
    let mut index = filled(Metric::Cosine, &all, 41);
    let mut former = index.begin_search(&all[0], 1, 10).expect("well");
    let mut row = 0;
    for vector in all.iter().cycle().take(4000) {
        let present = index.begin_search(vector, 1, 10).expect("well");
        drop(std::mem::replace(&mut former, present));
        assert!(index.remove(row));
        row = index.insert(vector).expect("there is room");
    }
    let stats = index.stats();
    assert!(stats.rows < 600, "{} rows for 400 vectors", stats.rows);
}
