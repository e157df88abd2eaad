//! How fast one core finds the nearest vectors, against how many of the true ones it finds.
//!
//! `cargo run --release --example vector_search` makes 20,000 vectors and measures them. With
//! `COREFLOW_DATA=FOLDER` it reads that folder's `base*.npy` and `query*.npy` (float16 or float32) and
//! `gt*.npy` (the exact nearest neighbours by cosine, int32), and measures those instead.
//!
//! For each width of search it prints the part of the ten true neighbours that were found (recall@10) and searches a
//! second, by codes alone and with twenty hits ordered again by float32. Everything runs on one pinned
//! core, and times are of the processor, so that other programs on it count only by the caches that
//! they take; the machine's load stands in the first line.

use coreflow::memory::index::{Hit, Index, IndexOptions, Metric, Row};
use std::{
    env, error::Error, fs, hint::black_box, path::Path, path::PathBuf, time::Duration,
    time::Instant,
};

const K: usize = 10;
const ROUNDS: usize = 5;
const WIDTHS: [usize; 10] = [10, 16, 24, 32, 50, 75, 100, 150, 200, 300];

/// Vectors, row by row.
struct Table {
    dimensions: usize,
    values: Vec<f32>,
}

/// What is stored, what is asked, and the rows of each query's true neighbours.
type Data = (Table, Table, Vec<Vec<Row>>);

impl Table {
    fn row(&self, row: Row) -> Option<&[f32]> {
        self.values.get(row as usize * self.dimensions..)?.get(..self.dimensions)
    }

    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.dimensions)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(cores) = core_affinity::get_core_ids() {
        core_affinity::set_for_current(cores[cores.len() - 1]);
    }
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load {}", load.trim());
    let (base, queries, truth) = match env::var_os("COREFLOW_DATA") {
        Some(folder) => read(Path::new(&folder))?,
        None => make(),
    };

    let before = resident_bytes();
    let count = base.rows().count();
    let mut options = IndexOptions::new(base.dimensions, Metric::Cosine);
    if let Ok(ef) = env::var("COREFLOW_EF_CONSTRUCTION") {
        options.ef_construction = ef.parse()?;
    }
    if let Ok(alpha) = env::var("COREFLOW_ALPHA") {
        options.alpha = alpha.parse()?;
    }
    let mut index = Index::new(options)?;
    let (started, cpu_started) = (Instant::now(), cpu_time());
    for vector in base.rows() {
        index.insert(vector)?;
    }
    let (elapsed, cpu) = (started.elapsed(), cpu_time() - cpu_started);
    let stats = index.stats();
    let resident = resident_bytes().saturating_sub(before);
    println!(
        "{count} x {} built in {:.1} s, {:.1} s by the clock ({}), reserved {:.1} MB, resident {:.1} MB, {} bytes a vector",
        base.dimensions,
        cpu.as_secs_f64(),
        elapsed.as_secs_f64(),
        stats.kernels,
        stats.bytes as f64 / 1e6,
        resident as f64 / 1e6,
        stats.bytes / count,
    );

    println!("{:>4} {:>8} {:>10} {:>10} {:>10}", "ef", "recall", "/s", "re-ranked", "/s");
    for ef in WIDTHS {
        let codes = measure(&mut index, &queries, &truth, |index, query| {
            index.search(query, K, ef, |_| true).expect("the query is well")
        });
        let ranked = measure(&mut index, &queries, &truth, |index, query| {
            let mut hits = index.search(query, 2 * K, ef, |_| true).expect("the query is well");
            index.rerank(query, |row| base.row(row), K, &mut hits).expect("all rows are there");
            hits
        });
        println!(
            "{ef:>4} {:>8.4} {:>10.0} {:>10.4} {:>10.0}",
            codes.0, codes.1, ranked.0, ranked.1
        );
    }
    Ok(())
}

/// Recall, and searches in a second of the processor's time.
fn measure(
    index: &mut Index,
    queries: &Table,
    truth: &[Vec<Row>],
    mut search: impl FnMut(&mut Index, &[f32]) -> Vec<Hit>,
) -> (f64, f64) {
    let mut found = 0;
    for (query, truth) in queries.rows().zip(truth) {
        found += search(index, query).iter().filter(|hit| truth[..K].contains(&hit.row)).count();
    }
    let started = cpu_time();
    for _ in 0..ROUNDS {
        for query in queries.rows() {
            black_box(search(index, query));
        }
    }
    let each = (cpu_time() - started).as_secs_f64() / (ROUNDS * truth.len()) as f64;
    (found as f64 / (truth.len() * K) as f64, each.recip())
}

/// How long this thread has run on a processor.
fn cpu_time() -> Duration {
    let times = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = times.split(' ').next().and_then(|time| time.parse().ok());
    Duration::from_nanos(nanoseconds.expect("the kernel counts the time of threads"))
}

fn read(folder: &Path) -> Result<Data, Box<dyn Error>> {
    let (base, _) = read_npy(&find(folder, "base")?)?;
    let (queries, _) = read_npy(&find(folder, "query")?)?;
    let (truth, width) = read_npy(&find(folder, "gt")?)?;
    let truth = truth.values.chunks_exact(width);
    let truth = truth.map(|row| row.iter().map(|&row| row as Row).collect()).collect();
    Ok((base, queries, truth))
}

fn find(folder: &Path, prefix: &str) -> Result<PathBuf, Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(prefix) && name.ends_with(".npy") {
            return Ok(path);
        }
    }
    Err(format!("no {prefix}*.npy in {}", folder.display()).into())
}

/// The values of a little-endian `.npy` of two dimensions, and its width.
fn read_npy(path: &Path) -> Result<(Table, usize), Box<dyn Error>> {
    let bytes = fs::read(path)?;
    let header_end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..header_end])?;
    let shape = header.split('(').nth(1).and_then(|rest| rest.split(')').next());
    let width = shape.and_then(|shape| shape.split(',').nth(1)).ok_or("no shape")?;
    let dimensions: usize = width.trim().parse()?;
    let body = &bytes[header_end..];
    let values = if header.contains("'<f2'") {
        body.as_chunks().0.iter().map(|&half| widen(u16::from_le_bytes(half))).collect()
    } else if header.contains("'<f4'") {
        body.as_chunks().0.iter().map(|&single| f32::from_le_bytes(single)).collect()
    } else if header.contains("'<i4'") {
        body.as_chunks().0.iter().map(|&whole| i32::from_le_bytes(whole) as f32).collect()
    } else {
        return Err(format!("{}: neither <f2, <f4 nor <i4", path.display()).into());
    };
    Ok((Table { dimensions, values }, dimensions))
}

/// A float16 as a float32.
fn widen(half: u16) -> f32 {
    let sign = if half >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(half >> 10 & 31);
    let fraction = f32::from(half & 1023);
    sign * match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
    }
}

/// Vectors around centres, with queries of the same kind and their true neighbours.
fn make() -> Data {
    const DIMENSIONS: usize = 384;
    const CENTRES: usize = 200;
    let mut random = fastrand::Rng::with_seed(7);
    let mut component = || (0..4).map(|_| random.f32() - 0.5).sum::<f32>();
    let centres: Vec<f32> = (0..CENTRES * DIMENSIONS).map(|_| component()).collect();
    let mut table = |count: usize| {
        let near = |row: usize| &centres[row % CENTRES * DIMENSIONS..][..DIMENSIONS];
        let values = (0..count).flat_map(|row| {
            let noise: Vec<f32> = near(row).iter().map(|centre| centre + component()).collect();
            noise
        });
        Table { dimensions: DIMENSIONS, values: values.collect() }
    };
    let (base, queries) = (table(20_000), table(200));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let lengths: Vec<f32> = base.rows().map(|row| dot(row, row).sqrt()).collect();
    let truth = queries.rows().map(|query| {
        let cosines = base.rows().zip(&lengths).map(|(row, length)| dot(query, row) / length);
        let mut ranked: Vec<(Row, f32)> = (0..).zip(cosines).collect();
        ranked.sort_unstable_by(|a, b| b.1.total_cmp(&a.1));
        ranked[..K].iter().map(|&(row, _)| row).collect()
    });
    let truth = truth.collect();
    (base, queries, truth)
}

fn resident_bytes() -> usize {
    const PAGE_BYTES: usize = 4096;
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
    resident.unwrap_or(0_usize) * PAGE_BYTES
}
