//! `coreflow memory export`: the memory into a file that an import reads.

use super::{
    super::remote::{Remote, Trouble},
    hear_signals, named, numbers,
    pipeline::{PATIENCE, Pipeline, WINDOW},
};
use crate::{
    client::{Params, View},
    memory::{
        formats::{Content, NpyWriter, Record, write_line},
        store::Lost,
    },
};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

/// Write all items, or those of a namespace, to a .jsonl or .npy file
///
/// A .jsonl file has an item a line, with its text where it was stored as one, else with its vector. A
/// .npy file has the vectors, in float32, and beside it FILE.keys has the key of each row; it needs
/// --namespace. What is stored or deleted meanwhile is part of the file or not. When items of the memory
/// are lost because the disk changed them, the others are written, and the exit code is 1.
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// The file; what it held is replaced when all is written
    file: PathBuf,
    /// Only items of this namespace
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
}

/// Exports; tells whether all was written.
pub(super) fn export(
    node: &mut Remote,
    args: &ExportArgs,
    json: bool,
    out: &mut dyn Write,
) -> Result<bool, Trouble> {
    let interrupted = hear_signals()?;
    let stats = node.call("memory.stats", &Params::new())?;
    let figure = |name| stats.get(name).and_then(View::uint).unwrap_or(0);
    let (count, dimension) = (figure("count"), figure("dimension") as usize);
    let parts = Parts::of(&args.file);
    let mut file = Target::open(&parts, args.namespace.as_deref(), dimension)?;
    let progress = match &args.namespace {
        None => ProgressBar::new(count),
        Some(_) => ProgressBar::new_spinner(),
    };
    let style = ProgressStyle::with_template("{spinner} {pos} items, {per_sec}");
    let progress = progress.with_style(style.expect("the template is valid"));
    let mut pipeline = Pipeline::open(node, "memory.get", PATIENCE)?;
    let (mut cursor, mut number, mut gone) = (None, 0, 0_u64);
    loop {
        let params = Params::new()
            .str_if("namespace", args.namespace.as_deref())
            .uint_if("limit", Some(WINDOW as u64))
            .str_if("cursor", cursor.as_deref());
        let page = node.call("memory.list", &params)?;
        let mut waiting: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for item in page.get("items").map(View::items).into_iter().flatten() {
            let text = |name| item.get(name).and_then(View::str).unwrap_or_default();
            let mut params = Vec::new();
            named(text("namespace"), text("key")).write(&mut params);
            waiting.insert(number, params);
            number += 1;
        }
        cursor = page.get("cursor").and_then(View::str).map(str::to_owned);
        while !waiting.is_empty() || !pipeline.is_empty() {
            while pipeline.has_room()
                && let Some((number, params)) = waiting.pop_first()
            {
                pipeline.push(number, params);
            }
            pipeline.turn(|_, answer| match answer {
                Ok(item) => {
                    progress.inc(1);
                    file.write(item)
                }
                // It was deleted since it was listed.
                Err(refusal) if refusal.code == "not_found" => {
                    gone += 1;
                    Ok(())
                }
                Err(refusal) => Err(refusal.into()),
            })?;
            if interrupted.load(Ordering::Relaxed) {
                let text = format!("interrupted: {} is as it was", args.file.display());
                return Err(Trouble::Failed(text));
            }
        }
        if cursor.is_none() {
            break;
        }
    }
    progress.finish_and_clear();
    file.finish()?;
    let written = number - gone;
    if let Some(namespace) = args.namespace.as_ref().filter(|_| written == 0) {
        let file = args.file.display();
        let text = format!("there is nothing in the namespace {namespace:?}: {file} is as it was");
        return Err(Trouble::Failed(text));
    }
    parts.put_in_place()?;
    match json {
        true => writeln!(out, r#"{{"written":{written}}}"#)?,
        false => writeln!(out, "wrote {written} items")?,
    }
    check_losses(node)?;
    Ok(true)
}

/// Finds out whether the memory has lost anything that could not be written.
fn check_losses(node: &mut Remote) -> Result<(), Trouble> {
    let stats = node.call("memory.stats", &Params::new())?;
    let figure = |name| stats.get(name).and_then(View::uint).unwrap_or(0);
    let (items, unnamed) = (figure("lost_count"), figure("lost_unnamed_count"));
    let is_least = stats.get("lost_more").and_then(View::bool) == Some(true);
    let lost = Lost { items, unnamed, is_least };
    if lost.is_nothing() {
        return Ok(());
    }
    let told = stats.get("lost").map(View::items).into_iter().flatten();
    let told: Vec<&str> = told.filter_map(View::str).collect();
    let mut text = format!("{lost} and could not be written:");
    told.iter().for_each(|damage| text += &format!("\n  {damage}"));
    if (told.len() as u64) < lost.items {
        text += "\n  and more";
    }
    Err(Trouble::Failed(text))
}

/// The files that are written, each under another name until all is in it: an export that ends early
/// leaves what was there. Dropping it removes what is not in its place.
struct Parts {
    path: PathBuf,
    /// Where each is written, and its place.
    files: Vec<(PathBuf, PathBuf)>,
}

impl Parts {
    fn of(path: &Path) -> Self {
        let with = |end: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            PathBuf::from(name)
        };
        let mut files = vec![(with(".part"), path.to_owned())];
        if path.extension().is_some_and(|extension| extension == "npy") {
            files.insert(0, (with(".keys.part"), with(".keys")));
        }
        Self { path: path.to_owned(), files }
    }

    fn put_in_place(mut self) -> Result<(), Trouble> {
        for (written, place) in std::mem::take(&mut self.files) {
            let named = std::fs::rename(written, &place);
            named.map_err(|error| failed(&place.display().to_string(), &error))?;
        }
        Ok(())
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        for (written, _) in &self.files {
            // It may not have been made.
            let _ = std::fs::remove_file(written);
        }
    }
}

/// The file that is written.
enum Target {
    Jsonl(String, BufWriter<File>),
    Npy(NpyWriter<BufWriter<File>>, String, BufWriter<File>),
}

impl Target {
    fn open(parts: &Parts, namespace: Option<&str>, dimension: usize) -> Result<Self, Trouble> {
        match parts.path.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl") => {
                let (name, file) = create(&parts.files[0].0)?;
                Ok(Self::Jsonl(name, file))
            }
            Some("npy") if namespace.is_none() => Err(Trouble::Usage(
                "a .npy file has no place for namespaces: name one with --namespace".into(),
            )),
            Some("npy") => {
                let vectors = NpyWriter::create(&parts.files[1].0, dimension);
                let vectors = vectors.map_err(|error| Trouble::Failed(error.to_string()))?;
                let (name, file) = create(&parts.files[0].0)?;
                Ok(Self::Npy(vectors, name, file))
            }
            _ => Err(Trouble::Usage(format!(
                "{}: the name ends in neither .jsonl nor .npy",
                parts.path.display()
            ))),
        }
    }

    /// Writes an item as `memory.get` answers it.
    fn write(&mut self, item: View<'_>) -> Result<(), Trouble> {
        let text = |name| item.get(name).and_then(View::str).map(str::to_owned);
        let vector = item.get("vector").map(numbers).unwrap_or_default();
        match self {
            Self::Jsonl(name, file) => {
                let content = text("text").map_or(Content::Vector(vector), Content::Text);
                let metadata = item.get("metadata").filter(|it| it.fields().next().is_some());
                let record = Record {
                    position: 0,
                    key: text("key"),
                    namespace: text("namespace"),
                    content,
                    metadata: metadata.map(|it| it.bytes().to_vec()).unwrap_or_default(),
                };
                write_line(file, &record).map_err(|error| failed(name, &error))
            }
            Self::Npy(vectors, name, file) => {
                let key = text("key").unwrap_or_default();
                if key.contains(['\n', '\r']) {
                    let text = format!("the key {key:?} has a line break: export to .jsonl");
                    return Err(Trouble::Failed(text));
                }
                let written = vectors.write_row(&vector);
                written.map_err(|error| Trouble::Failed(error.to_string()))?;
                writeln!(file, "{key}").map_err(|error| failed(name, &error))
            }
        }
    }

    fn finish(self) -> Result<(), Trouble> {
        match self {
            Self::Jsonl(name, mut file) => file.flush().map_err(|error| failed(&name, &error)),
            Self::Npy(vectors, name, mut file) => {
                vectors.finish().map_err(|error| Trouble::Failed(error.to_string()))?;
                file.flush().map_err(|error| failed(&name, &error))
            }
        }
    }
}

fn create(path: &Path) -> Result<(String, BufWriter<File>), Trouble> {
    let name = path.display().to_string();
    match File::create(path) {
        Ok(file) => Ok((name, BufWriter::new(file))),
        Err(error) => Err(failed(&name, &error)),
    }
}

fn failed(name: &str, error: &std::io::Error) -> Trouble {
    Trouble::Failed(format!("{name}: {error}"))
}
