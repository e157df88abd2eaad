//! `coreflow dead list|requeue`.

use super::{
    common::Common,
    remote::{self, Connect},
    tasks::{self, Pages},
};
use crate::{client::Params, wire::id::TaskId};
use clap::{Args, Subcommand};
use std::{io::Write, process::ExitCode};

/// Show the dead letters of a running node, and give them another life
///
/// A task is a dead letter when its last attempt failed. It is kept until it is queued again, or
/// until there are more than the node keeps.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    coreflow dead list\n  \
    coreflow dead requeue t0-… t1-…")]
pub struct DeadArgs {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List dead letters with the error of their last attempt
    List {
        #[command(flatten)]
        pages: Pages,
    },
    /// Queue dead letters again, with all of their attempts
    Requeue {
        /// The tasks
        #[arg(required = true, value_name = "ID")]
        ids: Vec<TaskId>,
    },
}

/// Runs the subcommand; results go to `out`, errors to `err`.
pub fn run(args: &DeadArgs, common: &Common, out: &mut dyn Write, err: &mut dyn Write) -> ExitCode {
    remote::run(&args.connect, common, err, |node| match &args.action {
        Action::List { pages } => {
            tasks::list(node, "dead.list", &Params::new(), pages, common.json, out)
        }
        Action::Requeue { ids } => {
            for id in ids {
                node.call("dead.requeue", &Params::new().str("id", &id.to_string()))?;
                // Each is told as it is done: a later one may fail.
                match common.json {
                    true => writeln!(out, "{{\"id\":\"{id}\",\"requeued\":true}}")?,
                    false => writeln!(out, "{id} is queued again")?,
                }
            }
            Ok(true)
        }
    })
}
