//! Lists of tasks from a running node, page after page: what `task list` and `dead list` print.

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
    /// Stop after this many; the node's pages are shown whole
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
    /// Begin where an earlier list stopped
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
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
    const FIELDS: [&str; 6] = ["id", "type", "status", "priority", "attempts", "error"];
    let mut table = Table::new(&["ID", "TYPE", "STATUS", "PRIORITY", "ATTEMPTS", "ERROR"]);
    let mut tasks_json = Vec::new();
    let (mut cursor, mut count) = (pages.cursor.clone(), 0);
    loop {
        let params = filter.clone().str_if("cursor", cursor.as_deref());
        let page = remote.call(method, &params)?;
        let tasks = page.get("tasks").ok_or_else(|| {
            Trouble::Failed(format!("the node's answer to {method} has no tasks"))
        })?;
        for task in tasks.items() {
            count += 1;
            match json {
                true => tasks_json.push(json_of(task)?),
                false => table.add(task, &FIELDS),
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
        let mut text = format!("{{\"tasks\":[{}]", tasks_json.join(",")).into_bytes();
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
