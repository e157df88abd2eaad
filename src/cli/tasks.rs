//! Lists from a running node, page after page: what `task list`, `dead list` and `memory list` print.

use super::remote::{Remote, Table, Trouble, json_of};
use crate::{
    client::{Params, View},
    wire::json::string,
};
use clap::Args;
use std::io::Write;

/// How much of a list to show.
#[derive(Args, Debug)]
pub struct Pages {
    /// Stop after this many; of tasks the node's pages are shown whole
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = one_or_more)]
    limit: u64,
    /// Begin where an earlier list stopped
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
}

/// Reads a number that may not be zero.
pub(super) fn one_or_more(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("a whole number, 1 or more".into()),
    }
}

/// What a list is of, and how it is shown.
pub(super) struct Listing<'a> {
    /// The method that gives its pages.
    pub method: &'a str,
    /// The field of a page with the entries.
    pub field: &'a str,
    /// The most entries that a page may be asked to have, where it may be asked.
    pub page_max: Option<u64>,
    /// The fields of an entry that are shown; their headings are the same in capitals.
    pub shown: &'a [&'a str],
}

/// Asks `method` for page after page and prints the tasks.
pub(super) fn list(
    remote: &mut Remote,
    method: &str,
    filter: &Params,
    pages: &Pages,
    json: bool,
    out: &mut dyn Write,
) -> Result<bool, Trouble> {
    let shown = &["id", "type", "status", "priority", "attempts", "error"];
    let listing = Listing { method, field: "tasks", page_max: None, shown };
    list_all(remote, &listing, filter, pages, json, out)
}

/// Asks for page after page and prints the entries.
pub(super) fn list_all(
    remote: &mut Remote,
    listing: &Listing<'_>,
    filter: &Params,
    pages: &Pages,
    json: bool,
    out: &mut dyn Write,
) -> Result<bool, Trouble> {
    let Listing { method, field, page_max, shown } = listing;
    let headings: Vec<_> = shown.iter().map(|name| name.to_uppercase()).collect();
    let headings: Vec<_> = headings.iter().map(String::as_str).collect();
    let mut table = Table::new(&headings);
    let mut entries_json = Vec::new();
    let (mut cursor, mut count) = (pages.cursor.clone(), 0_u64);
    loop {
        let left = page_max.map(|max| max.min(pages.limit - count));
        let params = filter.clone().str_if("cursor", cursor.as_deref()).uint_if("limit", left);
        let page = remote.call(method, &params)?;
        let entries = page.get(field).ok_or_else(|| {
            Trouble::Failed(format!("the node's answer to {method} has no {field}"))
        })?;
        for entry in entries.items() {
            count += 1;
            match json {
                true => entries_json.push(json_of(entry)?),
                false => table.add(entry, shown),
            }
        }
        let next = page.get("cursor").and_then(View::str).map(str::to_owned);
        let ended = next.is_none() || next == cursor || count >= pages.limit;
        cursor = next;
        if ended {
            break;
        }
    }
    if json {
        let mut text = format!("{{\"{field}\":[{}]", entries_json.join(",")).into_bytes();
        if let Some(cursor) = cursor {
            text.extend_from_slice(b",\"cursor\":");
            string(&mut text, &cursor);
        }
        text.extend_from_slice(b"}\n");
        out.write_all(&text)?;
    } else {
        table.write(out)?;
        if let Some(cursor) = cursor {
            writeln!(out, "there are more: --cursor {cursor}")?;
        }
    }
    Ok(true)
}
