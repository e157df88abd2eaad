//! `coreflow doctor --memory`: reads a folder of pattern memory that no node uses and tells what is in
//! it; with `--repair` it drops what is damaged.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use crate::cli::common::{EXIT_NOT_LOOKED, printed};
use crate::memory::store::{Finding, Harm, Lost, OpenError, RecoverError, repair, survey};

/// Verifies the memory in `folder`; the report goes to `out`. The exit code is 1 when it is damaged, and
/// another when it cannot be looked at.
pub fn run(folder: &Path, json: bool, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    match Report::new(folder) {
        Ok(report) => {
            let is_well = report.damage.is_empty();
            let code = if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE };
            printed(if json { report.json(out) } else { report.text(out) }, code)
        }
        Err(error) => refused(&error, err),
    }
}

/// The exit code where a folder cannot be used: damage is one thing, not to be able to look is another.
fn refused(error: &OpenError, err: &mut dyn Write) -> ExitCode {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(err, "{error}");
    match error {
        OpenError::Head { .. }
        | OpenError::Headless { .. }
        | OpenError::List { .. }
        | OpenError::Files(RecoverError::Missing(..)) => ExitCode::FAILURE,
        _ => ExitCode::from(EXIT_NOT_LOOKED),
    }
}

/// Drops what is damaged in `folder`; what that was goes to `out`. The exit code is 1 when the damage is
/// such that it cannot be done.
pub fn mend(
    folder: &Path,
    ef_construction: usize,
    json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> ExitCode {
    let repaired = match repair(folder, ef_construction) {
        Ok(repaired) => repaired,
        Err(error) => return refused(&error, err),
    };
    let report = Mended {
        folder: folder.display().to_string(),
        dropped: sentences(&repaired.found),
        items: repaired.items,
        copied: repaired.copied,
        lost: repaired.lost().into(),
    };
    printed(if json { report.json(out) } else { report.text(out) }, ExitCode::SUCCESS)
}

/// A sentence for each damage, and whether anything is lost by it; items of one file that cannot be named
/// share one.
fn sentences(found: &[Finding]) -> Vec<String> {
    let is_nameless =
        |it: &Finding| it.damage.harm == Harm::Record && it.damage.key.is_none() && !it.is_harmless;
    let mut nameless: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for it in found.iter().filter(|it| is_nameless(it)) {
        let (first, count) = nameless.entry(&it.damage.file).or_insert((it.damage.offset, 0));
        (*first, *count) = (it.damage.offset.min(*first), *count + 1);
    }
    let mut all = Vec::new();
    for it in found {
        let (file, offset) = (&*it.damage.file, it.damage.offset);
        let shared = nameless.get(file).filter(|(_, count)| is_nameless(it) && *count > 1);
        match shared {
            Some((first, count)) if offset == *first => all.push(format!(
                "{file}, byte {offset}: from there on the records of {count} items cannot be read, \
                 which cannot be named"
            )),
            Some(_) => {}
            None if it.is_harmless => all.push(format!("{} (nothing is lost by it)", it.damage)),
            None => all.push(it.damage.to_string()),
        }
    }
    all
}

/// What is lost, as programs read it.
#[derive(Serialize)]
struct Losses {
    /// Items that are lost.
    lost_count: u64,
    /// Records that are gone and cannot be named: up to so many more items.
    lost_unnamed_count: u64,
    /// Whether more may be lost than that.
    lost_more: bool,
    #[serde(skip)]
    text: String,
}

impl From<Lost> for Losses {
    fn from(lost: Lost) -> Self {
        let Lost { items, unnamed, is_least } = lost;
        let text = lost.to_string();
        Self { lost_count: items, lost_unnamed_count: unnamed, lost_more: is_least, text }
    }
}

/// What a repair did.
#[derive(Serialize)]
struct Mended {
    folder: String,
    dropped: Vec<String>,
    items: u64,
    copied: usize,
    #[serde(flatten)]
    lost: Losses,
}

impl Mended {
    fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", simd_json::to_string(self).map_err(io::Error::other)?)
    }

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { folder, dropped, items, copied, lost } = self;
        if dropped.is_empty() {
            return writeln!(out, "{folder}: nothing is damaged");
        }
        dropped.iter().try_for_each(|damage| writeln!(out, "dropped: {damage}"))?;
        writeln!(out, "{}", lost.text)?;
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
    #[serde(flatten)]
    lost: Losses,
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
    fn new(folder: &Path) -> Result<Self, OpenError> {
        let survey = survey(folder)?;
        let found = survey.partitions.iter().map(|partition| sentences(&partition.found));
        let damage: Vec<String> = found.flatten().collect();
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
            lost: survey.lost().into(),
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
            writeln!(out, "{}", self.lost.text)?;
            writeln!(out, "coreflow doctor --memory --repair drops what is damaged")?;
        }
        writeln!(out, "{}", self.status)
    }
}
