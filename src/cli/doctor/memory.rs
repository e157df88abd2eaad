//! `coreflow doctor --memory`: reads a folder of pattern memory that no node uses and tells what is in
//! it.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::common::printed;
use crate::memory::store::survey;

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
            .flat_map(|partition| partition.damages.iter().map(ToString::to_string))
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
        writeln!(out, "{}", self.status)
    }
}
