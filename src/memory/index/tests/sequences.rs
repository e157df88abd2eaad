//! Whatever is done to an index, in whatever order: ways lead to all that lives behind a pass, and it is found.

use super::{
    coarse::{Shape, far_clusters},
    graph::{check, check_links},
    recall::recall,
    *,
};
use crate::memory::cases::cases;
use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest},
    sample::select,
    test_runner::TestCaseError,
};
use std::collections::BTreeMap;

/// Vectors that a sequence may store.
const POOL: usize = 1200;
const EF: usize = 100;

/// What the vectors are.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Around some centres.
    Near,
    /// Nearly all are copies of some.
    Copies,
    /// Nearly all point the same way.
    Cone,
    /// In clusters far from each other, so that codes are made anew.
    Far(Shape),
}

impl Kind {
    fn vectors(self, random: &mut Rng, dimensions: usize, metric: Metric) -> Vec<Vec<f32>> {
        if let Kind::Far(shape) = self {
            let far = far_clusters(random, shape, POOL, dimensions, metric);
            return far.into_iter().map(|it| it.1).collect();
        }
        let mut all = vectors(random, POOL, dimensions);
        match self {
            Kind::Copies => (100..POOL).for_each(|at| {
                if random.usize(..10) > 0 {
                    all[at] = all[random.usize(..100)].clone();
                }
            }),
            Kind::Cone => all.iter_mut().flatten().for_each(|value| *value = 1.0 + *value / 100.0),
            Kind::Near | Kind::Far(_) => {}
        }
        if metric == Metric::Dot {
            // Lengths are alike where they count.
            for vector in &mut all {
                let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
                vector.iter_mut().for_each(|value| *value /= length);
            }
        }
        all
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(usize),
    InsertLate(usize),
    /// Others in the place of so many.
    Replace(usize),
    Remove(usize),
    /// Removes all but so many.
    RemoveRest(usize),
    /// Removes so many that lie near each other.
    RemoveNear(usize),
    Link(usize),
    Sweep(usize),
    /// Gives codes anew to so many that need it.
    Recode(usize),
    /// Goes on with a pass, if one is due.
    Reach(usize),
    /// Goes on with what an image has, where a chunk of it may be lost.
    Reload(Option<usize>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..120_usize).prop_map(Step::Insert),
        2 => (1..60_usize).prop_map(Step::InsertLate),
        3 => (1..80_usize).prop_map(Step::Replace),
        3 => (1..60_usize).prop_map(Step::Remove),
        1 => (1..200_usize).prop_map(Step::RemoveNear),
        1 => (0..200_usize).prop_map(Step::RemoveRest),
        3 => (1..20_000_usize).prop_map(Step::Link),
        2 => (1..4000_usize).prop_map(Step::Sweep),
        2 => prop_oneof![1..30_usize, Just(usize::MAX)].prop_map(Step::Recode),
        3 => (1..3000_usize).prop_map(Step::Reach),
        1 => prop_oneof![Just(None), (0..8_usize).prop_map(Some)].prop_map(Step::Reload),
    ]
}

/// An index, and the vectors that are in its rows.
struct World {
    random: Rng,
    pool: Vec<Vec<f32>>,
    index: Index,
    rows: BTreeMap<Row, Vec<f32>>,
}

impl World {
    fn draw(&mut self) -> Vec<f32> {
        self.pool[self.random.usize(..self.pool.len())].clone()
    }

    fn draw_row(&mut self) -> Option<Row> {
        let at = self.random.usize(..self.rows.len().max(1));
        self.rows.keys().nth(at).copied()
    }

    fn insert(&mut self) -> Result<(), TestCaseError> {
        let vector = self.draw();
        let row = self.index.insert(&vector).expect("there is room");
        prop_assert!(self.rows.insert(row, vector).is_none(), "the row was taken");
        Ok(())
    }

    fn remove(&mut self, row: Row) -> Result<(), TestCaseError> {
        self.rows.remove(&row);
        prop_assert!(self.index.begin_remove(row));
        Ok(())
    }

    fn act(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Insert(count) => (0..count).try_for_each(|_| self.insert())?,
            Step::InsertLate(count) => {
                for _ in 0..count {
                    let vector = self.draw();
                    let row = self.index.insert_late(&vector).expect("there is room");
                    prop_assert!(self.rows.insert(row, vector).is_none(), "the row was taken");
                }
            }
            Step::Replace(count) => {
                for _ in 0..count {
                    let Some(row) = self.draw_row() else { break };
                    self.remove(row)?;
                    self.insert()?;
                }
            }
            Step::Remove(count) => {
                for _ in 0..count {
                    let Some(row) = self.draw_row() else { break };
                    self.remove(row)?;
                }
            }
            Step::RemoveRest(left) => {
                while self.rows.len() > left {
                    let Some(row) = self.draw_row() else { break };
                    self.remove(row)?;
                }
            }
            Step::RemoveNear(count) => {
                let query = self.draw();
                let hits = self.index.search(&query, count, count, |_| true).expect("well");
                hits.into_iter().try_for_each(|hit| self.remove(hit.row))?;
            }
            Step::Link(distances) => {
                self.index.link_some(distances);
            }
            Step::Sweep(distances) => {
                self.index.sweep_some(distances);
            }
            Step::Recode(count) => self.recode(count),
            Step::Reach(distances) => {
                self.index.reach_some(distances);
            }
            Step::Reload(lost) => self.reload(lost)?,
        }
        Ok(())
    }

    fn recode(&mut self, count: usize) {
        for _ in 0..count {
            if !self.index.has_coarse() {
                break;
            }
            let Some(row) = self.index.take_coarse() else { continue };
            self.index.recode(row, &self.rows[&row]).expect("the vector is well");
        }
    }

    fn reload(&mut self, lost: Option<usize>) -> Result<(), TestCaseError> {
        let mut loader = Loader::new(self.index.options.clone()).expect("the options are well");
        let mut image = self.index.begin_image();
        for at in 0.. {
            let mut chunk = Vec::new();
            if image.chunk(&self.index, &mut chunk).is_none() {
                break;
            }
            if lost != Some(at) {
                prop_assert!(loader.chunk(&chunk).is_ok());
            }
        }
        let rows = self.rows.keys().last().map_or(0, |row| row + 1);
        let wanted =
            |row| if self.rows.contains_key(&row) { Wanted::Same } else { Wanted::Nothing };
        let (loaded, again) = loader.finish(rows, wanted).expect("there is room");
        self.index = loaded;
        for row in again {
            self.index.insert_at(row, &self.rows[&row]).expect("the row is kept for it");
        }
        Ok(())
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    let shape = prop_oneof![
        Just(Shape::Anywhere(2)),
        (3..40_usize).prop_map(Shape::Anywhere),
        (3..30_usize).prop_map(Shape::Line),
    ];
    prop_oneof![
        2 => Just(Kind::Near),
        1 => Just(Kind::Copies),
        1 => Just(Kind::Cone),
        2 => shape.prop_map(Kind::Far),
    ]
}

/// Does what is said, and checks that all that lives is reached and found then.
fn replay(
    seed: u64,
    kind: Kind,
    metric: Metric,
    options: IndexOptions,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    let mut random = Rng::with_seed(seed);
    let pool = kind.vectors(&mut random, options.dimensions, metric);
    let ef_construction = options.ef_construction;
    let index = Index::new(options).expect("the options are well");
    let mut world = World { random, pool, index, rows: BTreeMap::new() };
    for step in steps {
        world.act(step)?;
        check_links(&world.index);
        prop_assert_eq!(world.index.stats().live, world.rows.len());
    }
    while world.index.link_some(usize::MAX) || world.index.sweep_some(usize::MAX) {}
    world.recode(usize::MAX);
    check(&mut world.index);
    let World { mut random, pool, mut index, rows } = world;
    let stored: Vec<_> = rows.into_iter().collect();
    if !stored.is_empty() {
        let queries: Vec<_> = (0..20).map(|_| pool[random.usize(..POOL)].clone()).collect();
        let found = recall(&mut index, &stored, &queries, metric, EF);
        // With the fewest candidates that there may be links are worse; and by products, of clusters that were linked with some of
        // them gone or by coarse codes.
        let least = match kind {
            Kind::Far(_) if metric == Metric::Dot => 0.75,
            _ if ef_construction == 16 => 0.9,
            _ => 0.95,
        };
        prop_assert!(found >= least, "{} of {} are found", found, stored.len());
        let all = index.search(&queries[0], stored.len(), stored.len(), |_| true).expect("well");
        prop_assert_eq!(all.len(), stored.len());
    }
    Ok(())
}

/// Sequences that left some of a few, and a cluster, without a way to them.
#[test]
fn what_had_no_way_to_it_once_has_one() {
    use Step::*;

    const ALL: usize = usize::MAX;
    let options =
        |seed, dimensions, metric| IndexOptions { seed, ..IndexOptions::new(dimensions, metric) };
    let (seed, metric) = (639389646745871497, Metric::Cosine);
    let steps = [
        InsertLate(2),
        Insert(65),
        Insert(55),
        Insert(24),
        Replace(4),
        Insert(110),
        InsertLate(41),
        Insert(88),
        Replace(14),
        Insert(4),
        Insert(15),
        Insert(4),
        Insert(33),
        Reload(Some(0)),
        Insert(109),
        RemoveRest(3),
    ];
    replay(seed, Kind::Near, metric, options(seed, 3, metric), &steps).expect("it is reached");

    let (seed, metric) = (4184904405743156591, Metric::Euclidean);
    let kind = Kind::Far(Shape::Anywhere(2));
    let steps = [
        Insert(49),
        Replace(57),
        RemoveRest(35),
        Remove(45),
        Insert(108),
        Insert(110),
        Insert(71),
        Replace(38),
        Replace(59),
        Remove(22),
        Insert(41),
        RemoveRest(3),
        Recode(ALL),
        Recode(ALL),
        Insert(9),
        Insert(104),
        Replace(77),
        Insert(110),
        InsertLate(10),
        InsertLate(6),
        Sweep(939),
        Remove(8),
        Insert(3),
        InsertLate(12),
        Remove(1),
        Insert(30),
        Recode(ALL),
        Sweep(1619),
        Link(15593),
    ];
    replay(seed, kind, metric, options(seed, 3, metric), &steps).expect("it is reached");

    let (seed, metric) = (6041246900278179778, Metric::Euclidean);
    let steps = [Replace(1), Insert(103), Insert(57), Replace(22), Insert(55), Replace(1)];
    let kind = Kind::Far(Shape::Line(10));
    replay(seed, kind, metric, options(seed, 130, metric), &steps).expect("it is reached");
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn what_lives_is_reached_and_found_after_any_operations(
        seed in any::<u64>(),
        kind in kind(),
        dimensions in select(vec![3, 16, 17, 40, 130]),
        metric in select(vec![Metric::Cosine, Metric::Euclidean, Metric::Dot]),
        ef_construction in select(vec![16, 40, 200]),
        steps in vec(step(), 1..60),
    ) {
        let options =
            IndexOptions { seed, ef_construction, ..IndexOptions::new(dimensions, metric) };
        replay(seed, kind, metric, options, &steps)?;
    }
}
