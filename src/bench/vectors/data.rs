//! What is stored, what is asked, and the true neighbours of each query.

use super::{super::Effort, K};
use crate::memory::{
    formats::NpyReader,
    index::{Index, IndexOptions, Metric, Row},
};
use fastrand::Rng;
use std::{
    error::Error,
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
};

/// Vectors that are made, and queries, at full and at quick effort.
const MADE: ((usize, usize), (usize, usize)) = ((100_000, 1000), (3000, 100));
/// The length of those.
const DIMENSIONS: usize = 384;
/// Centres around which they lie.
const CENTRES: usize = 500;
const SEED: u64 = 7;

/// Files of vectors to be measured instead of made ones: `.npy`, float16 or float32.
#[derive(Clone, Debug, Default)]
pub struct VectorFiles {
    /// What is stored.
    pub vectors: Option<PathBuf>,
    /// What is asked; without it, a thousand of the stored.
    pub queries: Option<PathBuf>,
    /// The rows of each query's nearest neighbours by cosine, integers; without it, they are computed.
    pub truth: Option<PathBuf>,
}

impl VectorFiles {
    /// Looks at the heads of the files, so that what is wrong is told before anything is measured.
    ///
    /// # Errors
    /// Of the kind `InvalidInput`: a file is missing, torn, of another kind or of another length than the others.
    pub fn check(&self) -> io::Result<()> {
        let Some(path) = &self.vectors else { return Ok(()) };
        let stored = open(path, false)?;
        let (count, dimensions) = (stored.rows(), stored.dimensions());
        index_of(path, dimensions)?;
        if count < K as u64 {
            return Err(wrong_in(
                path,
                format!("has {count} vectors, and at least {K} are searched"),
            ));
        }
        let mut queries = None;
        if let Some(path) = &self.queries {
            let reader = open(path, false)?;
            if reader.dimensions() != dimensions {
                let theirs = reader.dimensions();
                let problem =
                    format!("has queries of {theirs} numbers, and the vectors have {dimensions}");
                return Err(wrong_in(path, problem));
            }
            if reader.rows() == 0 {
                return Err(wrong_in(path, "has no query"));
            }
            queries = Some(reader.rows());
        }
        if let (Some(path), Some(queries)) = (&self.truth, queries) {
            let reader = open(path, true)?;
            if reader.rows() < queries || reader.dimensions() < K {
                let (rows, columns) = (reader.rows(), reader.dimensions());
                return Err(wrong_in(
                    path,
                    format!(
                        "has {rows} rows of {columns} numbers, and one of at least {K} is wanted for each of {queries} queries"
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// Opens a file of vectors, or of integers.
fn open(path: &Path, of_integers: bool) -> io::Result<NpyReader<BufReader<File>>> {
    let reader = NpyReader::open(path).map_err(wrong)?;
    match (reader.has_integers(), of_integers) {
        (true, false) => {
            Err(wrong_in(path, "holds integers, not the float16 or float32 of vectors"))
        }
        (false, true) => Err(wrong_in(path, "holds floats, not the integers of rows")),
        _ => Ok(reader),
    }
}

/// What was given is wrong, and not the measurement.
fn wrong(problem: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}

fn wrong_in(path: &Path, problem: impl std::fmt::Display) -> io::Error {
    wrong(format!("{}: {problem}", path.display()))
}

/// An empty index for vectors of a file, which tells what it does not take.
fn index_of(path: &Path, dimensions: usize) -> io::Result<Index> {
    let index = Index::new(IndexOptions::new(dimensions, Metric::Cosine));
    index.map_err(|error| wrong_in(path, format!("has rows of {dimensions} numbers: {error}")))
}

/// Rows of one length, one after the other.
struct Table {
    dimensions: usize,
    values: Vec<f32>,
}

impl Table {
    fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.dimensions)
    }

    fn row(&self, row: usize) -> Option<&[f32]> {
        self.values.get(row * self.dimensions..)?.get(..self.dimensions)
    }
}

/// What one measurement is about.
pub(super) struct Vectors {
    stored: Table,
    queries: Table,
    /// [`K`] rows for each query.
    truth: Vec<Row>,
}

impl Vectors {
    /// Reads or makes them.
    ///
    /// # Errors
    /// A file cannot be read, or they do not belong together.
    pub(super) fn new(files: &VectorFiles, effort: &Effort) -> io::Result<Self> {
        let (stored, queries) = match &files.vectors {
            Some(path) => {
                let stored = read(path)?;
                let queries = match &files.queries {
                    Some(path) => read(path)?,
                    None => sample(&stored),
                };
                (stored, queries)
            }
            None => make(effort.choose(MADE)),
        };
        let count = stored.rows().len();
        if stored.dimensions != queries.dimensions || count < K || queries.rows().len() == 0 {
            return Err(wrong(format!(
                "{count} vectors of {} dimensions and {} queries of {}: at least {K} of one length are needed, and \
                 one query of the same",
                stored.dimensions,
                queries.rows().len(),
                queries.dimensions
            )));
        }
        let truth = match &files.truth {
            Some(path) => read_truth(path, queries.rows().len(), count)?,
            None => compute(&stored, &queries),
        };
        Ok(Self { stored, queries, truth })
    }

    pub(super) fn dimensions(&self) -> usize {
        self.stored.dimensions
    }

    pub(super) fn stored(&self) -> std::slice::ChunksExact<'_, f32> {
        self.stored.rows()
    }

    pub(super) fn row(&self, row: Row) -> Option<&[f32]> {
        self.stored.row(row as usize)
    }

    pub(super) fn queries(&self) -> usize {
        self.queries.rows().len()
    }

    pub(super) fn query(&self, query: usize) -> &[f32] {
        self.queries.row(query).expect("a query's number")
    }

    /// The true neighbours of a query.
    pub(super) fn truth(&self, query: usize) -> &[Row] {
        &self.truth[query * K..][..K]
    }
}

fn read(path: &Path) -> io::Result<Table> {
    let mut reader = open(path, false)?;
    let dimensions = reader.dimensions();
    let index = index_of(path, dimensions)?;
    // At once, or what growing leaves behind goes back while the memory of the index is measured.
    let mut values = Vec::with_capacity(reader.rows() as usize * dimensions);
    let mut row = Vec::new();
    while reader.read_row(&mut row).map_err(wrong)? {
        let at = reader.position() - 1;
        index.check(&row).map_err(|error| wrong_in(path, format!("row {at}: {error}")))?;
        values.extend_from_slice(&row);
    }
    Ok(Table { dimensions, values })
}

/// The nearest rows of each query, from a file that may have more of them.
fn read_truth(path: &Path, queries: usize, count: usize) -> io::Result<Vec<Row>> {
    let mut reader = open(path, true)?;
    let mut truth = Vec::with_capacity(queries * K);
    let mut row = Vec::new();
    for query in 0..queries {
        let is_there = reader.read_integers(&mut row).map_err(wrong)?;
        let nearest = row.iter().take(K).filter(|&&row| (0..count as i64).contains(&row));
        let before = truth.len();
        truth.extend(nearest.filter(|_| is_there).map(|&row| row as Row));
        if truth.len() < before + K {
            let problem = format!("row {query}: does not name {K} of the {count} vectors");
            return Err(wrong_in(path, problem));
        }
    }
    Ok(truth)
}

fn sample(stored: &Table) -> Table {
    let step = (stored.rows().len() / MADE.0.1).max(1);
    let values = stored.rows().step_by(step).take(MADE.0.1).flatten().copied().collect();
    Table { dimensions: stored.dimensions, values }
}

/// Vectors around centres, and queries of the same kind.
fn make((vectors, queries): (usize, usize)) -> (Table, Table) {
    let mut random = Rng::with_seed(SEED);
    let mut component = || (0..4).map(|_| random.f32() - 0.5).sum::<f32>();
    let centres: Vec<f32> = (0..CENTRES * DIMENSIONS).map(|_| component()).collect();
    let mut table = |count: usize| {
        let mut values = Vec::with_capacity(count * DIMENSIONS);
        for row in 0..count {
            let centre = &centres[row % CENTRES * DIMENSIONS..][..DIMENSIONS];
            values.extend(centre.iter().map(|centre| centre + component()));
        }
        Table { dimensions: DIMENSIONS, values }
    };
    (table(vectors), table(queries))
}

/// The true neighbours by cosine, from comparing all with all.
fn compute(stored: &Table, queries: &Table) -> Vec<Row> {
    let mut nearest = vec![Vec::with_capacity(K + 1); queries.rows().len()];
    for (row, vector) in (0..).zip(stored.rows()) {
        // A query's own length does not change its order.
        let length = dot(vector, vector).sqrt();
        for (query, nearest) in queries.rows().zip(&mut nearest) {
            offer(nearest, (dot(query, vector) / length, row));
        }
    }
    nearest.into_iter().flatten().map(|(_, row)| row).collect()
}

/// Keeps the `K` with the largest cosine, the largest first.
fn offer(nearest: &mut Vec<(f32, Row)>, found: (f32, Row)) {
    if nearest.len() < K || found.0 > nearest[K - 1].0 {
        let at = nearest.partition_point(|other| other.0 >= found.0);
        nearest.insert(at, found);
        nearest.truncate(K);
    }
}

/// In sums of every sixteenth product, for which the compiler uses vector registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0; LANES];
    let (a_parts, a_rest) = a.as_chunks::<LANES>();
    let (b_parts, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_parts.iter().zip(b_parts) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += a[lane] * b[lane];
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| a * b);
    sums.iter().sum::<f32>() + rest.sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn true_neighbours_are_those_of_the_largest_cosine() {
        // Vectors in a plane, each turned by a degree more and of another length.
        let turned = |degrees: f32, length: f32| {
            let (sin, cos) = degrees.to_radians().sin_cos();
            [length * cos, length * sin]
        };
        let values = (0..90).flat_map(|row| turned(row as f32, 1.0 + (row % 7) as f32)).collect();
        let stored = Table { dimensions: 2, values };
        let queries = Table { dimensions: 2, values: turned(40.2, 3.0).to_vec() };
        let truth = compute(&stored, &queries);
        assert_eq!(truth, [40, 41, 39, 42, 38, 43, 37, 44, 36, 45]);
    }

    #[test]
    fn the_truth_of_another_set_is_refused() {
        let path = std::env::temp_dir().join(format!("coreflow-truth-{}.npy", std::process::id()));
        let mut head = b"\x93NUMPY\x01\0\x76\0".to_vec();
        head.extend(b"{'descr': '<i4', 'fortran_order': False, 'shape': (2, 10), }");
        head.resize(127, b' ');
        head.push(b'\n');
        (0..20_i32).for_each(|row| head.extend(row.to_le_bytes()));
        std::fs::write(&path, head).expect("the temporary directory is writable");
        let whole = read_truth(&path, 2, 20).expect("it fits");
        let refused = [read_truth(&path, 2, 19), read_truth(&path, 3, 20)];
        std::fs::remove_file(&path).expect("it is there");
        assert!(whole.into_iter().eq(0..20));
        assert!(refused.iter().all(Result::is_err), "rows that are not stored, or too few queries");
    }
}
