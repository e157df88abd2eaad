//! `coreflow agent list|spawn|stop|send|call`.

use super::{
    common::Common,
    remote::{self, Connect, Remote, Table, Trouble, json_of, print_json},
};
use crate::{
    client::{Params, View},
    wire::id::{AgentAddress, AgentId},
};
use clap::{Args, Subcommand};
use std::{io::Write, process::ExitCode};

/// Show, start, stop and talk to the agents of a running node
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    coreflow agent list --type echo\n  \
    coreflow agent list --all\n  \
    coreflow agent list --all --capability 'code review'\n  \
    coreflow agent spawn echo --name parrot\n  \
    coreflow agent call parrot '\"hello\"'\n  \
    coreflow agent call 0.3.1 '{\"say\":\"hello\"}'")]
pub struct AgentArgs {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List agents
    List {
        /// Only those of this type
        #[arg(long = "type", value_name = "TYPE")]
        agent_type: Option<String>,
        /// Those of all nodes of the cluster
        #[arg(long)]
        all: bool,
        /// Only those that can do this, in the words of `capabilities` in [[agent]]
        #[arg(long, requires = "all")]
        capability: Option<String>,
    },
    /// Start an agent of a configured type and print its id
    Spawn {
        /// The type
        #[arg(value_name = "TYPE")]
        agent_type: String,
        /// A name, which no other agent has
        #[arg(long)]
        name: Option<String>,
    },
    /// Stop an agent
    Stop {
        /// The agent
        id: AgentId,
    },
    /// Send an agent a message, which it may or may not act on
    Send {
        /// The agent, of any node: its id or its name
        #[arg(value_name = "AGENT")]
        agent: String,
        /// A JSON value; - reads it from standard input
        #[arg(allow_hyphen_values = true)]
        payload: String,
    },
    /// Send an agent a message and print its answer
    Call {
        /// The agent, of any node: its id or its name
        #[arg(value_name = "AGENT")]
        agent: String,
        /// A JSON value; - reads it from standard input
        #[arg(allow_hyphen_values = true)]
        payload: String,
        /// How long to wait for the answer, milliseconds
        #[arg(long, value_name = "N", default_value_t = 5000)]
        timeout_ms: u64,
    },
}

/// Runs the subcommand; results go to `out`, errors to `err`.
pub fn run(
    args: &AgentArgs,
    common: &Common,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> ExitCode {
    let json = common.json;
    remote::run(&args.connect, common, err, |node| {
        match &args.action {
            Action::List { agent_type, all: true, capability } => {
                list_all(node, (agent_type.as_deref(), capability.as_deref()), json, out)?;
            }
            Action::List { agent_type, all: false, .. } => {
                list(node, agent_type.as_deref(), json, out)?;
            }
            Action::Spawn { agent_type, name } => {
                let params = Params::new().str("type", agent_type).str_if("name", name.as_deref());
                let answer = node.call("agent.spawn", &params)?;
                match answer.get("id").and_then(View::str) {
                    Some(id) if !json => writeln!(out, "{id}")?,
                    _ => print_json(out, answer)?,
                }
            }
            Action::Stop { id } => say(out, node.call("agent.stop", &of(*id))?, json, "stopped")?,
            Action::Send { agent, payload } => {
                let params = to(agent).value("payload", &node.payload(payload)?);
                say(out, node.call("agent.send", &params)?, json, "sent")?;
            }
            Action::Call { agent, payload, timeout_ms } => {
                let params = to(agent)
                    .value("payload", &node.payload(payload)?)
                    .uint_if("timeout_ms", Some(*timeout_ms));
                let answer = node.call_waiting("agent.call", &params, *timeout_ms)?;
                match answer.get("result") {
                    Some(result) if !json => writeln!(out, "{}", json_of(result)?)?,
                    _ => print_json(out, answer)?,
                }
            }
        }
        Ok(true)
    })
}

/// The receiver of a message: an id, or the name of an agent.
fn to(agent: &str) -> Params {
    let field = if agent.parse::<AgentAddress>().is_ok() { "id" } else { "name" };
    Params::new().str(field, agent)
}

fn of(id: AgentId) -> Params {
    Params::new().str("id", &id.to_string())
}

/// Says that something was done whose answer has nothing in it.
fn say(out: &mut dyn Write, answer: View<'_>, json: bool, done: &str) -> Result<(), Trouble> {
    match json {
        true => print_json(out, answer),
        false => Ok(writeln!(out, "{done}")?),
    }
}

fn list(
    node: &mut Remote,
    agent_type: Option<&str>,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Trouble> {
    const HEADINGS: [&str; 8] = ["ID", "TYPE", "KIND", "NAME", "STATE", "TASKS", "DONE", "FAILED"];
    const FIELDS: [&str; 8] = ["id", "type", "kind", "name", "state", "tasks", "done", "failed"];
    let answer = node.call("agent.list", &Params::new().str_if("type", agent_type))?;
    if json {
        return print_json(out, answer);
    }
    let mut table = Table::new(&HEADINGS);
    let agents = answer.get("agents").map(View::items);
    agents.into_iter().flatten().for_each(|agent| table.add(agent, &FIELDS));
    Ok(table.write(out)?)
}

/// Lists the agents of all nodes, part by part.
fn list_all(
    node: &mut Remote,
    (agent_type, capability): (Option<&str>, Option<&str>),
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Trouble> {
    let mut table = Table::new(&["ID", "NODE", "TYPE", "NAME", "STATUS"]);
    let mut cursor: Option<String> = None;
    loop {
        let params = Params::new().bool("all", true).str_if("type", agent_type);
        let params = params.str_if("capability", capability);
        let answer = node.call("agent.list", &params.str_if("cursor", cursor.as_deref()))?;
        let agents = answer.get("agents").map(View::items);
        for agent in agents.into_iter().flatten() {
            match json {
                true => print_json(out, agent)?,
                false => table.add(agent, &["id", "node", "type", "name", "status"]),
            }
        }
        cursor = answer.get("cursor").and_then(View::str).map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    match json {
        true => Ok(()),
        false => Ok(table.write(out)?),
    }
}
