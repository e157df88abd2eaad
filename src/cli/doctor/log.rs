//! `coreflow doctor --log`: reads a log that no node uses and tells what is in it.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::cli::common::{EXIT_NOT_LOOKED, printed};
use crate::consensus::format::segment_name;
use crate::consensus::open::{OpenError, inspect};
use crate::consensus::record::KIND_NAMES;
use crate::consensus::recovery::Replayed;
use crate::consensus::survey::{SegmentSurvey, Survey};
use crate::consensus::tally::Tally;

/// Verifies the log in `folder`; the report goes to `out`. The exit code is 1 when it is damaged, and
/// another when it cannot be looked at.
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
            match error {
                OpenError::Locked { .. } | OpenError::Io { .. } => ExitCode::from(EXIT_NOT_LOOKED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// What is known of a log.
#[derive(Serialize)]
struct Report {
    folder: String,
    status: &'static str,
    /// How often it was opened.
    epoch: u64,
    first_generation: u64,
    last_generation: u64,
    segments: Vec<Segment>,
    groups: u64,
    records: ByKind,
    live_tasks: usize,
    dead_letters: usize,
    torn: Option<Place>,
    damage: Vec<Damage>,
}

#[derive(Serialize)]
struct Segment {
    file: String,
    state: &'static str,
    generation: u64,
    groups: u64,
    records: u64,
    bytes: u64,
    end: u64,
}

impl From<&SegmentSurvey> for Segment {
    fn from(found: &SegmentSurvey) -> Self {
        Self {
            file: segment_name(found.number),
            state: found.state.word(),
            generation: found.generation,
            groups: found.groups,
            records: found.records,
            bytes: found.bytes,
            end: found.end,
        }
    }
}

#[derive(Serialize)]
struct Place {
    file: String,
    offset: u64,
}

#[derive(Serialize)]
struct Damage {
    file: String,
    offset: u64,
    problem: String,
}

/// Counts in the order of [`KIND_NAMES`].
struct ByKind([u64; KIND_NAMES.len()]);

impl Serialize for ByKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(KIND_NAMES.len()))?;
        for (name, count) in KIND_NAMES.iter().zip(self.0) {
            map.serialize_entry(name, &count)?;
        }
        map.end()
    }
}

impl Report {
    fn new(folder: &Path) -> Result<Self, OpenError> {
        let mut tally = Tally::default();
        let survey = inspect(folder, &mut |recovered| match recovered {
            Replayed::Record(_, _, record, _) => tally.add(&record),
            Replayed::Anew(partition) => tally.forget(partition),
        })?;
        let Survey { segments, findings, torn, end } = survey;
        let damage = findings.iter().map(|finding| Damage {
            file: finding.file.clone(),
            offset: finding.offset,
            problem: finding.damage.to_string(),
        });
        Ok(Self {
            folder: folder.display().to_string(),
            status: if findings.is_empty() { "ok" } else { "damaged" },
            epoch: end.map_or(0, |end| end.epoch),
            first_generation: end.map_or(0, |end| end.first_generation),
            last_generation: end.map_or(0, |end| end.generation),
            groups: segments.iter().map(|segment| segment.groups).sum(),
            segments: segments.iter().map(Segment::from).collect(),
            records: ByKind(tally.records),
            live_tasks: tally.live_tasks(),
            dead_letters: tally.dead_letters(),
            torn: torn.map(|torn| Place { file: segment_name(torn.segment), offset: torn.offset }),
            damage: damage.collect(),
        })
    }

    fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", simd_json::to_string(self).map_err(io::Error::other)?)
    }

    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let file = "file";
        writeln!(
            out,
            "{file:<20} {:<10} {:>10} {:>9} {:>10} {:>14}",
            "state", "generation", "groups", "records", "bytes used"
        )?;
        for segment in &self.segments {
            let Segment { file, state, generation, groups, records, bytes, end } = segment;
            let used = if *groups > 0 { *end } else { 0 };
            let used = format!("{used}/{bytes}");
            writeln!(
                out,
                "{file:<20} {state:<10} {generation:>10} {groups:>9} {records:>10} {used:>14}"
            )?;
        }
        for (name, count) in KIND_NAMES.iter().zip(self.records.0) {
            writeln!(out, "{name:<20} {count}")?;
        }
        writeln!(out, "{:<20} {}", "live tasks", self.live_tasks)?;
        writeln!(out, "{:<20} {}", "dead letters", self.dead_letters)?;
        if let Some(Place { file, offset }) = &self.torn {
            writeln!(
                out,
                "cut off: {file} at byte {offset}: the write that was under way when the node \
                 died; nobody was told that it succeeded, and the next start drops it"
            )?;
        }
        for Damage { file, offset, problem } in &self.damage {
            writeln!(out, "DAMAGE: {file} at byte {offset}: {problem}")?;
        }
        let Self { folder, status, first_generation, last_generation, groups, epoch, .. } = self;
        writeln!(
            out,
            "{folder}: {status}; generations {first_generation} to {last_generation}, {groups} \
             groups, opened {epoch} times"
        )
    }
}
