//! `coreflow memory import`: what a file holds into the memory.
//!
//! Invariants:
//! - Each record is told to be stored when the node said so, and told as wrong when it is; what is
//!   neither lies at or behind the position that the end names.
//! - It ends: at the end of the file, at the first trouble of the node, after so many wrong records,
//!   when the node is silent or full for as long as its patience lasts, or soon after a signal.

mod keys;
mod wrong;

use self::{keys::Keys, wrong::Wrong};
use super::{
    super::remote::{Remote, Trouble},
    bytes_of, hear_signals,
    pipeline::{PATIENCE, Pipeline},
};
use crate::{
    client::{Params, Refusal, View},
    memory::formats::{Content, FormatError, Place, Record, Records},
    wire::{json, msgpack::write},
};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// How long the answers to what is under way are waited for, when an import ends early.
const ENDING: Duration = Duration::from_secs(5);
/// After how long somebody is told that nothing goes on, and how often again.
const STILL: Duration = Duration::from_secs(2);
const STILL_AGAIN: Duration = Duration::from_secs(10);

/// Store what a file holds: .npy (float16, float32), .fvecs or .jsonl
///
/// A line of a .jsonl file is {"key"?,"vector"|"text","namespace"?,"metadata"?}. An item without a key
/// gets FILE:POSITION, where FILE is the file's name without its folder. What is stored again under
/// its key is replaced, so an import that was interrupted may be begun again, or go on with --from.
/// What is wrong is told and passed over; the exit code is 1 then, and when the import ends early: at a
/// row that cannot be read, without a key for a row, or when the node takes no more.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// The file
    file: PathBuf,
    /// Where items go whose file names no namespace
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// A file with a key a line, one for each row
    #[arg(long, value_name = "FILE")]
    keys_from: Option<PathBuf>,
    /// What keys begin with that the file does not have, in the place of "FILE:": files of one name in
    /// several folders need different ones
    #[arg(long, value_name = "TEXT", conflicts_with = "keys_from")]
    key_prefix: Option<String>,
    /// Begin with this row, counted from 0, or line, counted from 1, which the file must have
    #[arg(long, value_name = "N")]
    from: Option<u64>,
    /// How long the node may be silent or without room, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE.as_secs(),
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    patience: u64,
}

/// Imports; tells whether all was stored.
pub(super) fn import(
    node: &mut Remote,
    args: &ImportArgs,
    json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<bool, Trouble> {
    let mut records = Records::open(&args.file).map_err(usage)?;
    check_dimension(node, &records, &args.file)?;
    let from = args.from.unwrap_or(records.first());
    go_to(&mut records, from, &args.file)?;
    let keys =
        args.keys_from.as_deref().map(|path| Keys::open(path, &records, from)).transpose()?;
    let file = args.file.file_name().unwrap_or_default().to_string_lossy();
    let prefix = args.key_prefix.clone().unwrap_or_else(|| format!("{file}:"));
    let interrupted = hear_signals()?;
    let progress = show_progress(records.count(), from);
    let pipeline = Pipeline::open(node, "memory.put", Duration::from_secs(args.patience))?;
    let unit = records.unit();
    let mut import = Import {
        records,
        keys,
        prefix,
        namespace: args.namespace.clone(),
        pipeline,
        next: from,
        sums: Sums {
            stored: 0,
            replaced: 0,
            wrong: Wrong::new(unit),
            missing: None,
            refused: None,
        },
    };
    let ended = import.run(&interrupted, &progress, err);
    progress.finish_and_clear();
    let next = import.lowest_missing();
    let Sums { stored, replaced, wrong, .. } = import.sums;
    let whole = ended.is_ok();
    if json {
        let wrong = wrong.json_fields();
        let reason = ended.as_ref().err().and_then(Trouble::text).map_or_else(String::new, reason);
        let text = format!(
            r#"{{"stored":{stored},"replaced":{replaced},"next":{next},"complete":{whole}{reason}{wrong}}}"#
        );
        writeln!(out, "{text}")?;
    } else if whole {
        writeln!(out, "stored {stored} items, {replaced} of them in the place of another")?;
    }
    let advice = format!("{stored} items are stored; go on with --from {next}");
    let wrong = wrong.text();
    match (ended, wrong) {
        (Ok(()), None) => Ok(true),
        (Ok(()), Some(wrong)) => Err(Trouble::Failed(wrong)),
        (Err(trouble), wrong) => {
            let more = wrong.map(|wrong| format!("{wrong}\n")).unwrap_or_default();
            Err(match trouble {
                Trouble::Usage(text) => Trouble::Usage(format!("{text}\n{more}{advice}")),
                Trouble::Failed(text) => Trouble::Failed(format!("{text}\n{more}{advice}")),
                output => output,
            })
        }
    }
}

/// Goes on at a position, which the file must have, or its end.
fn go_to(records: &mut Records, from: u64, file: &Path) -> Result<(), Trouble> {
    let (unit, first, file) = (records.unit(), records.first(), file.display());
    if from < first {
        return Err(Trouble::Usage(format!("--from {from}: {unit}s are counted from {first}")));
    }
    if let Some(count) = records.count().filter(|count| from > *count) {
        let text = format!("--from {from}: {file}: has {count} {unit}s, counted from {first}");
        return Err(Trouble::Usage(text));
    }
    records.seek(from).map_err(|error| Trouble::Usage(format!("--from {from}: {error}")))
}

/// Why an import ended early, as a field of JSON after a comma.
fn reason(text: &str) -> String {
    let mut quoted = Vec::new();
    json::string(&mut quoted, text);
    format!(r#","reason":{}"#, String::from_utf8_lossy(&quoted))
}

/// Refuses a file all of whose rows the node would refuse.
fn check_dimension(node: &mut Remote, records: &Records, file: &Path) -> Result<(), Trouble> {
    let Some(columns) = records.dimensions().filter(|columns| *columns > 0) else { return Ok(()) };
    let stats = node.call("memory.stats", &Params::new())?;
    let dimension = stats.get("dimension").and_then(View::uint).unwrap_or(columns as u64);
    match dimension == columns as u64 {
        true => Ok(()),
        false => Err(Trouble::Usage(format!(
            "{}: its rows have {columns} numbers, this memory's vectors have {dimension} \
             (memory.dimension)",
            file.display()
        ))),
    }
}

struct Import {
    records: Records,
    keys: Option<Keys>,
    /// What keys begin with that are made here.
    prefix: String,
    namespace: Option<String>,
    pipeline: Pipeline,
    /// The position behind the last record that was read.
    next: u64,
    sums: Sums,
}

/// What became of the records.
struct Sums {
    stored: u64,
    replaced: u64,
    wrong: Wrong,
    /// The first one that is known not to be stored, though it may be right.
    missing: Option<u64>,
    /// The first one that the node refused for another reason than itself, and that reason.
    refused: Option<(u64, String)>,
}

impl Sums {
    /// Takes note of an answer of the node.
    fn note(&mut self, position: u64, answer: Result<View<'_>, Refusal>) -> Result<(), Trouble> {
        match answer {
            Ok(answer) => {
                self.stored += 1;
                let replaced = answer.get("replaced").and_then(View::bool);
                self.replaced += u64::from(replaced == Some(true));
                Ok(())
            }
            Err(refusal) if matches!(&*refusal.code, "invalid" | "too_large") => {
                self.wrong.note(position, &refusal.message)
            }
            Err(refusal) => {
                self.miss(Some(position));
                let Refusal { code, message, .. } = refusal;
                // Answers come in another order than the records where several cores give them.
                if self.refused.as_ref().is_none_or(|(first, _)| position < *first) {
                    self.refused = Some((position, format!("{message} ({code})")));
                }
                Err(self.refusal())
            }
        }
    }

    /// What ends an import that the node refuses to go on with.
    fn refusal(&self) -> Trouble {
        let unit = self.wrong.unit();
        let (position, why) = self.refused.as_ref().expect("one was refused");
        Trouble::Failed(format!("{unit} {position} is refused: {why}"))
    }

    fn miss(&mut self, position: Option<u64>) {
        self.missing = self.missing.into_iter().chain(position).min();
    }
}

impl Import {
    fn run(
        &mut self,
        interrupted: &AtomicBool,
        progress: &ProgressBar,
        err: &mut dyn Write,
    ) -> Result<(), Trouble> {
        let mut stopped = None;
        let (mut is_read, mut tell_at) = (false, STILL);
        while !is_read || !self.pipeline.is_empty() {
            while !is_read && self.pipeline.has_room() {
                match self.read() {
                    Ok(is_more) => is_read = !is_more,
                    // What was read before is stored all the same.
                    Err(trouble) => (is_read, stopped) = (true, Some(trouble)),
                }
            }
            let before = self.sums.stored;
            let sums = &mut self.sums;
            let turned = self.pipeline.turn(|position, answer| sums.note(position, answer));
            progress.inc(self.sums.stored - before);
            if let Err(trouble) = turned {
                return self.end(stopped.unwrap_or(trouble));
            }
            if interrupted.load(Ordering::Relaxed) {
                return self.end(stopped.unwrap_or(Trouble::Failed("interrupted".into())));
            }
            match self.pipeline.stands_still() {
                Some((still, why)) if still >= tell_at => {
                    tell_at = still + STILL_AGAIN;
                    let text = format!("{why} for {} s; still trying", still.as_secs());
                    // Nobody is left to tell when standard error is closed.
                    let _ = progress.suspend(|| writeln!(err, "{text}"));
                }
                Some((still, _)) if still >= STILL => {}
                _ => tell_at = STILL,
            }
        }
        stopped.map_or(Ok(()), Err)
    }

    /// Takes the answers to what is under way, for a while, and ends with the trouble.
    fn end(&mut self, trouble: Trouble) -> Result<(), Trouble> {
        let until = Instant::now() + ENDING;
        let is_refused = self.sums.refused.is_some();
        let full = self.pipeline.end();
        self.sums.miss(full);
        while !self.pipeline.is_empty() && Instant::now() < until {
            let (sums, before) = (&mut self.sums, self.pipeline.len());
            let turned = self.pipeline.turn(|position, answer| sums.note(position, answer));
            // A refusal is one more of what is under way; else nothing more can be heard.
            if turned.is_err() && self.pipeline.len() == before {
                break;
            }
        }
        // One before the one that ended it may have been refused since.
        Err(if is_refused { self.sums.refusal() } else { trouble })
    }

    /// The first position from which on something may not be stored.
    fn lowest_missing(&self) -> u64 {
        let missing = self.pipeline.lowest().into_iter().chain(self.sums.missing).min();
        missing.unwrap_or(self.next)
    }

    /// Reads the next record and hands it to the node; false at the end.
    fn read(&mut self) -> Result<bool, Trouble> {
        let record = match self.records.read() {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(false),
            Err(FormatError { goes_on: true, place: Place::Line(line), problem, .. }) => {
                self.next = line + 1;
                self.sums.wrong.note(line, &problem)?;
                return Ok(true);
            }
            // The file was right so far, so that it is no wrong usage any more.
            Err(error) => return Err(Trouble::Failed(error.to_string())),
        };
        let key = match &mut self.keys {
            Some(keys) => Some(keys.next(record.position).map_err(Trouble::Failed)?),
            None => None,
        };
        let Record { position, key: own, namespace, content, metadata } = record;
        let key = key.or(own).unwrap_or_else(|| format!("{}{position}", self.prefix));
        let mut params = Params::new()
            .str("key", &key)
            .str_if("namespace", namespace.as_deref().or(self.namespace.as_deref()));
        params = match content {
            Content::Vector(vector) => {
                params.with("vector", |out| write::bin(out, &bytes_of(&vector)))
            }
            Content::Text(text) => params.str("text", &text),
        };
        if !metadata.is_empty() {
            params = params.value("metadata", &metadata);
        }
        let mut bytes = Vec::new();
        params.write(&mut bytes);
        self.pipeline.push(position, bytes);
        self.next = position + 1;
        Ok(true)
    }
}

fn usage(error: FormatError) -> Trouble {
    Trouble::Usage(error.to_string())
}

fn show_progress(count: Option<u64>, from: u64) -> ProgressBar {
    let (progress, template) = match count {
        Some(count) => {
            let bar = ProgressBar::new(count.saturating_sub(from));
            (bar, "{bar:40} {pos}/{len} items, {per_sec}, {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {pos} items, {per_sec}"),
    };
    progress.with_style(ProgressStyle::with_template(template).expect("the template is valid"))
}
