//! `coreflow task submit|status|result|list|cancel`.

use super::{
    common::Common,
    remote::{self, Connect, Remote, Table, Trouble, json_of, print_json},
    tasks::{self, Pages, one_or_more},
};
use crate::{
    client::{Params, View},
    wire::{
        api::{Priority, TaskStatus},
        id::TaskId,
    },
};
use clap::{Args, Subcommand};
use std::{io::Write, process::ExitCode};

/// Submit tasks to a running node and follow them
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    coreflow task submit sha256 '\"abc\"'\n  \
    coreflow task submit echo - --key order-7 < payload.json\n  \
    coreflow task result t0-… --wait-ms 10000\n  \
    coreflow task list --status dead --json")]
pub struct TaskArgs {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    Submit(SubmitArgs),
    /// Tell where a task is in its life
    Status {
        /// The task
        id: TaskId,
    },
    /// Print a task's result; exit code 1 when there is none (yet)
    Result {
        /// The task
        id: TaskId,
        /// Wait this long for its end, milliseconds
        #[arg(long, value_name = "N", default_value_t = 0)]
        wait_ms: u64,
    },
    /// List tasks
    List {
        /// Only those with this status: queued, delayed, running, done, dead or cancelled
        #[arg(long, value_parser = status)]
        status: Option<TaskStatus>,
        /// Only those of this agent type
        #[arg(long = "type", value_name = "TYPE")]
        agent_type: Option<String>,
        #[command(flatten)]
        pages: Pages,
    },
    /// Cancel a task; exit code 1 when it had ended before
    Cancel {
        /// The task
        id: TaskId,
    },
}

/// Submit a task and print its id: once it is printed, the node has accepted the task
#[derive(Args, Debug)]
struct SubmitArgs {
    /// The agent type that runs it
    #[arg(value_name = "TYPE")]
    agent_type: String,
    /// A JSON value; - reads it from standard input
    #[arg(default_value = "null", allow_hyphen_values = true)]
    payload: String,
    /// low, normal, high or critical [default: normal]
    #[arg(long, value_parser = priority)]
    priority: Option<Priority>,
    /// A second submission with this key is the same task
    #[arg(long)]
    key: Option<String>,
    /// Run it no sooner than this, milliseconds from now
    #[arg(long, value_name = "N")]
    delay_ms: Option<u64>,
    /// How long one attempt may take, milliseconds [default: tasks.timeout_ms of the node]
    #[arg(long, value_name = "N", value_parser = one_or_more)]
    timeout_ms: Option<u64>,
    /// Attempts before it is a dead letter [default: tasks.max_attempts of the node]
    #[arg(long, value_name = "N", value_parser = one_or_more)]
    max_attempts: Option<u64>,
    /// Keep it in memory only: faster, and gone when the node ends
    #[arg(long)]
    not_durable: bool,
    /// Wait for its end, up to this long, and print what `task result` prints
    #[arg(long, value_name = "N")]
    wait_ms: Option<u64>,
}

fn status(name: &str) -> Result<TaskStatus, String> {
    let names = TaskStatus::ALL.map(TaskStatus::name).join(", ");
    TaskStatus::from_name(name).ok_or_else(|| format!("one of {names}"))
}

fn priority(name: &str) -> Result<Priority, String> {
    let names = Priority::ALL.map(Priority::name).join(", ");
    Priority::from_name(name).ok_or_else(|| format!("one of {names}"))
}

/// Runs the subcommand; results go to `out`, errors to `err`.
pub fn run(args: &TaskArgs, common: &Common, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    let json = common.json;
    remote::run(&args.connect, common, err, |node| match &args.action {
        Action::Submit(args) => submit(node, args, json, out),
        Action::Status { id } => {
            let task = node.call("task.status", &of(*id))?;
            show_status(task, json, out).map(|()| true)
        }
        Action::Result { id, wait_ms } => result(node, &id.to_string(), *wait_ms, json, out),
        Action::List { status, agent_type, pages } => {
            let filter = Params::new()
                .str_if("status", status.map(TaskStatus::name))
                .str_if("type", agent_type.as_deref());
            tasks::list(node, "task.list", &filter, pages, json, out)
        }
        Action::Cancel { id } => {
            let answer = node.call("task.cancel", &of(*id))?;
            let cancelled = answer.get("cancelled").and_then(View::bool) == Some(true);
            match (json, cancelled) {
                (true, _) => print_json(out, answer)?,
                (false, true) => writeln!(out, "cancelled")?,
                (false, false) => writeln!(out, "it had ended before")?,
            }
            Ok(cancelled)
        }
    })
}

fn of(id: TaskId) -> Params {
    Params::new().str("id", &id.to_string())
}

fn submit(
    node: &mut Remote,
    args: &SubmitArgs,
    json: bool,
    out: &mut dyn Write,
) -> Result<bool, Trouble> {
    let mut params = Params::new()
        .str("type", &args.agent_type)
        .value("payload", &node.payload(&args.payload)?)
        .str_if("priority", args.priority.map(Priority::name))
        .str_if("key", args.key.as_deref())
        .uint_if("delay_ms", args.delay_ms)
        .uint_if("timeout_ms", args.timeout_ms)
        .uint_if("max_attempts", args.max_attempts);
    if args.not_durable {
        params = params.bool("durable", false);
    }
    let answer = node.call("task.submit", &params)?;
    let id = answer.get("id").and_then(View::str);
    let id = id.ok_or_else(|| Trouble::Failed("the node gave the task no id".into()))?.to_owned();
    match args.wait_ms {
        Some(wait_ms) => result(node, &id, wait_ms, json, out),
        None if json => print_json(out, answer).map(|()| true),
        None => Ok(writeln!(out, "{id}").map(|()| true)?),
    }
}

fn show_status(task: View<'_>, json: bool, out: &mut dyn Write) -> Result<(), Trouble> {
    if json {
        return print_json(out, task);
    }
    let mut table = Table::new(&["ID", "TYPE", "STATUS", "PRIORITY", "ATTEMPTS", "ERROR"]);
    table.add(task, &["id", "type", "status", "priority", "attempts", "error"]);
    Ok(table.write(out)?)
}

/// Prints the result, or why there is none; tells whether the task is done.
fn result(
    node: &mut Remote,
    id: &str,
    wait_ms: u64,
    json: bool,
    out: &mut dyn Write,
) -> Result<bool, Trouble> {
    let params = Params::new().str("id", id).uint_if("wait_ms", Some(wait_ms));
    let task = node.call_waiting("task.result", &params, wait_ms)?;
    let status = task.get("status").and_then(View::str).unwrap_or("unknown");
    let done = status == TaskStatus::Done.name();
    if json {
        print_json(out, task)?;
    } else if done {
        // A result that is nil is a result.
        let result = task.get("result").map_or_else(|| Ok("null".to_owned()), json_of)?;
        writeln!(out, "{result}")?;
    } else {
        let error = task.get("error").and_then(View::str);
        let why = error.map_or(String::new(), |error| format!(": {error}"));
        return Err(Trouble::Failed(format!("task {id} is {status}{why}")));
    }
    Ok(done)
}
