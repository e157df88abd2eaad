//! `coreflow memory import`: a file into the memory, many items under way at a time.
//!
//! Items without a key of their own get the file's name and their position, so that an import which is
//! begun again replaces what the first one stored.

use super::{
    super::remote::{Remote, Trouble},
    bytes_of,
    pipeline::{Pipeline, Stop},
};
use crate::{
    client::{Params, View},
    memory::formats::{Content, FormatError, Record, Records},
    wire::msgpack::write,
};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// The longest line of a file of keys, bytes; what is longer is no key.
const KEY_LINE_BYTES_MAX: u64 = 4096;

/// Store what a file holds: .npy (float16, float32), .fvecs or .jsonl
///
/// A line of a .jsonl file is {"key"?,"vector"|"text","namespace"?,"metadata"?}. An item without a key
/// gets FILE:POSITION. What is stored again under its key is replaced, so an import that was
/// interrupted may be begun again, or go on with --from.
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
    /// Begin with this row, from 0, or line, from 1
    #[arg(long, value_name = "N")]
    from: Option<u64>,
}

/// Imports; tells whether all was stored.
pub(super) fn import(
    node: &mut Remote,
    args: &ImportArgs,
    json: bool,
    out: &mut dyn Write,
) -> Result<bool, Trouble> {
    let mut records = Records::open(&args.file).map_err(usage)?;
    let from = args.from.unwrap_or(records.first());
    records.seek(from).map_err(usage)?;
    let keys =
        args.keys_from.as_deref().map(|path| Keys::open(path, &records, from)).transpose()?;
    let stem = args.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends the program as it would without this.
        let second = signal_hook::flag::register_conditional_default(signal, interrupted.clone());
        let first = second.and_then(|_| signal_hook::flag::register(signal, interrupted.clone()));
        first.map_err(|error| Trouble::Failed(format!("signals: {error}")))?;
    }
    let progress = show_progress(records.count(), from);
    let pipeline = Pipeline::open(node, "memory.put")?;
    let namespace = args.namespace.clone();
    let mut import =
        Import { records, keys, stem, namespace, pipeline, next: from, stored: 0, replaced: 0 };
    let ended = import.run(&interrupted, &progress);
    progress.finish_and_clear();
    let (stored, replaced) = (import.stored, import.replaced);
    let next = import.pipeline.lowest().unwrap_or(import.next);
    let whole = ended.is_ok();
    if json {
        let text = format!(
            r#"{{"stored":{stored},"replaced":{replaced},"next":{next},"complete":{whole}}}"#
        );
        writeln!(out, "{text}")?;
    } else if whole {
        writeln!(out, "stored {stored} items, {replaced} of them in the place of another")?;
    }
    let Err(trouble) = ended else { return Ok(true) };
    let advice = format!("{stored} items are stored; go on with --from {next}");
    Err(match trouble {
        Trouble::Usage(text) => Trouble::Usage(format!("{text}\n{advice}")),
        Trouble::Failed(text) => Trouble::Failed(format!("{text}\n{advice}")),
        output => output,
    })
}

struct Import {
    records: Records,
    keys: Option<Keys>,
    /// What keys begin with that are made here.
    stem: String,
    namespace: Option<String>,
    pipeline: Pipeline,
    /// The position behind the last record that was read.
    next: u64,
    stored: u64,
    replaced: u64,
}

impl Import {
    fn run(&mut self, interrupted: &AtomicBool, progress: &ProgressBar) -> Result<(), Trouble> {
        let mut ended = false;
        let mut wrong = None;
        while !ended || !self.pipeline.is_empty() {
            while !ended && self.pipeline.has_room() {
                match self.read() {
                    Ok(Some((position, params))) => {
                        self.pipeline.push(position, params);
                        self.next = position + 1;
                    }
                    Ok(None) => ended = true,
                    // What was read before is stored all the same.
                    Err(trouble) => (ended, wrong) = (true, Some(trouble)),
                }
            }
            let (stored, replaced) = (&mut self.stored, &mut self.replaced);
            let turned = self.pipeline.turn(|_, answer| {
                *stored += 1;
                *replaced += u64::from(answer.get("replaced").and_then(View::bool) == Some(true));
                progress.inc(1);
                Ok(())
            });
            match turned {
                Ok(()) => {}
                Err(Stop::Refused(position, refusal)) => {
                    let unit = self.records.unit();
                    let text = format!("{unit} {position} is refused: {}", refusal.message);
                    return Err(match &*refusal.code {
                        "invalid" | "too_large" => Trouble::Usage(text),
                        code => Trouble::Failed(format!("{text} ({code})")),
                    });
                }
                Err(Stop::Trouble(trouble)) => return Err(trouble),
            }
            if interrupted.load(Ordering::Relaxed) {
                return Err(Trouble::Failed("interrupted".into()));
            }
        }
        wrong.map_or(Ok(()), Err)
    }

    /// The next record: its position and the parameters that store it.
    fn read(&mut self) -> Result<Option<(u64, Vec<u8>)>, Trouble> {
        let Some(record) = self.records.read().map_err(usage)? else { return Ok(None) };
        let key = match &mut self.keys {
            Some(keys) => Some(keys.next(record.position)?),
            None => None,
        };
        let Record { position, key: own, namespace, content, metadata } = record;
        let key = key.or(own).unwrap_or_else(|| format!("{}:{position}", self.stem));
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
        Ok(Some((position, bytes)))
    }
}

/// The lines of a file of keys.
struct Keys {
    file: String,
    lines: BufReader<File>,
}

impl Keys {
    /// Opens a file of keys for rows, the first `from` of which are passed over.
    fn open(path: &Path, records: &Records, from: u64) -> Result<Self, Trouble> {
        if matches!(records, Records::Jsonl(_)) {
            let text = "--keys-from: a line of a .jsonl file has its key itself";
            return Err(Trouble::Usage(text.into()));
        }
        let file = path.display().to_string();
        let opened = File::open(path);
        let opened = opened.map_err(|error| Trouble::Usage(format!("{file}: {error}")))?;
        let mut keys = Self { file, lines: BufReader::new(opened) };
        for row in 0..from {
            keys.next(row)?;
        }
        Ok(keys)
    }

    fn next(&mut self, row: u64) -> Result<String, Trouble> {
        let wrong = |what: String| Trouble::Usage(format!("{}: {what}", self.file));
        let mut line = String::new();
        let read = self.lines.by_ref().take(KEY_LINE_BYTES_MAX).read_line(&mut line);
        if read.map_err(|error| wrong(error.to_string()))? == 0 {
            return Err(wrong(format!("it has {row} keys, and row {row} needs one")));
        }
        let key = line.trim_end_matches(['\n', '\r']);
        match key.is_empty() {
            true => Err(wrong(format!("the key of row {row} is empty"))),
            false => Ok(key.to_owned()),
        }
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
