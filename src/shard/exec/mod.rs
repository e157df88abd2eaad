//! `exec` agents, and the embedder that runs as they do (`embedder`): a long-lived child process that reads a JSON object a line and writes one back.
//!
//! To the child: `{"id","attempt","type","payload","deadline_ms"}`; from it: `{"id","result"}` or
//! `{"id","error","retry"}`. `deadline_ms` is the time that is left for the attempt.
//!
//! Invariants worth naming:
//! - Whatever else the child does ends it: other text on standard output, a line that is too
//!   long, an answer to nothing, its death, or silence until an attempt's time is up. What it
//!   worked on counts as a failed attempt and the agent starts anew, with a new child.
//! - A child that does not read makes nobody wait: its lines are bounded by its tasks, whose
//!   timeouts end it.
//! - A child whose agent is gone is killed with everything in its process group, whatever it does
//!   or leaves undone. One that dies is noticed even if its own children keep its output open.
//! - Standard error goes to the log: pieces of bounded length, so many of them in a second.

mod child;
pub mod embedder;
mod log;
mod protocol;

use super::{
    agent::{Agent, Message, Outcome, Task},
    context::Context,
    handle::Lease,
};
use crate::wire::id::TaskId;
use child::{Tasks, ToChild};
use std::{cell::RefCell, rc::Rc};

/// An agent that is a child process.
pub struct Exec {
    agent_type: String,
    command: Vec<String>,
    max_line_bytes: usize,
    /// What the child works on; shared with the future that reads its answers.
    tasks: Rc<RefCell<Tasks>>,
    to_child: Option<ToChild>,
}

impl Exec {
    /// An agent that starts `command`, program and arguments, when it starts.
    pub fn new(agent_type: String, command: Vec<String>, max_line_bytes: usize) -> Self {
        Self { agent_type, command, max_line_bytes, tasks: Rc::default(), to_child: None }
    }
}

impl Agent for Exec {
    fn on_start(&mut self, context: &mut Context<'_>) {
        // Tasks wait until the child runs.
        context.pause();
        let (to_child, run) = child::run(
            self.command.clone(),
            self.tasks.clone(),
            context.handle(),
            self.max_line_bytes,
        );
        self.to_child = Some(to_child);
        context.spawn_future(run);
    }

    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        // A child knows tasks only; a caller is told at once and does not wait for its timeout.
        if let Some(caller) = message.reply_to() {
            context.refuse(caller, "an exec agent takes tasks, not messages");
        }
    }

    fn on_task(&mut self, task: &Task<'_>, _: &mut Vec<u8>, context: &mut Context<'_>) -> Outcome {
        let left_ms = task.deadline_ms.saturating_sub(context.now_ms());
        let line =
            protocol::request(task.id, task.attempt, &self.agent_type, task.payload, left_ms);
        let line = match line {
            Ok(line) => line,
            Err(error) => return Outcome::Failed { error, retry: false },
        };
        self.tasks.borrow_mut().insert(task.id, task.lease);
        if let Some(to_child) = &self.to_child {
            to_child.send(line);
        }
        Outcome::Later
    }

    fn on_abandoned(&mut self, lease: Lease, context: &mut Context<'_>) {
        let working_on_it = self.tasks.borrow().values().any(|running| *running == lease);
        if working_on_it {
            // There is no way to make a child stop one task: it is replaced, and gets no other
            // task until then.
            context.pause();
            context.handle().crash("an attempt was given up while the child worked on it");
        }
    }

    fn on_stop(&mut self, _: &mut Context<'_>) {
        // The child's standard input closes and the future that holds the child ends it.
        self.to_child = None;
    }
}

/// A task as the child names it.
fn parse_id(text: &str) -> Option<TaskId> {
    text.parse().ok()
}
