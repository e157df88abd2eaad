//! The distance kernels of the vector index beside what this core can do at most.
//!
//! `cargo bench --bench kernels` measures products of a query of 384 dimensions with batches of rows: rows in
//! the nearest cache, then rows all over a table that no cache holds, fetched ahead as a walk
//! does. The first is held against the same instruction on registers alone, the second against reading the
//! table from end to end. The shares are printed last.

use coreflow::memory::index::kernels::{Kernels, Line, prefetch};
use criterion::{Criterion, Throughput};
use std::{hint::black_box, time::Instant};

const LINES: usize = 384 / Line::BYTES;
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

#[cfg(target_arch = "x86_64")]
mod peak {
    #![allow(unsafe_code)]

    use std::{arch::x86_64::*, hint::black_box};

    /// Chains that do not wait for each other.
    const CHAINS: usize = 16;
    const TURNS: usize = 1_000_000;

    /// Bytes of rows that go through, and the work; nothing where the instruction is missing.
    pub fn registers() -> Option<(usize, fn())> {
        let has_vnni =
            is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni");
        // SAFETY: the features that the function names were detected above.
        has_vnni.then_some((CHAINS * TURNS * 64, || unsafe { multiply() }))
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn multiply() {
        let (row, query) = black_box((_mm512_set1_epi8(3), _mm512_set1_epi8(5)));
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, row, query);
            }
        }
        black_box(sums);
    }
}

fn main() {
    let kernels = Kernels::detect();
    let query = vec![Line([7; 64]); LINES];
    let table: Vec<Line> = (0..TABLE_ROWS * LINES).map(|line| Line([line as u8; 64])).collect();
    let row = |row: usize| &table[row * LINES..][..LINES];
    let mut products = [0; ROWS];
    let batch_bytes = ROWS * LINES * Line::BYTES;

    let near: Vec<&[Line]> = (0..ROWS).map(row).collect();
    let mut random = fastrand::Rng::with_seed(1);
    let far: Vec<usize> = (0..ROWS * BATCHES).map(|_| random.usize(..TABLE_ROWS)).collect();
    let mut near_batch = || (kernels.dot_rows)(black_box(&query), black_box(&near), &mut products);
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
    group.bench_function("20 rows in the nearest cache", |bench| bench.iter(&mut near_batch));
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
    let near = best(bytes, || (0..BATCHES).for_each(|_| near_batch()));
    let far = best(bytes, || (0..BATCHES).for_each(&mut far_batch));
    let whole = best(table.len() * Line::BYTES, || {
        for batch in 0..TABLE_ROWS / ROWS {
            let rows: [&[Line]; ROWS] = std::array::from_fn(|at| row(batch * ROWS + at));
            rows.into_iter().for_each(prefetch);
            (kernels.dot_rows)(black_box(&query), black_box(&rows), &mut in_order);
        }
    });
    println!("{}: near rows {:.1} GB/s", kernels.name, near / 1e9);
    #[cfg(target_arch = "x86_64")]
    if let Some((bytes, work)) = peak::registers() {
        let peak = best(bytes, work);
        let share = near / peak * 100.0;
        println!(
            "  {share:.0} % of the {:.1} GB/s that the instruction does on registers",
            peak / 1e9
        );
    }
    let share = far / whole * 100.0;
    println!(
        "far rows {:.1} GB/s: {share:.0} % of the {:.1} GB/s of reading in order",
        far / 1e9,
        whole / 1e9
    );
}
