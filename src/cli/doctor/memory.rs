//! `coreflow doctor --memory`: reads a folder of pattern memory that no node uses and tells what is in
//! it; with `--repair` it drops what is damaged.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::common::printed;
use crate::memory::store::{Finding, repair, survey};

/// Verifies the memory in `folder`; the report goes to `out`. The exit code is 1 when it is damaged or
/// cannot be read.
pub fn run(folder: &Path, json: bool, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    match Report::new(folder) {
        Ok(report) => {
            let is_well = report.damage.is_empty();
            let code = if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            printed(if json { report.json(out) } else { report.text(out) }, code)
        }
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(err, "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Drops what is damaged in `folder`; what that was goes to `out`. The exit code is 1 when it cannot be
/// done.
pub fn mend(
    folder: &Path,
    ef_construction: usize,
    json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> ExitCode {
    let repaired = match repair(folder, ef_construction) {
        Ok(repaired) => repaired,
        Err(error) => {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(err, "{error}");
            return ExitCode::FAILURE;
        }
    };
    let report = Mended {
        folder: folder.display().to_string(),
        dropped: repaired.found.iter().map(sentence).collect(),
        items: repaired.items,
        copied: repaired.copied,
    };
    printed(if json { report.json(out) } else { report.text(out) }, ExitCode::SUCCESS)
}

/// Damage, and whether anything is lost by it.
fn sentence(found: &Finding) -> String {
    match found.is_harmless {
        true => format!("{} (nothing is lost by it)", found.damage),
        false => found.damage.to_string(),
    }
}

/// What a repair did.
#[derive(Serialize)]
struct Mended {
    folder: String,
    dropped: Vec<String>,
    items: u64,
    copied: usize,
}

impl Mended {
    fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", simd_json::to_string(self).map_err(io::Error::other)?)
    }

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { folder, dropped, items, copied } = self;
        if dropped.is_empty() {
            return writeln!(out, "{folder}: nothing is damaged");
        }
        dropped.iter().try_for_each(|damage| writeln!(out, "dropped: {damage}"))?;
        writeln!(out, "{folder}: {copied} partitions were copied, {items} items are there")
    }
}

/// What is known of a memory.
#[derive(Serialize)]
struct Report {
    folder: String,
    status: &'static str,
    dimension: u32,
    metric: &'static str,
    partitions: Vec<Partition>,
    damage: Vec<String>,
}

#[derive(Serialize)]
struct Partition {
    files: usize,
    bytes: u64,
    records: u64,
    torn: bool,
    checkpoint: bool,
}

impl Report {
    fn new(folder: &Path) -> Result<Self, crate::memory::store::OpenError> {
        let survey = survey(folder)?;
        let damage: Vec<String> = survey
            .partitions
            .iter()
            .flat_map(|partition| partition.found.iter().map(sentence))
            .collect();
        let partitions = survey.partitions.iter().map(|partition| Partition {
            files: partition.files,
            bytes: partition.bytes,
            records: partition.records,
            torn: partition.is_torn,
            checkpoint: partition.has_checkpoint,
        });
        Ok(Self {
            folder: folder.display().to_string(),
            status: if damage.is_empty() { "ok" } else { "damaged" },
            dimension: survey.head.dimension,
            metric: survey.head.metric.name(),
            partitions: partitions.collect(),
            damage,
        })
    }

    fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", simd_json::to_string(self).map_err(io::Error::other)?)
    }

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { folder, dimension, metric, .. } = self;
        writeln!(out, "{folder}: vectors of {dimension} numbers, metric {metric}")?;
        for (number, partition) in self.partitions.iter().enumerate() {
            let Partition { files, bytes, records, torn, checkpoint } = partition;
            let checkpoint = if *checkpoint { "a checkpoint" } else { "no checkpoint" };
            let torn = if *torn { ", the end was cut off" } else { "" };
            writeln!(
                out,
                "partition {number}: {records} records in {files} files, {} MiB, {checkpoint}{torn}",
                bytes >> 20
            )?;
        }
        self.damage.iter().try_for_each(|damage| writeln!(out, "damaged: {damage}"))?;
        if !self.damage.is_empty() {
            writeln!(out, "coreflow doctor --memory --repair drops what is damaged")?;
        }
        writeln!(out, "{}", self.status)
    }
}
