//! `pattern_search`, `search_latency` and `hnsw_index`: one partition of pattern memory, without doors,
//! on one pinned core.
//!
//! The files: `data.rs` has what is stored and asked, `curve.rs` speed against recall and its picture,
//! `turns.rs` how long messages wait for a whole partition, `beside.rs` how long they wait on a whole node,
//! which `asker.rs` and `mcp.rs` ask; `watch.rs` is what both look at a thread with.
//! Vectors are given as files or made around centres; the true neighbours come from comparing all.

mod asker;
mod beside;
mod curve;
mod data;
mod mcp;
mod turns;
mod watch;

pub use curve::{Point, table};
pub use data::VectorFiles;

use super::{Effort, Measured};
use crate::{
    config::Config,
    memory::index::{Hit, Index, IndexOptions, Metric},
    metrics::{Latency, process::resident_bytes},
    runtime::executor::pin_thread,
};
use data::Vectors;
use std::{
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Hits that are asked for.
const K: usize = 10;
/// Hits of the codes that are ordered again by float32.
const RERANKED: usize = 2 * K;

/// Vectors of the partition whose turns are measured and requests to it, at full and at quick effort.
const TURNS: ((usize, usize), (usize, usize)) = ((20_000, 20_000), (1000, 300));
/// No message should wait longer for memory.
const TURN_GOAL_US: f64 = 200.0;
const TURN_GOAL_NS: u64 = 200_000;

/// An index with the vectors that it was built from, row by row.
struct Built {
    index: Index,
    vectors: Vectors,
    build: Duration,
    /// How long the steps of insertions took.
    steps: Latency,
    /// Bytes that came into RAM with the index.
    resident: u64,
}

impl Built {
    fn new(vectors: Vectors, config: &Config) -> io::Result<Self> {
        let before = resident_bytes();
        let ef_construction = config.memory.ef_construction;
        let options = IndexOptions::new(vectors.dimensions(), Metric::Cosine);
        let options = IndexOptions { ef_construction, ..options };
        let mut index = Index::new(options).map_err(io::Error::other)?;
        let mut steps = Latency::new();
        let began = Instant::now();
        for vector in vectors.stored() {
            let mut insertion = index.begin_insert(vector).map_err(io::Error::other)?;
            let mut step_began = Instant::now();
            loop {
                let distances = index.step_distances();
                let ended = insertion.step(&mut index, distances);
                let now = Instant::now();
                steps.record((now - step_began).as_nanos() as u64);
                step_began = now;
                if let Some(ended) = ended {
                    ended.map_err(io::Error::other)?;
                    break;
                }
            }
            while index.has_coarse() {
                let Some(row) = index.take_coarse() else { continue };
                let vector = vectors.row(row).expect("each row is one of them");
                index.recode(row, vector).map_err(io::Error::other)?;
            }
            while index.reach_some(usize::MAX) {}
        }
        let build = began.elapsed();
        let resident = resident_bytes().saturating_sub(before);
        Ok(Self { index, vectors, build, steps, resident })
    }

    /// The hits of a query, by codes alone or ordered again by float32.
    fn search(&mut self, query: usize, ef: usize, reranks: bool) -> io::Result<Vec<Hit>> {
        let Self { index, vectors, .. } = self;
        let query = vectors.query(query);
        let wanted = if reranks { RERANKED } else { K };
        let mut hits = index.search(query, wanted, ef, |_| true).map_err(io::Error::other)?;
        if reranks {
            let ordered = index.rerank(query, |row| vectors.row(row), K, &mut hits);
            ordered.map_err(io::Error::other)?;
        }
        Ok(hits)
    }

    /// The part of the true neighbours that is found.
    fn recall(&mut self, ef: usize, reranks: bool) -> io::Result<f64> {
        let queries = self.vectors.queries();
        let mut found = 0;
        for query in 0..queries {
            let hits = self.search(query, ef, reranks)?;
            let truth = self.vectors.truth(query);
            found += hits.iter().filter(|hit| truth.contains(&hit.row)).count();
        }
        Ok(found as f64 / (queries * K) as f64)
    }

    fn described(&self, measured: Measured) -> Measured {
        measured
            .with("vectors", self.vectors.stored().len() as u64)
            .with("dimensions", self.vectors.dimensions() as u64)
            .with("k", K as u64)
            .with_text("kernels", self.index.stats().kernels)
            .with_exact("build_s", self.build.as_secs_f64())
    }
}

/// Runs one of the components on the last of the workers' cores; a partition with files lies in `folder`.
///
/// # Errors
/// A file cannot be read, or the vectors in it are none.
pub(super) fn run(
    component: &'static str,
    config: &Config,
    effort: &Effort,
    files: &VectorFiles,
    folder: &Path,
) -> io::Result<Vec<Measured>> {
    let cpus = super::swarm::topology(config)?.workers;
    let work = || {
        if let Some(&cpu) = cpus.last() {
            pin_thread(cpu);
        }
        let mut built = Built::new(Vectors::new(files, effort)?, config)?;
        match component {
            "pattern_search" => Ok(vec![curve::pattern_search(&mut built, effort)?]),
            "search_latency" => {
                let latency = search_latency(&mut built, config, effort, folder)?;
                Ok(vec![latency, memory_waits(&built, config, effort, folder)?])
            }
            "hnsw_index" => Ok(vec![hnsw_index(&built)]),
            other => unreachable!("{other} is no component of the index"),
        }
    };
    thread::scope(|scope| scope.spawn(work).join().expect("the measurement does not panic"))
}

/// How long a search takes with the tuning's width, ordered again by float32: one after the other. And
/// how long messages of the same core wait while a partition does all that it can be asked.
fn search_latency(
    built: &mut Built,
    config: &Config,
    effort: &Effort,
    folder: &Path,
) -> io::Result<Measured> {
    let ef = config.memory.ef_search;
    let recall = built.recall(ef, true)?;
    let mut latency = Latency::new();
    effort.rounds(|| {
        for query in 0..built.vectors.queries() {
            let began = Instant::now();
            std::hint::black_box(built.search(query, ef, true)?);
            latency.record(began.elapsed().as_nanos() as u64);
        }
        Ok(())
    })?;
    let (rows, requests) = effort.choose(TURNS);
    let rows = built.vectors.stored().take(rows).collect();
    let turns = turns::measure(rows, folder, requests)?;
    let (longest, after) = turns.longest;
    let us = |quantile| turns.times.quantile_ms(quantile) * 1e3;
    let measured = Measured::latency("search_latency", latency)
        .at_most("p99_ms", 10.0, 1.0)
        .with("memory_turns", turns.times.count())
        .with("memory_turns_interrupted", turns.interrupted)
        .with("memory_requests", turns.answered)
        .with_exact("memory_turn_p50_us", us(0.5))
        .with_exact("memory_turn_p999_us", us(0.999))
        .with_exact("memory_turn_longest_us", longest.as_secs_f64() * 1e6)
        .with_text("memory_turn_longest_after", after)
        .with_exact("memory_turn_goal_us", TURN_GOAL_US)
        .with_truth("memory_turn_goal_met", us(0.999) <= TURN_GOAL_US);
    Ok(built.described(measured).with("ef", ef as u64).with_exact("recall", recall))
}

/// How long messages of a core wait while its node is asked for everything of pattern memory, one kind
/// after the other.
fn memory_waits(
    built: &Built,
    config: &Config,
    effort: &Effort,
    folder: &Path,
) -> io::Result<Measured> {
    let (rows, _) = effort.choose(TURNS);
    let rows: Vec<&[f32]> = built.vectors.stored().take(rows).collect();
    let waits = beside::measure(&rows, config, effort, folder)?;
    let (mut all, mut interrupted, mut longest) = (Latency::new(), 0, (Duration::ZERO, ""));
    let (mut worst, mut took): (f64, _) = (0.0, Duration::ZERO);
    let mut worst_of_tasks: f64 = 0.0;
    let mut table = String::new();
    for waits in &waits {
        let us = |quantile| waits.times.quantile_ms(quantile) * 1e3;
        let (beyond, most) = (waits.times.count_above(TURN_GOAL_NS), waits.longest.as_micros());
        table += &format!(
            "{}: {} answered, p50 {:.0}, p99.9 {:.0}, longest {most} us, {beyond} of {} beyond; ",
            waits.name,
            waits.answered,
            us(0.5),
            us(0.999),
            waits.times.count(),
        );
        if waits.name == beside::CONTROL {
            continue;
        }
        if beside::TASKS.contains(&waits.name) {
            worst_of_tasks = worst_of_tasks.max(waits.times.quantile_ms(0.999));
            continue;
        }
        all.merge(&waits.times);
        took += waits.took;
        worst = worst.max(waits.times.quantile_ms(0.999));
        interrupted += waits.interrupted;
        if waits.longest > longest.0 {
            longest = (waits.longest, waits.name);
        }
    }
    let control = &waits[0];
    let beyond_per_s = |times: &Latency, took: Duration| {
        times.count_above(TURN_GOAL_NS) as f64 / took.as_secs_f64()
    };
    let of_kinds = beyond_per_s(&all, took);
    let measured = Measured::latency("memory_waits", all)
        .with_exact("beyond_per_s", of_kinds)
        .with_exact("control_beyond_per_s", beyond_per_s(&control.times, control.took))
        .with_exact("control_longest_us", control.longest.as_secs_f64() * 1e6)
        .with_exact("worst_p999_ms", worst)
        .goal_at_most("worst_p999_ms", TURN_GOAL_US / 1e3)
        .with_exact("worst_p999_of_tasks_ms", worst_of_tasks)
        .with("interrupted", interrupted)
        .with_exact("longest_us", longest.0.as_secs_f64() * 1e6)
        .with_text("longest_while_asked_for", longest.1)
        .with_text("kinds", table.trim_end_matches("; "));
    Ok(built.described(measured))
}

/// What the index takes beside the float32 vectors, and how long it takes to build.
fn hnsw_index(built: &Built) -> Measured {
    let vectors = built.vectors.stored().len() as f64;
    let stats = built.index.stats();
    let us = |quantile| built.steps.quantile_ms(quantile) * 1e3;
    let measured = Measured::counts("hnsw_index")
        .with_exact("bytes_per_vector", (stats.bytes as f64 / vectors).round())
        .with_exact("memory_mb", built.resident as f64 / 1e6)
        .with_exact("inserted_per_s", (vectors / built.build.as_secs_f64()).round())
        .with_exact("step_p99_us", us(0.99))
        .with_exact("step_max_us", us(1.0));
    built.described(measured).at_most("bytes_per_vector", 1000.0, 600.0)
}
