//! An agent in Rust: a clerk that files words, answers how often it has seen one, and runs tasks.
//!
//! `cargo run --release --example agent`

use coreflow::{
    config::Config,
    node::{AgentOptions, NodeBuilder, gateway::Gateway},
    shard::{
        agent::{Agent, Message, Outcome, Task},
        context::Context,
    },
    wire::{
        api::TaskSpec,
        msgpack::{Reader, write},
    },
};
use std::{collections::HashMap, error::Error};

/// Its state needs no lock: an agent lives on one core, and its methods are called one at a time.
#[derive(Default)]
struct Clerk {
    seen: HashMap<String, u64>,
}

impl Agent for Clerk {
    /// A message files a word. A call is a message that waits for an answer: the count.
    fn on_message(&mut self, message: &Message<'_>, context: &mut Context<'_>) {
        let Ok(word) = Reader::new(message.payload()).str() else { return };
        let count = self.seen.entry(word.to_owned()).or_default();
        match message.reply_to() {
            None => *count += 1,
            Some(caller) => {
                let mut answer = Vec::new();
                write::uint(&mut answer, *count);
                context.reply(caller, &answer);
            }
        }
    }

    /// A task is accepted once, may be tried several times, and ends with a result or an error.
    fn on_task(&mut self, task: &Task<'_>, result: &mut Vec<u8>, _: &mut Context<'_>) -> Outcome {
        match Reader::new(task.payload).str() {
            Ok(text) => {
                write::uint(result, text.split_whitespace().count() as u64);
                Outcome::Done
            }
            Err(_) => Outcome::Failed { error: "the payload is not a text".into(), retry: false },
        }
    }
}

fn value(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    write::str(&mut bytes, text);
    bytes
}

fn main() -> Result<(), Box<dyn Error>> {
    let node = NodeBuilder::new(Config::parse("", "the defaults", &[])?)
        .agent("clerk", AgentOptions::default(), Clerk::default)
        .start()?;
    let handle = node.handle();
    let clerk = handle.wait(|gateway| gateway.spawn("clerk".into(), Some("ada".into())))?;
    for _ in 0..3 {
        handle.wait(move |gateway| gateway.send(clerk, value("ring")))?;
    }
    let answer = handle.wait(move |gateway| gateway.call(clerk, value("ring"), 0))?;
    println!("the clerk has seen \"ring\" {} times", Reader::new(&answer).uint().unwrap_or(0));

    let payload = value("never lose a task that was accepted");
    let spec = TaskSpec { agent_type: "clerk".into(), payload, ..TaskSpec::default() };
    let id = handle.wait(move |gateway| gateway.submit(vec![spec]))?[0];
    let ended = handle.wait(move |gateway| gateway.task(id, 10_000))?;
    let words = ended.result.as_deref().and_then(|result| Reader::new(result).uint().ok());
    println!("task {id} is {} with {words:?} words", ended.status.name());
    Ok(node.shutdown()?)
}
