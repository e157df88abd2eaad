//! `coreflow memory put|import|search|get|delete|list|stats|export`.

mod export;
mod import;
mod pipeline;

use super::{
    common::Common,
    remote::{self, Connect, Remote, Table, Trouble, cell, one_line, print_json},
    tasks::{self, Listing, Pages},
};
use crate::{
    client::{Params, View},
    memory::formats::NpyReader,
    wire::msgpack::write,
};
use clap::{Args, Subcommand};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use std::{
    io::Write,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

/// The most items in one part of a list, as the node allows.
const LIST_MAX: u64 = 1000;
/// What stands for recall where searches were asked for and none could be compared.
const NOTHING_TO_COMPARE: &str = "- (no partition has two items: nothing to search for)";

/// Store vectors and texts in a running node's pattern memory, and find them again
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    coreflow memory put lesson-1 --text 'The migration timed out' --metadata '{\"by\":\"me\"}'\n  \
    coreflow memory import vectors.npy --namespace papers --keys-from titles.txt\n  \
    coreflow memory search 'timeouts of the database' -k 5\n  \
    coreflow memory search --file queries.npy --row 7 --json\n  \
    coreflow memory export backup.jsonl")]
pub struct MemoryArgs {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    Put(PutArgs),
    Import(import::ImportArgs),
    Search(SearchArgs),
    /// Print one item as JSON
    Get {
        /// Its name
        key: String,
        /// The namespace that it is in
        #[arg(long, value_name = "NAME", default_value = "default")]
        namespace: String,
        /// Print its vector too
        #[arg(long)]
        vector: bool,
    },
    /// Forget an item; exit code 1 when there was none
    Delete {
        /// Its name
        key: String,
        /// The namespace that it is in
        #[arg(long, value_name = "NAME", default_value = "default")]
        namespace: String,
    },
    /// List items, in no order that means anything
    List {
        /// Only those of this namespace
        #[arg(long, value_name = "NAME")]
        namespace: Option<String>,
        #[command(flatten)]
        pages: Pages,
    },
    /// Print the memory's figures
    Stats {
        /// Estimate recall with so many searches, each with a scan of everything
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1000))]
        sample: Option<u64>,
    },
    Export(export::ExportArgs),
}

/// Store one item; one of the same name is replaced
#[derive(Args, Debug)]
struct PutArgs {
    /// Its name; one is made up and printed when it is left out
    key: Option<String>,
    #[command(flatten)]
    content: Content,
    /// What is kept with it, a JSON object; - reads standard input
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// The namespace that it goes to
    #[arg(long, value_name = "NAME", default_value = "default")]
    namespace: String,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Content {
    /// A text, for the node's embedder
    #[arg(long)]
    text: Option<String>,
    /// A vector, a JSON array; - reads standard input
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    vector: Option<String>,
}

/// Print the items nearest to a text or a vector, best first
#[derive(Args, Debug)]
struct SearchArgs {
    #[command(flatten)]
    query: Query,
    /// The row of the file that is looked for, from 0
    #[arg(long, value_name = "N", default_value_t = 0, requires = "file")]
    row: u64,
    /// Items at most
    #[arg(short, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    k: u64,
    /// Only items of this namespace
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// How widely to look [default: memory.ef_search of the node]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4096))]
    ef: Option<u64>,
    /// Only items whose metadata have these fields, a JSON object; - reads standard input
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Query {
    /// A text, for the node's embedder
    #[arg(value_name = "TEXT")]
    words: Option<String>,
    /// The same as a flag
    #[arg(long)]
    text: Option<String>,
    /// A vector, a JSON array; - reads standard input
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    vector: Option<String>,
    /// A .npy file with vectors
    #[arg(long, value_name = "Q.npy")]
    file: Option<PathBuf>,
}

/// Runs the subcommand; results go to `out`, errors to `err`.
pub fn run(
    args: &MemoryArgs,
    common: &Common,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> ExitCode {
    let json = common.json;
    remote::run_telling(&args.connect, common, err, |node, _, err| match &args.action {
        Action::Put(args) => put(node, args, json, out),
        Action::Import(args) => import::import(node, args, json, out, err),
        Action::Search(args) => search(node, args, json, out),
        Action::Get { key, namespace, vector } => {
            let params = named(namespace, key).bool("vector", *vector);
            print_json(out, node.call("memory.get", &params)?).map(|()| true)
        }
        Action::Delete { key, namespace } => {
            let answer = node.call("memory.delete", &named(namespace, key))?;
            let deleted = answer.get("deleted").and_then(View::bool) == Some(true);
            match (json, deleted) {
                (true, _) => print_json(out, answer)?,
                (false, true) => writeln!(out, "deleted")?,
                (false, false) => writeln!(out, "there was none")?,
            }
            Ok(deleted)
        }
        Action::List { namespace, pages } => {
            let filter = Params::new().str_if("namespace", namespace.as_deref());
            let shown = &["key", "namespace", "text", "metadata"];
            let page_max = Some(LIST_MAX);
            let listing = Listing { method: "memory.list", field: "items", page_max, shown };
            tasks::list_all(node, &listing, &filter, pages, json, out)
        }
        Action::Stats { sample } => {
            let answer = node.call("memory.stats", &Params::new().uint_if("sample", *sample))?;
            if json {
                return print_json(out, answer).map(|()| true);
            }
            let is_sampled = sample.is_some_and(|searches| searches > 0);
            Ok(figures(answer, is_sampled).write(out).map(|()| true)?)
        }
        Action::Export(args) => export::export(node, args, json, out),
    })
}

fn put(
    node: &mut Remote,
    args: &PutArgs,
    json: bool,
    out: &mut dyn Write,
) -> Result<bool, Trouble> {
    let mut params = Params::new()
        .str("namespace", &args.namespace)
        .str_if("key", args.key.as_deref())
        .str_if("text", args.content.text.as_deref());
    if let Some(vector) = &args.content.vector {
        params = params.value("vector", &node.json("--vector", vector)?);
    }
    if let Some(metadata) = &args.metadata {
        params = params.value("metadata", &node.json("--metadata", metadata)?);
    }
    let answer = node.call("memory.put", &params)?;
    if json {
        return print_json(out, answer).map(|()| true);
    }
    let key = answer.get("key").and_then(View::str).unwrap_or_default();
    match answer.get("replaced").and_then(View::bool) {
        Some(true) => writeln!(out, "stored {key} in the place of another")?,
        _ => writeln!(out, "stored {key}")?,
    }
    Ok(true)
}

/// The parameters that name an item.
fn named(namespace: &str, key: &str) -> Params {
    Params::new().str("namespace", namespace).str("key", key)
}

fn search(
    node: &mut Remote,
    args: &SearchArgs,
    json: bool,
    out: &mut dyn Write,
) -> Result<bool, Trouble> {
    let mut params = Params::new()
        .uint_if("k", Some(args.k))
        .str_if("namespace", args.namespace.as_deref())
        .uint_if("ef", args.ef)
        .str_if("text", args.query.words.as_deref().or(args.query.text.as_deref()));
    if let Some(vector) = &args.query.vector {
        params = params.value("vector", &node.json("--vector", vector)?);
    }
    if let Some(file) = &args.query.file {
        let vector = row(file, args.row)?;
        params = params.with("vector", |out| write::bin(out, &bytes_of(&vector)));
    }
    if let Some(filter) = &args.filter {
        params = params.value("filter", &node.json("--filter", filter)?);
    }
    let answer = node.call("memory.search", &params)?;
    if json {
        return print_json(out, answer).map(|()| true);
    }
    let hits = answer.get("hits").map(View::items).into_iter().flatten();
    let mut table = Table::new(&["SCORE", "KEY", "NAMESPACE", "TEXT", "METADATA"]);
    hits.for_each(|hit| table.add(hit, &["score", "key", "namespace", "text", "metadata"]));
    Ok(table.write(out).map(|()| true)?)
}

/// What `memory.stats` answers, a line for each entry of what is a map or a list.
fn figures(answer: View<'_>, is_sampled: bool) -> Table {
    let mut table = Table::new(&["FIGURE", "VALUE"]);
    for (name, value) in answer.fields().filter(|(name, _)| *name != "partitions") {
        let of_map =
            value.fields().map(|(entry, value)| (format!("{name}.{}", one_line(entry)), value));
        let of_list = value.items().map(|value| (name.to_owned(), value));
        let mut entries = of_map.chain(of_list).peekable();
        if entries.peek().is_some() {
            entries.for_each(|(name, value)| table.row([name, cell(value)]));
        } else if name == "bytes_per_vector" {
            table.row([name.to_owned(), format!("{:.0}", value.float().unwrap_or_default())]);
        } else {
            let text = Some(cell(value)).filter(|text| !matches!(&text[..], "{}" | "[]"));
            table.row([name.to_owned(), text.unwrap_or_else(|| "-".to_owned())]);
        }
    }
    if is_sampled && answer.get("recall").is_none() {
        table.row(["recall".to_owned(), NOTHING_TO_COMPARE.to_owned()]);
    }
    table
}

/// A row of a file of vectors.
fn row(file: &std::path::Path, row: u64) -> Result<Vec<f32>, Trouble> {
    let wrong = |error| Trouble::Usage(format!("{error}"));
    let mut reader = NpyReader::open(file).map_err(wrong)?;
    let (mut vector, rows) = (Vec::new(), reader.rows());
    reader.seek(row).map_err(wrong)?;
    match reader.read_row(&mut vector).map_err(wrong)? {
        true => Ok(vector),
        false => Err(Trouble::Usage(format!("{}: there are {rows} rows", file.display()))),
    }
}

/// Set by the first SIGINT or SIGTERM from now on; the second one ends the program as it would without
/// this.
fn hear_signals() -> Result<Arc<AtomicBool>, Trouble> {
    let heard = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let second = flag::register_conditional_default(signal, heard.clone());
        let first = second.and_then(|_| flag::register(signal, heard.clone()));
        first.map_err(|error| Trouble::Failed(format!("signals: {error}")))?;
    }
    Ok(heard)
}

/// A vector as requests carry it fastest: float32 in little endian.
fn bytes_of(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// The numbers of a vector in an answer.
fn numbers(vector: View<'_>) -> Vec<f32> {
    vector.items().map(|number| number.float().unwrap_or(f64::NAN) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json;

    fn shown(json: &str, is_sampled: bool) -> String {
        let (mut text, mut answer, mut out) = (json.as_bytes().to_vec(), Vec::new(), Vec::new());
        let document = json::Document::parse(&mut text, 1 << 16).expect("it is JSON");
        json::to_msgpack(document.root(), &mut answer);
        figures(View::new(&answer), is_sampled).write(&mut out).expect("there is room");
        String::from_utf8(out).expect("it is text")
    }

    #[test]
    fn figures_are_shown_without_json() {
        let stats = r#"{"count":3,"embedder":"lexical","durable":true,"bytes_per_vector":612.384765,
            "namespaces":{"a\nb":2,"c":1},"partitions":[{"count":3}],"damaged":[],
            "lost":["one","two"],"recall":{"recall":0.98765432,"queries":3}}"#;
        let expected = "FIGURE            VALUE\ncount             3\nembedder          lexical\n\
            durable           true\nbytes_per_vector  612\nnamespaces.a b    2\nnamespaces.c      1\n\
            damaged           -\nlost              one\nlost              two\n\
            recall.recall     0.9877\nrecall.queries    3\n";
        assert_eq!(shown(stats, true), expected);
    }

    #[test]
    fn a_sample_of_an_empty_memory_says_why_it_has_no_recall() {
        let stats = r#"{"count":0,"bytes_per_vector":0.0,"namespaces":{},"damaged":[]}"#;
        let without = "FIGURE            VALUE\ncount             0\nbytes_per_vector  0\n\
            namespaces        -\ndamaged           -\n";
        assert_eq!(shown(stats, false), without);
        let recall = format!("recall            {NOTHING_TO_COMPARE}\n");
        assert_eq!(shown(stats, true), format!("{without}{recall}"));
    }
}
