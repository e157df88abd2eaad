//! The distance kernels of the vector index beside what this core can do at most.
//!
//! `cargo bench --bench kernels` measures, for each set of instructions that the processor has, products of a
//! query of 384 dimensions with batches of rows in the nearest cache, and float32 products and distances as
//! re-ranking computes them; with the widest set also rows all over a table that no cache holds, fetched ahead as a walk
//! does. What lies in the cache is held against the same instructions on registers alone, the rest against reading the
//! table from end to end. The shares are printed last.

use coreflow::memory::index::kernels::{Kernels, Line, prefetch};
use criterion::{Criterion, Throughput};
use std::{hint::black_box, time::Instant};

const DIMENSIONS: usize = 384;
const LINES: usize = DIMENSIONS / Line::BYTES;
/// Rows of a batch: about what a step of a walk has not seen yet.
const ROWS: usize = 20;
/// Rows of a table of 768 MB.
const TABLE_ROWS: usize = 2_000_000;
/// Batches between two looks at the clock; their rows are far more than a cache holds.
const BATCHES: usize = 20_000;
const TRIES: usize = 9;

/// Bytes in a second: the best of some tries.
fn best(bytes: usize, mut work: impl FnMut()) -> f64 {
    let tries = (0..TRIES).map(|_| {
        let began = Instant::now();
        work();
        bytes as f64 / began.elapsed().as_secs_f64()
    });
    tries.fold(0.0, f64::max)
}

/// What the instructions of a kernel do on registers alone: no kernel is faster.
struct Peak {
    /// Bytes of rows that go through.
    bytes: usize,
    work: fn(),
}

/// The peaks of codes and of float32 by the name of the kernels.
fn peaks(kernels: &str) -> Option<(Option<Peak>, Peak)> {
    #[cfg(target_arch = "x86_64")]
    return x86::peaks(kernels);
    #[cfg(not(target_arch = "x86_64"))]
    None
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #![allow(unsafe_code)]

    use super::Peak;
    use std::{arch::x86_64::*, hint::black_box};

    /// Chains that do not wait for each other.
    const CHAINS: usize = 12;
    const TURNS: usize = 1_000_000;

    pub fn peaks(kernels: &str) -> Option<(Option<Peak>, Peak)> {
        let peak = |bytes: usize, work| Peak { bytes: CHAINS * TURNS * bytes, work };
        // SAFETY (all three): kernels of that name are there, so the processor has what the functions name.
        match kernels {
            "AVX-512 VNNI" => {
                let codes = peak(64, || unsafe { codes_512() });
                Some((Some(codes), peak(32, || unsafe { floats_256() })))
            }
            // No loop on registers was found yet that is as fast as the kernel of codes.
            "AVX2" => Some((None, peak(32, || unsafe { floats_256() }))),
            _ => None,
        }
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn codes_512() {
        let (row, query) = black_box((_mm512_set1_epi8(3), _mm512_set1_epi8(5)));
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, row, query);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    fn floats_256() {
        let (row, query) = black_box((_mm256_set1_ps(0.5), _mm256_set1_ps(0.25)));
        let mut sums = [_mm256_setzero_ps(); CHAINS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(row, query, *sum);
            }
        }
        black_box(sums);
    }
}

fn near_batch(kernels: &Kernels, query: &[Line], rows: &[&[Line]]) {
    let mut products = [0; ROWS];
    (kernels.dot_rows)(black_box(query), black_box(rows), &mut products);
    black_box(products);
}

/// The first vector beside all.
fn float_batch(kernels: &Kernels, vectors: &[[f32; DIMENSIONS]]) {
    for vector in black_box(vectors) {
        black_box((kernels.squared_distance)(&vectors[0], vector));
    }
}

fn main() {
    let kernels = Kernels::detect();
    let floats: Vec<[f32; DIMENSIONS]> =
        (0..ROWS).map(|row| std::array::from_fn(|at| (row * at) as f32)).collect();
    let query = vec![Line([7; 64]); LINES];
    let table: Vec<Line> = (0..TABLE_ROWS * LINES).map(|line| Line([line as u8; 64])).collect();
    let row = |row: usize| &table[row * LINES..][..LINES];
    let batch_bytes = ROWS * LINES * Line::BYTES;

    let near: Vec<&[Line]> = (0..ROWS).map(row).collect();
    let mut random = fastrand::Rng::with_seed(1);
    let far: Vec<usize> = (0..ROWS * BATCHES).map(|_| random.usize(..TABLE_ROWS)).collect();
    let mut products = [0; ROWS];
    let mut far_batch = |batch: usize| {
        let mut rows: [&[Line]; ROWS] = [&[]; ROWS];
        for (place, &at) in rows.iter_mut().zip(&far[batch * ROWS..]) {
            *place = row(at);
            prefetch(place);
        }
        (kernels.dot_rows)(black_box(&query), black_box(&rows), &mut products);
    };

    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("kernels");
    group.throughput(Throughput::Bytes(batch_bytes as u64));
    let all = Kernels::available();
    for kernels in &all {
        let name = format!("{}: 20 rows in the nearest cache", kernels.name);
        group.bench_function(name, |bench| bench.iter(|| near_batch(kernels, &query, &near)));
        let name = format!("{}: 20 float32 distances in the nearest cache", kernels.name);
        group.bench_function(name, |bench| bench.iter(|| float_batch(kernels, &floats)));
    }
    let mut batch = 0;
    group.bench_function("20 rows anywhere in 768 MB", |bench| {
        bench.iter(|| {
            batch = (batch + 1) % BATCHES;
            far_batch(batch);
        });
    });
    group.finish();
    criterion.final_summary();

    let mut in_order = [0; ROWS];
    let bytes = BATCHES * batch_bytes;
    let far = best(bytes, || (0..BATCHES).for_each(&mut far_batch));
    let whole = best(table.len() * Line::BYTES, || {
        for batch in 0..TABLE_ROWS / ROWS {
            let rows: [&[Line]; ROWS] = std::array::from_fn(|at| row(batch * ROWS + at));
            rows.into_iter().for_each(prefetch);
            (kernels.dot_rows)(black_box(&query), black_box(&rows), &mut in_order);
        }
    });
    for kernels in &all {
        let codes = best(bytes, || (0..BATCHES).for_each(|_| near_batch(kernels, &query, &near)));
        let float_bytes = BATCHES * size_of_val(&floats[..]);
        let float32 =
            best(float_bytes, || (0..BATCHES).for_each(|_| float_batch(kernels, &floats)));
        let peaks = peaks(kernels.name);
        let (codes_peak, float32_peak) = peaks
            .map(|(codes, float32)| {
                let codes = codes.map(|codes| best(codes.bytes, codes.work));
                (codes, best(float32.bytes, float32.work))
            })
            .unzip();
        let codes_peak = codes_peak.flatten();
        for (what, reached, peak) in
            [("codes", codes, codes_peak), ("float32 distances", float32, float32_peak)]
        {
            print!("{}, {what} in the nearest cache: {:.1} GB/s", kernels.name, reached / 1e9);
            match peak {
                Some(peak) => println!(
                    ", {:.0} % of the {:.1} GB/s that the instructions do on registers",
                    reached / peak * 100.0,
                    peak / 1e9
                ),
                None => println!(),
            }
        }
    }
    let share = far / whole * 100.0;
    println!(
        "far rows {:.1} GB/s: {share:.0} % of the {:.1} GB/s of reading in order",
        far / 1e9,
        whole / 1e9
    );
}
